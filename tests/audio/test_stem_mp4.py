import json
import shutil
import struct
import subprocess

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mutagen.flac import FLAC, Picture
from mutagen.mp4 import MP4

from helpers import snr
from htdemucs.audio import (
    AudioEncoding,
    AudioFile,
    StemFileWriter,
    read_tags,
    write_tags,
)
from htdemucs.audio.stem_mp4 import add_user_data
from htdemucs.errors import AudioError

STEMS = ["drums", "bass", "other", "vocals"]
EDGE_LENGTHS = [1, 2, 960, 1023, 1024, 1025, 2048, 45_001]
PARENTS = {"moov", "udta", "trak", "mdia", "minf", "stbl", "edts"}


def tree(data, start=0, end=None):
    """All boxes as (path, content), found without the code under test."""
    end = len(data) if end is None else end
    while start < end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        assert 8 <= size <= end - start
        name = kind.decode("latin-1")
        yield name, data[start + 8 : start + size]
        if name in PARENTS:
            for path, content in tree(data, start + 8, start + size):
                yield f"{name}/{path}", content
        start += size


def contents(path, kind):
    return [content for name, content in tree(path.read_bytes()) if name == kind]


def tracks(path, sample_rate=44_100):
    """What FFmpeg decodes of each track: a list of (2, L)."""
    found = []
    for index in range(5):
        with av.open(str(path)) as container:
            stream = container.streams.audio[index]
            end, frames = 0, []
            for packet in container.demux(stream):
                if packet.pts is not None:
                    end = packet.pts + packet.duration
                frames += [frame.to_ndarray() for frame in packet.decode()]
            assert stream.codec_context.sample_rate == sample_rate
            # FFmpeg gives the last frame whole, padding and all; its packet knows better.
            found.append(torch.from_numpy(np.concatenate(frames, axis=1))[:, :end])
    return found


@pytest.fixture
def waveforms(noise):
    """Make five different waveforms (2, L): the mixture, then the stems."""

    def make(length, channels=2):
        stems = [0.5 * noise(length, channels, seed) for seed in range(4)]
        return [sum(stems), *stems]

    return make


def save(path, waveforms, sample_rate=44_100, cuts=(), **options):
    with StemFileWriter(path, sample_rate, STEMS, **options) as writer:
        parts = [waveform.tensor_split(cuts, dim=1) for waveform in waveforms]
        for mixture, *stems in zip(*parts, strict=True):
            # The order in the file is the writer's, not the dictionary's.
            writer.write(mixture, dict(zip(STEMS[::-1], stems[::-1], strict=True)))
    return path


def test_five_tracks_come_back_sample_by_sample(tmp_path, waveforms):
    written = waveforms(100_000)
    for track, original in zip(tracks(save(tmp_path / "a", written)), written, strict=True):
        assert track.shape == original.shape
        spectrum = torch.fft.rfft(track[0], 200_000) * torch.fft.rfft(original[0], 200_000).conj()
        assert torch.fft.irfft(spectrum).argmax() == 0
        for part in (slice(None), slice(0, 2_000), slice(-2_000, None)):
            assert snr(original[:, part], track[:, part]) > 10


def test_every_length_comes_back(tmp_path, waveforms):
    for length in EDGE_LENGTHS:
        path = save(tmp_path / "a", waveforms(length))
        assert [track.shape for track in tracks(path)] == [(2, length)] * 5
        assert torch.cat(list(AudioFile(path)), dim=1).shape == (2, length)


