"""What the neuron benchmarks `lif` and `scan` share: cases, peers, and rows that name them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spikeloom.bench.agreement import Agreement, require_agreement
from spikeloom.bench.rows import Row, device_name
from spikeloom.bench.timing import Timing, Work
from spikeloom.errors import ConfigError
from spikeloom.ops.lif import dispatch, naive

BETA = 0.9
GRADED = {"levels": 24, "fire_level": 3, "signed": True}
LIF, GRADED_LIF = "LIF", "graded LIF"
KINDS = (GRADED_LIF, LIF)


class Case(NamedTuple):
    """One neuron on one input.

    Attributes:
        name: as it stands in the rows.
        tensors: `x` `[S, ..., D]`, and `theta` `[D]` of the graded neuron.
        grad: gradient of the output, laid out as `x`.
        starts: where packed rows start anew, or None.
    """

    name: str
    tensors: dict[str, Tensor]
    grad: Tensor
    starts: Tensor | None = None

    def neuron(self, form: ModuleType = dispatch) -> Callable[..., Tensor]:
        """The neuron as a function of `tensors` by name; form is `dispatch` or `naive`."""
        extra: dict[str, Any] = {"beta": BETA, "starts": self.starts}
        if form is not naive:
            extra["keep_state"] = False
        if "theta" in self.tensors:
            return lambda x, theta: form.graded_lif(x, theta, **GRADED, **extra)[0]
        return lambda x: form.lif(x, **extra)[0]

    def check(self, form: ModuleType = dispatch) -> Agreement:
        """Raises `DisagreementError` where our form is wrong; says what rounding did."""
        starts = None if self.starts is None else self.starts.cpu()
        exact = self._replace(starts=starts).neuron(naive)
        found = require_agreement(self.neuron(form), exact, self.tensors)
        say(f"{self.name}: lanes flipped {found.flipped:.1e}, bent {found.bent:.1e}")
        return found

    def forward(self) -> Work:
        neuron = self.neuron()
        return lambda: neuron(**self.tensors)

    def both(self) -> Work:
        """Forward, and backward to every tensor."""
        return forward_backward(self.neuron(), self.tensors, self.grad)


def case(kind: str, name: str, x: Tensor, starts: Tensor | None = None) -> Case:
    """A case of `LIF` or `GRADED_LIF` with fixed random parameters."""
    tensors = {"x": x}
    if kind == GRADED_LIF:
        generator = torch.Generator(x.device).manual_seed(1)
        size = x.shape[-1]
        tensors["theta"] = torch.rand(size, generator=generator, device=x.device) * 0.2 + 0.15
    return Case(f"{kind}, {name}", tensors, torch.randn_like(x), starts)


def forward_backward(
    neuron: Callable[..., Tensor], tensors: Mapping[str, Tensor], grad: Tensor
) -> Work:
    leaves = {name: t.detach().requires_grad_() for name, t in tensors.items()}

    def work() -> object:
        output = neuron(**leaves)
        return torch.autograd.grad(output, list(leaves.values()), grad)

    return work


def copies(case: Case) -> dict[str, Work]:
    """What moves the same bytes: forward `x` in, spikes out; then two in and one out."""
    x, grad = case.tensors["x"], case.grad
    out, second = torch.empty_like(x), torch.empty_like(x)

    def both() -> None:
        out.copy_(x)
        torch.add(x, grad, out=second)

    return {"forward": lambda: out.copy_(x), "forward+backward": both}


def spikingjelly(case: Case) -> dict[str, Work]:
    """The Triton multi-step LIF of SpikingJelly, if it is installed; it cannot do graded."""
    if importlib.util.find_spec("spikingjelly") is None:
        say("SpikingJelly is not installed: its rows are left out")
        return {}
    os.environ["SJ_LIF_CUDA_IMPLEMENTATION"] = "triton"
    from spikingjelly.activation_based import functional, surrogate

    atan, tau = surrogate.ATan(), 1 / (1 - BETA)

    def neuron(x: Tensor) -> Tensor:
        v = torch.zeros(x.shape[1:], device=x.device)
        return functional.lif_multi_step(x, v, tau, False, 1.0, None, atan)[0]

    tensors = {"x": case.tensors["x"]}
    return {
        "forward": lambda: neuron(**tensors),
        "forward+backward": forward_backward(neuron, tensors, case.grad),
    }


def spikingjelly_name() -> str:
    return f"SpikingJelly {importlib.metadata.version('spikingjelly')} Triton"


def compiled(case: Case) -> dict[str, Work]:
    """torch.compile of the naive form."""
    neuron = torch.compile(case.neuron(naive), fullgraph=True, dynamic=False)
    return {
        "forward": lambda: neuron(**case.tensors),
        "forward+backward": forward_backward(neuron, case.tensors, case.grad),
    }


def row(case: str, ours: Timing, peer: Timing, peer_name: str, target: float | None = None) -> Row:
    return Row(case, device_name("cuda"), ours.ms, peer.ms, peer_name, "ms", target, ours.spread)


def memory_row(case: Case, bound: float) -> Row:
    """Peak bytes of forward and backward's preparation: input, output and what is kept."""
    leaves = {name: t.detach().requires_grad_() for name, t in case.tensors.items()}
    neuron = case.neuron()
    neuron(**leaves)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = neuron(**leaves)
    added = torch.cuda.max_memory_allocated() - before
    del kept
    size = case.tensors["x"].nbytes
    name = f"{case.name}: input, output and what is kept for the backward pass"
    return Row(name, device_name("cuda"), size + added, bound * size, "bound", "bytes", 1.0)


def say(note: str) -> None:
    """Beside the table, which goes to standard output."""
    print(f"spikeloom: {note}", file=sys.stderr, flush=True)


def require_cuda(device: str, name: str) -> None:
    """Raises `ConfigError` where there is no GPU to measure on."""
    if device != "cuda":
        raise ConfigError(f"benchmark '{name}' measures GPU programs: use --device cuda")
    if not dispatch.TRITON:
        raise ConfigError(f"benchmark '{name}' needs Triton: pip install triton")
