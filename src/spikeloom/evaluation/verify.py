"""Proof that the forms of a model agree: graded, unrolled (unary, bitwise), token by token.

Twice over:

    exact   the same weights in float64, where no form's rounding reaches a firing boundary: every
            payload equal, logits within 1e-8, every greedy token equal
    fp32    as the model runs: payloads equal except for rounding ties (`alignment`), which are
            decided alike and counted; logits within 1e-4; every greedy token equal

and, in float64, that no token changes logits before it, and that left padding changes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from spikeloom.errors import ConfigError
from spikeloom.evaluation.alignment import Alignment
from spikeloom.evaluation.forms import Unrolled, graded, recurrent
from spikeloom.metrics import Recorder
from spikeloom.model import SpikeloomForCausalLM, products

TIE = 1e-3
"""Payload steps within which a decision may be owed to fp32 rounding."""

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
"""Largest absolute difference of logits."""

_PRECISIONS = {"exact": torch.float64, "fp32": torch.float32}


def verify(
    model: SpikeloomForCausalLM, tokens: Tensor | None = None, new_tokens: int = 24
) -> dict[str, Any]:
    """Compare all forms of a model. The model itself is left alone: copies are hooked.

    Args:
        model: any device; bf16 weights are verified in fp32 and float64.
        tokens: what to read, `[B, L]` with L >= 4; random tokens, longer than a chunk of the
            parallel SDSA, by default.
        new_tokens: how many to generate greedily.

    Returns:
        `exact` and `fp32`, each a dict by form (`unrolled_unary`, `unrolled_bitwise`, `recurrent`,
        `generate`) of `spike_count_mismatches`, `rounding_ties`, `largest_tie` (payload steps),
        `events`, `max_abs_logit_difference`, `greedy_match`, `passed`; `causality` and
        `left_padding` (largest change of a logit, and `passed`); `neurons`, `dense_products`,
        `notes`; and `passed` over all.

    Raises:
        ConfigError: too few tokens.
    """
    tokens = random_tokens(model) if tokens is None else tokens.to(model.device)
    if tokens.shape[1] < 4:
        raise ConfigError(f"verify needs at least 4 tokens, not {tokens.shape[1]}")
    dense = [p.name for p in products(model) if not p.spikes]
    neurons = len(Recorder(model).records)
    report: dict[str, Any] = {
        "tokens": tokens.numel(),
        "neurons": neurons,
        "dense_products": dense,
        "notes": _notes(neurons, dense, model.dtype),
    }
    for name, dtype in _PRECISIONS.items():
        twin = _copy(model, dtype)
        with torch.inference_mode():
            report[name] = _forms(twin, tokens, new_tokens)
            if dtype == torch.float64:
                report["causality"] = _causality(twin, tokens)
                report["left_padding"] = _left_padding(twin, tokens)
    results = [*report["exact"].values(), *report["fp32"].values()]
    results += [report["causality"], report["left_padding"]]
    report["passed"] = all(result["passed"] for result in results)
    return report


def random_tokens(model: SpikeloomForCausalLM, length: int = 80, seed: int = 0) -> Tensor:
    """Uniform ids `[1, length]`, at most the model's context."""
    length = max(4, min(length, model.config.max_position_embeddings))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, model.config.vocab_size, (1, length), generator=generator)
    return ids.to(model.device)


def _copy(model: SpikeloomForCausalLM, dtype: torch.dtype) -> SpikeloomForCausalLM:
    twin = copy.deepcopy(model).to(dtype).eval()  # type: ignore[arg-type]
    # Generation must not stop early: every token is a comparison.
    twin.generation_config.eos_token_id = None
    return twin


def _notes(neurons: int, dense: list[str], dtype: torch.dtype) -> list[str]:
    notes = []
    if not neurons:
        notes.append("no neurons: there is nothing to unroll; recurrent against parallel only")
    elif dense:
        notes.append(f"{len(dense)} products have no neuron in front and stay dense")
    if dtype not in TOLERANCE:
        notes.append(f"weights are {str(dtype).removeprefix('torch.')}: verified in fp32")
    return notes


