"""The map from products to neurons, which every measurement reads; and the twins."""

import copy
import dataclasses

import pytest
import torch
from small_models import NAMES, build, config, tokens
from torch import nn
from transformers import AutoModelForCausalLM

from spikeloom.config import ModelConfig, NeuronConfig, NeuronsConfig
from spikeloom.model import (
    SpikeloomForCausalLM,
    active_share,
    dense_twin,
    fed_weights,
    neurons,
    products,
    quantised_twin,
)
from spikeloom.model.shift import TokenShift
from spikeloom.neurons import Wire

FEEDERS = {
    "mixer.q_proj": "input_neuron",
    "mixer.k_proj": "input_neuron",
    "mixer.v_proj": "input_neuron",
    "mixer.decay_proj": "input_neuron",
    "mixer.salience.proj": "input_neuron",
    "mixer.fc_in": "input_neuron",
    "output_neuron.rec_proj": "output_neuron",
    "gate.gate_proj": "input_neuron",
    "o_proj": "output_neuron",
    "mlp.up_proj": "input_neuron",
    "mlp.gate_proj": "input_neuron",
    "mlp.down_proj": "mlp.hidden_neuron",
}


# RWKV's products read what a token shift makes of the input
SHIFTED = {f"mixer.{x}_proj": f"mixer.{x}_shift" for x in "kvr"}
SHIFTED |= {f"mlp.{x}_proj": f"mlp.{x}_shift" for x in ("up", "r")}


def feeder(name, shifted=False):
    """The path of the neuron that must stand before the product at this path."""
    if name == "lm_head":
        return "model.decoder.head_neuron"
    if ".blocks." not in name:  # encoder and readout
        return name.rpartition(".")[0] + ".neuron"
    block, tail = name[: name.index(".blocks.") + 9], name[name.index(".blocks.") + 10 :]
    return f"{block}.{(FEEDERS | SHIFTED if shifted else FEEDERS)[tail]}"


def check_map(model):
    found = products(model)
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert [p.linear for p in found] == linears  # every one, once, in order
    assert found[-1].name == "lm_head"
    for product in found:
        assert model.get_submodule(product.name) is product.linear
        block = product.name.rpartition("_proj")[0].rpartition(".")[0]
        shifted = isinstance(getattr(model.get_submodule(block), "r_shift", None), TokenShift)
        assert product.neuron_name == feeder(product.name, shifted)
        neuron = model.get_submodule(product.neuron_name)
        assert product.linear.neuron is neuron
        assert product.linear.in_features == neuron.size
        assert product.weights == product.linear.weight.numel()
        assert product.spikes == (not isinstance(neuron, Wire))


@pytest.mark.parametrize("name", NAMES)
def test_every_linear_layer_once_with_its_neuron(name, tmp_path):
    model = build(name, torch.float32)
    check_map(model)
    model.tie_weights()
    check_map(model)
    twin = copy.deepcopy(model)
    check_map(twin)
    originals = set(model.modules())
    assert not any(p.linear.neuron in originals for p in products(twin))
    model.save_pretrained(tmp_path)
    check_map(AutoModelForCausalLM.from_pretrained(tmp_path))


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_each_product_reads_exactly_what_its_neuron_emits(name):
    model = build(name)
    emitted, read = {}, {}
    for product in products(model):
        product.linear.register_forward_pre_hook(
            lambda _, args, key=product.name: read.update({key: args[0]})
        )
    for key, neuron in neurons(model).items():
        neuron.register_forward_hook(lambda _m, _a, out, key=key: emitted.update({key: out}))
    rates = model(tokens(2, 9)).firing_rates
    for product in products(model):
        emission = emitted[product.neuron_name][0]
        if product.name.endswith("rec_proj"):  # runs inside its neuron (ops/lif/recurrent.py)
            continue
        if product.name == "lm_head" and model.config.num_steps > 1:
            emission = emission.unflatten(0, (-1, model.config.num_steps)).mean(1)
        assert torch.equal(read[product.name], emission)
    # firing rates stand in the order of `neurons`
    assert torch.equal(rates, torch.stack([emitted[key][2] for key in neurons(model)]))


