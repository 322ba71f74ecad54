"""The recurrent LIF in Triton equals its specification: interpreted step by step, or on a GPU."""

import pytest
import torch

from spikeloom.ops.lif import recurrent

recurrent_scan = pytest.importorskip(
    "spikeloom.ops.lif.recurrent_scan", reason="triton is not installed"
)

GPU = torch.cuda.is_available()
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(GPU, reason="compiled for the GPU here")),
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not GPU, reason="no GPU")]),
]
NAMES = ("spikes", "v", "s", "dx", "d weight", "d beta", "dv", "ds")


@pytest.fixture(autouse=True)
def one_step_a_launch(monkeypatch):
    """Interpreted programs run one after another: they cannot wait for each other."""
    if not GPU:
        monkeypatch.setattr(recurrent_scan, "STEPS", 1)


def draw(S, B, D, device="cpu"):
    """x, weight, beta, membrane and spikes: about a fifth of the neurons fire."""
    generator = torch.Generator().manual_seed(S * D)
    x, v = (torch.randn(*shape, generator=generator) for shape in ((S, B, D), (B, D)))
    weight = torch.randn(D, D, generator=generator) * D**-0.5
    beta = 0.5 + 0.4 * torch.rand(D, generator=generator)
    s = (torch.rand(B, D, generator=generator) < 0.2).float()
    return [t.to(device) for t in (x, weight, beta, v, s)]


def outcome(form, given, dtype, **neuron):
    """Spikes, state and all gradients, for one random direction of each output."""
    x, weight, beta, v, s = (t.to(dtype).detach().requires_grad_() for t in given)
    spikes, (last_v, last_s) = form(x, weight, (v, s), beta=beta, **neuron)
    torch.manual_seed(0)
    outputs = (spikes, last_v, last_s)
    directions = [torch.randn(o.shape, dtype=torch.float64).to(o) for o in outputs]
    return [*outputs, *torch.autograd.grad(outputs, (x, weight, beta, v, s), directions)]


def assert_equal(given, **neuron):
    exact = outcome(recurrent.recurrent_lif, [t.cpu() for t in given], torch.float64, **neuron)
    device = given[0].device
    here = {k: t.to(device) if torch.is_tensor(t) else t for k, t in neuron.items()}
    got = outcome(recurrent_scan.recurrent_lif, given, torch.float32, **here)
    for name, a, b in zip(NAMES, exact, got, strict=True):
        error = (b.detach().double().cpu() - a).norm() / a.norm().clamp(min=1e-9)
        assert error < 1e-4, f"{name} is off by {error:.2g}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("S", "B", "D"), [(1, 1, 1), (5, 3, 40), (3, 17, 130), (2, 2, 530)])
def test_equals_the_specification_with_all_gradients(S, B, D, device):
    assert_equal(draw(S, B, D, device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("surrogate", ["sigmoid", "straight_through"])
def test_packed_documents_and_surrogates(surrogate, device):
    starts = torch.rand(6, 3, 1, generator=torch.Generator().manual_seed(0)) < 0.3
    starts[0, 0] = True
    assert_equal(draw(6, 3, 40, device), starts=starts, surrogate=surrogate, v_threshold=0.7)


@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_inputs_and_a_number_for_beta(device):
    x, weight, *_ = draw(4, 3, 40, device)
    wanted, _ = recurrent.recurrent_lif(x.half().float(), weight, beta=0.9)
    spikes, (v, s) = recurrent_scan.recurrent_lif(x.half(), weight, beta=0.9)
    assert spikes.dtype == torch.float16
    assert v.dtype == s.dtype == torch.float32
    assert torch.equal(spikes.float(), wanted)


@pytest.mark.parametrize("device", DEVICES)
def test_not_a_number_does_not_wait_forever(device):
    given = draw(3, 2, 40, device)
    given[0][1, 0, 0] = torch.nan
    spikes, *_, dx, _, _, _, _ = outcome(recurrent_scan.recurrent_lif, given, torch.float32)
    assert spikes[1, 0, 0] == 0
    assert dx[0, 0].isnan().any()
    assert not dx[:, 1].isnan().any()


def test_more_sequences_than_run_side_by_side(monkeypatch):
    given = draw(2, 40, 20, "cuda" if GPU else "cpu")
    grids = []
    monkeypatch.setattr(recurrent_scan, "_programs_at_once", lambda x: grids.append(1) or 5)
    assert len({group for _, _, group, _ in recurrent_scan._launches(given[0])}) == 2
    assert_equal(given)
    assert len(grids) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no GPU")
def test_a_recorded_graph_waits_anew_each_time():
    """What is not yet there is marked again in every replay, so none hears spikes of the last."""
    x, weight, beta, v, s = draw(20, 40, 64, "cuda")

    def both_ways():
        spikes, last, charged = recurrent_scan.recurrent_scan(
            x, weight, beta, v, s, None, 1.0, "atan"
        )
        gradient = recurrent_scan.recurrent_scan_backward(
            x, last, charged, weight, beta, None, 1.0, "atan"
        )
        return spikes, charged, gradient

    both_ways()  # compiles, which cannot be recorded
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = both_ways()
    for _ in range(3):
        x.copy_(torch.randn_like(x))
        graph.replay()
        for got, wanted in zip(recorded, both_ways(), strict=True):
            assert torch.equal(got, wanted)


def test_the_operators_are_registered_as_torch_wants_them():
    x, weight, beta, v, s = (t.requires_grad_() for t in draw(2, 2, 20))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    given = (x, weight, beta, v, s, None, 1.0, "atan")
    torch.library.opcheck(recurrent_scan.recurrent_scan, given, test_utils=checks)
