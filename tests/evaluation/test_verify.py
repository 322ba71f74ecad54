import pytest
import torch
from tiny_models import CONFIGS, build_model

from spikeloom.config import NeuronConfig
from spikeloom.errors import ConfigError
from spikeloom.evaluation import forms, verify
from spikeloom.evaluation.alignment import Alignment, distance_to, replay
from spikeloom.evaluation.forms import graded
from spikeloom.model.decoder import MixerBlock
from spikeloom.neurons import make_neuron

LONG = {"sdsa", "gated sdsa, grouped"}  # more tokens than a chunk of the parallel form


def run(name, new_tokens=6, **changes):
    model = build_model(**CONFIGS[name], **changes)
    tokens = verify.random_tokens(model, 70 if name in LONG else 24)
    return verify.verify(model, tokens, new_tokens)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_form_of_every_kind_agrees(name):
    report = run(name)
    assert report["passed"], report
    spiking = report["neurons"] > 0
    unrolled = {"unrolled_unary", "unrolled_bitwise"} if spiking else set()
    for precision in ("exact", "fp32"):
        assert report[precision].keys() == {"recurrent", "generate"} | unrolled
        for result in report[precision].values():
            assert result["passed"]
            assert result["spike_count_mismatches"] == 0
            assert result["greedy_match"] == 1.0
            assert result["max_abs_logit_difference"] <= 1e-4
            assert (result["events"] > 0) == spiking
    for form in unrolled | {"recurrent"}:
        assert report["exact"][form]["rounding_ties"] == 0
        assert report["exact"][form]["max_abs_logit_difference"] <= 1e-9


def test_dense_products_are_named():
    report = run("half dense")
    assert "lm_head" in report["dense_products"]
    assert any("up_proj" in name for name in report["dense_products"])
    assert len(report["dense_products"]) == 3
    assert "nothing to unroll" in run("dense")["notes"][0]


def test_the_model_is_left_alone():
    model = build_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    verify.verify(model, verify.random_tokens(model, 8), new_tokens=2)
    assert model.training
    assert model.dtype == torch.float32
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_too_few_tokens_are_refused():
    with pytest.raises(ConfigError, match="at least 4"):
        verify.verify(build_model(), torch.zeros(1, 3, dtype=torch.long))


# What verify is for: it must fail where something is wrong.


def test_a_lost_slot_is_seen(monkeypatch):
    whole = forms.slots
    monkeypatch.setattr(forms, "slots", lambda *args: list(whole(*args))[1:])
    report = run("graded")
    assert not report["passed"]
    assert not report["exact"]["unrolled_unary"]["passed"]
    assert report["exact"]["unrolled_bitwise"]["spike_count_mismatches"] > 0
    assert report["exact"]["recurrent"]["passed"]


def test_a_state_that_forgets_is_seen(monkeypatch):
    def forgetful(model, tokens):
        return torch.cat([model(column).logits for column in tokens.split(1, dim=1)], dim=1)

    monkeypatch.setattr(verify, "recurrent", forgetful)
    report = run("leaky, soft reset")
    assert not report["passed"]
    assert report["fp32"]["recurrent"]["spike_count_mismatches"] > 0
    assert report["fp32"]["generate"]["passed"]


def test_a_product_fed_by_more_than_spikes_is_seen(monkeypatch):
    model = build_model()
    product = model.model.decoder.layers[0].blocks[1].mlp.down_proj
    product.register_forward_pre_hook(lambda module, args: (args[0] + 0.01,))
    report = verify.verify(model, verify.random_tokens(model, 12), new_tokens=2)
    assert not report["fp32"]["unrolled_bitwise"]["passed"]


def test_a_look_into_the_future_is_seen(monkeypatch):
    causal = MixerBlock.forward

    def peeking(self, x, view, state):
        return causal(self, x + 0.1 * x.mean(1, keepdim=True), view, state)

    monkeypatch.setattr(MixerBlock, "forward", peeking)
    report = run("graded")
    assert not report["causality"]["passed"]
    assert not report["passed"]


def test_distance_to_a_decision_by_hand():
    neuron = make_neuron(NeuronConfig(theta=2.0, levels=4, fire_level=2), 1)
    neuron.reset_parameters()

    def distance(v, payload):
        voltage, payloads = torch.tensor([2.0 * v]), torch.tensor([float(payload)])
        return distance_to(neuron, voltage, payloads).item()

    assert distance(1.4, 2) == pytest.approx(0.1)  # fires from 1.5 on
    assert distance(1.7, 0) == pytest.approx(0.2)
    assert distance(-1.7, 0) == pytest.approx(0.2)
    assert distance(2.6, 2) == pytest.approx(0.1)  # 2 becomes 3 at 2.5
    assert distance(2.3, 3) == pytest.approx(0.2)
    assert distance(3.2, 4) == pytest.approx(0.3)
    assert distance(-2.6, -2) == pytest.approx(0.1)
    assert distance(1.7, -2) == pytest.approx(3.2)
    assert distance(1.0, 4) == pytest.approx(2.5)


