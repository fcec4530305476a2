import os
import shutil

import numpy as np
import pytest
import soundfile

import training_data
from htdemucs.errors import AudioError, ConfigError, HTDemucsError, TrainingError
from htdemucs.training.config import DataConfig, RootConfig
from htdemucs.training.dataset import MUSDB_VALIDATION, read_corpus

RATE, SOURCES = training_data.RATE, training_data.SOURCES


@pytest.fixture
def read(tmp_path):
    def make(sources=SOURCES, rate=RATE, channels=2, **fields):
        return read_corpus(
            DataConfig(**fields), sources, channels=channels, sample_rate=rate,
            cache=tmp_path / "cache",
        )  # fmt: skip

    return make


def root(path, weight=1.0):
    return RootConfig(path, weight)


def test_a_musdb_folder(data, read):
    assert len(MUSDB_VALIDATION) == 14
    corpus = read(musdb=data)
    assert [track.name for track in corpus.train] == [f"Artist {i} - Song" for i in range(3)]
    assert [track.name for track in corpus.valid] == [training_data.VALIDATION]
    assert all(track.length == 3 * RATE for track in corpus.train + corpus.valid)
    assert corpus.notes == []


def test_levels_are_those_of_the_mixture_or_of_the_sum_of_the_sources(tmp_path, read):
    folder = training_data.track(tmp_path / "a" / "one", 1)
    for _ in range(2):  # with the mixture's file, and without
        (recording,) = read(train=(root(tmp_path / "a"),)).train
        total = sum(soundfile.read(folder / f"{source}.wav")[0] for source in SOURCES)
        assert recording.mean == pytest.approx(total.mean(), abs=1e-4)  # 16 bits
        assert recording.std == pytest.approx(total.mean(1).std(), rel=1e-3)
        (folder / "mixture.wav").unlink(missing_ok=True)
    (raw,) = read(train=(root(tmp_path / "a"),), normalize=False).train
    assert (raw.mean, raw.std) == (0.0, 1.0)
    for source in SOURCES:
        soundfile.write(folder / f"{source}.wav", np.zeros((24_000, 2)), RATE)
    (silent,) = read(train=(root(tmp_path / "a"),)).train
    assert silent.std == 1


def test_any_folders_with_weights_and_sources(tmp_path, read):
    training_data.track(tmp_path / "a" / "one", 1, sources=("guitar", "rest"), mixture=False)
    training_data.track(tmp_path / "b" / "two", 2, sources=("guitar", "rest"), suffix=".flac")
    training_data.track(tmp_path / "b" / "odd", 3, sources=("guitar",))
    (tmp_path / "b" / "readme.txt").write_text("no folder")
    corpus = read(
        sources=("guitar", "rest"), train=(root(tmp_path / "a", 2.0), root(tmp_path / "b"))
    )
    assert [(track.name, track.weight) for track in corpus.train] == [("one", 2.0), ("two", 1.0)]
    assert corpus.valid == []
    assert len(corpus.notes) == 1
    assert "1 folders" in corpus.notes[0]
    assert "odd" in corpus.notes[0]


def test_a_mixture_that_is_no_sum_is_noticed(tmp_path, read):
    folder = training_data.track(tmp_path / "a" / "one", 1)
    shutil.copy(folder / "drums.wav", folder / "mixture.wav")
    for _ in range(2):  # read, and then from the cache
        (note,) = read(train=(root(tmp_path / "a"),)).notes
        assert "differs from the sum of its sources" in note


@pytest.mark.parametrize(
    ("samples", "rate", "channels", "message"),
    [
        (100, RATE, 2, "has 100 samples, its sources 24000; training uses the sum"),
        (24_000, 44_100, 2, "has 44100 Hz, its sources 8000; training uses the sum"),
        (24_000, RATE, 6, "has 6 channels, its sources 2; training uses the sum"),
    ],
)
def test_a_mixture_of_another_shape_is_told_how(tmp_path, read, samples, rate, channels, message):
    folder = training_data.track(tmp_path / "a" / "one", 1)
    soundfile.write(folder / "mixture.wav", np.zeros((samples, channels)), rate)
    corpus = read(train=(root(tmp_path / "a"),))
    assert corpus.notes == [f"the mixture in {folder} {message}"]
    assert len(corpus.train) == 1
    (folder / "mixture.wav").write_bytes(b"nonsense")
    (note,) = read(train=(root(tmp_path / "a"),)).notes
    assert "cannot be read" in note


def test_a_mixture_that_is_a_few_samples_longer_is_compared(tmp_path, read):
    folder = training_data.track(tmp_path / "a" / "one", 1)
    wave, _ = soundfile.read(folder / "mixture.wav")
    soundfile.write(folder / "mixture.wav", np.concatenate([wave, np.zeros((9, 2))]), RATE)
    assert read(train=(root(tmp_path / "a"),)).notes == []


