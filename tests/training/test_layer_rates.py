"""A learning rate per layer: least for the embedding, and kept through a resume."""

import pytest
from tiny_runs import run_of

from spikeloom.config import TrainingConfig
from spikeloom.errors import ConfigError
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM
from spikeloom.training.layer_rates import layer_factors
from spikeloom.training.optimizers import make_optimizer

NAMES = [
    "lm_head.weight",
    "model.decoder.norm.weight",
    "model.decoder.layers.0.blocks.1.mlp.up_proj.weight",
    "model.decoder.layers.11.blocks.0.norm.weight",
    "model.decoder.embed_tokens.weight",
]


def test_rates_fall_from_the_head_to_the_embedding():
    found = layer_factors(NAMES, 0.5)
    assert [found[name] for name in NAMES] == [1, 1, 0.5**12, 0.5, 0.5**13]
    assert set(layer_factors(NAMES, 1.0).values()) == {1.0}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_parameter_learns_at_the_rate_of_its_layer(kind):
    run = run_of(optimizer=kind, layer_decay=0.5, model={"tie_word_embeddings": False})
    model = SpikeloomForCausalLM(SpikeloomConfig.from_architecture(run.model))
    groups = make_optimizer(model, run.training).param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    factors = layer_factors((name for name, _ in model.named_parameters()), 0.5)
    assert len(set(factors.values())) == 4
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == run.training.learning_rate * factors[name], name


@pytest.mark.parametrize("value", [0, -0.5, 1.1])
def test_a_factor_that_is_none_is_refused(value):
    with pytest.raises(ConfigError, match="layer_decay"):
        TrainingConfig(layer_decay=value)
