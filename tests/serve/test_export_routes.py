"""Downloads of a finished track, and its samples at another tempo."""

import asyncio
import io
import threading
import zipfile
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
import torch

from htdemucs.audio import AudioEncoding, AudioFile
from htdemucs.errors import AudioError
from htdemucs.formats import FORMATS


@pytest.fixture
def track(client, worker, write_song, tmp_path):
    track = client.upload(write_song(tmp_path / "Früh & spät.flac"))
    assert worker.work()
    return client.track(track["id"])


@pytest.fixture
def export(client, track):
    def get(**choices):
        return client.get(f"/api/tracks/{track['id']}/export", params=choices)

    return get


def name_of(response):
    return unquote(response.headers["content-disposition"].partition("utf-8''")[2])


def samples(response, tmp_path, suffix):
    assert response.status_code == 200, response.text
    path = tmp_path / f"answer.{suffix}"
    path.write_bytes(response.content)
    return torch.cat(list(AudioFile(path)), dim=1)


def test_a_stem_as_it_is_on_disk_or_in_another_format(client, track, export, tmp_path):
    stored = client.get(track["files"]["vocals"]["url"])
    response = export(kind="stem", stem="vocals")
    assert response.content == stored.content
    assert name_of(response) == "Früh & spät - vocals.wav"
    flac = export(kind="stem", stem="vocals", format="flac")
    assert torch.equal(samples(flac, tmp_path, "flac"), samples(stored, tmp_path, "wav"))
    assert samples(
        export(kind="stem", stem="bass", format="mp3", bitrate=64), tmp_path, "mp3"
    ).numel()


def qualities():
    """Every format of the command line, in every quality that it names."""
    for name, row in FORMATS.items():
        yield from [{"format": name, "bit_depth": depth} for depth in row.bit_depths]
        if not row.is_lossless:
            yield {"format": name}
        if rates := row.bitrates:
            yield from [{"format": name, "bitrate": rate} for rate in (rates[0], rates[-1])]
    yield {"format": "mp3", "bitrate": 128, "mp3_preset": 7}


def test_every_format_and_quality_of_the_command_line(export, tmp_path):
    for quality in qualities():
        response = export(kind="stem", stem="vocals", to=0.5, **quality)
        assert response.status_code == 200, (quality, response.text)
        assert name_of(response).endswith(f".{AudioEncoding(quality['format']).extension}")
        path = tmp_path / f"answer.{quality['format']}"
        path.write_bytes(response.content)
        file = AudioFile(path)
        assert file.duration == pytest.approx(0.5, abs=0.1)
        assert file.bit_depth == quality.get("bit_depth")


def test_the_zip_with_the_residual_adds_up(client, track, export, tmp_path):
    response = export(residual=1, format="flac")
    assert name_of(response) == "Früh & spät.zip"
    total = 0
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.namelist() == [
            f"Früh & spät/{stem}.flac" for stem in (*track["stems"], "residual")
        ]
        for name in archive.namelist():
            (tmp_path / "stem.flac").write_bytes(archive.read(name))
            total = total + torch.cat(list(AudioFile(tmp_path / "stem.flac")), dim=1).double()
    source = client.get(f"/api/tracks/{track['id']}/source")
    assert torch.equal(total, samples(source, tmp_path, "flac").double())


def test_the_mix_is_what_the_mixer_says(client, track, export, tmp_path):
    response = export(
        kind="mix", format="wav", bit_depth=32, gains="drums:0,bass:0.5,other:0", pans="vocals:-1",
        **{"from": 1, "to": 2.5},
    )  # fmt: skip
    assert name_of(response) == "Früh & spät (mix).wav"
    stems = {
        stem: samples(client.get(track["files"][stem]["url"]), tmp_path, "wav")[:, 8000:20_000]
        for stem in ("bass", "vocals")
    }
    expected = 0.5 * stems["bass"] + torch.tensor([[1.0], [0.0]]) * stems["vocals"]
    torch.testing.assert_close(samples(response, tmp_path, "wav"), expected)


def test_a_download_has_a_name_for_every_program(export):
    """curl -OJ reads only `filename`."""
    header = export(kind="mix", format="wav").headers["content-disposition"]
    assert header.startswith('attachment; filename="Fr_h & sp_t (mix).wav"; filename*=utf-8')


@pytest.fixture
def slow_exports(monkeypatch):
    """Let exports wait for `go`, and count them."""
    go, begun = threading.Event(), []

    def make_files(track, *_):
        begun.append(track)
        go.wait()
        list(track.blocks())
        raise AudioError("made")

    monkeypatch.setattr("htdemucs.serve.export_routes._make_files", make_files)
    monkeypatch.setattr("htdemucs.serve.export_routes.POLL_INTERVAL", 0.01)
    return SimpleNamespace(go=go, begun=begun)


