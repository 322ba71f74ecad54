"""The one hook that sees spikes: every measurement of activity reads what it counted.

    with Recorder(model) as recorder:
        model(input_ids)
    recorder.records["model.decoder.head_neuron"].channel_rate

Counting is by *read*: one read is one vector of payloads that goes through the weights behind a
neuron. A token is one read on the token clock and `num_steps` reads on the step clock; rates are
per read, operations per token are counts over all reads divided by tokens.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spikeloom.neurons import Neuron

_ROLES = {
    "encoder.neuron": "encoder",
    "readout.neuron": "head",
    "blocks.0.input_neuron": "mixer_input",
    "blocks.0.output_neuron": "mixer_output",
    "blocks.1.input_neuron": "mlp_input",
    "blocks.1.mlp.hidden_neuron": "mlp_hidden",
    "blocks.0.mixer.salience.neuron": "salience",
    "blocks.0.rate_code.neuron": "mixer_rate",
    "blocks.1.rate_code.neuron": "mlp_rate",
    "blocks.0.spikes": "mixer_spikes",
    "blocks.1.spikes": "mlp_spikes",
    "head_neuron": "head",
}


class NeuronRecord:
    """Counts of one neuron.

    Attributes:
        name: module path.
        neuron: the module.
        reads: payload vectors seen (tokens x steps).
        fired: reads with `s != 0` per channel, int64 `[D]`.
        saturated: reads with `|s| == levels` per channel, int64 `[D]`.
        histogram: how often each `|s|` was seen, int64 `[levels + 1]`.
        kept: payloads of each call, int16 `[B * T, L, D]`, if the recorder keeps them.
    """

    def __init__(self, name: str, neuron: Neuron) -> None:
        self.name = name
        self.neuron = neuron
        self.reads = 0
        device = neuron.bias.device
        self.fired = torch.zeros(neuron.size, dtype=torch.int64, device=device)
        self.saturated = torch.zeros_like(self.fired)
        self.histogram = torch.zeros(neuron.levels + 1, dtype=torch.int64, device=device)
        self.kept: list[Tensor] = []

    def add(self, payloads: Tensor) -> None:
        """Count `[n, D]` payloads."""
        size = payloads.abs().float()
        levels = self.neuron.levels
        self.reads += len(size)
        # Clamping floats counts several times faster than comparing and summing booleans.
        self.fired += size.clamp(max=1).sum(0).long()
        self.saturated += (size - (levels - 1)).clamp(min=0).sum(0).long()
        self.histogram += size.flatten().short().bincount(minlength=levels + 1)

    @property
    def tokens(self) -> int:
        return self.reads // self.neuron.num_steps

    @property
    def layer(self) -> int | None:
        """Number of the decoder layer, from 0; None for the head."""
        found = re.search(r"layers\.(\d+)\.", self.name)
        return int(found[1]) if found else None

    @property
    def role(self) -> str:
        """Key of `NeuronsConfig`, or the module's own name where it has none."""
        roles = (role for tail, role in _ROLES.items() if self.name.endswith(tail))
        return next(roles, self.name.rsplit(".", 1)[-1])

    @property
    def unary(self) -> int:
        """Slot spikes of the unary unrolling: the sum of `|s|`."""
        return sum(k * n for k, n in enumerate(self.histogram.tolist()))

    @property
    def bitwise(self) -> int:
        """Slot spikes of the bitwise unrolling: the sum of the bit counts of `|s|`."""
        return sum(k.bit_count() * n for k, n in enumerate(self.histogram.tolist()))

    @property
    def largest(self) -> int:
        """The largest `|s|` seen."""
        return max((k for k, n in enumerate(self.histogram.tolist()) if n), default=0)

    @property
    def channel_rate(self) -> float:
        """Share of channels with `s != 0`, per read."""
        return self._per_channel(int(self.fired.sum()))

    @property
    def mean_count(self) -> float:
        """Mean `|s|` per channel and read."""
        return self._per_channel(self.unary)

    @property
    def bitwise_count(self) -> float:
        """Mean bit-plane spikes per channel and read."""
        return self._per_channel(self.bitwise)

    @property
    def dead(self) -> list[int]:
        """Channels that never fired."""
        return torch.nonzero(self.fired == 0).flatten().tolist() if self.reads else []

    @property
    def saturated_channels(self) -> list[int]:
        """Channels whose payload stands at `levels` in more than half of their spikes.

        Empty for binary and ternary neurons, whose only payload is the largest.
        """
        if self.neuron.levels == 1:
            return []
        return torch.nonzero(2 * self.saturated > self.fired).flatten().tolist()

    @property
    def payloads(self) -> Tensor:
        """All kept payloads, int16 `[B * T, L, D]`, calls joined along tokens."""
        return torch.cat(self.kept, dim=1)

    def _per_channel(self, count: int) -> float:
        return count / (self.reads * self.neuron.size) if self.reads else 0.0


class Recorder:
    """Counts what every neuron of a model emits while it is entered.

    Args:
        model: any module that holds `Neuron`s.
        keep: also keep the payloads themselves (for rasters and `verify`).

    Attributes:
        records: one `NeuronRecord` per neuron by module path, in order of computation.
        positions: which tokens of the following calls count: a boolean mask `[B, L]`, or None for
            all. Kept payloads are always whole.
    """

    def __init__(self, model: nn.Module, keep: bool = False) -> None:
        found = {n: m for n, m in model.named_modules() if isinstance(m, Neuron)}
        self.records = {name: NeuronRecord(name, neuron) for name, neuron in found.items()}
        self.keep = keep
        self.positions: Tensor | None = None
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Recorder:
        for record in self.records.values():
            hook = partial(self._see, record)
            self._handles.append(record.neuron.register_forward_hook(hook))
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @torch.no_grad()
    def _see(self, record: NeuronRecord, neuron: Neuron, args: Any, output: tuple) -> None:
        payloads = neuron.payloads(output[0].detach())
        if self.keep:
            record.kept.append(payloads.to(torch.int16))
        if self.positions is None:
            record.add(payloads.flatten(0, -2))
        else:
            mask = self.positions.to(payloads.device)
            record.add(payloads[mask.repeat_interleave(neuron.num_steps, dim=0)])
