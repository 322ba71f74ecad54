"""Checkpoints side by side: the same text, one table, speed measured in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from spikeloom import tokenizers
from spikeloom.config import NEURONS_WITHIN, ModelConfig
from spikeloom.data.packing import Part, pack
from spikeloom.errors import ConfigError, DataError
from spikeloom.evaluation.checkpoint import load
from spikeloom.evaluation.perplexity import Stream, evaluate, excerpt
from spikeloom.evaluation.speed import ENGINES, Start, decode_speeds, engine
from spikeloom.model import SpikeloomForCausalLM, products
from spikeloom.model.twins import quantised_twin

Row = dict[str, Any]


def compare(
    directories: Sequence[str | Path],
    source: str,
    *,
    part: Part = "all",
    context: int | None = None,
    stride: int | None = None,
    max_tokens: int | None = None,
    batch_size: int = 8,
    device: str = "cpu",
    speed: bool = True,
    engines: Sequence[str] = ("torch", "event"),
    speed_tokens: int = 64,
    repeats: int = 5,
) -> list[Row]:
    """Evaluate every checkpoint on the same text, then time them in turns on one CPU thread.

    Args:
        directories: checkpoints; the first dense one is what gaps are measured against.
        source: text, see `spikeloom.data.sources`.
        part: `eval` takes the documents that `train` holds out of this source.
        context, stride: as in `evaluate`; by default the shortest context of all models.
        max_tokens: of the first checkpoint's tokenizer; the others read the same documents.
        batch_size, device: of the evaluation.
        speed: whether to measure decode speed.
        engines: keys of `spikeloom.evaluation.speed.ENGINES`.
        speed_tokens: tokens per timed round.
        repeats: timed rounds.

    Returns:
        one row per checkpoint, in order: `name`, `kind` (spiking, quantised, dense), `parameters`,
        `perplexity`, `comparable` (whether perplexities are: one tokenizer for all), `gap_percent`
        (of perplexity, or of bits per byte where those are not comparable; None without a dense
        row), `tokens_per_second` by engine (None where an engine cannot run the model), and what
        `evaluate` returns.

    Raises:
        CheckpointError, DataError, ConfigError: as `load`, `pack` and `evaluate`.
    """
    if not directories:
        raise ConfigError("there is nothing to compare: give at least one checkpoint directory")
    loaded = [load(directory, device=device) for directory in directories]
    packed = [pack(source, tokenizer, part=part) for _, tokenizer in loaded]
    if context is None:
        context = min(model.config.max_position_embeddings for model, _ in loaded)
    comparable = same_tokenizer([tokenizer for _, tokenizer in loaded])
    documents = None if comparable else _whole_documents(packed[0], loaded[0][1], max_tokens)
    rows: list[Row] = []
    for (model, tokenizer), stream, name in zip(loaded, packed, names(directories), strict=True):
        result = evaluate(
            model,
            tokenizer,
            stream,
            context=context,
            stride=stride,
            max_tokens=max_tokens if comparable else None,
            max_documents=documents,
            batch_size=batch_size,
        )
        result["protocol"] |= {"source": source, "part": part}
        rows.append({"name": name, **about(model), **result})
    _add_gaps(rows, comparable)
    models = [model for model, _ in loaded]
    _add_speeds(rows, models, packed, engines if speed else (), speed_tokens, repeats)
    return rows


def about(model: SpikeloomForCausalLM) -> Row:
    """`kind` and `parameters` of a model."""
    return {
        "kind": kind(model.config.architecture),
        "parameters": sum(p.numel() for p in model.parameters()),
        "dense_products": [p.name for p in products(model) if not p.spikes],
    }


def kind(config: ModelConfig) -> str:
    """`dense` without any neuron, `quantised` if every level is always sent, else `spiking`."""
    within = {name for layer in config.layers for name in NEURONS_WITHIN if name in layer.extras}
    if within & {"mixer_rate", "mlp_rate", "salience"}:
        return "spiking"
    used = [role for role in vars(config.neurons) if role != "encoder" or config.embedding_size]
    if not within and all(getattr(config.neurons, role).kind == "none" for role in used):
        return "dense"
    return "quantised" if quantised_twin(config) == config else "spiking"


def to_markdown(rows: Sequence[Row]) -> str:
    """One table, with what its figures mean underneath."""
    engines = list(rows[0]["tokens_per_second"])
    comparable = rows[0]["comparable"]
    titles = [
        "model", "kind", "parameters", "perplexity", "bits/byte", "gap", "active share",
        "channel rate", "mean count", "ACs/token", "MACs/token", "energy estimate (nJ/token)",
        "dense/spiking energy", *(f"decode tokens/s ({name})" for name in engines),
    ]  # fmt: skip
    lines = [titles, ["---", "---", *["---:"] * (len(titles) - 2)]]
    lines += [_cells(row, engines) for row in rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{_footnotes(rows[0], comparable, bool(engines))}\n"


def to_png(rows: Sequence[Row], path: str | Path) -> None:
    """Quality, sparsity, estimated energy and measured speed as bars."""
    from spikeloom.evaluation.pictures import comparison

    comparison(rows, path)


def names(directories: Sequence[str | Path]) -> list[str]:
    """Directory names; whole paths where two are called the same."""
    short = [Path(directory).resolve().name for directory in directories]
    return short if len(set(short)) == len(short) else [str(d) for d in directories]


def same_tokenizer(all_tokenizers: Sequence[PreTrainedTokenizerFast]) -> bool:
    """Whether a token is the same piece of text to all of them."""
    return len({tokenizers.fingerprint(t) for t in all_tokenizers}) == 1


def _whole_documents(
    stream: Stream, tokenizer: PreTrainedTokenizerFast, max_tokens: int | None
) -> int:
    """How many documents fit: a cut one would be another text to another tokenizer."""
    count = excerpt(stream, tokenizer, max_tokens).documents
    if count == 0:
        raise DataError(
            f"the first document is longer than {max_tokens} tokens: allow more, because different "
            "tokenizers are compared on whole documents"
        )
    return count


def _add_gaps(rows: list[Row], comparable: bool) -> None:
    key = "perplexity" if comparable else "bits_per_byte"
    dense = next((row[key] for row in rows if row["kind"] == "dense"), None)
    for row in rows:
        row["comparable"] = comparable
        row["gap_percent"] = None if dense is None else 100 * (row[key] / dense - 1)


def _add_speeds(
    rows: list[Row],
    models: Sequence[SpikeloomForCausalLM],
    packed: Sequence[Stream],
    engines: Sequence[str],
    tokens: int,
    repeats: int,
) -> None:
    contestants: dict[str, Start] = {}
    texts: dict[str, list[int]] = {}
    for row, model, stream in zip(rows, models, packed, strict=True):
        cpu = model.to(device="cpu", dtype=torch.float32)  # type: ignore[call-arg]
        row["tokens_per_second"] = dict.fromkeys(engines)
        for name in engines:
            try:
                contestants[f"{row['name']}/{name}"] = engine(name, cpu)
            except ConfigError:
                if name not in ENGINES:
                    raise
                continue  # this architecture has no such form: the cell stays empty
            texts[f"{row['name']}/{name}"] = stream.tokens[: tokens + 8].tolist()
    measured = decode_speeds(contestants, texts, repeats=repeats)
    for row in rows:
        for name in engines:
            row["tokens_per_second"][name] = measured.get(f"{row['name']}/{name}")


def _cells(row: Row, engines: Sequence[str]) -> list[str]:
    mark = "" if row["comparable"] else "*"
    rate, count, gap = row["channel_rate"], row["mean_count"], row["gap_percent"]
    return [
        row["name"],
        row["kind"],
        _millions(row["parameters"]),
        f"{row['perplexity']:.2f}{mark}",
        f"{row['bits_per_byte']:.3f}",
        "" if gap is None else f"{gap:+.1f}%",
        f"{row['active_share']:.3f}",
        "" if rate is None else f"{rate:.3f}",
        "" if count is None else f"{count:.2f}",
        _millions(row["synops"]["acs"]),
        _millions(row["synops"]["macs"]),
        f"{row['energy_pj']['spiking'] / 1e3:,.0f}",
        f"{row['energy_pj']['ratio']:.2f}x",
        *(_speed(row["tokens_per_second"][name]) for name in engines),
    ]


def _footnotes(row: Row, comparable: bool, timed: bool) -> str:
    protocol = row["protocol"]
    held_out = " (held-out documents)" if protocol["part"] == "eval" else ""
    notes = [
        f"{row['tokens']} tokens of {protocol['source']}{held_out} for the first row, windows "
        f"of {protocol['context']} tokens, stride {protocol['stride']}.",
        "Gap: against the first dense row, of "
        + ("perplexity." if comparable else "bits per byte, because tokenizers differ."),
        "Energy: arithmetic only, an estimate from 45 nm constants, not a measurement.",
    ]
    if timed:
        notes.append("Decode: measured, batch 1, one CPU thread, fp32, rounds in turn, median.")
    if not comparable:
        notes.append("\\* not comparable between tokenizers: read bits per byte.")
    return "\n".join(notes)


def _millions(number: float) -> str:
    return f"{number / 1e6:.2f}M" if number >= 1e4 else f"{number:.0f}"


def _speed(tokens_per_second: float | None) -> str:
    return "" if tokens_per_second is None else f"{tokens_per_second:.0f}"
