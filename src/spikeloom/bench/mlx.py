"""MLX beside NumPy on this machine: the same model and weights, and their matrix products alone.

On a CPU the products decide: the last row says what the BLAS of each wheel is worth
(`docs/mlx.md`). Losses of both backends must agree before anything is timed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spikeloom.backends.numpy.recurrent import Engine as NumpyEngine
from spikeloom.backends.numpy.training import Learner as NumpyLearner
from spikeloom.bench.options import ALL, Options
from spikeloom.bench.rows import Row, device_name
from spikeloom.bench.timing import Work, time_cpu
from spikeloom.config import RunConfig, load_config
from spikeloom.errors import ConfigError, MissingExtraError
from spikeloom.training.memory import keep_freed_memory

PRESETS, CONTEXT, ROUNDS, SIZE = ("spike-transformer", "spikeloom-1m"), 64, 3, 512


def run(device: str, options: Options = ALL) -> list[Row]:
    """Training step, decoding step and matrix product, MLX against NumPy.

    Raises:
        ConfigError: the device is one of CUDA.
        MissingExtraError: mlx is not installed.
    """
    if device != "cpu":
        raise ConfigError("MLX is measured on the CPU or on a Mac: use --device cpu")
    try:
        import mlx.core as mx
    except ModuleNotFoundError:
        raise MissingExtraError("mlx", "mlx") from None
    keep_freed_memory()
    name = f"{device_name('cpu')}, MLX on {mx.default_device().type.name}"
    rows = [
        row
        for preset in options.select(PRESETS, quick=1)
        for row in model_rows(preset, load_config(preset), name)
    ]
    return [*rows, product_row(name)]


def model_rows(preset: str, run: RunConfig, device: str) -> list[Row]:
    """A training step of one row of tokens, and one token of a text."""
    from spikeloom.backends.mlx.checkpoint import from_numpy
    from spikeloom.backends.mlx.engine import Engine
    from spikeloom.backends.mlx.training import Learner

    ours, theirs = Learner(run), NumpyLearner(run)
    tokens = np.random.default_rng(1).integers(0, run.model.vocab_size, (1, CONTEXT))
    check(ours.evaluate(tokens)[0], theirs.evaluate(tokens)[0])
    engines: dict[str, Any] = {
        "ours": Engine(from_numpy(run.model, theirs.weights)),
        "numpy": NumpyEngine(run.model, theirs.weights),
    }
    steps = time_cpu(
        {
            "ours": lambda: ours.step([tokens], 0.0, 1.0),
            "numpy": lambda: theirs.step([tokens], 0.0, 1.0),
        },
        rounds=ROUNDS,
    )
    decoded = time_cpu({name: _decoding(engine) for name, engine in engines.items()}, rounds=20)
    return [
        _row(f"{preset}, training step of {CONTEXT} tokens", device, steps),
        _row(f"{preset}, one token decoded", device, decoded),
    ]


def check(ours: float, theirs: float) -> None:
    """Both compute the same loss.

    Raises:
        AssertionError: they do not, so that their times say nothing.
    """
    assert math.isclose(ours, theirs, rel_tol=1e-3), f"loss in MLX {ours}, in NumPy {theirs}"


def _decoding(engine: Any) -> Work:
    """One token more of a text of its own."""
    state = engine.new_state()
    return lambda: engine.step(5, state)


def product_row(device: str) -> Row:
    """A product of two square float32 matrices."""
    import mlx.core as mx

    a, b = np.random.default_rng(0).normal(size=(2, SIZE, SIZE)).astype(np.float32)
    ours, other = mx.array(a), mx.array(b)
    times = time_cpu({"ours": lambda: mx.eval(ours @ other), "numpy": lambda: a @ b}, rounds=ROUNDS)
    speeds = [f"{name} {2e-6 * SIZE**3 / t.ms:.1f} GFLOP/s" for name, t in times.items()]
    return _row(f"{SIZE} x {SIZE} matrix product ({', '.join(speeds)})", device, times)


def _row(case: str, device: str, times: dict[str, Any]) -> Row:
    ours, peer = times["ours"], times["numpy"]
    return Row(case, device, ours.ms, peer.ms, f"NumPy {np.__version__}", "ms", None, ours.spread)
