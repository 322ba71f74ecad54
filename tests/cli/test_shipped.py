"""Verbs without a checkpoint use the shipped model; a package without one says so."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from placeholder import make_checkpoint
from spikeloom import pretrained
from spikeloom.errors import CheckpointError
from spikeloom.export.slim import slim
from spikeloom.inference import chat


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "run").mkdir()
    slim(make_checkpoint(home / "run"), home / "model")
    return home / "model"


@pytest.fixture
def shipped(model, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", model)
    return model


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKELOOM_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "text.txt"
    file.write_text("Once upon a time, a dog sat on the mat.\n" * 20)
    return file


SHORT = ("--max-new-tokens", 3)
VERBS = {
    "info": (),
    "generate": SHORT,
    "chat": SHORT,
    "verify": ("--text", "Max sat on the mat"),
    "embed": ("--text", "Max"),
    "eval": ("--data", "TEXT"),
    "compare": ("--data", "TEXT", "--no-speed", "--out", "OUT"),
    "profile": ("--text", "Max sat", "--out", "OUT"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_without_a_checkpoint_a_verb_takes_the_shipped_one(
    verb, shipped, spikeloom, text, tmp_path, monkeypatch
):
    monkeypatch.setattr("builtins.input", lambda prompt="": "/quit")
    filled = {"TEXT": text, "OUT": tmp_path / "out"}
    options = [filled.get(option, option) for option in VERBS[verb]]
    done = spikeloom(verb, *options, "--json", tmp_path / "x.json")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "x.json").read_text())


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_so(verb, spikeloom):
    assert "the shipped model" in spikeloom(verb, "--help").out


def test_chat_asks_as_the_shipped_model_was_tuned(shipped, spikeloom, monkeypatch):
    given = []

    def noted(generator, sampling, roles):
        given.append((roles, sampling))
        return []

    monkeypatch.setattr(chat, "chat", noted)
    for options in ([], ["--continue"], ["--guidance", 2, "--temperature", 0]):
        assert spikeloom("chat", "--seed", 3, *options).code == 0
    asked = replace(chat.IN_ROLES, seed=3)
    changed = replace(asked, guidance=2.0, temperature=0.0)
    assert given == [(True, asked), (False, replace(chat.CONTINUED, seed=3)), (True, changed)]


def test_chat_says_something_else_every_time(shipped, spikeloom, monkeypatch):
    given = []
    monkeypatch.setattr(chat, "chat", lambda _, sampling, roles: given.append(sampling.seed) or [])
    for _ in range(3):
        assert spikeloom("chat").code == 0
    assert len(set(given)) == 3


def test_help_says_how_a_model_is_asked(spikeloom):
    said = " ".join(spikeloom("chat", "--help").out.replace("│", " ").split())
    roles, text = chat.IN_ROLES, chat.CONTINUED
    assert f"default: {roles.temperature:g} with --roles, {text.temperature:g} with --con" in said
    assert f"default: {roles.guidance:g} with --roles, {text.guidance:g} with --continue" in said
    assert f"Tokens per answer; default: {roles.max_new_tokens}." in said
    assert f"Nucleus sampling; default: {roles.top_p:g}." in said
    assert (roles.max_new_tokens, roles.top_p) == (text.max_new_tokens, text.top_p)


def test_slim_and_card(model, spikeloom, tmp_path):
    out, file = tmp_path / "slim", tmp_path / "eval.json"
    report = {"bits_per_byte": 1.5, "perplexity": 3.0, "active_share": 0.25, "tokens": 9}
    file.write_text(json.dumps(report))
    assert spikeloom("slim", model, "--out", out).code == 0
    options = ["--name", "tiny", "--data", "TinyStories=CDLA-Sharing-1.0", "--samples", 1]
    done = spikeloom("card", out, *options, "--eval", f"stories={file}")
    assert done.code == 0, done.err
    assert "| stories | 1.5 | 3 | 0.25 | 9 |" in (out / "README.md").read_text()
    assert "expected NAME=VALUE" in spikeloom("card", out, *options, "--eval", "stories").err


def test_requests(spikeloom, tmp_path):
    stories, out = tmp_path / "stories.jsonl", tmp_path / "out.jsonl"
    story = "Once there was a dog named Max. He ran."
    stories.write_text("".join(json.dumps({"text": f"{story} {n}"}) + "\n" for n in range(30)))
    done = spikeloom("data", "requests", stories, "--licence", "CC0 1.0", "--out", out)
    assert done.code == 0, done.err
    assert len(out.read_text().splitlines()) == 30
    assert json.loads((tmp_path / "out.jsonl.manifest.json").read_text())["licence"] == "CC0 1.0"


def test_a_package_without_a_model_says_so(monkeypatch, tmp_path, spikeloom):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match="built without its model"):
        pretrained.pretrained_path()
    done = spikeloom("info")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "built without its model" in done.err
    assert spikeloom("info", "--help").code == 0


def test_the_path_is_asked_for_without_torch(model):
    code = f"""\
import sys
from pathlib import Path
import spikeloom
from spikeloom import pretrained
pretrained.FOLDER = Path({str(model)!r})
print(spikeloom.pretrained_path())
print([m for m in ("torch", "transformers", "numpy") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(model), "[]"]
