"""The passes over the tokens that causal SDSA takes: which programs, cut up how, in which order.

Either programs walk through all tokens, or, where those are too few to fill a GPU, all segments run
at once behind a pass that brings states to their borders.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spikeloom.ops.attention import kernels
from spikeloom.ops.attention.gradients import gradients
from spikeloom.ops.launches import Launches

Three = tuple[Tensor, Tensor, Tensor]
Four = tuple[Tensor, Tensor, Tensor, Tensor]

CHUNK = 64
SEGMENT = 8  # chunks between two kept states
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
    "walk": {
        16: Launch(16, 4, 3),
        32: Launch(32, 4, 3),
        64: Launch(64, 4, 3),
        128: Launch(32, 4, 3),
    },
    "resume": RESUME,
    "gather": RESUME,
}
GRADIENTS = {"num_warps": 4, "num_stages": 2}


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

    @staticmethod
    def in_one_pass(k: Tensor, v: Tensor) -> bool:
        """Whether one program can hold all that `gradients` needs."""
        return max(k.shape[-1], v.shape[-1]) * k.element_size() <= ONE_PASS


class States(NamedTuple):
    """States before, at the borders of segments of, and behind a scan; None is zeros or unused."""

    first: Tensor | None
    borders: Tensor
    last: Tensor | None


def forward(
    tokens: Tokens,
    inputs: Three,
    out: Tensor,
    states: States,
    log_decay: Tensor,
    starts: Tensor | None,
) -> None:
    """Ask for the outputs of q, k and v, and for the states."""
    tokens.fill(log_decay, starts)
    if tokens.walks(inputs[2]):
        _scan(tokens, "walk", inputs, out, states)
    else:
        _gather(tokens, inputs, states)
        _scan(tokens, "resume", inputs, out, states)


def backward(
    tokens: Tokens, inputs: Four, outputs: Three, decays: Tensor, states: tuple[States, States]
) -> None:
    """Ask for the gradients of q, k and v, of the log decays and of the states.

    Args:
        inputs: q, k, v and the gradient of the output.
        outputs: for the gradients of q, k and v; decays: for those of the log decays.
        states: those of the forward pass, and their gradients.
    """
    ask = _one_pass if tokens.in_one_pass(*inputs[1:3]) else _scan_by_scan
    rows = ask(tokens, inputs, outputs, states)
    _decay_gradient(tokens, rows, states, decays)


def _scan(
    tokens: Tokens,
    mode: str,
    inputs: Three,
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


def _gather(tokens: Tokens, inputs: Three, states: States, reverse: bool = False) -> None:
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
    inputs: Four,
    outputs: Three,
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
    inputs: Four,
    outputs: Three,
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


def _precision(x: Tensor) -> str:
    return "tf32x3" if x.dtype == torch.float32 else "tf32"
