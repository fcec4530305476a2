import os
import shutil

import pytest
import soundfile

import training_data
from htdemucs.errors import AudioError, ConfigError
from htdemucs.training.config import DataConfig, RootConfig
from htdemucs.training.library import MUSDB_VALIDATION, read_library

RATE, SOURCES = training_data.RATE, training_data.SOURCES


@pytest.fixture
def read(tmp_path):
    def make(sources=SOURCES, rate=RATE, **fields):
        return read_library(DataConfig(**fields), sources, rate, tmp_path / "cache")

    return make


def root(path, weight=1.0):
    return RootConfig(path, weight)


def test_a_musdb_folder(data, read):
    assert len(MUSDB_VALIDATION) == 14
    library = read(musdb=data)
    assert [track.name for track in library.train] == [f"Artist {i} - Song" for i in range(3)]
    assert [track.name for track in library.valid] == [training_data.VALIDATION]
    assert all(track.length == 3 * RATE for track in library.train + library.valid)
    assert library.notes == []


def test_any_folders_with_weights_and_sources(tmp_path, read):
    training_data.track(tmp_path / "a" / "one", 1, sources=("guitar", "rest"), mixture=False)
    training_data.track(tmp_path / "b" / "two", 2, sources=("guitar", "rest"), suffix=".flac")
    training_data.track(tmp_path / "b" / "odd", 3, sources=("guitar",))
    (tmp_path / "b" / "readme.txt").write_text("no folder")
    library = read(
        sources=("guitar", "rest"), train=(root(tmp_path / "a", 2.0), root(tmp_path / "b"))
    )
    assert [(track.name, track.weight) for track in library.train] == [("one", 2.0), ("two", 1.0)]
    assert library.valid == []
    assert len(library.notes) == 1
    assert "1 folders" in library.notes[0]
    assert "odd" in library.notes[0]


def test_a_mixture_that_is_no_sum_is_noticed(tmp_path, read):
    folder = training_data.track(tmp_path / "a" / "one", 1)
    shutil.copy(folder / "drums.wav", folder / "mixture.wav")
    for _ in range(2):  # read, and then from the cache
        (note,) = read(train=(root(tmp_path / "a"),)).notes
        assert "differs from the sum of its sources" in note
    soundfile.write(folder / "mixture.wav", [[0.0, 0.0]] * 100, RATE)
    (note,) = read(train=(root(tmp_path / "a"),)).notes
    assert "by up to inf" in note


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


def test_what_cannot_be_learnt_from(tmp_path, read, data):
    with pytest.raises(ConfigError, match="cannot read"):
        read(train=(root(tmp_path / "none"),))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="has no folders with drums, bass, other, vocals"):
        read(train=(root(tmp_path / "empty"),))
    with pytest.raises(ConfigError, match="8000 Hz, the model 44100; resample"):
        read(musdb=data, rate=44_100)
    with pytest.raises(ConfigError, match="learnt from and validated with"):
        read(train=(root(data / "test"),), valid=(root(data / "test"),))
    with pytest.raises(ConfigError, match="cannot weigh"):
        read(train=(root(data / "test", -1.0),))
    with pytest.raises(ConfigError, match="no tracks to learn from"):
        read(train=(root(data / "test", 0.0),))


def test_files_that_do_not_fit_each_other(tmp_path, read):
    folder = training_data.track(tmp_path / "a" / "one", 1)
    soundfile.write(folder / "bass.wav", [[0.0, 0.0]] * 100, RATE)
    with pytest.raises(AudioError, match="differ in samples or rate: drums 24000 at 8000 Hz"):
        read(train=(root(tmp_path / "a"),))
    for source in SOURCES:
        soundfile.write(folder / f"{source}.wav", [[0.0, 0.0]][:0], RATE)
    with pytest.raises(AudioError, match=r"empty|differ"):
        read(train=(root(tmp_path / "a"),))
    (folder / "bass.wav").write_bytes(b"nonsense")
    with pytest.raises(AudioError, match="cannot read the sources"):
        read(train=(root(tmp_path / "a"),))
