"""Spiking and dense layers in turns: who rests keeps its weights, and a run can be resumed."""

import pytest
import torch
from tiny_runs import interrupted, losses_of, run_of, weights_of

from spikeloom.config import TrainingConfig
from spikeloom.errors import ConfigError
from spikeloom.training.halves import spiking_turn
from spikeloom.training.train import train

LAYERS = [{"mixer": "sdsa", "mlp": "relu2"}, {"mixer": "sdsa", "mlp": "relu2", "spiking": False}]
STEPS = 4


def hybrid(halves, **more):
    return run_of(
        model={"layers": LAYERS}, halves=halves, max_steps=STEPS, checkpoint_every=1, keep=9, **more
    )


def changed(a, b):
    """Which of the spiking layer, the dense layer and the embedding differ between checkpoints."""
    ours, theirs = weights_of(a), weights_of(b)
    parts = {"spiking": "layers.0.", "dense": "layers.1.", "shared": "embed_tokens"}
    return {
        part
        for part, name in parts.items()
        if any(not torch.equal(ours[key], theirs[key]) for key in ours if name in key)
    }


def test_turns():
    separate = TrainingConfig(halves="separate")
    assert [spiking_turn(separate, p, 0) for p in (0.0, 0.49, 0.5, 1.0)] == [True] * 2 + [False] * 2
    alternating = TrainingConfig(halves="alternating", halves_every=2)
    assert [spiking_turn(alternating, 0.9, step) for step in range(6)] == [
        True, True, False, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(
    ("halves", "learning"),
    [
        ("separate", ["spiking", "dense", "dense"]),
        ("alternating", ["dense", "spiking", "dense"]),
    ],
)
def test_a_half_that_rests_keeps_its_weights(halves, learning, optimizer, text, tmp_path):
    run = hybrid(halves, halves_every=1, optimizer=optimizer)
    out = train(run, text, tmp_path / "run").directory
    steps = [out / f"checkpoint-{n}" for n in range(1, STEPS + 1)]
    for before, after, half in zip(steps, steps[1:], learning, strict=False):
        assert changed(before, after) == {half, "shared"}


def test_joint_training_moves_both(text, tmp_path):
    out = train(hybrid(None), text, tmp_path / "run").directory
    assert changed(out / "checkpoint-1", out / "checkpoint-2") == {"spiking", "dense", "shared"}


@pytest.mark.parametrize("halves", ["separate", "alternating"])
def test_resumed_in_the_middle(halves, text, tmp_path, monkeypatch):
    run = hybrid(halves, halves_every=1)
    whole = train(run, text, tmp_path / "whole").directory
    interrupted(monkeypatch, run, text, tmp_path / "resumed", 3)
    again = train(run, text, tmp_path / "resumed", resume=True).directory
    assert losses_of(whole) == losses_of(again)
    ours, theirs = weights_of(whole), weights_of(again)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_model_without_halves_is_refused():
    with pytest.raises(ConfigError, match=r"training.halves: 'separate' .* no two halves"):
        run_of(halves="separate")
    with pytest.raises(ConfigError, match="halves: 'both' is not one of separate, alternating"):
        run_of(halves="both")
