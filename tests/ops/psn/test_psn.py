"""The sliding PSN: step by step, all steps at once, and as its authors have it."""

import warnings

import pytest
import torch
from torch.testing import assert_close

from spikeloom.config import NeuronConfig
from spikeloom.errors import ConfigError
from spikeloom.neurons import make_neuron
from spikeloom.ops.psn import naive, parallel


def draw(steps, taps, batch=2, size=3):
    generator = torch.Generator().manual_seed(steps)
    x = torch.randn(steps, batch, size, generator=generator, dtype=torch.float64)
    weights = torch.randn(taps, generator=generator, dtype=torch.float64)
    before = torch.randn(taps - 1, batch, size, generator=generator, dtype=torch.float64)
    starts = torch.rand(steps, batch, 1, generator=generator) < 0.3
    return x, weights, before, starts


def outcome(form, given, starts):
    given = [None if t is None else t.clone().requires_grad_() for t in given]
    h, last = form.sliding_membrane(*given, starts)
    (h.sin().sum() + last.cos().sum()).backward()
    return [h.detach(), last.detach(), *(t.grad for t in given if t is not None)]


@pytest.mark.parametrize("steps", [1, 2, 3, 9, 50])
@pytest.mark.parametrize("taps", [2, 4])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("goes_on", [False, True])
def test_all_steps_at_once_are_the_steps(steps, taps, packed, goes_on):
    x, weights, before, starts = draw(steps, taps)
    given = [x, weights, before if goes_on else None]
    starts = starts if packed else None
    for ours, theirs in zip(
        outcome(parallel, given, starts), outcome(naive, given, starts), strict=True
    ):
        assert_close(ours, theirs)


@pytest.mark.parametrize("form", [naive, parallel])
def test_no_document_hears_another_through_the_state(form):
    x, weights, before, _ = draw(7, 4)
    starts = torch.zeros(7, 2, 1, dtype=torch.bool)
    starts[5] = True
    h, state = form.sliding_membrane(x, weights, before, starts)
    alone, last = form.sliding_membrane(x[5:], weights)
    assert_close(h[5:], alone)
    assert_close(state, last)


def neuron(**changes):
    made = make_neuron(NeuronConfig(kind="psn", **changes), 6)
    made.reset_parameters()
    return made


def test_ours_fires_as_spikingjelly_does():
    with warnings.catch_warnings():  # what it warns about on import is not ours to mend
        warnings.simplefilter("ignore")
        neurons = pytest.importorskip("spikingjelly.activation_based.neuron", exc_type=ImportError)
    theirs = neurons.SlidingPSN(4, step_mode="m")
    ours = neuron(taps=4, v_threshold=1.0)
    x = torch.randn(3, 20, 6, generator=torch.Generator().manual_seed(0))
    spikes, _, rate = ours(x)
    assert torch.equal(spikes, theirs(x.transpose(0, 1)).transpose(0, 1))
    assert 0.1 < float(rate.detach()) < 0.4
    assert torch.equal(ours.taps.flip(0), theirs.weight)


def test_a_spike_changes_nothing_after_it():
    ours = neuron(taps=2)
    x = torch.zeros(1, 4, 6)
    x[:, 0] = 1.0
    spikes, _, _ = ours(x)
    assert spikes[0, :, 0].tolist() == [1.0, 0.0, 0.0, 0.0]
    x[:, 1] = 0.5
    assert ours(x)[0][0, :, 0].tolist() == [1.0, 1.0, 0.0, 0.0]


def test_token_by_token_is_all_at_once():
    ours = neuron(taps=3)
    x = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(1))
    whole, last, _ = ours(x)
    state, parts = None, []
    for column in x.split(1, dim=1):
        spikes, state, _ = ours(column, state)
        parts.append(spikes)
    assert torch.equal(torch.cat(parts, 1), whole)
    assert torch.equal(state, last)
    assert state.shape == (2, 2, 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"taps": 1}, "taps: 1 is impossible, expected at least 2"),
        ({"beta": 0.5}, "beta: 0.5 is impossible, expected 0 with kind psn"),
        ({"reset": "hard"}, "reset: 'hard' is impossible"),
        ({"clip_membrane": 2.0}, "clip_membrane: 2.0 is impossible"),
    ],
)
def test_what_it_does_not_have_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        NeuronConfig(kind="psn", **changes)
