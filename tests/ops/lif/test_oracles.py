"""Our LIF against SpikingJelly, snnTorch and Norse, each in its own parametrisation.

`beta = 3/4` and inputs in odd sixteenths keep all sums exact in float64, whatever their order, so
spikes and membranes must be equal to the last bit. Odd sixteenths also never meet a threshold of 1
(numerators stay odd), which keeps the libraries' tie rules out of the comparison; ties have a test
of their own.
"""

import warnings

import pytest
import torch

from spikeloom.ops.lif.naive import lif

BETA = 0.75


@pytest.fixture
def oracle():
    """Import an oracle if it is there; what it warns about on import is not ours to mend."""

    def load(name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pytest.importorskip(name, exc_type=ImportError)

    return load


def currents(high=12):
    generator = torch.Generator().manual_seed(0)
    halves = torch.randint(-5, high, (18, 4, 7), generator=generator).double()
    return (2 * halves + 1) / 16


def compare_gradients(ours, theirs, inputs, reference_inputs):
    """Gradients of a random mix of the spikes, plus the last membrane."""
    weights = torch.randn(ours[0].shape, generator=torch.Generator().manual_seed(1)).double()
    (got,) = torch.autograd.grad((ours[0] * weights).sum() + ours[1].sum(), inputs)
    (wanted,) = torch.autograd.grad((theirs[0] * weights).sum() + theirs[1].sum(), reference_inputs)
    assert got.abs().sum() > 0
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("v_reset", [None, 0.0, -0.5])
def test_spikingjelly(oracle, v_reset):
    neuron = oracle("spikingjelly.activation_based.neuron")
    surrogate = oracle("spikingjelly.activation_based.surrogate")
    node = neuron.LIFNode(
        tau=1 / (1 - BETA),
        decay_input=False,
        v_reset=v_reset,
        # our hard reset passes no gradient through the spike that triggered it
        detach_reset=v_reset is not None,
        surrogate_function=surrogate.ATan(alpha=2.0),
    )
    x = currents().requires_grad_()
    theirs = torch.stack([node(step) for step in x])
    # SpikingJelly starts at v_reset and leaks towards it, we start at 0 and leak towards 0
    rest = v_reset or 0.0
    inputs = currents().requires_grad_()
    first = torch.full_like(inputs[0], rest)
    s, v = lif(inputs + (1 - BETA) * rest, first, beta=BETA, v_reset=v_reset)
    assert 0.1 < s.mean() < 0.9
    assert torch.equal(s, theirs)
    assert torch.equal(v, node.v)
    compare_gradients((s, v), (theirs, node.v), inputs, x)


def snntorch_run(oracle, x, **options):
    snntorch = oracle("snntorch")
    node = snntorch.Leaky(beta=BETA, spike_grad=oracle("snntorch.surrogate").atan(), **options)
    node.beta = node.beta.double()
    spikes, membranes, v = [], [], torch.zeros_like(x[0])
    for step in x:
        s, v = node(step, v)
        spikes.append(s)
        membranes.append(v)
    return torch.stack(spikes), torch.stack(membranes)


@pytest.mark.parametrize(("mechanism", "v_reset"), [("subtract", None), ("zero", 0.0)])
def test_snntorch_without_reset_delay(oracle, mechanism, v_reset):
    # Small currents: where the residual of a soft reset still exceeds the threshold, snnTorch
    # withholds the next spike ("avoid double reset") and has no counterpart of ours.
    x = currents(high=8)
    s, v = lif(x, beta=BETA, v_reset=v_reset)
    theirs, membranes = snntorch_run(oracle, x, reset_mechanism=mechanism, reset_delay=False)
    assert membranes.max() < 1
    assert 0.1 < s.mean() < 0.9
    assert torch.equal(s, theirs)
    assert torch.equal(v, membranes[-1])


def test_snntorch_resets_one_step_late_by_default(oracle):
    x = torch.tensor([1.25, 0.0, 0.0], dtype=torch.float64)[:, None]
    _, late = snntorch_run(oracle, x)
    _, prompt = snntorch_run(oracle, x, reset_delay=False)
    # The threshold is subtracted after the leak instead of before it: 0.75 * 1.25 - 1, not 0.75/4.
    assert late.flatten().tolist() == [1.25, -0.0625, -0.046875]
    assert prompt.flatten().tolist() == [0.25, 0.1875, 0.140625]
    assert torch.equal(lif(x, beta=BETA)[1], prompt[-1])


@pytest.mark.parametrize("v_reset", [0.0, -0.5])
def test_norse_hard_reset(oracle, v_reset):
    # Norse integrates dv = dt / tau * (v_leak - v + i): beta = 1 - dt / tau, and its current
    # enters scaled by dt / tau.
    box = oracle("norse.torch.functional.lif_box")
    parameters = box.LIFBoxParameters(
        tau_mem_inv=torch.tensor(1 - BETA, dtype=torch.float64),
        v_reset=torch.tensor(v_reset, dtype=torch.float64),
    )
    x = currents()
    state = box.LIFBoxFeedForwardState(v=torch.zeros_like(x[0]))
    spikes = []
    for step in x:
        z, state = box.lif_box_feed_forward_step(step / (1 - BETA), state, parameters, dt=1.0)
        spikes.append(z)
    s, v = lif(x, beta=BETA, v_reset=v_reset)
    assert 0.1 < s.mean() < 0.9
    assert torch.equal(s, torch.stack(spikes))
    assert torch.equal(v, state.v)


def test_a_membrane_on_the_threshold_fires_here_and_in_spikingjelly_only(oracle):
    x = torch.ones(1, 1, dtype=torch.float64)
    assert lif(x)[0].item() == 1
    jelly = oracle("spikingjelly.activation_based.neuron")
    assert jelly.LIFNode(tau=4.0, decay_input=False, v_reset=None)(x[0]).item() == 1
    assert snntorch_run(oracle, x)[0].item() == 0
    box = oracle("norse.torch.functional.lif_box")
    state = box.LIFBoxFeedForwardState(v=torch.zeros_like(x[0]))
    parameters = box.LIFBoxParameters(tau_mem_inv=torch.tensor(1.0))
    assert box.lif_box_feed_forward_step(x[0], state, parameters, dt=1.0)[0].item() == 0


def test_snntorch_withholds_a_spike_while_the_residual_is_above_the_threshold(oracle):
    x = torch.tensor([2.5, 0.5], dtype=torch.float64)[:, None]
    assert lif(x, beta=BETA)[0].flatten().tolist() == [1, 1]
    assert snntorch_run(oracle, x, reset_delay=False)[0].flatten().tolist() == [1, 0]