@torch.no_grad()
@pytest.mark.parametrize("name", ["mixed", "dense", "sdsa gated gqa"])
def test_active_share_is_weights_touched_over_all_weights(name):
    model = build(name)
    rates = model(tokens(2, 9)).firing_rates
    by_neuron = dict(zip(neurons(model), rates.tolist(), strict=True))
    touched = sum(by_neuron[p.neuron_name] * p.weights for p in products(model))
    total = sum(p.weights for p in products(model))
    assert fed_weights(model).sum().item() == total
    share = active_share(rates, fed_weights(model)).item()
    assert share == pytest.approx(touched / total, rel=1e-5)
    assert (share == pytest.approx(1.0)) == (name == "dense")


def matrices(made):
    with torch.device("meta"):
        model = SpikeloomForCausalLM(made)
    return {n: p.shape for n, p in model.named_parameters() if p.ndim == 2}


@pytest.mark.parametrize("name", ["attention", "attention gqa", "window", "sdsa", "lif steps"])
def test_the_dense_twin_has_the_same_matrices_and_no_neuron(name):
    spiking = config(name)
    twin = dense_twin(spiking)
    assert type(twin) is type(spiking)
    assert matrices(twin) == matrices(spiking)
    assert twin.architecture.num_steps == 1
    for layer in twin.architecture.layer_list:
        assert (layer.mixer, layer.sliding_window) == ("attention", None)
        assert layer.mlp != "spiking"
    with torch.device("meta"):
        model = SpikeloomForCausalLM(twin)
    assert all(isinstance(n, Wire) for n in neurons(model).values())
    assert not any(p.spikes for p in products(model))


def test_the_dense_twin_can_keep_mixers():
    spiking = config("mixed").architecture
    kept = dense_twin(spiking, mixer=None)
    assert isinstance(kept, ModelConfig)
    for ours, theirs in zip(spiking.layer_list, kept.layer_list, strict=True):
        assert dataclasses.replace(theirs, mlp=ours.mlp) == ours
    assert matrices(type(config("mixed")).from_architecture(kept)) == matrices(config("mixed"))


@pytest.mark.parametrize("name", ["mixed", "hard reset", "soft reset"])
def test_the_quantised_twin_keeps_the_levels_and_sends_them_all(name):
    spiking = config(name)
    twin = quantised_twin(spiking)
    assert type(twin) is type(spiking)
    assert matrices(twin) == matrices(spiking)
    roles = [role for role in dataclasses.fields(NeuronsConfig) if role.name != "encoder"]
    for role in roles:  # none of these has an encoder
        ours = getattr(spiking.architecture.neurons, role.name)
        theirs = getattr(twin.architecture.neurons, role.name)
        assert (theirs.kind, theirs.fire_level, theirs.window) == ("graded", 1, 0.0)
        assert theirs.memoryless
        assert (theirs.levels, theirs.signed) == (ours.levels, ours.signed)
    assert all(layer.mlp != "spiking" for layer in twin.architecture.layer_list)


def test_the_twins_of_a_recurrent_layer_keep_its_products():
    spiking = config("recurrent")
    dense, binary = dense_twin(spiking), quantised_twin(spiking)
    assert matrices(dense) == matrices(binary) == matrices(spiking)
    assert dense.architecture.neurons.mixer_output.kind == "none"
    neuron = binary.architecture.neurons.mixer_output
    assert neuron.kind == "lif"
    assert neuron.memoryless


def test_the_quantised_twin_of_binary_spikes_is_binary_and_of_wires_a_wire():
    lif, wire = NeuronConfig(kind="lif", beta=0.9), NeuronConfig(kind="none")
    made = quantised_twin(ModelConfig(neurons=NeuronsConfig(mixer_input=lif, head=wire)))
    assert (made.neurons.mixer_input.levels, made.neurons.mixer_input.signed) == (1, False)
    assert made.neurons.head == wire
