"""Checkpoints come back exactly; configs are strict; vocabularies grow; meta device."""

import json

import pytest
import torch
from small_models import NAMES, build, config, tokens
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from spikeloom.config import ModelConfig
from spikeloom.errors import ConfigError
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM, products
from spikeloom.strict import to_dict


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_comes_back_exactly(name, tmp_path):
    model, ids = build(name, torch.float32), tokens(2, 9)
    model.save_pretrained(tmp_path)
    read = AutoConfig.from_pretrained(tmp_path)
    assert type(read) is SpikeloomConfig
    assert read.architecture == model.config.architecture
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(again) is SpikeloomForCausalLM
    assert not again.training
    assert again.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(again(ids).logits, model(ids).logits)
    backbone = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(backbone(ids).last_hidden_state, model.model(ids).last_hidden_state)

    tied = again.lm_head.weight is again.get_input_embeddings().weight
    assert tied == model.config.tie_word_embeddings


@pytest.mark.parametrize("name", ["attention", "attention gqa"])
def test_tied_weights_are_stored_once(name, tmp_path):
    from safetensors import safe_open

    model = build(name, torch.float32)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert ("lm_head.weight" in file.keys()) == (not model.config.tie_word_embeddings)  # noqa: SIM118


def test_config_json_holds_every_key(tmp_path):
    config("mixed").save_pretrained(tmp_path)
    tree = json.loads((tmp_path / "config.json").read_text())
    assert tree["model_type"] == "spikeloom"
    wanted = json.loads(json.dumps(to_dict(config("mixed").architecture)))
    assert {key: tree[key] for key in wanted} == wanted


SPOILED = {
    "wrong type": ({"hidden_size": "wide"}, "model.hidden_size: expected int, got 'wide'"),
    "impossible": ({"num_attention_heads": 5}, "model.num_attention_heads: 5 is impossible"),
    "unknown mixer": ({"layers": [{"mixer": "atention"}]}, "did you mean 'attention'"),
    "unknown layer key": ({"layers": [{"mixr": "sdsa"}]}, "model.layers[0].mixr: unknown key"),
    "unknown neuron key": ({"neurons": {"head": {"fire_levl": 2}}}, "did you mean 'fire_level'"),
    "unknown role": ({"neurons": {"heads": {}}}, "model.neurons.heads: unknown key"),
    "bad neuron value": ({"neurons": {"head": {"beta": 1.5}}}, "model.neurons.head.beta: 1.5"),
    "misspelt key": ({"hiden_size": 64}, "model.hiden_size: unknown key (did you mean"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_config_is_refused(case, tmp_path):
    change, message = SPOILED[case]
    config("mixed").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError) as refusal:
        AutoConfig.from_pretrained(tmp_path)
    assert message in str(refusal.value)


def test_hugging_face_keys_pass():
    made = SpikeloomConfig(
        vocab_size=32, hidden_size=16, num_attention_heads=2, use_cache=False, dtype="bfloat16"
    )
    assert made.architecture.vocab_size == 32
    assert made.use_cache is False
    assert made.dtype == torch.bfloat16


def test_neuron_defaults_expand_in_a_config():
    made = SpikeloomConfig(neurons={"default": {"theta": 0.5}, "head": {"kind": "none"}})
    assert made.architecture.neurons.mixer_input.theta == 0.5
    assert made.architecture.neurons.head.kind == "none"


def test_default_config_is_the_default_architecture():
    assert SpikeloomConfig().architecture == ModelConfig()


@torch.no_grad()
@pytest.mark.parametrize("name", ["attention", "attention gqa", "lif steps"])
@pytest.mark.parametrize("size", [80, 40])
@pytest.mark.filterwarnings("ignore:The new embeddings will be initialized")
def test_resized_vocabulary(name, size, tmp_path):
    model = build(name, torch.float32)
    ids = tokens(2, 6) % 40
    before = model(ids).logits
    model.resize_token_embeddings(size)
    assert model.config.architecture.vocab_size == size
    after = model(ids).logits
    assert after.shape[-1] == size
    torch.testing.assert_close(after[..., : min(64, size)], before[..., :size])
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    assert tied == model.config.tie_word_embeddings
    head = products(model)[-1]
    assert (head.name, head.neuron_name) == ("lm_head", "model.decoder.head_neuron")
    assert head.linear.out_features == size
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(ids).logits, after)


@pytest.mark.parametrize("name", NAMES)
def test_meta_device(name):
    with torch.device("meta"):
        model = SpikeloomForCausalLM(config(name))
    assert {p.device.type for p in model.parameters()} == {"meta"}
    real = build(name)
    shapes = {n: p.shape for n, p in model.named_parameters()}
    assert shapes == {n: p.shape for n, p in real.named_parameters()}


def test_initial_scales_follow_the_recipe():
    model = SpikeloomForCausalLM(config("sdsa", hidden_size=256, intermediate_size=512))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            fan_in = parameter.shape[1]
            into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            wanted = fan_in**-0.5 / (2.0 if into_residual else 1.0)  # sqrt(2 x 2 layers)
            assert parameter.std().item() == pytest.approx(wanted, rel=0.05), name
        elif name.endswith("norm.weight"):
            assert (parameter == 1).all()
        elif name.endswith("log_theta"):
            torch.testing.assert_close(parameter.exp().unique().numel(), 1)
    decays = model.model.decoder.layers[0].blocks[0].mixer.raw_decay
    memories = 1 / torch.nn.functional.softplus(decays)
    torch.testing.assert_close(memories[[0, -1]].tolist(), [8.0, 512.0], rtol=1e-3, atol=0)
