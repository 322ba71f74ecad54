"""docs/mlx.md names what there is."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from spikeloom.config import load_config

pytestmark = pytest.mark.mlx
TEXT = (Path(__file__).parents[3] / "docs" / "mlx.md").read_text("utf-8")


def test_files_and_modules_exist():
    named = set(re.findall(r"`(\w+)\.py`", TEXT))
    assert named >= {"spikes", "scan", "metal", "state", "attention", "training", "lm"}
    package = "spikeloom.backends.mlx"
    for module in named - {"parity"}:
        import_module(f"{package}.{module}")
    for module in re.findall(r"python -m ([\w.]+)", TEXT):
        assert hasattr(import_module(module), "main")


def test_names_and_settings_exist():
    for path, name in (
        ("scan", "naive"),
        ("scan", "takes_metal"),
        ("training", "GroupedOptimizer"),
        ("lm", "register"),
    ):
        assert name in TEXT
        assert hasattr(import_module(f"spikeloom.backends.mlx.{path}"), name)
    for setting in re.findall(r"(training\.\w+=[\w.]+)", TEXT):
        load_config("spikeloom-1m", [setting])
