"""The Triton product against the specification: interpreted, or on a GPU."""

import pytest
import torch

from spikeloom.ops import event
from spikeloom.ops.event import naive, pack

gather = pytest.importorskip("spikeloom.ops.event.gather", reason="triton is not installed")

GPU = torch.cuda.is_available()
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(GPU, reason="compiled for the GPU here")),
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not GPU, reason="no GPU")]),
]
# One channel and output, one slice, more slices than are added up at once, many blocks of outputs.
SIZES = [(1, 1), (60, 33), (2100, 50), (130, 600)]


def make(d_in, d_out, rate, dtype="bfloat16", device="cpu"):
    generator = torch.Generator().manual_seed(d_in)
    weight = torch.randn(d_out, d_in, generator=generator)
    theta = 0.1 + torch.rand(d_in, generator=generator)
    payload = torch.randint(-24, 25, (d_in,), generator=generator)
    payload = payload * (torch.rand(d_in, generator=generator) < rate)
    return payload.to(device), pack(weight, theta, dtype).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("d_in", "d_out"), SIZES)
def test_equals_the_specification(d_in, d_out, dtype, device):
    kinds = (torch.float32, torch.bfloat16, torch.int64)
    for rate, kind in zip((0.0, 1.0, 0.1), kinds, strict=True):
        payload, weights = make(d_in, d_out, rate, dtype, device)
        expected = naive.event_matvec(payload, weights)
        bound = (payload.abs().float() @ weights.dequantised().abs().t()).clamp(min=1e-6)
        y = gather.event_matvec(payload.to(kind), weights)
        assert y.shape == (d_out,)
        assert y.dtype == torch.float32
        assert ((y - expected).abs() <= 1e-6 * bound).all()


@pytest.mark.parametrize("device", DEVICES)
def test_silent_channels_are_not_read(device):
    payload, weights = make(300, 40, 0.1, device=device)
    weights.data[payload == 0] = torch.nan
    assert gather.event_matvec(payload, weights).isfinite().all()


@pytest.mark.parametrize("launch", gather.LAUNCHES)
def test_every_launch_computes_the_same(launch, monkeypatch):
    monkeypatch.setattr(gather, "launch_of", lambda *_: launch)
    payload, weights = make(300, 520, 0.3, device="cuda" if GPU else "cpu")
    y = gather.event_matvec(payload, weights)
    torch.testing.assert_close(y, naive.event_matvec(payload, weights), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_counters_are_left_as_they_were_found(device):
    payload, weights = make(2100, 50, 0.1, device=device)
    for _ in range(2):
        gather.event_matvec(payload, weights)
    assert not gather._counters[weights.data.device].any()


def test_the_shipped_launches_are_among_those_compared():
    sizes = [(768, 3072), (2048, 8192), (8192, 2048), (4096, 16384), (16384, 4096)]
    assert {gather.launch_of(*size) for size in sizes} <= set(gather.LAUNCHES)


def test_the_operator_is_registered_as_torch_wants_it():
    payload, weights = make(70, 33, 0.5)
    torch.library.opcheck(gather._event_matvec, (payload, weights.data, weights.scale))


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no GPU")
def test_a_cuda_graph_follows_the_payload():
    payload, weights = make(300, 2200, 0.1, device="cuda")
    event.event_matvec(payload, weights)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = event.event_matvec(payload, weights)
    payload.copy_(payload.roll(7))
    graph.replay()
    torch.testing.assert_close(y, naive.event_matvec(payload, weights), atol=1e-3, rtol=1e-4)
