"""Benchmarks: ours beside its peers, in one process, as ratios (`spikeloom bench NAME`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from spikeloom.bench.options import Options
from spikeloom.bench.rows import Row
from spikeloom.errors import ConfigError, did_you_mean

NAMES = {
    "attention": "causal SDSA with decay on a GPU: against flash attention and fla",
    "batch": "several texts on the CPU: event-driven one by one against dense together",
    "decode": "batch-1 decoding on the CPU: the event-driven engine against dense ones",
    "event": "event-driven product of one token on a GPU: against cuBLAS",
    "lif": "neurons on the step clock (GPU): 16 steps, against a copy and other libraries",
    "mlx": "the same model in MLX and in NumPy: training step, decoding, matrix product",
    "numpy": "one training step in NumPy: all tokens at once against a loop over tokens",
    "recurrent": "recurrent LIF layer on a GPU: microseconds a step, against bounds and torch",
    "scan": "neurons on the token clock (GPU): 1024 steps, against SpikingJelly and a copy",
    "train": "training steps: spiking beside dense, the Trainer beside a bare loop",
}


def load(name: str) -> Callable[[str, Options], Iterable[Row]]:
    """The benchmark of that name: a function of a device (`cpu`, `cuda`) and of options.

    It hands over each row as soon as it is measured.

    Raises:
        ConfigError: there is no such benchmark.
    """
    run: Callable[[str, Options], Iterable[Row]] = _module(name).run
    return run


def picture(name: str) -> Callable[[Sequence[Row], Path], None]:
    """What draws the rows of that benchmark as a PNG.

    Raises:
        ConfigError: there is no such benchmark, or it has no picture.
    """
    draw: Callable[[Sequence[Row], Path], None] | None = getattr(_module(name), "draw", None)
    if draw is None:
        raise ConfigError(f"--picture: benchmark '{name}' has none: use it with decode")
    return draw


def _module(name: str) -> ModuleType:
    if name not in NAMES:
        near = did_you_mean(name, NAMES)
        raise ConfigError(f"benchmark '{name}' is unknown{near}: use {', '.join(NAMES)}")
    return import_module(f"spikeloom.bench.{name}")
