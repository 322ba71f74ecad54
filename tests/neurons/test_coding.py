"""Numbers to spikes and back."""

import pytest
import torch

from spikeloom.errors import ConfigError
from spikeloom.neurons.coding import (
    decode_latency,
    decode_population,
    decode_rate,
    encode_latency,
    encode_population,
    encode_rate,
)

GRID = torch.linspace(0, 1, 101, dtype=torch.float64)
CODES = {
    "rate": (encode_rate, decode_rate),
    "latency": (encode_latency, decode_latency),
}


@pytest.mark.parametrize("steps", [1, 4, 15, 64])
@pytest.mark.parametrize("code", CODES)
def test_a_round_trip_is_within_half_a_step(code, steps):
    encode, decode = CODES[code]
    spikes = encode(GRID, steps)
    assert spikes.shape == (steps, 101)
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}
    assert (decode(spikes) - GRID).abs().max() <= 0.5 / steps + 1e-12
    assert decode(spikes)[[0, -1]].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("code", CODES)
def test_what_a_code_holds_comes_back_exactly(code):
    encode, decode = CODES[code]
    values = torch.arange(9, dtype=torch.float64).view(3, 3) / 8
    assert torch.equal(decode(encode(values, 8)), values)


def test_latency_is_one_spike_and_larger_is_earlier():
    spikes = encode_latency(GRID, 32)
    assert (spikes.sum(0) <= 1).all()
    assert (spikes.sum(0) == 0).sum() == (decode_latency(spikes) == 0).sum()
    first = torch.where(spikes.sum(0) > 0, spikes.argmax(0), 32)
    assert (first.diff() <= 0).all()


def test_even_spikes_are_spread():
    gaps = encode_rate(torch.tensor([0.25]), 40)[:, 0].nonzero().flatten().diff()
    assert gaps.tolist() == [4] * 9


def test_drawn_spikes_have_the_rate_and_its_deviation():
    steps = 400
    generator = torch.Generator().manual_seed(0)
    x = torch.full((2000,), 0.3, dtype=torch.float64)
    rates = decode_rate(encode_rate(x, steps, generator))
    expected = (0.3 * 0.7 / steps) ** 0.5
    assert rates.mean().item() == pytest.approx(0.3, abs=4 * expected / 2000**0.5)
    assert rates.std().item() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 5.0)])
@pytest.mark.parametrize("neurons", [8, 16])
@pytest.mark.parametrize("steps", [16, 64])
def test_a_population_round_trip(steps, neurons, low, high):
    x = low + GRID * (high - low)
    spikes = encode_population(x, steps, neurons, low, high)
    assert spikes.shape == (steps, 101, neurons)
    spacing = (high - low) / (neurons - 5)
    assert (decode_population(spikes, low, high) - x).abs().max() < 0.2 * spacing


def test_a_population_is_finer_than_one_neuron():
    steps = 16
    one = (decode_rate(encode_rate(GRID, steps)) - GRID).abs().mean()
    many = (decode_population(encode_population(GRID, steps, 24)) - GRID).abs().mean()
    assert many < one / 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: encode_rate(GRID + 0.5, 4), "values from 0.5 to 1.5 are outside"),
        (lambda: encode_latency(-GRID, 4), "values from -1 to -?0 are outside"),
        (lambda: encode_rate(GRID, 0), "0 steps: expected 1 or more"),
        (lambda: encode_rate(GRID * float("nan"), 4), "values from nan to nan"),
        (lambda: encode_population(GRID, 8, 5), "5 neurons for .* expected 6 or more"),
        (lambda: encode_population(GRID, 8, 8, 1.0, 1.0), r"8 neurons for \[1.0, 1.0\]"),
        (lambda: encode_population(GRID, 8, 8, 0.0, 0.5), "values from 0 to 2 are outside"),
    ],
)
def test_what_a_code_cannot_say_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
