"""Causal SDSA as Triton programs, with gradients; `kernels` holds the programs and the algebra.

Registered as torch operators with fake forms, so `torch.compile` does not break its graph here.
Launch configurations are shipped in a table: nothing is tuned at the first call, and what an
operator is about to launch for the first time is compiled side by side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spikeloom.ops.attention import kernels
from spikeloom.ops.attention.gradients import gradients
from spikeloom.ops.launches import Launches

CHUNK = 64
SEGMENT = 8  # chunks between two kept states
WIDTHS = (16, 32, 64, 128)
DTYPES = (torch.bfloat16, torch.float32)
# From this many programs on, one that walks through all tokens beats one per segment, which needs
# a pass of its own over two of the three inputs.
WALKERS = 96
# Bytes of a row of q or v up to which one program holds all that `gradients` needs.
ONE_PASS = 128


class Launch(NamedTuple):
    """Columns a program owns, warps, tiles in flight, and a bound of a thread's registers."""

    block: int
    warps: int
    stages: int
    registers: int | None = None


# By width of the columns. Walkers are few: narrow blocks give more of them.
RESUME = {16: Launch(16, 4, 2), 32: Launch(32, 4, 2), 64: Launch(64, 4, 2), 128: Launch(64, 4, 2)}
LAUNCHES = {
    "walk": {16: Launch(16, 4, 3), **dict.fromkeys((32, 64, 128), Launch(32, 4, 3))},
    "resume": RESUME,
    "gather": RESUME,
}
GRADIENTS = {"num_warps": 4, "num_stages": 2}


