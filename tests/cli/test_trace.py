"""`htdemucs trace`: sizes of any model, and a song inside the network."""

import csv
import json
import os
import re
import threading
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch

from htdemucs import AudioEncoding, Bag, DemucsConfig, load_model, save_model
from htdemucs.audio import AudioWriter
from htdemucs.model import build


@pytest.fixture
def trace(run):
    """Return a function that runs the command, and returns what it prints."""

    def run_trace(*words):
        result = run("trace", *words)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run_trace


def test_the_table_is_the_founding_table(trace):
    text = trace("--samples", 258602, "--language", "zh")
    rows = [[cell.strip() for cell in line.split("│")[1:4]] for line in text.splitlines()]
    rows = [row for row in rows if len(row) == 3 and row[0]]
    assert len(rows) == 25
    assert rows[0] == ["1", "算法输入", "1, 2, 258602"]
    assert rows[12] == ["13", "crosstransformer输出频域", "1, 384, 8, 253"]
    assert rows[24] == ["25", "算法输出(时域输出+频域输出)", "1, 4, 2, 258602"]
    assert "阶段" in text
    assert "stage" not in text


def test_models_by_name_signature_and_folder(trace, model_folder):
    assert "1, 6, 2, 343980" in trace("-n", "htdemucs_6s")
    assert "27,414,996" in trace("-n", "htdemucs_6s")
    assert "41,984,456" in trace("-n", "955717e8")
    assert "1, 4, 2, 8000" in trace("-n", model_folder)


def test_a_bag_says_which_network_is_shown(trace, run, tmp_path):
    assert "htdemucs_ft, network 1 of 4: " in trace("-n", "htdemucs_ft")
    assert "all 4 networks of this bag have these shapes" in trace("-n", "htdemucs_ft")
    assert "networks 1, 2 of this bag's 4 have these shapes" in trace("-n", "mdx")
    third = json.loads(trace("-n", "mdx", "--member", 3, "--format", "json"))
    assert (third["member"], third["members"], third["members_alike"]) == (3, 4, [3])
    assert third["architecture"] == "HDemucs"
    assert run("trace", "-n", "mdx", "--member", 5).exit_code == 2


