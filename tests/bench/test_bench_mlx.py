"""MLX beside NumPy: what is timed is the same model."""

from dataclasses import replace

import pytest

from spikeloom.bench import load, mlx
from spikeloom.config import load_config
from spikeloom.errors import ConfigError

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}


@pytest.mark.mlx
def test_three_kinds_of_rows(monkeypatch):
    pytest.importorskip("mlx.core", reason="needs `pip install 'spikeloom[mlx]'`")

    def small(name):
        run = load_config(name)
        return replace(run, model=replace(run.model, **SIZES))

    monkeypatch.setattr(mlx, "load_config", small)
    monkeypatch.setattr(mlx, "CONTEXT", 8)
    monkeypatch.setattr(mlx, "SIZE", 16)
    rows = load("mlx")("cpu")
    assert len(rows) == 2 * len(mlx.PRESETS) + 1
    assert all(row.ours > 0 and row.peer > 0 for row in rows)
    assert "GFLOP/s" in rows[-1].case


def test_what_computes_something_else_is_not_timed():
    mlx.check(5.5, 5.5001)
    with pytest.raises(AssertionError, match="loss in MLX"):
        mlx.check(5.5, 5.6)


def test_it_is_refused_on_a_gpu_of_nvidia():
    with pytest.raises(ConfigError, match="--device cpu"):
        load("mlx")("cuda")
