"""Hold one form of a model to the payloads of another, where only rounding keeps them apart.

Two forms that add the same numbers in another order differ in the last bits, and a membrane that
stands within those bits of a firing boundary fires in one form and not in the other. That flip is
no disagreement about the model, but everything after it would be. So where payloads differ, the
second form is replayed step by step with the first form's decisions, membranes included, and each
decision taken over is judged by how far the second form's own membrane stood from it.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spikeloom.model.recurrent import RecurrentLIF, packed, unpacked
from spikeloom.neurons import LIF, Neuron, SlidingPSN


class Alignment:
    """Context in which a model's neurons emit the payloads wanted.

    Args:
        model: the second form.
        wanted: payloads of the first form by neuron name, `[B * T, L, D]`; consumed from the left
            as tokens come, in one call or in many.
        tie: how far, in payload steps (threshold units for `LIF`), a membrane may lie from a
            decision that it did not take for the difference to count as rounding.

    Attributes:
        mismatches: payloads that differ by more than that.
        ties: payloads that differ within it.
        largest_tie: the largest such distance.
        events: payloads other than 0 that the second form sent.
    """

    def __init__(self, model: nn.Module, wanted: dict[str, Tensor], tie: float) -> None:
        self.model = model
        self.wanted = wanted
        self.tie = tie
        self.mismatches = 0
        self.ties = 0
        self.largest_tie = 0.0
        self.events = 0
        self._seen = dict.fromkeys(wanted, 0)
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Alignment:
        neurons = dict(self.model.named_modules())
        for name in self.wanted:
            hook = partial(self._align, name)
            self._handles.append(neurons[name].register_forward_hook(hook))
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @torch.no_grad()
    def _align(self, name: str, neuron: Neuron, args: tuple, output: tuple) -> tuple | None:
        emission, _, rate = output
        payloads = neuron.payloads(emission)
        first, length = self._seen[name], emission.shape[1]
        self._seen[name] += length
        wanted = self.wanted[name][:, first : first + length].to(payloads.dtype)
        self.events += int(payloads.count_nonzero())
        if torch.equal(payloads, wanted):
            return None
        x, state, starts, norm = (*args, None, None, None)[:4]
        x = x if norm is None else norm(x)
        membrane, distance = replay(neuron, x, state, starts, wanted)
        beyond = distance > self.tie
        self.mismatches += int(beyond.sum())
        self.ties += int(((distance > 0) & ~beyond).sum())
        within = distance.masked_fill(beyond, 0.0)
        self.largest_tie = max(self.largest_tie, float(within.max()))
        return neuron.step * wanted, _kept(neuron, membrane, wanted[:, -1]), rate


def replay(
    neuron: Neuron, x: Tensor, state: Tensor | None, starts: Tensor | None, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """Run a neuron with its decisions given.

    Args:
        neuron: which one.
        x, state, starts: as in `Neuron.forward`.
        wanted: payloads to send, shape of `x`.

    Returns:
        the membrane after the last step; and, per payload (in order of steps), how far the membrane
        stood from a voltage at which the neuron itself would decide so: 0 where it does.
    """
    current, given = (_steps(neuron, t) for t in (neuron.current(x), wanted))
    if isinstance(neuron, SlidingPSN):
        return _replay_parallel(neuron, current, state, starts, given)
    v = sent = torch.zeros_like(current[0])
    if state is not None:
        v, sent = unpacked(state) if isinstance(neuron, RecurrentLIF) else (state, sent)
    clip = neuron.config.clip_membrane
    beta = neuron.beta if neuron.remembers or neuron.num_steps > 1 else 0.0
    distances = []
    for t in range(len(current)):
        if neuron.remembers and starts is not None:
            v, sent = (torch.where(starts[:, t, None], torch.zeros_like(v), k) for k in (v, sent))
        v = beta * v + current[t]
        if isinstance(neuron, RecurrentLIF):
            v = v + neuron.heard(sent)
        v = v if clip is None else v.clamp(-clip, clip)
        own = neuron.payloads(neuron.scan(v[None], None, None)[0][0])
        agrees = own == given[t]
        distances.append(torch.where(agrees, 0.0, distance_to(neuron, v, given[t])))
        v, sent = _after(neuron, v, given[t]), given[t]
    return v, torch.stack(distances)


def _replay_parallel(
    neuron: SlidingPSN,
    current: Tensor,
    state: Tensor | None,
    starts: Tensor | None,
    given: Tensor,
) -> tuple[Tensor, Tensor]:
    """`replay` of a neuron whose spikes change nothing that comes after them."""
    first = None if starts is None or not neuron.remembers else starts.transpose(0, 1)[..., None]
    h, last = neuron.membrane(current, state, first)
    agrees = (h >= neuron.config.v_threshold) == (given > 0)
    return last, torch.where(agrees, 0.0, distance_to(neuron, h, given))


def distance_to(neuron: Neuron, v: Tensor, payloads: Tensor) -> Tensor:
    """How far `v` `[..., D]` lies from the voltages that give `payloads`, in payload steps.

    At least the smallest positive number, because it is asked where decisions differ.
    """
    u = v / neuron.step
    size = payloads.abs()
    if isinstance(neuron, LIF | SlidingPSN):
        low = torch.where(size > 0, neuron.config.v_threshold, -torch.inf)
        high = torch.where(size > 0, torch.inf, neuron.config.v_threshold)
    else:
        c = neuron.config
        quiet = c.fire_level - 0.5
        u = torch.where(payloads < 0, -u, u)  # mirrored, so that only one side is left
        silent_from = -quiet if c.signed else -torch.inf
        low = torch.where(size > 0, (size - 0.5).clamp(min=quiet), silent_from)
        high = torch.where(size > 0, torch.where(size >= c.levels, torch.inf, size + 0.5), quiet)
    outside = torch.maximum(low - u, u - high)
    return outside.clamp(min=torch.finfo(u.dtype).tiny)


def _kept(neuron: Neuron, membrane: Tensor, sent: Tensor) -> Tensor | None:
    """The state of a neuron after its last step."""
    if isinstance(neuron, RecurrentLIF):
        return packed(membrane, sent)
    return membrane if neuron.remembers else None


def _steps(neuron: Neuron, x: Tensor) -> Tensor:
    """`[B * T, L, D]` with what the neuron scans over in front."""
    if neuron.num_steps > 1:
        return x.unflatten(0, (-1, neuron.num_steps)).transpose(0, 1)
    return x.transpose(0, 1) if neuron.remembers else x[None]


def _after(neuron: Neuron, v: Tensor, payloads: Tensor) -> Tensor:
    """The membrane after sending `payloads` (the reset of `spikeloom.ops.lif.naive`)."""
    if neuron.v_reset is not None:
        return torch.where(payloads != 0, neuron.v_reset, v)
    step = neuron.config.v_threshold if isinstance(neuron, LIF) else neuron.step
    return v - step * payloads
