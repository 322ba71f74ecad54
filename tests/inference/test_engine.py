"""The engine against the torch model: same logits, same payload counts, same tokens."""

import copy

import numpy as np
import pytest
import torch

from spikeloom.config import load_config
from spikeloom.errors import CheckpointError, ConfigError, SpikeloomError
from spikeloom.inference import native_step
from spikeloom.inference.decoding import sample
from spikeloom.inference.engine import Engine
from spikeloom.inference.plan import check_supported, make_plan
from spikeloom.model import (
    SpikeloomConfig,
    SpikeloomForCausalLM,
    active_share,
    dense_twin,
    fed_weights,
    products,
)
from spikeloom.neurons import ContextGain


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny products are slower in many threads, much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": None,
}
GRADED = {"kind": "graded", "levels": 24, "fire_level": 3}
LEAKY = {**GRADED, "beta": 0.8}
LIF = {"kind": "lif", "beta": 0.9, "v_threshold": 0.4}


def neurons(default: dict, **roles: dict) -> dict:
    return {"default": default, **roles}


HIDDEN = {"mlp_hidden": {"signed": False, "fire_level": 1}}
GAINS = {
    "default": {**GRADED, "gain_rank": 5},
    "mlp_hidden": {**HIDDEN["mlp_hidden"], "gain_rank": 0},
}
CASES = {
    "spiking": {"layers": [{"mixer": "attention", "mlp": "spiking"}]},
    "relu2": {"layers": [{"mixer": "attention", "mlp": "relu2"}]},
    "swiglu": {"layers": [{"mixer": "attention", "mlp": "swiglu"}]},
    "no_mlp": {"layers": [{"mixer": "attention", "mlp": "none"}]},
    "grouped": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "odd_width": {"hidden_size": 36, "num_attention_heads": 6, "intermediate_size": 51},
    "one_key_head": {"num_key_value_heads": 1, "layers": [{"mixer": "sdsa"}]},
    "window": {"layers": [{"sliding_window": 5, "rope_theta": 100.0}, {}]},
    "window_of_one": {"layers": [{"sliding_window": 1}]},
    "no_norms": {"qk_norm": False, "output_norm": False},
    "untied": {"tie_word_embeddings": False},
    "sdsa": {"layers": [{"mixer": "sdsa", "mlp": "relu2"}]},
    "sdsa_gated": {"layers": [{"mixer": "sdsa", "decay": "gated"}]},
    "hybrid": {"layers": [{"mixer": "sdsa"}, {"mixer": "attention", "sliding_window": 3}]},
    "leaky": {"neurons": neurons(LEAKY, **HIDDEN)},
    "leaky_learned": {"neurons": neurons({**LEAKY, "learn_beta": True}, **HIDDEN)},
    "leaky_hard": {"neurons": neurons({**LEAKY, "reset": "hard", "v_reset": -0.1}, **HIDDEN)},
    "clipped": {"neurons": neurons({**LEAKY, "clip_membrane": 1.1}, **HIDDEN)},
    "clipped_memoryless": {"neurons": neurons({**GRADED, "clip_membrane": 1.1}, **HIDDEN)},
    "lif": {"neurons": neurons(LIF)},
    "lif_hard": {"neurons": neurons({**LIF, "reset": "hard"})},
    "lif_memoryless": {"neurons": neurons({**LIF, "beta": 0.0})},
    "steps": {"num_steps": 3, "neurons": neurons(LEAKY, **HIDDEN)},
    "steps_sdsa": {"num_steps": 2, "neurons": neurons(LIF), "layers": [{"mixer": "sdsa"}]},
    "gains": {"neurons": GAINS, "layers": [{"mixer": "attention"}, {"mixer": "sdsa"}]},
    "gains_everywhere": {"neurons": {"default": {**LEAKY, "gain_rank": 17, "clip_membrane": 1.1}}},
    "gains_odd_width": {
        "hidden_size": 36,
        "num_attention_heads": 6,
        "intermediate_size": 51,
        "neurons": {"default": {**GRADED, "gain_rank": 60}},  # more than there are channels
    },
    "gains_steps": {"num_steps": 3, "neurons": neurons({**LEAKY, "gain_rank": 8}, **HIDDEN)},
    "dense_head": {"neurons": {"head": {"kind": "none"}}},
    "dense": {"neurons": neurons({"kind": "none"}), "layers": [{"mlp": "relu2"}]},
}


