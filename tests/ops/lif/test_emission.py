"""The memoryless neuron in Triton, with what stands before it, equals the torch forms of both."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton", reason="the GPU programs need Triton, also in its interpreter")

from spikeloom.model.norm import RMSNorm
from spikeloom.ops.activation import squared_relu
from spikeloom.ops.lif import emission, memoryless

INTERPRETED = not torch.cuda.is_available()
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(not INTERPRETED, reason="there is a GPU")),
    pytest.param("cuda", marks=pytest.mark.gpu),
]
SHAPES = [(24, 6, True, 0.5), (8, 3, False, 0.5), (1, 1, True, 0.0), (4, 1, False, 1.0)]
EPS = 1e-6


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def draw(device, *size, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(size))
    return torch.randn(size, generator=generator).to(device, dtype)


def tensors(device, size, dtype=torch.float32):
    """x, gain, bias and the logarithm of the payload step."""
    D = size[-1]
    x = draw(device, *size, dtype=dtype) * 2
    log_theta = (draw(device, D).abs() * 0.3 + 0.1).log()
    return x, draw(device, D) * 0.2 + 1, draw(device, D) * 0.1, log_theta


FORMS = ["normed", "squared", "plain"]


def ours(form, x, weight, bias, log_theta, **shape):
    options = {"normed": {"weight": weight, "eps": EPS}, "squared": {"squared": True}, "plain": {}}
    return emission.graded_emission(x, bias, log_theta, **options[form], **shape)


def wanted(form, x, weight, bias, log_theta, **shape):
    before = {
        "normed": lambda: F.rms_norm(x.float(), x.shape[-1:], weight, EPS),
        "squared": lambda: squared_relu(x.float()),
        "plain": lambda: x,
    }
    return memoryless.graded_emission(before[form]() + bias, log_theta.exp(), **shape)


def gradients(neuron, form, inputs, upstream, by_rate, **shape):
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    y, rate = neuron(form, *leaves, **shape)
    loss = (y.float() * upstream).sum() + by_rate * rate
    return y, rate, *torch.autograd.grad(loss, leaves, allow_unused=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("fire_level", "window"), [(1, 0.25), (5, 0.25), (6, 0.5)])
def test_a_dead_zone_in_a_tensor(device, form, fire_level, window):
    """It stands for the fire level in what is sent; the rate, and its slope, are of the other."""
    inputs = tensors(device, (5, 2, 40))
    upstream = draw(device, 5, 2, 40)
    rest = {"levels": 24, "signed": True, "window": window}
    zone = emission.dead_zone(fire_level, window).to(device)
    found = gradients(ours, form, inputs, upstream, 90.0, fire_level=7, dead_zone=zone, **rest)
    levels = {"fire_level": fire_level, "rate_level": 7}
    expected = gradients(wanted, form, inputs, upstream, 90.0, **levels, **rest)
    assert 0 < expected[1] < 1
    for got, want in zip(found, expected, strict=True):
        assert (got is None) == (want is None)
        assert got is None or torch.allclose(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("levels", "fire_level", "signed", "window"), SHAPES)
@pytest.mark.parametrize("size", [(1, 3), (5, 2, 40), (37, 300)], ids=str)
def test_outputs_and_gradients(device, form, levels, fire_level, signed, window, size):
    shape = {"levels": levels, "fire_level": fire_level, "signed": signed, "window": window}
    inputs = tensors(device, size)
    upstream = draw(device, *size)
    by_rate = 0.3 * upstream.numel()  # weighs about as much as the emission
    found = gradients(ours, form, inputs, upstream, by_rate, **shape)
    expected = gradients(wanted, form, inputs, upstream, by_rate, **shape)
    for got, want in zip(found, expected, strict=True):
        if want is None:
            assert got is None  # the gain, where there is no norm
        else:
            torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_a_silent_row_passes_no_gradient(device):
    """As in `spikeloom.model.norm`, which does this where no Triton program runs."""
    inputs = tensors(device, (6, 20))
    inputs[0][2] = 0
    upstream = draw(device, 6, 20)
    shape = {"levels": 8, "fire_level": 2, "signed": True}
    found = gradients(ours, "normed", inputs, upstream, 9.0, **shape)

    def in_torch(x, weight, bias, log_theta):
        norm = RMSNorm(20, EPS, device=device)
        v = torch.func.functional_call(norm, {"weight": weight}, (x,))
        return memoryless.graded_emission(v + bias, log_theta.exp(), **shape)

    expected = gradients(lambda form, *leaves, **_: in_torch(*leaves), "", inputs, upstream, 9.0)
    assert not found[2][2].any()
    assert found[2][3].any()
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_only_one_output_used(device, form):
    inputs = tensors(device, (6, 20))
    shape = {"levels": 8, "fire_level": 2, "signed": True}
    for use in (0, 1):
        found = []
        for neuron in (ours, wanted):
            x = inputs[0].clone().requires_grad_()
            output = neuron(form, x, *inputs[1:], **shape)[use]
            found.append(torch.autograd.grad(output.sum(), x)[0])
        torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_types(device, form):
    """bfloat16 in and out, float32 parameters, as in mixed precision."""
    inputs = tensors(device, (9, 64), dtype=torch.bfloat16)
    shape = {"levels": 24, "fire_level": 6, "signed": True, "dtype": torch.bfloat16}
    upstream = draw(device, 9, 64, dtype=torch.bfloat16).float()
    found = gradients(ours, form, inputs, upstream, 0.0, **shape)
    expected = gradients(wanted, form, inputs, upstream, 0.0, **shape)
    for got, want in zip(found, expected, strict=True):
        if want is not None:
            assert got.dtype == want.dtype
            torch.testing.assert_close(got, want, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("form", FORMS)
def test_operator_is_fit_for_torch_compile(device, form):
    x, weight, bias, log_theta = (t.requires_grad_() for t in tensors(device, (5, 24)))
    zone = None if form == "plain" else emission.dead_zone(2, 0.5).to(device)
    numbers = (zone, EPS, form == "squared", 8, 2, True, 0.5, torch.bfloat16)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        emission.lif_emission,
        (x, weight if form == "normed" else None, bias, log_theta, *numbers),
        test_utils=checks,
    )


@pytest.mark.gpu
def test_another_fire_level_compiles_nothing_anew():
    from spikeloom.ops.lif.triton_emission import emission_backward, emission_forward

    inputs = tensors("cuda", (64, 96))
    upstream = draw("cuda", 64, 96)
    counts = []
    for fire_level in (1, 2, 6, 16):
        shape = {"levels": 24, "fire_level": fire_level, "signed": True}
        gradients(ours, "normed", inputs, upstream, 1.0, **shape)
        caches = (kernel.device_caches for kernel in (emission_forward, emission_backward))
        counts.append([len(entry[0]) for cache in caches for entry in cache.values()])
    assert all(count == counts[0] for count in counts)


@pytest.mark.gpu
@pytest.mark.parametrize("form", FORMS)
def test_cuda_graphs_follow_a_dead_zone(form):
    torch.compiler.reset()
    compiled = torch.compile(ours, fullgraph=True, mode="reduce-overhead")
    inputs, upstream = tensors("cuda", (64, 5, 96)), draw("cuda", 64, 5, 96)
    zone = torch.zeros(2, device="cuda")
    rest = {"levels": 24, "signed": True, "window": 0.3}
    for fire_level in (1, 2, 6, 16):
        zone.copy_(emission.dead_zone(fire_level, 0.3))
        for _ in range(3):  # warmed up, recorded, replayed
            found = gradients(
                compiled, form, inputs, upstream, 1.0, fire_level=20, dead_zone=zone, **rest
            )
        expected = gradients(
            ours, form, inputs, upstream, 1.0, fire_level=20, dead_zone=zone.clone(), **rest
        )
        for got, want in zip(found, expected, strict=True):
            if want is not None:
                torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("form", FORMS)
def test_compiled_it_is_the_same_at_every_fire_level(form):
    torch.compiler.reset()
    compiled = torch.compile(ours, fullgraph=True)
    inputs, upstream = tensors("cuda", (64, 5, 96)), draw("cuda", 64, 5, 96)
    for fire_level in (1, 2, 6, 16):
        shape = {"levels": 24, "fire_level": fire_level, "signed": True, "window": 0.3}
        found = gradients(compiled, form, inputs, upstream, 1.0, **shape)
        expected = gradients(ours, form, inputs, upstream, 1.0, **shape)
        for got, want in zip(found, expected, strict=True):
            if want is not None:
                torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
