"""The verbs on text at hand, from a raw file to a traced generation, as they are typed."""

import json
import random

import pytest

from spikeloom.cli import prepare
from spikeloom.data.manifest import read_manifest

CONFIG = """\
model:
  vocab_size: 300
  hidden_size: 32
  num_hidden_layers: 1
  num_attention_heads: 4
  intermediate_size: 48
  max_position_embeddings: 64
  layers: [{mixer: sdsa, mlp: spiking}]
tokenizer: {kind: bpe, vocab_size: 300}
training:
  {batch_size: 4, max_steps: 2, checkpoint_every: 2, eval_tokens: 64, dtype: float32,
   sample_every: 0, metadata: [category]}
"""
WORDS = ["harbour", "boats", "night", "girl", "wall", "nets", "gulls", "water", "rope", "door"]


def story(seed):
    drawn = random.Random(seed).choices(WORDS, k=60)
    return f"The old man that lived with the sea said that all of us have to be {' '.join(drawn)}."


@pytest.fixture
def spikeloom(spikeloom, monkeypatch, tmp_path):
    """The command, with a token cache of its own."""
    monkeypatch.setenv("SPIKELOOM_CACHE", str(tmp_path / "cache"))
    return spikeloom


@pytest.fixture
def corpus(tmp_path):
    """`raw.jsonl` with one repeated and one short document, `tiny.yaml`, `recipe.yaml`."""
    texts = [*(story(n) for n in range(40)), story(0), "Too short."]
    records = ({"text": text, "topic": ["sea", "land"][n % 2]} for n, text in enumerate(texts))
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return tmp_path


def test_from_a_raw_file_to_a_traced_generation(spikeloom, corpus):
    clean, prepared, run = corpus / "clean.jsonl", corpus / "prepared", corpus / "run"
    labels = ["--name", "tales", "--category-column", "topic", "--licence", "CC0"]
    done = spikeloom(
        "data", "clean", corpus / "raw.jsonl", "--out", clean, *labels, "--processes", 1
    )
    assert done.code == 0
    assert "40 of 42 documents" in done.out
    assert "dropped: duplicate: exact" in done.out
    assert "dropped: quality: min_words" in done.out
    assert "peak memory" in done.out
    wanted = ["--preset", corpus / "tiny.yaml", "--out", prepared, "--json", corpus / "p.json"]
    done = spikeloom("data", "prepare", clean, *wanted, "--context", 64, "--seed", 1)
    assert done.code == 0
    assert "context 64:" in done.out
    counts = json.loads((corpus / "p.json").read_text())
    assert counts["sources"]["tales"]["documents"] == 40
    manifest = read_manifest(prepared)
    assert manifest["licence"] == ["CC0"]
    assert manifest["command"].startswith("spikeloom data prepare ")
    assert "MB/s" in done.out
    again = spikeloom("data", "prepare", clean, *wanted, "--seed", 1)
    assert "for what was not there yet" in again.out
    done = spikeloom("train", corpus / "tiny.yaml", "--data", prepared, "--out", run)
    assert done.code == 0
    start = ["--prompt", "The old man", "--max-new-tokens", 30]
    assert spikeloom("generate", run, *start, "--category", "sea").code == 0
    assert "did you mean 'sea'" in spikeloom("generate", run, *start, "--category", "seas").err
    done = spikeloom("trace", prepared, "--text", story(7)[80:300], "--json", corpus / "t.json")
    assert done.code == 0
    hits = json.loads((corpus / "t.json").read_text())["chunks"]
    assert story(7)[100:200] in hits[0]["text"]
    assert hits[0]["chunk"] in done.out
    assert spikeloom("trace", prepared, "--checkpoint", run, *start).code == 0


def test_build_makes_a_corpus_from_a_recipe(spikeloom, corpus):
    (corpus / "recipe.yaml").write_text(
        "sources: [{source: raw.jsonl, name: tales, licence: CC0, category: sea}]\n"
        "tokenizer: {vocab_size: 300}\n"
    )
    done = spikeloom("data", "build", corpus / "recipe.yaml", "--out", corpus / "c")
    assert done.code == 0
    assert "tales: 40 documents kept, 2 dropped" in done.out
    assert f"--data {corpus / 'c' / 'prepared'}" in done.out.replace("\n", "")


def test_a_curriculum_is_shown_as_a_table(spikeloom, corpus):
    done = spikeloom("data", "curriculum", corpus / "raw.jsonl", "--out", corpus / "phases")
    assert done.code == 0
    for phase in ("words", "phrases", "sentences", "stories", "conversations"):
        assert phase in done.out
    assert (corpus / "phases" / "phases.yaml").exists()


def test_the_default_rules_are_printed(spikeloom, corpus):
    done = spikeloom("data", "rules")
    (corpus / "rules.yaml").write_text(done.out)
    again = ["--out", corpus / "o.jsonl", "--rules", corpus / "rules.yaml", "--processes", 1]
    assert spikeloom("data", "clean", corpus / "raw.jsonl", *again).code == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["data", "prepare", "raw.jsonl", "--out", "x"], "either --tokenizer DIR or --preset NAME"),
        (["data", "clean", "raw.jsonl", "--out", "x.txt"], "name a .jsonl"),
        (
            ["data", "clean", "raw.jsonl", "--out", "x.jsonl", "--redact", "all"],
            "expected patterns",
        ),
        (["data", "clean", "raw.jsonl", "--out", "x.jsonl", "--rules", "no"], "cannot be read"),
        (["data", "build", "no.yaml", "--out", "x"], "cannot be read"),
        (["trace", ".", "--text", "a b c"], "is not a directory that"),
        (["trace", "."], "either --text TEXT or --checkpoint CKPT"),
    ],
)
def test_user_errors_are_one_line(spikeloom, corpus, monkeypatch, words, why):
    monkeypatch.chdir(corpus)
    done = spikeloom(*words)
    assert done.code == 2
    assert why in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "verb", [c.callback.__name__ for c in prepare.prepare_app.registered_commands]
)
def test_every_verb_of_data_explains_itself(spikeloom, verb):
    done = spikeloom("data", verb, "--help")
    assert done.code == 0
    assert "--json" in done.out
