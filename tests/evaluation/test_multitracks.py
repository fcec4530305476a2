import pytest
import torch

from evaluation_data import LENGTHS, RATE, STEMS, noise, write, write_track
from htdemucs import AudioEncoding
from htdemucs.errors import EvaluationError
from htdemucs.evaluation import MultitrackReader, find_multitracks, read_multitrack


def read(reader):
    frames = list(reader.frames())
    return [torch.cat(parts, dim=-1) for parts in zip(*frames, strict=True)]


def test_tracks_of_a_folder(data):
    (data / "notes.txt").write_text("not a track")
    (data / "empty").mkdir()
    (data / ".hidden").mkdir()
    write(data / ".hidden" / "vocals.wav", noise(0, 10))
    assert find_multitracks(data) == [data / "one", data / "two"]


def test_musdb_stands_for_its_test_part(tmp_path, data):
    write_track(tmp_path / "musdb" / "train" / "a", 0, 10)
    data.rename(tmp_path / "musdb" / "test")
    assert [folder.name for folder in find_multitracks(tmp_path / "musdb")] == ["one", "two"]
    assert [folder.name for folder in find_multitracks(tmp_path / "musdb" / "test")] == [
        "one",
        "two",
    ]
    assert [folder.name for folder in find_multitracks(tmp_path / "musdb" / "train")] == ["a"]


def test_a_single_track(data):
    assert find_multitracks(data / "one") == [data / "one"]


def test_a_train_folder_alone_must_be_named(data, tmp_path):
    (tmp_path / "musdb").mkdir()
    data.rename(tmp_path / "musdb" / "train")
    with pytest.raises(EvaluationError, match=r"try .*musdb/train"):
        find_multitracks(tmp_path / "musdb")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda folder: None, "not a folder"),
        (lambda folder: folder.mkdir(), "no tracks"),
        (lambda folder: (folder / "test").mkdir(parents=True), "no tracks"),
        (lambda folder: write(folder, noise(0, 10)), "not a folder"),
    ],
    ids=["missing", "empty", "empty test", "file"],
)
def test_folders_without_tracks(tmp_path, make, match):
    make(tmp_path / "data")
    with pytest.raises(EvaluationError, match=match):
        find_multitracks(tmp_path / "data")


def test_the_stem_files_of_musdb18_are_named(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.stem.mp4").touch()
    with pytest.raises(EvaluationError, match="MUSDB18-HQ"):
        find_multitracks(tmp_path)


def test_frames_are_seconds_of_the_files(data, truth):
    reader = MultitrackReader(read_multitrack(data / "one"))
    assert (reader.stems, reader.sample_rate, reader.channels) == (STEMS, RATE, 2)
    assert [frame.mixture.shape[-1] for frame in reader.frames()] == [RATE, RATE, RATE, 123]
    mixture, stems = read(reader)
    assert torch.equal(stems, truth["one"])
    torch.testing.assert_close(mixture, stems.sum(0))
    assert torch.equal(mixture, torch.cat(list(reader.mixture()), -1))
    assert reader.notes() == []


def test_without_a_mixture_it_is_the_sum(tmp_path):
    write_track(tmp_path / "a", 0, 2 * RATE + 5, mixture=False)
    reader = MultitrackReader(read_multitrack(tmp_path / "a"))
    mixture, stems = read(reader)
    assert torch.equal(mixture, stems.sum(0))
    again = reader.mixture()
    for _ in range(2):
        assert torch.equal(mixture, torch.cat(list(again), -1))


def test_flac_other_rates_and_mono(tmp_path):
    write(tmp_path / "a" / "vocals.flac", noise(0, RATE, channels=1), AudioEncoding("flac"))
    reader = MultitrackReader(read_multitrack(tmp_path / "a"))
    assert reader.channels == 1
    reader = MultitrackReader(read_multitrack(tmp_path / "a"), sample_rate=2 * RATE, channels=2)
    _, stems = read(reader)
    assert stems.shape == (1, 2, 2 * RATE)
    assert torch.equal(stems[0, 0], stems[0, 1])


def test_files_of_other_lengths_end_in_silence_and_are_noted(data):
    write(data / "one" / "bass.wav", noise(0, RATE + 10))
    reader = MultitrackReader(read_multitrack(data / "one"))
    _, stems = read(reader)
    assert stems.shape[-1] == LENGTHS["one"]
    assert not stems[0, :, RATE + 10 :].any()
    assert reader.notes() == ["bass is 2.014 s shorter than the longest file"]


def test_broken_samples_are_noted(data):
    waveform = noise(0, LENGTHS["two"])
    waveform[0, 7] = torch.nan
    write(data / "two" / "bass.wav", waveform)
    reader = MultitrackReader(read_multitrack(data / "two"))
    read(reader)
    assert reader.notes() == ["bass had 1 NaN or infinite samples, read as 0"]


def test_two_files_for_one_stem_are_refused(data):
    write(data / "one" / "bass.flac", noise(0, 10), AudioEncoding("flac"))
    with pytest.raises(EvaluationError, match=r"both bass\.flac and bass\.wav"):
        MultitrackReader(read_multitrack(data / "one"))


def test_a_mixture_alone_is_refused(tmp_path):
    write(tmp_path / "a" / "mixture.wav", noise(0, 10))
    with pytest.raises(EvaluationError, match="no stems"):
        MultitrackReader(read_multitrack(tmp_path / "a"))


def test_missing_stems_are_named(data):
    reader = MultitrackReader(read_multitrack(data / "one"))
    assert reader.columns(["vocals", "bass"]) == [3, 0]
    with pytest.raises(EvaluationError, match="no guitar beside bass, drums"):
        reader.columns(["vocals", "guitar"])
