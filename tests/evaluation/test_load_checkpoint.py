import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import build_model

from spikeloom import tokenizers
from spikeloom.errors import CheckpointError
from spikeloom.evaluation.checkpoint import load


@pytest.fixture
def directory(checkpoints, tmp_path):
    return shutil.copytree(checkpoints["spiking"], tmp_path / "run")


def edit_weights(directory, change):
    file = directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def refused(directory, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        load(directory)
    assert "\n" not in str(caught.value)


def test_a_whole_checkpoint(directory, capfd):
    model, tokenizer = load(directory)
    assert not model.training
    assert model.dtype == torch.float32
    assert model.lm_head.weight is model.model.decoder.embed_tokens.weight
    original = build_model(vocab_size=261, max_position_embeddings=32)
    ids = torch.tensor([tokenizer.encode("The cat")])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, original(ids).logits)
    assert capfd.readouterr() == ("", "")
    half, _ = load(directory, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    half.save_pretrained(directory)  # a shorter file, read as any other
    assert load(directory)[0].dtype == torch.float32


def test_missing(tmp_path, directory):
    refused(tmp_path / "nowhere", "nowhere is not a directory")
    refused(tmp_path, "has no config.json")
    (directory / "model.safetensors").unlink()
    refused(directory, "no model.safetensors")


def test_foreign_config(directory):
    (directory / "config.json").write_text('{"model_type": "gpt2"}')
    refused(directory, "type 'gpt2'")
    (directory / "config.json").write_text("{")
    refused(directory, "not readable as JSON")
    (directory / "config.json").write_text("[]")
    refused(directory, "not a spikeloom checkpoint")


def test_impossible_config(directory):
    tree = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**tree, "hidden_size": "wide"}))
    refused(directory, r"config.json: .*hidden_size")


def test_truncated_weights(directory):
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    refused(directory, "truncated")
    file.write_bytes(b"not a tensor in sight")
    refused(directory, "truncated or not a safetensors")


def test_weights_that_do_not_fit(directory):
    name = "model.decoder.norm.weight"
    edit_weights(directory, lambda tensors: tensors.update({name: torch.ones(33)}))
    refused(directory, r"norm.weight has shape \(33,\), config.json asks for \(32,\)")
    edit_weights(directory, lambda tensors: tensors.pop(name))
    refused(directory, "1 weights are missing, as model.decoder.norm.weight")
    extra = {name: torch.ones(32), "transformer.h.0": torch.ones(1)}
    edit_weights(directory, lambda tensors: tensors.update(extra))
    refused(directory, "1 weights are foreign, as transformer.h.0")


def test_a_tokenizer_that_is_too_large_or_missing(directory):
    tokenizers.train("char", ["ÄÖÜ"], 264).save_pretrained(directory)
    refused(directory, "the tokenizer has 264 tokens, the model only 261")
    for file in directory.glob("token*"):
        file.unlink()
    refused(directory, "tokenizer")


def test_an_interrupted_run_gives_its_newest_whole_checkpoint(directory, tmp_path, capsys):
    run = tmp_path / "interrupted"
    for step in (9, 10, 100):
        shutil.copytree(directory, run / f"checkpoint-{step}")
    edit_weights(run / "checkpoint-10", lambda t: t["model.decoder.norm.weight"].fill_(7.0))
    file = run / "checkpoint-100" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    (run / "checkpoint-tmp").mkdir()
    model, _ = load(run)
    assert model.model.decoder.norm.weight[0].item() == 7.0
    note = capsys.readouterr().err
    assert "checkpoint-10\n" in note
    assert note.count("\n") == 1


def test_nothing_whole_in_an_interrupted_run(directory, tmp_path):
    run = tmp_path / "interrupted"
    shutil.copytree(directory, run / "checkpoint-3")
    (run / "checkpoint-3" / "model.safetensors").unlink()
    refused(run, "is not a checkpoint")
