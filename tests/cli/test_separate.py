import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from films import RATE, film
from htdemucs import AudioFile

STEMS = ["bass", "drums", "other", "vocals"]


def files(folder):
    """Return the paths of all files in a folder, except manifests."""
    paths = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".json"]
    return sorted(str(p.relative_to(folder)) for p in paths)


def test_names_and_format_have_defaults(run, model_folder, song, tmp_path):
    out = tmp_path / "out"
    result = run("separate", song, "-n", model_folder, "-o", out, "-d", "cpu")
    assert result.exit_code == 0, result.output
    assert files(out) == [f"tiny/A song/{stem}.wav" for stem in STEMS]
    stem = AudioFile(out / "tiny" / "A song" / "bass.wav")
    assert (stem.codec, stem.source_sample_rate) == ("pcm_s16le", 8000)
    assert sum(block.shape[-1] for block in stem) == 20_000


@pytest.mark.parametrize(
    ("flags", "expected", "codec"),
    [
        (["--int24"], STEMS, "pcm_s24le"),
        (["--float32"], STEMS, "pcm_f32le"),
        (["--flac"], STEMS, "flac"),
        (["--mp3", "--mp3-bitrate", "128", "--mp3-preset", "7"], STEMS, "mp3"),
        (["--format", "opus"], STEMS, "opus"),
        (["--stems", "vocals,drums"], ["drums", "vocals"], "pcm_s16le"),
        (["--two-stems", "vocals"], ["no_vocals", "vocals"], "pcm_s16le"),
        (["--two-stems=vocals", "--other-method=minus"], ["minus_vocals", "vocals"], "pcm_s16le"),
        (["--two-stems", "vocals", "--other-method", "none"], ["vocals"], "pcm_s16le"),
        (["--shifts", "0", "--overlap", "0.5", "--segment", "0.5"], STEMS, "pcm_s16le"),
        (["-j", "2", "--clip-mode", "clamp", "--seed", "3"], STEMS, "pcm_s16le"),
        (["--batch-size", "3", "--quiet"], STEMS, "pcm_s16le"),
    ],
    ids=" ".join,
)
def test_flags_choose_stems_and_codec(run, model_folder, song, tmp_path, flags, expected, codec):
    out = tmp_path / "out"
    result = run("separate", song, "-n", model_folder, "-o", out, "-d", "cpu", *flags)
    assert result.exit_code == 0, result.output
    written = [out / name for name in files(out)]
    assert [path.stem for path in written] == expected
    assert {_codec(path) for path in written} == {codec}


def _codec(path):
    codec = AudioFile(path).codec
    return {"mp3float": "mp3", "libopus": "opus"}.get(codec, codec)


def test_stems_line_up_with_the_track_and_are_the_same_in_every_run(
    run, model_folder, song, tmp_path
):
    for out in ("one", "two"):
        assert run("separate", song, "-n", model_folder, "-o", tmp_path / out).exit_code == 0
    for stem in STEMS:
        first, second = (
            tmp_path / out / "tiny" / "A song" / f"{stem}.wav" for out in ("one", "two")
        )
        assert first.read_bytes() == second.read_bytes()


def test_the_filename_is_a_template(run, model_folder, song, tmp_path):
    template = "{stem}/{track} ({trackext}).{ext}"
    out = tmp_path / "out"
    run("separate", song, "-n", model_folder, "-o", out, "--filename", template)
    assert files(out) == [f"tiny/{stem}/A song (flac).wav" for stem in STEMS]


def test_one_bad_file_does_not_stop_the_others(run, model_folder, song, tmp_path):
    bad = tmp_path / "bad.mp3"
    bad.write_bytes(b"nothing")
    out = tmp_path / "out"
    missing = tmp_path / "missing.wav"
    result = run("separate", bad, missing, song, "-n", model_folder, "-o", out)
    assert result.exit_code == 1
    assert files(out) == [f"tiny/A song/{stem}.wav" for stem in STEMS]
    summary = result.stderr.partition("3 tracks: 1 separated, 2 failed")[2]
    assert "bad.mp3" in summary
    assert "missing.wav does not exist" in summary
    assert "Traceback" not in result.output