def test_a_track_longer_than_a_segment_is_several(trace):
    text = trace("--seconds", 600)
    assert "1, 4, 2, 343980" in text
    found = re.search(r"26460000 samples are separated in (\d+) segments .*: ([\d,]+) GFLOP", text)
    stride = 343_980 * 3 // 4
    assert int(found[1]) in (26_460_000 // stride + 1, 26_460_000 // stride + 2)
    assert int(found[2].replace(",", "")) == pytest.approx(int(found[1]) * 335.33, abs=1)
    assert "segments" not in trace("--seconds", 7.8)
    assert "1, 4, 2, 441000" in trace("-n", "mdx", "--seconds", 10)  # any length is allowed


def test_json_and_csv_have_everything(trace, tmp_path):
    document = json.loads(trace("--samples", 258602, "--depth", 2, "--format", "json"))
    rows = {row["number"]: row for row in document["stages"]}
    encoder = rows["12"]
    assert encoder["shape"] == [1, 384, 8, 253]
    assert encoder["module"] == "spectral_encoder.3"
    assert encoder["axes"][2] == {
        "axis": "bin", "value": 8, "formula": "32 / 4", "meaning": "stride_bins",
    }  # fmt: skip
    assert encoder["parameters"] == sum(
        row["parameters"] for number, row in rows.items() if number.startswith("12.")
    )
    assert document["gflop"] == pytest.approx(sum(
        row["gflop"] for number, row in rows.items() if "." not in number
    ))  # fmt: skip
    path = tmp_path / "table.csv"
    trace("--samples", 258602, "-o", path)
    table = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert len(table) == 25
    assert table[4]["derivation"] == "step 64651 = ⌈258602 / 4⌉"
    assert float(table[11]["step_hertz"]) == 22050 / 8
    assert int(table[11]["parameters"]) == 1_075_872


def test_markdown_and_svg(trace, tmp_path):
    text = trace("--format", "markdown", "--language", "zh")
    assert "| 12 | 频域第4个编码层输出 | 1, 384, 8, 336 |" in text
    trace("-o", tmp_path / "network.svg", "-n", "hdemucs_mmi")
    root = ElementTree.parse(tmp_path / "network.svg").getroot()
    assert root.tag.endswith("svg")


class Page(HTMLParser):
    """The resources, identifiers and links of a page."""

    def __init__(self, text):
        super().__init__()
        self.resources, self.ids, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.resources += [found[name] for name in ("src", "data") if name in found]
        self.links += [found["href"]] if "href" in found else []
        self.ids += [found["id"]] if "id" in found else []


@pytest.mark.parametrize("name", ["mini", "Demucs"])
def test_the_page_of_a_song_is_one_file(trace, song, tmp_path, name):
    if name == "Demucs":
        name = tmp_path / "demucs"
        save_model(build(DemucsConfig(channels=4, depth=3, segment=1)), name)
    path = tmp_path / "song.html"
    trace(song, "-n", name, "-o", path, "--seconds", 1)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    kinds = {resource.partition(",")[0] for resource in page.resources}
    assert kinds == {"data:image/png;base64", "data:audio/mpeg;base64"}
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert text.count("<audio") == 5  # the mixture and four stems
    assert len(set(page.ids)) == len(page.ids)
    if str(name) == "mini":
        assert "SpectralEncoderLayer, htdemucs/model/layers.py" in text
        assert text.count("looks at in the time branch") == 1  # mini has one cross-attention layer


def test_the_loudest_segment_is_taken_and_at_chooses_another(trace, tmp_path):
    waveform = 0.01 * torch.randn(2, 44_100 * 12, generator=torch.Generator().manual_seed(1))
    waveform[:, 44_100 * 5 : 44_100 * 9] *= 30
    song = tmp_path / "song.wav"
    with AudioWriter(song, 44_100, 2, AudioEncoding("wav", 32)) as writer:
        writer.write(waveform)
    loud = json.loads(trace(song, "-n", "mini", "--format", "json"))
    assert loud["track"] == {"path": str(song), "start": 5.0}
    assert loud["samples"] == 176_400
    quiet = json.loads(trace(song, "-n", "mini", "--format", "json", "--at", 0.5))
    assert quiet["track"]["start"] == 0.5
    assert quiet["stages"][0]["statistics"]["std"] < loud["stages"][0]["statistics"]["std"]
    end = json.loads(trace(song, "-n", "mini", "--format", "json", "--at", 11.5))
    assert end["samples"] == 22_050


@pytest.mark.parametrize("kind", ["silence", "mono", "short"])
def test_unusual_songs_are_traced(trace, tmp_path, kind):
    length = 100 if kind == "short" else 50_000
    waveform = torch.zeros(1 if kind == "mono" else 2, length)
    if kind != "silence":
        waveform += 0.1 * torch.randn(waveform.shape, generator=torch.Generator().manual_seed(1))
    song = tmp_path / "song.wav"
    with AudioWriter(song, 44_100, waveform.shape[0], AudioEncoding("wav")) as writer:
        writer.write(waveform)
    trace(song, "-n", "mini", "-o", tmp_path / "song.html")
    document = json.loads(trace(song, "-n", "mini", "--format", "json"))
    assert document["samples"] == length
    assert document["stages"][0]["shape"] == [1, 2, length]


def test_one_channel_can_be_drawn(trace, run, song, tmp_path):
    path = tmp_path / "one.html"
    trace(song, "-n", "mini", "--channel", 70, "-o", path)
    assert path.read_text(encoding="utf-8").count("<img") > 10
    result = run("trace", song, "-n", "mini", "--channel", 5000, "-o", path)
    assert result.exit_code == 2
    assert "no stage has a channel 5000" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", "nonsense"], "no model nonsense"),
        (["-n", "hf://someone/model"], "hf://"),
        (["--samples", 0], "at least one sample"),
        (["--samples", 9, "--seconds", 9], "not both"),
        (["--seconds", "nan"], "--seconds"),
        (["--seconds", "inf"], "--seconds"),
        (["SONG", "--at", "inf"], "--at"),
        (["-o", "", "--format", "svg"], "name of a file"),
        (["--depth", 3], "--depth"),
        (["--at", 3], "need a TRACK"),
        (["-o", "x.png"], ".json, .csv, .md, .svg, .html"),
        (["SONG", "-n", "mini", "--at", 999], "lasts 2.5 s"),
    ],
)
def test_what_is_impossible_is_one_line(run, song, words, message):
    result = run("trace", *[song if word == "SONG" else word for word in words])
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_links_and_pipes_stay_what_they_are(run, tmp_path):
    target, link = tmp_path / "target.svg", tmp_path / "link.svg"
    target.write_text("old")
    link.symlink_to(target)
    assert run("trace", "-n", "mini", "-o", link).exit_code == 0
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8").startswith("<svg")
    if hasattr(os, "mkfifo"):
        pipe, received = tmp_path / "pipe.svg", []
        os.mkfifo(pipe)
        reader = threading.Thread(target=lambda: received.append(pipe.read_text("utf-8")))
        reader.start()
        assert run("trace", "-n", "mini", "-o", pipe).exit_code == 0
        reader.join()
        assert pipe.is_fifo()
        assert received == [target.read_text(encoding="utf-8")]


def test_older_networks_are_traced_at_any_length(trace):
    document = json.loads(trace("-n", "hdemucs_mmi", "--seconds", 100, "--format", "json"))
    assert (document["samples"], document["segments"]) == (4_410_000, 1)


def test_a_missing_song_and_a_folder_that_does_not_exist(run, tmp_path):
    result = run("trace", tmp_path / "none.wav", "-n", "mini")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    (tmp_path / "file").touch()
    result = run("trace", "-o", tmp_path / "file" / "x.svg")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)


def test_a_bag_with_a_song(trace, song, tmp_path):
    mini = load_model("mini")
    member = mini.members[0] if isinstance(mini, Bag) else mini
    save_model(Bag([member, build(member.config)]), tmp_path / "bag")
    document = json.loads(trace(song, "-n", tmp_path / "bag", "--member", 2, "--format", "json"))
    assert (document["member"], document["members_alike"]) == (2, [1, 2])
