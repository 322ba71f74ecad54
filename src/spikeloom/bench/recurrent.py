"""Microseconds a step of the recurrent LIF on a GPU: all steps in one launch.

Peers are bounds, and the specification itself with all its launches in a replayed CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from spikeloom.bench.neuron_peers import require_cuda
from spikeloom.bench.options import ALL, Options
from spikeloom.bench.rows import Row, device_name
from spikeloom.bench.timing import Timing, Work, time_cuda
from spikeloom.ops.lif import dispatch, recurrent

S, B, D = 256, 32, 512
CHECKED = 6  # steps
BETA = 0.9
BOUNDS = {"forward": 2.5, "backward": 10.0}  # microseconds a step
TOLERANCE = 1e-3
Form = Callable[..., tuple[Tensor, recurrent.State]]


def run(device: str, options: Options = ALL) -> Iterator[Row]:
    """Forward against 2.5, backward against 10 microseconds a step, and both against torch.

    Raises:
        ConfigError: there is no GPU, or no Triton.
        RuntimeError: outputs or gradients are wrong.
    """
    options.select(())
    require_cuda(device, "recurrent")
    check(dispatch.recurrent_lif, *draw(CHECKED, B, D), device)
    x, weight = (t.to(device).requires_grad_() for t in draw(S, B, D))
    ours = works(dispatch.recurrent_lif, x.bfloat16().detach().requires_grad_(), weight)
    times = time_cuda(ours)
    forward, both = times["forward"], times["both"]
    backward = Timing(both.ms - forward.ms, both.spread)
    for way, took in (("forward", forward), ("backward", backward)):
        yield row(way, took, BOUNDS[way], "bound of the issue")
    torch_times = time_cuda(works(recurrent.recurrent_lif, x, weight), rounds=5)
    for way, name in (("forward", "forward"), ("forward + backward", "both")):
        peer = "the same in torch, in a CUDA graph"
        yield row(way, times[name], 1e3 * torch_times[name].ms / S, peer, None)


def row(way: str, ours: Timing, peer: float, peer_name: str, target: float | None = 1.0) -> Row:
    case = f"recurrent LIF, {way}, a step of B{B} D{D}, L{S}, bfloat16"
    return Row(
        case, device_name("cuda"), 1e3 * ours.ms / S, peer, peer_name, "us", target, ours.spread
    )


def draw(steps: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
    """x `[S, B, D]` and weight `[D, D]` in float32; some tenth of the neurons fires."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(steps, batch, size, generator=generator) * 0.5
    return x, torch.randn(size, size, generator=generator) * size**-0.5


def works(form: Form, x: Tensor, weight: Tensor) -> dict[str, Work]:
    def both() -> object:
        spikes, _ = form(x, weight, beta=BETA)
        return torch.autograd.grad(spikes, (x, weight), x.detach())

    return {"forward": lambda: form(x, weight, beta=BETA), "both": both}


def check(form: Form, x: Tensor, weight: Tensor, device: str) -> None:
    """Spikes, membrane and gradients against the specification in float64 on the CPU."""
    names = ("spikes", "membrane", "dx", "d weight")
    exact = outcome(recurrent.recurrent_lif, x.double(), weight.double())
    got = outcome(form, x.to(device), weight.to(device))
    for name, a, b in zip(names, exact, got, strict=True):
        error = float((b.double().cpu() - a).norm() / a.norm())
        if not error < TOLERANCE:
            raise RuntimeError(f"the recurrent LIF is wrong: {name} is off by {error:.2g}")


def outcome(form: Form, x: Tensor, weight: Tensor) -> list[Tensor]:
    x, weight = (t.detach().requires_grad_() for t in (x, weight))
    spikes, (v, _) = form(x, weight, beta=BETA)
    grads = torch.autograd.grad((spikes, v), (x, weight), (x.detach(), v.detach()))
    return [spikes.detach(), v.detach(), *grads]
