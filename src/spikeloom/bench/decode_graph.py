"""Milliseconds per token at batch 1 on a GPU: a spiking model beside its dense twin.

Both run as `inference.graph_step`: one compiled step in a CUDA graph, the likeliest token fed back
on the device, nothing that waits for the CPU. Weights are random and bfloat16; models take turns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from spikeloom.bench.neuron_peers import say
from spikeloom.bench.options import Options
from spikeloom.bench.rows import Row, device_name
from spikeloom.bench.timing import Timing, summarise
from spikeloom.config import load_config
from spikeloom.inference.graph_step import GraphStep
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM, dense_twin

PRESETS = ("spikeloom-15m", "spikeloom-125m")
ROOM, PROMPT, TURN, TURNS = 512, 64, 32, 9
TARGET = 1.0
TOLERANCE = 0.1  # bfloat16, and spikes that a rounding moves


def run(options: Options) -> Iterator[Row]:
    """Spiking against dense, preset by preset.

    Raises:
        RuntimeError: logits of the captured step differ from the model's own.
    """
    for preset in options.select(PRESETS, quick=1):
        torch.manual_seed(0)
        config = SpikeloomConfig.from_architecture(load_config(preset).model)
        steps = {
            "spiking": checked_step(f"{preset}, spiking", config),
            "dense twin": checked_step(f"{preset}, dense twin", dense_twin(config)),
        }
        times = in_turns(steps)
        ours, peer = times["spiking"], times["dense twin"]
        case = f"{preset}, bfloat16, batch 1, behind {PROMPT} tokens, a token"
        where, name = device_name("cuda"), "dense twin, the same step"
        yield Row(case, where, ours.ms, peer.ms, name, "ms", TARGET, ours.spread)


def checked_step(name: str, config: SpikeloomConfig) -> GraphStep:
    """A compiled and captured step whose logits are those of the model, read all at once."""
    with torch.device("cuda"):
        model = SpikeloomForCausalLM(config).bfloat16().eval()
    step = GraphStep(model, ROOM, compiled=True)
    prompt = torch.randint(config.vocab_size, (1, PROMPT), device="cuda")
    with torch.no_grad():
        wanted = model(prompt).logits[0, -1].float()
    step.advance(prompt[0].tolist())
    error = float((step.logits.float() - wanted).norm() / wanted.norm())
    if not error < TOLERANCE:
        raise RuntimeError(f"{name}: logits of the captured step are off by {error:.2g}")
    say(f"{name}: logits of the captured step within {error:.1e} of the model's")
    return step


def in_turns(steps: dict[str, GraphStep]) -> dict[str, Timing]:
    """Milliseconds per token, `TURN` tokens at a time, behind the prompt."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(TURNS):
        for name, step in steps.items():
            torch.cuda.synchronize()
            before = time.perf_counter()
            step.advance(count=TURN)
            torch.cuda.synchronize()
            times[name].append(1e3 * (time.perf_counter() - before) / TURN)
    return {name: summarise(ms) for name, ms in times.items()}
