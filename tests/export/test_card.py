"""Model cards: what they say is what the files say."""

import json

import pytest
from huggingface_hub import ModelCard

from placeholder import make_checkpoint
from spikeloom.errors import DataError
from spikeloom.export.card import OPENINGS, REQUESTS, Facts, write_card


def facts(**more):
    return Facts("tiny", "Apache-2.0", {"TinyStories": "CDLA-Sharing-1.0"}, **more)


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return make_checkpoint(folder)


def saved(file, report):
    file.write_text(json.dumps(report))
    return file


def test_figures_come_from_files(checkpoint, tmp_path):
    report = {"bits_per_byte": 0.8125, "perplexity": 5.5, "active_share": 0.2, "tokens": 1234}
    given = facts(
        evaluations={"stories": saved(tmp_path / "eval.json", report)},
        verification=saved(tmp_path / "verify.json", {"passed": True}),
    )
    text = write_card(checkpoint, given, samples=0)
    assert "| stories | 0.8125 | 5.5 | 0.2 | 1234 |" in text
    assert "token-by-token forms agree." in text
    assert "| TinyStories | CDLA-Sharing-1.0 |" in text
    assert "| conversations | 3 | 6144 | 1.5 | adamw 0.002 | 32 x 64 |" in text
    card = ModelCard.load(checkpoint / "README.md")
    assert card.data.license == "apache-2.0"
    found = {(r.dataset_name, r.metric_type): r.metric_value for r in card.data.eval_results}
    assert found["stories", "bits_per_byte"] == 0.8125


def test_a_failed_proof_is_not_hidden(checkpoint, tmp_path):
    given = facts(verification=saved(tmp_path / "verify.json", {"passed": False}))
    assert "do NOT agree" in write_card(checkpoint, given, samples=0)


def test_earlier_runs_are_listed_in_order(checkpoint, tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    make_checkpoint(first, chat=False)
    text = write_card(checkpoint, facts(runs=(first, checkpoint)), samples=0)
    assert text.index("| text | 3 |") < text.index("| conversations | 3 |")


@pytest.mark.parametrize("chat", [True, False])
def test_samples_are_the_first_that_are_drawn(chat, tmp_path):
    checkpoint, prompts = make_checkpoint(tmp_path, chat), REQUESTS if chat else OPENINGS
    text = write_card(checkpoint, facts(), samples=2, seed=5)
    assert text == write_card(checkpoint, facts(), samples=2, seed=5)
    assert f"**{prompts[0]}** (seed 5)" in text
    assert f"**{prompts[1]}** (seed 6)" in text
    how = "0.5, top-p 0.95, guidance 1.5, at" if chat else "0.8, top-p 0.95, at"
    assert f"temperature {how} most 200 tokens. That read " in text
    assert prompts[2] not in text


def test_figures_of_another_verb_are_refused(checkpoint, tmp_path):
    wrong = saved(tmp_path / "verify.json", {"passed": True})
    with pytest.raises(DataError, match="has no 'bits_per_byte'"):
        write_card(checkpoint, facts(evaluations={"stories": wrong}))
    with pytest.raises(DataError, match="is not readable as JSON"):
        write_card(checkpoint, facts(verification=tmp_path / "nothing.json"))