def test_downloads_that_wait_hold_no_thread(client, track, slow_exports):
    path = f"/api/tracks/{track['id']}/export"

    async def responses():
        async with client.session() as session:
            waiting = [asyncio.create_task(session.get(path)) for _ in range(60)]
            while len(slow_exports.begun) < 2:
                await asyncio.sleep(0.01)
            health = await session.get("/health")
            slow_exports.go.set()
            return health, await asyncio.gather(*waiting)

    health, downloads = asyncio.run(responses())
    assert health.status_code == 200
    assert {response.json()["error"] for response in downloads} == {"made"}
    assert len(slow_exports.begun) == 60


def test_a_client_that_leaves_frees_its_place(client, track, state, slow_exports):
    async def download(*, leaves):
        """Send a request as a server would, whose client leaves when asked."""
        sent, messages = [], asyncio.Queue()
        await messages.put({"type": "http.request", "body": b"", "more_body": False})
        scope = {
            "type": "http", "method": "GET", "path": f"/api/tracks/{track['id']}/export",
            "headers": [(b"host", b"localhost")], "query_string": b"", "http_version": "1.1",
            "scheme": "http", "root_path": "", "server": ("localhost", 80), "client": None,
        }  # fmt: skip

        async def send(message):
            sent.append(message)

        task = asyncio.create_task(client.app(scope, messages.get, send))
        if leaves:
            await messages.put({"type": "http.disconnect"})
        return task, sent

    async def leave():
        first = [await download(leaves=False) for _ in range(2)]
        while len(slow_exports.begun) < 2:
            await asyncio.sleep(0.01)
        waiting, sent = await download(leaves=True)
        await waiting
        assert sent[0]["status"] == 499
        slow_exports.go.set()
        await asyncio.gather(*(task for task, _ in first))

    asyncio.run(leave())
    assert len(slow_exports.begun) == 2  # the third was never made
    assert list(state.settings.exports.iterdir()) == []


def test_parts_at_another_tempo(export, tmp_path):
    part = {"from": 0.5, "to": 2.5, "tempo": 0.8, "pitch": -3}
    mix = samples(export(kind="mix", format="flac", **part), tmp_path, "flac")
    assert mix.shape == (2, 20_000)
    with zipfile.ZipFile(io.BytesIO(export(format="flac", **part).content)) as archive:
        assert len(archive.namelist()) == 4


def test_the_stem_file(export):
    response = export(kind="stem-file")
    assert name_of(response) == "Früh & spät.stem.mp4"
    assert response.content[4:8] == b"ftyp"


def test_impossible_exports_are_refused_and_leave_no_files(export, state):
    for choices, words in [
        ({"kind": "stem"}, "has the stems"),
        ({"kind": "stem", "stem": "../vocals"}, "has the stems"),
        ({"format": "exe"}, "unknown format"),
        ({"format": "flac", "bit_depth": 32}, "cannot hold 32 bit"),
        ({"format": "mp3", "bitrate": 999}, "999 kbit"),
        ({"kind": "mix", "gains": "vocals"}, "vocals:0.5"),
        ({"kind": "mix", "gains": "kazoo:1"}, "no stem kazoo"),
        ({"kind": "mix", "gains": "vocals:nan"}, "gains must be"),
        ({"kind": "mix", "from": 3, "to": 2}, "after its beginning"),
        ({"kind": "mix", "tempo": 9}, "tempo"),
        ({"residual": 1, "to": 2}, "whole tracks"),
    ]:
        response = export(**choices)
        assert response.status_code in (400, 422), choices
        assert words in response.json()["error"]
        assert not list(state.settings.exports.iterdir()), choices


def test_exports_leave_no_files(export, state):
    for kind in ("zip", "mix", "stem-file"):
        assert export(kind=kind, format="mp3").status_code == 200
    assert not list(state.settings.exports.iterdir())


def test_a_track_that_is_not_finished_has_nothing_to_download(client, write_song, tmp_path):
    track = client.upload(write_song(tmp_path / "song.flac"))
    response = client.get(f"/api/tracks/{track['id']}/export")
    assert (response.status_code, "not finished" in response.json()["error"]) == (409, True)


@pytest.mark.parametrize("tempo", [0.5, 1.25])
def test_samples_at_another_tempo_are_read_in_chunks(client, track, tempo):
    def pcm(start, frames):
        query = {"from": start, "frames": frames, "stems": "bass,original", "tempo": tempo}
        response = client.get(f"/api/tracks/{track['id']}/pcm", params=query)
        return np.frombuffer(response.content, "<i2").reshape(-1, 2, 2)

    whole = round(32_000 / tempo)
    parts = [pcm(start, 9000) for start in range(0, whole, 9000)]
    assert sum(map(len, parts)) == whole
    sound = np.concatenate(parts).astype(float)
    level = np.sqrt(np.square(sound[:, 1]).mean())
    assert level == pytest.approx(0.1 * 2**15, rel=0.2)  # the song is noise at 0.1
    assert len(pcm(whole, 100)) == 0


def test_metrics_count_tracks(client, track):
    text = client.get("/metrics").text
    assert 'htdemucs_tracks{state="finished"} 1\n' in text
    assert "htdemucs_finished_audio_seconds 4\n" in text
