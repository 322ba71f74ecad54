"""Neuron modules: one interface, exact payloads, states that hand over, clocks that do not leak."""

import itertools

import pytest
import torch

from spikeloom.config import NeuronConfig
from spikeloom.neurons import LIF, GradedLIF, Wire, make_neuron
from spikeloom.ops.lif import naive
from spikeloom.strict import build, to_dict

B, L, D = 3, 7, 5

KINDS = {
    "graded": {},
    "graded clipped": {"clip_membrane": 1.0},
    "graded soft": {"beta": 0.5},
    "graded hard": {"beta": 0.5, "reset": "hard", "v_reset": -0.125},
    "graded learned": {"beta": 0.5, "learn_beta": True, "signed": False, "fire_level": 1},
    "lif": {"kind": "lif"},
    "lif soft": {"kind": "lif", "beta": 0.9, "surrogate": "sigmoid"},
    "lif hard": {"kind": "lif", "beta": 0.9, "reset": "hard", "clip_membrane": 5.0},
    "lif learned": {"kind": "lif", "beta": 0.9, "learn_beta": True},
}
REMEMBERING = [name for name, options in KINDS.items() if "beta" in options]


def neuron(name, T=1, dtype=torch.float64, **changes):
    """A neuron whose parameters have left their start values."""
    module = make_neuron(NeuronConfig(**{**KINDS[name], **changes}), D, T)
    module.reset_parameters()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return module.to(dtype)


def draw(rows=B, length=L, dtype=torch.float64):
    torch.manual_seed(1)
    return 1.5 * torch.randn(rows, length, D, dtype=dtype)


@pytest.mark.parametrize("T", [1, 4])
@pytest.mark.parametrize("name", KINDS)
def test_interface(name, T):
    module = neuron(name, T)
    emission, state, rate = module(draw(B * T))
    assert emission.shape == (B * T, L, D)
    assert (state is not None) == module.remembers == (T == 1 and name in REMEMBERING)
    assert state is None or state.shape == (B, D)
    assert rate.shape == ()
    assert rate.dtype == torch.float32
    assert rate.item() == pytest.approx((emission != 0).double().mean().item(), abs=1e-6)
    assert 0 < rate.item() < 1


@pytest.mark.parametrize("T", [1, 4])
@pytest.mark.parametrize("name", KINDS)
def test_every_parameter_and_the_input_get_gradients(name, T):
    for pick in (0, 2):  # the emission's gradient, then the rate's
        module = neuron(name, T)
        x = draw(B * T).requires_grad_()
        output = module(x)[pick]
        (output * torch.rand_like(output)).sum().backward()
        for what, tensor in (("x", x), *module.named_parameters()):
            assert tensor.grad is not None, what
            assert tensor.grad.isfinite().all(), what
            assert tensor.grad.abs().sum() > 0, what


def test_wire_passes_everything():
    x = draw()
    wire = make_neuron(NeuronConfig(kind="none"), D, 4)
    emission, state, rate = wire(x)
    assert isinstance(wire, Wire)
    assert emission is x
    assert state is None
    assert rate.item() == 1
    assert not list(wire.parameters())
    assert not wire.spikes
    assert not wire.remembers


@pytest.mark.parametrize(("kind", "cls"), [("graded", GradedLIF), ("lif", LIF), ("none", Wire)])
def test_make_neuron_makes_what_the_config_says(kind, cls):
    module = make_neuron(NeuronConfig(kind=kind), D)
    assert type(module) is cls
    assert module.size == D


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", KINDS)
def test_payloads_are_the_exact_integers_behind_an_emission(name, dtype):
    module = neuron(name, dtype=dtype)
    emission, _, _ = module(draw(16, 64, dtype=dtype))
    s = module.payloads(emission)
    assert torch.equal(s, s.round())
    assert torch.equal(module.step * s, emission)
    assert s.abs().max() <= module.levels
    assert module.signed or s.min() >= 0
    fired = s[s != 0].abs()
    assert fired.min() >= (module.config.fire_level if "graded" in name else 1)


def test_payloads_survive_random_float32_steps():
    torch.manual_seed(0)
    module = make_neuron(NeuronConfig(levels=24, fire_level=1), 4096)
    with torch.no_grad():
        module.log_theta.copy_(torch.randn(4096) * 2)
        module.bias.zero_()
    s = torch.arange(-24, 25).float()[:, None, None].expand(-1, 1, 4096)
    assert torch.equal(module.payloads(module.step * s), s)


