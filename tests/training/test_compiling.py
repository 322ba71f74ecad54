"""Steps are CUDA graphs only where a graph's outputs and shape fit the run."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import run_of
from torch import nn

from spikeloom.training import heads, train
from spikeloom.training.budget import Budget
from spikeloom.training.compiling import compile_mode, compiled


@pytest.mark.parametrize(
    ("gpu", "processes", "accumulation", "one_shape", "mode"),
    [
        (True, 1, 1, True, "reduce-overhead"),
        (False, 1, 1, True, "default"),
        (True, 2, 1, True, "default"),
        (True, 1, 4, True, "default"),
        (True, 1, 1, False, "default"),
    ],
)
def test_graphs_are_for_one_gpu_one_batch_a_step_and_one_shape(
    gpu, processes, accumulation, one_shape, mode, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    config = run_of(gradient_accumulation=accumulation, compile=True).training
    assert compile_mode(config, processes, one_shape=one_shape) == mode


def test_padded_rows_get_no_graphs(tmp_path, monkeypatch):
    def stop(config, processes, *, one_shape):
        raise RuntimeError(f"one shape: {one_shape}")

    monkeypatch.setattr(train, "compile_mode", stop)
    config, budget = run_of(compile=True).training, Budget(max_steps=1)
    with pytest.raises(RuntimeError, match="one shape: True"):
        train.training_arguments(config, tmp_path, budget)
    rows, display = [None] * config.batch_size, SimpleNamespace(budget=budget)
    with pytest.raises(RuntimeError, match="one shape: False"):
        heads.head_trainer(config, tmp_path, None, None, (rows, rows), None, display)


def test_a_model_that_is_not_to_be_compiled_stays_itself():
    model, config = nn.Linear(2, 2), run_of().training
    assert compiled(model, config) is model
    assert compiled(model, replace(config, compile=True)) is not model
