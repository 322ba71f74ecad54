"""Whether a decoding step may be timed: does it say what the model says?

A spiking network magnifies rounding. Where two programs for the same step differ in the last bit of
a membrane, now and then a spike flips, and each flip moves many more in the layers behind it. So
what is right shows in two places:

- in float32 and two layers, token by token from the same state, where flips are rare: the typical
  token must agree to `EXACT`, and at most a quarter of them may be moved by a flip;
- in bfloat16 and all layers, where every token is moved: the step may be no farther from the
  float32 model than the bfloat16 model itself is, `FARTHER` times at most.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from spikeloom.inference.graph_step import GraphStep
from spikeloom.inference.step_products import GIVEN
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM

EXACT, FLIPPED, MANY = 1e-4, 1e-3, 0.25
FARTHER, ROUNDING = 1.5, 0.02
SHALLOW = 2


def check_in_float32(
    config: SpikeloomConfig,
    tokens: list[int],
    compiled: bool,
    device: str,
    products: str = GIVEN,
) -> str:
    """One line on how a step of a shallow float32 model agrees with the plain one.

    Raises:
        RuntimeError: it computes something else.
    """
    architecture = replace(config.architecture, num_hidden_layers=SHALLOW)
    with torch.device(device):
        model = SpikeloomForCausalLM(SpikeloomConfig.from_architecture(architecture)).eval()
    room = len(tokens)
    error = apart(GraphStep(model, room, compiled, products), GraphStep(model, room), tokens)
    typical, flipped = float(error.median()), float((error > FLIPPED).float().mean())
    if not (typical < EXACT and flipped < MANY):
        raise RuntimeError(
            f"logits in float32 are off by {typical:.2g}, in {flipped:.0%} of tokens by more than "
            f"{FLIPPED}"
        )
    return f"float32, {SHALLOW} layers: off by {typical:.1e}, a flip in {flipped:.0%} of tokens"


def check_in_bfloat16(step: GraphStep, tokens: list[int]) -> str:
    """One line on how far a bfloat16 step is from its model in float32.

    Raises:
        RuntimeError: farther than the bfloat16 model is.
    """
    wanted = logits_of(copy.deepcopy(step.model).float(), tokens)
    model = off(logits_of(step.model, tokens), wanted)
    ours = off(torch.stack(logits_by_token(step, tokens)), wanted)
    if not ours < FARTHER * model + ROUNDING:
        raise RuntimeError(
            f"logits are {ours:.2g} off float32's, those of the model only {model:.2g}"
        )
    return f"bfloat16: logits {ours:.1e} off float32's, those of the model {model:.1e}"


def apart(step: GraphStep, reference: GraphStep, tokens: list[int]) -> Tensor:
    """Distance of the logits, token by token, each read from the reference's state, `[L]`."""
    errors = []
    for token in tokens:
        for ours, theirs in zip(step.states, reference.states, strict=True):
            for name, tensor in ours.items():
                tensor.copy_(theirs[name])
        step.advance([token])
        reference.advance([token])
        errors.append(off(step.logits, reference.logits))
    return torch.tensor(errors)


def off(logits: Tensor, wanted: Tensor) -> float:
    """Distance over size, both in float32."""
    logits, wanted = logits.float(), wanted.float()
    return float((logits - wanted).norm() / wanted.norm())


@torch.no_grad()
def logits_of(model: SpikeloomForCausalLM, tokens: list[int]) -> Tensor:
    """All at once, `[L, V]`."""
    row = torch.tensor([tokens], device=model.device)
    logits: Tensor = model(row).logits[0]
    return logits


def logits_by_token(step: GraphStep, tokens: list[int]) -> list[Tensor]:
    """One after another."""
    found = []
    for token in tokens:
        step.advance([token])
        found.append(step.logits.clone())
    return found
