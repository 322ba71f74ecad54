"""Milliseconds per token at batch 1, one thread: the event-driven engine and the dense twin.

    python benchmarks/decode.py [--hidden 384 --layers 8 ...] [--json FILE]

All contenders take turns in one process, 8 tokens at a time, behind the same 64-token prompt; the
median and the fastest time of a token are printed. Weights are random, and one factor on all
payload steps sets the active share. The dense twin runs in torch (`DecoderState`), and, so that
Python's part in that is seen, in our own engine too.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
import warnings
from collections.abc import Callable

import torch

from spikeloom.inference.engine import Engine
from spikeloom.model import SpikeloomConfig, SpikeloomForCausalLM, dense_twin
from spikeloom.neurons import GradedLIF

PROMPT, TURN = 64, 8
DTYPES = ("float32", "bfloat16", "int8")
Step = Callable[[int], object]


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = SpikeloomConfig(
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        intermediate_size=4 * options.hidden,
        vocab_size=options.vocab,
        layers=[{"mixer": options.mixer, "mlp": "relu2"}],
    )
    model = SpikeloomForCausalLM(config).eval()
    twin = SpikeloomForCausalLM(dense_twin(config)).eval()
    rows = []
    for dtype in options.dtypes:
        contenders = {"dense twin, torch": torch_step(twin, dtype)}
        contenders["dense twin, engine"] = engine_step(Engine.from_model(twin, dtype))
        for share in options.shares:
            engine = Engine.from_model(at_share(model, share), dtype)
            contenders[f"spiking, share {share}"] = engine_step(engine)
        times = measure(contenders, options.turns)
        base = times["dense twin, torch"][0]
        for name, (ms, best) in times.items():
            rows.append({"case": name, "dtype": dtype, "ms": ms, "best": best, "ratio": base / ms})
            print(
                f"{dtype:9} {name:20} {ms:7.3f} ms/token (best {best:7.3f})  {base / ms:5.2f}x",
                flush=True,
            )
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"results": rows}, file, indent=1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--mixer", default="attention")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.5])
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--json")
    return parser.parse_args()


def measure(contenders: dict[str, Step], turns: int) -> dict[str, tuple[float, float]]:
    """Median and least milliseconds per token of each contender, taking turns."""
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
    return {name: (statistics.median(ms), min(ms)) for name, ms in times.items()}


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


if __name__ == "__main__":
    main()
