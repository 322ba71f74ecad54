"""The weight products of a decoding step, in another form than the model's own.

Linear layers behind one neuron (q, k and v, say) become one product of its emission: `joined` is
the dense one, `event-driven` reads only the rows of channels that fired. Both keep a copy of the
weights: as many bytes again as all products take together, the head included.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.errors import ConfigError, did_you_mean
from spikeloom.model.products import SpikeLinear, products
from spikeloom.ops import event

GIVEN, JOINED, EVENT_DRIVEN = FORMS = ("given", "joined", "event-driven")
AnyModel = TypeVar("AnyModel", bound=nn.Module)
Form = Callable[[Tensor], nn.Module]


def with_products(model: AnyModel, form: str) -> AnyModel:
    """The model with its products in one of `FORMS`, for one token at a time.

    The result shares all parameters with the model; what a form keeps besides is fixed now.

    Raises:
        ConfigError: there is no such form.
    """
    if form not in FORMS:
        near = did_you_mean(form, FORMS)
        raise ConfigError(f"products '{form}' are unknown{near}: use {', '.join(FORMS)}")
    if form == GIVEN:
        return model
    twin = copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})
    made = _form(form, next(model.parameters()).device)
    for group in _groups(twin):
        shared = Shared([linear for _, linear in group], made)
        for place, (name, linear) in enumerate(group):
            parent, _, child = name.rpartition(".")
            setattr(twin.get_submodule(parent), child, Reader(shared, place, linear))
    return twin


def _form(name: str, device: torch.device) -> Form:
    if name == JOINED:
        return DenseProduct
    if event.skips_silent_rows(device):
        return EventProduct
    print(
        "spikeloom: the products of a decoding step read all rows: no GPU with Triton here",
        file=sys.stderr,
    )
    return DenseProduct


def _groups(model: nn.Module) -> list[list[tuple[str, SpikeLinear]]]:
    """Name and layer of all products behind a neuron, neuron by neuron."""
    found: dict[str, list[tuple[str, SpikeLinear]]] = {}
    for product in products(model):
        within = product.name.startswith(f"{product.neuron_name}.")
        if not within:  # a neuron's own recurrent product is no call of a layer
            found.setdefault(product.neuron_name, []).append((product.name, product.linear))
    return list(found.values())


class DenseProduct(nn.Module):
    """`weight @ y`, of any number of rows y."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, y: Tensor) -> Tensor:
        return F.linear(y, self.weight)


class EventProduct(nn.Module):
    """The same, row by row, from the weights of channels whose emission is not 0."""

    data: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("data", weight.t().contiguous(), persistent=False)
        ones = torch.ones(weight.shape[1], device=weight.device)
        self.register_buffer("scale", ones, persistent=False)

    def forward(self, y: Tensor) -> Tensor:
        weights = event.InputMajor(self.data, self.scale)
        rows = y.reshape(-1, y.shape[-1]).unbind()
        out = [event.matvec_in_parts(row, weights).sum(0).to(y.dtype) for row in rows]
        return (torch.stack(out) if len(out) > 1 else out[0]).view(*y.shape[:-1], -1)


class Shared(nn.Module):
    """One product for all layers that read the same emission, each its own columns.

    In a step the first that asks computes it, and every layer takes its part away: nothing is
    left for the next step.
    """

    def __init__(self, linears: Sequence[SpikeLinear], form: Form) -> None:
        super().__init__()
        self.product = form(torch.cat([linear.weight.detach() for linear in linears]))
        self.sizes = [linear.out_features for linear in linears]
        self.waiting: dict[int, Tensor] = {}

    def take(self, y: Tensor, place: int) -> Tensor:
        if not self.waiting:
            self.waiting = dict(enumerate(self.product(y).split(self.sizes, dim=-1)))
        return self.waiting.pop(place)


class Reader(nn.Module):
    """Stands where a linear layer stood."""

    def __init__(self, shared: Shared, place: int, linear: SpikeLinear) -> None:
        super().__init__()
        self.shared = shared
        self.place = place
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias

    def forward(self, y: Tensor) -> Tensor:
        out = self.shared.take(y, self.place)
        return out if self.bias is None else out + self.bias
