"""Print the table of a folder of GPU runs: `python research/figures.py FOLDER`.

Held-out loss is that of the run's own evaluation (131,072 tokens spread over the three validation
sets); tokens/s is that of the second half of the run, compilation and start-up excluded.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path


def row(folder: Path, name: str) -> tuple[str, ...]:
    """Figures of one run, as cells."""
    final = json.loads((folder / f"{name}.train.json").read_text())
    history = json.loads((folder / f"{name}.trainer_state.json").read_text())["log_history"]
    return (
        name,
        f"{final['tokens'] / 1e6:.0f} M",
        f"{final['eval_loss']:.3f}",
        f"{math.exp(final['eval_loss']):.2f}",
        f"{final['eval_bits_per_byte']:.3f}",
        f"{final['eval_active_share']:.3f}",
        f"{speed(history, final['tokens'] / final['steps']) / 1e3:.0f} k",
    )


def speed(history: list[dict[str, float]], tokens_per_step: float) -> float:
    """Tokens per second between logs of the second half that no evaluation lies between."""
    pairs = zip(history[len(history) // 2 :], history[len(history) // 2 + 1 :], strict=False)
    timed = [
        (b["step"] - a["step"]) * tokens_per_step / (b["seconds"] - a["seconds"])
        for a, b in pairs
        if "loss" in a and "loss" in b and b["seconds"] > a["seconds"]
    ]
    return sorted(timed)[len(timed) // 2]


def main() -> None:
    folder = Path(sys.argv[1])
    names = sorted(path.name.removesuffix(".train.json") for path in folder.glob("*.train.json"))
    rows = [row(folder, name) for name in names]
    dense = next((float(r[3]) for r in rows if r[0] == "dense"), None)
    print(
        "| run | tokens | held-out loss | perplexity | gap | bits/byte | active share | tokens/s |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, tokens, loss, perplexity, bits, share, rate in rows:
        gap = f"{100 * (float(perplexity) / dense - 1):+.1f}%" if dense else ""
        print(f"| {' | '.join((name, tokens, loss, perplexity, gap, bits, share, rate))} |")


if __name__ == "__main__":
    main()
