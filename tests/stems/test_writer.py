import threading

import pytest

from htdemucs.stems.writer import BackgroundThread, read_ahead


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("length", [0, 1, 3, 20])
def test_items_come_in_order(count, length):
    assert list(read_ahead(range(length), count)) == list(range(length))


def test_items_are_made_in_another_thread_before_they_are_taken():
    made = threading.Event()

    def items():
        yield threading.get_ident()
        made.set()
        yield threading.get_ident()

    ahead = read_ahead(items(), 2)
    assert next(ahead) != threading.get_ident()
    assert made.wait(10)
    assert len(list(ahead)) == 1


def test_what_making_an_item_raises_is_raised_in_its_place():
    def items():
        yield 1
        raise OSError("no more")

    ahead = read_ahead(items(), 3)
    assert next(ahead) == 1
    with pytest.raises(OSError, match="no more"):
        next(ahead)


def test_closing_ends_an_endless_source():
    made = []

    def endless():
        while True:
            made.append(len(made))
            yield made[-1]

    ahead = read_ahead(endless(), 2)
    assert [next(ahead), next(ahead)] == [0, 1]
    ahead.close()
    count = len(made)
    assert count <= 4
    assert not [t for t in threading.enumerate() if t.name.startswith("read ahead")]
    assert len(made) == count


def test_calls_run_in_order_in_one_other_thread():
    calls = []
    with BackgroundThread(2) as thread:
        for i in range(20):
            thread.submit(lambda i=i: calls.append((i, threading.get_ident())))
        thread.wait()
        assert [i for i, _ in calls] == list(range(20))
    assert {ident for _, ident in calls} != {threading.get_ident()}
    assert len({ident for _, ident in calls}) == 1


def test_a_failing_call_is_reported():
    with BackgroundThread(1) as thread:
        thread.submit(int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            thread.wait()


def test_an_exception_leaves_waiting_calls_out():
    started, go, calls = threading.Event(), threading.Event(), []

    def first():
        started.set()
        go.wait(10)

    def interrupted():
        with BackgroundThread(5) as thread:
            thread.submit(first)
            thread.submit(calls.append, 1)
            started.wait(10)
            threading.Timer(0.05, go.set).start()
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert not calls
