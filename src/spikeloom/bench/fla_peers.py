"""fla's chunked attention as a peer (`pip install flash-linear-attention`), all its tuning kept.

fla times every configuration of every program at its first call, about 160 for forward and
backward of one function, and compiles them one after another: minutes. Here those of a program are
compiled side by side before its own tuner times them: it finds the same ones, and chooses as ever.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from spikeloom.bench.neuron_peers import say

Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
THREADS = 16


def fla_peers() -> dict[str, Attention]:
    """fla's forms by the name that is printed, the one with a target first, if it is installed."""
    if find_spec("fla") is None:
        say("fla is not installed: its rows are left out")
        return {}
    fla = f"fla {version('fla-core')}"
    return {
        f"chunk_linear_attn, no decay, {fla}": without_decay,
        f"chunk_simple_gla, {fla}": with_decay,
    }


def without_decay(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    from fla.ops.linear_attn import chunk_linear_attn

    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out: Tensor = chunk_linear_attn(q, k, v, scale=1.0, normalize=False)[0]
    return out.transpose(1, 2)


def with_decay(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    from fla.ops.simple_gla import chunk_simple_gla

    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out: Tensor = chunk_simple_gla(q, k, v, g=log_decay.transpose(1, 2), scale=1.0)[0]
    return out.transpose(1, 2)


@contextmanager
def compiled_side_by_side() -> Iterator[None]:
    """Within, a tuner has all configurations of a program compiled before it times the first."""
    from triton.runtime.autotuner import Autotuner

    prune = Autotuner.prune_configs  # what a tuner asks before it starts

    def pruned(tuner: Any, arguments: dict[str, Any]) -> list[Any]:
        configs = prune(tuner, arguments)
        _compile_all(tuner, configs, arguments)
        return configs

    with patch.object(Autotuner, "prune_configs", pruned):
        yield


def _compile_all(tuner: Any, configs: list[Any], arguments: dict[str, Any]) -> None:
    """The first alone: it reads the source, which the others then share."""
    given, device = list(tuner.nargs.values()), torch.cuda.current_device()
    name, began = tuner.base_fn.__name__, time.perf_counter()

    def job(config: Any) -> bool:
        torch.cuda.set_device(device)
        options = {**arguments, **config.all_kwargs(), "warmup": True}
        try:
            tuner.fn.run(*given, **options)
        except Exception:  # the tuner meets it again, and knows what that means
            return False
        return True

    say(f"{name}: {len(configs)} configurations to tune")
    first, *rest = configs
    made = [job(first)]
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as threads:
        made += threads.map(job, rest)
    say(f"{name}: {sum(made)} compiled in {time.perf_counter() - began:.0f} s, now timed")