def _forms(model: SpikeloomForCausalLM, tokens: Tensor, new_tokens: int) -> dict[str, Any]:
    logits, payloads = graded(model, tokens)
    results = {}
    if payloads:
        for form in ("unary", "bitwise"):
            unrolled = Unrolled(model, form)  # type: ignore[arg-type]
            run = lambda: model(input_ids=tokens, use_cache=False).logits  # noqa: E731
            result = _compare(model, payloads, logits, run, unrolled)
            result["spike_count_mismatches"] += unrolled.impure
            result["events"] = unrolled.events
            result["passed"] = result["passed"] and unrolled.impure == 0
            results[f"unrolled_{form}"] = result
    run = lambda: recurrent(model, tokens)  # noqa: E731
    results["recurrent"] = _compare(model, payloads, logits, run)
    results["generate"] = _generate(model, tokens[:, : max(1, tokens.shape[1] // 4)], new_tokens)
    return results


def _compare(
    model: SpikeloomForCausalLM,
    payloads: dict[str, Tensor],
    logits: Tensor,
    run: Callable[[], Tensor],
    form: Unrolled | None = None,
) -> dict[str, Any]:
    """Run a form against the payloads and logits of another; `form` is entered around it."""
    # In float64 nothing is excused: a decision that differs is a mismatch.
    alignment = Alignment(model, payloads, TIE if model.dtype == torch.float32 else 0.0)
    with ExitStack() as stack:
        stack.enter_context(alignment)  # first, so that slots are made of aligned payloads
        if form is not None:
            stack.enter_context(form)
        other = run()
    difference = float((other - logits).abs().max())
    greedy = float((other.argmax(-1) == logits.argmax(-1)).double().mean())
    return {
        "spike_count_mismatches": alignment.mismatches,
        "rounding_ties": alignment.ties,
        "largest_tie": alignment.largest_tie,
        "events": alignment.events,
        "max_abs_logit_difference": difference,
        "greedy_match": greedy,
        "passed": alignment.mismatches == 0
        and difference <= TOLERANCE[logits.dtype]
        and greedy == 1.0,
    }


def _generate(model: SpikeloomForCausalLM, prompt: Tensor, new_tokens: int) -> dict[str, Any]:
    """`generate` with its state, against the parallel form that reads what was generated.

    By causality the parallel logits at each place are those of its prefix, so that equal argmax at
    every place means that greedy decoding without a state gives the same text.
    """
    with Recorder(model, keep=True) as recorder:
        output: Any = model.generate(  # type: ignore[misc]
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=new_tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
    payloads = {name: record.payloads for name, record in recorder.records.items()}
    logits, text = torch.stack(output.logits, dim=1), output.sequences

    def parallel() -> Tensor:
        everything = model(input_ids=text[:, :-1], use_cache=False).logits
        return everything[:, prompt.shape[1] - 1 :]

    return _compare(model, payloads, logits, parallel)  # `generate` hands logits out in float32


def _causality(model: SpikeloomForCausalLM, tokens: Tensor) -> dict[str, Any]:
    """Change the second half of the tokens; nothing may change in the first."""
    half = tokens.shape[1] // 2
    changed = tokens.clone()
    changed[:, half:] = (changed[:, half:] + 1) % model.config.vocab_size
    before, after = graded(model, tokens), graded(model, changed)
    difference = float((before[0] - after[0])[:, :half].abs().max())
    spikes = sum(
        int((before[1][name][:, :half] != after[1][name][:, :half]).sum()) for name in before[1]
    )
    passed = difference <= TOLERANCE[torch.float64] and spikes == 0
    return {"max_abs_logit_difference": difference, "changed_spikes": spikes, "passed": passed}


def _left_padding(model: SpikeloomForCausalLM, tokens: Tensor) -> dict[str, Any]:
    """A short row beside a long one, padded on the left, against the short row alone."""
    row, length = tokens[:1], tokens.shape[1]
    short = row[:, : length // 2]
    padding = torch.zeros_like(row[:, : length - short.shape[1]])
    batch = torch.cat([row, torch.cat([padding, short], dim=1)])
    mask = torch.ones_like(batch)
    mask[1, : padding.shape[1]] = 0
    padded = model(input_ids=batch, attention_mask=mask, use_cache=False).logits
    alone = model(input_ids=short, use_cache=False).logits
    difference = float((padded[1:, -short.shape[1] :] - alone).abs().max())
    passed = difference <= TOLERANCE[torch.float64]
    return {"max_abs_logit_difference": difference, "passed": passed}
