"""Weight products and the neurons that feed them: the map that every measurement reads.

Active share, operation counts, the unrolled form, and the event-driven engine all ask the same
question: which product is fed by which neuron? A `SpikeLinear` knows its neuron; `products` lists
them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeloom.neurons import Neuron, Wire


class SpikeLinear(nn.Linear):
    """A linear layer whose input is what a neuron emits.

    It is a plain `nn.Linear` in every way (PEFT, export and checkpoints treat it so); besides, it
    remembers its source without owning it.

    Args:
        neuron: the neuron in front.
        out_features: rows of the weight.
        into_residual: whether the output is added to the residual stream (smaller initial weights).
    """

    def __init__(
        self,
        neuron: Neuron | Wire,
        out_features: int,
        *,
        bias: bool = False,
        into_residual: bool = False,
    ) -> None:
        super().__init__(neuron.size, out_features, bias=bias)
        self._source = (neuron,)  # in a tuple: a reference, not a submodule
        self.into_residual = into_residual

    @property
    def neuron(self) -> Neuron | Wire:
        return self._source[0]

    def fed_by(self, neuron: Neuron | Wire) -> None:
        self._source = (neuron,)


@dataclass(frozen=True)
class Product:
    """One weight product.

    Attributes:
        name: module path of the linear layer.
        neuron_name: module path of the neuron in front.
        linear: the layer, weight `[d_out, d_in]`.
    """

    name: str
    neuron_name: str
    linear: SpikeLinear

    @property
    def weights(self) -> int:
        return self.linear.in_features * self.linear.out_features

    @property
    def spikes(self) -> bool:
        return self.linear.neuron.spikes


def products(model: nn.Module) -> list[Product]:
    """All weight products of a model in the order of computation, the head included."""
    return list(_products(model))


def _products(model: nn.Module) -> Iterator[Product]:
    names = {module: name for name, module in model.named_modules()}
    for name, module in model.named_modules():
        if isinstance(module, SpikeLinear):
            yield Product(name, names.get(module.neuron, "?"), module)


def neurons(model: nn.Module) -> dict[str, Neuron | Wire]:
    """All neurons and wires by module path, in the order of `firing_rates`."""
    return {n: m for n, m in model.named_modules() if isinstance(m, Neuron | Wire)}


def fed_weights(model: nn.Module) -> Tensor:
    """How many weights each neuron or wire feeds, in the order of `firing_rates`, and at last how
    many neurons read themselves, whatever fires: `[N + 1]`."""
    found = neurons(model)
    fed = dict.fromkeys(found, 0)
    for product in products(model):
        fed[product.neuron_name] += product.weights
    own = sum(neuron.dense_weights for neuron in found.values())
    return torch.tensor([*fed.values(), own], dtype=torch.float32)


def active_share(rates: Tensor, fed: Tensor) -> Tensor:
    """Weights touched per token over all weights in products and gains; dense ones count at 1.

    Args:
        rates: `firing_rates` of a forward pass, `[N]` (1 for wires).
        fed: `fed_weights` of the model, `[N + 1]`.

    Returns:
        a scalar in [0, 1]; differentiable in `rates`.
    """
    fed = fed.to(rates.device)
    return (torch.dot(rates.float(), fed[:-1]) + fed[-1]) / fed.sum()
