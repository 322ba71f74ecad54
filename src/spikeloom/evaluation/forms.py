"""The forms of one model: graded in parallel, unrolled to binary slots, token by token."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spikeloom.metrics import Recorder
from spikeloom.model import DecoderState, SpikeLinear, SpikeloomForCausalLM, products
from spikeloom.model.recurrent import RecurrentLIF
from spikeloom.neurons import Neuron
from spikeloom.ops.unroll import Form, slots


def graded(model: SpikeloomForCausalLM, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The training form: all tokens at once.

    Args:
        tokens: `[B, L]`.

    Returns:
        logits `[B, L, V]` and the payloads of every neuron, int16 `[B * T, L, D]`, by name.
    """
    with Recorder(model, keep=True) as recorder:
        logits = model(input_ids=tokens, use_cache=False).logits
    return logits, {name: record.payloads for name, record in recorder.records.items()}


def recurrent(model: SpikeloomForCausalLM, tokens: Tensor) -> Tensor:
    """One token at a time with a `DecoderState`; logits `[B, L, V]`."""
    state = DecoderState(model.config.architecture)
    logits = [
        model(input_ids=column, past_key_values=state, use_cache=True).logits
        for column in tokens.split(1, dim=1)
    ]
    return torch.cat(logits, dim=1)


class Unrolled:
    """Context in which every spike-fed product is a sum over binary slots.

    The product of a slot in {-1, 0, 1} with the folded weights `W theta` is accumulates only. The
    original result of the layer is thrown away, and so is its input: slots are made of the
    payloads that the neuron in front sent. A recurrent product runs inside its neuron; its spikes
    are 0 or 1, so that they are their own slots, which is checked.

    Args:
        model: its `SpikeLinear`s are hooked.
        form: which slots.

    Attributes:
        events: slot spikes sent through products (each product counts its own).
        impure: slot entries outside {-1, 0, 1}, and inputs that were not `theta * s`.
    """

    def __init__(self, model: nn.Module, form: Form) -> None:
        self.model = model
        self.form = form
        self.events = 0
        self.impure = 0
        self._sent: dict[Neuron, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Unrolled:
        for product in products(self.model):
            if isinstance(product.linear.neuron, Neuron):
                self._handles.append(product.linear.register_forward_hook(self._product))
        for module in self.model.modules():
            if isinstance(module, Neuron):
                self._handles.append(module.register_forward_hook(self._note))
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._sent.clear()

    def _note(self, neuron: Neuron, args: tuple, output: tuple) -> None:
        self._sent[neuron] = payloads = neuron.payloads(output[0])
        if isinstance(neuron, RecurrentLIF):
            self.impure += int(
                (output[0] != payloads).sum() + (payloads * (1 - payloads) != 0).sum()
            )
            self.events += int(payloads.count_nonzero())

    def _product(self, linear: SpikeLinear, args: tuple, output: Tensor) -> Tensor:
        neuron = linear.neuron
        assert isinstance(neuron, Neuron)
        payloads, theta = self._sent[neuron], neuron.step
        # The head is one product per token: on the step clock it reads the mean of the steps, and
        # a mean of products is the product of the mean.
        mean = partial(_mean_of_steps, steps=len(payloads) // len(args[0]))
        self.impure += int((mean(theta * payloads) != args[0]).sum())
        folded = linear.weight * theta
        total = torch.zeros_like(output)
        for weight, slot in slots(payloads, neuron.levels, self.form):
            self.impure += int(((slot != 0) & (slot.abs() != 1)).sum())
            self.events += int(slot.count_nonzero())
            total = total + weight * mean(F.linear(slot, folded))
        return total if linear.bias is None else total + linear.bias


def _mean_of_steps(x: Tensor, steps: int) -> Tensor:
    """`[B * T, ...]` to `[B, ...]`; the very same tensor for one step."""
    return x if steps == 1 else x.unflatten(0, (-1, steps)).mean(1)
