"""How hard a run presses on firing as it goes: a target share that falls, or one that stays."""

from __future__ import annotations

from spikeloom.config import TrainingConfig

REACHED = 0.75
"""Share of the budget at which a falling target has arrived; the rest is for recovering."""


def target_share(config: TrainingConfig, progress: float) -> float | None:
    """The active share above which firing costs, at a progress in [0, 1]; None for no such loss.

    With `target_active_share_from` the target stays there until the dead zones are whole
    (`dead_zone_warmup`), and falls in a line to `target_active_share` at `REACHED`.
    """
    first, last = config.target_active_share_from, config.target_active_share
    if first is None or last is None or progress >= REACHED:
        return last
    begin = min(config.dead_zone_warmup, REACHED - 1e-9)
    passed = max(0.0, progress - begin) / (REACHED - begin)
    return first + (last - first) * passed