def make_model(name: str, seed: int = 0) -> SpikeloomForCausalLM:
    """Random weights with every parameter off its start value, so that none can be forgotten."""
    torch.manual_seed(seed)
    model = SpikeloomForCausalLM(SpikeloomConfig(**{**SMALL, **CASES[name]})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 or not parameter.any():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def tokens_of(length: int, seed: int = 1) -> list[int]:
    return torch.randint(0, 64, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.no_grad()
def torch_logits(model: SpikeloomForCausalLM, tokens: list[int]) -> torch.Tensor:
    """Token by token: on the CPU this is what `generate` computes."""
    state, rows = None, []
    for token in tokens:
        output = model(torch.tensor([[token]]), past_key_values=state, use_cache=True)
        state = output.past_key_values
        rows.append(output.logits[0, 0])
    return torch.stack(rows)


@pytest.fixture(params=["native", "torch"])
def native(request) -> bool:
    return request.param == "native"


def make_engine(model: SpikeloomForCausalLM, native: bool = True, dtype: str = "float32") -> Engine:
    engine = Engine.from_model(model, dtype)
    if native and engine._native is None:
        pytest.skip("no C++ compiler")
    return engine if native else Engine(engine.plan, native=False)


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_the_model(name, native):
    model, tokens = make_model(name), tokens_of(24)
    engine = make_engine(model, native)
    ours = torch.stack([engine.step(token) for token in tokens])
    torch.testing.assert_close(ours, torch_logits(model, tokens), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_greedy_tokens_equal_generate(name):
    model, prompt = make_model(name), tokens_of(6)
    engine = make_engine(model)
    expected = model.generate(
        torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=None
    )
    assert list(engine.generate(prompt, max_new_tokens=20, stops=())) == expected[0, 6:].tolist()


@pytest.mark.parametrize("name", ["spiking", "swiglu", "leaky", "lif", "dense_head", "gains"])
def test_counted_rates_are_those_of_the_model(name, native):
    model, tokens = make_model(name), tokens_of(16)
    engine = make_engine(model, native)
    for token in tokens:
        engine.step(token)
    with torch.no_grad():
        rates = model.model(torch.tensor([tokens])).firing_rates
    torch.testing.assert_close(engine.state.channel_rates, rates)
    share = active_share(rates, fed_weights(model))
    assert engine.state.active_share == pytest.approx(share.item())
    assert engine.plan.weights == fed_weights(model).sum()


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", ["spiking", "swiglu", "sdsa_gated", "dense", "gains"])
def test_rounded_weights_equal_a_model_with_those_weights(name, dtype, native):
    model, tokens = make_model(name), tokens_of(16)
    engine = make_engine(model, native, dtype)
    rounded = copy.deepcopy(model)
    # The head is rounded, the embedding it is tied to is not.
    rounded.lm_head.weight = torch.nn.Parameter(rounded.lm_head.weight.clone())
    by_neuron: dict[torch.nn.Module, list[torch.nn.Linear]] = {}
    for product in products(rounded):
        by_neuron.setdefault(product.linear.neuron, []).append(product.linear)
    with torch.no_grad():
        for linears in by_neuron.values():  # what one neuron feeds is one matrix, one row scale
            whole = _round(torch.cat([linear.weight for linear in linears]), dtype)
            for linear, part in zip(
                linears, whole.split([linear.out_features for linear in linears]), strict=True
            ):
                linear.weight.copy_(part)
        for gain in (m for m in rounded.modules() if isinstance(m, ContextGain)):
            gain.narrow.copy_(_round(gain.narrow.T, dtype).T)
            gain.widen.copy_(_round(gain.widen, dtype))
    ours = torch.stack([engine.step(token) for token in tokens])
    torch.testing.assert_close(ours, torch_logits(rounded, tokens), rtol=0, atol=1e-4)


def _round(weight: torch.Tensor, dtype: str) -> torch.Tensor:
    if dtype == "bfloat16":
        return weight.bfloat16().float()
    step = weight.abs().amax(0) / 127
    return (weight / step).round() * step


@pytest.mark.parametrize("name", ["hybrid", "leaky", "steps", "relu2", "gains"])
def test_prefill_is_many_steps(name, native):
    engine, tokens = make_engine(make_model(name), native), tokens_of(20)
    by_steps = [engine.step(token) for token in tokens][-1]
    state = engine.new_state()
    assert torch.equal(engine.prefill(tokens, state), by_steps)
    assert torch.equal(engine.step(3, state), engine.step(3))


@pytest.mark.parametrize("name", ["hybrid", "leaky", "sdsa", "relu2"])
def test_a_copied_state_goes_its_own_way(name, native):
    engine, tokens = make_engine(make_model(name), native), tokens_of(12)
    engine.prefill(tokens)
    copied = engine.state.copy()
    first = engine.step(5)
    engine.prefill(tokens_of(9, seed=2))
    assert torch.equal(engine.step(5, copied), first)


def test_the_engine_does_not_follow_the_live_model():
    model, tokens = make_model("sdsa_gated"), tokens_of(6)
    engine = make_engine(model)
    first = engine.prefill(tokens)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    engine.reset()
    assert torch.equal(engine.prefill(tokens), first)


def test_reset_forgets(native):
    engine, tokens = make_engine(make_model("hybrid"), native), tokens_of(12)
    first = engine.prefill(tokens)
    assert not torch.equal(engine.prefill(tokens), first)
    engine.reset()
    assert torch.equal(engine.prefill(tokens), first)


@pytest.mark.parametrize("name", ["window_of_one", "hybrid", "sdsa_gated"])
def test_state_does_not_grow_without_full_attention(name):
    engine = make_engine(make_model(name))
    engine.prefill(tokens_of(4))
    before = engine.state.nbytes
    engine.prefill(tokens_of(2000))
    assert engine.state.nbytes == before


def test_full_attention_grows_past_its_first_capacity(native):
    model, tokens = make_model("grouped"), tokens_of(300)
    engine = make_engine(model, native)
    ours = engine.prefill(tokens[:250])
    ours = torch.stack([ours, *(engine.step(token) for token in tokens[250:])])
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0, 249:]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_a_checkpoint_directory_is_enough(tmp_path):
    for name in ("hybrid", "untied", "gains"):
        model, tokens = make_model(name), tokens_of(8)
        model.save_pretrained(tmp_path / name)
        engine = Engine.load(tmp_path / name)
        assert torch.equal(engine.prefill(tokens), make_engine(model).prefill(tokens))


def test_a_bfloat16_checkpoint_is_read(tmp_path):
    model = make_model("hybrid").bfloat16()
    model.save_pretrained(tmp_path)
    engine = Engine.load(tmp_path, dtype="bfloat16")
    torch.testing.assert_close(
        engine.prefill(tokens_of(8)), make_engine(model.float()).prefill(tokens_of(8))
    )


def test_foreign_directories_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        Engine.load(tmp_path)
    make_model("sdsa").save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        Engine.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="not a spikeloom checkpoint"):
        Engine.load(tmp_path)


def test_what_is_not_supported_is_refused_by_name():
    model = make_model("spiking")
    with pytest.raises(ConfigError, match="float16"):
        Engine.from_model(model, "float16")
    with pytest.raises(ConfigError, match=r"layers\[0\].mixer.*recurrent_lif"):
        check_supported(load_config("real-sam-v1").model)


def test_a_gain_of_another_rank_is_refused():
    model = make_model("gains")
    tensors = model.state_dict()
    name = "model.decoder.head_neuron.gain.widen"
    with pytest.raises(CheckpointError, match=rf"{name}: shape \(32, 4\), expected \(32, 5\)"):
        make_plan(model.config.architecture, tensors | {name: tensors[name][:, :4]}, "float32")


def test_foreign_and_missing_tensors_are_refused_by_name():
    model = make_model("spiking")
    model.extra = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"extra\.bias"):
        Engine.from_model(model)
    del model.extra
    del model.model.decoder.norm
    with pytest.raises(CheckpointError, match=r"lacks model\.decoder\.norm"):
        Engine.from_model(model)


