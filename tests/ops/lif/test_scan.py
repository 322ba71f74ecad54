"""The Triton scan equals the specification, in its interpreter here, compiled with `-m gpu`."""

import itertools

import pytest
import torch

pytest.importorskip("triton", reason="the GPU programs need Triton, also in its interpreter")

from spikeloom.bench.agreement import DisagreementError, require_agreement
from spikeloom.ops.lif import naive, scan
from spikeloom.ops.surrogate import SLOPES

INTERPRETED = not torch.cuda.is_available()
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(not INTERPRETED, reason="there is a GPU")),
    pytest.param("cuda", marks=pytest.mark.gpu),
]
# In one chunk up to 32; then in chunks of 16, or of 32 where nothing is learned, whole and not.
STEPS = [1, 7, 32, 33, 64]
SHAPES = list(itertools.product([(4, 1), (24, 3)], [True, False]))


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def draw(device, *size, scale=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(size))
    return (torch.randn(size, generator=generator) * scale).to(device, dtype)


def step_sizes(device, D):
    return draw(device, D).abs() * 0.3 + 0.1


def agree(neuron, tensors, **options):
    """Spikes, last membrane and all gradients of `neuron`, `lif` or `graded_lif`.

    Spikes and membrane are the same where nothing is learned.
    """
    x = tensors["x"]
    weights = draw(x.device, x.shape[0] + 1, *x.shape[1:])
    found = []
    for form in (scan, naive):
        leaves = {name: t.detach().clone().requires_grad_() for name, t in tensors.items()}
        spikes, last = getattr(form, neuron)(**leaves, **options)
        loss = (torch.cat([spikes, last[None]]) * weights).sum()
        with torch.no_grad():
            alone = getattr(form, neuron)(**leaves, **options)
        found.append((spikes, last, *alone, *torch.autograd.grad(loss, list(leaves.values()))))
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("S", STEPS)
@pytest.mark.parametrize("v_reset", [None, -0.2])
def test_lif_at_every_length(device, S, v_reset):
    agree("lif", {"x": draw(device, S, 3, 6)}, v_reset=v_reset)


@pytest.mark.parametrize("surrogate", SLOPES)
def test_lif_with_every_surrogate(device, surrogate):
    agree("lif", {"x": draw(device, 9, 40)}, surrogate=surrogate, beta=0.7, v_threshold=0.6)


@pytest.mark.parametrize("S", STEPS)
@pytest.mark.parametrize(("levels_fire", "signed"), SHAPES)
def test_graded_at_every_length(device, S, levels_fire, signed):
    levels, fire_level = levels_fire
    tensors = {"x": draw(device, S, 3, 6), "theta": step_sizes(device, 6)}
    shape = {"levels": levels, "fire_level": fire_level, "signed": signed}
    agree("graded_lif", tensors, beta=0.8, **shape)


@pytest.mark.parametrize("neuron", ["lif", "graded_lif"])
@pytest.mark.parametrize("S", [5, 35])
@pytest.mark.parametrize("v_reset", [None, 0.1])
def test_everything_at_once(device, neuron, S, v_reset):
    """Learned leak, initial state, clipped membrane and packed rows, with all gradients."""
    tensors = {
        "x": draw(device, S, 2, 3, 6),
        "beta": torch.sigmoid(draw(device, 6)),
        "initial_state": draw(device, 2, 3, 6),
    }
    options = {"clip_membrane": 1.5, "v_reset": v_reset}
    options["starts"] = draw(device, S, 2, 3, 1) > 1
    if neuron == "graded_lif":
        tensors["theta"] = step_sizes(device, 6)
        options |= {"levels": 6, "fire_level": 2, "signed": True, "window": 0.0}
    agree(neuron, tensors, **options)


@pytest.mark.parametrize("neuron", ["lif", "graded_lif"])
def test_bfloat16_input_float32_membrane(device, neuron):
    tensors = {"x": draw(device, 16, 3, 40, dtype=torch.bfloat16)}
    options = {"beta": 0.9}
    if neuron == "graded_lif":
        tensors["theta"] = step_sizes(device, 40)
        options |= {"levels": 24, "fire_level": 3, "signed": True}
    form, slow = (getattr(module, neuron) for module in (scan, naive))
    require_agreement(
        lambda **t: form(**t, **options)[0], lambda **t: slow(**t, **options)[0], tensors
    )
    spikes, last = form(**tensors, **options)
    assert spikes.dtype == torch.bfloat16
    assert last.dtype == torch.float32