@pytest.mark.parametrize(
    ("sample_rate", "stored"),
    [(5_000, 8_000), (22_050, 22_050), (48_000, 48_000), (96_000, 96_000), (192_000, 96_000)],
)
def test_other_rates(tmp_path, waveforms, load, sample_rate, stored):
    written = waveforms(9_000, channels=1)
    path = save(tmp_path / "a", written, sample_rate)
    assert {track.shape for track in tracks(path, stored)} == {(2, 9_000 * stored // sample_rate)}
    read = load(path, sample_rate=sample_rate, channels=1)
    assert read.shape == written[0].shape
    assert snr(written[0], read) > 10


def test_an_ordinary_reader_gets_the_mixture(tmp_path, waveforms, load):
    written = waveforms(50_000)
    assert snr(written[0], load(save(tmp_path / "a", written))) > 14


def test_mono_is_doubled(tmp_path, waveforms):
    mono = waveforms(5_000, channels=1)
    stereo = [waveform.expand(2, -1) for waveform in mono]
    mixed = [stereo[0], mono[1], stereo[2], *mono[3:]]
    expected = save(tmp_path / "a", stereo).read_bytes()
    for written in (mono, mixed):
        assert save(tmp_path / "a", written).read_bytes() == expected


def test_only_the_mixture_is_enabled(tmp_path, waveforms):
    path = save(tmp_path / "a", waveforms(5_000))
    headers = contents(path, "moov/trak/tkhd")
    assert [header[3] & 1 for header in headers] == [1, 0, 0, 0, 0]
    assert [struct.unpack(">I", header[12:16])[0] for header in headers] == [1, 2, 3, 4, 5]
    assert contents(path, "moov/trak/mdia/hdlr")[0][8:12] == b"soun"


def test_every_track_starts_after_the_same_delay_and_lasts_as_long(tmp_path, waveforms):
    path = save(tmp_path / "a", waveforms(5_000))
    edits = contents(path, "moov/trak/edts/elst")
    assert len(edits) == 5
    for edit in edits:
        # One edit, at normal speed: 5000 samples from sample 1024 on, AAC's encoder delay.
        assert struct.unpack(">IIIiI", edit) == (0, 1, 5_000, 1_024, 0x10000)


def test_tracks_are_interleaved(tmp_path, waveforms):
    path = save(tmp_path / "a", waveforms(300_000))
    offsets = [
        struct.unpack(f">{len(table) // 4 - 2}I", table[8:])
        for table in contents(path, "moov/trak/mdia/minf/stbl/stco")
    ]
    assert len(offsets) == 5
    # At each tenth of the track, the five are within a twentieth of the file from each other.
    for tenth in range(10):
        places = [chunks[tenth * len(chunks) // 10] for chunks in offsets]
        assert max(places) - min(places) < path.stat().st_size / 20


def test_the_movie_header_holds_the_stems(tmp_path, waveforms):
    path = save(tmp_path / "a", waveforms(5_000))
    boxes = [name for name, _ in tree(path.read_bytes()) if "/" not in name]
    assert boxes[0] == "ftyp"
    assert boxes[-2:] == ["mdat", "moov"]
    [content] = contents(path, "moov/udta/stem")
    metadata = json.loads(content)
    assert metadata["version"] == 1
    assert metadata["stems"] == [
        {"color": "#009E73", "name": "Drums"},
        {"color": "#D55E00", "name": "Bass"},
        {"color": "#CC79A7", "name": "Other"},
        {"color": "#56B4E9", "name": "Vocals"},
    ]
    assert metadata["mastering_dsp"]["compressor"] == {
        "enabled": False,
        "ratio": 3.0,
        "output_gain": 0.5,
        "release": 0.3,
        "attack": 0.003,
        "input_gain": 0.5,
        "threshold": 0.0,
        "hp_cutoff": 300,
        "dry_wet": 50,
    }
    assert metadata["mastering_dsp"]["limiter"] == {
        "enabled": False,
        "release": 0.05,
        "threshold": 0.0,
        "ceiling": -0.35,
    }


def test_tags_and_cover_art_leave_the_stems_alone(tmp_path, waveforms, store, noise):
    source = store(tmp_path / "song.flac", noise(1_000), AudioEncoding("flac"))
    audio = FLAC(source)
    audio["title"], audio["artist"], audio["tracknumber"] = "Song", "Who", "3/12"
    picture = Picture()
    picture.data, picture.mime = b"\x89PNG" + bytes(40_000), "image/png"
    audio.add_picture(picture)
    audio.save()

    def finish(temporary):
        assert contents(temporary, "moov/udta/stem")
        assert write_tags(read_tags(source), temporary, format="m4a")

    written = waveforms(30_000)
    bare = save(tmp_path / "bare.stem.mp4", written)
    path = save(tmp_path / "song.stem.mp4", written, finish=finish)
    tags = MP4(path)
    assert (tags["\xa9nam"], tags["\xa9ART"], tags["trkn"]) == (["Song"], ["Who"], [(3, 12)])
    assert bytes(tags["covr"][0]) == picture.data
    assert contents(path, "moov/udta/stem") == contents(bare, "moov/udta/stem")
    assert all(map(torch.equal, tracks(path), tracks(bare)))


def test_the_same_waveforms_give_the_same_bytes(tmp_path, waveforms):
    first = save(tmp_path / "a", waveforms(9_000)).read_bytes()
    assert save(tmp_path / "b", waveforms(9_000)).read_bytes() == first


@settings(max_examples=8, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 40_000), max_size=5))
def test_blocks_may_be_cut_anywhere(tmp_path_factory, noise, cuts):
    folder = tmp_path_factory.mktemp("cuts")
    written = [noise(10_000, seed=seed) for seed in range(5)]
    whole, parts = (
        tracks(save(folder / "a", written)),
        tracks(save(folder / "b", written, cuts=sorted(cuts))),
    )
    assert all(map(torch.equal, whole, parts))


def test_the_bitrate_is_kept(tmp_path, waveforms):
    sizes = [
        save(tmp_path / "a", waveforms(90_000), bitrate=bitrate).stat().st_size
        for bitrate in (96, 192, None)
    ]
    seconds = 90_000 / 44_100
    for size, bitrate in zip(sizes, (96, 192, 256), strict=True):
        assert size == pytest.approx(5 * 125 * bitrate * seconds, rel=0.1)
    with pytest.raises(AudioError, match="cannot have 600 kbit/s; choose 16 to 512"):
        save(tmp_path / "a", waveforms(100), bitrate=600)


def test_the_name_appears_only_when_the_file_is_complete(tmp_path, waveforms):
    path, temporary = tmp_path / "new" / "a.stem.mp4", tmp_path / "new" / ".mine"
    mixture, *stems = waveforms(20_000)
    with StemFileWriter(path, 44_100, STEMS, temporary=temporary) as writer:
        writer.write(mixture, dict(zip(STEMS, stems, strict=True)))
        assert list(path.parent.iterdir()) == [temporary]
    assert list(path.parent.iterdir()) == [path]


def test_an_exception_leaves_what_was_there(tmp_path, waveforms):
    path = tmp_path / "a"
    path.write_text("before")

    def finish(temporary):
        raise RuntimeError("finish")

    with pytest.raises(RuntimeError, match="finish"):
        save(path, waveforms(5_000), finish=finish)
    with pytest.raises(AudioError, match="got no samples; nothing was saved"):
        save(path, [torch.zeros(2, 0)] * 5)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "before"


def test_a_full_disk_is_an_audio_error(tmp_path, waveforms):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    written = waveforms(100_000)
    whole = save(tmp_path / "a", written).stat().st_size
    (tmp_path / "a").unlink()
    # The audio does not fit; all but the stem metadata fits.
    for limit in (10_000, whole - 100):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(AudioError, match=r"a cannot be written .*; check its folder"):
                save(tmp_path / "a", written)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stems", [[], STEMS[:3], [*STEMS, "guitar", "piano"], ["drums"] * 4])
def test_other_numbers_of_stems_are_refused(tmp_path, stems):
    words = "takes exactly 4 different stems, not .*; choose a model with four, or another format"
    with pytest.raises(AudioError, match=words):
        StemFileWriter(tmp_path / "a", 44_100, stems)
    assert not list(tmp_path.iterdir())


def test_other_waveforms_are_refused(tmp_path, noise):
    writer = StemFileWriter(tmp_path / "a", 44_100, STEMS)
    good = {name: noise(50) for name in STEMS}
    with pytest.raises(AudioError, match=r"takes the stems drums, bass, other, vocals, not drums$"):
        writer.write(noise(50), {"drums": noise(50)})
    for bad in (noise(49), noise(50, channels=3), noise(50)[0]):
        with pytest.raises(AudioError, match=r"takes blocks of shape \(2, L\) or \(1, L\) with"):
            writer.write(noise(50), good | {"bass": bad})
        with pytest.raises(AudioError, match=r"takes blocks of shape \(2, L\) or \(1, L\) with"):
            writer.write(bad, good)
    writer.abort()
    with pytest.raises(AudioError, match="is closed; open a new writer"):
        writer.write(noise(50), good)
    assert not list(tmp_path.iterdir())


def box(kind, content):
    return struct.pack(">I4s", 8 + len(content), kind) + content


def long_box(kind, content):
    return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content


@pytest.mark.parametrize("last", [b"", box(b"more", b"after")])
def test_user_data_are_made_where_there_are_none(tmp_path, last):
    path = tmp_path / "a"
    audio, head = long_box(b"mdat", b"audio"), box(b"mvhd", b"head")  # as above 4 GB
    user = box(b"udta", box(b"one ", b"1") + box(b"two ", b"22"))
    path.write_bytes(audio + box(b"moov", head))
    add_user_data(path, b"one ", b"1")
    first = box(b"moov", head + box(b"udta", box(b"one ", b"1")))
    assert path.read_bytes() == audio + first
    path.write_bytes(audio + box(b"moov", first[8:] + last))
    add_user_data(path, b"two ", b"22")
    assert path.read_bytes() == audio + box(b"moov", head + user + last)


def test_user_data_are_added_only_where_no_audio_would_move(tmp_path):
    path = tmp_path / "a"
    for data in (box(b"moov", b"") + box(b"mdat", b"audio"), box(b"mdat", b"audio")):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="does not end with its moov box"):
            add_user_data(path, b"stem", b"{}")
        assert path.read_bytes() == data


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg command")
def test_the_ffmpeg_command_finds_the_same(tmp_path, waveforms):
    written = waveforms(50_001)
    path = save(tmp_path / "a.stem.mp4", written)
    for index, original in enumerate(written):
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", f"0:a:{index}"]
        decoded = subprocess.run(
            [*command, "-f", "f32le", "-"], check=True, capture_output=True
        ).stdout
        read = torch.frombuffer(bytearray(decoded), dtype=torch.float32).reshape(-1, 2).T
        # Older versions give the padding of the last frame as well.
        assert 50_001 <= read.shape[1] < 50_001 + 1_024
        assert snr(original, read[:, :50_001]) > 14
