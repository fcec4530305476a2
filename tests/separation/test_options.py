from pathlib import Path

import pytest

from htdemucs import AudioEncoding, OutputOptions, SeparationError


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
    assert options.path(Path("music") / track, "bass", Path("out")) == Path("out") / expected


def test_the_extension_is_the_format_s():
    options = OutputOptions(encoding=AudioEncoding("mp3"))
    assert options.path(Path("a.wav"), "bass", Path("o")).name == "bass.mp3"


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"filename": "{track}.{ext}"}, "stem"),
        ({"filename": "{artist}/{stem}"}, "artist"),
        ({"filename": "{stem.__class__}"}, "stem.__class__"),
        ({"filename": "{stem[0]}"}, "stem"),
        ({"filename": "{stem"}, "filename"),
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
        ("...mp3", "{track}/../{stem}.{ext}"),
        ("x.mp3", "../../{stem}.{ext}"),
        ("...wav", "{track}/{stem}.{ext}"),
        ("x.mp3", "/etc/{stem}"),
    ],
)
def test_nothing_leads_out_of_the_output_folder(track, template, tmp_path):
    with pytest.raises(SeparationError, match="outside"):
        OutputOptions(filename=template).path(Path(track), "bass", tmp_path / "out")


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
