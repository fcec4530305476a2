"""Data sets in the layouts that they are published in, with generated files."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

import training_data
from helpers import snr
from htdemucs.errors import ConfigError
from htdemucs.training import prepare
from htdemucs.training.config import AugmentConfig, DataConfig, RootConfig
from htdemucs.training.dataloader import ExcerptSampler, StemDataset
from htdemucs.training.dataset import read_corpus
from htdemucs.training.layouts import MAPPINGS
from htdemucs.training.reading import read_excerpt, read_stem

RATE, SOURCES = training_data.RATE, training_data.SOURCES
SIX = (*SOURCES, "guitar", "piano")


@pytest.fixture
def read(tmp_path):
    def make(path, sources=SOURCES, rate=RATE, valid=(), **fields):
        return read_corpus(
            DataConfig(train=(RootConfig(path, **fields),), valid=valid, normalize=False),
            sources, channels=2, sample_rate=rate, cache=tmp_path / "cache",
        )  # fmt: skip

    return make


def write(path, seed, seconds=1.0, rate=RATE, channels=2, subtype="FLOAT"):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal((int(seconds * rate), channels))
    samples = (0.05 * noise).astype(np.float32)
    soundfile.write(path, samples, rate, subtype if path.suffix == ".wav" else None)
    return samples if channels == 2 else np.repeat(samples, 2, 1)


def content(recording, source, rate=RATE):
    """A source of a recording as an array (L, 2)."""
    return read_stem(recording.files[source], 0, recording.length, 2, rate).T.numpy()


def total(*parts):
    """Parts that begin together, padded and summed."""
    made = np.zeros((max(map(len, parts)), 2), np.float32)
    for part in parts:
        made[: len(part)] += part
    return made


def moisesdb(root):
    """PROVIDER/TRACK/data.json and PROVIDER/TRACK/STEM/ID.wav."""
    parts, stems = {}, []
    for i, (stem, count) in enumerate(
        {"drums": 2, "bass": 1, "vocals": 3, "guitar": 1, "other_keys": 1, "percussion": 1}.items()
    ):
        names = [f"{stem}-id-{n}" for n in range(count)]
        parts[stem] = [
            write(root / "moisesdb_v0.1" / "uuid-1" / stem / f"{name}.wav", 10 * i + n, 1 + 0.1 * n)
            for n, name in enumerate(names)
        ]
        tracks = [{"id": name, "trackType": stem, "extension": "wav"} for name in names]
        stems.append({"stemName": stem, "tracks": tracks})
    about = {"artist": "A", "song": "S", "stems": stems}
    (root / "moisesdb_v0.1" / "uuid-1" / "data.json").write_text(json.dumps(about))
    return parts


def slakh(root, stems):
    """TRACK/metadata.yaml, TRACK/mix.flac and TRACK/stems/S00.flac, mono."""
    folder = root / "train" / "Track00001"
    parts, about = {}, {}
    for i, instrument in enumerate(stems):
        about[f"S{i:02}"] = {"audio_rendered": True, "inst_class": instrument, "program_num": i}
        parts.setdefault(instrument, []).append(
            write(folder / "stems" / f"S{i:02}.flac", i, channels=1)
        )
    about["S99"] = {"audio_rendered": False, "inst_class": "Bass"}
    text = yaml.safe_dump({"audio_dir": "stems", "stems": about})
    (folder / "metadata.yaml").write_text(text)
    write(folder / "mix.flac", 99, channels=1)
    (folder / "MIDI").mkdir()
    return parts


def medleydb(root, song, instruments, bleed="no", metadata=None):
    """SONG/SONG_MIX.wav, SONG/SONG_STEMS/SONG_STEM_01.wav, SONG/SONG_RAW, and the metadata."""
    folder = root / song
    parts, stems = [], {}
    for i, instrument in enumerate(instruments, 1):
        name = f"{song}_STEM_{i:02}.wav"
        parts.append(write(folder / f"{song}_STEMS" / name, i))
        write(folder / f"{song}_RAW" / f"{song}_RAW_{i:02}_01.wav", 50 + i)
        stems[f"S{i:02}"] = {"component": "", "filename": name, "instrument": instrument}
    write(folder / f"{song}_MIX.wav", 99)
    about = yaml.safe_dump({"has_bleed": bleed, "stem_dir": f"{song}_STEMS", "stems": stems})
    place = metadata or folder
    place.mkdir(exist_ok=True)
    (place / f"{song}_METADATA.yaml").write_text(about)
    return parts


def test_moisesdb(tmp_path, read):
    parts = moisesdb(tmp_path / "db")
    corpus = read(tmp_path / "db", mapping="moisesdb")
    (recording,) = corpus.train
    assert recording.name == "moisesdb_v0.1/uuid-1"
    assert recording.length == int(1.2 * RATE)
    for source in ("drums", "bass", "vocals"):
        expected = total(*parts[source])
        np.testing.assert_allclose(content(recording, source)[: len(expected)], expected, atol=1e-6)
    other = total(*parts["guitar"], *parts["other_keys"], *parts["percussion"])
    np.testing.assert_allclose(content(recording, "other")[: len(other)], other, atol=1e-6)
    (note,) = corpus.notes
    assert "sources differ in length, by up to 0.200 s, and are padded with silence" in note
    (six,) = read(tmp_path / "db", SIX, mapping="moisesdb", missing="silence").train
    np.testing.assert_allclose(content(six, "guitar")[:RATE], parts["guitar"][0], atol=1e-6)
    assert not content(six, "piano").any()
    with pytest.raises(
        ConfigError, match=r"uuid-1 has .*; for silence in place of missing sources"
    ):
        read(tmp_path / "db", SIX, mapping="moisesdb")


def test_slakh(tmp_path, read):
    parts = slakh(tmp_path / "slakh", ["Drums", "Piano", "Bass", "Guitar", "Guitar", "Synth Pad"])
    with pytest.raises(ConfigError, match="Track00001 has Bass, Drums, Guitar"):
        read(tmp_path / "slakh", mapping="slakh")  # it has no vocals
    corpus = read(tmp_path / "slakh", SIX, mapping="slakh", missing="silence")
    (recording,) = corpus.train
    assert corpus.notes == [
        f"1 folders in {tmp_path / 'slakh'} lack a source, which is silent: train/Track00001"
    ]
    expected = {"drums": "Drums", "bass": "Bass", "piano": "Piano", "guitar": "Guitar"}
    for source, instrument in (expected | {"other": "Synth Pad"}).items():
        found = content(recording, source)
        np.testing.assert_allclose(found, total(*parts[instrument]), atol=1e-4)  # 16 bits
    assert not content(recording, "vocals").any()


def test_medleydb(tmp_path, read):
    root, elsewhere = tmp_path / "Audio", tmp_path / "Metadata"
    instruments = ["drum set", "electric bass", "female singer", "vocalists", "tabla",
                   "distorted electric guitar", "Main System", "tack piano"]  # fmt: skip
    parts = medleydb(root, "Artist_Song [live]", instruments)
    medleydb(root, "Artist_Bleeding", instruments, bleed="yes")
    medleydb(root, "Artist_Elsewhere", instruments, metadata=elsewhere)
    corpus = read(root, mapping="medleydb", metadata=elsewhere)
    assert [r.name for r in corpus.train] == ["Artist_Elsewhere", "Artist_Song [live]"]
    assert corpus.notes == [f"1 folders in {root} are left out, because the mapping skips them"]
    recording = corpus.train[1]
    expected = {
        "drums": [parts[0], parts[4]],
        "bass": [parts[1]],
        "vocals": [parts[2], parts[3]],
        "other": [parts[5], parts[7]],
    }
    for source, those in expected.items():
        np.testing.assert_allclose(content(recording, source), total(*those), atol=1e-6)
    note = read(root, mapping="medleydb").notes[0]
    assert note.startswith(f"{root / 'Artist_Elsewhere'} is left out: cannot read")


def test_a_mapping_of_ones_own(tmp_path, read):
    write(tmp_path / "mine" / "one" / "Kick in.wav", 1)
    write(tmp_path / "mine" / "one" / "SNARE.wav", 2)
    write(tmp_path / "mine" / "one" / "bass di.wav", 3)
    path = tmp_path / "mine.yaml"
    path.write_text("files: '*'\nlabel: name\nsources: {drums: [kick*, snare*], bass: [bass*]}\n")
    (recording,) = read(tmp_path / "mine", ("drums", "bass"), mapping=str(path)).train
    assert [len(recording.files[source]) for source in ("drums", "bass")] == [2, 1]
    for text, message in (
        ("files: '*'\n", "sources is missing"),
        ("files: '*'\nsources: {drums: kick}\n", r"sources\.drums must be a list of labels"),
        ("files: '*'\nsources: {}\nstem: 1\n", "unknown key stem"),
        ("a: [", "cannot read"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read(tmp_path / "mine", mapping=str(path))
    with pytest.raises(ConfigError, match="mapping must be medleydb, moisesdb, slakh or a YAML"):
        read(tmp_path / "mine", mapping="musdb")
    with pytest.raises(ConfigError, match=r"mine has no folders with data\.json"):
        read(tmp_path / "mine", mapping="moisesdb")


def test_the_mapping_for_karaoke_in_the_documentation(tmp_path, read):
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    text = page.split("# karaoke.yaml\n")[1].split("```")[0]
    (tmp_path / "karaoke.yaml").write_text(text)
    training_data.track(tmp_path / "a" / "one", 1)
    (recording,) = read(
        tmp_path / "a", ("vocals", "instrumental"), mapping=str(tmp_path / "karaoke.yaml")
    ).train
    names = {source: [path.stem for path in paths] for source, paths in recording.files.items()}
    assert names == {"vocals": ["vocals"], "instrumental": ["bass", "drums", "other"]}


def stem_folders(root, suffix=".wav"):
    """MSST's dataset type 2: a folder for each stem, whose files do not belong together."""
    return {
        source: [
            write(root / source / f"{source}_{n}{suffix}", 10 * i + n, 1 + n) for n in range(3)
        ]
        for i, source in enumerate(SOURCES)
    }


