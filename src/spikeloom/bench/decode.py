"""Milliseconds per token at batch 1, one thread: the event-driven engine and the dense twin.

All contenders take turns in one process, 8 tokens at a time, behind the same 64-token prompt.
Weights are random, and one factor on all payload steps sets the active share. The dense twin runs
in torch (`DecoderState`), and, so that Python's part in that is seen, in our own engine too.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator

import torch

from spikeloom.bench.options import ALL, Options
from spikeloom.bench.rows import Row, device_name
from spikeloom.bench.timing import Timing, summarise
from spikeloom.inference.engine import Engine
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM, dense_twin
from spikeloom.neurons import GradedLIF

PROMPT, TURN, TURNS = 64, 8, 12
DTYPES = ("float32", "bfloat16", "int8")
SHARES = (0.1, 0.2, 0.3, 0.5)
TARGET_SHARE, TARGETS = 0.2, {"float32": 3.5, "bfloat16": 3.5, "int8": 2.0}
Step = Callable[[int], object]


def run(device: str, options: Options = ALL) -> Iterator[Row]:
    """On a CPU event-driven against dense, at 15m, over active shares; on a GPU `decode_graph`."""
    if device != "cpu":
        from spikeloom.bench.decode_graph import against_dense_twin

        yield from against_dense_twin(options)
        return
    dtypes = options.select(DTYPES, quick=1)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = SpikeloomConfig(layers=[{"mixer": "attention", "mlp": "relu2"}])
    model = SpikeloomForCausalLM(config).eval()
    twin = SpikeloomForCausalLM(dense_twin(config)).eval()
    for dtype in dtypes:
        yield from compare(model, twin, dtype)


def compare(model: SpikeloomForCausalLM, twin: SpikeloomForCausalLM, dtype: str) -> Iterator[Row]:
    """One row per active share and kind of twin."""
    peers = {
        "dense twin in torch": torch_step(twin, dtype),
        "dense twin in our engine": engine_step(Engine.from_model(twin, dtype)),
    }
    ours = {
        share: engine_step(Engine.from_model(at_share(model, share), dtype)) for share in SHARES
    }
    times = measure({**peers, **{str(share): step for share, step in ours.items()}}, TURNS)
    for peer in peers:
        for share in SHARES:
            wanted = share == TARGET_SHARE and peer.endswith("torch")
            yield Row(
                f"15m {dtype}, active share {share} (bound {1 / share:.1f}x)",
                device_name("cpu"),
                times[str(share)].ms,
                times[peer].ms,
                peer,
                "ms",
                TARGETS[dtype] if wanted else None,
                times[str(share)].spread,
            )


def measure(contenders: dict[str, Step], turns: int) -> dict[str, Timing]:
    """Milliseconds per token of each contender, taking turns."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 1000, (PROMPT + turns * TURN,), generator=generator).tolist()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for step in contenders.values():
        for token in tokens[:PROMPT]:
            step(token)
    for turn in range(turns):
        start = PROMPT + turn * TURN
        for name, step in contenders.items():
            for token in tokens[start : start + TURN]:
                before = time.perf_counter()
                step(token)
                times[name].append(1e3 * (time.perf_counter() - before))
    return {name: summarise(ms) for name, ms in times.items()}


def engine_step(engine: Engine) -> Step:
    return engine.step


def torch_step(model: SpikeloomForCausalLM, dtype: str) -> Step:
    """The model token by token with its `DecoderState`; int8 is torch's dynamic quantisation."""
    if dtype == "bfloat16":
        model = copy.deepcopy(model).bfloat16()
    if dtype == "int8":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.ao is deprecated in favour of torchao
            model = torch.ao.quantization.quantize_dynamic(untied(model), dtype=torch.qint8)
    state = None

    @torch.inference_mode()
    def step(token: int) -> torch.Tensor:
        nonlocal state
        output = model(torch.tensor([[token]]), past_key_values=state, use_cache=True)
        state = output.past_key_values
        return output.logits

    return step


def untied(model: SpikeloomForCausalLM) -> SpikeloomForCausalLM:
    """A copy whose linear layers are plain, as the quantiser knows them."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.Linear):
                plain = torch.nn.Linear(child.in_features, child.out_features, bias=False)
                plain.weight.data.copy_(child.weight.data)
                setattr(parent, name, plain)
    return model


def at_share(model: SpikeloomForCausalLM, share: float) -> SpikeloomForCausalLM:
    """A copy whose payload steps are scaled so that it reads `share` of its weights."""
    low, high = -6.0, 4.0
    for _ in range(12):
        middle = (low + high) / 2
        scaled = copy.deepcopy(model)
        for neuron in (m for m in scaled.modules() if isinstance(m, GradedLIF)):
            neuron.log_theta.data += middle
        low, high = (middle, high) if share_of(scaled) > share else (low, middle)
    return scaled


def share_of(model: SpikeloomForCausalLM) -> float:
    engine = Engine.from_model(model)
    engine.prefill(list(range(100, 112)))
    # The head runs once per call: count it at the rate it had there.
    return engine.state.active_share
