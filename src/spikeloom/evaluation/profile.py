"""What a model does with one text: which channels fire, which never do, where the work is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from spikeloom.errors import ConfigError, DataError, did_you_mean
from spikeloom.evaluation.perplexity import per_layer, per_product
from spikeloom.evaluation.windows import Windows
from spikeloom.metrics import NeuronRecord, Recorder, energy, operations
from spikeloom.model import SpikeloomForCausalLM

MOST_TOKENS = 48
"""A raster with more columns has unreadable labels."""


def profile(
    model: SpikeloomForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    out_dir: str | Path,
    neurons: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Read a text and write `raster.png`, `rates.png`, `operations.png`, `profile.json`.

    Args:
        model, tokenizer: a checkpoint.
        text: one sentence makes the best raster; counts use all of it, the raster its beginning.
        out_dir: made if it is missing.
        neurons: which to draw in the raster, as `layer.role` (`0.mlp_hidden`, `head`); by default
            the input of the first layer, the MLP in the middle, and the head.

    Returns:
        what `profile.json` holds: `tokens`, `active_share`, `channel_rate`, `mean_count`,
        `per_layer` with the dead and saturated channels by number, `products`, `synops`,
        `energy_pj`.

    Raises:
        DataError: the text has fewer than two tokens.
        ConfigError: a neuron to draw does not exist.
    """
    from spikeloom.evaluation import pictures

    ids = _read(model, tokenizer, text)
    recorder = Recorder(model, keep=True)
    with recorder, torch.inference_mode():
        model.eval()(input_ids=ids, use_cache=False)
    report = _report(model, recorder, ids.shape[1])
    drawn = choose(list(recorder.records.values()), neurons)
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "profile.json").write_text(json.dumps(report, indent=2), "utf-8")
    words = [str(tokenizer.decode([i])) for i in ids[0, :MOST_TOKENS].tolist()]
    if drawn:
        panels = [(label(r), r.payloads[:, : len(words)], r.neuron.signed) for r in drawn]
        pictures.raster(words, panels, folder / "raster.png")
    pictures.rates(report["per_layer"], folder / "rates.png")
    pictures.operations(report["products"], folder / "operations.png")
    return report


def label(record: NeuronRecord) -> str:
    """`layer.role`, as in `0.mlp_hidden`; `head` has no layer."""
    return record.role if record.layer is None else f"{record.layer}.{record.role}"


def choose(records: Sequence[NeuronRecord], names: Sequence[str] | None) -> list[NeuronRecord]:
    """The neurons to draw, by name or a telling few."""
    by_name = {label(record): record for record in records}
    if names is None:
        hidden = [r for r in records if r.role == "mlp_hidden"]
        picked = [*records[:1], *hidden[len(hidden) // 2 :][:1], *records[-1:]]
        return list(dict.fromkeys(picked))
    for name in names:
        if name not in by_name:
            near = did_you_mean(name, by_name)
            raise ConfigError(f"neuron '{name}' does not exist{near}: use layer.role or head")
    return [by_name[name] for name in names]


def _read(model: SpikeloomForCausalLM, tokenizer: PreTrainedTokenizerFast, text: str) -> Tensor:
    """Ids `[1, L]` of the text behind a document start, at most one context."""
    opening = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids = opening + tokenizer.encode(text, add_special_tokens=False)
    if len(ids) < 2:
        raise DataError("the text is too short to profile: give at least one word")
    return torch.tensor([ids[: model.config.max_position_embeddings]], device=model.device)


def _report(model: SpikeloomForCausalLM, recorder: Recorder, tokens: int) -> dict[str, Any]:
    counted = operations(model, recorder, Windows(tokens + 1, tokens, tokens).mean_keys)
    records = list(recorder.records.values())
    layers = per_layer(model, records)
    for entry, record in zip(layers, records, strict=True):
        entry["dead_channels"] = record.dead
        entry["saturated_channels"] = record.saturated_channels
    return {
        "tokens": tokens,
        "active_share": counted.active_share,
        "channel_rate": counted.channel_rate,
        "mean_count": counted.mean_count,
        "per_layer": layers,
        "products": per_product(counted),
        "synops": counted.to_json(),
        "energy_pj": energy(counted),
    }
