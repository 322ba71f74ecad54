"""The Triton product against the specification: interpreted, or on a GPU."""

import pytest
import torch
from gpu_products import DEVICES, GPU, make

from spikeloom.ops import event
from spikeloom.ops.event import naive

gather = pytest.importorskip("spikeloom.ops.event.gather", reason="triton is not installed")

# One channel and output, one part and four of the list, several rounds of rows, many blocks.
SIZES = [(1, 1), (60, 33), (5000, 50), (130, 600)]


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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("d_in", [1, 60, 5000])
def test_channels_that_fired_are_listed_in_order(d_in, device):
    payload, _ = make(d_in, 1, 0.3, device=device)
    fired = gather.fired_channels(payload)
    assert fired.shape == (-(-d_in // gather.SLICE), gather.SLICE + 1)
    listed = torch.cat([row[: row[-1]] for row in fired])
    assert torch.equal(listed.long(), payload.nonzero().flatten())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [128, 512])
def test_slices_of_any_size_make_the_same_product(size, device, monkeypatch):
    payload, weights = make(1000, 40, 0.3, device=device)
    payload[300:700] = 0  # lists may be empty
    whole = gather.event_matvec(payload, weights)
    monkeypatch.setattr(gather, "SLICE", size)
    assert torch.equal(gather.event_matvec(payload, weights), whole)


@pytest.mark.parametrize("device", DEVICES)
def test_products_share_a_list(device):
    payload, weights = make(300, 40, 0.1, device=device)
    _, others = make(300, 700, 0.1, device=device)
    fired = gather.fired_channels(payload)
    for w in (weights, others):
        shared = gather.event_matvec(payload, w, fired)
        assert torch.equal(shared, gather.event_matvec(payload, w))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("d_out", [40, 700])
def test_parts_add_up_to_the_product(d_out, device):
    payload, weights = make(300, d_out, 0.3, device=device)
    parts = gather.event_matvec_in_parts(payload, weights)
    assert parts.shape == (gather.launch_of(300, d_out).parts, d_out)
    whole = gather.event_matvec(payload, weights)
    torch.testing.assert_close(parts.sum(0), whole, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("launch", [(64, 1, 256, 8), (64, 4, 128, 4), (32, 3, 16, 4)])
def test_every_launch_computes_the_same(launch, monkeypatch):
    monkeypatch.setattr(gather, "launch_of", lambda *_: gather.Launch(*launch))
    payload, weights = make(300, 520, 0.3, device="cuda" if GPU else "cpu")
    y = gather.event_matvec(payload, weights)
    torch.testing.assert_close(y, naive.event_matvec(payload, weights), atol=1e-3, rtol=1e-4)


def test_few_outputs_cut_the_list_into_parts():
    assert gather.launch_of(2048, 8192).parts == gather.launch_of(768, 3072).parts == 1
    assert gather.launch_of(8192, 2048).parts == gather.launch_of(768, 768).parts == 4


def test_the_operators_are_registered_as_torch_wants_them():
    payload, weights = make(gather.SLICE, 3, 0.5)
    payload += 25  # all fire: places of the list that are not written cannot be compared
    torch.library.opcheck(gather._fired_channels, (payload,))
    fired = gather.fired_channels(payload)
    for operator in (gather._event_matvec, gather._event_matvec_in_parts):
        torch.library.opcheck(operator, (payload, fired, weights.data, weights.scale))


def test_without_a_gpu_no_list_is_wanted():
    payload, weights = make(70, 33, 0.5)
    assert event.fired_channels(payload) is None
    y = event.event_matvec(payload, weights, event.fired_channels(payload))
    torch.testing.assert_close(y, naive.event_matvec(payload, weights), atol=1e-3, rtol=1e-4)


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