def lengthen(path, samples):
    wave, rate = soundfile.read(path, always_2d=True)
    soundfile.write(path, np.concatenate([wave, np.zeros((samples, wave.shape[1]))]), rate)


def test_sources_that_differ_by_a_few_samples_are_padded_and_noted(tmp_path, read):
    for i, name in enumerate(("one", "two", "three", "four", "five")):
        lengthen(training_data.track(tmp_path / "a" / name, i) / "bass.wav", 100 * i)
    for _ in range(2):  # read, and then from the cache
        corpus = read(train=(root(tmp_path / "a"),))
        assert sorted(r.length for r in corpus.train) == [24_000, 24_100, 24_200, 24_300, 24_400]
        assert corpus.notes == [
            f"in 4 folders in {tmp_path / 'a'} sources differ in length, by up to 0.050 s, and are "
            "padded with silence: five, four, three…"
        ]


def spoil_channels(folder):
    soundfile.write(folder / "bass.wav", np.zeros((24_000, 6)), RATE)


def spoil_contents(folder):
    (folder / "bass.wav").write_bytes(b"nonsense")


def spoil_end(folder):
    soundfile.write(folder / "bass.wav", np.zeros((0, 2)), RATE)


def spoil_names(folder):
    shutil.copy(folder / "bass.wav", folder / "Bass.flac")


def spoil_link(folder):
    (folder / "bass.wav").unlink()
    (folder / "bass.wav").symlink_to("gone.wav")


def spoil_everything(folder):
    for source in SOURCES:
        soundfile.write(folder / f"{source}.wav", np.zeros((0, 2)), RATE)


def spoil_samples(folder):
    wave, _ = soundfile.read(folder / "bass.wav")
    wave[12_345, 1] = np.nan
    soundfile.write(folder / "bass.wav", wave, RATE, "FLOAT")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_channels, "a source has 6 channels, the model 2; mix it down"),
        (spoil_contents, "cannot read the sources: "),
        (spoil_end, "bass is empty"),
        (spoil_names, "{folder} has both Bass.flac and bass.wav; remove one of them"),
        (spoil_link, "cannot read the sources: "),
        (spoil_everything, "drums is empty"),
        (
            spoil_samples,
            "sample 12345 of {folder}/bass.wav, at 1.543 s, is not a finite number; export the "
            "file again",
        ),
    ],
)
def test_an_unusable_track_is_left_out_and_named(tmp_path, read, spoil, message):
    training_data.track(tmp_path / "a" / "good", 1)
    spoil(training_data.track(tmp_path / "a" / "bad", 2))
    corpus = read(train=(root(tmp_path / "a"),))
    assert [recording.name for recording in corpus.train] == ["good"]
    (note,) = corpus.notes
    message = message.format(folder=tmp_path / "a" / "bad")
    assert note.startswith(f"{tmp_path / 'a' / 'bad'} is left out: {message}")
    shutil.rmtree(tmp_path / "a" / "good")
    with pytest.raises(HTDemucsError) as refused:  # nothing is left
        read(train=(root(tmp_path / "a"),))
    assert str(refused.value).startswith(f"{tmp_path / 'a'} has no usable track; bad: {message}")
    assert "\n" not in str(refused.value)


def test_a_mixture_with_samples_that_are_not_finite_is_not_used(tmp_path, read):
    folder = training_data.track(tmp_path / "a" / "one", 1)
    expected = read(train=(root(tmp_path / "a"),)).train
    wave, _ = soundfile.read(folder / "mixture.wav")
    wave[-1] = np.inf
    soundfile.write(folder / "mixture.wav", wave, RATE, "FLOAT")
    corpus = read(train=(root(tmp_path / "a"),))
    assert corpus.train[0].std == pytest.approx(expected[0].std, rel=1e-3)
    (note,) = corpus.notes
    assert "cannot be used (sample 23999 of" in note


def test_anything_that_goes_wrong_names_the_track(tmp_path, read, monkeypatch):
    for name in ("one", "two"):
        training_data.track(tmp_path / "a" / name, 1)

    def fail(path):
        raise ZeroDivisionError("of nobody's making")

    monkeypatch.setattr(soundfile, "info", fail)
    with pytest.raises(AudioError, match=r"one: cannot read the sources: of nobody.*\(and 1 more"):
        read(train=(root(tmp_path / "a"),))


def test_capital_letters_and_other_mono_or_deep_files_are_found(tmp_path, read):
    folder = training_data.track(tmp_path / "a" / "one", 1)
    (folder / "vocals.wav").rename(folder / "vocals.WAV")
    (folder / "drums.wav").rename(folder / "Drums.wav")
    (folder / "mixture.wav").rename(folder / "MIX.wav")
    wave, _ = soundfile.read(folder / "bass.wav")
    soundfile.write(folder / "bass.wav", wave, RATE, "FLOAT")
    soundfile.write(folder / "other.wav", np.zeros(len(wave)), RATE, "PCM_24")
    corpus = read(train=(root(tmp_path / "a"),))
    assert [recording.name for recording in corpus.train] == ["one"]
    assert corpus.train[0].files["drums"][0].name == "Drums.wav"
    (note,) = corpus.notes
    assert "differs from the sum of its sources by up to" in note


