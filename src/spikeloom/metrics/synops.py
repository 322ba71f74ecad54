"""Synaptic operations per token: what the recorded spikes cost in the weight products.

A spiking product runs in two ways that agree (`spikeloom verify`):

    unrolled      binary slots; slot spikes x d_out accumulates, no multiplication (`acs`; the
                  bitwise unrolling unless said otherwise, `unary_acs` beside it)
    event-driven  one multiply-accumulate per active channel and output (`graded_macs`); touches
                  `rate x d_in x d_out` weights

A product behind a wire is `d_in x d_out` multiply-accumulates. So is what mixers do with their
values (softmax scores and sums, the SDSA state): `mixer_macs`, counted in `macs` and, for one
step, in `dense_macs`. Left out on all sides, because they are linear in the width: norms,
activations, rotary angles, the softmax itself, the neurons' own updates (a few operations per
channel), and the embedding, which is a lookup.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from spikeloom.config import ModelConfig
from spikeloom.metrics.recorder import NeuronRecord, Recorder
from spikeloom.model.products import Product, active_share, products


@dataclass(frozen=True)
class ProductOperations:
    """One weight product, per token; rates per read (see `recorder`).

    Attributes:
        name, neuron: module paths of the product and of the neuron in front.
        d_in, d_out: shape of the weight.
        spikes: whether a neuron feeds it (else it is dense: a wire).
        reads: times the weight is applied per token; more than 1 on the step clock only.
        channel_rate, mean_count: of its input; 1 and None for a dense product.
        acs, unary_acs: accumulates, bitwise and unary.
        macs: multiply-accumulates of a dense product.
        graded_macs: multiply-accumulates of the event-driven form, in place of `acs`.
        dense_macs: what the product costs where nothing is skipped, once per token.
    """

    name: str
    neuron: str
    d_in: int
    d_out: int
    spikes: bool
    reads: int
    channel_rate: float
    mean_count: float | None
    acs: float
    unary_acs: float
    macs: float
    graded_macs: float
    dense_macs: int

    @property
    def weights_touched(self) -> float:
        """Weights read from memory per token."""
        return self.reads * self.channel_rate * self.dense_macs


@dataclass(frozen=True)
class Operations:
    """A whole model, per token.

    Attributes:
        products: one entry per weight product, in order of computation, then one per context gain.
        mixer_macs: multiply-accumulates in the mixers, outside weight products.
        dense_mixer_macs: the same for one step per token, where attention reads every key.
        active_share: weights touched per read over all weights in products and gains, head too.
        channel_rate: share of active channels, over the channels of all neurons (each neuron
            weighs by its width, once, however many products it feeds); None without neurons.
        mean_count: mean |s| with the same weighting; None without neurons.
    """

    products: tuple[ProductOperations, ...]
    mixer_macs: float
    dense_mixer_macs: float
    active_share: float
    channel_rate: float | None
    mean_count: float | None

    @property
    def acs(self) -> float:
        return sum(p.acs for p in self.products)

    @property
    def unary_acs(self) -> float:
        return sum(p.unary_acs for p in self.products)

    @property
    def macs(self) -> float:
        return sum(p.macs for p in self.products) + self.mixer_macs

    @property
    def graded_macs(self) -> float:
        return sum(p.graded_macs for p in self.products)

    @property
    def dense_macs(self) -> float:
        return sum(p.dense_macs for p in self.products) + self.dense_mixer_macs

    @property
    def weights(self) -> int:
        return sum(p.dense_macs for p in self.products)

    @property
    def weights_touched(self) -> float:
        return sum(p.weights_touched for p in self.products)

    def to_json(self) -> dict[str, float]:
        """The `synops` object of `spikeloom eval`."""
        return {
            "dense_macs": self.dense_macs,
            "acs": self.acs,
            "macs": self.macs,
            "mixer_macs": self.mixer_macs,
            "dense_mixer_macs": self.dense_mixer_macs,
            "unary_acs": self.unary_acs,
            "graded_macs": self.graded_macs,
            "weights": self.weights,
            "weights_touched": self.weights_touched,
        }


def operations(
    model: nn.Module, recorder: Recorder, mean_keys: Callable[[int | None], float]
) -> Operations:
    """Count from what a recorder saw.

    Args:
        model: a `SpikeloomForCausalLM`.
        recorder: has seen at least one token of this model.
        mean_keys: mean number of tokens that a query attends to, given the sliding window (None
            without one); see `spikeloom.evaluation.windows.Windows.mean_keys`.
    """
    architecture: ModelConfig = model.config.architecture  # type: ignore[assignment,union-attr]
    records = recorder.records
    steps = architecture.num_steps
    counted = tuple(_product(p, records, steps) for p in products(model))
    counted += tuple(_gain(r, steps) for r in records.values() if r.neuron.dense_weights)
    dense_mixers = _mixer_macs(architecture, mean_keys)
    kept = {r.layer: r.channel_rate for r in records.values() if r.role == "salience"}
    mixers = _mixer_macs(architecture, mean_keys, kept)
    channels = sum(record.neuron.size for record in records.values())
    rate = sum(r.channel_rate * r.neuron.size for r in records.values())
    count = sum(r.mean_count * r.neuron.size for r in records.values())
    return Operations(
        products=counted,
        mixer_macs=mixers * architecture.num_steps,
        dense_mixer_macs=dense_mixers,
        active_share=_active_share(counted),
        channel_rate=rate / channels if channels else None,
        mean_count=count / channels if channels else None,
    )


def _product(product: Product, records: dict[str, NeuronRecord], steps: int) -> ProductOperations:
    linear, record = product.linear, records.get(product.neuron_name)
    # The head reads the mean of the steps: once, unless each step's spikes are sent to it.
    head = product.neuron_name.endswith("head_neuron")
    reads = 1 if record is None and head else steps
    tokens = record.tokens if record else 0
    return ProductOperations(
        name=product.name,
        neuron=product.neuron_name,
        d_in=linear.in_features,
        d_out=linear.out_features,
        spikes=record is not None,
        reads=reads,
        channel_rate=record.channel_rate if record else 1.0,
        mean_count=record.mean_count if record else None,
        acs=record.bitwise / tokens * linear.out_features if record else 0.0,
        unary_acs=record.unary / tokens * linear.out_features if record else 0.0,
        macs=0.0 if record else float(reads * product.weights),
        graded_macs=int(record.fired.sum()) / tokens * linear.out_features if record else 0.0,
        dense_macs=product.weights,
    )


def _gain(record: NeuronRecord, steps: int) -> ProductOperations:
    """The two products of a context gain, as one: dense."""
    weights = record.neuron.dense_weights
    return ProductOperations(
        name=f"{record.name}.gain",
        neuron=record.name,
        d_in=record.neuron.size,
        d_out=weights // record.neuron.size,
        spikes=False,
        reads=steps,
        channel_rate=1.0,
        mean_count=None,
        acs=0.0,
        unary_acs=0.0,
        macs=float(steps * weights),
        graded_macs=0.0,
        dense_macs=weights,
    )


def _active_share(counted: tuple[ProductOperations, ...]) -> float:
    rates = torch.tensor([p.channel_rate for p in counted])
    weights = torch.tensor([*(p.dense_macs for p in counted), 0], dtype=torch.float32)
    return float(active_share(rates, weights))


def _mixer_macs(
    config: ModelConfig,
    mean_keys: Callable[[int | None], float],
    kept: dict[int | None, float] | None = None,
) -> float:
    """Multiply-accumulates of all mixers for one step of one token, in their recurrent form.

    `kept` is the share of tokens that salience keeps, by layer; None reads every key everywhere.
    """
    heads, width = config.num_attention_heads, config.head_dim
    total = 0.0
    for i, layer in enumerate(config.layer_list):
        if layer.mixer == "attention":  # q . k, and the sum of values
            keys = mean_keys(layer.sliding_window)
            if kept is not None:  # those sampled and kept, and the token itself
                keys = 1 + (keys - 1) / layer.key_stride * kept.get(i, 1.0)
            total += 2 * heads * width * keys
        elif layer.mixer == "sdsa":  # decay the state, add k v^T, read it
            total += 3 * heads * width * width
        elif layer.mixer == "sdsa_hadamard":  # the same, of a vector
            total += 3 * heads * width
        elif layer.mixer == "rwkv":  # decay both sums, add exp(k) v, and read them
            total += 4 * heads * width
        # recurrent_lif: nothing but weight products and the neuron itself
    return total
