"""What the hybrids' mechanisms promise: sampled keys, kept tokens, errors of prediction."""

import pytest
import torch
from small_models import build, tokens

from spikeloom.config import parse_run
from spikeloom.errors import ConfigError
from spikeloom.metrics import Recorder
from spikeloom.metrics.synops import operations
from spikeloom.model.prediction import Prediction
from spikeloom.model.rotary import rotate, rotation

EXACT = {"rtol": 0, "atol": 1e-9}


def one_layer(name, **layer):
    plain = {"mixer": "attention", "mlp": "none", "spiking": False}
    return build(name, num_hidden_layers=1, layers=[{**plain, **layer}])


@torch.no_grad()
def test_only_sampled_tokens_are_read():
    model, ids = one_layer("attention", key_stride=4), tokens(1, 13)
    before = model(ids).logits
    for place in range(12):
        changed = ids.clone()
        changed[0, place] = (ids[0, place] + 1) % 64
        moved = (model(changed).logits - before).abs().amax(-1)[0] > 1e-9
        sampled = (place + 1) % 4 == 0
        assert moved[place]
        assert moved[place + 1 :].tolist() == [sampled] * (12 - place)


@torch.no_grad()
def test_attention_is_the_softmax_over_the_tokens_kept():
    salience = {"kind": "lif", "beta": 0.5, "v_threshold": 0.3}
    model, ids = one_layer("attention", salience=salience), tokens(1, 12)
    mixer = model.model.decoder.layers[0].blocks[0].mixer
    read = {}
    mixer.salience.neuron.register_forward_hook(lambda _m, _a, out: read.update(kept=out[0]))
    mixer.register_forward_hook(lambda _m, args, out: read.update(y=args[0], mixed=out[0]))
    model(ids)
    kept = read["kept"][0, :, 0].bool()
    assert 0 < kept.sum() < len(kept)
    plain = one_layer("attention").model.decoder.layers[0].blocks[0].mixer
    plain.load_state_dict(mixer.state_dict(), strict=False)
    q, k, v = plain.heads(read["y"])
    turned = rotation(torch.arange(12)[None], plain.rope_theta, plain.head_dim // 2)
    q, k = rotate(q, turned), rotate(k, turned)
    for i in range(12):
        seen = [j for j in range(i + 1) if kept[j] or j == i]
        wanted = torch.nn.functional.scaled_dot_product_attention(
            q[:, :, i : i + 1], k[:, :, seen], v[:, :, seen]
        )
        torch.testing.assert_close(read["mixed"][0, i], wanted.flatten(), **EXACT)


def test_tokens_left_out_are_taught_too():
    model, ids = build("salience").train(), tokens(4, 24)
    model(ids, labels=ids).loss.backward()
    for layer in model.model.decoder.layers:
        weight = layer.blocks[0].mixer.salience.proj.weight
        assert weight.grad.abs().sum() > 0


@torch.no_grad()
def test_the_cost_of_attention_follows_what_is_kept():
    model = build("salience")
    with Recorder(model) as recorder:
        model(tokens(2, 32))
    counted = operations(model, recorder, lambda window: 10.0)
    kept = [r.channel_rate for r in recorder.records.values() if r.role == "salience"]
    assert len(kept) == 2
    assert 0 < sum(kept) < 2
    each = 2 * 32  # of two layers, per key: 4 heads of width 8
    assert counted.dense_mixer_macs == 2 * each * 10
    assert counted.mixer_macs == pytest.approx(each * sum(1 + 9 * share for share in kept))


@torch.no_grad()
def test_the_cost_of_attention_follows_the_stride():
    model = build("key stride")
    with Recorder(model) as recorder:
        model(tokens(1, 8))
    counted = operations(model, recorder, lambda window: 10.0)
    assert counted.mixer_macs == pytest.approx(2 * 32 * ((1 + 9 / 3) + (1 + 9 / 2)))


def test_what_repeats_is_no_error():
    prediction = Prediction(4).double()
    torch.nn.init.ones_(prediction.weight)
    n = torch.randn(1, 1, 4, dtype=torch.float64).expand(1, 5, 4)
    error, last = prediction(n, None, None)
    assert torch.equal(error[:, 0], n[:, 0])
    assert error[:, 1:].abs().max() == 0
    starts = torch.tensor([[True, False, True, False, False]])
    error, _ = prediction(n, last, starts)
    assert torch.equal(error[0].abs().sum(-1) > 0, starts[0])


@torch.no_grad()
def test_a_predicted_token_is_not_refined():
    model = build("predictive")
    block = model.model.decoder.layers[0].blocks[1]
    block.prediction.weight.fill_(1.0)
    block.input_neuron.bias.zero_()
    block.mlp.hidden_neuron.bias.zero_()
    x = torch.randn(1, 1, 32, dtype=torch.float64).expand(1, 6, 32)

    class View:
        starts = None

    out, _, _ = block(x, View, None)
    assert out[:, 0].abs().max() > 0
    assert out[:, 1:].abs().max() == 0


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"key_stride": 0}, r"model.layers\[0\].key_stride: 0 is impossible, expected at least 1"),
        ({"mixer": "sdsa", "key_stride": 2}, "key_stride: 2 is .* only the mixer attention"),
        ({"mixer": "sdsa", "salience": {"kind": "lif"}}, "salience: .* only the mixer attention"),
        ({"salience": {"kind": "graded"}}, "salience.kind: 'graded' is impossible, expected lif"),
        ({"spiking": False, "mlp": "spiking"}, "mlp: 'spiking' is .* without neurons it is linear"),
        ({"predictive": True, "mlp": "none"}, "predictive: True is impossible"),
    ],
)
def test_impossible_layers_are_refused(layer, message):
    with pytest.raises(ConfigError, match=message):
        parse_run({"model": {"layers": [layer]}})
