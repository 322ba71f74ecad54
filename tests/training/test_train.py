"""`train` from a text file to a checkpoint directory."""

import json
import math
import shutil

import pytest
import torch
from tiny_runs import TEXT, TRAINING, losses_of, run_of, state_of, weights_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from spikeloom import tokenizers
from spikeloom.config import load_config
from spikeloom.data.packing import TokenRows, pack
from spikeloom.errors import CheckpointError, ConfigError, DataError, SpikeloomError, TrainingError
from spikeloom.evaluation.checkpoint import load
from spikeloom.inference.generate import Generator, Sampling
from spikeloom.training import train as module
from spikeloom.training.train import make_model, train
from spikeloom.training.trainer import SpikeTrainer
from spikeloom.training.twin import twin_of

FILES = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "run.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "trainer_state.json",
    "training.json",
}


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory):
    """The result of a run of six steps, checkpoints after 2, 4 and 6."""
    return train(run_of(max_steps=6, target_active_share=0.05), text, tmp_path_factory.mktemp("r"))


def test_the_files_of_a_finished_run(finished):
    out = finished.directory
    assert {p.name for p in out.iterdir()} == FILES | {"checkpoint-4", "checkpoint-6"}
    own = {"run.json", "training.json"}
    state = {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    assert {p.name for p in (out / "checkpoint-6").iterdir()} == (FILES - own) | state


def test_training_state_needs_no_trust(finished):
    with torch.serialization.safe_globals([]), pytest.MonkeyPatch.context() as patch:
        from transformers.trainer_pt_utils import safe_globals

        patch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
        for name in ("optimizer.pt", "scheduler.pt"):
            torch.load(finished.directory / "checkpoint-6" / name, weights_only=True)
        with safe_globals():  # NumPy's generator state is arrays
            torch.load(finished.directory / "checkpoint-6" / "rng_state.pth", weights_only=True)


def test_what_is_reported(finished):
    metrics = finished.metrics
    assert metrics["steps"] == 6
    assert metrics["tokens"] == 6 * 4 * 16
    assert metrics["seconds"] > 0
    assert 0 < metrics["eval_active_share"] < 1
    assert json.loads((finished.directory / "training.json").read_text()) == metrics
    recorded = json.loads((finished.directory / "run.json").read_text())
    assert recorded["training"]["context"] == 16
    assert recorded["eval_data"] is None


def test_it_learns(finished):
    losses = losses_of(finished.directory)
    assert losses["loss", 6] < losses["loss", 1] - 0.2


def test_the_log_is_the_pure_cross_entropy(finished):
    # The pressure alone would be 2 * (0.2 - 0.05): the first loss is that of a uniform guess.
    words = tokenizers.load(finished.directory)
    first = state_of(finished.directory)["log_history"][0]
    assert first["loss"] == pytest.approx(math.log(tokenizers.size(words)), abs=0.15)
    assert first["active_share"] > 0.1


def test_bits_per_byte_follow_from_the_loss(finished, text):
    packed = pack(text, tokenizers.load(finished.directory), part="eval")
    metrics = finished.metrics
    bits = metrics["eval_loss"] / math.log(2) * len(packed) / packed.total_bytes
    assert metrics["eval_bits_per_byte"] == pytest.approx(bits)


def test_held_out_figures_are_those_of_the_saved_model(finished, text):
    model, words = load(finished.directory)
    rows = TokenRows(pack(text, words, part="eval"), 16)
    ids = torch.stack([rows[i]["input_ids"] for i in range(len(rows))])
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss
    assert finished.metrics["eval_loss"] == pytest.approx(float(loss), abs=1e-5)


def test_the_directory_is_all_that_others_need(finished):
    out = finished.directory
    model = AutoModelForCausalLM.from_pretrained(out)
    ids = AutoTokenizer.from_pretrained(out)("the cat", return_tensors="pt").input_ids
    assert model(ids).logits.shape == (1, ids.shape[1], model.config.vocab_size)
    assert len(list(Generator.load(out).stream("the", Sampling(max_new_tokens=3)))) <= 3


def test_the_same_seed_gives_the_same_weights(finished, text, tmp_path):
    again = train(run_of(max_steps=6, target_active_share=0.05), text, tmp_path / "again")
    other = train(run_of(max_steps=6, target_active_share=0.05, seed=1), text, tmp_path / "other")
    ours, theirs, others = map(weights_of, (finished.directory, again.directory, other.directory))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not all(torch.equal(ours[name], others[name]) for name in ours)


def test_samples_leave_no_trace_in_the_weights(finished, text, tmp_path, capsys):
    run = run_of(max_steps=6, target_active_share=0.05, sample_every=2)
    sampled = train(run, text, tmp_path / "sampled")
    assert capsys.readouterr().err.count("step 2: “") == 1
    ours, theirs = weights_of(finished.directory), weights_of(sampled.directory)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def fake_evaluation(monkeypatch, losses):
    """Held-out losses by step, in place of measured ones."""
    real = SpikeTrainer.log

    def log(self, logs, *args):
        if "eval_loss" in logs:
            logs["eval_loss"] = losses[self.state.global_step]
        return real(self, logs, *args)

    monkeypatch.setattr(SpikeTrainer, "log", log)


@pytest.mark.parametrize("keep", [1, 2])
def test_the_best_checkpoint_is_kept_and_ends_up_in_the_directory(
    text, tmp_path, monkeypatch, keep
):
    fake_evaluation(monkeypatch, {2: 3.0, 4: 1.0, 6: 2.0, 8: 2.5, 10: 2.0})
    result = train(run_of(max_steps=10, keep=keep), text, tmp_path / "run")
    kept = {f"checkpoint-{step}" for step in (4, 8, 10)[-keep - 1 :]} | {"checkpoint-4"}
    kept -= {"checkpoint-8"} if keep == 1 else set()
    assert {p.name for p in result.directory.glob("checkpoint-*")} == kept
    best, last, final = (
        weights_of(result.directory / name) for name in ("checkpoint-4", "checkpoint-10", ".")
    )
    assert all(torch.equal(best[name], final[name]) for name in best)
    assert not all(torch.equal(last[name], final[name]) for name in best)
    assert result.metrics["eval_loss"] == 1.0
    assert result.metrics["steps"] == 10


def test_held_out_text_of_its_own(text, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(TEXT[:200], "utf-8")
    result = train(run_of(max_steps=2), text, tmp_path / "run", eval_data=str(other))
    assert json.loads((result.directory / "run.json").read_text())["eval_data"] == str(other)


def test_a_given_tokenizer_is_used(finished, text, tmp_path):
    words = tokenizers.train("bpe", [TEXT], 280)
    words.save_pretrained(tmp_path / "words")
    result = train(run_of(max_steps=1), text, tmp_path / "run", tokenizer=str(tmp_path / "words"))
    saved = tokenizers.load(result.directory)
    assert tokenizers.fingerprint(saved) == tokenizers.fingerprint(words)
    assert weights_of(result.directory)["model.decoder.embed_tokens.weight"].shape[0] == 280
    again = train(run_of(max_steps=1), text, tmp_path / "next", tokenizer=str(finished.directory))
    assert (again.directory / "tokenizer.json").read_text() == (
        finished.directory / "tokenizer.json"
    ).read_text()


def test_gradient_checkpointing_changes_memory_only(finished, text, tmp_path):
    run = run_of(max_steps=6, target_active_share=0.05, gradient_checkpointing=True)
    result = train(run, text, tmp_path / "run")
    ours, theirs = losses_of(finished.directory), losses_of(result.directory)
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_bfloat16_trains_float32_weights(text, tmp_path):
    result = train(run_of(max_steps=2, dtype="bfloat16"), text, tmp_path / "run")
    assert {w.dtype for w in weights_of(result.directory).values()} == {torch.float32}
    assert math.isfinite(result.metrics["eval_loss"])


def test_minutes_end_a_run(text, tmp_path):
    run = run_of(max_steps=None, max_minutes=0.005, checkpoint_every=1000)
    result = train(run, text, tmp_path / "run")
    assert result.metrics["steps"] >= 1
    assert (result.directory / f"checkpoint-{result.metrics['steps']}").is_dir()


@pytest.mark.parametrize("twin", ["dense", "quantised"])
def test_twins_train(twin, text, tmp_path):
    run = twin_of(run_of(max_steps=2, target_active_share=0.1), twin)
    assert run.training.target_active_share is None
    result = train(run, text, tmp_path / "run")
    share = result.metrics["eval_active_share"]
    assert share == 1.0 if twin == "dense" else 0.3 < share < 1


def test_unknown_twins_are_refused():
    with pytest.raises(ConfigError, match="--twin dens: expected dense or quantised"):
        twin_of(load_config("spikeloom-1m"), "dens")
    assert twin_of(load_config("spikeloom-1m"), None) == load_config("spikeloom-1m")


def test_tensorboard(text, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "log"))
        train(run_of(max_steps=2, report_to=["tensorboard"]), text, out)
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    losses = {e.step: e.value for e in events.Scalars("train/loss")}
    assert losses[2] == pytest.approx(losses_of(out)["loss", 2])
    assert "eval/bits_per_byte" in events.Tags()["scalars"]


# What goes wrong, in one line


def refused(match, *args, error=SpikeloomError, **kwargs):
    with pytest.raises(error, match=match) as caught:
        train(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_a_missing_tracker_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    refused("wandb is missing: pip install wandb", run_of(report_to=["wandb"]), text, tmp_path)


def test_a_context_longer_than_the_data(text, tmp_path):
    refused("context 9999 is longer than the data", run_of(context=9999), text, tmp_path / "run")
    # nothing of the failed attempt decides over the next
    assert list((tmp_path / "run").iterdir()) == []


def test_a_batch_larger_than_the_data(text, tmp_path):
    match = r"has \d+ rows of 16 tokens, a batch needs 64"
    refused(match, run_of(batch_size=64), text, tmp_path, error=DataError)


def test_no_data(tmp_path):
    refused("does not exist", run_of(), str(tmp_path / "nowhere.txt"), tmp_path / "run")


def test_a_directory_in_use_is_left_alone(finished, text, tmp_path):
    out = shutil.copytree(finished.directory, tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    refused("already holds a run: --resume", run_of(), text, out, error=CheckpointError)
    (out / "run.json").unlink()
    for resume in (False, True):
        refused("no run.json of a run: choose another", run_of(), text, out, resume=resume)
    del before[out / "run.json"]
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    refused("is a file: --out needs a directory", run_of(), text, out / "config.json")


def test_a_damaged_record(finished, text, tmp_path):
    out = shutil.copytree(finished.directory, tmp_path / "run")
    for content in ("{", "[]", "{}"):
        (out / "run.json").write_text(content)
        refused("run.json is not readable", run_of(), text, out, resume=True)


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB\nmore"), "step"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "step"),
        (MemoryError(), "model"),
    ],
)
def test_out_of_memory_names_the_knobs(error, where, text, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    if where == "step":
        monkeypatch.setattr(SpikeTrainer, "training_step", fail)
    else:
        monkeypatch.setattr(module, "make_model", fail)
    match = r"out of memory: lower training.batch_size \(now 4\)"
    refused(match, run_of(), text, tmp_path / "run", error=TrainingError)


def test_other_errors_keep_their_traceback(text, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr(SpikeTrainer, "training_step", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        train(run_of(), text, tmp_path / "run")


def test_rows_reach_the_model_without_a_mask(text, tmp_path, monkeypatch):
    """A mask, even one of ones, would take the fast form of attention away."""
    seen, compute = [], SpikeTrainer.compute_loss

    def watch(self, model, inputs, *args, **kwargs):
        seen.append((model.training, set(inputs)))
        return compute(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(SpikeTrainer, "compute_loss", watch)
    train(run_of(), text, tmp_path / "run")
    assert {training for training, _ in seen} == {True, False}
    assert all(names == {"input_ids", "labels"} for _, names in seen)


def break_weights(monkeypatch, at_step, what):
    """NaN in the weights, or in the gradient, from a step on."""
    real = SpikeTrainer.training_step

    def step(self, *args):
        if what == "weights" and self.state.global_step >= at_step:
            with torch.no_grad():
                self.model.lm_head.weight[0, 0] = math.nan
        loss = real(self, *args)
        if what == "gradient" and self.state.global_step >= at_step:
            self.model.lm_head.weight.grad[0, 0] = math.nan
        return loss

    monkeypatch.setattr(SpikeTrainer, "training_step", step)


@pytest.mark.parametrize("what", ["weights", "gradient"])
@pytest.mark.parametrize("log_every", [1, 1000])
def test_nan_ends_the_run_and_leaves_the_last_good_checkpoint(
    what, log_every, text, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    break_weights(monkeypatch, at_step=11, what=what)
    run = run_of(max_steps=20, log_every=log_every, keep=9)
    match = r"the loss became nan at step 1\d; the last good checkpoint is .*checkpoint-10;"
    refused(match, run, text, out, error=TrainingError)
    saved = sorted(out.glob("checkpoint-*"))
    assert out / "checkpoint-12" not in saved
    for directory in saved:
        assert all(w.isfinite().all() for w in weights_of(directory).values())
    monkeypatch.undo()


def test_nan_before_anything_was_saved(text, tmp_path, monkeypatch):
    break_weights(monkeypatch, 0, "weights")
    refused("nothing was saved yet", run_of(), text, tmp_path / "run", error=TrainingError)


def test_defaults_of_the_tiny_run_are_as_the_tests_assume():
    assert TRAINING["checkpoint_every"] == 2
    assert make_model(run_of()).config.num_hidden_layers == 2
