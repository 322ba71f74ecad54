"""The recurrent LIF as torch operators on the Triton programs of `triton_recurrent`.

Same arguments and results as `recurrent.recurrent_lif`, with these limits: `x` is float32, bfloat16
or float16, at most `WIDEST` neurons; the state is float32. The gradient of the weight is one dense
product after the scan.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from spikeloom.ops.lif import triton_recurrent
from spikeloom.ops.lif.recurrent import State

ROWS, COLS, SPLIT, WARPS = 16, 16, 4, 4
MEASURED = 512  # neurons, with this tiling (`benchmarks/sweep_recurrent.py`)
AT_ONCE = 4  # words that a thread waits for together, at most
WIDEST = 1024  # neurons: 16 rows of W, in two halves, must fit into a multiprocessor
STEPS = 1 << 30  # per launch; one at a time where programs run one after another (interpreted)


def recurrent_lif(
    x: Tensor,
    weight: Tensor,
    initial_state: State | None = None,
    *,
    beta: float | Tensor,
    v_threshold: float = 1.0,
    surrogate: str = "atan",
    starts: Tensor | None = None,
) -> tuple[Tensor, State]:
    """As `recurrent.recurrent_lif`."""
    quiet = x.new_zeros(x.shape[1:], dtype=torch.float32)
    v, s = (quiet, quiet) if initial_state is None else (part.float() for part in initial_state)
    if not isinstance(beta, Tensor):
        beta = torch.full((x.shape[2],), beta, device=x.device)
    if starts is not None:
        starts = starts.expand(*x.shape[:2], 1).contiguous()
    given = (x.contiguous(), weight, beta.float().expand(x.shape[2]).contiguous(), v, s, starts)
    spikes, last, _ = recurrent_scan(*given, v_threshold, surrogate)
    return spikes, (last, spikes[-1].float())


@torch.library.custom_op("spikeloom::recurrent_scan", mutates_args=())
def recurrent_scan(
    x: Tensor,
    weight: Tensor,
    beta: Tensor,
    v_first: Tensor,
    s_first: Tensor,
    starts: Tensor | None,
    v_threshold: float,
    kind: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes `[S, B, D]`, the last membrane `[B, D]` and all charged membranes `[S, B, D]`."""
    S, B, D = x.shape
    spikes, last, charged = _empty_outputs(x)
    first = _packed(s_first)
    sent = torch.full((S + 1, *first.shape), -1, dtype=torch.int32, device=x.device)
    sent[0] = first
    heard, v_first = _halves(weight.t(), torch.float16), v_first.contiguous()
    for begin, end, group, grid in _launches(x):
        triton_recurrent.recurrent_forward[grid](
            x,
            heard,
            beta,
            v_first,
            starts,
            v_threshold,
            sent,
            charged,
            spikes,
            begin,
            end,
            group,
            B,
            D,
            **_constants(x),
            **_waiting(x),
        )
    torch.sub(charged[-1], spikes[-1].float(), alpha=v_threshold, out=last)
    return spikes, last, charged


@recurrent_scan.register_fake
def _(x, weight, beta, v_first, s_first, starts, v_threshold, kind):
    return _empty_outputs(x)


@torch.library.custom_op("spikeloom::recurrent_scan_backward", mutates_args=())
def recurrent_scan_backward(
    grad: Tensor,
    grad_last: Tensor,
    charged: Tensor,
    weight: Tensor,
    beta: Tensor,
    starts: Tensor | None,
    v_threshold: float,
    kind: str,
) -> Tensor:
    """Gradient of the charged membranes `[S, B, D]`, float32, which is that of `x`."""
    S, B, D = charged.shape
    bits = torch.full((S, B, D), -1, dtype=torch.int32, device=charged.device)
    felt = _halves(weight, torch.bfloat16)
    grad, grad_last = grad.contiguous(), grad_last.contiguous()
    for begin, end, group, grid in reversed(_launches(charged)):
        triton_recurrent.recurrent_backward[grid](
            felt,
            beta,
            starts,
            v_threshold,
            charged,
            grad,
            grad_last,
            bits,
            begin,
            end,
            group,
            S,
            B,
            D,
            KIND=kind,
            **_constants(charged),
        )
    return bits.view(torch.float32)


@recurrent_scan_backward.register_fake
def _(grad, grad_last, charged, weight, beta, starts, v_threshold, kind):
    return torch.empty_like(charged)


