"""Resident memory of the engine while it generates, for a model whose state has a constant size."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import torch

from spikeloom.bench.rows import Row, device_name
from spikeloom.inference.engine import Engine
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM

EARLY, LATE = 1_000, 200_000  # tokens
PAGE = 4096


def memory_row(early: int = EARLY, late: int = LATE) -> Row:
    """Megabytes after `late` generated tokens beside those after `early`, in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        before, after = pool.apply(resident, (early, late))
    return Row(
        f"memory after {late} generated tokens (sdsa and a window of 64)",
        device_name("cpu"),
        after,
        before,
        f"after {early}",
        "MB",
        0.99,
    )


def resident(*counts: int) -> list[float]:
    """Megabytes of this process after so many generated tokens each (growing)."""
    torch.set_num_threads(1)
    engine = Engine.from_model(small_model())
    tokens = engine.generate([1], max_new_tokens=max(counts), stops=())
    return [_megabytes() for count, _ in enumerate(tokens, 1) if count in counts]


def small_model() -> SpikeloomForCausalLM:
    """A layer of `sdsa` and one of windowed attention, at random weights."""
    torch.manual_seed(0)
    config = SpikeloomConfig(
        vocab_size=256,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        layers=[
            {"mixer": "sdsa", "mlp": "relu2"},
            {"mixer": "attention", "mlp": "relu2", "sliding_window": 64},
        ],
    )
    return SpikeloomForCausalLM(config).eval()


def _megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * PAGE / 1e6
