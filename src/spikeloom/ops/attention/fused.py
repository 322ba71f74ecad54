"""Causal SDSA as Triton programs, with gradients.

`kernels` holds the programs and the algebra, `gradients` one more program, and `passes` says which
are launched. Registered as torch operators with fake forms, so `torch.compile` does not break its
graph here. Launch configurations are shipped in a table: nothing is tuned at the first call, and
what an operator is about to launch for the first time is compiled side by side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeloom.ops.attention import passes
from spikeloom.ops.attention.passes import States, Tokens
from spikeloom.ops.launches import Launches

WIDTHS = (16, 32, 64, 128)
DTYPES = (torch.bfloat16, torch.float32)


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
    states = States(first=initial_state, borders=borders, last=last)
    passes.forward(tokens, (q, k, v), out, states, log_decay, starts)
    kind = ("sdsa", tokens.walks(v), *_kind(q, v), initial_state is None, starts is None)
    tokens.launches.run(kind)
    return out, last, borders, decay, segment


@_sdsa.register_fake
def _sdsa_fake(q, k, v, log_decay, initial_state, starts):  # type: ignore[no-untyped-def]
    B, H, L, K = q.shape
    V, C = v.shape[-1], passes.CHUNK
    N = -(-L // C)
    fp32 = q.new_empty(0, dtype=torch.float32)
    return (
        _token_major(v, H),
        fp32.new_empty(B, H, K, V),
        fp32.new_empty(B * H, -(-N // passes.SEGMENT) + 1, K, V),
        fp32.new_empty(B * H, N * C),
        fp32.new_empty((B, N * C) if starts is not None else 0, dtype=torch.int32),
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
    passes.backward(tokens, (q, k, v, d_out), (dq, dk, dv), dg, (states, grads))
    kind = ("backward", tokens.walks(v), *_kind(q, v), d_last is None, segment is None)
    tokens.launches.run(kind)
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


def _kind(q: Tensor, v: Tensor) -> tuple[torch.dtype, int, int]:
    return q.dtype, q.shape[-1], v.shape[-1]


def _rows(x: Tensor) -> Tensor:
    """Views of any strides are read in place, as long as rows are contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _token_major(like: Tensor, H: int) -> Tensor:
    """An empty `[B, H, L, X]` that lies in memory as `[B, L, H, X]`, as the next product reads."""
    B, _, L, X = like.shape
    return like.new_empty(B, L, H, X).transpose(1, 2)