def drawn(recordings, count=16, length=2000):
    off = AugmentConfig(0, False, False, 1, 1, 0, 2, 0)
    sampler = ExcerptSampler(
        [r.length for r in recordings], [r.weight for r in recordings], length=length, remix=0,
        remix_group=2, seed=3,
    )  # fmt: skip
    dataset = StemDataset(
        recordings, sampler, off, sources=SOURCES, channels=2, sample_rate=RATE, length=length,
        batch_size=count, seed=3,
    )  # fmt: skip
    return torch.stack([dataset[n] for n in range(count)])


def is_excerpt(part, whole):
    """Whether samples (2, L) are a part of a waveform (N, 2)."""
    windows = np.lib.stride_tricks.sliding_window_view(whole[:, 0], 8)
    places = np.flatnonzero(np.abs(windows - part[0, :8]).max(1) < 1e-6)
    length = part.shape[1]
    return any(np.abs(whole[p : p + length].T - part).max() < 1e-6 for p in places)


@pytest.mark.parametrize("kind", ["folders", "csv", "type"])
def test_files_that_do_not_belong_to_tracks_are_mixed_at_random(tmp_path, read, kind):
    parts = stem_folders(tmp_path / "stems")
    path = tmp_path / "stems"
    if kind != "folders":
        path = tmp_path / "stems.csv"
        column = "instrum" if kind == "csv" else "type"
        rows = [f"{s},stems/{s}/{s}_{n}.wav" for s in SOURCES for n in range(3)]
        path.write_text("\n".join([f"{column},path", *rows, "guitar,/nowhere.wav"]))
    corpus = read(path)
    (recording,) = corpus.train
    assert recording.length == 6 * RATE
    assert corpus.notes == [
        f"the files of {path} are mixed at random: 3 of drums, 3 of bass, 3 of other, 3 of vocals"
    ]
    batch = drawn(corpus.train).numpy()
    combinations = set()
    for example in batch:
        files = [
            next(n for n in range(3) if is_excerpt(example[1 + i], parts[source][n]))
            for i, source in enumerate(SOURCES)
        ]
        combinations.add(tuple(files))
    assert len(combinations) > 10
    assert {n for files in combinations for n in files} == {0, 1, 2}


