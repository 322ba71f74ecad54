"""Heads for tagging and for texts: shapes, padding, both directions, and what is refused."""

import pytest
import torch
from small_heads import SMALL, tagger
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from spikeloom.config import LayerConfig, NeuronConfig, NeuronsConfig
from spikeloom.errors import ConfigError
from spikeloom.model import (
    SpikeloomConfig,
    SpikeloomForCausalLM,
    SpikeloomForSequenceClassification,
    SpikeloomForTokenClassification,
    products,
)

MIXERS = {
    "attention": LayerConfig(),
    "window": LayerConfig(sliding_window=4),
    "sdsa": LayerConfig(mixer="sdsa"),
    "gated sdsa": LayerConfig(mixer="sdsa", decay="gated"),
    "hadamard": LayerConfig(mixer="sdsa_hadamard", decay="none"),
}
layers = pytest.mark.parametrize("layer", MIXERS.values(), ids=MIXERS)
IDS = torch.arange(2, 22).view(2, 10)


def dense():
    """Without neurons every small change of the input shows in the output."""
    return NeuronsConfig(*(NeuronConfig(kind="none") for _ in range(5)))


@torch.no_grad()
def logits_of(model, ids, mask=None):
    return model(input_ids=ids, attention_mask=mask).logits


@layers
@pytest.mark.parametrize("bidirectional", [False, True])
def test_who_sees_whom(layer, bidirectional):
    model = tagger(layers=(layer,), neurons=dense(), bidirectional=bidirectional).double()
    changed = IDS.clone()
    changed[:, 4] = 50
    moved = (logits_of(model, IDS) - logits_of(model, changed)).abs().amax((0, 2)) > 1e-9
    assert moved[4:6].all()
    assert moved[:4].any() == bidirectional
    if bidirectional and layer.sliding_window is None:
        assert moved.all()


@layers
def test_a_text_read_from_its_end_is_tagged_from_its_end(layer):
    """Without positions (SDSA has none) both directions are alike."""
    if layer.mixer == "attention":
        pytest.skip("rotary positions know left from right")
    model = tagger(layers=(layer,), bidirectional=True).double()
    torch.testing.assert_close(logits_of(model, IDS.flip(1)), logits_of(model, IDS).flip(1))


@layers
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_changes_nothing(layer, side, bidirectional):
    model = tagger(layers=(layer,), bidirectional=bidirectional).double()
    pad, text = torch.full((2, 3), 1), slice(3, None) if side == "left" else slice(0, 10)
    ids = torch.cat([pad, IDS] if side == "left" else [IDS, pad], dim=1)
    mask = (ids != 1).long()
    torch.testing.assert_close(logits_of(model, ids, mask)[:, text], logits_of(model, IDS))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_one_label_for_a_text_whatever_the_padding(bidirectional):
    model = tagger(SpikeloomForSequenceClassification, bidirectional=bidirectional).double()
    padded = torch.cat([IDS, torch.full((2, 3), 1)], dim=1)
    found = logits_of(model, padded, (padded != 1).long())
    assert found.shape == (2, 3)
    torch.testing.assert_close(found, logits_of(model, IDS))


def test_the_classifier_reads_the_head_neuron_and_learns():
    model = tagger(bidirectional=True).train()
    labels = IDS % 3
    labels[:, 5:] = -100
    output = model(input_ids=IDS, labels=labels)
    wanted = torch.nn.functional.cross_entropy(
        output.logits[:, :5].flatten(0, 1), IDS[:, :5].flatten() % 3
    )
    torch.testing.assert_close(output.loss, wanted)
    output.loss.backward()
    assert model.classifier.weight.grad.abs().sum() > 0
    last = products(model)[-1]
    assert (last.name, last.neuron_name) == ("classifier", "model.decoder.head_neuron")


def test_auto_classes_read_what_was_saved(tmp_path):
    model = tagger(bidirectional=True)
    model.save_pretrained(tmp_path)
    again = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert isinstance(again, SpikeloomForTokenClassification)
    assert again.config.bidirectional
    assert again.config.id2label == {0: "O", 1: "B-PER", 2: "I-PER"}
    torch.testing.assert_close(logits_of(again, IDS), logits_of(model, IDS))
    text = tagger(SpikeloomForSequenceClassification)
    text.save_pretrained(tmp_path / "text")
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "text")
    assert isinstance(found, SpikeloomForSequenceClassification)


def test_a_language_model_may_not_look_ahead():
    config = SpikeloomConfig(**SMALL, bidirectional=True)
    with pytest.raises(ConfigError, match=r"model.bidirectional: True is impossible.*--task ner"):
        SpikeloomForCausalLM(config)
    with pytest.raises(ValueError, match="keeps no state"):
        tagger(bidirectional=True).model(input_ids=IDS, use_cache=True)