def test_a_wrong_neuron_is_refused(device):
    x = draw(device, 16, 200)
    with pytest.raises(DisagreementError, match="of the lanes differ"):
        require_agreement(
            lambda x: scan.lif(x, beta=0.9)[0], lambda x: naive.lif(x, beta=0.8)[0], {"x": x}
        )


LAYOUTS = {
    "[L, B, D] of [B, L, D]": lambda x: x.transpose(0, 1),
    "[T, B, L, D] of [B * T, L, D]": lambda x: x.unflatten(0, (-1, 2)).transpose(0, 1),
    "every other channel": lambda x: x[..., ::2],
    "some rows": lambda x: x[:, 1:3],
    "channels first": lambda x: x.permute(2, 0, 1),
}


@pytest.mark.parametrize("view", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("neuron", ["lif", "graded_lif"])
def test_any_layout(device, neuron, view):
    x = view(draw(device, 6, 8, 12))
    options = {}
    tensors = {"x": x}
    if neuron == "graded_lif":
        tensors["theta"] = step_sizes(device, x.shape[-1])
        options = {"beta": 0.5, "levels": 4, "fire_level": 2, "signed": True}
    agree(neuron, tensors, **options)


@pytest.mark.parametrize("name", list(LAYOUTS)[:2])
def test_the_layouts_of_the_model_are_not_copied(device, name):
    x = LAYOUTS[name](draw(device, 6, 8, 12))
    for per_channel in (True, False):
        folded = x.reshape(scan.folded(x, per_channel))
        assert folded.data_ptr() == x.data_ptr()
        assert scan.lif(x, beta=torch.full((12,), 0.9, device=device))[0].stride() == x.stride()


def test_parts_make_the_whole(device):
    x = draw(device, 50, 3, 6)
    whole, last = scan.lif(x)
    first, state = scan.lif(x[:21])
    second, end = scan.lif(x[21:], state)
    assert torch.equal(torch.cat([first, second]), whole)
    torch.testing.assert_close(end, last)


def test_nothing_per_step_is_kept(device):
    x = draw(device, 64, 2, 8).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        scan.lif(x, keep_state=False)
    extra = sum(t.numel() for t in kept if t is not None) - x.numel()
    assert extra == 3 * x[0].numel()  # a membrane between each two of four chunks


def test_state_is_left_out_on_request(device):
    spikes, state = scan.lif(draw(device, 4, 20), keep_state=False)
    assert spikes.shape == (4, 20)
    assert state is None


def test_a_threshold_that_fires_for_ever_is_refused(device):
    with pytest.raises(ValueError, match="v_threshold must be positive, not 0"):
        scan.lif(draw(device, 4, 20), v_threshold=0)


def test_operators_are_fit_for_torch_compile(device):
    """Fake forms tell the right shapes and strides, and gradients are registered."""
    x = draw(device, 2, 34, 12).transpose(0, 1)[:, None].requires_grad_()
    theta = step_sizes(device, 12).requires_grad_()
    beta = torch.sigmoid(draw(device, 12)).requires_grad_()
    numbers = (0.0, 1.0, None, None, "graded", 4, 2, True, 0.5, True, True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(scan.lif_scan, (x, theta, beta, None, None, *numbers), test_utils=checks)


@pytest.mark.gpu
def test_no_graph_break():
    x = draw("cuda", 16, 8, 64).requires_grad_()
    neuron = torch.compile(lambda x: scan.lif(x, beta=0.9)[0], fullgraph=True)
    expected = scan.lif(x, beta=0.9)[0]
    assert torch.equal(neuron(x), expected)
    (ours,) = torch.autograd.grad(neuron(x).square().sum(), x)
    (wanted,) = torch.autograd.grad(expected.square().sum(), x)
    assert torch.equal(ours, wanted)
