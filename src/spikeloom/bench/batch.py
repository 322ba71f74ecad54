"""From which batch on dense products win: the table that `spikeloom.inference.batch` keeps.

Both sides run the same spiking model in float32, with the threads that torch takes by default:
event-driven, one text after the other, and densely in torch, all texts together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from spikeloom.bench.contenders import Spiking
from spikeloom.bench.options import ALL, Options
from spikeloom.bench.rows import Row, device_name
from spikeloom.bench.timing import Timing, Work, time_cpu
from spikeloom.errors import ConfigError
from spikeloom.inference.engine import Engine
from spikeloom.model import DecoderState, SpikeloomForCausalLM
from spikeloom.model.sizes import random_model
from spikeloom.neurons import GradedLIF

SIZES = ("15m", "125m")
SHARES = (0.1, 0.2, 0.3, 0.5)
BATCHES = (1, 2, 4, 8, 16)
PROMPT, ROUNDS = 32, 10


def run(device: str, options: Options = ALL) -> list[Row]:
    """Milliseconds for one token of every text of a batch; prints the table of crossings.

    Raises:
        ConfigError: the device is not the CPU.
    """
    if device != "cpu":
        raise ConfigError("the event-driven engine runs on the CPU: use --device cpu")
    rows = []
    for size in options.select(SIZES, quick=1):
        measured = batches(size)
        crossings = {share: crossing(by_batch) for share, by_batch in measured.items()}
        print(f"CROSSING of {size}: {crossings}", flush=True)
        rows += [row for by_batch in measured.values() for row in by_batch.values()]
    return rows


def batches(size: str, rounds: int = ROUNDS) -> dict[float, dict[int, Row]]:
    """By share, then by batch."""
    model = random_model(f"spikeloom-{size}")
    rows: dict[float, dict[int, Row]] = {}
    before = 1.0
    for share, factor in Spiking(model, "bfloat16").factors(SHARES).items():
        for neuron in (m for m in model.modules() if isinstance(m, GradedLIF)):
            neuron.log_theta.data += math.log(factor / before)
        before, engine = factor, Engine.from_model(model)
        rows[share] = {}
        for batch in BATCHES:
            contenders = {"event": event_step(engine, batch), "dense": dense_step(model, batch)}
            case = f"{size} float32, active share {share}, batch {batch}"
            rows[share][batch] = _row(case, time_cpu(contenders, rounds))
    return rows


def crossing(rows: Mapping[int, Row]) -> float:
    """The smallest batch from which on dense products are faster; infinity if there is none."""
    found = math.inf
    for batch in sorted(rows, reverse=True):
        if rows[batch].ratio >= 1:
            break
        found = batch
    return found


def event_step(engine: Engine, batch: int) -> Work:
    """One token of every text, one after the other."""
    states = [engine.new_state() for _ in range(batch)]
    for i, state in enumerate(states):
        engine.prefill(_prompt(i), state)
    return lambda: [engine.step(100 + i, state) for i, state in enumerate(states)]


def dense_step(model: SpikeloomForCausalLM, batch: int) -> Work:
    """One token of every text, all together."""
    state = DecoderState(model.config.architecture)
    tokens = torch.arange(100, 100 + batch)[:, None]

    @torch.inference_mode()
    def step() -> object:
        return model(tokens, past_key_values=state).logits

    with torch.inference_mode():
        model(torch.tensor([_prompt(i) for i in range(batch)]), past_key_values=state)
    return step


def _prompt(text: int) -> list[int]:
    return torch.randint(1000, (PROMPT,), generator=torch.Generator().manual_seed(text)).tolist()


def _row(case: str, times: Mapping[str, Timing]) -> Row:
    ours, dense = times["event"], times["dense"]
    name = "dense products, together"
    return Row(case, device_name("cpu"), ours.ms, dense.ms, name, "ms", spread=ours.spread)
