"""The spike `s = 1[u >= 0]` and the slopes that stand in for its derivative.

Each surrogate is the derivative of a smooth proxy `g(u)` that rises from 0 to 1; the proxies are
kept here because they are what the gradient tests differentiate.

| name                  | derivative h(u)                   | proxy g(u)                    |
|-----------------------|-----------------------------------|-------------------------------|
| `atan`                | a/2 / (1 + (pi a u / 2)^2), a = 2 | atan(pi a u / 2) / pi + 1/2   |
| `sigmoid`             | a g (1 - g), a = 2                | sigmoid(a u)                  |
| `fast_sigmoid`        | (a/2) / (1 + a |u|)^2, a = 2      | a u / (2 (1 + a |u|)) + 1/2   |
| `piecewise_quadratic` | a - a^2 |u| for |u| <= 1/a, a = 1 | its integral                  |
| `straight_through`    | 1 for |u| <= 1/2                  | clip(u + 1/2, 0, 1)           |

Sources, in order: Fang et al. 2021; Zenke and Ganguli 2018 (two); Esser et al. 2016; Bengio et al.
2013.
`fast_sigmoid` is normalised so that its proxy rises by 1 like the others; snnTorch's form is the
same curve divided by a/2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def _atan(u: Tensor) -> Tensor:
    return 1.0 / (1.0 + (math.pi * u).square())


def _sigmoid(u: Tensor) -> Tensor:
    g = torch.sigmoid(2.0 * u)
    return 2.0 * g * (1.0 - g)


def _fast_sigmoid(u: Tensor) -> Tensor:
    return 1.0 / (1.0 + 2.0 * u.abs()).square()


def _piecewise_quadratic(u: Tensor) -> Tensor:
    return (1.0 - u.abs()).clamp(min=0.0)


def _straight_through(u: Tensor) -> Tensor:
    return (u.abs() <= 0.5).to(u.dtype)


SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "atan": _atan,
    "sigmoid": _sigmoid,
    "fast_sigmoid": _fast_sigmoid,
    "piecewise_quadratic": _piecewise_quadratic,
    "straight_through": _straight_through,
}

PROXIES: dict[str, Callable[[Tensor], Tensor]] = {
    "atan": lambda u: torch.atan(math.pi * u) / math.pi + 0.5,
    "sigmoid": lambda u: torch.sigmoid(2.0 * u),
    "fast_sigmoid": lambda u: u / (1.0 + 2.0 * u.abs()) + 0.5,
    "piecewise_quadratic": lambda u: torch.where(
        u.abs() <= 1, u - 0.5 * u * u.abs() + 0.5, (u > 0).to(u.dtype)
    ),
    "straight_through": lambda u: (u + 0.5).clamp(0.0, 1.0),
}


class _Heaviside(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor, surrogate: str) -> Tensor:
        ctx.save_for_backward(u)
        ctx.surrogate = surrogate
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (u,) = ctx.saved_tensors
        return grad * SLOPES[ctx.surrogate](u), None


def heaviside(u: Tensor, surrogate: str = "atan") -> Tensor:
    """Spikes of the distance to threshold.

    Args:
        u: `v - v_threshold`, any shape.
        surrogate: a key of `SLOPES`; the slope used in place of the derivative.

    Returns:
        1 where `u >= 0`, else 0; same shape and dtype.
    """
    return _Heaviside.apply(u, surrogate)
