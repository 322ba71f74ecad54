"""Weights that follow the order of spikes."""

import pytest
import torch

from spikeloom.errors import ConfigError
from spikeloom.neurons.stdp import STDP, Traces, learn, stdp_step, toy_pattern

RULE = STDP(rate_up=0.1, rate_down=0.05, decay_pre=0.5, decay_post=0.8, w_max=2.0)


def after(pre_at, post_at, start=0.5, steps=8):
    """The weight of one synapse after one spike on either side."""
    w = torch.tensor([[start]], dtype=torch.float64)
    traces = Traces.silent(w)
    for t in range(steps):
        pre, post = (w.new_tensor([float(t == at)]) for at in (pre_at, post_at))
        w, traces = stdp_step(w, traces, pre, post, RULE)
    return w.item()


@pytest.mark.parametrize("gap", [0, 1, 3])
def test_an_input_before_the_spike_gets_stronger_by_the_gap(gap):
    assert after(2, 2 + gap) == pytest.approx(0.5 + 0.1 * (2.0 - 0.5) * 0.5**gap)


@pytest.mark.parametrize("gap", [1, 3])
def test_an_input_after_the_spike_gets_weaker_by_the_gap(gap):
    assert after(2 + gap, 2) == pytest.approx(0.5 - 0.05 * 0.5 * 0.8 ** (gap - 1))


def test_a_spike_alone_changes_nothing():
    assert after(2, -1) == after(-1, 2) == 0.5


def test_bounds_are_soft():
    assert after(2, 2, start=2.0) == 2.0
    assert after(3, 2, start=0.0) == 0.0
    steps = [after(2, 2, start=s) - s for s in (0.0, 1.0, 1.9)]
    assert steps[0] > steps[1] > steps[2] > 0


def test_all_pairs_count():
    w = torch.full((1, 1), 0.5, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    traces = Traces.silent(w)
    w, traces = stdp_step(w, traces, one, 0 * one, RULE)
    w, traces = stdp_step(w, traces, one, 0 * one, RULE)
    w, _ = stdp_step(w, traces, 0 * one, one, RULE)
    assert w.item() == pytest.approx(0.5 + 0.1 * 1.5 * (0.25 + 0.5))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_neuron_finds_the_pattern(seed):
    inputs, shown = toy_pattern(seed=seed)
    rates = inputs.mean(0)
    assert (rates - 1 / 25).abs().max() < 0.02  # the rate of an input tells nothing
    start = torch.full((1, 40), 0.2)
    _, untaught = learn(inputs[-1000:], start, STDP(rate_up=0.0, rate_down=0.0))
    weights, fired = learn(inputs, start)
    assert weights[0, :12].min() > weights[0, 12:].max() + 0.2
    there = shown[-1000:]
    assert untaught[there].mean() < 0.35
    assert fired[-1000:][there].mean() > 0.95
    assert fired[-1000:][~there].mean() < 0.01


def test_chance_is_no_pattern():
    inputs, _ = toy_pattern(pattern=0)
    weights, _ = learn(inputs, torch.full((1, 40), 0.5))
    assert (weights.max() - weights.min()) < 0.4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate_up": -0.1}, "rate_up: -0.1 is impossible, expected a rate"),
        ({"decay_pre": 1.0}, "decay_pre: 1.0 is impossible"),
        ({"w_max": 0.0}, "w_max: 0.0 is impossible"),
    ],
)
def test_impossible_rules_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        STDP(**change)