@pytest.mark.parametrize("name", KINDS)
def test_the_module_adds_only_a_bias_to_the_specification(name):
    module = neuron(name)
    x = draw()
    emission, state, _ = module(x)
    c = module.config
    steps = (x + module.bias).transpose(0, 1)
    options = {"beta": module.beta, "v_reset": module.v_reset, "clip_membrane": c.clip_membrane}
    if c.kind == "lif":
        expected, v = naive.lif(steps, v_threshold=c.v_threshold, surrogate=c.surrogate, **options)
    else:
        s, v = naive.graded_lif(
            steps,
            module.step,
            levels=c.levels,
            fire_level=c.fire_level,
            signed=c.signed,
            window=c.window,
            **options,
        )
        expected = module.step * s
    assert torch.equal(emission, expected.transpose(0, 1))
    assert state is None or torch.equal(state, v)


@pytest.mark.parametrize("cut", [1, 3, 6])
@pytest.mark.parametrize("name", KINDS)
def test_state_handed_over_equals_the_whole(name, cut):
    module = neuron(name)
    x = draw()
    starts = torch.rand(B, L, generator=torch.Generator().manual_seed(2)) < 0.2
    whole, last, _ = module(x, None, starts)
    first, state, _ = module(x[:, :cut], None, starts[:, :cut])
    second, state, _ = module(x[:, cut:], state, starts[:, cut:])
    assert torch.equal(torch.cat([first, second], 1), whole)
    assert (state is None and last is None) or torch.equal(state, last)


@pytest.mark.parametrize("name", REMEMBERING)
def test_starts_cut_rows_into_documents(name):
    module = neuron(name)
    x = draw()
    starts = torch.zeros(B, L, dtype=torch.bool)
    starts[0, 0] = starts[1, 2] = starts[1, 3] = starts[2, 6] = True
    carried = 3 * torch.randn(B, D, dtype=x.dtype)
    got, _, _ = module(x, carried, starts)
    free, _, _ = module(x, carried)
    for row, cuts in enumerate(([0], [2, 3], [6])):
        for begin, end in itertools.pairwise([*cuts, L]):
            alone, _, _ = module(x[row : row + 1, begin:end])
            assert torch.equal(got[row, begin:end], alone[0])
        assert torch.equal(got[row, : cuts[0]], free[row, : cuts[0]])
    assert not torch.equal(got, free)


@pytest.mark.parametrize("name", KINDS)
def test_the_step_clock_does_not_leak_between_tokens_or_rows(name):
    T = 4
    module = neuron(name, T)
    x = draw(B * T)
    emission, _, _ = module(x)
    for row, token in itertools.product(range(B), range(L)):
        block = slice(row * T, (row + 1) * T)
        alone, _, _ = module(x[block, token : token + 1])
        assert torch.equal(alone[:, 0], emission[block, token])


@pytest.mark.parametrize("name", REMEMBERING)
def test_the_step_clock_scans_the_fastest_axis(name):
    x = draw(4)  # one row, T = 4
    stepped, _, _ = neuron(name, 4)(x)
    scanned, _, _ = neuron(name)(x.transpose(0, 1))
    assert torch.equal(stepped, scanned.transpose(0, 1))


def test_theta_stays_positive_whatever_the_optimizer_does():
    module = neuron("graded", dtype=torch.float32)
    optimizer = torch.optim.SGD(module.parameters(), lr=5.0)
    for _ in range(5):
        optimizer.zero_grad()
        module.log_theta.sum().backward()
        optimizer.step()
    assert module.log_theta.max() < -10
    assert module.step.min() > 0


def test_learned_leak_starts_at_beta_and_stays_inside_zero_and_one():
    module = make_neuron(NeuronConfig(beta=0.95, learn_beta=True), D)
    module.reset_parameters()
    torch.testing.assert_close(module.beta, torch.full((D,), 0.95))
    with torch.no_grad():
        module.raw_beta.copy_(torch.tensor([-9.0, -1, 0, 1, 9]))
    assert ((module.beta > 0) & (module.beta < 1)).all()


def test_start_values():
    module = make_neuron(NeuronConfig(theta=0.3), D)
    module.reset_parameters()
    torch.testing.assert_close(module.step, torch.full((D,), 0.3))
    assert module.bias.tolist() == [0.0] * D


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_config_round_trip(options):
    config = NeuronConfig(**options)
    again = build(NeuronConfig, to_dict(config), "neuron")
    assert again == config
    assert make_neuron(again, D).config == config
