"""How long a run lasts, and the learning rate along the way.

A budget is given in steps, tokens or minutes (the first that is used up ends the run). Progress is
the used share of it in [0, 1], and the schedule is a function of progress alone: a run of ten
minutes warms up and cools down just as a run of a thousand steps does.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch.distributed as dist

from spikeloom.config import TrainingConfig
from spikeloom.errors import ConfigError

UNBOUNDED = 10**9  # steps; the clock ends the run long before


@dataclass
class Budget:
    """Steps and seconds granted; the time used survives a resume.

    The clock is read once a step (`read_clock`), by the first process for all: with a clock each,
    processes would differ in learning rate, and one would stop while the others wait for it.

    Attributes:
        max_steps: optimizer steps granted (`UNBOUNDED` if only time is).
        max_seconds: seconds of training granted, or None.
        used_seconds: seconds used by earlier sittings of this run.
    """

    max_steps: int
    max_seconds: float | None = None
    used_seconds: float = 0.0
    _started: float | None = None
    _reading: float = 0.0

    @classmethod
    def of(cls, config: TrainingConfig, tokens_per_step: int) -> Budget:
        """The budget that a config grants.

        Raises:
            ConfigError: neither steps, tokens nor minutes are given.
        """
        steps = [UNBOUNDED]
        if config.max_steps is not None:
            steps.append(config.max_steps)
        if config.max_tokens is not None:
            steps.append(max(1, round(config.max_tokens / tokens_per_step)))
        if len(steps) == 1 and config.max_minutes is None:
            raise ConfigError(
                "no budget: give --max-steps, --max-tokens or --max-minutes (or set it in training)"
            )
        seconds = None if config.max_minutes is None else 60.0 * config.max_minutes
        return cls(min(steps), seconds)

    def start(self) -> None:
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds used so far, earlier sittings included."""
        running = 0.0 if self._started is None else time.monotonic() - self._started
        return self.used_seconds + running

    def take_up(self, used_seconds: float) -> None:
        """Count the seconds of earlier sittings."""
        self.used_seconds = self._reading = used_seconds

    def read_clock(self) -> None:
        """Look at the clock, on behalf of `progress`."""
        reading = [self.seconds]
        if self.max_seconds is not None and dist.is_available() and dist.is_initialized():
            dist.broadcast_object_list(reading)
        self._reading = reading[0]

    def progress(self, step: int) -> float:
        """Used share in [0, 1] after `step` optimizer steps, at the last reading of the clock."""
        used = step / self.max_steps
        if self.max_seconds is not None:
            used = max(used, self._reading / self.max_seconds)
        return min(1.0, used)


def learning_rate_factor(progress: float, config: TrainingConfig) -> float:
    """Share of the peak learning rate at a progress in [0, 1].

    Linear warm-up, then constant, one cosine, or `restarts` cosines, each ending at
    `min_learning_rate`.
    """
    if progress < config.warmup:
        return max(progress / config.warmup, 1e-3)
    if config.schedule == "constant":
        return 1.0
    phase = (progress - config.warmup) / (1.0 - config.warmup)
    if config.schedule == "cosine_with_restarts" and phase < 1.0:
        phase = (phase * config.restarts) % 1.0
    floor = config.min_learning_rate
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * phase))
