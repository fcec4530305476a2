"""A database that does not answer for a while loses nothing, and is reported once."""

import logging
import threading

import pytest
from sqlalchemy.exc import OperationalError

from htdemucs.errors import ServerError
from htdemucs.serve.db import Database
from htdemucs.serve.periodic import PeriodicThread
from serve import postgresql as postgres

FAILURE = OperationalError("select", {}, Exception("the database\nis gone"))


def fail(*_args, **_settings):
    raise FAILURE


def test_requests_are_answered_with_503(client, state, monkeypatch):
    monkeypatch.setattr(state.database, "reading", fail)
    monkeypatch.setattr(state.database, "writing", fail)
    for path in ("/health", "/api/tracks", "/api/tracks/x", "/api/events", "/metrics"):
        response = client.get(path)
        assert (response.status_code, response.json()["code"]) == (503, "database"), path
        assert response.headers["retry-after"] == "5"
    assert client.post("/api/tracks/x/cancel").status_code == 503


def test_periodic_work_reports_an_outage_once_and_its_end(caplog):
    calls, recovered = [], threading.Event()

    def call():
        calls.append(1)
        if len(calls) < 4:
            raise FAILURE
        recovered.set()

    thread = PeriodicThread("events", 0.001, call)
    thread.start()
    assert recovered.wait(30)
    thread.stop()
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "events: the database is gone; trying again"
    assert messages[1:] == ["events: works again"]
    assert caplog.records[0].exc_info is False or caplog.records[0].exc_info is None


@pytest.fixture
def postgresql():
    with postgres.running() as url:
        yield url


@pytest.fixture
def database_url(postgresql):
    return postgresql


def test_postgresql_may_restart_any_number_of_times(
    client, worker, state, write_song, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("htdemucs.serve.worker.QUEUE_INTERVAL", 0.01)
    track = client.upload(write_song(tmp_path / "song.flac"))["id"]
    check, restarts = state.jobs.__class__.check, []

    def check_and_restart(self, *arguments):
        if len(restarts) < 4:
            restarts.append(1)
            postgres.restart(state.settings.database)
        return check(self, *arguments)

    monkeypatch.setattr(state.jobs.__class__, "check", check_and_restart)
    for _ in range(10):
        try:
            while worker.work():
                pass
            break
        except OperationalError as error:
            worker.wait_for_database(error)
    assert client.track(track)["state"] == "finished"
    assert len(restarts) == 4
    assert "Traceback" not in caplog.text


def test_a_damaged_database_is_refused_in_one_line(tmp_path):
    path = tmp_path / "htdemucs.db"
    database = Database(f"sqlite:///{path}")
    with database.writing() as (connection, _):
        connection.exec_driver_sql("create table filler (text)")
        for _ in range(50):
            connection.exec_driver_sql("insert into filler values (zeroblob(4000))")
    database.close()
    content = bytearray(path.read_bytes())
    for page in range(4, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xa5" * 64
    path.write_bytes(content)
    logging.disable()
    with pytest.raises(ServerError, match=r"htdemucs\.db is damaged"):
        Database(f"sqlite:///{path}")
    logging.disable(logging.NOTSET)
