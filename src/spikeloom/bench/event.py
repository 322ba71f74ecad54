"""The event-driven product of one token on a GPU, against the dense product of cuBLAS.

A product in the inner loop of batch-1 decoding: `d_in` channels, of which a share fires, times
input-major bf16 weights. As in decoding, products follow each other inside one CUDA graph, each
with weights of its own, `CHAINED` bytes of them together: five times what the L2 cache holds, so
that every product reads its weights from memory. The cache is overwritten before each replay
besides. Rows where the list of channels that fired is made here pay for it in each product, and
carry the targets; where it is given by the neuron, the products share one made before. A last row
times a graph with one product alone: that is what starting a graph costs.
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
ASKED = 0.1  # the rate of the targets
TARGETS = {(2048, 8192): 2.5, (4096, 16384): 4.0}  # either way round
RATES = (0.05, 0.1, 0.2, 0.5)
MADE, GIVEN = LISTS = ("made here", "given by the neuron")
Products = Callable[[], list[Tensor]]
CHAINED = 256 << 20  # bytes of weights in a graph at least; its time is divided by its products


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
    """Rows of one size, in a chain and alone; the peer is the fastest way to ask cuBLAS."""
    chain = draw_chain(d_in, d_out)
    payloads = {rate: draw_payload(d_in, rate) for rate in RATES}
    for payload in payloads.values():
        check(payload, chain[0])
    contenders = [(rate, MADE) for rate in RATES] + [(ASKED, GIVEN)]
    yield from _rows(payloads, chain, contenders, f"one of {len(chain)} in a graph")
    yield from _rows(payloads, chain[:1], [(ASKED, MADE)], "alone in a graph")


def _rows(
    payloads: dict[float, Tensor],
    chain: Sequence[InputMajor],
    contenders: Sequence[tuple[float, str]],
    where: str,
) -> Iterator[Row]:
    """A row per rate and origin of the list, in microseconds per product of the chain."""
    d_in, d_out = chain[0].d_in, chain[0].d_out
    dense = dense_products(payloads[ASKED], chain)
    ours = {f"{rate}, list {way}": product(payloads[rate], chain, way) for rate, way in contenders}
    times = time_cuda({**ours, **dense})
    best = min(dense, key=lambda name: times[name].ms)
    for name, (rate, way) in zip(ours, contenders, strict=True):
        asked = rate == ASKED and way == MADE and len(chain) > 1
        yield Row(
            f"event matvec, {d_in} in, {d_out} out, bf16, channel rate {name}, {where}",
            device_name("cuda"),
            1e3 * times[name].ms / len(chain),
            1e3 * times[best].ms / len(chain),
            f"cuBLAS dense ({best}), torch {torch.__version__}",
            "us",
            TARGETS.get((min(d_in, d_out), max(d_in, d_out))) if asked else None,
            times[name].spread,
        )


def draw_chain(d_in: int, d_out: int) -> list[InputMajor]:
    """Weights of as many products as a graph holds."""
    count = -(-CHAINED // (2 * d_in * d_out))
    return [draw_weights(d_in, d_out) for _ in range(max(count, 8))]


def draw_weights(d_in: int, d_out: int) -> InputMajor:
    data = torch.randn(d_in, d_out, device="cuda", dtype=torch.bfloat16) / d_in**0.5
    return InputMajor(data, torch.rand(d_in, device="cuda") + 0.5)


def draw_payload(d_in: int, rate: float) -> Tensor:
    """Graded spikes of up to 4 levels, a share `rate` of which are not 0."""
    fires = torch.rand(d_in, device="cuda") < rate
    return torch.randint(1, 5, (d_in,), device="cuda").float() * fires


def product(payload: Tensor, chain: Sequence[InputMajor], way: str = MADE) -> Products:
    """The products of a chain, their list made by each or (GIVEN) once before all."""
    from spikeloom.ops.event import gather

    fired = gather.fired_channels(payload) if way == GIVEN else None
    return lambda: [gather.event_matvec(payload, weights, fired) for weights in chain]


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
    got, *others = (product(payload, [weights], way)()[0] for way in (MADE, MADE, GIVEN))
    error = float((got - exact).norm() / exact.norm())
    if not error < 1e-5 or not all(torch.equal(got, other) for other in others):
        size = f"{weights.d_in} in, {weights.d_out} out"
        raise RuntimeError(f"the event-driven product is wrong at {size}: off by {error:.2g}")
