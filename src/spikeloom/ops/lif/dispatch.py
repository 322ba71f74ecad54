"""Which form of a neuron runs: the Triton programs on a GPU, the torch forms everywhere else.

A tensor on a GPU that the programs do not take runs in torch, too, and one printed line says why.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.ops.activation import squared_relu
from spikeloom.ops.lif import memoryless, naive, recurrent

GPU_BUILD = torch.version.cuda is not None or torch.version.hip is not None
TRITON = GPU_BUILD and importlib.util.find_spec("triton") is not None
if TRITON:  # a CPU build of torch never loads Triton
    from spikeloom.ops.lif import emission, recurrent_scan, scan

_said: set[str] = set()


def lif(
    x: Tensor, initial_state: Tensor | None = None, *, keep_state: bool = True, **neuron
) -> tuple[Tensor, Tensor | None]:
    """As `naive.lif`; the last membrane may be left out (None) without `keep_state`."""
    if _runs_in_triton(x):
        return scan.lif(x, initial_state, keep_state=keep_state, **neuron)
    return naive.lif(x, initial_state, **neuron)


def graded_lif(
    x: Tensor,
    theta: Tensor,
    initial_state: Tensor | None = None,
    *,
    keep_state: bool = True,
    **neuron,
) -> tuple[Tensor, Tensor | None]:
    """As `naive.graded_lif`; the last membrane may be left out (None) without `keep_state`."""
    if _runs_in_triton(x):
        return scan.graded_lif(x, theta, initial_state, keep_state=keep_state, **neuron)
    return naive.graded_lif(x, theta, initial_state, **neuron)


def recurrent_lif(
    x: Tensor, weight: Tensor, initial_state: recurrent.State | None = None, **neuron
) -> tuple[Tensor, recurrent.State]:
    """As `recurrent.recurrent_lif`; on a GPU the state that comes out is float32."""
    if _runs_in_triton(x, widest=_widest_recurrent()):
        return recurrent_scan.recurrent_lif(x, weight, initial_state, **neuron)
    return recurrent.recurrent_lif(x, weight, initial_state, **neuron)


def graded_emission(
    x: Tensor,
    bias: Tensor,
    log_theta: Tensor,
    before: Callable[[Tensor], Tensor] | None = None,
    dead_zone: Tensor | None = None,
    *,
    fire_level: int,
    rate_level: int | None = None,
    **neuron,
) -> tuple[Tensor, Tensor]:
    """As `memoryless.graded_emission(before(x) + bias, exp(log_theta), ...)`.

    The Triton program takes in an RMSNorm and `squared_relu`; None is nothing before the bias. A
    `dead_zone` (`emission.dead_zone`) overrides `fire_level`.
    """
    rate_level = rate_level or fire_level
    normed = isinstance(before, nn.RMSNorm)
    if not _runs_in_triton(x, widest=_widest_norm() if normed else None):
        v = x if before is None else before(x)
        if dead_zone is not None:
            fire_level = int(dead_zone[0] + 0.5)
        neuron |= {"fire_level": fire_level, "rate_level": rate_level}
        return memoryless.graded_emission(v + bias, log_theta.exp(), **neuron)
    if dead_zone is None and fire_level != rate_level:  # moved to the GPU after it was opened
        dead_zone = emission.dead_zone(fire_level, neuron["window"]).to(x.device)
    neuron["fire_level"] = rate_level
    if torch.compiler.is_compiling() and not torch.is_grad_enabled() and dead_zone is None:
        return _merged(x, bias, log_theta, before, **neuron)
    if isinstance(before, nn.RMSNorm):
        neuron |= {"weight": before.weight, "eps": before.eps or 0.0}
    elif before is squared_relu:
        neuron |= {"squared": True}
    elif before is not None:
        x = before(x)
    return emission.graded_emission(x, bias, log_theta, dead_zone=dead_zone, **neuron)


def _merged(
    x: Tensor,
    bias: Tensor,
    log_theta: Tensor,
    before: Callable[[Tensor], Tensor] | None,
    dtype: torch.dtype | None = None,
    **neuron,
) -> tuple[Tensor, Tensor]:
    """What the Triton program computes, in float32, for torch.compile to merge with its neighbours.

    Without gradients that makes a launch less per neuron, which is what decoding waits for; with
    them, the sums over tokens for the parameters need programs of their own anyway.
    """
    v, beside = x.float(), bias
    if isinstance(before, nn.RMSNorm):
        beside = before.weight
        v = F.rms_norm(v, before.normalized_shape, beside.float(), before.eps)
    elif before is not None:
        v = before(v)
    dtype = dtype or torch.promote_types(x.dtype, beside.dtype)
    theta = log_theta.float().exp()
    return memoryless.graded_emission(v + bias, theta, dtype=dtype, **neuron)


def _runs_in_triton(x: Tensor, widest: int | None = None) -> bool:
    if not x.is_cuda:
        return False
    if not TRITON:
        reason = "Triton is not installed"
    elif x.dtype == torch.float64:
        reason = "they compute in float32, not float64"
    elif widest is not None and x.shape[-1] > widest:
        reason = f"here they take at most {widest} channels, not {x.shape[-1]}"
    else:
        return True
    _say_once(reason)
    return False


def _widest_norm() -> int | None:
    return emission.WIDEST_NORM if TRITON else None


def _widest_recurrent() -> int | None:
    return recurrent_scan.WIDEST if TRITON else None


def _say_once(reason: str) -> None:
    if reason not in _said:
        _said.add(reason)
        print(f"spikeloom: neurons run in torch, not in Triton: {reason}", file=sys.stderr)
