"""A teacher's predictions join the loss of training batches, and nothing else."""

from dataclasses import replace

import pytest
import torch
from tiny_runs import losses_of, run_of, weights_of
from torch.distributions import Categorical, kl_divergence

from spikeloom import backends
from spikeloom.errors import ConfigError
from spikeloom.training.distillation import divergence
from spikeloom.training.tagging import train_tagger
from spikeloom.training.train import train


@pytest.fixture(scope="module")
def teacher(text, tmp_path_factory):
    return train(run_of(max_steps=40), text, tmp_path_factory.mktemp("teacher") / "run").directory


def taught(teacher, **training):
    return run_of(teacher=str(teacher), learning_rate=1e-12, weight_decay=0.0, **training)


def test_divergence_is_that_of_distributions_where_labels_count():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    labels = torch.randint(0, 7, (2, 5))
    labels[0, 3:] = -100
    every = kl_divergence(Categorical(logits=target), Categorical(logits=logits))[:, :-1]
    counts = labels[:, 1:] != -100
    assert divergence(logits, target, labels) == pytest.approx(every[counts].mean().item())
    assert divergence(target, target, labels) == pytest.approx(0.0, abs=1e-6)


def test_a_student_comes_closer_to_its_teacher(teacher, text, tmp_path):
    """With the weight of the loss gone in comparison, it learns the teacher's own loss."""
    run = run_of(teacher=str(teacher), teacher_weight=100.0, max_steps=40, seed=1)
    words = str(teacher)
    student = losses_of(train(run, text, tmp_path / "taught", tokenizer=words).directory)
    own = losses_of(teacher)
    first, last = student["eval_loss", 2], student["eval_loss", 40]
    assert last < first
    assert last == pytest.approx(own["eval_loss", 40], abs=0.3 * (first - own["eval_loss", 40]))


def test_the_log_stays_plain_cross_entropy(teacher, text, tmp_path):
    words = str(teacher)
    alone = train(
        run_of(learning_rate=1e-12, weight_decay=0.0), text, tmp_path / "a", tokenizer=words
    )
    both = train(taught(teacher, teacher_weight=9.0), text, tmp_path / "b", tokenizer=words)
    assert losses_of(both.directory) == pytest.approx(losses_of(alone.directory), rel=1e-6)


def test_a_teacher_stays_as_it_is(teacher, text, tmp_path):
    before = weights_of(teacher)
    train(run_of(teacher=str(teacher)), text, tmp_path / "run", tokenizer=str(teacher))
    assert all(torch.equal(before[name], now) for name, now in weights_of(teacher).items())


def test_another_tokenizer_is_refused(teacher, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("łabędź 0123 żółw\n" * 30, "utf-8")
    with pytest.raises(ConfigError, match=r"training\.teacher.*another tokenizer.*--tokenizer"):
        train(taught(teacher), str(other), tmp_path / "run")


def test_longer_rows_than_it_knows_are_refused(teacher, text, tmp_path):
    run = taught(teacher)
    longer = 2 * run.model.max_position_embeddings
    run = replace(run, model=replace(run.model, max_position_embeddings=longer))
    with pytest.raises(ConfigError, match=r"training\.teacher.*rows of up to \d+ tokens"):
        train(run, text, tmp_path / "run", tokenizer=str(teacher))


def test_what_cannot_have_a_teacher_refuses_it(teacher, text, tmp_path):
    with pytest.raises(ConfigError, match=r"training\.teacher.*taggers have none"):
        train_tagger(taught(teacher), text, tmp_path / "tagger")
    with pytest.raises(ConfigError, match=r"training\.teacher.*numpy"):
        backends.train("numpy", taught(teacher), text, tmp_path / "numpy")
