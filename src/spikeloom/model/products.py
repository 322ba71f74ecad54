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


def active_share(rates: Tensor, weights: Tensor, dense_weights: int) -> Tensor:
    """Weights touched per token over all weights in products.

    Args:
        rates: channel rate of each neuron, `[N]`.
        weights: weights that each neuron feeds, `[N]`.
        dense_weights: weights of products without a neuron, counted at 1.

    Returns:
        a scalar in [0, 1]; differentiable in `rates`.
    """
    total = weights.sum() + dense_weights
    return (torch.dot(rates.float(), weights.to(rates.device).float()) + dense_weights) / total