def test_two_tracks_of_the_same_name_do_not_overwrite_each_other(run, model_folder, song, tmp_path):
    other = tmp_path / "album" / song.name
    other.parent.mkdir()
    other.write_bytes(song.read_bytes())
    out = tmp_path / "out"
    result = run("separate", song, other, "-n", model_folder, "-o", out)
    assert result.exit_code == 0
    names = ("A song", "A song (2)")
    assert files(out) == sorted(f"tiny/{name}/{stem}.wav" for name in names for stem in STEMS)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "no tracks"),
        (["x.wav", "--flac", "--mp3"], "one format"),
        (["x.wav", "--int24", "--float32"], "choose one of --int24"),
        (["x.wav", "--bit-depth", "12"], "keep, 16, 24 or 32"),
        (["x.wav", "--bit-depth", "24", "--int24"], "choose one of"),
        (["x.wav", "--sample-rate", "fast"], "keep or 8000"),
        (["x.wav", "--sample-rate", "1"], "keep or 8000"),
        (["x.wav", "--stem-file", "--two-stems", "vocals"], "two stems"),
        (["x.wav", "--json", "-o", "-"], "standard output"),
        (["x.wav", "--filename", "{track}"], "stem"),
        (["x.wav", "--mp3", "--mp3-bitrate", "5000"], "mp3 cannot have 5000 kbit/s"),
        (["x.wav", "--bitrate", "320"], "wav has no bitrate"),
        (["x.wav", "--bitrate", "0", "--mp3"], "mp3 cannot have 0 kbit/s"),
        (["x.wav", "--mp3", "--bit-depth", "24"], "mp3 has no bit depth"),
        (["x.wav", "-n"], "htdemucs separate --help"),
        (["-out", "stems", "x.wav"], "no option -out; did you mean --out?"),
        (["x.wav", "-mp3"], "no option -mp3; did you mean --mp3?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_impossible_requests_end_with_one_line(run, words, match):
    result = run("separate", *words)
    assert result.exit_code == 2
    assert match in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--stems", "kazoo"], "kazoo"),
        (["--two-stems", "kazoo"], "kazoo"),
        (
            ["--segment", "99"],
            "99 s is longer than the 1 s the model was trained for; lower the segment",
        ),
        (["--overlap", "1.5"], "overlap"),
        (["--stems", "bass", "--two-stems", "bass"], "not both"),
        (["-d", "gameboy"], "gameboy"),
        (["-n", "htdemux"], "did you mean htdemucs?"),
        (["-n", "no/such/model"], "there is no such file or folder"),
        (["-n", "model.th"], "there is no such file or folder"),
        (["--repo", "nowhere"], "the repo nowhere is not a folder"),
        (["--stems", "vocals drums"], "separate names with commas: vocals,drums"),
    ],
    ids=" ".join,
)
def test_requests_that_the_model_cannot_fulfil_are_refused(
    run, model_folder, song, tmp_path, flags, match
):
    result = run("separate", song, "-n", model_folder, "-o", tmp_path / "out", *flags)
    assert result.exit_code == 2
    assert match in result.stderr


@pytest.mark.parametrize("below", ["", "folder"])
def test_a_file_as_output_folder_is_noticed_before_the_model_is_loaded(
    run, song, tmp_path, monkeypatch, below
):
    monkeypatch.setattr("htdemucs.batch.plan.load_model", None)
    file = tmp_path / "file"
    file.touch()
    result = run("separate", song, "-n", "mini", "-o", file / below)
    assert result.exit_code == 2
    assert f"{file} is a file; name a folder" in result.stderr


