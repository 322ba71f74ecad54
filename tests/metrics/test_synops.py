import pytest
import torch
from torch import nn

from spikeloom.config import LayerConfig, ModelConfig, NeuronConfig, NeuronsConfig
from spikeloom.metrics import Recorder, energy, operations
from spikeloom.metrics.energy import DRAM_WORD_PJ, SRAM_WORD_PJ
from spikeloom.model import SpikeLinear, SpikeloomConfig, SpikeloomForCausalLM


def build(neuron, seed=0, **changes):
    torch.manual_seed(seed)
    config = ModelConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        neurons=NeuronsConfig(*(neuron for _ in range(5))),
        **changes,
    )
    return SpikeloomForCausalLM(SpikeloomConfig.from_architecture(config)).eval()


def count(model, length=12, keys=lambda window: 3.0):
    ids = torch.randint(0, 40, (2, length), generator=torch.Generator().manual_seed(1))
    with Recorder(model) as recorder, torch.no_grad():
        model(ids)
    return operations(model, recorder, keys), ids


GRADED = NeuronConfig(levels=6, fire_level=2)


def test_products_by_brute_force_from_the_inputs_of_the_layers():
    """Count again without recorder or neurons: from what each linear layer is really given."""
    model = build(GRADED)
    inputs = {}
    for name, module in model.named_modules():
        if isinstance(module, SpikeLinear):
            module.register_forward_hook(lambda m, a, o, n=name: inputs.__setitem__(n, a[0]))
    counted, ids = count(model)
    assert {p.name for p in counted.products} == inputs.keys()
    touched = total = 0.0
    for p in counted.products:
        linear = model.get_submodule(p.name)
        spikes = (inputs[p.name] / linear.neuron.step).round().int().abs().flatten().tolist()
        tokens, d_out = ids.numel(), linear.out_features
        assert p.graded_macs == pytest.approx(sum(s > 0 for s in spikes) * d_out / tokens)
        assert p.unary_acs == pytest.approx(sum(spikes) * d_out / tokens)
        assert p.acs == pytest.approx(sum(s.bit_count() for s in spikes) * d_out / tokens)
        assert (p.macs, p.dense_macs) == (0, linear.weight.numel())
        touched += sum(s > 0 for s in spikes) * d_out / tokens
        total += linear.weight.numel()
    assert 0 < touched < total
    assert counted.active_share == pytest.approx(touched / total)
    assert counted.weights_touched == pytest.approx(touched)
    assert counted.acs == pytest.approx(sum(p.acs for p in counted.products))


def test_model_level_rates_weigh_neurons_by_their_channels():
    counted, _ = count(build(GRADED))
    rates = {p.neuron: (p.channel_rate, p.mean_count, p.d_in) for p in counted.products}
    channels = sum(d for _, _, d in rates.values())
    assert channels == 2 * (3 * 16 + 24) + 16
    rate = sum(r * d for r, _, d in rates.values()) / channels
    mean = sum(m * d for _, m, d in rates.values()) / channels
    assert counted.channel_rate == pytest.approx(rate)
    assert counted.mean_count == pytest.approx(mean)


def test_a_dense_model_is_multiply_accumulates_only():
    layers = (LayerConfig(sliding_window=2), LayerConfig(mixer="sdsa"))
    model = build(NeuronConfig(kind="none"), layers=layers)
    asked = []
    counted, _ = count(model, keys=lambda window: asked.append(window) or 1.75)
    weights = 2 * (4 * 16 * 16 + 2 * 16 * 24) + 16 * 40
    mixers = 2 * 16 * 1.75 + 3 * 2 * 8 * 8  # q . k and p . v over the window; the SDSA state
    assert asked == [2, 2]  # what is read, and every key
    assert counted.mixer_macs == mixers
    assert counted.macs == counted.dense_macs == weights + mixers
    assert (counted.acs, counted.active_share, counted.channel_rate) == (0, 1, None)
    assert counted.mean_count is None
    assert energy(counted)["ratio"] == 1


def test_step_clock_multiplies_operations_and_leaves_rates():
    lif = NeuronConfig(kind="lif", beta=0.9, v_threshold=0.5)
    counted, _ = count(build(lif, num_steps=3))
    p = counted.products[0]
    assert p.reads == 3
    assert 0 < p.channel_rate < 1
    assert p.acs == p.unary_acs == pytest.approx(3 * p.channel_rate * p.dense_macs)
    assert p.weights_touched == pytest.approx(p.acs)
    assert counted.mixer_macs == 3 * counted.dense_mixer_macs
    assert counted.active_share < 1


def test_dense_products_on_the_step_clock_run_every_step_but_the_head_once():
    counted, _ = count(build(NeuronConfig(kind="none"), num_steps=3))
    assert [p.reads for p in counted.products] == [3] * 12 + [1]
    assert counted.products[-1].macs == 16 * 40
    assert counted.products[0].macs == 3 * 16 * 16


def test_energy_by_hand():
    counted, _ = count(build(GRADED))
    estimate = energy(counted)
    dense, acs, macs = counted.dense_macs, counted.acs, counted.macs
    assert estimate["dense"] == pytest.approx(4.6 * dense)
    assert estimate["spiking"] == pytest.approx(0.9 * acs + 4.6 * macs)
    assert estimate["ratio"] == pytest.approx(estimate["dense"] / estimate["spiking"])
    int8 = estimate["precisions"]["int8"]
    assert int8["spiking"] == pytest.approx(0.03 * acs + 0.23 * macs)
    assert estimate["precisions"]["fp16"]["dense"] == pytest.approx(1.5 * dense)
    memory = estimate["memory"]
    assert memory["fp32_dram"]["dense"] == pytest.approx(4.6 * dense + 640 * counted.weights)
    assert memory["int8_sram"]["spiking"] == pytest.approx(
        int8["spiking"] + 5 / 4 * counted.weights_touched
    )
    assert (DRAM_WORD_PJ, SRAM_WORD_PJ) == (640, 5)
    assert "estimate" in estimate["label"]


def test_neurobench_counts_the_same():
    """Ternary spikes of size 1, so that NeuroBench sees spikes: accumulates and dense totals."""
    pytest.importorskip("neurobench")
    from neurobench.hooks.layer import LayerHook
    from neurobench.metrics.workload import SynapticOperations

    model = build(NeuronConfig(levels=1, fire_level=1, theta=1.0))
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]

    class Wrapped:
        connection_hooks = tuple(LayerHook(layer) for layer in layers)

    counted, ids = count(model)
    for hook in Wrapped.connection_hooks:  # one sample per token
        hook.inputs = [(x.flatten(0, 1),) for (x,) in hook.inputs]
    tokens = torch.zeros(ids.numel())
    theirs = SynapticOperations()(Wrapped(), None, (tokens, None))
    assert theirs["Effective_ACs"] == pytest.approx(counted.acs)
    assert theirs["Effective_ACs"] > 0
    assert theirs["Effective_MACs"] == 0
    assert theirs["Dense"] == counted.weights
