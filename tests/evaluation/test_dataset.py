import re
import shutil

import pytest
import torch

from evaluation_data import LENGTHS, RATE, STEMS, noise, write, write_track
from htdemucs import AudioEncoding
from htdemucs.errors import AudioError, EvaluationError
from htdemucs.evaluation import MultitrackReader, find_multitracks, read_multitrack
from htdemucs.evaluation.dataset import choose_stems, skipped_folders, stem_key


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


def place(path, name):
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    return write(path / name, noise(0, 10))


def test_what_systems_and_programs_leave_is_no_track(data):
    for name in (
        "__MACOSX/one/._bass.wav",
        "@eaDir/bass.wav/thumb.jpg",
        "one/@eaDir/bass.wav/x.db",
        "one/._bass.wav",
        "one/Thumbs.db",
        "one/bass.wav.part",
        "art/cover.png",
    ):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(b"x")
    assert find_multitracks(data) == [data / "one", data / "two"]
    assert tuple(read_multitrack(data / "one").stems) == STEMS
    assert skipped_folders(data) == []


def test_links_are_followed(data, tmp_path):
    (data / "one" / "bass.wav").rename(tmp_path / "elsewhere.wav")
    (data / "one" / "bass.wav").symlink_to(tmp_path / "elsewhere.wav")
    (data / "two").rename(tmp_path / "two")
    (data / "two").symlink_to(tmp_path / "two")
    assert find_multitracks(data) == [data / "one", data / "two"]
    assert tuple(MultitrackReader(read_multitrack(data / "one")).stems) == STEMS
    (tmp_path / "elsewhere.wav").unlink()
    with pytest.raises(AudioError, match=r"bass\.wav does not exist"):
        MultitrackReader(read_multitrack(data / "one"))


def test_stems_in_folders_of_their_own_are_told_where_they_belong(data):
    """As in MoisesDB."""
    place(data, "three/bass/a1.wav")
    place(data, "three/drums/a2.wav")
    assert find_multitracks(data) == [data / "one", data / "two"]
    hint = "audio lies deeper, in three/{bass, drums}; mix each stem to one file"
    assert skipped_folders(data) == [f"{data / 'three'} is skipped: {hint}"]
    for name in ("one", "two"):
        shutil.rmtree(data / name)
    with pytest.raises(EvaluationError, match=rf"no tracks in .*; {re.escape(hint)}, or name"):
        find_multitracks(data)


@pytest.mark.parametrize(
    "names",
    [("X_MIX.wav", "X_STEMS/X_STEM_01.wav", "X_RAW/X_RAW_01_01.wav"), ("mix.wav", "stems/S00.wav")],
    ids=["MedleyDB", "Slakh2100"],
)
def test_a_mixture_with_stems_in_a_folder_is_told_so(tmp_path, names):
    for name in names:
        place(tmp_path / "X", name)
    (tmp_path / "X" / "X_METADATA.yaml").write_text("artist: X")
    multitrack = read_multitrack(tmp_path / "X")
    assert multitrack.mixture == tmp_path / "X" / names[0]
    with pytest.raises(EvaluationError, match="beside the mixture; audio lies deeper, in X/"):
        MultitrackReader(multitrack)


@pytest.mark.parametrize("name", ["01 - Bass.wav", "one - bass.wav", "bass_stereo.wav"])
def test_other_names_are_told_what_is_wanted(data, name):
    (data / "one" / "bass.wav").rename(data / "one" / name)
    multitrack = choose_stems(read_multitrack(data / "one"), STEMS)
    message = f"no bass beside drums, other, vocals (left out: {name} (not a known stem)); "
    with pytest.raises(EvaluationError, match=re.escape(message) + "name the files after"):
        MultitrackReader(multitrack).columns(["bass"])


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
    assert reader.notes() == ["bass: 1 invalid sample was replaced by 0"]


def test_two_files_for_one_stem_are_refused(data):
    write(data / "one" / "bass.flac", noise(0, 10), AudioEncoding("flac"))
    with pytest.raises(EvaluationError, match=r"both bass\.flac and bass\.wav; remove one"):
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


@pytest.mark.parametrize("name", ["mix.wav", "Mixture.WAV", "one_MIX.wav", "linear_mixture.wav",
                                  "Full Mix.wav", "Mixdown.wav", "One - mixture.wav"])  # fmt: skip
