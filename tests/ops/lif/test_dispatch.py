"""Which form runs where, and that a fallback on a GPU says so once."""

import pytest
import torch
from torch import nn

from spikeloom.ops.lif import dispatch, memoryless, naive

SHAPE = {"levels": 8, "fire_level": 2, "signed": True}


class OnGpu:
    """What dispatch asks of a tensor."""

    is_cuda = True
    shape = (4, 10_000)

    def __init__(self, dtype=torch.float32):
        self.dtype = dtype


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(dispatch, "_said", set())


def test_a_cpu_takes_the_torch_forms_without_a_word(capsys):
    x, log_theta, bias = torch.randn(5, 8), torch.full((8,), -1.2), torch.randn(8)
    theta = log_theta.exp()
    norm = nn.RMSNorm(8, eps=1e-6)
    pairs = [
        (dispatch.lif(x, beta=0.5), naive.lif(x, beta=0.5)),
        (dispatch.graded_lif(x, theta, **SHAPE), naive.graded_lif(x, theta, **SHAPE)),
        (
            dispatch.graded_emission(x, bias, log_theta, **SHAPE),
            memoryless.graded_emission(x + bias, theta, **SHAPE),
        ),
        (
            dispatch.graded_emission(x, bias, log_theta, norm, **SHAPE),
            memoryless.graded_emission(norm(x) + bias, theta, **SHAPE),
        ),
    ]
    for got, wanted in pairs:
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    assert capsys.readouterr().err == ""


def test_a_missing_triton_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr(dispatch, "TRITON", False)
    assert not dispatch._runs_in_triton(OnGpu())
    assert not dispatch._runs_in_triton(OnGpu())
    said = capsys.readouterr().err
    assert said == "spikeloom: neurons run in torch, not in Triton: Triton is not installed\n"


def test_what_the_programs_do_not_take_is_said(monkeypatch, capsys):
    monkeypatch.setattr(dispatch, "TRITON", True)
    assert dispatch._runs_in_triton(OnGpu())
    assert not dispatch._runs_in_triton(OnGpu(torch.float64))
    assert not dispatch._runs_in_triton(OnGpu(), widest=8192)
    said = capsys.readouterr().err.splitlines()
    assert [line.rpartition(": ")[2] for line in said] == [
        "they compute in float32, not float64",
        "here they take at most 8192 channels, not 10000",
    ]


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_without_gradients_torch_merges_the_neuron(dtype, monkeypatch):
    torch.compiler.reset()
    monkeypatch.setattr(dispatch, "_runs_in_triton", lambda *_, **__: True)
    monkeypatch.setattr(dispatch, "emission", None, raising=False)  # the program is not asked for
    x, bias, norm = torch.randn(50, 64).to(dtype), torch.randn(64).to(dtype), nn.RMSNorm(64, 1e-6)
    theta = (0.2 + torch.rand(64)).to(dtype)
    neuron = torch.compile(
        lambda x: dispatch.graded_emission(x, bias, theta.log(), norm.to(dtype), **SHAPE),
        backend="eager",
    )
    with torch.no_grad():
        y, rate = neuron(x)
        v = nn.functional.rms_norm(x.double(), (64,), norm.weight.double(), 1e-6) + bias.double()
        wanted, fired = memoryless.graded_emission(v, theta.log().double().exp(), **SHAPE)
    assert y.dtype == dtype
    torch.testing.assert_close(y, wanted.to(dtype))
    assert float(rate) == pytest.approx(float(fired))
    with pytest.raises(Exception, match="graded_emission"):  # with gradients it is
        neuron(x.requires_grad_())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_takes_the_programs(dtype, capsys):
    x = torch.randn(20, 4, 8, device="cuda", dtype=dtype)
    theta = torch.full((8,), 0.3, device="cuda")
    assert dispatch.lif(x, keep_state=False)[1] is None
    assert dispatch.graded_lif(x, theta, keep_state=False, **SHAPE)[1] is None
    assert capsys.readouterr().err == ""


def test_in_torch_a_dead_zone_overrides_the_fire_level():
    emission = pytest.importorskip("spikeloom.ops.lif.emission", reason="triton is not installed")
    x, bias, log_theta = torch.randn(5, 8), torch.zeros(8), torch.full((8,), -1.0)
    rest = {"levels": 8, "signed": True, "window": 0.5, "rate_level": 8}
    for level in (1, 2, 5):
        zone = emission.dead_zone(level, 0.5)
        found = dispatch.graded_emission(x, bias, log_theta, None, zone, fire_level=3, **rest)
        wanted = dispatch.graded_emission(x, bias, log_theta, fire_level=level, **rest)
        for got, want in zip(found, wanted, strict=True):
            assert torch.equal(got, want)
