"""Benchmarks: ours beside its peers, in one process, as ratios (`spikeloom bench NAME`)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from spikeloom.bench.rows import Row
from spikeloom.errors import ConfigError, did_you_mean

NAMES = {
    "decode": "batch-1 decoding: the event-driven engine against its dense twin",
    "numpy": "one training step in NumPy: all tokens at once against a loop over tokens",
}


def load(name: str) -> Callable[[str], list[Row]]:
    """The benchmark of that name: a function from a device (`cpu`, `cuda`) to rows.

    Raises:
        ConfigError: there is no such benchmark.
    """
    if name not in NAMES:
        near = did_you_mean(name, NAMES)
        raise ConfigError(f"benchmark '{name}' is unknown{near}: use {', '.join(NAMES)}")
    return import_module(f"spikeloom.bench.{name}").run