def test_what_is_no_multitrack_is_no_track_that_lacks_a_source(tmp_path, read):
    """Folders of systems and programs, and files that hide."""
    folder = training_data.track(tmp_path / "a" / "one", 1)
    for name in ("__MACOSX/one/._bass.wav", "@eaDir/bass.wav/SYNOAUDIO_01.jpg", "art/cover.png",
                 ".git/bass.wav", "one/._bass.wav", "one/Thumbs.db", "one/.DS_Store"):  # fmt: skip
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).write_bytes(b"x")
    (folder / "drums.wav").rename(tmp_path / "elsewhere.wav")
    (folder / "drums.wav").symlink_to(tmp_path / "elsewhere.wav")
    corpus = read(train=(root(tmp_path / "a"),))
    assert [recording.name for recording in corpus.train] == ["one"]
    assert corpus.notes == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one/bass/take 1.wav", r"; audio lies deeper, in one/\{bass\}; mix each stem to one"),
        ("train/one/bass.wav", r"; try .*/train$"),
        ("one/01 - Bass.wav", r"; one has 01 - bass$"),
        ("one.stem.mp4", r"; it holds \.stem\.mp4 files; use the wav files of MUSDB18-HQ"),
    ],
)
def test_other_layouts_are_told_what_is_wanted(tmp_path, read, name, message):
    (tmp_path / "a" / name).parent.mkdir(parents=True)
    (tmp_path / "a" / name).touch()
    with pytest.raises(ConfigError, match="has no folders with drums.*files" + message):
        read(train=(root(tmp_path / "a"),))


def test_stems_in_folders_of_their_own_are_not_passed_over_in_silence(tmp_path, read):
    training_data.track(tmp_path / "a" / "one", 1)
    (tmp_path / "a" / "nested" / "bass").mkdir(parents=True)
    (tmp_path / "a" / "nested" / "bass" / "take 1.wav").touch()
    (note,) = read(train=(root(tmp_path / "a"),)).notes
    assert note == f"1 folders in {tmp_path / 'a'} lack a source and are left out: nested"


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, read):
    training_data.track(tmp_path / "a" / "one", 1)
    (tmp_path / "cache").touch()
    with pytest.raises(TrainingError, match=r"cannot write .*cache"):
        read(train=(root(tmp_path / "a"),))


def test_the_cache_is_used_until_a_file_changes(tmp_path, read, monkeypatch):
    folder = training_data.track(tmp_path / "a" / "one", 1)
    before = read(train=(root(tmp_path / "a"),))
    counted = []
    info = soundfile.info
    monkeypatch.setattr(soundfile, "info", lambda path: counted.append(path) or info(path))
    assert read(train=(root(tmp_path / "a"),)) == before
    assert counted == []
    os.utime(folder / "bass.wav", ns=(1, 1))
    assert read(train=(root(tmp_path / "a"),)) == before
    assert len(counted) >= 4
    for path in (tmp_path / "cache").iterdir():
        path.write_text("{")
    assert read(train=(root(tmp_path / "a"),)) == before


def test_a_part_of_musdb_is_not_its_folder(read, data, tmp_path):
    with pytest.raises(ConfigError, match=rf"data\.musdb must be the .* train/; use {data}$"):
        read(musdb=data / "train")
    training_data.track(tmp_path / "a" / "one", 1)
    with pytest.raises(
        ConfigError, match=r"a has no folder train/; for other folders use data\.tr"
    ):
        read(musdb=tmp_path / "a")


def test_unusable_music(tmp_path, read, data):
    with pytest.raises(ConfigError, match="cannot read"):
        read(train=(root(tmp_path / "none"),))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="has no folders with drums, bass, other, vocals"):
        read(train=(root(tmp_path / "empty"),))
    with pytest.raises(ConfigError, match=r"is in data\.train and in data\.valid"):
        read(train=(root(data / "test"),), valid=(root(data / "test"),))
    with pytest.raises(ConfigError, match=r"weight of .* must not be negative"):
        read(train=(root(data / "test", -1.0),))
    with pytest.raises(ConfigError, match="no tracks for training"):
        read(train=(root(data / "test", 0.0),))


def test_files_that_do_not_fit_each_other(tmp_path, read):
    folder = training_data.track(tmp_path / "a" / "one", 1)
    for source in SOURCES:
        soundfile.write(folder / f"{source}.wav", [[0.0, 0.0]][:0], RATE)
    with pytest.raises(AudioError, match="drums is empty"):
        read(train=(root(tmp_path / "a"),))
    (folder / "bass.wav").write_bytes(b"nonsense")
    with pytest.raises(AudioError, match="cannot read the sources"):
        read(train=(root(tmp_path / "a"),))
