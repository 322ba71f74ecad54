"""`spikeloom data …`: verbs that make, show, bring to one form, and publish records."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeloom.cli.options import Json, write_json
from spikeloom.cli.output import finish, in_words

records_app = typer.Typer()

Records = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="Files or folders of .jsonl or .parquet, hub:NAME[:split]."
    ),
]
LongQuestion = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Leave out records that ask in more words.")
]
Lossy = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Leave out what this tokenizer cannot write without <unk>."),
]


@records_app.command()
def qa(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Articles: .jsonl, hub:NAME, …")],
    out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="Where the questions go.")],
    offline: Annotated[
        bool, typer.Option("--offline", help="Gap questions by rule: no key, no network.")
    ] = False,
    model: Annotated[str, typer.Option(help="Which Claude to ask.")] = "claude-haiku-4-5",
    pairs: Annotated[int, typer.Option(min=1, max=20, help="Questions for a section.")] = 5,
    max_articles: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Use so many.")
    ] = None,
    max_question_words: LongQuestion = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="Half the price, answered within a day.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="For batches; else run it again later.")
    ] = True,
    concurrency: Annotated[
        int, typer.Option(min=1, max=32, metavar="N", help="Requests under way at a time.")
    ] = 4,
    price: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="IN OUT", help="Dollars for a million tokens; replaces the table's."),
    ] = None,
    max_dollars: Annotated[
        float | None, typer.Option(metavar="X", help="Ask nothing if the estimate is higher.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would cost, and stop.")
    ] = False,
    licence: Annotated[
        str | None, typer.Option(help="Of the articles; else what their manifest says.")
    ] = None,
    json_file: Json = None,
) -> None:
    """Make questions on articles whose answers stand in the text: five sections, each asked about.

    spikeloom data qa wiki.jsonl --out questions.jsonl --dry-run

    Claude's answers are checked to be spans; what fails is counted, with samples. The key comes
    from ANTHROPIC_API_KEY. What was answered is kept, so a second run pays for nothing twice.
    """
    from spikeloom.data.questions import writing
    from spikeloom.data.questions.claude import Claude
    from spikeloom.data.questions.prices import price_of
    from spikeloom.data.report import progress_bar
    from spikeloom.errors import ConfigError

    sections = writing.read_sections(source, max_articles)
    if offline:
        outcome = writing.write_offline(sections, out, pairs, max_question_words)
        _finish_questions(source, out, outcome, writing.OFFLINE, 0.0, licence, json_file)
        return
    rate = price_of(model, price, batch)
    estimate = writing.estimate(sections, out, model, pairs, rate)
    print(
        f"{estimate['to_ask']} of {estimate['sections']} sections to ask {model} about: "
        f"about {estimate['input_tokens']} tokens in, {estimate['output_tokens']} out, "
        f"${estimate['dollars']:.2f}"
    )
    if dry_run:
        write_json(estimate, json_file)
        return
    if max_dollars is not None and estimate["dollars"] > max_dollars:
        raise ConfigError(f"--max-dollars {max_dollars}: the estimate is higher")
    with Claude(model, pairs) as claude, progress_bar() as progress:
        outcome = writing.write_with_claude(
            sections, out, claude, max_question_words, concurrency, batch, wait, progress
        )
    spent = round(rate.dollars(outcome.input_tokens, outcome.output_tokens), 4)
    _finish_questions(source, out, outcome, model, spent, licence, json_file)


@records_app.command()
def show(
    source: Records,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Records to print.")] = 5,
    max_question_words: LongQuestion = None,
    tokenizer: Lossy = None,
    json_file: Json = None,
) -> None:
    """Print records of a question, instruction, preference or entity set, whatever its format.

    spikeloom data show squad/dev.jsonl.xz --limit 3
    """
    from rich.console import Console

    from spikeloom.data.records import as_json, read_records
    from spikeloom.data.show import show as show_record
    from spikeloom.data.sieve import sieve

    dropped: Counter[str] = Counter()
    kept = sieve(read_records(source), dropped, max_question_words, tokenizer)
    shown = list(itertools.islice(kept, limit))
    for number, record in enumerate(shown, start=1):
        show_record(record, number, Console())
    if dropped:
        print(in_words({"passed over": dict(dropped)}))
    write_json({"records": [as_json(r) for r in shown], "passed_over": dict(dropped)}, json_file)


@records_app.command()
def records(
    source: Records,
    out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="Where the records go.")],
    licence: Annotated[str, typer.Option(help="Of the set, for the manifest.")],
    max_question_words: LongQuestion = None,
    tokenizer: Lossy = None,
    json_file: Json = None,
) -> None:
    """Write a set in our one form for its kind (docs/data-web.md), filtered.

    spikeloom data records hub:openai/gsm8k/main --licence MIT --out gsm8k.jsonl
    """
    from spikeloom.data.manifest import write_whole
    from spikeloom.data.records import as_json, read_records
    from spikeloom.data.sieve import sieve
    from spikeloom.data.sources import files

    dropped: Counter[str] = Counter()
    kept = [as_json(r) for r in sieve(read_records(source), dropped, max_question_words, tokenizer)]
    write_whole(out, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept))
    kinds = Counter(record["kind"] for record in kept)
    counts = {"records": len(kept), "kinds": dict(kinds), "passed_over": dict(dropped)}
    inputs = files(source)
    finish(out, source, licence, counts, json_file, inputs)


@records_app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Outputs with their manifests.")],
    repo: Annotated[str, typer.Option(metavar="OWNER/NAME", help="The data set on the hub.")],
    private: Annotated[
        bool, typer.Option("--private/--public", help="Who sees a data set that is made now.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the card and the files, and stop.")
    ] = False,
    json_file: Json = None,
) -> None:
    """Upload a folder to the Hugging Face hub, with a data card made from its manifests.

    spikeloom data push corpus --repo me/corpus --dry-run

    The token comes from HF_TOKEN. Only files that a manifest answers for, and that have not
    changed since, go up.
    """
    from spikeloom.data.push import plan, upload

    planned = plan(folder, repo)
    if dry_run:
        print(planned.card or "(the folder's own README.md is the card)")
    for name, path in planned.files.items():
        print(f"{name}: {path.stat().st_size} bytes")
    for name in planned.left_out:
        print(f"left out: {name}")
    report = {"files": list(planned.files), "left_out": planned.left_out, "card": planned.card}
    if not dry_run:
        report["address"] = upload(planned, private)
        print(report["address"])
    write_json(report, json_file)


def _finish_questions(
    source: str,
    out: Path,
    outcome: Any,
    how: str,
    dollars: float,
    licence: str | None,
    json_file: Path | None,
) -> None:
    """Show samples of what was rejected, then finish as the other verbs do."""
    from spikeloom.data.manifest import manifest_path, read_manifest
    from spikeloom.data.sources import files

    for reason, some in outcome.samples.items():
        for sample in some:
            print(f"rejected, {reason}: {sample['question']!r} -> {sample['answer']!r}")
    file = Path(source)
    if licence is None:
        noted = file.exists() and manifest_path(file).exists()
        licence = read_manifest(file)["licence"] if noted else "not stated"
    counts = {key: value for key, value in vars(outcome).items() if value and key != "samples"}
    counts |= {"rejected": dict(outcome.rejected)} | ({"dollars": dollars} if dollars else {})
    inputs = files(source)
    finish(out, f"{source}, questions by {how}", licence, counts, json_file, inputs)