def _remember(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, beta, v_first, s_first, starts, v_threshold, kind = inputs
    spikes, _, charged = output
    ctx.mark_non_differentiable(charged)
    ctx.save_for_backward(weight, beta, v_first, s_first, starts, spikes, charged)
    ctx.v_threshold, ctx.kind, ctx.dtype = v_threshold, kind, x.dtype


def _differentiate(ctx: Any, grad: Tensor, grad_last: Tensor, _: Any) -> tuple:
    weight, beta, v_first, s_first, starts, spikes, charged = ctx.saved_tensors
    by_x = recurrent_scan_backward(
        grad, grad_last, charged, weight, beta, starts, ctx.v_threshold, ctx.kind
    )
    v_after = charged - ctx.v_threshold * spikes
    s, v = (
        torch.cat([first[None], later[:-1]])
        for first, later in ((s_first, spikes), (v_first, v_after))
    )
    by_first = by_x[0]
    if starts is not None:
        s, v = (torch.where(starts, torch.zeros_like(kept), kept) for kept in (s, v))
        by_first = torch.where(starts[0], torch.zeros_like(by_first), by_first)
    by_weight = by_x.flatten(0, 1).t() @ s.float().flatten(0, 1)
    by_beta = (by_x * v).sum((0, 1))
    by_s = by_first @ weight.float()
    found = (by_x.to(ctx.dtype), by_weight.to(weight.dtype), by_beta, beta * by_first, by_s)
    return (*found, None, None, None)


recurrent_scan.register_autograd(_differentiate, setup_context=_remember)


def _empty_outputs(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    charged = x.new_empty(x.shape, dtype=torch.float32)
    return torch.empty_like(x), charged.new_empty(x.shape[1:]), charged


def _packed(spikes: Tensor) -> Tensor:
    """`[B, D]` as words `[B, ceil(D / WORD)]` int32."""
    word = triton_recurrent.WORD
    padded = F.pad(spikes.int(), (0, -spikes.shape[1] % word)).unflatten(1, (-1, word))
    return (padded << torch.arange(word, device=spikes.device)).sum(2, dtype=torch.int32)


def _halves(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`[2, D, D]` whose sum is the weight; the interpreter multiplies in float32 only."""
    if not weight.is_cuda:
        dtype = torch.float32
    weight = weight.float()
    high = weight.to(dtype)
    return torch.stack([high, (weight - high.float()).to(dtype)])


def _launches(x: Tensor) -> list[tuple[int, int, int, tuple[int, int]]]:
    """First and last step, first group of sequences, grid: as many groups as run side by side."""
    S, B, D = x.shape
    blocks, groups = triton.cdiv(D, COLS), triton.cdiv(B, ROWS)
    at_once = max(_programs_at_once(x) // blocks, 1)
    return [
        (begin, min(begin + STEPS, S), group, (blocks, min(at_once, groups - group)))
        for group in range(0, groups, at_once)
        for begin in range(0, S, STEPS)
    ]


def _programs_at_once(x: Tensor) -> int:
    """One per multiprocessor."""
    if not x.is_cuda:
        return 1
    return torch.cuda.get_device_properties(x.device).multi_processor_count


def _constants(x: Tensor) -> dict[str, Any]:
    D = x.shape[2]
    factor = 1 if D <= MEASURED else 2  # no thread has more of the weight than there
    split, warps = factor * SPLIT, factor * WARPS
    part = max(triton.next_power_of_2(triton.cdiv(D, split)), 16)
    found: dict[str, Any] = {"ROWS": ROWS, "COLS": COLS, "SPLIT": split, "PART": part}
    if x.is_cuda:  # cooperative: all programs at once, or an error
        found |= {"num_warps": warps, "num_stages": 1, "launch_cooperative_grid": True}
    return found


def _waiting(x: Tensor) -> dict[str, Any]:
    """How the forward pass waits; each thread has a power of two of the words of a step."""
    split, part = (_constants(x)[name] for name in ("SPLIT", "PART"))
    threads = 32 * WARPS * split // SPLIT
    words = max(ROWS * split * part // triton_recurrent.WORD // threads, 1)
    words = min(words, AT_ONCE) if x.is_cuda else 0
    registers = ",".join(["=r"] * words + ["l"] * words)
    asm = triton_recurrent.waiting_for(words) if words else ""
    return {"AT_ONCE": words, "WAITING": asm, "REGISTERS": registers}