@pytest.mark.parametrize("words", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("stem", "hint"),
    [
        ("vocls", "no stem vocls; did you mean vocals?"),
        ("kazoo", "no stem kazoo; this model has drums, bass, other, vocals"),
        ("Instrumental", "choose vocals as one of two stems: no_vocals is then the instrumental"),
    ],
)
def test_stems_are_checked_before_a_download(run, song, monkeypatch, words, stem, hint):
    monkeypatch.setattr("htdemucs.batch.plan.load_model", None)
    for option in ("--stems", "--two-stems"):
        result = run("separate", song, option, stem, *words)  # of htdemucs, the default
        assert result.exit_code == 2
        assert hint in result.stderr
        assert "fetching" not in result.stderr


def test_a_dry_run_needs_no_download(run, song, tmp_path, monkeypatch):
    monkeypatch.setattr("htdemucs.batch.plan.load_model", None)
    monkeypatch.setattr("htdemucs.weights.registry.is_cached", lambda _: False)
    result = run("separate", song, "--dry-run", "-o", tmp_path)
    assert result.exit_code == 0, result.output
    assert "separate" in result.stdout
    assert str(tmp_path / "htdemucs" / "A song" / "vocals.wav") in result.stdout
    assert "must be downloaded first" in result.stderr


def test_stems_and_formats_in_any_case(run, model_folder, song, tmp_path):
    words = ("-n", model_folder, "-d", "cpu", "-o", tmp_path / "out", "--format", "FLAC")
    assert run("separate", song, *words, "--two-stems", "VOCALS").exit_code == 0
    assert run("separate", song, *words, "--stems", "Bass").exit_code == 0
    names = {path.name for path in tmp_path.glob("out/tiny/A song/*.flac")}
    assert names == {"vocals.flac", "no_vocals.flac", "bass.flac"}


def test_names_with_dashes_and_spaces_get_a_hint(run, song, tmp_path, monkeypatch):
    monkeypatch.chdir(song.parent)
    song.rename("-song.flac")
    result = run("separate", "-song.flac", "-n", "mini")
    assert (result.exit_code, "write ./-song.flac" in result.stderr) == (2, True)
    Path("-song.flac").rename("my tune.flac")
    result = run("separate", "my", "tune.flac", "-n", "mini")
    assert (result.exit_code, "did you mean 'my tune.flac'?" in result.stderr) == (2, True)


