"""Files that were put together from several, and formats behind an ID3 tag."""

import pytest
import soundfile
import torch
from mutagen import id3

from htdemucs.audio import AudioEncoding, AudioFile
from htdemucs.audio.concatenated import find_parts
from htdemucs.errors import AudioError

LENGTHS = (30_000, 20_001)  # samples, of the files that are joined


def joined(folder, paths):
    path = folder / "joined"
    path.write_bytes(b"".join(path.read_bytes() for path in paths))
    return path


def vorbis(path, waveform, rate=44_100):
    """Write what libvorbis writes, which FFmpeg's own encoder does not."""
    soundfile.write(path, waveform.T.numpy(), rate, format="OGG")
    return path


@pytest.mark.parametrize("format_", ["ogg", "opus", "mp3"])
def test_joined_files_give_the_samples_of_each(tmp_path, noise, store, load, format_):
    paths = [
        store(tmp_path / str(n), noise(length, seed=n), AudioEncoding(format_), 48_000)
        for n, length in enumerate(LENGTHS)
    ]
    whole = AudioFile(joined(tmp_path, paths))
    read = torch.cat(list(whole), dim=1)
    assert torch.equal(read, torch.cat([load(path) for path in paths], dim=1))
    assert read.shape[1] == whole.source_length == sum(LENGTHS)
    assert whole.duration == pytest.approx(sum(LENGTHS) / 48_000, abs=0.1)
    assert whole.warnings == ()


@pytest.mark.parametrize("channels", [1, 2])
def test_chained_vorbis_of_another_rate_is_converted_to_the_first_ones(
    tmp_path, noise, load, channels
):
    first = vorbis(tmp_path / "first", noise(30_000))
    second = vorbis(tmp_path / "second", noise(20_000, channels=channels, seed=1), 22_050)
    read = load(joined(tmp_path, [first, second]))
    assert read.shape == (2, 70_000)
    assert torch.equal(read[:, :30_000], load(first))
    converted = load(second, sample_rate=44_100, channels=2)
    assert torch.allclose(read[:, 30_000:], converted, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_chained_opus_may_change_its_channels(tmp_path, noise, store, load, channels):
    paths = [
        store(tmp_path / str(n), noise(20_000, channels=n), AudioEncoding("opus"), 48_000)
        for n in (channels, 3 - channels)
    ]
    assert load(joined(tmp_path, paths)).shape == (channels, 40_000)


def test_flac_in_chained_ogg_is_not_called_damaged(tmp_path, noise, make_media):
    paths = [make_media(tmp_path / f"{n}.ogg", "flac", [noise(20_000)]) for n in range(2)]
    audio = AudioFile(joined(tmp_path, paths))
    assert sum(block.shape[1] for block in audio) == 40_000
    assert audio.warnings == ()


@pytest.mark.parametrize("length", [1, 300, 4_000, 9_000, 20_000])
def test_vorbis_on_a_single_page_has_its_exact_length(tmp_path, load, length):
    wave = 0.1 * torch.sin(torch.arange(float(length)) * 0.05).expand(2, -1)
    path = vorbis(tmp_path / "a.ogg", wave)
    assert load(path).shape == (2, length)
    assert load(joined(tmp_path, [path] * 3)).shape == (2, 3 * length)


def test_pictures_and_sound_of_one_ogg_file_are_no_chain(tmp_path, noise, make_media):
    path = make_media(tmp_path / "a.ogg", "flac", [noise(20_000), noise(20_000, seed=1)])
    assert len(find_parts(path)) == 1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_chain_with_an_unreadable_link_gives_the_others(tmp_path, noise, store, load, place):
    paths = [store(tmp_path / str(n), noise(20_000, seed=n), AudioEncoding("ogg")) for n in (0, 1)]
    broken = tmp_path / "broken"
    broken.write_bytes(paths[0].read_bytes().replace(b"vorbis", b"nobody"))
    chain = [*paths[:place], broken, *paths[place:]]
    audio = AudioFile(joined(tmp_path, chain))
    assert torch.equal(torch.cat(list(audio), dim=1), torch.cat([load(p) for p in paths], dim=1))
    assert audio.warnings == ("1 damaged packet was left out",)
    with pytest.raises(AudioError, match="cannot be read"):
        AudioFile(joined(tmp_path, [broken, broken]))


def test_tags_between_joined_mp3_files_are_no_sound(tmp_path, noise, store, load):
    paths = [store(tmp_path / str(n), noise(20_000, seed=n), AudioEncoding("mp3")) for n in (0, 1)]
    tags = id3.ID3()
    tags.add(id3.APIC(mime="image/jpeg", type=3, data=bytes.fromhex("fffb9064") * 5_000))
    for path in paths:
        tags.save(path)
    audio = AudioFile(joined(tmp_path, paths))
    assert sum(block.shape[1] for block in audio) == 40_000
    assert audio.warnings == ()


@pytest.mark.parametrize("picture", [0, 3_000, 2_000_000])
@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.m4a", "a.ogg", "a.flac", "a.mp3"])
def test_an_id3_tag_may_stand_before_any_format(
    tmp_path, noise, store, make_media, load, name, picture
):
    format_ = name.removeprefix("a.")
    path = tmp_path / name
    if format_ == "aiff":
        make_media(path, "pcm_s16be", [noise(5_000)])
    else:
        store(path, noise(5_000), AudioEncoding(format_))
    expected = load(path)
    data = path.read_bytes()
    tags = id3.ID3()
    tags.add(id3.TIT2(encoding=3, text=["Song"]))
    if picture:
        tags.add(id3.APIC(mime="image/jpeg", type=3, data=bytes(picture)))
    path.write_bytes(b"")
    tags.save(path)
    path.write_bytes(path.read_bytes() + data)
    assert torch.equal(load(path), expected)
