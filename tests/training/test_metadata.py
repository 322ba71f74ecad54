"""Training under metadata: no loss on it, a cool-down without it, and its use at generation."""

import json

import pytest
import torch
from tiny_runs import TEXT, interrupted, losses_of, run_of, weights_of

from spikeloom.data.conditioning import NO_LOSS
from spikeloom.errors import ConfigError, DataError
from spikeloom.inference.conditioned import conditioned_prompt
from spikeloom.inference.generate import Generator, Sampling
from spikeloom.training.train import train
from spikeloom.training.trainer import FiringRateMixin

SETTINGS = {"metadata": ("category",), "metadata_cooldown": 0.3, "max_steps": 10, "context": 64}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    file = tmp_path_factory.mktemp("lines") / "lines.jsonl"
    lines = TEXT.splitlines() * 9
    records = ({"text": t, "category": ["cats", "birds"][n % 2]} for n, t in enumerate(lines))
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(file)


@pytest.fixture(scope="module")
def seen_and_directory(source, tmp_path_factory):
    seen = []
    compute = FiringRateMixin.compute_loss

    def watched(self, model, inputs, *args, **kwargs):
        if model.training:
            seen.append({key: value.clone() for key, value in inputs.items()})
        return compute(self, model, inputs, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FiringRateMixin, "compute_loss", watched)
        out = tmp_path_factory.mktemp("runs") / "run"
        return seen, train(run_of(**SETTINGS), source, out).directory


def test_the_last_part_goes_without(seen_and_directory):
    seen, directory = seen_and_directory
    generator = Generator.load(directory)
    head = [generator.encode(f"Category: {name}\n\n") for name in ("cats", "birds")]
    assert len(seen) == 10
    for step, batch in enumerate(seen):
        assert set(batch) == {"input_ids", "labels"}
        opens = [row.tolist() for row in batch["input_ids"]]
        conditioned = [any(row[1 : 1 + len(h)] == h for h in head) for row in opens]
        assert all(conditioned) if step < 7 else not any(conditioned)
        assert (batch["labels"] == NO_LOSS).any() == (step < 7)


def test_no_loss_is_taken_on_metadata(seen_and_directory):
    from spikeloom.evaluation.checkpoint import load

    (batch, *_), directory = seen_and_directory
    model, _ = load(directory)
    with torch.no_grad():
        loss = model(**batch).loss
        logits = model(input_ids=batch["input_ids"]).logits
    nats = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten(), reduction="none"
    )
    counted = batch["labels"][:, 1:].flatten() != NO_LOSS
    torch.testing.assert_close(loss, nats[counted].mean())
    assert not counted.all()


def test_resume_is_exact(source, tmp_path, monkeypatch):
    run = run_of(**SETTINGS | {"metadata": ("category", "id")})
    whole = train(run, source, tmp_path / "whole").directory
    for stopped in (3, 8):  # before and in the cool-down
        out = tmp_path / f"stopped-{stopped}"
        interrupted(monkeypatch, run, source, out, stopped)
        train(run, source, out, resume=True)
        ours, theirs = weights_of(whole), weights_of(out)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert losses_of(whole) == losses_of(out)


def test_a_generation_can_name_its_category(seen_and_directory):
    _, directory = seen_and_directory
    generator = Generator.load(directory)
    ids = conditioned_prompt(generator, directory, "the", {"category": "cats", "source": None})
    assert generator.tokenizer.decode(ids) == "<|endoftext|>Category: cats\n\nthe"
    assert conditioned_prompt(generator, directory, "the", {"category": None}) == "the"
    texts = []
    for category in ("cats", "birds"):
        start = conditioned_prompt(generator, directory, "the", {"category": category})
        texts.append("".join(generator.stream(start, Sampling(seed=1, max_new_tokens=40))))
    assert texts[0] != texts[1]
    with pytest.raises(ConfigError, match=r"never saw it \(did you mean 'cats'"):
        conditioned_prompt(generator, directory, "", {"category": "cat"})
    with pytest.raises(ConfigError, match=r"--source: .* trained without it \(it had category\)"):
        conditioned_prompt(generator, directory, "", {"source": "x"})


def test_fields_that_cannot_be_are_refused(source, tmp_path):
    with pytest.raises(ConfigError, match=r"metadata\[0\]: 'topic' is unknown"):
        run_of(metadata=("topic",))
    with pytest.raises(DataError, match="no document has a source"):
        train(run_of(metadata=("source",)), source, tmp_path / "run")