def test_tracks_that_cannot_be_read_are_listed_in_json(run, tmp_path):
    (tmp_path / "empty.mp3").touch()
    result = run("separate", tmp_path / "empty.mp3", tmp_path / "none.wav", "-n", "mini", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["failed"] == 2
    assert [t["track"] for t in document["tracks"]] == [
        str(tmp_path / name) for name in ("empty.mp3", "none.wav")
    ]
    assert [t["code"] for t in document["tracks"]] == ["no-audio"] * 2


def test_a_stem_that_is_named_twice_is_written_once(run, model_folder, song, tmp_path):
    out = tmp_path / "out"
    result = run("separate", song, "-n", model_folder, "-o", out, "--stems", "vocals,Vocals")
    assert result.exit_code == 0, result.output
    assert files(out) == ["tiny/A song/vocals.wav"]


def test_no_split_refuses_a_long_track(run, model_folder, song, tmp_path):
    result = run("separate", song, "-n", model_folder, "-o", tmp_path, "--no-split")
    assert result.exit_code == 1
    assert "allow splitting" in result.stderr


def test_list_models_prints_names(run, tmp_path):
    assert "htdemucs_6s" in run("separate", "--list-models").stdout
    for name in ("abc123-ffffffff.th", "plain.th", "two-parts-ffffffff.th", "a.yaml", "b.yml"):
        (tmp_path / name).touch()
    result = run("separate", "--list-models", "--repo", tmp_path)
    assert result.stdout.split() == ["a", "abc123", "b", "plain", "two-parts"]


def test_each_version_of_a_model_has_its_own_output_folder(run, model_folder, song, tmp_path):
    version = model_folder.rename(tmp_path / "v1.1")
    assert run("separate", song, "-n", version, "-o", tmp_path / "out").exit_code == 0
    assert len(list(tmp_path.glob("out/v1.1/A song/*.wav"))) == 4


def test_quiet_prints_nothing_but_each_error_once(run, model_folder, song, tmp_path):
    words = ("separate", song, "-n", model_folder, "-o", tmp_path / "out", "-q")
    assert run(*words).output == ""
    broken = tmp_path / "broken.flac"
    broken.write_bytes(b"nothing")
    result = run(*words, broken)
    assert result.exit_code == 1
    assert " ".join(result.output.split()).count("broken.flac") == 1


def test_a_space_in_the_list_of_stems_makes_a_missing_track(run, model_folder, song, tmp_path):
    """For the shell, the word after the space is another argument: a track."""
    words = ("separate", song, "-n", model_folder, "-o", tmp_path / "out")
    result = run(*words, "--stems", "vocals,", "drums")
    assert "drums does not exist" in result.stderr
    assert files(tmp_path / "out") == ["tiny/A song/vocals.wav"]


def test_python_m_htdemucs_runs_the_command(model_folder, song, tmp_path):
    """There is no terminal. An error is one line, with exit code 2."""
    command = [sys.executable, "-m", "htdemucs", "separate", "-n", str(model_folder), "-d", "cpu"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    good = subprocess.run(
        [*command, str(song), "-o", str(tmp_path / "out")],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert good.returncode == 0, good.stderr
    bad = subprocess.run(
        [sys.executable, "-m", "htdemucs", "separate", str(song), "-n", "nonsense"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: no model nonsense")
    assert len(bad.stderr.strip().splitlines()) == 1


def test_no_vocals_is_the_sum_of_the_other_stems(run, model_folder, song, tmp_path):
    flags = ["--float32", "--clip-mode", "none"]
    run("separate", song, "-n", model_folder, "-o", tmp_path / "a", *flags)
    run("separate", song, "-n", model_folder, "-o", tmp_path / "b", "--two-stems", "vocals", *flags)
    stems = {
        path.stem: torch.cat(list(AudioFile(path)), dim=-1)
        for path in [*tmp_path.glob("a/**/*.wav"), *tmp_path.glob("b/**/no_vocals.wav")]
    }
    others = stems["drums"] + stems["bass"] + stems["other"]
    torch.testing.assert_close(stems["no_vocals"], others, rtol=0, atol=1e-6)


def test_several_devices_share_the_tracks(run, model_folder, song, tmp_path):
    songs = [song] + [tmp_path / f"{i}.flac" for i in range(4)]
    for copy in songs[1:]:
        copy.write_bytes(song.read_bytes())
    broken = tmp_path / "broken.flac"
    broken.write_bytes(b"nothing")
    one, two = tmp_path / "one", tmp_path / "two"
    words = (*songs, song, broken, "-n", model_folder)
    alone = run("separate", *words, "-o", one, "-d", "cpu")
    shared = run("separate", *words, "-o", two, "-d", "cpu,cpu")
    assert shared.stderr.count("on cpu") == 2
    for result in (alone, shared):  # a track named twice is separated once
        assert result.exit_code == 1
        assert "6 tracks: 5 separated, 1 failed" in " ".join(result.stderr.split())
    written = sorted(path.relative_to(one) for path in one.rglob("*.wav"))
    assert len(written) == 20
    for path in written:
        assert (one / path).read_bytes() == (two / path).read_bytes()


def test_a_track_that_fails_keeps_its_place(run, model_folder, song, tmp_path):
    other = tmp_path / "elsewhere" / song.name
    other.parent.mkdir()
    other.write_bytes(b"nothing")
    result = run("separate", other, song, "-n", model_folder, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert files(tmp_path / "out") == [f"tiny/A song (2)/{stem}.wav" for stem in STEMS]


def test_a_template_that_leaves_the_folder_fails_for_every_track(run, model_folder, song, tmp_path):
    other = tmp_path / "other.flac"
    other.write_bytes(song.read_bytes())
    words = ("-n", model_folder, "-o", tmp_path / "out", "--filename", "../../../{stem}.{ext}")
    result = run("separate", song, other, *words)
    assert result.exit_code == 1
    assert "2 tracks: 2 failed" in " ".join(result.stderr.split())


def test_flags_of_the_published_command_are_accepted(run, model_folder, song, tmp_path):
    """`-s SIG` names one network; `-v` prints more on standard error."""
    words = ("separate", song, "--repo", model_folder.parent, "-o", tmp_path / "out", "-d", "cpu")
    result = run(*words, "-s", model_folder.name, "--verbose")
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "out") == [f"tiny/A song/{stem}.wav" for stem in STEMS]
    assert "model.safetensors" in result.stderr
    assert "model.safetensors" not in run(*words, "--sig", model_folder.name).stderr


def test_a_song_in_the_place_of_the_command_gives_a_hint(run, song):
    result = run(song, "-n", "mini")
    assert result.exit_code == 2
    assert f"htdemucs separate '{song}' -n mini" in " ".join(result.stderr.split())


def test_a_url_is_not_fetched(run, model_folder):
    result = run("separate", "https://example.org/a.mp3", "-n", model_folder)
    assert result.exit_code == 1
    assert "download the file" in result.stderr


def test_the_folder_of_the_songs_may_be_the_output_folder(run, model_folder, song, monkeypatch):
    """`-o .` works with patterns, playlists and folders."""
    monkeypatch.chdir(song.parent)
    (song.parent / "list.m3u").write_text(song.name)
    for word, status in (("*.flac", "A song"), ("list.m3u", "already"), (".", "already")):
        result = run("separate", word, "-n", model_folder, "-o", ".", "-d", "cpu")
        assert result.exit_code == 0, result.output
        assert status in result.stderr
    written = [name for name in files(song.parent / "tiny") if name.endswith(".wav")]
    assert written == [f"A song/{stem}.wav" for stem in STEMS]


def test_a_second_song_of_the_same_name_keeps_the_first_s_stems(run, model_folder, song, tmp_path):
    out = tmp_path / "out"
    other = tmp_path / "album" / song.name
    other.parent.mkdir()
    other.write_bytes(song.read_bytes()[:-100])
    for path in (song, other, song):
        run("separate", path, "-n", model_folder, "-o", out)
    folders = {name.split("/")[1] for name in files(out)}
    assert folders == {"A song", "A song (2)"}


def test_a_video_s_late_sound_is_told_and_can_be_aligned(run, model_folder, tmp_path):
    """`--align video` puts silence before it; the residual then lines up too."""
    sound = 0.1 * torch.randn(2, RATE, generator=torch.Generator().manual_seed(2))
    video = film(tmp_path / "late.mkv", "flac", sound, [RATE // 2, RATE // 2])
    words = ("separate", video, "-n", model_folder, "-d", "cpu", "--residual", "write")
    result = run(*words, "-o", tmp_path / "start")
    assert "starts 0.500 s late; set align to video to insert silence" in " ".join(
        result.stderr.split()
    )
    result = run(*words, "-o", tmp_path / "video", "--align", "video")
    assert result.exit_code == 0, result.output
    assert "insert silence" not in result.stderr
    start, aligned = (
        {path.stem: torch.cat(list(AudioFile(path)), 1) for path in (tmp_path / out).rglob("*.wav")}
        for out in ("start", "video")
    )
    assert {stem.shape[1] for stem in start.values()} == {RATE}
    assert {stem.shape[1] for stem in aligned.values()} == {RATE * 3 // 2}
    total = sum(stem.double() for stem in aligned.values())
    assert total[:, : RATE // 2].abs().max() == 0
    assert torch.equal(total[:, RATE // 2 :], sum(stem.double() for stem in start.values()))
