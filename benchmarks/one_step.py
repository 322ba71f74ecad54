"""One training step of a preset, as large as it is: memory and tokens per second.

    PYTHONPATH=src python benchmarks/one_step.py pulse-1b --device cuda [--set a.b=c ...]

The step is that of `spikeloom bench train`: random tokens, mixed precision, clipping, the preset's
optimizer, gradient checkpointing if the preset (or `--set`) asks for it. It runs once unseen, then
once by the clock. Nothing is read or saved.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import torch

from spikeloom.bench.train import BareLoop
from spikeloom.config import load_config

GIB = 2**30


def main() -> None:
    given = arguments()
    run = load_config(given.preset, given.settings)
    began = time.perf_counter()
    loop = BareLoop(run, given.device)
    ready = time.perf_counter()
    loop.block()
    seconds = time.perf_counter() - ready
    report = {
        "preset": given.preset,
        "set": given.settings,
        "parameters": sum(p.numel() for p in loop.model.parameters()),
        "gradient_checkpointing": run.training.gradient_checkpointing,
        "rows": list(loop.batch.shape),
        "seconds": round(seconds, 3),
        "tokens_per_second": round(loop.tokens_per_block / seconds),
        "first_steps_seconds": round(ready - began, 1),
        "peak_gib": round(peak(given.device) / GIB, 2),
    }
    print(json.dumps(report, indent=2))
    if given.json is not None:
        given.json.write_text(json.dumps(report, indent=2))


def peak(device: str) -> int:
    """Bytes allocated on the GPU at most; on a CPU, resident in the process at most."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", dest="settings")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
