"""A curriculum of contexts: short rows first, long ones last, the same tokens in every step.

A run with phases reads rows of the longest phase's length and cuts each into as many shorter rows
as fit. So `batch_size` counts rows of the longest phase, a batch of a shorter one holds more rows,
tokens per step and learning rate stay what they are, and the order of the data does not depend on
the phases. Which phase it is follows from the used share of the budget alone: a run that is resumed
in the middle of a phase goes on as if it had not been interrupted. Held-out text is always read at
the longest context, so that figures of all phases compare.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spikeloom.config import PhaseConfig


def phase_at(progress: float, phases: Sequence[PhaseConfig]) -> PhaseConfig:
    """The phase in which a run stands that has used `progress` in [0, 1] of its budget."""
    end = 0.0
    for phase in phases:
        end += phase.share
        if progress < end - 1e-9:  # shares such as 0.3 + 0.4 add up to a little more or less
            return phase
    return phases[-1]


def cut_rows(inputs: dict[str, Tensor], context: int) -> dict[str, Tensor]:
    """Rows `[B, L]` as rows `[B * L / context, context]`.

    `position_ids` count anew from the start of each row, as they do in `TokenRows`; whole rows are
    left as they are.
    """
    if inputs["input_ids"].shape[1] == context:
        return inputs
    cut = {name: rows.reshape(-1, context) for name, rows in inputs.items()}
    if "position_ids" in cut:
        within = torch.arange(context, device=cut["position_ids"].device)
        cut["position_ids"] = torch.minimum(cut["position_ids"], within)
    return cut
