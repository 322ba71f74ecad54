"""`spikeloom data …`: verbs that fetch text from Wikipedia, its dumps, Gutenberg and arXiv."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spikeloom.cli.options import Json, Seed, write_json
from spikeloom.cli.output import Out, finish

web_app = typer.Typer()

Contact = Annotated[
    str | None,
    typer.Option(
        envvar="SPIKELOOM_CONTACT",
        metavar="MAIL_OR_URL",
        help="Tells the server who asks (good manners); kept out of the manifest.",
    ),
]


def hidden(environment: str) -> Any:
    """An address that only tests and mirrors change."""
    return typer.Option(envvar=environment, hidden=True, metavar="URL")


@web_app.command()
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
    from spikeloom.data.report import progress_bar
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
    finish(out, address, outcome.licence, outcome.counts(), json_file, inputs)


@web_app.command()
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
    write_json({"shelves": rows}, json_file)


@web_app.command()
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
    from spikeloom.data.report import progress_bar
    from spikeloom.data.web.dump import Dump, convert

    source = Dump(file)
    with progress_bar() as progress:
        licence, counts = convert(source, out, licence, max_articles, progress)
    named = f"{source.site} ({source.base})"
    finish(out, named, licence, dict(counts), json_file, [file])


@web_app.command()
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
    from spikeloom.data.report import progress_bar
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
    finish(out, gutenberg.site, "Public domain in the USA", dict(counts), json_file)


@web_app.command()
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
    from spikeloom.data.report import progress_bar
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
    finish(out, arxiv.api, licences, dict(counts), json_file, inputs)
