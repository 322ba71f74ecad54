"""How well entities are found: a span counts if its borders and its type are right.

That is the measure of CoNLL-2003, equal to what seqeval gives. nervaluate counts (strategy
`strict`); on words, as BIO tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spikeloom.errors import MissingExtraError

Tags = Sequence[Sequence[str]]


def entity_scores(gold: Tags, found: Tags) -> dict[str, Any]:
    """Precision, recall and F1 over all entities, and of each type.

    Args:
        gold: BIO tags of the words of each text.
        found: the model's, of the same words; an I that nothing precedes begins an entity.

    Returns:
        `precision`, `recall`, `f1`, `entities` (in gold), and `per_type`: the same by type.

    Raises:
        MissingExtraError: nervaluate is not installed.
    """
    evaluator = require_nervaluate()
    pairs = [(list(a), begun(b)) for a, b in zip(gold, found, strict=True) if a]
    types = sorted({tag[2:] for texts in (gold, found) for tags in texts for tag in tags} - {""})
    if not types:
        return {"precision": 0.0, "recall": 0.0, "f1": 0.0, "entities": 0, "per_type": {}}
    scores = evaluator([a for a, _ in pairs], [b for _, b in pairs], types, "list").evaluate()
    per_type = {name: _figures(scores["entities"][name]["strict"]) for name in types}
    return {**_figures(scores["overall"]["strict"]), "per_type": per_type}


def require_nervaluate() -> Any:
    """The evaluator's class.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from nervaluate import Evaluator
    except ImportError:
        raise MissingExtraError("nervaluate", "tag") from None
    return Evaluator


def begun(tags: Sequence[str]) -> list[str]:
    """The same entities with a B at the beginning of each."""
    before = ["O", *tags[:-1]]
    return [
        f"B-{tag[2:]}" if tag[:2] == "I-" and last[2:] != tag[2:] else tag
        for last, tag in zip(before, tags, strict=True)
    ]


def _figures(strict: Any) -> dict[str, Any]:
    return {
        "precision": float(strict.precision),
        "recall": float(strict.recall),
        "f1": float(strict.f1),
        "entities": int(strict.possible),
    }
