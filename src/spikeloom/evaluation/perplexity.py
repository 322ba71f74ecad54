"""Loss, bits per byte, and what the model did for it, in one pass over the text."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from spikeloom.errors import ConfigError, DataError
from spikeloom.evaluation.windows import Windows
from spikeloom.metrics import NeuronRecord, Operations, Recorder, energy, operations
from spikeloom.model import SpikeloomForCausalLM, products


class Stream(Protocol):
    """What is read of `spikeloom.data.packing.PackedTokens`."""

    tokens: NDArray[Any]  # [tokens]
    documents: NDArray[np.int64]  # [documents], where each starts (at its <|endoftext|>)
    document_bytes: NDArray[np.int64]  # [documents], UTF-8 bytes


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a stream, and exactly how much text it is.

    Attributes:
        tokens: ids, `[tokens]`.
        bytes: UTF-8 bytes of the text in it; separators are no text.
        documents: whole documents in it; one cut document may follow.
    """

    tokens: NDArray[Any]
    bytes: int
    documents: int


def evaluate(
    model: SpikeloomForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    source: str | Stream,
    *,
    context: int | None = None,
    stride: int | None = None,
    max_tokens: int | None = None,
    max_documents: int | None = None,
    batch_size: int = 8,
) -> dict[str, Any]:
    """Measure a model on text.

    Args:
        model: on the device and in the dtype to measure with.
        tokenizer: the model's.
        source: a source (`spikeloom.data.sources`), or tokens packed before.
        context: tokens per window; the model's `max_position_embeddings` by default.
        stride: tokens from window to window; half the context by default.
        max_tokens, max_documents: use only the beginning, see `excerpt`.
        batch_size: windows at a time.

    Returns:
        the JSON object of `spikeloom eval`: `tokens` (scored), `bytes`, `loss` (nats per token),
        `perplexity`, `bits_per_byte`, `active_share`, `channel_rate`, `mean_count`, `per_layer`,
        `synops` and `energy_pj` (per token), `products`, `protocol`.

    Raises:
        DataError: the source is unreadable or too short.
        ConfigError: impossible context, stride or batch size.
    """
    stream = _pack(source, tokenizer) if isinstance(source, str) else source
    part = excerpt(stream, tokenizer, max_tokens, max_documents)
    context = model.config.max_position_embeddings if context is None else context
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1 window, not {batch_size}")
    windows = Windows(len(part.tokens), context, max(context // 2, 1) if stride is None else stride)
    recorder = Recorder(model)
    nats = _score(model, part.tokens, windows, batch_size, recorder)
    counted = operations(model, recorder, windows.mean_keys)
    loss = nats / windows.scored
    return {
        "tokens": windows.scored,
        "bytes": part.bytes,
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_byte": nats / math.log(2) / part.bytes,
        "active_share": counted.active_share,
        "channel_rate": counted.channel_rate,
        "mean_count": counted.mean_count,
        "per_layer": per_layer(model, recorder.records.values()),
        "synops": counted.to_json(),
        "energy_pj": energy(counted),
        "products": per_product(counted),
        "protocol": _protocol(source, windows, part, model),
    }


def excerpt(
    stream: Stream,
    tokenizer: PreTrainedTokenizerFast,
    max_tokens: int | None = None,
    max_documents: int | None = None,
) -> Excerpt:
    """The beginning of a stream, of at most so many tokens or whole documents.

    Whole documents are taken as long as they fit. If they would leave more than half of
    `max_tokens` unused, the next document is cut at a character border and its bytes are counted by
    decoding it.

    Raises:
        DataError: fewer than two tokens, or no text.
    """
    starts = np.append(stream.documents, len(stream.tokens))
    limit = len(stream.tokens) if max_tokens is None else min(max_tokens, len(stream.tokens))
    whole = int(np.searchsorted(starts, limit, side="right")) - 1
    if max_documents is not None and max_documents <= whole:
        whole, limit = max_documents, int(starts[max_documents])
    stop, size = int(starts[whole]), int(stream.document_bytes[:whole].sum())
    if 2 * stop < limit:
        stop, extra = cut(stream.tokens, stop, limit, tokenizer)
        size += extra
    if stop < 2 or size < 1:
        raise DataError(f"there is too little text to evaluate on: {stop} tokens, {size} bytes")
    return Excerpt(stream.tokens[:stop], size, whole)


def cut(
    tokens: NDArray[Any], start: int, stop: int, tokenizer: PreTrainedTokenizerFast
) -> tuple[int, int]:
    """Where to cut a document that starts at `start`, at most at `stop`; and the bytes kept."""
    first_cut = stop
    while True:
        text = str(tokenizer.decode(tokens[start + 1 : stop].tolist()))
        # Half a character decodes to U+FFFD. If the text itself ends so, cutting goes no further
        # back than the longest character has bytes.
        if not text.endswith("�") or stop == start + 1 or first_cut - stop == 4:
            return stop, len(text.encode())
        stop -= 1


def _pack(source: str, tokenizer: PreTrainedTokenizerFast) -> Stream:
    from spikeloom.data.packing import pack

    return pack(source, tokenizer, part="all")


@torch.inference_mode()
def _score(
    model: SpikeloomForCausalLM,
    tokens: NDArray[Any],
    windows: Windows,
    batch_size: int,
    recorder: Recorder,
) -> float:
    """Total nats; the recorder sees each scored position once."""
    device, training = model.device, model.training
    model.eval()
    nats = torch.zeros((), dtype=torch.float64, device=device)
    quiet = not sys.stderr.isatty()
    with recorder, Progress(console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task("evaluating", total=windows.scored)
        for begins, scored in windows.batches(batch_size):
            rows = np.stack([tokens[b : b + windows.context + 1] for b in begins])
            ids = torch.from_numpy(rows.astype(np.int64)).to(device)
            recorder.positions = torch.from_numpy(scored).to(device)
            nats += _nats(model, ids, recorder.positions)
            bar.advance(task, int(scored.sum()))
    model.train(training)
    return float(nats)


def _nats(model: SpikeloomForCausalLM, ids: Tensor, scored: Tensor) -> Tensor:
    """Sum of cross-entropies where `scored` `[B, C]`, for ids `[B, C + 1]`.

    Logits are made for the scored positions only: half of the head's work and memory.
    """
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[scored]).float()
    return F.cross_entropy(logits, ids[:, 1:][scored], reduction="none").double().sum()


def per_layer(model: SpikeloomForCausalLM, records: Iterable[NeuronRecord]) -> list[dict[str, Any]]:
    """One entry per neuron, in order of computation; alarms are counts of channels."""
    feeds: dict[str, list[str]] = {}
    for product in products(model):
        feeds.setdefault(product.neuron_name, []).append(product.name)
    return [
        {
            "neuron": record.name,
            "layer": record.layer,
            "role": record.role,
            "channels": record.neuron.size,
            "feeds": feeds.get(record.name, []),
            "channel_rate": record.channel_rate,
            "mean_count": record.mean_count,
            "bitwise_count": record.bitwise_count,
            "largest": record.largest,
            "levels": record.neuron.levels,
            "dead": len(record.dead),
            "saturated": len(record.saturated_channels),
        }
        for record in records
    ]


def per_product(counted: Operations) -> list[dict[str, Any]]:
    """One entry per weight product: its shape and operations per token."""
    return [
        {
            "name": p.name,
            "d_in": p.d_in,
            "d_out": p.d_out,
            "dense": not p.spikes,
            "channel_rate": p.channel_rate,
            "acs": p.acs,
            "macs": p.macs,
            "weights_touched": p.weights_touched,
        }
        for p in counted.products
    ]


def _protocol(
    source: str | Stream, windows: Windows, part: Excerpt, model: SpikeloomForCausalLM
) -> dict[str, Any]:
    text = (
        "Documents in order, each preceded by <|endoftext|>, as one stream; earlier documents stay "
        f"in the context. Windows of {windows.context} tokens, {windows.stride} apart; every token "
        "after the first is scored once, separators included. Loss in nats per scored token. Bits "
        "per byte = total nats / ln 2 / UTF-8 bytes of the documents' text (separators cost bits "
        "and bring no bytes). Firing and operations: mean over the positions that predict a scored "
        "token. active_share = weights touched / weights in products and gains, head included, "
        "dense products and gains at 1. acs = accumulates of the bitwise unrolling; macs = "
        "products without a neuron, and the mixers' own; norms, activations, neuron updates and "
        "the embedding lookup are not counted. channel_rate and mean_count "
        "weigh each neuron by its channels."
    )
    return {
        "text": text,
        "source": source if isinstance(source, str) else None,
        "context": windows.context,
        "stride": windows.stride,
        "windows": len(windows),
        "documents": part.documents,
        "num_steps": model.config.num_steps,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
    }
