"""Every shipped architecture at random weights: forms agree, it is causal, all of it learns."""

import dataclasses

import pytest
import torch

from spikeloom import presets
from spikeloom.config import load_config
from spikeloom.evaluation.verify import verify
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM
from spikeloom.model.sizes import random_model

SLOW = {name: pytest.mark.slow for name in presets.names() if name.endswith("125m")}
ON_A_GPU = {name for name in presets.names() if name.endswith("1b")}
WINDOWED = [n for n in presets.names() if n.startswith(("flow", "pulse"))]
# A forward and backward of full size takes long; layers, neurons and clocks are the same here.
SMALLER = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 300,
    "max_position_embeddings": 160,
}


def smaller(name):
    kept = load_config(name).model
    heads = 4 * kept.key_value_heads // kept.num_attention_heads
    layers = max(2, len(kept.layers))  # a whole pattern of local and global layers
    sizes = SMALLER | {"num_key_value_heads": heads, "num_hidden_layers": layers}
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


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=SLOW.get(n, ())) for n in presets.names() if n not in ON_A_GPU],
)
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


@torch.no_grad()
@pytest.mark.parametrize("name", WINDOWED)
def test_the_cached_decoder_goes_on_beyond_window_and_context(name):
    model = smaller(name).double()
    context = model.config.max_position_embeddings
    windows = {layer.sliding_window for layer in model.config.architecture.layer_list}
    assert windows == {128, None}
    assert context > 128
    prompt = tokens_of(model, 100)
    model.generation_config.eos_token_id = None
    text = model.generate(prompt, max_new_tokens=100, do_sample=False, pad_token_id=0)
    assert text.shape[1] > context
    state = model(input_ids=text[:, :100], use_cache=True).past_key_values
    cached = [
        model(input_ids=text[:, i : i + 1], past_key_values=state).logits for i in range(100, 200)
    ]
    uncached = model(input_ids=text, use_cache=False).logits[:, 100:]
    torch.testing.assert_close(torch.cat(cached, 1), uncached, rtol=0, atol=1e-9)
    assert torch.equal(uncached[:, :-1].argmax(-1), text[:, 101:])


@pytest.mark.parametrize(("name", "billions"), [("flow-1b", 0.973), ("pulse-1b", 0.973)])
def test_the_large_presets_are_what_they_say(name, billions):
    run = load_config(name)
    with torch.device("meta"):
        model = SpikeloomForCausalLM(SpikeloomConfig.from_architecture(run.model))
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert model.num_parameters() / 1e9 == pytest.approx(billions, abs=1e-3)
    windows = [layer.sliding_window for layer in run.model.layer_list]
    bases = [layer.rope_theta for layer in run.model.layer_list]
    assert windows == [128, 128, 128, 128, 128, None] * 3
    assert bases == [1e4, 1e4, 1e4, 1e4, 1e4, 1e6] * 3
    assert run.model.tie_word_embeddings
    assert run.training.gradient_checkpointing
    assert [phase.context for phase in run.training.phases] == [256, 1024, 2048]


@pytest.mark.parametrize("size", ["15m", "125m", "1b"])
def test_pulse_without_spikes_is_flow(size):
    flow = load_config(f"flow-{size}", ["model.spiking=false"])
    pulse = load_config(f"pulse-{size}", ["model.spiking=false"])
    assert pulse.model == flow.model
    assert pulse.training == flow.training
    assert dataclasses.replace(flow.model, spiking=True) == load_config(f"flow-{size}").model