def test_files_of_single_stems_beside_tracks_in_a_run(make_config, tmp_path):
    stem_folders(tmp_path / "stems")
    training_data.track(tmp_path / "tracks" / "one", 1)
    data = {"train": [str(tmp_path / "stems"), str(tmp_path / "tracks")], "workers": 0}
    run = prepare(make_config(steps=2, data=data | {"segment": 0.5}))
    assert [bool(recording.pool) for recording in run.corpus.train] == [True, False]
    single = run.corpus.train[0].pool["bass"][0]
    assert single.std == run.corpus.train[0].std == pytest.approx(0.05 * 2**0.5, rel=0.05)
    (entry,) = run.train()
    assert 0 < entry.loss < 3


def test_what_files_of_single_stems_cannot_do(tmp_path, read):
    stem_folders(tmp_path / "stems")
    with pytest.raises(ConfigError, match=r"data\.valid needs tracks; .*stems has files of single"):
        read(tmp_path / "stems", valid=(RootConfig(tmp_path / "stems"),))
    for n in range(3):
        (tmp_path / "stems" / "bass" / f"bass_{n}.wav").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match="has no usable file of bass; for a silent source, set"):
        read(tmp_path / "stems")
    silent = read(tmp_path / "stems", missing="silence")
    assert not drawn(silent.train)[:, 2].any()
    assert sum("is left out: cannot read the sources" in note for note in silent.notes) == 3
    table = tmp_path / "table.csv"
    table.write_text("stem,file\nbass,x.wav\n")
    with pytest.raises(ConfigError, match="must have the columns instrum and path"):
        read(table)
    with pytest.raises(ConfigError, match="cannot read"):
        read(tmp_path / "none.csv")