def sdsa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Same arguments and results as `naive.sdsa`, for shapes and dtypes that `unfit` passes.

    Products are computed in the dtype of `q` with float32 sums; decays and states are float32.
    """
    out, last, *_ = _sdsa(q, k, v, log_decay, initial_state, starts)
    return out, last


def unfit(dtypes: tuple[torch.dtype, ...], key_width: int, value_width: int) -> str | None:
    """Why these programs cannot take such q, k and v; None if they can."""
    if len(set(dtypes)) > 1 or dtypes[0] not in DTYPES:
        return f"q, k, v of {', '.join(map(str, dtypes))} (all float32, or all bfloat16)"
    if key_width not in WIDTHS or value_width not in WIDTHS:
        return f"head widths {key_width} and {value_width} (use {', '.join(map(str, WIDTHS))})"
    return None


@torch.library.custom_op(
    "spikeloom::sdsa",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor log_decay, Tensor? initial_state, Tensor? starts)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _sdsa(q, k, v, log_decay, initial_state, starts):  # type: ignore[no-untyped-def]
    q, k, v = (_rows(x) for x in (q, k, v))
    out, last, borders, decay, segment = _sdsa_fake(q, k, v, log_decay, initial_state, starts)
    tokens = Tokens(decay, segment if starts is not None else None, q.shape[2], Launches())
    tokens.fill(log_decay, starts)
    states = States(first=initial_state, borders=borders, last=last)
    walks = tokens.walks(v)
    if walks:
        _scan(tokens, "walk", (q, k, v), out, states)
    else:
        _gather(tokens, (q, k, v), states)
        _scan(tokens, "resume", (q, k, v), out, states)
    tokens.launches.run(("sdsa", walks, *_kind(q, v), initial_state is None, starts is None))
    return out, last, borders, decay, segment


@_sdsa.register_fake
def _sdsa_fake(q, k, v, log_decay, initial_state, starts):  # type: ignore[no-untyped-def]
    B, H, L, K = q.shape
    V = v.shape[-1]
    N = -(-L // CHUNK)
    fp32 = q.new_empty(0, dtype=torch.float32)
    return (
        _token_major(v, H),
        fp32.new_empty(B, H, K, V),
        fp32.new_empty(B * H, -(-N // SEGMENT) + 1, K, V),
        fp32.new_empty(B * H, N * CHUNK),
        fp32.new_empty((B, N * CHUNK) if starts is not None else 0, dtype=torch.int32),
    )


@torch.library.custom_op(
    "spikeloom::sdsa_backward",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor borders, Tensor decay, Tensor? segment,"
    " Tensor d_out, Tensor? d_last) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(q, k, v, borders, decay, segment, d_out, d_last):  # type: ignore[no-untyped-def]
    q, k, v, d_out = (_rows(x) for x in (q, k, v, d_out))
    dq, dk, dv, dg, d_first = _backward_fake(q, k, v, borders, decay, segment, d_out, d_last)
    tokens = Tokens(decay, segment, q.shape[2], Launches())
    # reversed: the scan begins with the gradient of the last state and ends with the first's
    grads = States(first=d_last, borders=torch.empty_like(borders), last=d_first)
    states = States(first=None, borders=borders, last=None)
    one_pass = max(q.shape[-1], v.shape[-1]) * q.element_size() <= ONE_PASS
    ask = _one_pass if one_pass else _scan_by_scan
    rows = ask(tokens, (q, k, v, d_out), (dq, dk, dv), (states, grads))
    _decay_gradient(tokens, rows, (states, grads), dg)
    how = "one pass" if one_pass else tokens.walks(v)
    tokens.launches.run(("backward", how, *_kind(q, v), d_last is None, segment is None))
    return dq, dk, dv, dg, d_first


@_backward.register_fake
def _backward_fake(q, k, v, borders, decay, segment, d_out, d_last):  # type: ignore[no-untyped-def]
    B, H, L, K = q.shape
    return (
        _token_major(q, H),
        _token_major(k, H),
        _token_major(v, H),
        decay.new_empty(B, H, L),
        decay.new_empty(B, H, K, v.shape[-1]),
    )


def _setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
    q, k, v, log_decay, initial_state, starts = inputs
    _, _, borders, decay, segment = output
    ctx.mark_non_differentiable(borders, decay, segment)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, borders, decay, None if starts is None else segment)
    ctx.decay_dtype, ctx.has_state = log_decay.dtype, initial_state is not None


def _autograd(ctx, d_out, d_last, *_):  # type: ignore[no-untyped-def]
    q, k, v, *saved = ctx.saved_tensors
    if d_out is None:
        d_out = torch.zeros_like(v)
    dq, dk, dv, dg, d_first = _backward(q, k, v, *saved, d_out, d_last)
    return dq, dk, dv, dg.to(ctx.decay_dtype), d_first if ctx.has_state else None, None


_sdsa.register_autograd(_autograd, setup_context=_setup_context)


class Tokens(NamedTuple):
    """What all scans over the same tokens share.

    Attributes:
        decay, segment: see `kernels.running_decays`.
        length: number of tokens; the rest of the last chunk is padding.
        launches: what an operator launches, in order.
    """

    decay: Tensor
    segment: Tensor | None
    length: int
    launches: Launches

    @property
    def chunks(self) -> int:
        return self.decay.shape[1] // CHUNK

    @property
    def segments(self) -> int:
        return -(-self.chunks // SEGMENT)

    def fill(self, log_decay: Tensor, starts: Tensor | None) -> None:
        """Running sums from log decays `[B, H, L]` and document starts `[B, L]`."""
        B, H, L = log_decay.shape
        self.launches.add(
            kernels.running_decays,
            (self.chunks, B * H),
            log_decay,
            None if starts is None else starts.contiguous(),
            self.decay,
            self.segment,
            log_decay.stride(),
            H,
            L,
            self.chunks,
            C=CHUNK,
            num_warps=1,
        )

    def walks(self, v: Tensor) -> bool:
        """Whether programs that walk through all tokens are enough to fill the GPU."""
        B, H, _, V = v.shape
        programs = B * H * -(-V // LAUNCHES["walk"][V].block)
        return self.segments == 1 or programs >= WALKERS


class States(NamedTuple):
    """States before, at the borders of segments of, and behind a scan; None is zeros or unused."""

    first: Tensor | None
    borders: Tensor
    last: Tensor | None


def _scan(
    tokens: Tokens,
    mode: str,
    inputs: tuple[Tensor, Tensor, Tensor],
    out: Tensor | None,
    states: States,
    reverse: bool = False,
    transposed: bool = False,
    partner: Tensor | None = None,
) -> Tensor | None:
    """Ask for `kernels.scan`; the row sums of `out * partner` if there is one.

    Args:
        transposed: the states are kept as X x W.
    """
    a, b, c = inputs
    B, H, L, W = a.shape
    X = c.shape[-1]
    launch = LAUNCHES[mode][X]
    blocks = X // launch.block
    rows = None
    if partner is not None:
        rows = torch.empty(blocks, *tokens.decay.shape, device=a.device)
    tokens.launches.add(
        kernels.scan,
        (blocks, B * H, 1 if mode == "walk" else tokens.segments),
        a,
        b,
        c,
        out,
        partner,
        rows,
        tokens.decay,
        tokens.segment,
        None if states.first is None else states.first.contiguous(),
        states.borders,
        states.last,
        a.stride(),
        b.stride(),
        c.stride(),
        None if out is None else out.stride(),
        None if partner is None else partner.stride(),
        (1, W) if transposed else (X, 1),
        H,
        L,
        tokens.chunks,
        W=W,
        X=X,
        BX=launch.block,
        C=CHUNK,
        SEGMENT=SEGMENT,
        MODE=mode,
        REVERSE=int(reverse),
        PRECISION=_precision(a),
        num_warps=launch.warps,
        num_stages=launch.stages,
        maxnreg=launch.registers,
    )
    return rows


def _gather(
    tokens: Tokens, inputs: tuple[Tensor, Tensor, Tensor], states: States, reverse: bool = False
) -> None:
    """States at all borders, in two passes: each segment alone, then one after another."""
    _scan(tokens, "gather", inputs, None, states, reverse)
    B, H, _, W = inputs[0].shape
    size = W * inputs[2].shape[-1]
    block = min(size, 512)
    tokens.launches.add(
        kernels.join_segments,
        (size // block, B * H),
        tokens.decay,
        tokens.segment,
        None if states.first is None else states.first.contiguous(),
        states.borders,
        states.last,
        H,
        tokens.chunks,
        SIZE=size,
        BLOCK=block,
        C=CHUNK,
        SEGMENT=SEGMENT,
        REVERSE=int(reverse),
    )


def _one_pass(
    tokens: Tokens,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor],
    outputs: tuple[Tensor, Tensor, Tensor],
    states: tuple[States, States],
) -> tuple[Tensor, Tensor]:
    """Ask for the gradients of q, k, v and the states; what `_decay_gradient` wants besides."""
    q, k, v, d_out = inputs
    forward, grads = states
    _gather(tokens, (k, q, d_out), grads, reverse=True)
    B, H, L, K = q.shape
    rows = torch.empty(2, 1, *tokens.decay.shape, device=q.device)
    tokens.launches.add(
        gradients,
        (2, B * H, tokens.segments),
        *inputs,
        *outputs,
        rows,
        tokens.decay,
        tokens.segment,
        forward.borders,
        grads.borders,
        *(x.stride() for x in (*inputs, *outputs)),
        H,
        L,
        tokens.chunks,
        K=K,
        V=v.shape[-1],
        C=CHUNK,
        SEGMENT=SEGMENT,
        PRECISION=_precision(q),
        **GRADIENTS,
    )
    return rows[0], rows[1]


def _scan_by_scan(
    tokens: Tokens,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor],
    outputs: tuple[Tensor, Tensor, Tensor],
    states: tuple[States, States],
) -> tuple[Tensor, Tensor]:
    """The same for wide heads: a scan for each gradient."""
    q, k, v, d_out = inputs
    dq, dk, dv = outputs
    forward, grads = states
    if tokens.walks(v):
        _scan(tokens, "walk", (k, q, d_out), dv, grads, reverse=True)
    else:
        _gather(tokens, (k, q, d_out), grads, reverse=True)
        _scan(tokens, "resume", (k, q, d_out), dv, grads, reverse=True)
    of_q = _scan(tokens, "resume", (d_out, v, k), dq, forward, transposed=True, partner=q)
    of_k = _scan(
        tokens, "resume", (v, d_out, q), dk, grads, reverse=True, transposed=True, partner=k
    )
    assert of_q is not None  # they have a partner
    assert of_k is not None
    return of_q, of_k


def _decay_gradient(
    tokens: Tokens,
    rows: tuple[Tensor, Tensor],
    states: tuple[States, States],
    grad: Tensor,
) -> None:
    B, H, L = grad.shape
    size = states[0].borders[0, 0].numel()
    tokens.launches.add(
        kernels.decay_gradient,
        (tokens.segments, B * H),
        *rows,
        tokens.segment,
        states[0].borders,
        states[1].borders,
        grad,
        H,
        L,
        tokens.chunks,
        BLOCKS=rows[0].shape[0],
        SIZE=size,
        C=CHUNK,
        SEGMENT=SEGMENT,
    )


def _kind(q: Tensor, v: Tensor) -> tuple[torch.dtype, int, int]:
    return q.dtype, q.shape[-1], v.shape[-1]


def _precision(x: Tensor) -> str:
    return "tf32x3" if x.dtype == torch.float32 else "tf32"


def _rows(x: Tensor) -> Tensor:
    """Views of any strides are read in place, as long as rows are contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _token_major(like: Tensor, H: int) -> Tensor:
    """An empty `[B, H, L, X]` that lies in memory as `[B, L, H, X]`, as the next product reads."""
    B, _, L, X = like.shape
    return like.new_empty(B, L, H, X).transpose(1, 2)