def test_distance_of_unsigned_and_lif():
    unsigned = make_neuron(NeuronConfig(theta=1.0, levels=4, fire_level=1, signed=False), 1)
    lif = make_neuron(NeuronConfig(kind="lif", v_threshold=0.8), 1)
    for neuron in (unsigned, lif):
        neuron.reset_parameters()
    one, zero = torch.ones(1), torch.zeros(1)
    assert distance_to(unsigned, 0.7 * one, zero).item() == pytest.approx(0.2)
    assert distance_to(unsigned, -3 * one, one).item() == pytest.approx(3.5)
    assert distance_to(lif, 0.7 * one, one).item() == pytest.approx(0.1)
    assert distance_to(lif, 1.0 * one, zero).item() == pytest.approx(0.2)


@pytest.mark.parametrize(
    "config",
    [
        NeuronConfig(theta=0.5, levels=4, fire_level=2, beta=0.6),
        NeuronConfig(theta=0.5, levels=4, fire_level=2, beta=0.6, reset="hard", v_reset=0.2),
        NeuronConfig(kind="lif", beta=0.9, v_threshold=0.7, clip_membrane=1.0),
        NeuronConfig(theta=0.5, levels=4, fire_level=2),
        NeuronConfig(theta=0.5, levels=4, fire_level=2, gain_rank=2),
        NeuronConfig(theta=0.5, levels=4, fire_level=2, gain_rank=2, beta=0.6),
    ],
)
@pytest.mark.parametrize("num_steps", [1, 3])
def test_replaying_own_decisions_changes_nothing(config, num_steps):
    torch.manual_seed(0)
    neuron = make_neuron(config, 6, num_steps)
    neuron.reset_parameters()
    if config.gain_rank:
        for parameter in neuron.gain.parameters():
            parameter.data.normal_()
    x, state = torch.randn(3, 5, 6), torch.randn(3, 6) if neuron.remembers else None
    starts = torch.zeros(3, 5, dtype=torch.bool)
    starts[1, 2] = True
    emission, membrane, _ = neuron(x, state, starts)
    again, distance = replay(neuron, x, state, starts, neuron.payloads(emission))
    assert distance.max().item() == 0.0
    if neuron.remembers:
        assert torch.equal(again, membrane)


def test_a_rounding_tie_is_decided_alike_and_its_membrane_follows():
    """Soft reset, beta 1/2: at 1.4999 the neuron is silent, told to send 2 it keeps -0.5001."""
    neuron = make_neuron(NeuronConfig(theta=1.0, levels=4, fire_level=2, beta=0.5), 1)
    neuron.reset_parameters()
    holder = torch.nn.ModuleDict({"n": neuron})
    x = torch.tensor([[[1.4999], [1.0]]])
    wanted = {"n": torch.tensor([[[2.0], [0.0]]])}
    with Alignment(holder, wanted, tie=1e-3) as alignment:
        emission, state, _ = holder["n"](x)
    assert emission.flatten().tolist() == [2.0, 0.0]
    assert state.item() == pytest.approx(0.5 * (1.4999 - 2) + 1.0)
    assert (alignment.ties, alignment.mismatches) == (1, 0)
    assert alignment.largest_tie == pytest.approx(1e-4, rel=0.01)
    with Alignment(holder, wanted, tie=1e-5) as strict:
        holder["n"](x)
    assert (strict.ties, strict.mismatches) == (0, 1)


def test_forced_ties_in_a_whole_model_still_give_equal_logits():
    """Nudge the weights of a copy by rounding-sized noise: flips happen, and are held together."""
    first, second = build_model(), build_model()
    for name, parameter in second.named_parameters():
        if name.endswith("proj.weight"):
            parameter.data *= 1 + 2e-4 * torch.randn_like(parameter)
    tokens = verify.random_tokens(first, 60)
    with torch.inference_mode():
        logits, payloads = graded(first, tokens)
        with Alignment(second, payloads, tie=0.05) as alignment:
            other = second(tokens).logits
    assert alignment.ties > 0
    assert alignment.mismatches == 0
    assert float((logits - other).abs().max()) < 5e-3
