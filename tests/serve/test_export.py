import io
import zipfile

import numpy as np
import pytest
import torch

from htdemucs import AudioEncoding, AudioError, AudioFile, OutputOptions, SeparationError
from htdemucs.audio import AudioWriter
from htdemucs.serve.export import FinishedTrack, Mix, export_mix, export_stems, zip_stream
from htdemucs.stems.mixer import Mixer
from serve.mixes import MIXES, STEMS

RATE = 8000
LENGTH = 150_001  # more than a block
FLOAT = AudioEncoding("wav", 32)
FLAC = AudioEncoding("flac", 16)


def write(path, waveform, encoding=FLAC):
    with AudioWriter(path, RATE, 2, encoding) as writer:
        writer.write(waveform)
    return path


def read(path):
    return torch.cat(list(AudioFile(path)), dim=-1)


@pytest.fixture(scope="module")
def stems():
    generator = torch.Generator().manual_seed(1)
    steps = torch.randint(-4000, 4000, (4, 2, LENGTH), generator=generator)
    return dict(zip(STEMS, steps / 2**15, strict=True))


@pytest.fixture(scope="module")
def song(stems, tmp_path_factory):
    folder = tmp_path_factory.mktemp("song")
    files = {name: write(folder / f"{name}.flac", stem) for name, stem in stems.items()}
    rest = torch.randint(-50, 50, (2, LENGTH), generator=torch.Generator().manual_seed(2))
    original = write(folder / "My song.flac", sum(stems.values()) + rest / 2**15)
    return FinishedTrack(files, original)


def test_a_mix_is_the_sum_of_gains_and_balances(song, stems, tmp_path):
    mix = Mix({"drums": 0, "bass": 0.5}, {"vocals": -0.25, "other": 1}, 1.0, 5.5)
    export_mix(song, mix, FLOAT, tmp_path / "mix.wav", "mix")
    sides = torch.tensor([[1.0], [0.75]]) * stems["vocals"]
    expected = 0.5 * stems["bass"] + torch.tensor([[0.0], [1.0]]) * stems["other"] + sides
    torch.testing.assert_close(read(tmp_path / "mix.wav"), expected[:, RATE : 5 * RATE + 4000])


def test_a_mix_that_would_clip_is_softer(song, stems, tmp_path):
    export_mix(song, Mix(dict.fromkeys(STEMS, 4.0)), FLAC, tmp_path / "mix.flac", "mix")
    loud = 4 * sum(stems.values())
    mixed = read(tmp_path / "mix.flac")
    assert float(mixed.abs().max()) == pytest.approx(1 / 1.01, abs=1e-3)
    torch.testing.assert_close(mixed * 1.01 * loud.abs().max(), loud, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("tempo", "semitones"), [(0.5, 0), (1.25, 3), (2, -12), (1, 2)])
def test_a_mix_at_another_tempo_is_as_long_as_the_tempo_says(song, tmp_path, tempo, semitones):
    mix = Mix(first=2, last=17.5, tempo=tempo, semitones=semitones)
    export_mix(song, mix, FLAC, tmp_path / "mix.flac", "mix")
    mixed = read(tmp_path / "mix.flac")
    assert mixed.shape[-1] == round(15.5 * RATE / tempo)
    level = mixed.unfold(-1, 4000, 4000).square().mean(-1).sqrt()
    assert level.min() > 0.3 * level.max()


def test_exported_stems_and_residual_add_up_to_the_original_exactly(song, tmp_path):
    options = OutputOptions(FLAC, residual="write")
    files = export_stems(song, options, options.output_paths(song.original, tmp_path))
    assert {name: path.name for name, path in files.items()} == {
        name: f"{name}.flac" for name in (*STEMS, "residual")
    }
    total = sum(read(path).double() for path in files.values())
    assert torch.equal(total, read(song.original).double())


def test_the_gain_of_the_stems_is_respected(stems, song, tmp_path):
    softer = {n: write(tmp_path / f"{n}.wav", 0.5 * s, FLOAT) for n, s in stems.items()}
    options = OutputOptions(FLOAT, residual="write")
    quiet = FinishedTrack(softer, song.original, 0.5)
    files = export_stems(quiet, options, options.output_paths(song.original, tmp_path / "out"))
    assert float(read(files["residual"]).abs().max()) <= 0.5 * 50 / 2**15
    torch.testing.assert_close(read(files["drums"]), 0.5 * stems["drums"])


def test_other_formats_two_stems_and_the_stem_file(song, stems, tmp_path):
    options = OutputOptions(AudioEncoding("mp3", bitrate=320), two_stems="vocals")
    files = export_stems(song, options, options.output_paths(song.original, tmp_path))
    assert set(files) == {"vocals", "no_vocals"}
    assert read(files["no_vocals"]).shape == (2, LENGTH)
    options = OutputOptions(stem_file=True)
    files = export_stems(song, options, options.output_paths(song.original, tmp_path))
    assert [path.name for path in files.values()] == ["My song.stem.mp4"]


def test_without_the_original_only_what_needs_it_is_refused(song, tmp_path):
    alone = FinishedTrack(song.stems)
    options = OutputOptions(FLAC)
    files = export_stems(alone, options, options.output_paths(song.original, tmp_path))
    assert torch.equal(read(files["bass"]), read(song.stems["bass"]))
    options = OutputOptions(residual="write")
    with pytest.raises(AudioError, match="does not exist any more"):
        export_stems(alone, options, options.output_paths(song.original, tmp_path))


def test_a_zip_holds_the_files_as_they_are(song):
    files = {f"My song/{name}.flac": path for name, path in song.stems.items()}
    parts = list(zip_stream(files))
    assert max(map(len, parts)) < 2**19  # it is not held whole
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as archive:
        assert archive.testzip() is None
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        assert {n: archive.read(n) for n in archive.namelist()} == {
            name: path.read_bytes() for name, path in files.items()
        }


@pytest.mark.parametrize(("settings", "factors"), MIXES)
def test_all_mixers_have_the_same_factors(settings, factors):
    """The page resolves mute and solo before it asks for a mix; the live mixer has no balance."""
    live = Mixer(STEMS, {stem: one["gain"] for stem, one in settings.items() if "gain" in one})
    for i, stem in enumerate(STEMS):
        for switch in ("mute", "solo"):
            if settings.get(stem, {}).get(switch):
                getattr(live, switch)(i)
    assert live.gains() == [
        0 if pair == [0, 0] else settings.get(stem, {}).get("gain", 1)
        for stem, pair in zip(STEMS, factors, strict=True)
    ]
    balances = {stem: one["pan"] for stem, one in settings.items() if "pan" in one}
    mix = Mix(dict(zip(STEMS, live.gains(), strict=True)), balances)
    torch.testing.assert_close(mix.matrix(STEMS, 2)[..., 0], torch.tensor(factors).float())


@pytest.mark.parametrize(
    "settings",
    [{"tempo": 3}, {"semitones": -13}, {"first": -1}, {"first": 2, "last": 2}, {"gains": {"a": 9}},
     {"balances": {"a": -1.5}}, {"tempo": np.nan}],
)  # fmt: skip
def test_impossible_mixes_are_refused(settings):
    with pytest.raises(SeparationError):
        Mix(**settings)


def test_a_mix_of_unknown_stems_is_refused(song, tmp_path):
    with pytest.raises(SeparationError, match="no stem kazoo"):
        export_mix(song, Mix({"kazoo": 0}), FLAC, tmp_path / "mix.flac", "mix")
    assert not list(tmp_path.iterdir())
