"""Runs on conversations: answers are learned, requests are not, and `chat` knows."""

import json

import pytest
import torch
from tiny_runs import run_of, state_of

from spikeloom.checkpoint import read_run
from spikeloom.errors import CheckpointError, ConfigError, DataError
from spikeloom.inference.chat import Conversation, speaks_in_roles
from spikeloom.inference.generate import Generator, Sampling
from spikeloom.training.train import train

ANSWERS = {"a": "the cat sat", "b": "one red bird"}


def chat_run(**training):
    both = {"chat": True, "separate_documents": True, "context": 32, "batch_size": 8}
    return run_of(**(both | {"max_steps": 150, "learning_rate": 1e-2, **training}))


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    """Two requests, and an answer to each; no two records alike."""
    file = tmp_path_factory.mktemp("chat") / "requests.jsonl"
    with file.open("w") as lines:
        for i in range(120):
            asked = "ab"[i % 2]
            said = [("user", f"{asked}{i % 7}"), ("assistant", ANSWERS[asked])]
            turns = [{"role": role, "content": content} for role, content in said]
            lines.write(json.dumps({"messages": turns, "id": i}) + "\n")
    return str(file)


@pytest.fixture(scope="module")
def tuned(text, requests, tmp_path_factory):
    home = tmp_path_factory.mktemp("runs")
    words = train(run_of(max_steps=2), text + "," + requests_text(home), home / "first").directory
    return train(chat_run(), requests, home / "tuned", start=words).directory


def requests_text(home):
    """All letters of the requests, for the tokenizer."""
    file = home / "letters.txt"
    file.write_text("ab 0123456 the cat sat one red bird\n" * 20)
    return str(file)


def test_it_answers_what_was_asked_and_stops(tuned):
    conversation = Conversation(Generator.load(tuned), Sampling(0.0, max_new_tokens=24), True)
    for asked in ("a3", "b2"):
        assert conversation.answer(asked, lambda _: None) == ANSWERS[asked[0]]
        conversation.reset()


def test_the_loss_is_that_of_answers(tuned):
    log = [entry for entry in state_of(tuned)["log_history"] if "eval_loss" in entry]
    assert log[-1]["eval_loss"] < 0.1  # the requests' numbers cannot be foreseen
    assert 0 < log[-1]["eval_bits_per_byte"] < 0.3


def test_the_run_says_that_it_was_conversations(tuned, tmp_path):
    assert read_run(tuned)["training"]["chat"] is True
    assert speaks_in_roles(tuned)
    assert speaks_in_roles(tuned / state_of(tuned)["best_model_checkpoint"].split("/")[-1])
    assert not speaks_in_roles(tuned.parent / "first")
    (tuned.parent / "first" / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"run\.json is not readable"):
        speaks_in_roles(tuned.parent / "first")


def test_held_out_conversations_from_a_source_of_their_own(text, requests, tmp_path):
    run = chat_run(max_steps=2)
    result = train(run, requests, tmp_path / "run", eval_data=requests)
    assert torch.isfinite(torch.tensor(result.metrics["eval_loss"]))


def test_what_does_not_go_with_conversations(text, requests, tmp_path):
    with pytest.raises(ConfigError, match=r"training\.chat: True is impossible"):
        chat_run(metadata=["category"])
    with pytest.raises(DataError, match=r"text\.txt"):
        train(chat_run(), text, tmp_path / "run")
    with pytest.raises(DataError, match=r"these are conversations: .*training\.chat=true"):
        train(run_of(), requests, tmp_path / "other")
