"""Homeostasis, diversity and the environment: what each does to firing, and that it is state."""

import math

import pytest
import torch

from spikeloom.config import NeuronConfig, parse_run
from spikeloom.errors import ConfigError
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM
from spikeloom.neurons import LIF, Environment, make_neuron

SIZE = 400


def neuron(**config):
    torch.manual_seed(0)
    made = make_neuron(NeuronConfig(kind="lif", **config), SIZE)
    made.reset_parameters()
    if made.modulation is not None:
        made.modulation.reset_parameters()
    return made


def currents(rows=64, seed=1):
    return torch.randn(rows, 1, SIZE, generator=torch.Generator().manual_seed(seed))


def model(**modulation):
    tree = {
        "vocab_size": 50,
        "hidden_size": 32,
        "embedding_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "layers": [{"mixer": "recurrent_lif", "mlp": "none"}],
        "neurons": {
            "default": {"kind": "lif", "surrogate": "sigmoid"},
            "mixer_output": {"beta": 0.9, **modulation},
        },
    }
    torch.manual_seed(0)
    config = SpikeloomConfig.from_architecture(parse_run({"model": tree}).model)
    return SpikeloomForCausalLM(config)


def test_homeostasis_brings_every_neuron_to_its_target():
    made = neuron(v_threshold=0.8, homeostasis=0.5, target_rate=0.1).train()
    scale = torch.logspace(-0.5, 0.5, SIZE)  # some hear ten times as much as others
    before = made(currents() * scale)[0].mean((0, 1))
    for step in range(300):
        made(currents(seed=step) * scale)
        made.modulation.adapt()
    after = made(currents(2000) * scale)[0].mean((0, 1))
    assert before.std() > 0.04
    assert before.mean() > 0.15
    assert abs(after.mean() - 0.1) < 0.01
    assert after.std() < 0.03


def test_a_neuron_that_hears_only_inhibition_is_brought_to_fire():
    made = neuron(homeostasis=0.1, target_rate=0.1).train()
    assert not made(-currents().abs())[0].any()
    for step in range(400):
        made(-currents(seed=step).abs())
        made.modulation.adapt()
    rates = made(-currents(2000).abs())[0].mean((0, 1))
    assert rates.min() > 0.03
    assert abs(rates.mean() - 0.1) < 0.01


def test_inhibition_does_not_move_outside_training():
    made = neuron(homeostasis=0.5).eval()
    made(currents())
    assert not made.modulation.channel_rate.any()


def test_targets_are_as_diverse_as_gains():
    made = neuron(homeostasis=0.5, diversity=0.5, target_rate=0.1).train()
    for step in range(400):
        made(currents(seed=step))
        made.modulation.adapt()
    rates = made(currents(4000))[0].mean((0, 1))
    target = 0.1 * made.modulation.log_diversity.exp()
    assert abs(rates.mean() - target.mean()) < 0.01
    assert torch.corrcoef(torch.stack([rates, target]))[0, 1] > 0.95


def test_diversity_is_lognormal_of_mean_1_and_seeded():
    made, again = neuron(diversity=0.5), neuron(diversity=0.5)
    log = made.modulation.log_diversity
    assert torch.equal(log, again.modulation.log_diversity)
    assert abs(log.exp().mean() - 1) < 0.1
    assert abs(log.std() - 0.5) < 0.05
    assert torch.equal(made.modulation.gain, log.exp())
    made.train()(currents())
    made.modulation.adapt()
    assert torch.equal(made.modulation.log_diversity, log)


def test_a_gain_scales_the_current():
    made = neuron(diversity=0.5)
    plain = LIF(NeuronConfig(kind="lif"), SIZE)
    plain.reset_parameters()
    x = currents()
    assert torch.equal(made(x)[0], plain(x * made.modulation.gain)[0])


def test_inhibition_is_a_threshold_that_is_higher_by_it():
    made = neuron(homeostasis=0.5)
    made.modulation.inhibition.fill_(0.25)
    higher = LIF(NeuronConfig(kind="lif", v_threshold=1.25), SIZE)
    higher.reset_parameters()
    assert torch.equal(made(currents())[0], higher(currents())[0])


def test_stress_rises_where_the_loss_is_worse_than_usual():
    environment = Environment()
    for _ in range(300):
        environment.observe(torch.tensor(2.0))
    assert environment.stress == 0
    environment.observe(torch.tensor(4.0))
    assert environment.fast.item() == pytest.approx(2.2)
    assert environment.slow.item() == pytest.approx(2.02)
    assert environment.stress.item() == pytest.approx(math.tanh(10 * (2.2 / 2.02 - 1)))
    for _ in range(50):
        environment.observe(torch.tensor(1.0))
    assert -1 <= environment.stress < 0


@torch.no_grad()
def test_one_environment_for_all_neurons_and_it_is_saved(tmp_path):
    stressed = model(stress_gain=0.5, diversity=0.3, homeostasis=0.1).eval()
    ids = torch.randint(0, 50, (2, 20), generator=torch.Generator().manual_seed(0))
    calm = stressed(ids).firing_rates
    stressed.model.decoder.environment.stress.fill_(0.9)
    for name, buffer in stressed.named_buffers():
        if name.endswith("inhibition"):
            buffer.uniform_(-0.1, 0.1)
    output = stressed(ids)
    recurrent = [2, 4]  # encoder, then input and output neuron of each layer
    assert (output.firing_rates[recurrent] > calm[recurrent]).all()
    stressed.save_pretrained(tmp_path)
    loaded = SpikeloomForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(ids).logits, output.logits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stress_gain": 1.0}, "mixer_output.stress_gain: 1.0"),
        ({"diversity": -1.0}, "mixer_output.diversity: -1.0"),
        ({"kind": "graded", "homeostasis": 0.1}, "homeostasis: 0.1 is impossible, expected 0, or"),
        ({"kind": "graded"}, "mixer_output.kind: 'graded' is impossible, expected lif or none"),
        ({"reset": "hard"}, "mixer_output.reset: 'hard' is impossible"),
        ({"clip_membrane": 3.0}, "mixer_output.clip_membrane: 3.0 is impossible"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(ConfigError) as refusal:
        model(**change)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
