"""The report of an evaluation says which neurons do nothing."""

import torch
from tiny_models import build_model

from spikeloom.evaluation.perplexity import evaluate
from spikeloom.evaluation.text_report import print_evaluation


def test_neurons_that_hardly_fire_are_named(tokenizer, source, capsys):
    model = build_model(vocab_size=261)
    print_evaluation(evaluate(model, tokenizer, source))
    assert "silent" not in capsys.readouterr().out
    mlp = model.model.decoder.layers[1].blocks[1]
    with torch.no_grad():
        mlp.norm.weight.zero_()
        mlp.input_neuron.bias.zero_()
    print_evaluation(evaluate(model, tokenizer, source))
    printed = capsys.readouterr().out
    assert "silent" in printed
    assert "layers.1.blocks.1.input_neuron" in "".join(printed.split())
