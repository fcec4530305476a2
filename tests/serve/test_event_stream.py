"""The stream of events: whole tracks, versions, nothing lost."""

import asyncio
import json

import pytest

from htdemucs.serve import event_stream
from htdemucs.serve.event_stream import Changes


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(event_stream, "POLL_INTERVAL", 0.001)


def parsed(text):
    lines = dict(line.split(": ", 1) for line in text.strip().splitlines())
    data = json.loads(lines["data"])
    assert lines["event"] == "tracks"
    assert lines["id"] == str(data["version"])
    return data


def following(state, since, steps):
    """The events of a stream; before each one after the first, the next step is made."""

    async def subscribe():
        news = Changes(state.tracks)
        await news.start()
        stream = news.subscribe(since)
        events = [parsed(await anext(stream))]
        for step in steps:
            await asyncio.to_thread(step)
            events.append(parsed(await anext(stream)))
        await stream.aclose()
        assert news.streams == 0
        await news.stop()
        return events

    return asyncio.run(subscribe())


def add(state, name):
    return state.tracks.add(kind="upload", state="queued", name=name)


def test_a_new_stream_gets_all_tracks_and_then_changes(state):
    one = add(state, "one")
    gone = add(state, "gone")
    state.deletion.delete(gone)
    first, second, third = following(
        state,
        None,
        [lambda: state.tracks.update(one, title="x"), lambda: state.deletion.delete(one)],
    )
    assert first["whole"]
    assert [track["name"] for track in first["tracks"]] == ["one"]
    assert first["removed"] == []
    assert not second["whole"]
    assert second["version"] > first["version"]
    assert second["tracks"][0]["title"] == "x"
    assert third["tracks"] == []
    assert third["removed"] == [one]


def test_a_stream_that_reconnects_gets_what_it_missed(state):
    one, two = add(state, "one"), add(state, "two")
    three = state.tracks.add(kind="library", state="unseparated", name="three")
    version = state.database.version()
    state.tracks.update(one, title="x")
    state.deletion.delete(two)
    [event] = following(state, version, [])
    assert [track["id"] for track in event["tracks"]] == [one]
    assert event["removed"] == [two]
    assert not event["whole"]
    assert three not in str(event)


def test_a_version_of_another_database_gets_all_tracks(state):
    add(state, "one")
    [event] = following(state, 1 << 40, [])
    assert event["whole"]
    assert len(event["tracks"]) == 1


def test_last_event_id_and_since_say_where_a_stream_continues(client, state, monkeypatch):
    asked = []

    async def subscribe(self, since):
        asked.append(since)
        yield "event: tracks\n\n"

    monkeypatch.setattr(Changes, "subscribe", subscribe)
    assert client.get("/api/events", headers={"last-event-id": "7"}).text == "event: tracks\n\n"
    client.get("/api/events?since=3")
    client.get("/api/events", headers={"last-event-id": "nonsense"})
    assert asked == [7, 3, None]


def test_the_stream_of_a_slow_client_ends(state, monkeypatch):
    monkeypatch.setattr(event_stream, "MAX_BACKLOG", 2)

    async def subscribe():
        news = Changes(state.tracks)
        await news.start()
        stream = news.subscribe(None)
        await anext(stream)
        for number in range(4):
            before = news._version
            await asyncio.to_thread(add, state, str(number))
            while news._version == before:
                await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        events = [text async for text in stream]
        await news.stop()
        return events

    assert len(asyncio.run(subscribe())) <= 2  # and then the stream ends


def test_the_number_of_streams_is_limited(client, state):
    state.changes._subscribers.update(range(200))
    response = client.get("/api/events")
    assert response.status_code == 429
    state.changes._subscribers.clear()