def test_impossible_tokens_are_refused():
    engine = make_engine(make_model("spiking"))
    for bad in (-1, 64):
        with pytest.raises(SpikeloomError, match="vocabulary ends at 63"):
            engine.step(bad)
    with pytest.raises(SpikeloomError, match="at least one token"):
        engine.prefill([])


def test_generation_stops_behind_the_end_token():
    engine, prompt = make_engine(make_model("relu2")), tokens_of(5)
    free = list(engine.generate(prompt, max_new_tokens=12, temperature=2.0, seed=3, stops=()))
    stop = free[4]
    stopped = list(
        engine.generate(prompt, max_new_tokens=12, temperature=2.0, seed=3, stops=[stop])
    )
    assert stopped == free[: free.index(stop) + 1]


def test_sampling_follows_the_probabilities_and_the_seed():
    logits, rng = torch.tensor([0.0, 1.0, 2.0, -1.0]), np.random.default_rng(0)
    drawn = torch.tensor([sample(logits, 0.7, 1.0, rng) for _ in range(4000)])
    shares = drawn.bincount(minlength=4) / 4000
    torch.testing.assert_close(shares, torch.softmax(logits / 0.7, 0), rtol=0, atol=0.03)
    nucleus = {sample(logits, 1.0, 0.8, rng) for _ in range(500)}
    assert nucleus == {1, 2}
    assert sample(logits, 0.0, 1.0, rng) == 2
    assert sample(logits, 1e-320, 1.0, rng) == 2  # no overflow
    engine = make_engine(make_model("relu2"))
    runs = [list(engine.generate([1], 10, 1.0, 0.9, seed=7, stops=())) for _ in range(2)]
    assert runs[0] == runs[1]


def test_the_dense_twin_runs_on_the_same_engine():
    model = make_model("leaky")
    twin = SpikeloomForCausalLM(dense_twin(model.config)).eval()
    engine, tokens = make_engine(twin), tokens_of(8)
    ours = torch.stack([engine.step(token) for token in tokens])
    torch.testing.assert_close(ours, torch_logits(twin, tokens), rtol=0, atol=1e-4)
    assert engine.state.active_share == 1.0


def test_the_struct_layouts_agree():
    engine = make_engine(make_model("spiking"))
    assert isinstance(engine._native, native_step.NativeStep)
