"""The model card of a checkpoint: `README.md`, told to a reader and to the Hugging Face hub.

Figures come from the JSON files that `spikeloom eval`, `verify` and `compare` wrote, what it was
trained on from the runs' own records, and the samples are the first that are drawn: nobody picks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from spikeloom.checkpoint import read_run, resolve
from spikeloom.data.hub_card import hub_licence
from spikeloom.errors import DataError
from spikeloom.evaluation.checkpoint import load
from spikeloom.evaluation.compare import kind, to_markdown
from spikeloom.inference.chat import CONTINUED, IN_ROLES, Conversation, speaks_in_roles
from spikeloom.inference.generate import Generator
from spikeloom.model.sizes import describe

REQUESTS = (
    "Write a story about a dog named Max.",
    "Tell me a story about a girl named Lily and a kite.",
    "Write a short story about a dragon.",
    "Can you tell me a story about a boy named Tim in the park?",
    "Tell me a story about two friends and a boat.",
    "Please write a story about a little bird named Kiki.",
    "Make up a story about an old farmer and a tree.",
    "I would like a story about a cat and a mouse.",
    "Write a story about a princess and a key.",
    "Tell me a story.",
)
OPENINGS = (
    "Once upon a time",
    "One day, a little girl named Lily",
    "There was once a dog who",
    "Tom and his sister went to the park.",
    "In a small house by the sea",
    "The old man looked out of the window",
    "A big bear lived in the forest.",
    "It was a cold night, and",
    "The boat was",
    "Everybody in the village knew",
)
_EVAL_COLUMNS = {
    "bits_per_byte": "bits per byte",
    "perplexity": "perplexity",
    "active_share": "active share",
    "tokens": "tokens scored",
}
_LIMITS = """\
- A very small model: it writes simple stories and prose, and knows next to nothing. What it says of
  the world is invented; do not use it for answers, advice or decisions.
- English only. It reads and writes well within the context that it was trained on, and loses the
  thread beyond it.
- It repeats the views of its texts, among them those of books that are a century old, and nothing
  keeps it from unpleasant sentences.
