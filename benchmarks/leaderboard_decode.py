"""How fast the leaderboard's rows decode: a matter of sizes and active share, not of the weights.

So fresh models are timed, their payload steps scaled until they fire as the trained ones did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from leaderboard_rows import Row

from spikeloom.bench.contenders import factor_for
from spikeloom.errors import ConfigError
from spikeloom.evaluation.speed import ENGINES, Start, decode_speeds, engine
from spikeloom.model import SpikeloomForCausalLM, active_share, fed_weights, neurons
from spikeloom.neurons import GradedLIF

TOKENS = 72  # read in every round, 8 of them before the clock starts
NEAR = 0.02  # the active share may be this far off

Speeds = dict[str, float | None]


def speeds(wanted: Mapping[Row, float], settings: Sequence[str] = ()) -> dict[str, Speeds]:
    """Tokens per second by row and engine, all in turns; None where an engine cannot run the row,
    or a fresh model cannot be made to fire as much.

    Args:
        wanted: the active share at which each row is timed.
        settings: `--set` options of every row.
    """
    text = torch.randint(0, 1000, (TOKENS,), generator=torch.Generator().manual_seed(0))
    contestants: dict[str, Start] = {}
    for row, share in wanted.items():
        torch.manual_seed(0)
        model = SpikeloomForCausalLM(row.config(settings)).eval()
        near = abs(fire_at(model, share, text) - share) < NEAR
        for name in ENGINES if near else ("torch",):
            try:
                contestants[f"{row.name}/{name}"] = engine(name, model)
            except ConfigError:
                continue  # it has no such form
    texts = dict.fromkeys(contestants, text.tolist())
    measured = decode_speeds(contestants, texts)
    return {row.name: {e: measured.get(f"{row.name}/{e}") for e in ENGINES} for row in wanted}


@torch.inference_mode()
def fire_at(model: SpikeloomForCausalLM, share: float, text: torch.Tensor) -> float:
    """Scale the payload steps of all graded neurons by one factor, so that the model's active share
    on `text` `[L]` is `share`; what it is then."""
    fed = fed_weights(model)
    steps = [n.log_theta for n in neurons(model).values() if isinstance(n, GradedLIF)]
    given = [step.clone() for step in steps]

    def share_at(factor: float) -> float:
        for step, before in zip(steps, given, strict=True):
            torch.add(before, math.log(factor), out=step)
        return float(active_share(model(text[None]).firing_rates, fed))

    return share_at(factor_for(share, share_at) if steps else 1.0)
