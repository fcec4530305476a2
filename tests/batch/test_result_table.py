"""The table of a large run's results."""

import os
import shutil
from dataclasses import fields

import pytest

from htdemucs.batch import ray_cluster, remote
from htdemucs.batch.ray_cluster import ResultTable, WorkerInfo
from htdemucs.results import TrackResult

fsspec = pytest.importorskip("fsspec")


def test_the_table_keeps_the_order_and_any_name(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    separated = {"duration": 2.0, "seconds": 0.5, "warnings": ("w",)}
    table = ResultTable()
    bad = os.fsdecode(b"\xff.flac")
    failed = TrackResult(bad, "failed", f"{bad} is none")
    table.add(1, failed, WorkerInfo("host:1", "cpu", 3))
    files = {"bass": "s3://out/bass.wav"}
    result = TrackResult("a", "separated", files=files, **separated)
    table.add(0, result, WorkerInfo("host:2", "cpu"))
    table.write(str(tmp_path / "new" / "table.parquet"))
    rows = parquet.read_table(tmp_path / "new" / "table.parquet").to_pylist()
    assert [row["position"] for row in rows] == [0, 1]
    assert rows[0]["files"] == [("bass", "s3://out/bass.wav")]
    assert (rows[0]["warnings"], rows[0]["error"], rows[0]["worker"]) == (["w"], None, "host:2")
    assert rows[1]["track"] == "\\udcff.flac"
    assert rows[1]["crash_count"] == 3
    assert (table.counts["failed"], table.duration) == (1, 2.0)
    table.write("memory://tables/r.parquet")
    remote.download("memory://tables/r.parquet", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "new" / "table.parquet").read_bytes()
    shutil.rmtree(tmp_path / "new")
    ResultTable().write(str(tmp_path / "empty.parquet"))
    assert parquet.read_table(tmp_path / "empty.parquet").num_rows == 0


def test_the_table_has_a_column_for_every_field_of_a_result():
    pytest.importorskip("pyarrow")
    columns = set(ray_cluster._schema().names)
    assert columns == {field.name for field in fields(TrackResult)} | {
        "position", "worker", "device", "crash_count",
    }  # fmt: skip
