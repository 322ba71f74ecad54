"""Which model of a preset to train: itself, or one of its twins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spikeloom.config import RunConfig
from spikeloom.errors import ConfigError
from spikeloom.model import dense_twin, quantised_twin

PRESSURE = ("target_active_share", "target_active_share_from", "target_firing_rate")
TWINS = {"dense": dense_twin, "quantised": quantised_twin}


def twin_of(run: RunConfig, twin: str | None) -> RunConfig:
    """The run for a twin: same data, budget and recipe, no pressure on its firing rate.

    Raises:
        ConfigError: `twin` is neither None, `dense` nor `quantised`.
    """
    if twin is None:
        return run
    if twin not in TWINS:
        raise ConfigError(f"--twin {twin}: expected {' or '.join(TWINS)}")
    free: dict[str, Any] = dict.fromkeys(PRESSURE)
    training = replace(run.training, **free, halves=None)
    return replace(run, model=TWINS[twin](run.model), training=training)
