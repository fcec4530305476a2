"""The stream of events: whole tracks, versions, nothing lost."""

import asyncio
import json

import pytest

from htdemucs.serve import event_stream
from htdemucs.serve.event_stream import Changes


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(event_stream, "EVERY", 0.001)


def parsed(text):
    lines = dict(line.split(": ", 1) for line in text.strip().splitlines())
    data = json.loads(lines["data"])
    assert lines["event"] == "tracks"
    assert lines["id"] == str(data["version"])
    return data


def following(service, since, steps):
    """The events of a stream; before each one after the first, the next step is made."""

    async def follow():
        news = Changes(service.tracks)
        await news.start()
        stream = news.follow(since)
        events = [parsed(await anext(stream))]
        for step in steps:
            await asyncio.to_thread(step)
            events.append(parsed(await anext(stream)))
        await stream.aclose()
        assert news.streams == 0
        await news.stop()
        return events

    return asyncio.run(follow())


def add(service, name):
    return service.tracks.add(kind="upload", state="queued", name=name)


def test_a_new_page_gets_everything_and_then_what_changes(service):
    one = add(service, "one")
    gone = add(service, "gone")
    service.deletion.delete(gone)
    first, second, third = following(
        service,
        None,
        [lambda: service.tracks.change(one, title="x"), lambda: service.deletion.delete(one)],
    )
    assert first["whole"]
    assert [track["name"] for track in first["tracks"]] == ["one"]
    assert first["removed"] == []
    assert not second["whole"]
    assert second["version"] > first["version"]
    assert second["tracks"][0]["title"] == "x"
    assert third["tracks"] == []
    assert third["removed"] == [one]


def test_a_page_that_comes_again_gets_what_it_missed(service):
    one, two = add(service, "one"), add(service, "two")
    three = service.tracks.add(kind="library", state="found", name="three")
    version = service.database.version()
    service.tracks.change(one, title="x")
    service.deletion.delete(two)
    [event] = following(service, version, [])
    assert [track["id"] for track in event["tracks"]] == [one]
    assert event["removed"] == [two]
    assert not event["whole"]
    assert three not in str(event)


def test_a_page_of_another_database_gets_everything(service):
    add(service, "one")
    [event] = following(service, 1 << 40, [])
    assert event["whole"]
    assert len(event["tracks"]) == 1


def test_the_page_s_last_event_is_understood(client, service, monkeypatch):
    asked = []

    async def follow(self, since):
        asked.append(since)
        yield "event: tracks\n\n"

    monkeypatch.setattr(Changes, "follow", follow)
    assert client.get("/api/events", headers={"last-event-id": "7"}).text == "event: tracks\n\n"
    client.get("/api/events?since=3")
    client.get("/api/events", headers={"last-event-id": "nonsense"})
    assert asked == [7, 3, None]


def test_a_slow_page_is_told_to_come_again(service, monkeypatch):
    monkeypatch.setattr(event_stream, "MOST_WAITING", 2)

    async def follow():
        news = Changes(service.tracks)
        await news.start()
        stream = news.follow(None)
        await anext(stream)
        for number in range(4):
            before = news._version
            await asyncio.to_thread(add, service, str(number))
            while news._version == before:
                await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        events = [text async for text in stream]
        await news.stop()
        return events

    assert len(asyncio.run(follow())) <= 2  # and then the stream ends


def test_streams_have_an_end(client, service):
    service.changes._streams.update(range(200))
    answer = client.get("/api/events")
    assert answer.status_code == 429
    service.changes._streams.clear()
