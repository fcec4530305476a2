"""The contract of page/api.js, behind which the page knows no server."""

import re

import pytest

from page.server import PAGE

pytestmark = pytest.mark.browser

EXPORTS = {
    "info", "exampleSong", "upload", "subscribe",  # the source
    "runAction", "edit", "seek", "separate", "separateAll", "deleteTracks",  # tracks
    "pcm", "peaks", "spectrogram", "fileUrl",  # sound
    "prepareExport", "prepareExports", "exportState", "cancelExport", "exportUrl",  # downloads
    "storage", "changeStorage", "deletePreviews", "ApiError",
}  # fmt: skip


@pytest.fixture
def call(open_page):
    """Return a function that runs a script with `api`; its arguments are `args`."""
    page = open_page()

    def call(script, *args):
        body = f"async (args) => {{ const api = await import('/page/api.js'); {script} }}"
        return page.evaluate(body, args)

    return call


def test_no_other_module_knows_the_server():
    for path in PAGE.rglob("*.js"):
        if path.name not in ("api.js", "service-worker.js"):
            code = path.read_text(encoding="utf-8")
            known = re.findall(r"\bfetch\(|XMLHttpRequest|EventSource|sendBeacon|[\"`/]api/", code)
            assert known == [], path.name


def test_the_exports_are_those_of_the_contract(call):
    assert set(call("return Object.keys(api)")) == EXPORTS


def test_info_and_storage(call):
    info = call("return await api.info()")
    assert {"models", "default_model", "formats", "limits", "stretch"} <= info.keys()
    assert {"name", "stems", "ready", "bytes", "licence"} <= info["models"][0].keys()
    assert "format" in call("return await api.storage()")
    assert call("return await api.changeStorage('flac')")["format"] == "flac"
    call("await api.deletePreviews()")


def test_an_upload_reports_its_progress_and_a_repeat_adds_nothing(call, server):
    track, again, sent = call("""
      const file = await api.exampleSong();
      const sent = [];
      const chosen = { model: "mini", stems: ["bass", "vocals"], shifts: 2 };
      const upload = () => api.upload(file, "key", chosen, (fraction) => sent.push(fraction)).done;
      return [await upload(), await upload(), sent.at(-1)];
    """)
    assert (track["name"], track["model"], track["state"]) == (
        "Example song.opus",
        "mini",
        "queued",
    )
    assert (track["stems"], track["shifts"], again["id"], sent) == (
        ["bass", "vocals"],
        2,
        track["id"],
        1,
    )
    assert len(server.songs) == 1


def test_the_actions_on_tracks(call, server):
    waiting, new = (server.add(f"{name}.mp3", 2, state="queued") for name in "ab")
    plain = server.add("c.mp3", 2, state="unseparated")
    assert call("return await api.runAction(args[0], 'first')", new.id)["position"] == 1
    assert call("return await api.runAction(args[0], 'cancel')", new.id)["state"] == "cancelled"
    assert call("return await api.runAction(args[0], 'retry')", new.id)["state"] == "queued"
    assert call("return await api.edit(args[0], { title: 'C' })", plain.id)["title"] == "C"
    server.separate(waiting, 1.0)
    call("await api.seek(args[0], 44100)", waiting.id)
    assert waiting.seek_frame == 44_100
    chosen = "{ model: 'mini', stems: null, shifts: 1 }"
    result = call(f"return await api.separateAll([args[0], args[1]], {chosen})", plain.id, new.id)
    assert result == {"queued": [plain.id], "refused": []}
    server.change(waiting, state="finished")
    again = call(f"return await api.separate(args[0], {chosen})", waiting.id)
    assert again["id"] != waiting.id
    call("await api.deleteTracks([args[0], args[1]])", plain.id, new.id)
    assert {plain.id, new.id}.isdisjoint(server.songs)


def test_the_sound_of_a_track(call, server):
    song = server.add("a.mp3", 3)
    frames, length, peaks, levels, empty = call(
        """
        const [track] = args;
        const { frames, samples } = await api.pcm(track, { from: 1000, frames: 4096 });
        const past = await api.pcm(track, { from: track.frames, frames: 100 });
        const peaks = await api.peaks(track.id, 0, 10);
        const levels = await api.spectrogram(track.id, "bass", 0, 8, 2);
        return [frames, samples.length, peaks.length, levels.length, past];
        """,
        song.values,
    )
    lanes = len(song.values["stems"]) + 1
    assert (frames, length, empty) == (4096, 4096 * 2 * lanes, None)
    assert (peaks, levels) == (10 * 2 * lanes, 8 * 96)
    url = call("return api.fileUrl(args[0])", song.values["files"]["bass"])
    assert call("return (await fetch(args[0])).ok", url)


def test_downloads_are_prepared_and_cancelled(call, server):
    song = server.add("a.mp3", 2)
    job = call(
        """
        const [id] = args;
        let job = await api.prepareExport(id, { kind: "stem", stem: "bass", format: "wav" });
        while (job.state === "preparing") job = await api.exportState(job.id);
        return { ...job, ok: (await fetch(api.exportUrl(job.id))).ok };
        """,
        song.id,
    )
    assert (job["state"], job["ok"]) == ("ready", True)
    several = call("return await api.prepareExports([args[0]], { format: 'wav' })", song.id)
    call("await api.cancelExport(args[0])", several["id"])


def test_the_stream_keeps_tracks_equal_and_errors_have_their_code(call, server):
    song = server.add("a.mp3", 2)
    names = call("""
      const { Tracks } = await import("/page/tracks.js");
      const tracks = new Tracks();
      const changed = new Promise((resolve) => tracks.addEventListener("change", resolve));
      const setPaused = api.subscribe(tracks, () => {});
      await changed;
      setPaused(true);
      return [tracks.size, tracks.version];
    """)
    assert names[0] == 1
    assert names[1] >= song.values["version"]
    error = call("""
      try {
        await api.edit("nonsense", { title: "x" });
      } catch (error) {
        return [error instanceof api.ApiError, error.status, error.message];
      }
    """)
    assert error == [True, 404, "there is no such track"]