def test_a_mixture_is_known_by_its_usual_names(data, name):
    (data / "one" / "mixture.wav").rename(data / "one" / name)
    multitrack = read_multitrack(data / "one")
    assert multitrack.mixture == data / "one" / name
    assert tuple(multitrack.stems) == STEMS


@pytest.mark.parametrize("name", ["mix", "linear_mixture"])
def test_another_mixture_is_left_out(data, name):
    write(data / "one" / f"{name}.wav", noise(0, 10))
    multitrack = read_multitrack(data / "one")
    assert multitrack.mixture == data / "one" / "mixture.wav"
    assert multitrack.left_out == {f"{name}.wav": "mixture.wav is the mixture"}


@pytest.mark.parametrize(
    ("name", "stem"),
    [("Vox", "vocals"), ("vocal", "vocals"), ("Drum Kit", "drums"), ("other_keys", "other_keys"),
     ("Others", "other"), ("No_Vocals", "accompaniment"), ("Instrumental", "accompaniment"),
     ("kazoo ", "kazoo"), ("Voz e\u0301tnica", "voz \u00e9tnica")],
)  # fmt: skip
def test_a_stem_is_known_by_its_usual_names(tmp_path, name, stem):
    write(tmp_path / f"{name}.wav", noise(0, 10))
    assert list(read_multitrack(tmp_path).stems) == [stem]
    assert read_multitrack(tmp_path).missing([name, stem]) == []
    assert stem_key(name) == stem


def test_a_stems_own_name_precedes_its_aliases(data):
    write(data / "one" / "vox.wav", noise(0, 10))
    multitrack = read_multitrack(data / "one")
    assert multitrack.file("vocals").name == "vocals.wav"
    assert multitrack.left_out == {"vox.wav": "vocals.wav is the same stem"}
    (data / "one" / "vocals.wav").rename(data / "one" / "voice.wav")
    with pytest.raises(EvaluationError, match=r"has both voice\.wav and vox\.wav; remove one"):
        read_multitrack(data / "one")


def names(folder, *stems):
    for stem in stems:
        write(folder / f"{stem}.wav", noise(0, 10))
    return read_multitrack(folder)


@pytest.mark.parametrize(
    ("files", "targets", "sources", "chosen", "left_out"),
    [
        ((*STEMS, "guitar", "mine"), STEMS, STEMS, STEMS,
         {"guitar.wav": "not a source of the model", "mine.wav": "not a source of the model"}),
        ((*STEMS, "guitar", "mine"), ("bass",), (), (*STEMS, "guitar"),
         {"mine.wav": "not a known stem"}),
        ((*STEMS, "mine"), ("mine",), (), (*STEMS, "mine"), {}),
        (("vocals", "accompaniment"), ("vocals",), STEMS, ("accompaniment", "vocals"), {}),
        (("vocals", "accompaniment", "bass"), ("vocals",), (), ("bass", "vocals"),
         {"accompaniment.wav": "contains bass"}),
        ((*STEMS, "instrumental"), ("vocals", "accompaniment"), (), ("accompaniment", "vocals"),
         dict.fromkeys(("bass.wav", "drums.wav", "other.wav"), "part of accompaniment")),
        ((*STEMS, "instrumental"), ("vocals", "instrumental"), ("vocals", "instrumental"),
         ("accompaniment", "vocals"),
         dict.fromkeys(("bass.wav", "drums.wav", "other.wav"), "not a source of the model")),
    ],
    ids=["a model", "known stems", "a target", "two stems", "a sum", "a sum is scored", "karaoke"],
)  # fmt: skip
def test_the_stems_of_a_song_are_known_by_name(tmp_path, files, targets, sources, chosen, left_out):
    multitrack = choose_stems(names(tmp_path, *files), targets, sources)
    assert set(multitrack.stems) == set(chosen)
    assert multitrack.left_out == left_out


def test_a_stem_and_a_sum_with_it_are_not_scored_together(tmp_path):
    with pytest.raises(EvaluationError, match="bass is part of accompaniment; score one at a time"):
        choose_stems(names(tmp_path, *STEMS, "accompaniment"), ("bass", "accompaniment"))
