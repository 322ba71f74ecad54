"""Is a fast neuron right? Outputs and gradients against the naive form in float64.

Rounding moves a membrane that stands at the threshold to its other side. From there on the two
trajectories differ, and rightly so: such lanes are counted, kept rare, and left out of the
comparison. All other lanes must agree in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

# A function of `x` `[S, ..., D]` and of further differentiable tensors by name, to `[S, ..., D]`.
NeuronFunction = Callable[..., Tensor]
# Relative to values of size 1: two roundings of the type that gradients are handed over in.
TOLERANCES = {torch.float32: 2e-4, torch.bfloat16: 1e-2, torch.float16: 2e-3}


class DisagreementError(Exception):
    """A fast form is wrong: a bug, and nothing that should be timed."""


class Agreement(NamedTuple):
    """What rounding did: shares of lanes.

    Attributes:
        flipped: a spike differs in some step, with gradients asked for or without.
        bent: spikes agree, but a gradient does not: a window or a clip was missed by a rounding.
    """

    flipped: float
    bent: float


def outputs_and_gradients(
    neuron: NeuronFunction, tensors: Mapping[str, Tensor], grad: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradient of each tensor for the gradient `grad` of the output."""
    leaves = {name: t.detach().clone().requires_grad_() for name, t in tensors.items()}
    output = neuron(**leaves)
    grads = torch.autograd.grad(output, list(leaves.values()), grad.to(output.dtype))
    return output.detach(), dict(zip(leaves, grads, strict=True))


def require_agreement(
    fast: NeuronFunction,
    naive: NeuronFunction,
    tensors: Mapping[str, Tensor],
    *,
    at_most: float = 1e-3,
    seed: int = 0,
) -> Agreement:
    """Compare a fast neuron with the naive one in float64.

    Args:
        fast, naive: functions of the `tensors` by name; the naive one is run on the CPU, where a
            loop over steps does not wait for launches.
        tensors: `x` `[S, ..., D]` in the type to be checked, and parameters in float32.
        at_most: largest share of lanes that may be flipped, and bent.
        seed: of the gradient that is sent back.

    Raises:
        DisagreementError: more lanes differ, or a parameter's gradient is off.
    """
    x = tensors["x"]
    generator = torch.Generator(x.device).manual_seed(seed)
    grad = torch.randn(x.shape, generator=generator, device=x.device).to(x.dtype)
    ours, our_grads = outputs_and_gradients(fast, tensors, grad)
    our_grads = {name: t.cpu() for name, t in our_grads.items()}
    exact = {name: t.double().cpu() for name, t in tensors.items()}
    wanted, wanted_grads = outputs_and_gradients(naive, exact, grad.double().cpu())
    tolerance = TOLERANCES[x.dtype]
    with torch.no_grad():
        alone = fast(**tensors)  # what serves no gradient may be another program
    flipped = (torch.stack([ours, alone]).double().cpu() != wanted).flatten(0, 1).any(0)
    bent = ~_close(our_grads.pop("x"), wanted_grads["x"], tolerance).all(0) & ~flipped
    found = Agreement(flipped.double().mean().item(), bent.double().mean().item())
    if max(found) > at_most:
        raise DisagreementError(f"{found} of the lanes differ, at most {at_most} may")
    for name, got in our_grads.items():
        _require_close(name, got, wanted_grads[name], found, tolerance)
    return found


def _require_close(
    name: str, got: Tensor, wanted: Tensor, found: Agreement, tolerance: float
) -> None:
    """Parameters sum over lanes: each lane that rounding moved may add its part."""
    error = ((got.double() - wanted).norm() / wanted.norm()).item()
    allowed = tolerance + 20 * sum(found)
    if not error <= allowed:  # NaN is no agreement
        raise DisagreementError(
            f"gradient of {name}: relative error {error:.2e}, not {allowed:.2e}"
        )


def _close(got: Tensor, wanted: Tensor, tolerance: float) -> Tensor:
    return (got.double() - wanted).abs() <= tolerance * (1 + wanted.abs())
