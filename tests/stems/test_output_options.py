from pathlib import Path

import pytest
import torch
from mutagen.flac import FLAC

from htdemucs import AudioEncoding, OutputOptions, SeparationError
from htdemucs.audio import AudioWriter
from htdemucs.stems.paths import file_name


@pytest.mark.parametrize(
    ("track", "template", "expected"),
    [
        ("song.mp3", "{track}/{stem}.{ext}", "song/bass.wav"),
        ("a.b.c.flac", "{track}/{stem}.{ext}", "a.b.c/bass.wav"),
        ("noextension", "{track}/{stem}.{ext}", "noextension/bass.wav"),
        (".hidden", "{track}/{stem}.{ext}", ".hidden/bass.wav"),
        ("歌 🎵.ogg", "{stem}-{track}-{trackext}.{ext}", "bass-歌 🎵-ogg.wav"),
        ("song.mp3", "{{x}}{stem}", "{x}bass"),
    ],
)
def test_template(track, template, expected):
    options = OutputOptions(filename=template)
    paths = options.output_paths(Path("music") / track, Path("out"))
    assert paths.stem("bass") == Path("out") / expected


def test_the_extension_is_the_format_s():
    options = OutputOptions(encoding=AudioEncoding("mp3"))
    assert options.output_paths(Path("a.wav"), Path("o")).stem("bass").name == "bass.mp3"


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"filename": "{track}.{ext}"}, "stem"),
        ({"filename": "{composer}/{stem}"}, "composer"),
        ({"filename": "{stem.__class__}"}, "stem.__class__"),
        ({"filename": "{stem[0]}"}, "stem"),
        ({"filename": "{stem"}, "file name template"),
        ({"filename": "{0}{stem}"}, "0"),
        ({"filename": "{}{stem}"}, "names"),
        ({"filename": "{stem:>9999999999}"}, "plain"),
        ({"filename": "{stem!r}"}, "plain"),
        ({"clip_mode": "loud"}, "clip_mode"),
        ({"other_method": "divide"}, "other_method"),
    ],
)
def test_impossible_options_are_named(fields, match):
    with pytest.raises(SeparationError, match=match):
        OutputOptions(**fields)


@pytest.mark.parametrize(
    ("track", "template"),
    [
        ("x.mp3", "{track}/../../{stem}.{ext}"),
        ("x.mp3", "../../{stem}.{ext}"),
        ("x.mp3", "/etc/{stem}"),
    ],
)
def test_nothing_leads_out_of_the_output_folder(track, template, tmp_path):
    with pytest.raises(SeparationError, match="outside"):
        OutputOptions(filename=template).output_paths(Path(track), tmp_path / "out").stem("bass")


@pytest.mark.parametrize(
    ("track", "expected"),
    [
        ("song..wav", "song"),
        ("song .wav", "song"),
        ("...wav", "_"),
        (". .mp3", "_"),
        ("a.b.", "a.b"),
    ],
)
def test_a_name_loses_the_dots_and_spaces_at_its_end(track, expected, tmp_path):
    """Windows drops them from folders' names, and a name of dots alone is another folder."""
    paths = OutputOptions().output_paths(Path(track), tmp_path / "out")
    assert paths.stem("bass") == tmp_path / "out" / expected / "bass.wav"


def test_stems_needed():
    sources = ("drums", "bass", "vocals")
    assert OutputOptions().needed_stems(sources) == sources
    assert OutputOptions(two_stems="bass").needed_stems(sources) == sources
    for method in ("minus", "none"):
        options = OutputOptions(two_stems="bass", other_method=method)
        assert options.needed_stems(sources) == ("bass",)
    with pytest.raises(SeparationError, match="no other stem"):
        OutputOptions(two_stems="bass").needed_stems(("bass",))
    with pytest.raises(SeparationError, match="piano"):
        OutputOptions(two_stems="piano").needed_stems(sources)


def test_impossible_combinations_are_named():
    for fields, match in (
        ({"stem_file": True, "two_stems": "bass"}, "two stems"),
        ({"stem_file": True, "residual": "write"}, "residual"),
        ({"two_stems": "bass", "other_method": "none", "residual": "spread"}, "a single stem"),
        ({"residual": "yes"}, "residual"),
    ):
        with pytest.raises(SeparationError, match=match):
            OutputOptions(**fields)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{track}/{stem}.{ext}", "song/htdemucs.json"),
        ("{track}_{stem}.{ext}", "song_htdemucs.json"),
        ("{stem}/{track}.{ext}", "htdemucs/song.json"),
        ("{track}/{stem}.wav", "song/htdemucs.wav.json"),
        ("{track}-{stem}", "song-htdemucs.json"),
    ],
)
def test_the_path_of_the_manifest(template, expected):
    paths = OutputOptions(filename=template).output_paths(Path("a/song.mp3"), Path("out"))
    assert paths.manifest == Path("out") / expected
    assert paths.cache_file.parent == paths.manifest.parent
    assert paths.cache_file.name.startswith(".")


def test_stem_files_have_the_track_s_name():
    options = OutputOptions(stem_file=True)
    paths = options.output_paths(Path("a/song.mp3"), Path("out"))
    assert options.stem_paths(paths, ("a", "b")) == {"stem file": Path("out/song/song.stem.mp4")}
    paths = OutputOptions(stem_file=True, filename="{track}.{ext}").output_paths(
        Path("a/song.mp3"), Path("out")
    )
    assert paths.stem("song") == Path("out/song.stem.mp4")
    assert paths.manifest == Path("out/song.htdemucs.json")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{track}/{stem}.{ext}", "song (2)/bass.wav"),
        ("{artist}/{title}-{stem}.{ext}", "Unknown artist/song (2)-bass.wav"),
        ("{artist}/{stem}.{ext}", "Unknown artist (2)/bass.wav"),
        ("{stem}.{ext}", "bass (2).wav"),
    ],
)
def test_a_second_track_of_a_name_is_numbered(template, expected):
    template = template.replace("{title}", "{track}") if "{title}" in template else template
    paths = OutputOptions(filename=template).output_paths(Path("song.mp3"), Path("out"), 2)
    assert paths.stem("bass") == Path("out") / expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AC/DC", "AC_DC"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", ""),
        (" . ", ""),
        ("a\nb\0c", "a_b_c"),
        ("C:\\x", "C__x"),
        ("歌" * 100, "歌" * 50),
        ("a" * 149 + "é", "a" * 149),
        ("\udc80x", "_x"),
        ("AUX", "_AUX"),  # a device on Windows, with any extension
        ("nul.live", "_nul.live"),
        ("com1", "_com1"),
        ("Con te partirò", "Con te partirò"),
    ],
)
def test_tags_as_parts_of_a_path(text, expected):
    assert file_name(text) == expected


def test_tags_in_a_template(tmp_path):
    track = tmp_path / "x.flac"
    with AudioWriter(track, 8000, 1, AudioEncoding("flac")) as writer:
        writer.write(torch.zeros(1, 100))
    tags = FLAC(track)
    tags["artist"], tags["title"], tags["album"] = "AC/DC", "../T", "A"
    tags.save()
    template = "{artist}/{album}/{title}/{stem}.{ext}"
    paths = OutputOptions(filename=template).output_paths(track, tmp_path)
    assert paths.stem("bass") == tmp_path / "AC_DC" / "A" / "_T" / "bass.wav"
