"""Measured decode speed: batch 1, one thread, token by token, all contestants in one run.

A contestant reads real text as decoding would: one token in, all logits and their argmax out, then
the next token *of the text*. So every model does the work that real text asks for (firing rates
included), and a model that has fallen into a loop is not timed on its loop. Rounds alternate
between contestants, so that a busy moment of the machine hits all of them; the median is reported.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from spikeloom.errors import ConfigError, DataError, did_you_mean
from spikeloom.model import DecoderState, SpikeloomForCausalLM

Step = Callable[[int], int]
"""Reads one token id, returns the likeliest next one."""

Start = Callable[[], Step]
"""A fresh state, and the step that advances it."""


def torch_engine(model: SpikeloomForCausalLM) -> Start:
    """What `generate` runs: the model with its `DecoderState`."""

    def start() -> Step:
        state = DecoderState(model.config.architecture)

        def step(token: int) -> int:
            ids = torch.tensor([[token]], device=model.device)
            logits = model(input_ids=ids, past_key_values=state, use_cache=True).logits
            return int(logits[0, -1].argmax())

        return step

    return start


def event_engine(model: SpikeloomForCausalLM) -> Start:
    """The event-driven CPU engine: reads only the weights of channels that fired."""
    from spikeloom.inference.engine import Engine

    engine = Engine.from_model(model)

    def start() -> Step:
        state = engine.new_state()
        return lambda token: int(engine.step(token, state).argmax())

    return start


ENGINES: dict[str, Callable[[SpikeloomForCausalLM], Start]] = {
    "torch": torch_engine,
    "event": event_engine,
}


def engine(name: str, model: SpikeloomForCausalLM) -> Start:
    """A contestant.

    Raises:
        ConfigError: unknown engine, or one that cannot run this architecture.
    """
    if name not in ENGINES:
        near = did_you_mean(name, ENGINES)
        raise ConfigError(f"engine '{name}' is unknown{near}: use {' or '.join(ENGINES)}")
    return ENGINES[name](model.eval())


def decode_speed(
    model: SpikeloomForCausalLM, text: Sequence[int], name: str = "torch", repeats: int = 5
) -> float:
    """Tokens per second of one model; see `decode_speeds`."""
    return decode_speeds({name: engine(name, model)}, {name: text}, repeats=repeats)[name]


def decode_speeds(
    contestants: Mapping[str, Start],
    texts: Mapping[str, Sequence[int]],
    *,
    prompt: int = 8,
    repeats: int = 5,
) -> dict[str, float]:
    """Median tokens per second of each contestant, measured in turns on one thread.

    Args:
        contestants: by name.
        texts: token ids that each reads, by the same names. The first `prompt` are read before the
            clock starts.
        prompt: tokens that warm the state up, in every round.
        repeats: rounds, after one that is not counted.

    Raises:
        DataError: a text is no longer than the prompt.
    """
    for name, text in texts.items():
        if len(text) <= prompt:
            raise DataError(f"{name}: {len(text)} tokens are too few to measure speed on")
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    with _one_thread(), torch.inference_mode():
        for _ in range(repeats + 1):
            for name, start in contestants.items():
                measured[name].append(_round(start(), texts[name], prompt))
    return {name: statistics.median(speeds[1:]) for name, speeds in measured.items()}


def _round(step: Step, text: Sequence[int], prompt: int) -> float:
    for token in text[:prompt]:
        step(token)
    begin = time.perf_counter()
    for token in text[prompt:]:
        step(token)
    return (len(text) - prompt) / (time.perf_counter() - begin)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