- Energy figures are estimates from operation counts; time is measured.
"""


@dataclass(frozen=True)
class Facts:
    """What the card cannot know from the checkpoint.

    Attributes:
        name: of the model.
        licence: of the weights.
        data: licence by data set that it learned from.
        evaluations: files that `spikeloom eval --json` wrote, by the name of the data.
        verification: file that `spikeloom verify --json` wrote.
        comparison: file that `spikeloom compare --json` wrote.
        runs: directories of the runs that led here, the first one first; the checkpoint's own if
            there are none.
    """

    name: str
    licence: str
    data: Mapping[str, str]
    evaluations: Mapping[str, Path] = field(default_factory=dict)
    verification: Path | None = None
    comparison: Path | None = None
    runs: Sequence[Path] = ()


def write_card(directory: str | Path, facts: Facts, samples: int = 10, seed: int = 0) -> str:
    """Make the card, save it as `README.md` of the checkpoint, and return its text.

    Args:
        directory: a checkpoint directory.
        facts: see there.
        samples: how many to draw, one a prompt.
        seed: of the first sample; each later one has the next.

    Raises:
        CheckpointError: the checkpoint, or a run, cannot be read.
        DataError: a file of figures cannot be read, or is of another verb.
    """
    path = resolve(directory)
    evaluations = {name: _read(file, "bits_per_byte") for name, file in facts.evaluations.items()}
    parts = [
        f"# {facts.name}",
        _about(path),
        _use(path),
        f"## Data\n\n{_table(('data set', 'licence'), facts.data.items())}",
        f"## Training\n\n{_training(facts.runs or [path])}",
        f"## Figures\n\n{_figures(facts, evaluations)}",
        f"## Limits\n\n{_LIMITS.rstrip()}",
        _samples(path, samples, seed),
    ]
    body = "\n\n".join(part for part in parts if part)
    card = ModelCard(f"---\n{_front(facts, evaluations).to_yaml()}\n---\n\n{body}\n")
    card.save(path / "README.md")
    return str(card)


def _front(facts: Facts, evaluations: Mapping[str, Mapping[str, Any]]) -> ModelCardData:
    results = [
        EvalResult("text-generation", name, name, metric, round(float(report[metric]), 4))
        for name, report in evaluations.items()
        for metric in ("bits_per_byte", "perplexity", "active_share")
    ]
    return ModelCardData(
        language="en",
        license=hub_licence(facts.licence),
        library_name="spikeloom",
        pipeline_tag="text-generation",
        tags=["spikeloom", "spiking-neural-network"],
        model_name=facts.name,
        eval_results=results or None,
    )


def _about(path: Path) -> str:
    model, _ = load(path)
    size, config = describe(model), model.config.architecture
    mixers = " and ".join(sorted(set(size["mixers"])))
    spiking = size["weights_fed_by_spikes"] / size["weights_in_products"]
    weights = (path / "model.safetensors").stat().st_size / 2**20
    return (
        f"A {kind(config)} language model of {size['parameters'] / 1e6:.2f} M parameters: "
        f"{size['num_hidden_layers']} layers, {size['hidden_size']} wide, mixer {mixers}, "
        f"vocabulary {size['vocab_size']}, context {size['context']} tokens. "
        f"{spiking:.0%} of the weights in products are fed by spikes; those of a silent channel "
        f"are not read. The weights take {weights:.1f} MiB."
    )


def _use(path: Path) -> str:
    how = "Ask it for a story" if speaks_in_roles(path) else "Begin a text, and it goes on"
    return (
        "## Use\n\n```\npip install spikeloom\nspikeloom chat DIR\n```\n\n"
        f"{how}. DIR is this directory; without it, the model that came with the package."
    )


def _training(runs: Sequence[Path]) -> str:
    """One line a run: tokens, time, recipe."""
    rows = []
    for run in runs:
        run = Path(run)
        record = read_run(run)
        done, recipe = _done(run), record.get("training", {})
        rate = f"{recipe.get('optimizer', '')} {recipe.get('learning_rate', '')}"
        batch = f"{recipe.get('batch_size', '')} x {recipe.get('context', '')}"
        kind_of = "conversations" if recipe.get("chat") else "text"
        numbers = (f"{done.get(key, '')}" for key in ("steps", "tokens", "seconds"))
        rows.append((kind_of, *numbers, rate, batch))
    titles = ("learned from", "steps", "tokens", "seconds", "optimizer, rate", "batch x context")
    return _table(titles, rows)


def _done(run: Path) -> dict[str, Any]:
    file = run / "training.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def _figures(facts: Facts, evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    parts = []
    if evaluations:
        rows = [
            (name, *(_number(report[key]) for key in _EVAL_COLUMNS))
            for name, report in evaluations.items()
        ]
        parts.append(_table(("held-out text", *_EVAL_COLUMNS.values()), rows))
    if facts.comparison is not None:
        rows_of = _read(facts.comparison, "rows")["rows"]
        parts.append(to_markdown(rows_of).strip())
    if facts.verification is not None:
        agree = _read(facts.verification, "passed")["passed"]
        parts.append(
            "`spikeloom verify`: the graded, unrolled and token-by-token forms "
            + ("agree." if agree else "do NOT agree.")
        )
    return "\n\n".join(parts) or "None were given."


def _samples(path: Path, count: int, seed: int) -> str:
    """The first samples that are drawn, with their seeds."""
    if not count:
        return ""
    generator, roles = Generator.load(path), speaks_in_roles(path)
    prompts, asked = (REQUESTS, IN_ROLES) if roles else (OPENINGS, CONTINUED)
    drawn, shares = [], []
    for i in range(count):
        prompt, sampling = prompts[i % len(prompts)], replace(asked, seed=seed + i)
        talk = Conversation(generator, sampling, roles)
        text = talk.answer(prompt, lambda _: None)
        shares.append(talk.generator.statistics()["active_share"])
        quoted = "\n".join(f"> {line}" for line in (text if roles else prompt + text).splitlines())
        drawn.append(f"**{prompt}** (seed {seed + i})\n\n{quoted}")
    held = f", guidance {asked.guidance}" if roles else ""
    head = (
        f"## Samples\n\nThe first {count} that were drawn, none left out, as `spikeloom chat` "
        f"draws them: temperature {asked.temperature}, top-p {asked.top_p}{held}, at most "
        f"{asked.max_new_tokens} tokens. That read {sum(shares) / count:.2f} of the weights per "
        "token."
    )
    return "\n\n".join([head, *drawn])


def _read(file: Path, key: str) -> dict[str, Any]:
    """A JSON file of one of our verbs, known by a key that it has to have."""
    try:
        report = json.loads(Path(file).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is not readable as JSON ({error})") from None
    if not isinstance(report, dict) or key not in report:
        raise DataError(f"{file} has no '{key}': give what --json of the right verb wrote")
    return report


def _table(titles: Sequence[str], rows: Any) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"
