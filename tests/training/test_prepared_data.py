"""Training from a prepared directory, in several shards, is training; and it resumes exactly."""

import json

import pytest
import torch
from tiny_runs import TEXT, interrupted, losses_of, run_of, weights_of

from spikeloom import tokenizers
from spikeloom.data.packing import pack
from spikeloom.data.prepare import Layout, prepare
from spikeloom.errors import DataError
from spikeloom.evaluation.checkpoint import load
from spikeloom.evaluation.perplexity import evaluate
from spikeloom.training.train import train


@pytest.fixture(scope="module")
def words():
    return tokenizers.train("char", [TEXT], 300)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    file = tmp_path_factory.mktemp("lines") / "lines.jsonl"
    file.write_text("".join(json.dumps({"text": line}) + "\n" for line in TEXT.splitlines() * 3))
    return str(file)


@pytest.fixture(scope="module")
def prepared(source, words, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "data"
    layout = Layout(contexts=(16,), eval_share=0.2, seed=1, shard_tokens=150)
    counts = prepare(source, words, out, layout)
    assert counts["rows"]["16"]["train"] > 30
    assert len(list((out / "train").glob("tokens-*.bin"))) > 3
    return str(out)


@pytest.mark.parametrize("separate", [False, True])
def test_resume_mid_epoch_is_exact(separate, prepared, tmp_path, monkeypatch):
    run = run_of(max_steps=12, separate_documents=separate)  # an epoch is 9 or 10 batches
    whole = train(run, prepared, tmp_path / "whole").directory
    for stopped in (4, 11):
        out = tmp_path / f"stopped-{stopped}"
        interrupted(monkeypatch, run, prepared, out, stopped)
        train(run, prepared, out, resume=True)
        ours, theirs = weights_of(whole), weights_of(out)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert losses_of(whole) == losses_of(out)


def test_keeping_documents_apart_makes_a_difference(prepared, tmp_path):
    runs = [
        train(run_of(max_steps=2, separate_documents=apart), prepared, tmp_path / str(apart))
        for apart in (True, False)
    ]
    assert runs[0].metrics["eval_loss"] != runs[1].metrics["eval_loss"]


def test_the_prepared_tokenizer_is_the_models(prepared, words, tmp_path):
    out = train(run_of(max_steps=1), prepared, tmp_path / "run").directory
    model, tokenizer = load(out)
    assert tokenizers.fingerprint(tokenizer) == tokenizers.fingerprint(words)
    assert model.config.vocab_size == tokenizers.size(words)
    report = evaluate(model, tokenizer, pack(prepared, tokenizer), context=16)
    assert report["bytes"] == sum(len(line) for line in TEXT.splitlines() * 3)


def test_another_tokenizer_does_not_fit(prepared, tmp_path):
    tokenizers.train("bpe", [TEXT], 300).save_pretrained(tmp_path / "bpe")
    with pytest.raises(DataError, match="prepared with another tokenizer"):
        train(run_of(), prepared, tmp_path / "run", tokenizer=str(tmp_path / "bpe"))
