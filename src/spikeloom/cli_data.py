"""`spikeloom data …`: getting text, turning it into records, and handing it on.

Like cli.py: one function per verb, and what a verb needs is imported when it runs.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

data_app = typer.Typer(
    name="data",
    help="Get text from the web or a dump, clean it, turn it into records, and publish it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_UNSAID = ("categories",)  # long: in the manifest only
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the result as JSON.")
]
Out = Annotated[
    Path, typer.Option(metavar="FILE.jsonl", help="Where records go; a second run adds to it.")
]
Contact = Annotated[
    str | None,
    typer.Option(
        envvar="SPIKELOOM_CONTACT",
        metavar="MAIL_OR_URL",
        help="Tells the server who asks (good manners); kept out of the manifest.",
    ),
]
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
Seed = Annotated[int, typer.Option(help="Seed of the random choices.")]


def hidden(environment: str) -> Any:
    """An address that only tests and mirrors change."""
    return typer.Option(envvar=environment, hidden=True, metavar="URL")


@data_app.callback()
def about() -> None:
    """Every verb leaves a manifest beside its output, and goes on where it was stopped."""


@data_app.command()
def wikipedia(
    out: Out,
    shelf: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A shelf (see `data shelves`); repeatable."),
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The tree below any category; repeatable."),
    ] = None,
    titles: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Titles to take, one a line.")
    ] = None,
    max_articles: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Articles in the output: 100, or all --titles."),
    ] = None,
    depth: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Steps below a category that count.")
    ] = None,
    max_candidates: Annotated[
        int, typer.Option(min=1, metavar="N", help="Articles of a shelf to look up views for.")
    ] = 2000,
    top_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the most viewed; see below.")
    ] = 0.5,
    months: Annotated[int, typer.Option(min=1, max=96, help="Whole months of views.")] = 12,
    language: Annotated[str, typer.Option(help="Which Wikipedia; shelves are English.")] = "en",
    concurrency: Annotated[
        int, typer.Option(min=1, max=8, metavar="N", help="Requests under way at a time.")
    ] = 3,
    contact: Contact = None,
    seed: Seed = 0,
    site: Annotated[str | None, hidden("SPIKELOOM_WIKI")] = None,
    views_api: Annotated[str | None, hidden("SPIKELOOM_VIEWS_API")] = None,
    json_file: Json = None,
) -> None:
    """Collect much-read Wikipedia articles as plain text, by shelf, category or title.

    spikeloom data wikipedia --shelf physics --shelf people --max-articles 500 --out wiki.jsonl

    Shelves take turns. Half of each (--top-share) are its most viewed articles; the rest is drawn
    with weight sqrt(views). The same command goes on after a stop; more articles only add.
    """
    from spikeloom.data.progress import progress_bar
    from spikeloom.data.web import wikipedia as collecting
    from spikeloom.data.web.client import Client, Manners
    from spikeloom.data.web.mediawiki import VIEWS_API, Wiki
    from spikeloom.data.web.shelves import chosen

    wish = collecting.Wish(
        shelves=chosen(shelf or [], category or [], depth),
        titles=collecting.read_titles(titles) if titles else (),
        max_articles=max_articles or (100 if shelf or category else None),
        max_candidates=max_candidates,
        top_share=top_share,
        months=months,
        concurrency=concurrency,
        seed=seed,
    )
    address = (site or f"https://{language}.wikipedia.org").rstrip("/")
    with Client(Manners(contact=contact)) as client, progress_bar() as progress:
        wiki = Wiki(client, address, views_api or VIEWS_API)
        outcome = collecting.collect(wiki, wish, out, progress)
    inputs = [titles] if titles else []
    _finish(out, address, outcome.licence, outcome.counts(), json_file, inputs)


@data_app.command()
def dump(
    file: Annotated[
        Path, typer.Argument(metavar="DUMP", help="pages-articles.xml, also .bz2, .xz, .gz, .zst.")
    ],
    out: Out,
    licence: Annotated[
        str | None, typer.Option(help="Of the texts; known for the Wikimedia wikis.")
    ] = None,
    max_articles: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop at so many in the output.")
    ] = None,
    json_file: Json = None,
) -> None:
    """Turn a MediaWiki XML dump into plain-text articles, in bounded memory.

    spikeloom data dump enwiki-latest-pages-articles.xml.bz2 --out wiki.jsonl

    Redirects, other namespaces and disambiguation pages are left out and counted.
    """
    from spikeloom.data.progress import progress_bar
    from spikeloom.data.web.dump import Dump, convert

    source = Dump(file)
    with progress_bar() as progress:
        licence, counts = convert(source, out, licence, max_articles, progress)
    named = f"{source.site} ({source.base})"
    _finish(out, named, licence, dict(counts), json_file, [file])


@data_app.command()
def books(
    out: Out,
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="Project Gutenberg numbers.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, max=100, metavar="N", help="Most downloaded this month.")
    ] = None,
    shelf: Annotated[
        str | None, typer.Option(metavar="NAME", help="A list of ours: philosophy.")
    ] = None,
    unwrap: Annotated[
        bool, typer.Option("--unwrap", help="One line a paragraph; verse stays.")
    ] = False,
    contact: Contact = None,
    site: Annotated[
        str | None, typer.Option(envvar="SPIKELOOM_GUTENBERG", metavar="URL", help="A mirror.")
    ] = None,
    spacing: Annotated[
        float | None, typer.Option(min=0.0, metavar="S", help="Seconds between requests: 2.")
    ] = None,
    json_file: Json = None,
) -> None:
    """Collect Project Gutenberg books without their boiler-plate.

    spikeloom data books 84 1342 --shelf philosophy --out books.jsonl

    Only books in the public domain (in the USA) are taken; those without both marks of the
    boiler-plate may be cut short, and are left out. All that is left out is counted.
    """
    from spikeloom.data.progress import progress_bar
    from spikeloom.data.web import books as collecting
    from spikeloom.data.web.client import Client, Manners
    from spikeloom.data.web.gutenberg import SITE, SPACING, Gutenberg
    from spikeloom.errors import DataError

    manners = Manners(contact=contact, spacing=SPACING if spacing is None else spacing)
    with Client(manners) as client, progress_bar() as progress:
        gutenberg = Gutenberg(client, (site or SITE).rstrip("/"))
        numbers = list(ids or []) + (collecting.numbers_of(shelf) if shelf else [])
        numbers += gutenberg.top()[:top] if top else []
        if not numbers:
            raise DataError("nothing named: give numbers, --top or --shelf")
        counts = collecting.collect(gutenberg, numbers, out, unwrap, progress)
    _finish(out, gutenberg.site, "Public domain in the USA", dict(counts), json_file)


@data_app.command()
def papers(
    out: Out,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="arXiv identifiers: 1706.03762")
    ] = None,
    id_list: Annotated[
        Path | None, typer.Option("--list", metavar="FILE", help="Identifiers, one a line.")
    ] = None,
    much_cited: Annotated[
        bool, typer.Option("--much-cited", help="Our own list: language and spiking models.")
    ] = False,
    full_text: Annotated[
        bool, typer.Option("--full-text/--abstracts", help="Look for free full texts as well.")
    ] = True,
    contact: Contact = None,
    spacing: Annotated[
        float | None, typer.Option(min=0.0, metavar="S", help="Seconds between requests: 3.")
    ] = None,
    api: Annotated[str | None, hidden("SPIKELOOM_ARXIV_API")] = None,
    oai: Annotated[str | None, hidden("SPIKELOOM_ARXIV_OAI")] = None,
    html: Annotated[str | None, hidden("SPIKELOOM_ARXIV_HTML")] = None,
    json_file: Json = None,
) -> None:
    """Collect arXiv papers: full text where the licence allows copies, else the abstract.

    spikeloom data papers 1706.03762 --much-cited --out papers.jsonl

    Only Creative Commons licences allow copies; `part` of a record says what its text is.
    """
    from spikeloom.data.progress import progress_bar
    from spikeloom.data.web import arxiv as services
    from spikeloom.data.web import papers as collecting
    from spikeloom.data.web.client import Client, Manners
    from spikeloom.errors import DataError

    numbers = [services.read_number(word) for word in ids or []]
    numbers += collecting.read_list(id_list) if id_list else []
    numbers += collecting.much_cited() if much_cited else []
    if not numbers:
        raise DataError("nothing named: give identifiers, --list or --much-cited")
    manners = Manners(contact=contact, spacing=services.SPACING if spacing is None else spacing)
    with Client(manners) as client, progress_bar() as progress:
        addresses = (api or services.API, oai or services.OAI, html or services.HTML)
        arxiv = services.Arxiv(client, *addresses)
        licences, counts = collecting.collect(arxiv, numbers, out, full_text, progress)
    inputs = [id_list] if id_list else []
    _finish(out, arxiv.api, licences, dict(counts), json_file, inputs)


@data_app.command()
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
        print(_in_words({"passed over": dict(dropped)}))
    _write_json({"records": [as_json(r) for r in shown], "passed_over": dict(dropped)}, json_file)


@data_app.command()
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

    dropped: Counter[str] = Counter()
    kept = [as_json(r) for r in sieve(read_records(source), dropped, max_question_words, tokenizer)]
    write_whole(out, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept))
    kinds = Counter(record["kind"] for record in kept)
    counts = {"records": len(kept), "kinds": dict(kinds), "passed_over": dict(dropped)}
    inputs = [Path(source)] if Path(source).is_file() else []
    _finish(out, source, licence, counts, json_file, inputs)


@data_app.command()
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
    from spikeloom.data.progress import progress_bar
    from spikeloom.data.questions import writing
    from spikeloom.data.questions.claude import Claude
    from spikeloom.data.questions.prices import price_of
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
        _write_json(estimate, json_file)
        return
    if max_dollars is not None and estimate["dollars"] > max_dollars:
        raise ConfigError(f"--max-dollars {max_dollars}: the estimate is higher")
    with Claude(model, pairs) as claude, progress_bar() as progress:
        outcome = writing.write_with_claude(
            sections, out, claude, max_question_words, concurrency, batch, wait, progress
        )
    spent = round(rate.dollars(outcome.input_tokens, outcome.output_tokens), 4)
    _finish_questions(source, out, outcome, model, spent, licence, json_file)


@data_app.command()
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
    _write_json(report, json_file)


@data_app.command()
def shelves(json_file: Json = None) -> None:
    """List the shelves that `data wikipedia --shelf` knows, with their categories."""
    from rich.console import Console
    from rich.table import Table

    from spikeloom.data.web.shelves import SHELVES

    table = Table("shelf", "steps down", "categories", box=None)
    for shelf in SHELVES.values():
        table.add_row(shelf.name, str(shelf.depth), ", ".join(shelf.roots))
    Console().print(table)
    rows = {shelf.name: {"depth": shelf.depth, "roots": shelf.roots} for shelf in SHELVES.values()}
    _write_json({"shelves": rows}, json_file)


def _finish(
    out: Path,
    source: str,
    licence: str | list[str],
    counts: dict[str, Any],
    json_file: Path | None,
    inputs: list[Path] | None = None,
) -> None:
    """Leave the manifest, and say what there is now."""
    from spikeloom.data.manifest import this_command, write_manifest

    command = this_command()
    write_manifest(
        out, source=source, licence=licence, counts=counts, command=command, inputs=inputs or []
    )
    print(f"{out}: {_in_words({k: v for k, v in counts.items() if k not in _UNSAID})}")
    _write_json({"output": str(out), "licence": licence, **counts}, json_file)


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

    for reason, some in outcome.samples.items():
        for sample in some:
            print(f"rejected, {reason}: {sample['question']!r} -> {sample['answer']!r}")
    file = Path(source)
    if licence is None:
        noted = file.exists() and manifest_path(file).exists()
        licence = read_manifest(file)["licence"] if noted else "not stated"
    counts = {key: value for key, value in vars(outcome).items() if value and key != "samples"}
    counts |= {"rejected": dict(outcome.rejected)} | ({"dollars": dollars} if dollars else {})
    inputs = [file] if file.is_file() else []
    _finish(out, f"{source}, questions by {how}", licence, counts, json_file, inputs)


def _in_words(counts: dict[str, Any]) -> str:
    """`12 articles, 3 new; passed over: 2 missing`, for counts in one level of groups."""
    plain = [
        f"{value} {name.replace('_', ' ')}"
        for name, value in counts.items()
        if isinstance(value, int | float)
    ]
    groups = [
        f"{name.replace('_', ' ')}: " + ", ".join(f"{n} {what}" for what, n in value.items())
        for name, value in counts.items()
        if isinstance(value, dict) and value
    ]
    return "; ".join([", ".join(plain), *groups])


def _write_json(report: Any, file: Path | None) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(report, indent=2, default=str) + "\n", encoding="utf-8")
