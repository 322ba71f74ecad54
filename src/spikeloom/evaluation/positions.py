"""Bits per byte over the position in a text: what a long context is worth to a model.

Whole documents are read from their first token with the state carried on, a chunk at a time, so
that memory stays bounded where the state does. Only documents that reach the last bucket count, and
of those only as many tokens: every bucket is then of the same documents.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from spikeloom.errors import ConfigError, DataError
from spikeloom.evaluation.perplexity import Stream, cut
from spikeloom.model import SpikeloomForCausalLM, active_share, fed_weights
from spikeloom.model.state import DecoderState

EDGES = (0, *(64 << n for n in range(9)))
"""Bucket edges, in tokens: 0, 64, 128, … 16384."""

PROTOCOL = (
    "A token's position is the number of tokens of its document before it; <|endoftext|> stands "
    "before position 0 and is not scored. Every document is read from its beginning with the state "
    "carried on. Documents shorter than the last edge are left out, longer ones are cut there. "
    "Bits per byte = nats of a bucket / ln 2 / UTF-8 bytes of its text; a character over an edge "
    "counts with the bucket that it ends in. Positions from trained_context on lie beyond what the "
    "model was trained on."
)


@dataclass(frozen=True)
class Openings:
    """The beginnings of all documents that are long enough.

    Attributes:
        tokens: `<|endoftext|>` and the text, int64 `[documents, N + 1]`.
        bytes: UTF-8 bytes of each bucket's text, int64 `[documents, buckets]`.
        left_out: documents that are too short.
    """

    tokens: NDArray[np.int64]
    bytes: NDArray[np.int64]
    left_out: int


def evaluate_by_position(
    model: SpikeloomForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    stream: Stream,
    *,
    edges: Sequence[int] = EDGES,
    max_documents: int | None = None,
    chunk: int = 1024,
    batch_size: int = 4,
) -> dict[str, Any]:
    """Measure a model on long documents, bucket by bucket.

    Args:
        model: on the device and in the dtype to measure with.
        tokenizer: the model's.
        stream: packed documents.
        edges: of the buckets, in tokens, rising.
        max_documents: use the first so many that are long enough.
        chunk: tokens read at a time.
        batch_size: documents read side by side.

    Returns:
        `buckets` (`from`, `to`, `tokens`, `bytes`, `loss` in nats per token, `bits_per_byte`), the
        same figures of all together, `per_document` (bits per byte, `[documents][buckets]`),
        `documents`, `left_out`, `active_share`, `state_bytes` (per document, at its end) and
        `protocol`.

    Raises:
        ConfigError: impossible edges, chunk, batch size or number of documents.
        DataError: no document reaches the last edge.
    """
    _check(edges, chunk=chunk, batch_size=batch_size, max_documents=max_documents)
    texts = openings(stream, tokenizer, edges, max_documents)
    nats, share, state_bytes = _read_all(model, texts.tokens, chunk, batch_size)
    spans = list(pairwise(edges))
    by_bucket = np.stack([nats[:, a:b].sum(1) for a, b in spans], axis=1)  # [documents, buckets]
    documents = len(nats)
    return {
        "buckets": [
            {"from": a, "to": b, **_figures(by_bucket[:, i], texts.bytes[:, i], b - a)}
            for i, (a, b) in enumerate(spans)
        ],
        **_figures(by_bucket.sum(1), texts.bytes.sum(1), edges[-1] - edges[0]),
        "per_document": (by_bucket / math.log(2) / np.maximum(texts.bytes, 1)).tolist(),
        "documents": documents,
        "left_out": texts.left_out,
        "active_share": share,
        "state_bytes": state_bytes,
        "protocol": {
            "text": PROTOCOL,
            "trained_context": model.config.max_position_embeddings,
            "chunk": chunk,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
        },
    }


def openings(
    stream: Stream,
    tokenizer: PreTrainedTokenizerFast,
    edges: Sequence[int],
    max_documents: int | None = None,
) -> Openings:
    """The documents that reach the last edge, and the bytes between edges.

    Raises:
        DataError: none does.
    """
    starts = np.append(stream.documents, len(stream.tokens))
    lengths = np.diff(starts) - 1  # without <|endoftext|>
    long = np.flatnonzero(lengths >= edges[-1])
    if len(long) == 0:
        raise DataError(
            f"no document has {edges[-1]} tokens, the longest has {lengths.max(initial=0)}: "
            "use longer texts, or give --edges that end earlier"
        )
    chosen = starts[long[:max_documents]]
    tokens = [np.asarray(stream.tokens[at : at + edges[-1] + 1], np.int64) for at in chosen]
    ends = [[cut(text, 0, edge + 1, tokenizer)[1] for edge in edges] for text in tokens]
    return Openings(np.stack(tokens), np.diff(ends, axis=1), len(lengths) - len(long))


@torch.inference_mode()
def read(model: SpikeloomForCausalLM, ids: Tensor, chunk: int) -> tuple[Tensor, Tensor, int]:
    """Texts read from their first token, a chunk at a time.

    Args:
        model: in evaluation mode.
        ids: `[B, N + 1]`.
        chunk: tokens read at a time.

    Returns:
        nats of every token but the first, `[B, N]`; the mean active share; bytes of state left.
    """
    state, fed = DecoderState(model.config.architecture), fed_weights(model).to(ids.device)
    nats, share = [], torch.zeros((), device=ids.device)
    for begin in range(0, ids.shape[1] - 1, chunk):
        part = ids[:, begin : begin + chunk + 1]
        out = model.model(part[:, :-1], past_key_values=state, use_cache=True)
        logits = model.lm_head(out.last_hidden_state).float()
        nats.append(F.cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none"))
        share = share + active_share(out.firing_rates, fed) * (part.shape[1] - 1)
    return torch.cat(nats, dim=1), share / (ids.shape[1] - 1), state.nbytes


def _read_all(
    model: SpikeloomForCausalLM, tokens: NDArray[np.int64], chunk: int, batch_size: int
) -> tuple[NDArray[np.float64], float, int]:
    """Nats `[documents, N]`, active share, and bytes of state per document."""
    training = model.training
    model.eval()
    nats, share, state_bytes = [], 0.0, 0
    quiet = not sys.stderr.isatty()
    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task("reading", total=len(tokens))
        for i in range(0, len(tokens), batch_size):
            ids = torch.from_numpy(tokens[i : i + batch_size]).to(model.device)
            found, part, size = read(model, ids, chunk)
            nats.append(found.double().cpu().numpy())
            share += float(part) * len(ids)
            state_bytes = size // len(ids)
            bar.advance(task, len(ids))
    model.train(training)
    return np.concatenate(nats), share / len(tokens), state_bytes


def _figures(nats: NDArray[np.float64], sizes: NDArray[np.int64], length: int) -> dict[str, Any]:
    """Of one bucket, over documents: nats and bytes `[documents]`, tokens per document."""
    tokens, size, total = length * len(nats), int(sizes.sum()), float(nats.sum())
    if size == 0:
        raise DataError(f"{tokens} tokens without text: give wider --edges")
    return {
        "tokens": tokens,
        "bytes": size,
        "loss": total / tokens,
        "bits_per_byte": total / math.log(2) / size,
    }


def _check(edges: Sequence[int], **counts: int | None) -> None:
    if len(edges) < 2 or edges[0] < 0 or any(a >= b for a, b in pairwise(edges)):
        raise ConfigError(f"edges: {list(edges)} must be two or more rising positions from 0 on")
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
