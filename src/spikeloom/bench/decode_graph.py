"""Milliseconds per token at batch 1 on a GPU: a spiking model beside its dense twin.

Both run as `inference.graph_step`: one step in a CUDA graph, as it is and compiled, the likeliest
token fed back on the device, nothing that waits for the CPU. Weights are random and bfloat16;
models take turns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from spikeloom.bench.decode_check import check_in_bfloat16, check_in_float32
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


def against_dense_twin(options: Options) -> Iterator[Row]:
    """Spiking against dense, preset by preset.

    Raises:
        RuntimeError: a captured step computes something else than its model.
    """
    for preset in options.select(PRESETS, quick=1):
        for compiled in (False, True)[: 1 if options.quick else None]:
            yield compare(preset, compiled)


def compare(preset: str, compiled: bool) -> Row:
    torch.manual_seed(0)
    config = SpikeloomConfig.from_architecture(load_config(preset).model)
    steps = {
        "spiking": checked_step(f"{preset}, spiking", config, compiled),
        "dense twin": checked_step(f"{preset}, dense twin", dense_twin(config), compiled),
    }
    times = in_turns(steps)
    ours, peer = times["spiking"], times["dense twin"]
    form = "compiled, in a CUDA graph" if compiled else "in a CUDA graph"
    case = f"{preset}, bfloat16, batch 1, a token behind {PROMPT}, {form}"
    where, target = device_name("cuda"), TARGET if compiled else None
    return Row(
        case, where, ours.ms, peer.ms, "dense twin, the same step", "ms", target, ours.spread
    )


def checked_step(name: str, config: SpikeloomConfig, compiled: bool) -> GraphStep:
    """A captured step that says what its model says, with the prompt read."""
    prompt = torch.randint(config.vocab_size, (PROMPT,)).tolist()
    if compiled:
        say(f"{name}, compiled: {check_in_float32(config, prompt, compiled, 'cuda')}")
    with torch.device("cuda"):
        model = SpikeloomForCausalLM(config).bfloat16().eval()
    step = GraphStep(model, ROOM, compiled)
    say(f"{name}: {check_in_bfloat16(step, prompt)}")
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
