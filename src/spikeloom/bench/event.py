"""The event-driven product of one token on a GPU, against the dense product of cuBLAS.

A product in the inner loop of batch-1 decoding: `d_in` channels, of which a share fires, times
input-major bf16 weights. As in decoding, products follow each other inside one CUDA graph, each
with weights of its own, and these come from memory: the cache is overwritten before each replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeloom.bench.options import ALL, Options
from spikeloom.bench.rows import Row, device_name
from spikeloom.bench.timing import time_cuda
from spikeloom.errors import ConfigError
from spikeloom.ops.event import naive
from spikeloom.ops.event.weights import InputMajor

SIZES = {
    "2048x8192": (2048, 8192),
    "4096x16384": (4096, 16384),
    "8192x2048": (8192, 2048),
    "16384x4096": (16384, 4096),
    "768x3072": (768, 3072),
}
TARGETS = {(2048, 8192): 2.5, (4096, 16384): 4.0}  # at a rate of 0.1, either way round
RATES = (0.05, 0.1, 0.2, 0.5)
Products = Callable[[], list[Tensor]]
CHAIN = 8  # products in a graph; their time is divided by this


def run(device: str, options: Options = ALL) -> Iterator[Row]:
    """Microseconds of a product over sizes and channel rates.

    Raises:
        ConfigError: the device is not a GPU.
        RuntimeError: a product is wrong.
    """
    cases = options.select(list(SIZES), quick=2)
    if device != "cuda":
        raise ConfigError("this product is timed on a GPU: use --device cuda (CPU: bench decode)")
    torch.manual_seed(0)
    for case in cases:
        yield from compare(*SIZES[case])


def compare(d_in: int, d_out: int) -> Iterator[Row]:
    """Rows of one size; the peer is the fastest way to ask cuBLAS."""
    chain = [draw_weights(d_in, d_out) for _ in range(CHAIN)]
    payloads = {rate: draw_payload(d_in, rate) for rate in RATES}
    for payload in payloads.values():
        check(payload, chain[0])
    dense = dense_products(payloads[RATES[0]], chain)
    ours = {str(rate): product(payloads[rate], chain) for rate in RATES}
    times = time_cuda({**ours, **dense})
    best = min(dense, key=lambda name: times[name].ms)
    for rate in RATES:
        yield Row(
            f"event matvec, {d_in} in, {d_out} out, bf16, channel rate {rate}",
            device_name("cuda"),
            1e3 * times[str(rate)].ms / CHAIN,
            1e3 * times[best].ms / CHAIN,
            f"cuBLAS dense ({best}), torch {torch.__version__}",
            "us",
            TARGETS.get((min(d_in, d_out), max(d_in, d_out))) if rate == 0.1 else None,
            times[str(rate)].spread,
        )


def draw_weights(d_in: int, d_out: int) -> InputMajor:
    data = torch.randn(d_in, d_out, device="cuda", dtype=torch.bfloat16) / d_in**0.5
    return InputMajor(data, torch.rand(d_in, device="cuda") + 0.5)


def draw_payload(d_in: int, rate: float) -> Tensor:
    """Graded spikes of up to 4 levels, a share `rate` of which are not 0."""
    fires = torch.rand(d_in, device="cuda") < rate
    return torch.randint(1, 5, (d_in,), device="cuda").float() * fires


def product(payload: Tensor, chain: Sequence[InputMajor]) -> Products:
    from spikeloom.ops.event import gather

    return lambda: [gather.event_matvec(payload, weights) for weights in chain]


def dense_products(payload: Tensor, chain: Sequence[InputMajor]) -> dict[str, Products]:
    """The dense products asked for in three ways, in bf16, with the scale in the weights."""
    rows = [weights.data for weights in chain]  # [d_in, d_out]
    columns = [data.t().contiguous() for data in rows]  # [d_out, d_in], as `nn.Linear` keeps them
    x = payload.to(rows[0].dtype)
    return {
        "linear": lambda: [F.linear(x[None], weight) for weight in columns],
        "mv": lambda: [torch.mv(weight, x) for weight in columns],
        "mv, input-major": lambda: [torch.mv(data.t(), x) for data in rows],
    }


def check(payload: Tensor, weights: InputMajor) -> None:
    """Refuse to time what is wrong, or differs from call to call."""
    exact = naive.event_matvec(payload, weights)
    (got,), (again,) = (product(payload, [weights])() for _ in range(2))
    error = float((got - exact).norm() / exact.norm())
    if not error < 1e-5 or not torch.equal(got, again):
        size = f"{weights.d_in} in, {weights.d_out} out"
        raise RuntimeError(f"the event-driven product is wrong at {size}: off by {error:.2g}")
