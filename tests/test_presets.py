"""Every shipped architecture at random weights: forms agree, it is causal, all of it learns."""

import pytest
import torch

from spikeloom import presets
from spikeloom.config import load_config
from spikeloom.evaluation.verify import verify
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM
from spikeloom.model.sizes import random_model

SLOW = {name: pytest.mark.slow for name in presets.names() if name.endswith("125m")}
# A forward and backward of full size takes long; layers, neurons and clocks are the same here.
SMALLER = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 300,
    "max_position_embeddings": 160,
}
LAYERS = {"flow-125m": 6, "flow-15m": 4}  # a whole pattern of local and global layers


def smaller(name):
    kept = load_config(name).model
    heads = 4 * kept.key_value_heads // kept.num_attention_heads
    sizes = SMALLER | {"num_key_value_heads": heads, "num_hidden_layers": LAYERS.get(name, 2)}
    run = load_config(name, [f"model.{key}={value}" for key, value in sizes.items()])
    assert run.model.neurons == kept.neurons
    assert run.model.layers == kept.layers
    torch.manual_seed(0)
    return SpikeloomForCausalLM(SpikeloomConfig.from_architecture(run.model)).eval()


def tokens_of(model, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, model.config.vocab_size, (1, length), generator=generator)


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_is_a_whole_recipe(name):
    run = load_config(name)
    assert run.description
    assert run.tokenizer.vocab_size == run.model.vocab_size
    assert run.training.max_steps is run.training.max_tokens is run.training.max_minutes is None


@pytest.mark.parametrize("name", presets.names())
def test_forms_agree(name):
    model = smaller(name)
    report = verify(model, tokens_of(model, 24), new_tokens=6)
    assert report["passed"], report


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW.get(n, ())) for n in presets.names()])
def test_forms_agree_at_full_size(name):
    model = random_model(name)
    report = verify(model, tokens_of(model, 16), new_tokens=4)
    assert report["passed"], report


@pytest.mark.parametrize("name", presets.names())
def test_no_token_changes_what_is_before_it(name):
    model = smaller(name).double()
    ids = tokens_of(model, 150)  # longer than a window and than a chunk of the parallel SDSA
    with torch.no_grad():
        before = model(input_ids=ids, use_cache=False).logits
        for place in (1, 75, 149):
            changed = ids.clone()
            changed[:, place] = (changed[:, place] + 1) % model.config.vocab_size
            after = model(input_ids=changed, use_cache=False).logits
            torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=1e-9)
            assert (after[:, place:] - before[:, place:]).abs().max() > 1e-6


@pytest.mark.parametrize("name", presets.names())
def test_every_parameter_learns(name):
    model = smaller(name).train()
    ids = tokens_of(model, 8 * 40).view(8, 40)
    model(input_ids=ids, labels=ids).loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name
