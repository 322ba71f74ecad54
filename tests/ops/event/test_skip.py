"""The Triton product without a list against the specification: interpreted, or on a GPU."""

import pytest
import torch
from gpu_products import DEVICES, GPU, make

from spikeloom.ops.event import naive

skip = pytest.importorskip("spikeloom.ops.event.skip", reason="triton is not installed")

# One channel and output; a part that ends early; several rounds of rows; more blocks than one.
SIZES = [(1, 1), (60, 33), (300, 130), (2000, 50)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("d_in", "d_out"), SIZES)
def test_the_parts_add_up_to_the_specification(d_in, d_out, dtype, device):
    kinds = (torch.float32, torch.bfloat16, torch.int64)
    for rate, kind in zip((0.0, 1.0, 0.1), kinds, strict=True):
        payload, weights = make(d_in, d_out, rate, dtype, device)
        expected = naive.event_matvec(payload, weights)
        bound = (payload.abs().float() @ weights.dequantised().abs().t()).clamp(min=1e-6)
        parts = skip.skipping_matvec(payload.to(kind), weights)
        assert parts.shape == (skip.cut_of(d_in, d_out).parts, d_out)
        assert parts.dtype == torch.float32
        assert ((parts.sum(0) - expected).abs() <= 1e-6 * bound).all()


@pytest.mark.parametrize("device", DEVICES)
def test_silent_channels_are_not_read(device):
    payload, weights = make(300, 40, 0.1, device=device)
    weights.data[payload == 0] = torch.nan
    weights.scale[payload == 0] = torch.nan
    assert skip.skipping_matvec(payload, weights).isfinite().all()


@pytest.mark.parametrize("cut", [(64, 1, 128, 4), (32, 3, 16, 4), (64, 2, 256, 8)])
def test_every_cut_computes_the_same(cut, monkeypatch):
    monkeypatch.setattr(skip, "cut_of", lambda *_: skip.Launch(*cut))
    payload, weights = make(300, 130, 0.3, device="cuda" if GPU else "cpu")
    y = skip.skipping_matvec(payload, weights).sum(0)
    torch.testing.assert_close(y, naive.event_matvec(payload, weights), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("size", [(768, 2304), (768, 768), (3072, 768), (768, 32768), (9000, 10)])
def test_a_cut_covers_all_channels_in_few_parts_none_of_them_empty(size):
    cut = skip.cut_of(*size)
    channels = cut.rows * -(-size[0] // (cut.rows * cut.parts))  # of a part
    assert 1 <= cut.parts <= skip.MOST_PARTS
    assert (cut.parts - 1) * channels < size[0] <= cut.parts * channels


def test_the_operator_is_registered_as_torch_wants_it():
    payload, weights = make(200, 70, 0.5)
    torch.library.opcheck(skip._skipping_matvec, (payload, weights.data, weights.scale))


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no GPU")
def test_a_cuda_graph_follows_the_payload():
    payload, weights = make(300, 2200, 0.1, device="cuda")
    skip.skipping_matvec(payload, weights)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        parts = skip.skipping_matvec(payload, weights)
    payload.copy_(payload.roll(7))
    graph.replay()
    expected = naive.event_matvec(payload, weights)
    torch.testing.assert_close(parts.sum(0), expected, atol=1e-3, rtol=1e-4)
