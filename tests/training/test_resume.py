"""A run that was interrupted and resumed is the run that was not."""

import json
import shutil

import pytest
import torch
from tiny_runs import interrupted, losses_of, run_of, state_of, weights_of

from spikeloom.errors import ConfigError
from spikeloom.training.train import train

STEPS = 8  # an epoch is 6 batches: both kinds of resume cross its end


def same_weights(a, b):
    ours, theirs = weights_of(a), weights_of(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def optimizer_of(directory):
    return torch.load(directory / "optimizer.pt", weights_only=True)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("accumulation", [1, 4])  # 4 does not divide an epoch's batches
@pytest.mark.parametrize("stopped_in", ["the step after saving", "the step before saving"])
def test_resume_is_bit_exact(optimizer, accumulation, stopped_in, text, tmp_path, monkeypatch):
    run = run_of(
        max_steps=STEPS,
        optimizer=optimizer,
        gradient_accumulation=accumulation,
        target_active_share=0.1,
        dead_zone_warmup=0.5,
        keep=9,
        schedule="cosine_with_restarts",
        restarts=2,
    )
    whole = train(run, text, tmp_path / "whole").directory
    out = tmp_path / "resumed"
    batches = 3  # of the first steps; with accumulation nothing was saved yet
    if stopped_in == "the step after saving":
        batches = {1: 4, 4: 10}[accumulation]
    interrupted(monkeypatch, run, text, out, batches)
    train(run, text, out, resume=True)
    for name in [".", *(f"checkpoint-{n}" for n in range(2, STEPS + 1, 2))]:
        assert same_weights(whole / name, out / name), name
    assert losses_of(whole) == losses_of(out)
    rates = [[e.get("learning_rate") for e in state_of(d)["log_history"]] for d in (whole, out)]
    assert rates[0] == rates[1]
    last = f"checkpoint-{STEPS}"
    for ours, theirs in zip(
        *(torch.utils._pytree.tree_leaves(optimizer_of(d / last)) for d in (whole, out)),
        strict=True,
    ):
        assert type(ours) is type(theirs)
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs


def test_twice_interrupted(text, tmp_path, monkeypatch):
    run = run_of(max_steps=STEPS)
    whole = train(run, text, tmp_path / "whole").directory
    out = tmp_path / "resumed"
    interrupted(monkeypatch, run, text, out, 3)
    interrupted(monkeypatch, run, text, out, 3, resume=True)  # from 2 to 5
    train(run, text, out, resume=True)
    assert same_weights(whole, out)
    assert losses_of(whole) == losses_of(out)


def test_before_the_first_checkpoint_it_starts_afresh(text, tmp_path, monkeypatch, capsys):
    run = run_of()
    whole = train(run, text, tmp_path / "whole").directory
    out = tmp_path / "resumed"
    interrupted(monkeypatch, run, text, out, 1)
    capsys.readouterr()
    train(run, text, out, resume=True)
    assert "from the start: nothing was saved yet" in capsys.readouterr().err
    assert same_weights(whole, out)


def test_resume_of_nothing_is_a_start(text, tmp_path):
    assert train(run_of(max_steps=1), text, tmp_path / "run", resume=True).metrics["steps"] == 1


def test_resume_of_a_finished_run_trains_no_further(text, tmp_path):
    run = run_of()
    result = train(run, text, tmp_path / "run")
    before = weights_of(result.directory)
    again = train(run, text, tmp_path / "run", resume=True)
    after = weights_of(again.directory)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert again.metrics["steps"] == 4
    assert again.metrics["eval_loss"] == result.metrics["eval_loss"]


def test_killed_while_finishing(text, tmp_path):
    run = run_of()
    out = train(run, text, tmp_path / "run").directory
    before = weights_of(out)
    for name in ("model.safetensors", "training.json"):
        (out / name).unlink()
    train(run, text, out, resume=True)
    after = weights_of(out)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_larger_budget_continues(text, tmp_path):
    train(run_of(), text, tmp_path / "run")
    result = train(run_of(max_steps=6), text, tmp_path / "run", resume=True)
    assert result.metrics["steps"] == 6


def test_minutes_used_are_used(text, tmp_path):
    run = run_of(max_steps=None, max_minutes=0.003)
    steps = train(run, text, tmp_path / "run").metrics["steps"]
    assert train(run, text, tmp_path / "run", resume=True).metrics["steps"] == steps


def test_a_moved_run_finds_its_best_checkpoint(text, tmp_path, monkeypatch):
    run = run_of(max_steps=6, keep=9)
    whole = train(run, text, tmp_path / "whole").directory
    interrupted(monkeypatch, run, text, tmp_path / "here", 5)
    moved = tmp_path / "there"
    shutil.move(tmp_path / "here", moved)
    train(run, text, moved, resume=True)
    best = state_of(moved)["best_model_checkpoint"]
    assert best == str(moved / state_of(whole)["best_model_checkpoint"].rpartition("/")[2])
    assert same_weights(whole, moved)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_another_learning_rate_counts(optimizer, text, tmp_path, monkeypatch):
    # whoever is told to lower it after a NaN must be able to
    same = {"optimizer": optimizer, "max_steps": 6, "warmup": 0.0, "schedule": "constant"}
    interrupted(monkeypatch, run_of(**same), text, tmp_path / "run", 3)
    train(run_of(**same, learning_rate=1e-4), text, tmp_path / "run", resume=True)
    log = [e for e in state_of(tmp_path / "run")["log_history"] if "learning_rate" in e]
    assert [e["learning_rate"] for e in log] == pytest.approx([5e-3] * 2 + [1e-4] * 4)


def test_learning_rates_by_layer_go_on(text, tmp_path, monkeypatch):
    run = run_of(max_steps=STEPS, layer_decay=0.5)
    whole = train(run, text, tmp_path / "whole").directory
    out = tmp_path / "resumed"
    interrupted(monkeypatch, run, text, out, 5)
    train(run, text, out, resume=True)
    assert same_weights(whole, out)
    peaks = [g["initial_lr"] for g in optimizer_of(out / f"checkpoint-{STEPS}")["param_groups"]]
    assert sorted(set(peaks)) == [5e-3 * 0.5**n for n in (3, 2, 1, 0)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"hidden_size": 64}}, "model.hidden_size=32, not 64"),
        ({"layer_decay": 0.5}, "training.layer_decay=1.0, not 0.5"),
        ({"model": {"neurons": {"head": {"kind": "none"}}}}, "model.neurons="),
        ({"optimizer": "muon"}, "training.optimizer='adamw', not 'muon'"),
    ],
)
def test_another_model_is_refused(change, message, text, tmp_path):
    train(run_of(max_steps=1), text, tmp_path / "run")
    with pytest.raises(ConfigError) as refusal:
        train(run_of(**change), text, tmp_path / "run", resume=True)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_run_older_than_a_key_goes_on(text, tmp_path):
    out = train(run_of(), text, tmp_path / "run").directory
    recorded = json.loads((out / "run.json").read_text())
    del recorded["model"]["neurons"]["encoder"], recorded["model"]["norm"]
    for layer in recorded["model"]["layers"]:
        del layer["gate"]
    (out / "run.json").write_text(json.dumps(recorded))
    train(run_of(max_steps=6), text, out, resume=True)
    assert state_of(out)["global_step"] == 6


def test_a_damaged_checkpoint_is_passed_over(text, tmp_path):
    run = run_of()
    out = train(run, text, tmp_path / "run").directory
    weights = out / "checkpoint-4" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    before = weights_of(out)
    assert train(run, text, out, resume=True).metrics["steps"] == 4
    after = weights_of(out)
    assert all(torch.equal(before[name], after[name]) for name in before)
    weights_of(out / "checkpoint-4")
