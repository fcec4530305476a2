"""The table of a large run's outcomes."""

import os
import shutil

import pytest

from htdemucs.batch import Outcome, remote
from htdemucs.batch.ray_cluster import OutcomeTable, Row

fsspec = pytest.importorskip("fsspec")


def test_the_table_keeps_the_order_and_any_name(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    separated = {"duration": 2.0, "seconds": 0.5, "warnings": ("w",)}
    table = OutcomeTable()
    bad = os.fsdecode(b"\xff.flac")
    table.add(Row(1, Outcome(bad, "failed", f"{bad} is none"), "host:1", "cpu", 3))
    files = {"bass": "out/bass.wav"}
    table.add(Row(0, Outcome("a", "separated", files=files, **separated), "host:2", "cpu"))
    table.write(str(tmp_path / "new" / "table.parquet"))
    rows = parquet.read_table(tmp_path / "new" / "table.parquet").to_pylist()
    assert [row["position"] for row in rows] == [0, 1]
    assert rows[0]["files"] == [("bass", "out/bass.wav")]
    assert (rows[0]["warnings"], rows[0]["reason"], rows[0]["worker"]) == (["w"], None, "host:2")
    assert rows[1]["path"] == "\\udcff.flac"
    assert rows[1]["deaths"] == 3
    assert (table.counts["failed"], table.duration) == (1, 2.0)
    table.write("memory://tables/r.parquet")
    remote.fetch("memory://tables/r.parquet", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "new" / "table.parquet").read_bytes()
    shutil.rmtree(tmp_path / "new")
    OutcomeTable().write(str(tmp_path / "empty.parquet"))
    assert parquet.read_table(tmp_path / "empty.parquet").num_rows == 0
