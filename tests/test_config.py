"""Configs are strict: each refusal names the field, the value, and what would do."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom import presets
from spikeloom.config import (
    EXTRAS,
    LayerConfig,
    ModelConfig,
    NeuronConfig,
    NeuronsConfig,
    RunConfig,
    TrainingConfig,
    expand_neurons,
    load_config,
    parse_run,
)
from spikeloom.errors import ConfigError
from spikeloom.strict import build, to_dict

HEAD = "model.neurons.head"
# path of the key, its value, what the message must say besides path and value
REFUSED = [
    # unknown keys, with a suggestion
    ("modle", {}, "unknown key (did you mean 'model'?)"),
    ("model.hiden_size", 64, "unknown key (did you mean 'hidden_size'?)"),
    ("model.neurons.haed", {}, "unknown key (did you mean 'head'?)"),
    (f"{HEAD}.fire_levels", 3, "unknown key (did you mean 'fire_level'?)"),
    ("training.learning_rat", 0.1, "unknown key (did you mean 'learning_rate'?)"),
    ("tokenizer.qqqq", 1, "unknown key"),
    # wrong types
    ("model", 3, "expected a table of keys, got 3"),
    ("model.hidden_size", "wide", "expected int, got 'wide'"),
    ("model.hidden_size", 64.0, "expected int, got 64.0"),
    ("model.vocab_size", True, "expected int, got True"),
    ("model.qk_norm", 1, "expected bool, got 1"),
    ("model.layers", "sdsa", "expected a list, got 'sdsa'"),
    ("model.layers", [3], "[0]: expected a table of keys, got 3"),
    ("model.layers", [{}, {"mixr": "sdsa"}], "[1].mixr: unknown key (did you mean 'mixer'?)"),
    ("model.rope_theta", "fast", "expected float, got 'fast'"),
    (f"{HEAD}.theta", None, "expected float, got None"),
    (f"{HEAD}.signed", "yes", "expected bool, got 'yes'"),
    ("training.betas", [0.9], "expected 2 values, got [0.9]"),
    ("training.report_to", "tensorboard", "expected a list"),
    ("training.learning_rate", False, "expected float, got False"),
    # unknown words
    (f"{HEAD}.kind", "graed", "is not one of graded, lif, psn, none"),
    (f"{HEAD}.reset", "zero", "is not one of soft, hard"),
    (f"{HEAD}.surrogate", "atann", "'atann' is unknown (did you mean 'atan'?)"),
    (f"{HEAD}.surrogate", "##", "expected one of straight_through, atan"),
    ("model.layers", [{"mixer": "atention"}], "(did you mean 'attention'?)"),
    ("model.layers", [{"mlp": "relu"}], "(did you mean 'relu2'?)"),
    ("model.layers", [{"decay": "fixed"}], "is not one of learned, gated"),
    ("training.optimizer", "sgd", "is not one of adamw, muon"),
    ("tokenizer.kind", "wordpiece", "is not one of bpe, char, syllable"),
    # impossible values
    (f"{HEAD}.levels", 0, "0 is impossible, expected between 1 and 127"),
    (f"{HEAD}.fire_level", 25, "expected between 1 and levels (24)"),
    (f"{HEAD}.fire_level", 0, "expected between 1 and levels (24)"),
    (f"{HEAD}.theta", 0, "expected a positive step"),
    (f"{HEAD}.theta", "nan", "expected a finite number, got nan"),
    (f"{HEAD}.v_reset", float("-inf"), "expected a finite number, got -inf"),
    ("training.betas", [0.9, ".nan"], "expected float, got '.nan'"),
    ("training.betas", [0.9, float("nan")], "betas[1]: expected a finite number, got nan"),
    (f"{HEAD}.levels", 128, "between 1 and 127: payloads are then exact in int8 and bfloat16"),
    (HEAD, {"v_reset": 1.0, "kind": "lif", "reset": "hard"}, "a voltage below v_threshold (1.0)"),
    (f"{HEAD}.window", 1.5, "expected a share of fire_level in [0, 1]"),
    (f"{HEAD}.beta", 1, "expected a decay in [0, 1)"),
    (f"{HEAD}.beta", -0.1, "expected a decay in [0, 1)"),
    (f"{HEAD}.learn_beta", True, "expected false, or a beta above 0"),
    (f"{HEAD}.v_threshold", 0, "expected a positive voltage"),
    (f"{HEAD}.clip_membrane", -5, "expected a positive voltage"),
    ("model.layers", [], "expected at least one entry"),
    ("model.layers", [{"sliding_window": 0}], "expected null or at least 1 token"),
    ("model.layers", [{"rope_theta": 0}], "expected null or a positive base"),
    ("model.num_attention_heads", 7, "divides hidden_size (384) into even head widths"),
    ("model.num_attention_heads", 128, "divides hidden_size (384) into even head widths"),
    ("model.num_key_value_heads", 4, "expected a divisor of heads (6)"),
    ("model.num_key_value_heads", 0, "expected a divisor of heads (6)"),
    ("model.rope_theta", -1.0, "expected a positive base"),
    ("model.pad_token_id", 4096, "a token id below vocab_size (4096)"),
    ("model.eos_token_id", -1, "a token id below vocab_size (4096)"),
    ("model.num_steps", 0, "expected at least 1"),
    ("model.intermediate_size", 0, "expected at least 1"),
    ("model.rms_norm_eps", 0, "expected a small positive number"),
    ("tokenizer.vocab_size", 1, "expected at least 2"),
    ("training.batch_size", 0, "expected at least 1"),
    ("training.learning_rate", -1, "expected a positive number"),
    ("training.max_minutes", 0, "expected a positive number"),
    ("training.weight_decay", -0.1, "expected 0 or more"),
    ("training.rate_weight", -1.0, "expected 0 or more"),
    ("training.num_workers", -1, "expected 0 or more"),
    ("training.sample_every", -1, "expected 0 or more"),
    ("training.min_learning_rate", -0.1, "a share of the peak in [0, 1]"),
    ("training.min_learning_rate", 1.5, "a share of the peak in [0, 1]"),
    ("training.seed", -1, "a number in [0, 2**32)"),
    ("training.seed", 2**32, "a number in [0, 2**32)"),
    ("training.betas", [0.9, 1.0], "expected two decays in [0, 1)"),
    ("training.betas", [-0.1, 0.9], "expected two decays in [0, 1)"),
    ("training.restarts", 0, "expected at least 1"),
    ("training.eval_tokens", 0, "expected at least 1"),
    ("training.report_to", ["tensorbord"], "(did you mean 'tensorboard'?)"),
    ("training.warmup", 1, "a share of the budget in [0, 1)"),
    ("training.target_active_share", 1.2, "null or within (0, 1]"),
    ("training.target_firing_rate", 1, "null or within (0, 1)"),
    ("training.converged", 1, "a share of the loss in [0, 1)"),
    ("training.converged_over", 0, "expected at least 1"),
    # Real Sam
    (f"{HEAD}.homeostasis", 0.1, "0, or a neuron of kind lif"),
    (f"{HEAD}.diversity", -1, "expected 0 or more"),
    (f"{HEAD}.stress_gain", 1, "expected a share in [0, 1)"),
    (f"{HEAD}.target_rate", 0, "expected a rate in (0, 1)"),
    ("model.embedding_size", 0, "null or at least 1"),
    ("model.norm", "batch", "is not one of rms, layer, none"),
    ("model.layers", [{"gate": "open"}], "is not one of none, channel, product"),
]
LAYER = "layers[0].mixer=recurrent_lif"


def tree(path, value):
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


@pytest.mark.parametrize(("path", "value", "advice"), REFUSED)
def test_refusals_name_field_value_and_what_would_do(path, value, advice):
    with pytest.raises(ConfigError) as refusal:
        parse_run(tree(path, value))
    message = str(refusal.value)
    assert message.startswith(path)
    assert advice in message
    assert "\n" not in message
    if "impossible" in message and value not in ("nan", []):
        wrong = value
        if isinstance(value, list):
            wrong = value[0] if isinstance(value[0], dict) else tuple(value)
        wrong = next(iter(wrong.values())) if isinstance(wrong, dict) else wrong
        assert f"{wrong} is impossible" in message or f"{float(wrong)} is impossible" in message


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("neurons.mixer_output.kind=graded", "kind: 'graded' is impossible, expected lif or none"),
        ("neurons.mixer_output.reset=hard", "reset: 'hard' is impossible, expected soft"),
        ("neurons.mixer_output.clip_membrane=5", "clip_membrane: 5.0 is impossible, expected null"),
        ("num_steps=4", "num_steps: 4 is impossible, expected 1 (the token clock)"),
        ("bidirectional=true", "bidirectional: True is impossible, expected false"),
    ],
)
def test_a_recurrent_layer_has_a_say_in_neuron_and_clock(override, says):
    with pytest.raises(ConfigError) as refusal:
        load_config("real-sam-v1", [f"model.{override}"])
    assert f"{says} with {LAYER}" in str(refusal.value)


def test_what_goes_beyond_the_plain_decoder_is_listed_by_place():
    assert load_config("spikeloom-1m").model.extras() == {}
    assert load_config("flow-15m").model.extras() == {}
    pulse = load_config("pulse-15m").model
    assert pulse.extras() == {
        f"layers[{i}].{name}": name
        for i in range(len(pulse.layers))
        for name in ("mixer_rate", "mlp_rate")
    }
    found = load_config("real-sam-v4").model.extras()
    assert list(found)[:3] == ["embedding_size=256", "norm=layer", "layers[0].gate=channel"]
    assert found["neurons.mixer_output.diversity=0.5"] == "diversity"
    assert set(found.values()) <= set(EXTRAS)


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("training.batch_size", "expected key=value"),
        ("=3", "expected key=value"),
        (".=3", "expected key=value"),
        ("model..hidden_size=3", "expected key=value"),
        ("model.neurons.head={kind: lif, kind: none}", "not valid YAML"),
        ("model.hidden_size=[", "not valid YAML"),
        ("model.hidden_size.x=3", "hidden_size is a value, not a table"),
        ("model.layers.9.mixer=sdsa", "9 is not an entry of a list of 1"),
        ("model.layers.first.mixer=sdsa", "first is not an entry of a list of 1"),
        ("model.layers.-1.mixer=sdsa", "-1 is not an entry of a list of 1"),
        ("model.hiden_size=3", "(did you mean 'hidden_size'?)"),
        ("training.batch_size=", "training.batch_size: expected int, got None"),
        ("training.batch_size=many", "training.batch_size: expected int, got 'many'"),
    ],
)
def test_bad_overrides(override, advice):
    with pytest.raises(ConfigError) as refusal:
        load_config("spikeloom-1m", [override])
    assert advice in str(refusal.value)
    assert override.partition("=")[0].rpartition(".")[2] in str(refusal.value)


def test_overrides_reach_tables_lists_and_defaults():
    run = load_config(
        "spikeloom-1m",
        [
            "training.learning_rate=5e-4",
            "model.layers.0.mixer=sdsa",
            "model.neurons.default.theta=0.5",
            "model.neurons.head={kind: none}",
            "training.report_to=[tensorboard]",
            "description=a=b",
        ],
    )
    assert run.training.learning_rate == 5e-4
    assert run.model.layers == (LayerConfig(mixer="sdsa", mlp="relu2"),)
    assert run.model.neurons.mixer_input.theta == 0.5
    assert run.model.neurons.head.kind == "none"
    assert run.training.report_to == ("tensorboard",)
    assert run.description == "a=b"


def test_overrides_leave_the_preset_alone():
    load_config("spikeloom-1m", ["model.hidden_size=320", "model.layers.0.mlp=none"])
    assert load_config("spikeloom-1m") == load_config("spikeloom-1m", [])


@pytest.mark.parametrize("text", ["2e-3", "0.002", "2.0e-3", "2E-3"])
def test_yaml_numbers_are_floats(text, tmp_path):
    # YAML 1.1 reads 2e-3 (no dot) as a string
    path = tmp_path / "run.yaml"
    path.write_text(f"training: {{learning_rate: {text}, clip: 1}}\n")
    training = load_config(str(path)).training
    assert training.learning_rate == 0.002
    assert type(training.clip) is float


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"- a\n", "expected keys such as model, tokenizer, training"),
        (b"model: [\n", "not readable as YAML"),
        (b"\xff\xfe\x00", "not readable as YAML"),
        (b"", "expected keys such as model"),
        (b"model: {}\ntraining: {}\nmodel: {}\n", "line 3: the key 'model' is given twice"),
        (b"training: {seed: 1, seed: 2}\n", "line 1: the key 'seed' is given twice"),
    ],
)
def test_unreadable_files(content, advice, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refusal:
        load_config(str(path))
    assert str(path) in str(refusal.value)
    assert advice in str(refusal.value)


def test_unknown_preset_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"neither a preset nor .* mean 'spikeloom-1m'"):
        load_config("spikelom-1m")


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_builds_and_round_trips(name):
    run = load_config(name)
    assert run.description
    assert build(RunConfig, json.loads(json.dumps(to_dict(run))), "") == run


def test_defaults_are_shared_by_roles_and_overridden_by_their_own_keys():
    model = expand_neurons(
        {
            "neurons": {
                "default": {"theta": 0.5, "levels": 8},
                "head": {"levels": 4},
                "mlp_hidden": {},
            }
        }
    )
    assert set(model["neurons"]) == {f.name for f in dataclasses.fields(NeuronsConfig)}
    assert model["neurons"]["head"] == {"theta": 0.5, "levels": 4}
    # a default replaces the roles' own defaults as well
    assert model["neurons"]["mlp_hidden"] == {"theta": 0.5, "levels": 8}


def test_without_default_roles_keep_their_own_defaults():
    run = parse_run({"model": {"neurons": {"head": {"theta": 0.5}}}})
    assert run.model.neurons == NeuronsConfig(head=NeuronConfig(theta=0.5))
    assert run.model.neurons.mlp_hidden.fire_level == 1


def test_expanding_changes_nothing_in_place():
    given_tree = {"neurons": {"default": {"theta": 0.5}}}
    before = json.dumps(given_tree)
    expand_neurons(given_tree)
    parse_run({"model": given_tree})
    assert json.dumps(given_tree) == before


@pytest.mark.parametrize(
    ("neurons", "message"),
    [
        ({"default": 3}, "model.neurons.default: expected a table of neuron keys, got 3"),
        ({"default": {}, "head": "none"}, "model.neurons.head: expected a table"),
        ({"default": {}, "haed": {}}, "model.neurons.haed: unknown key (did you mean 'head'?)"),
        ({"default": {"thta": 1}}, "thta: unknown key (did you mean 'theta'?)"),
    ],
)
def test_bad_neuron_defaults(neurons, message):
    with pytest.raises(ConfigError) as refusal:
        parse_run({"model": {"neurons": neurons}})
    assert message in str(refusal.value)


NEURONS = st.builds(
    NeuronConfig,
    kind=st.sampled_from(["graded", "lif", "none"]),
    signed=st.booleans(),
    levels=st.integers(8, 64),
    fire_level=st.integers(1, 8),
    theta=st.floats(1e-3, 10),
    window=st.floats(0, 1),
    beta=st.floats(0, 0.999),
    reset=st.sampled_from(["soft", "hard"]),
    v_reset=st.floats(-2, 0.5),
    clip_membrane=st.none() | st.floats(0.1, 10),
)
LAYERS = st.builds(
    LayerConfig,
    mixer=st.sampled_from(["attention", "sdsa"]),
    mlp=st.sampled_from(["spiking", "relu2", "swiglu", "none"]),
    sliding_window=st.none() | st.integers(1, 512),
    decay=st.sampled_from(["learned", "gated"]),
)
MODELS = st.builds(
    ModelConfig,
    layers=st.lists(LAYERS, min_size=1, max_size=4).map(tuple),
    neurons=st.builds(NeuronsConfig, mixer_input=NEURONS, mlp_hidden=NEURONS, head=NEURONS),
    num_steps=st.integers(1, 8),
    pad_token_id=st.none() | st.integers(0, 4095),
)


@settings(deadline=None)  # other work may share the machine
@given(MODELS)
def test_json_round_trip(model):
    text = json.dumps(to_dict(model), allow_nan=False)
    assert build(ModelConfig, json.loads(text), "model") == model


def test_the_layer_pattern_repeats():
    a, b = LayerConfig(mixer="sdsa"), LayerConfig(mixer="attention")
    assert ModelConfig(num_hidden_layers=5, layers=(a, b)).layer_list == (a, b, a, b, a)
    assert ModelConfig(num_hidden_layers=1, layers=(a, b)).layer_list == (a,)


@pytest.mark.parametrize("config", [NeuronConfig(), LayerConfig(), ModelConfig(), TrainingConfig()])
def test_configs_are_frozen(config):
    name = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, None)


def test_a_model_without_an_encoder_has_no_encoder_neuron_to_differ_in():
    shared = {"default": {"kind": "graded", "levels": 7}}
    sizes = {"vocab_size": 300, "hidden_size": 8, "num_attention_heads": 2}
    without = parse_run({"model": {**sizes, "neurons": shared}}).model.neurons
    assert without.head.levels == 7
    assert without.encoder == NeuronsConfig().encoder
    encoded = parse_run({"model": {**sizes, "neurons": shared, "embedding_size": 8}}).model.neurons
    assert (encoded.encoder.kind, encoded.encoder.levels) == ("graded", 7)


@pytest.mark.parametrize(
    ("training", "rows", "positions"),
    [
        ({}, 16, 16),
        ({"context": 8}, 8, 16),
        ({"context": 32}, 32, 32),
        ({"phases": [{"context": 8, "share": 0.5}, {"context": 64, "share": 0.5}]}, 64, 64),
    ],
)
def test_a_model_knows_the_positions_that_it_is_trained_on(training, rows, positions):
    run = parse_run({"model": {"max_position_embeddings": 16}, "training": training})
    decided = run.with_context()
    assert decided.training.context == rows
    assert decided.model.max_position_embeddings == positions
    assert decided.with_context() == decided