@pytest.mark.parametrize("suffix", [".mp3", ".aiff", ".ogg", ".flac"])
def test_formats(tmp_path, read, suffix):
    for i, source in enumerate(SOURCES):
        write(tmp_path / "a" / "one" / f"{source}{suffix}", i, 2)
    (recording,) = read(tmp_path / "a").train
    assert recording.length == 2 * RATE
    path = recording.files["bass"][0]
    whole, _ = soundfile.read(path, dtype="float32")
    for start in (0, 1, 1151, 7777):
        part = read_excerpt(path, start, 1000, 2, RATE)
        np.testing.assert_allclose(part.T.numpy(), whole[start : start + 1000], atol=1e-6)


@pytest.mark.parametrize("rate", [44_100, 11_025, 8_001, 6_000])
def test_another_sample_rate_is_converted_while_reading(tmp_path, read, rate):
    """Every excerpt is a part of the whole resampled file."""
    import soxr

    for i, source in enumerate(SOURCES):
        write(tmp_path / "a" / "one" / f"{source}.wav", i, 3, rate=rate)
    corpus = read(tmp_path / "a")
    assert corpus.notes == [
        f"1 folders in {tmp_path / 'a'} are resampled to {RATE} Hz while they are read: one"
    ]
    (recording,) = corpus.train
    assert recording.length == 3 * RATE
    path = recording.files["bass"][0]
    samples, _ = soundfile.read(path, dtype="float32")
    whole = torch.from_numpy(soxr.resample(samples, rate, RATE, "VHQ").T.copy())
    for start, length in ((0, 5000), (1, 77), (12_345, 4000), (20_000, 9000), (23_990, 100)):
        part = read_excerpt(path, start, length, 2, RATE)
        expected = whole[:, start : start + length]
        assert part.shape == expected.shape
        assert snr(expected, part) > 80
    assert read_excerpt(path, 24_000, 10, 2, RATE).shape == (2, 0)


def test_rates_may_differ_inside_a_track(tmp_path, read):
    for i, source in enumerate(SOURCES):
        write(tmp_path / "a" / "one" / f"{source}.wav", i, 2 + 0.5 * i, rate=RATE * (1 + i % 2))
    corpus = read(tmp_path / "a")
    assert corpus.train[0].length == int(3.5 * RATE)
    assert any("by up to 1.500 s, and are padded" in note for note in corpus.notes)
    assert content(corpus.train[0], "drums")[: 2 * RATE].any()
    assert not content(corpus.train[0], "drums")[2 * RATE :].any()


def test_missing_sources_are_silent_if_wanted(make_config, tmp_path):
    training_data.track(tmp_path / "a" / "one", 1, sources=("drums", "bass"), mixture=False)
    data = {"train": [{"path": str(tmp_path / "a"), "missing": "silence"}], "workers": 0}
    data["segment"] = 0.5
    run = prepare(make_config(steps=2, data=data, augment={"repitch": 1, "remix_group": 2}))
    example = run.trainer.dataset[0]
    assert example[1:3].abs().amax((1, 2)).min() > 0
    assert not example[3:].any()
    assert len(list(run.train())) == 1


def test_the_mappings_that_are_part_of_the_package():
    assert sorted(path.stem for path in MAPPINGS.iterdir()) == ["medleydb", "moisesdb", "slakh"]
