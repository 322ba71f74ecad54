"""Rows say which way is better, and timings are medians over turns."""

import json

import pytest
from typer.testing import CliRunner

from spikeloom import bench
from spikeloom.bench import load
from spikeloom.bench.options import Options
from spikeloom.bench.rows import Row, device_name, to_markdown
from spikeloom.bench.timing import time_cpu
from spikeloom.cli import app
from spikeloom.errors import ConfigError


def test_ratio_follows_the_unit():
    assert Row("a", "cpu", 2.0, 6.0, "peer", "ms").ratio == 3.0
    assert Row("a", "cpu", 6.0, 2.0, "peer", "tokens/s").ratio == 3.0
    with pytest.raises(ValueError, match="which way"):
        Row("a", "cpu", 1.0, 1.0, "peer", "parrots")


def test_a_missed_target_is_marked():
    table = to_markdown(
        [
            Row("slow", "cpu", 2.0, 3.0, "peer", "ms", target=2.0),
            Row("fast", "cpu", 1.0, 3.0, "peer", "ms", target=2.0),
        ]
    )
    slow, fast = table.splitlines()[2:]
    assert "missed" in slow
    assert "missed" not in fast


def test_row_as_json():
    row = Row("a", device_name("cpu"), 1.0, 2.0, "peer", "ms", target=1.5).as_json()
    assert row["ratio"] == 2.0
    assert set(row) >= {"case", "device", "ours", "peer", "peer_name", "unit", "ratio", "target"}


def test_contenders_take_turns():
    calls = []
    times = time_cpu({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=4)
    assert calls == ["a", "b"] * 6
    assert set(times) == {"a", "b"}


def test_unknown_benchmark():
    with pytest.raises(ConfigError, match="decode"):
        load("decoed")


def test_rows_are_printed_and_kept_as_they_come(monkeypatch, tmp_path):
    def measured(device, options):
        assert options == Options(quick=True, case="15m")
        yield Row("first", device, 2.0, 3.0, "peer", "ms")
        kept = json.loads((tmp_path / "rows.json").read_text())
        assert [row["case"] for row in kept["results"]] == ["first"]
        assert not kept["complete"]
        raise ConfigError("no more")

    monkeypatch.setattr(bench, "load", lambda name: measured)
    command = ["bench", "lif", "--device", "cpu", "--quick", "--case", "15m"]
    result = CliRunner().invoke(app, [*command, "--json", str(tmp_path / "rows.json")])
    assert isinstance(result.exception, ConfigError)
    assert result.stdout.splitlines()[2].startswith("| first | 2 | 3 | ms | peer | 1.50 |")
