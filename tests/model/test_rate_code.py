"""A neuron behind a product, read as a rate; the switch that takes all neurons out."""

import pytest
import torch
from small_models import build, config, tokens

from spikeloom.config import ModelConfig, RateCodeConfig, parse_run
from spikeloom.errors import ConfigError
from spikeloom.inference.engine import Engine
from spikeloom.metrics import Recorder
from spikeloom.model import SpikeloomConfig, dense_twin, neurons
from spikeloom.model.rate_code import RateCode
from spikeloom.strict import build as build_config

SIGNED = {"kind": "graded", "levels": 1, "fire_level": 1, "theta": 1.0, "beta": 0.9}


def coded(y, **settings):
    made = RateCode(build_config(RateCodeConfig, settings, "rate"), y.shape[-1]).double()
    for module in made.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return made, *made(y)


def by_hand(y, beta, threshold, steps):
    """The module's equations for a binary LIF with soft reset, one number at a time."""
    m = sum(abs(value) for value in y) / len(y)
    out = []
    for value in y:
        v, spikes = 0.0, 0
        for _ in range(steps):
            v = beta * v + value / m
            if v >= threshold:
                v, spikes = v - threshold, spikes + 1
        out.append(spikes / steps * m)
    return out


def test_the_equations():
    y = torch.randn(2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, out, (fired,) = coded(y, steps=5, neuron={"kind": "lif", "beta": 0.95, "v_threshold": 0.7})
    for row, wanted in zip(out.flatten(0, 1), y.flatten(0, 1), strict=True):
        expected = by_hand(wanted.tolist(), 0.95, 0.7, 5)
        torch.testing.assert_close(row.tolist(), expected, rtol=0, atol=1e-12)
    assert 0 < fired.item() < 1


def test_more_steps_come_closer_to_the_value():
    y = torch.randn(4, 16, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    neuron = {**SIGNED, "beta": 0.999, "theta": 4.0}
    errors = [(coded(y, steps=n, neuron=neuron)[1] - y).abs().mean() for n in (2, 8, 32)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_size_and_sign_pass_through():
    y = torch.randn(1, 4, 8, dtype=torch.float64)
    _, out, _ = coded(y, neuron=SIGNED)
    torch.testing.assert_close(coded(3 * y, neuron=SIGNED)[1], 3 * out)
    torch.testing.assert_close(coded(-y, neuron=SIGNED)[1], -out)
    assert coded(torch.zeros_like(y), neuron=SIGNED)[1].abs().max() == 0


@torch.no_grad()
def test_the_recorder_counts_steps_and_names_the_places():
    model = build("rate code")
    with Recorder(model) as recorder:
        model(tokens(2, 9))
    records = {(r.layer, r.role): r for r in recorder.records.values()}
    assert set(records) == {(i, role) for i in (0, 1) for role in ("mixer_rate", "mlp_rate")}
    assert all(r.reads == 2 * 9 * 4 and r.tokens == 18 for r in records.values())


def test_not_spiking_is_the_dense_twin_with_its_own_mixers():
    off = config("rate code, signed", spiking=False)
    assert off.architecture == dense_twin(config("rate code, signed"), mixer=None).architecture
    assert all(layer.extras == () for layer in off.architecture.layer_list)
    steps = config("lif steps", spiking=False).architecture
    assert (steps.num_steps, steps.neurons.head.kind) == (1, "none")
    assert [layer.mlp for layer in steps.layers] == ["relu2", "relu2"]
    assert not any(n.spikes for n in neurons(build("not spiking")).values())


def test_not_spiking_survives_a_checkpoint(tmp_path):
    config("not spiking").save_pretrained(tmp_path)
    read = SpikeloomConfig.from_pretrained(tmp_path).architecture
    assert read == config("not spiking").architecture
    assert read.spiking is False


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"layers": [{"mixer_rate": {"steps": 1}}]}, r"model.layers\[0\].mixer_rate.steps: 1 is"),
        (
            {"layers": [{"mlp_rate": {"neuron": {"kind": "none"}}}]},
            r"model.layers\[0\].mlp_rate.neuron.kind: 'none' is impossible, expected graded or lif",
        ),
        ({"layers": [{"mlp": "none", "mlp_rate": {}}]}, r"layers\[0\].mlp_rate: .* has no MLP"),
        ({"layers": [{}, {"mixer_rate": {}}], "num_steps": 2}, r"num_steps: 2 .* layers\[1\]"),
    ],
)
def test_impossible_rate_codes_are_refused(model, message):
    with pytest.raises(ConfigError, match=message):
        parse_run({"model": model})


def test_the_event_driven_engine_refuses_them_by_name():
    with pytest.raises(ConfigError, match=r"layers\[0\].mixer_rate: .* does not have it"):
        Engine.from_model(build("rate code", torch.float32))


def test_old_configs_spike():
    assert ModelConfig().spiking
