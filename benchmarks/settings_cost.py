"""What settings cost: a preset with them beside the preset as it is.

    PYTHONPATH=src python benchmarks/settings_cost.py spikeloom-15m [--json FILE] \\
        --set model.neurons.default.gain_rank=8 --set model.neurons.mlp_hidden.gain_rank=0

Training is the bare loop of `spikeloom bench train`, dead zones whole. Decoding, on a GPU alone, is
that of `spikeloom bench decode`: batch 1, a compiled CUDA graph, products plain and event-driven,
at the active share of random weights. Both sides take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from spikeloom.bench.decode_graph import PROMPT, contender, in_turns
from spikeloom.bench.rows import Row, device_name, show
from spikeloom.bench.train import BLOCKS, side_by_side, with_whole_dead_zones
from spikeloom.errors import SpikeloomError
from spikeloom.inference.step_products import EVENT_DRIVEN, GIVEN
from spikeloom.model import SpikeloomConfig

WITH, WITHOUT = "with the settings", "without"


def measure(preset: str, settings: list[str], device: str, blocks: int = BLOCKS) -> Iterator[Row]:
    """Tokens per second in training; on a GPU milliseconds per token in decoding, too."""
    torch.set_float32_matmul_precision("high")
    runs = {WITHOUT: with_whole_dead_zones(preset, device)}
    runs[WITH] = with_whole_dead_zones(preset, device, settings)
    where = device_name(device)
    loops, times = side_by_side(runs, device, blocks)
    ours, peer = (loops[name].tokens_per_second(times[name]) for name in (WITH, WITHOUT))
    spread = times[WITH].spread
    yield Row(f"{preset}, training", where, ours, peer, WITHOUT, "tokens/s", spread=spread)
    if device != "cuda":
        return
    del loops
    prompt = torch.randint(runs[WITHOUT].model.vocab_size, (PROMPT,)).tolist()
    for products in (GIVEN, EVENT_DRIVEN):
        steps = {
            name: contender(
                name, SpikeloomConfig.from_architecture(run.model), prompt, True, products
            )
            for name, run in runs.items()
        }
        ms = in_turns(steps)
        shares = " and ".join(f"{steps[name].share():.3f}" for name in (WITH, WITHOUT))
        case = f"{preset}, decoding, {products} products, active shares {shares}"
        ours, peer, spread = ms[WITH].ms, ms[WITHOUT].ms, ms[WITH].spread
        yield Row(case, where, ours, peer, WITHOUT, "ms", spread=spread)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset")
    parser.add_argument("--set", action="append", required=True, metavar="a.b=c", dest="settings")
    here = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=here)
    parser.add_argument("--json", type=Path, help="also write the rows there")
    given = parser.parse_args()

    def keep(report: dict[str, Any]) -> None:
        if given.json is not None:
            given.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")

    try:
        show(measure(given.preset, given.settings, given.device), keep)
    except SpikeloomError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
