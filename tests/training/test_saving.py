"""What happens when saving fails half-way: the checkpoint before it is still whole."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from tiny_runs import run_of, weights_of
from transformers import PreTrainedModel, Trainer, TrainerState

from spikeloom.checkpoint import resolve
from spikeloom.errors import TrainingError
from spikeloom.evaluation.checkpoint import load
from spikeloom.training import trainer as module
from spikeloom.training.train import train

NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
# Places where a checkpoint is half written, in the order of saving.
PLACES = [
    (PreTrainedModel, "save_pretrained"),
    (Trainer, "_save_optimizer_and_scheduler"),
    (Trainer, "_save_rng_state"),
    (TrainerState, "save_to_json"),
    (module.os, "replace"),
]


def fail_when_saving(monkeypatch, place, error, step=4):
    """Raise at a place when checkpoint `step` is being saved; what it does is half done."""
    owner, name = place
    real = getattr(owner, name)

    def fail(*args, **kwargs):
        if (staged := Path(f"{run_directory}/.saving/checkpoint-{step}")).exists():
            (staged / "model.safetensors").write_bytes(b"half")
            raise error
        return real(*args, **kwargs)

    run_directory = None

    def aim(out):
        nonlocal run_directory
        run_directory = out

    monkeypatch.setattr(owner, name, fail)
    return aim


@pytest.mark.parametrize("place", PLACES, ids=[name for _, name in PLACES])
@pytest.mark.parametrize("error", [NO_SPACE, KeyboardInterrupt()], ids=["full disk", "Ctrl-C"])
def test_the_previous_checkpoint_stays(place, error, text, tmp_path, monkeypatch, capsys):
    run = run_of(max_steps=6)
    whole = train(run, text, tmp_path / "whole").directory
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        if place[1] == "save_pretrained":  # its folder is made before it is asked
            real = place[0].save_pretrained

            def fail(model, directory, *args, **kwargs):
                if Path(directory).name == "checkpoint-4":
                    (Path(directory) / "config.json").write_text("{")
                    raise error
                return real(model, directory, *args, **kwargs)

            patch.setattr(*place, fail)
        else:
            fail_when_saving(patch, place, error)(out)
        expected = TrainingError if error is NO_SPACE else KeyboardInterrupt
        with pytest.raises(expected) as caught:
            train(run, text, out)
    if error is NO_SPACE:
        message = str(caught.value)
        assert f"{out / 'checkpoint-4'} could not be saved" in message
        assert "No space left on device" in message
        assert "\n" not in message
    assert {p.name for p in out.glob("[.c]*") if p.is_dir()} == {"checkpoint-2"}
    assert resolve(out) == out / "checkpoint-2"
    load(out)
    resumed = train(run, text, out, resume=True).directory
    ours, theirs = weights_of(whole), weights_of(resumed)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: No space left (os error 28)\nmore"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos\nmore"),
    ],
    ids=["safetensors", "torch.save"],
)
def test_what_libraries_raise_on_a_full_disk(error, text, tmp_path, monkeypatch):
    fail_when_saving(monkeypatch, PLACES[1], error)(tmp_path / "run")
    with pytest.raises(TrainingError, match="could not be saved") as caught:
        train(run_of(), text, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_full_disk_at_the_end(text, tmp_path, monkeypatch):
    out = tmp_path / "run"
    real = json.dumps

    def fail(report, **kwargs):
        if "eval_loss" in report:
            raise NO_SPACE
        return real(report, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("spikeloom.training.run_directory.json.dumps", fail)
        with pytest.raises(TrainingError, match="No space left"):
            train(run_of(), text, out)
    assert not (out / "model.safetensors").exists()
    assert resolve(out).parent == out
    assert train(run_of(), text, out, resume=True).metrics["steps"] == 4
    assert resolve(out) == out


def test_leftovers_of_a_kill_while_saving_are_swept_away(text, tmp_path):
    out = train(run_of(max_steps=2), text, tmp_path / "run").directory
    shutil.copytree(out / "checkpoint-2", out / ".saving" / "checkpoint-3")
    (out / "checkpoint-3").mkdir()  # half deleted
    shutil.copy(out / "checkpoint-2" / "trainer_state.json", out / "checkpoint-3")
    assert train(run_of(), text, out, resume=True).metrics["steps"] == 4
    assert not (out / ".saving").exists()


def test_a_directory_that_cannot_be_made(text, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="could not be saved"):
        train(run_of(), text, tmp_path / "file" / "run")
