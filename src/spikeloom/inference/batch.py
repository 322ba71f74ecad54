"""Several texts: one after the other event-driven, or together with dense products.

Each text has silent channels of its own, so texts that share a product have little to skip in
common: a batch is worth reading all weights once, if it is large enough. From which size on,
`CROSSING` says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikeloom.inference.decoding import sample
from spikeloom.inference.engine import Engine
from spikeloom.inference.generate import Generator, Sampling
from spikeloom.model import DecoderState, SpikeloomForCausalLM

# By weights in products (millions), then by active share: the smallest batch at which dense
# products were faster, infinity where none up to 16 was. Printed by `spikeloom bench batch`.
CROSSING = {
    16: {0.1: math.inf, 0.2: math.inf, 0.3: math.inf, 0.5: math.inf},
    124: {0.1: math.inf, 0.2: math.inf, 0.3: math.inf, 0.5: 8},
}


def dense_is_faster(weights: float, share: float, batch: int) -> bool:
    """Whether to decode a batch with dense products.

    Args:
        weights: of all products of the model.
        share: active share at which it runs.
        batch: how many texts.
    """
    size = min(CROSSING, key=lambda millions: abs(math.log(millions * 1e6 / weights)))
    nearest = min(CROSSING[size], key=lambda known: abs(known - share))
    return batch >= CROSSING[size][nearest]


def generate_texts(
    generator: Generator, directory: Path, prompts: Sequence[str], sampling: Sampling
) -> list[list[int]]:
    """Continue several prompts, the i-th with seed `sampling.seed + i`.

    Args:
        generator: on the checkpoint.
        directory: of the checkpoint itself: dense products need the model.
        prompts: texts that start documents.
        sampling: how to choose.

    Returns:
        the new token ids of each; the same ones either way, but for rounding.
    """
    start, stops = generator.tokenizer.bos_token_id, (generator.tokenizer.eos_token_id,)
    ids = [[start, *generator.encode(prompt)] for prompt in prompts]
    if _wants_dense(generator.engine, ids):
        model = SpikeloomForCausalLM.from_pretrained(directory).eval()
        return dense_texts(model, ids, sampling, stops)
    return event_texts(generator.engine, ids, sampling, stops)


def event_texts(
    engine: Engine, prompts: Sequence[Sequence[int]], sampling: Sampling, stops: Sequence[int]
) -> list[list[int]]:
    """One text after the other: weights are read only where a channel fires."""
    s = sampling
    return [
        list(engine.generate(ids, s.max_new_tokens, s.temperature, s.top_p, s.seed + i, stops))
        for i, ids in enumerate(prompts)
    ]


@torch.inference_mode()
def dense_texts(
    model: SpikeloomForCausalLM,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    stops: Sequence[int],
) -> list[list[int]]:
    """All texts together, padded on the left: weights are read once per token of all."""
    rngs = [np.random.default_rng(sampling.seed + i) for i in range(len(prompts))]
    texts: list[list[int]] = [[] for _ in prompts]
    state = DecoderState(model.config.architecture)
    tokens, mask = _padded(prompts)
    given: dict[str, Any] = {"attention_mask": mask}
    for _ in range(sampling.max_new_tokens):
        logits = model(tokens, past_key_values=state, logits_to_keep=1, **given).logits[:, -1]
        chosen = [
            sample(row, sampling.temperature, sampling.top_p, rng)
            for row, rng in zip(logits.float().cpu(), rngs, strict=True)
        ]
        for text, token in zip(texts, chosen, strict=True):
            if not (text and text[-1] in stops):
                text.append(token)
        if all(text[-1] in stops for text in texts):
            break
        tokens, given = torch.tensor(chosen)[:, None], {}  # positions go on from the state
    return texts


def _wants_dense(engine: Engine, prompts: Sequence[Sequence[int]]) -> bool:
    """By the share at which the first prompt runs."""
    if len(prompts) < 2:
        return False
    state = engine.new_state()
    engine.prefill(prompts[0], state)
    return dense_is_faster(engine.plan.weights, state.active_share, len(prompts))


def _padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Tokens and mask `[B, L]`."""
    longest = max(map(len, prompts))
    missing = [longest - len(ids) for ids in prompts]
    tokens = [[0] * n + list(ids) for n, ids in zip(missing, prompts, strict=True)]
    mask = [[0] * n + [1] * (longest - n) for n in missing]
    return torch.tensor(tokens), torch.tensor(mask)
