"""SpikeGPT's place for a neuron, behind a block, and RWKV's blocks in front of it."""

import pytest
import torch
from small_models import BEHIND, build, config, tokens

from spikeloom import backends
from spikeloom.config import load_config, parse_run
from spikeloom.errors import ConfigError
from spikeloom.evaluation.compare import kind
from spikeloom.evaluation.perplexity import operations
from spikeloom.inference.plan import check_supported
from spikeloom.metrics import Recorder
from spikeloom.model import DecoderState, dense_twin, quantised_twin

BLOCK = {"mixer": "rwkv", "mlp": "rwkv", "mixer_spikes": BEHIND, "mlp_spikes": BEHIND}
DENSE = {"default": {"kind": "none"}}


@torch.no_grad()
def test_whole_spikes_go_into_the_stream():
    model = build("spikes behind")
    block = model.model.decoder.layers[0].blocks[0]
    added = []
    block.register_forward_hook(lambda _m, _a, out: added.append(out[0]))
    model(tokens(2, 30))
    assert set(added[0].unique().tolist()) == {0.0, 1.0}


@torch.no_grad()
def test_neurons_are_recorded_and_products_counted_dense():
    model = build("spikes behind")
    with Recorder(model) as recorder:
        model(tokens(2, 30))
    roles = {(r.layer, r.role) for r in recorder.records.values()}
    assert roles == {(i, role) for i in (0, 1) for role in ("mixer_spikes", "mlp_spikes")}
    assert all(0 < r.channel_rate < 1 for r in recorder.records.values())
    counted = operations(model, recorder, lambda window: 15.0)
    assert counted.active_share == 1.0
    assert counted.acs == 0
    assert counted.mixer_macs == 2 * 4 * 32  # two layers, 4 per channel
    assert kind(model.config.architecture) == "spiking"
    assert kind(dense_twin(model.config.architecture)) == "dense"


def test_the_quantised_twin_sends_every_level_and_remembers_nothing():
    twin = quantised_twin(config("spikes behind").architecture)
    for layer in twin.layer_list:
        for neuron in (layer.mixer_spikes, layer.mlp_spikes):
            assert (neuron.kind, neuron.levels, neuron.signed) == ("graded", 1, False)
            assert neuron.memoryless
    assert kind(twin) == "quantised"


@torch.no_grad()
def test_the_state_does_not_grow():
    model = build("spikes behind", torch.float32)
    state = DecoderState(model.config.architecture)
    model(tokens(1, 5), past_key_values=state, use_cache=True)
    size = state.nbytes
    model(tokens(1, 40), past_key_values=state, use_cache=True)
    assert state.nbytes == size
    assert state.layers[0]["sums"].shape == (1, 3, 32)


def test_packed_documents_do_not_meet():
    model = build("spikes behind")
    ids = tokens(1, 20)
    positions = torch.cat([torch.arange(12), torch.arange(8)])[None]
    with torch.no_grad():
        packed = model(ids, position_ids=positions, use_cache=False).logits
        alone = model(ids[:, 12:], use_cache=False).logits
    torch.testing.assert_close(packed[:, 12:], alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"layers": [BLOCK]}, "neurons.mixer_input.kind: 'graded' is impossible, expected none"),
        ({"layers": [{"mlp": "rwkv"}]}, "neurons.mlp_input.kind: .* layers.0..mlp=rwkv"),
        (
            {"layers": [{"mlp_spikes": {"kind": "none"}}]},
            "mlp_spikes.kind: 'none' is impossible, expected graded, lif or psn",
        ),
        ({"layers": [{"mlp": "none", "mlp_spikes": BEHIND}]}, "mlp_spikes: .* has no MLP"),
        ({"layers": [{"mixer_spikes": BEHIND, "mixer_rate": {}}]}, "null beside mixer_rate"),
        ({"layers": [BLOCK], "neurons": DENSE, "num_steps": 2}, "num_steps: 2 .* clock"),
        ({"layers": [BLOCK], "neurons": DENSE, "bidirectional": True}, "bidirectional"),
    ],
)
def test_what_cannot_be_is_refused(model, message):
    with pytest.raises(ConfigError, match=message):
        parse_run({"model": model})


@pytest.mark.parametrize(
    ("preset", "missing"), [("spikegpt-6m", "mixer=rwkv"), ("psn-6m", "neurons.mixer_input.taps=4")]
)
def test_other_engines_refuse_by_name(preset, missing):
    run = load_config(preset)
    for name in ("numpy", "mlx"):
        with pytest.raises(ConfigError, match=f"{missing}: the {name} backend cannot run it"):
            backends.check(name, run.model, run.training)
    with pytest.raises(ConfigError, match=r"rwkv|taps=4: the event-driven engine does not have"):
        check_supported(run.model)
    backends.check("torch", run.model)  # decodes with the model itself


def test_an_rwkv_mlp_alone_is_decoded_with_the_model():
    architecture = config("spikes behind and before").architecture
    for layer in ({"mlp": "rwkv"}, {"mlp": "relu2"}):
        run = parse_run({"model": {"layers": [layer], "neurons": DENSE}})
        lacks = backends._lacks(backends.find("torch"), run.model)
        assert lacks == (None if layer["mlp"] == "relu2" else "model.layers[0].mlp=rwkv")
    assert architecture.extras()["layers[0].mlp_spikes"] == "mlp_spikes"
