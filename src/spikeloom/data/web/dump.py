"""Read a MediaWiki XML dump as a stream: articles out, everything else counted.

The format is https://www.mediawiki.org/wiki/Help:Export (pages-articles of dumps.wikimedia.org),
plain or compressed. A page at a time is in memory, however long the dump is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from spikeloom.data.readers import chunks
from spikeloom.data.report import Report, silent
from spikeloom.data.resume import GrowingJsonl
from spikeloom.data.web.markup import DISAMBIGUATION, MarkupError, plain_text
from spikeloom.errors import DataError

WIKIMEDIA_LICENCE = "CC BY-SA 4.0"  # of all text wikis of the foundation, since June 2023
_WIKIMEDIA = ("wikipedia.org", "wikibooks.org", "wikivoyage.org", "wiktionary.org", "wikinews.org")


@dataclass(frozen=True)
class Page:
    """One page of a dump, with its newest revision.

    Args:
        namespace: 0 holds the articles.
        model: `wikitext`, or what else the text is written in.
        revised: when, as 2016-04-22T10:19:33Z.
    """

    title: str
    namespace: int
    pageid: int
    redirect: bool
    revision: int
    revised: str
    model: str
    text: str


@dataclass
class Dump:
    """A dump being read; `site` and `base` are known once the first page is there.

    Raises (while it is read):
        DataError: not a MediaWiki dump, damaged, or cut short.
    """

    path: Path
    site: str = ""
    base: str = ""
    bytes_read: int = 0
    _root: Any = field(default=None, repr=False)

    def pages(self) -> Iterator[Page]:
        """Pages in the order of the file."""
        parser: Any = ElementTree.XMLPullParser(("start", "end"))
        try:
            for chunk in chunks(self.path):
                self.bytes_read += len(chunk)
                parser.feed(chunk)
                yield from self._ready(parser)
            parser.close()
        except ElementTree.ParseError as exc:
            raise DataError(f"{self.path} is damaged or cut short: {exc}") from exc
        if self._root is None:
            raise DataError(f"{self.path} is empty")

    def address(self, title: str) -> str:
        """Where the page is on the web: `base` is that of the main page."""
        name = quote(title.replace(" ", "_"), safe="/:(),")
        return f"{self.base.rpartition('/')[0]}/{name}"

    def licence(self) -> str | None:
        """The licence, if the dump says that it is of a wiki of which we know it."""
        host = self.base.partition("://")[2].partition("/")[0]
        return WIKIMEDIA_LICENCE if host.endswith(_WIKIMEDIA) else None

    def _ready(self, parser: Any) -> Iterator[Page]:
        for event, element in parser.read_events():
            name = _local(element.tag)
            if event == "start" and self._root is None:
                if name != "mediawiki":
                    raise DataError(f"{self.path} is no MediaWiki dump: it begins with <{name}>")
                self._root = element
            elif event == "end" and name == "siteinfo":
                facts = {_local(child.tag): child.text or "" for child in element}
                self.site, self.base = facts.get("sitename", ""), facts.get("base", "")
            elif event == "end" and name == "page":
                yield self._page(element)
                self._root.clear()  # or the whole dump would gather in it

    def _page(self, element: Any) -> Page:
        page = {_local(child.tag): child for child in element}
        try:
            revision = {_local(child.tag): child for child in page["revision"]}
            return Page(
                title=page["title"].text or "",
                namespace=int(page["ns"].text),
                pageid=int(page["id"].text),
                redirect="redirect" in page,
                revision=int(revision["id"].text),
                revised=revision["timestamp"].text or "",
                model=revision["model"].text if "model" in revision else "wikitext",
                text=revision["text"].text or "",
            )
        except KeyError as exc:
            raise DataError(f"{self.path}: a page without {exc}: not an export of pages") from exc


def convert(
    dump: Dump,
    out: Path,
    licence: str | None = None,
    max_articles: int | None = None,
    progress: Report = silent,
) -> tuple[str, Counter[str]]:
    """Write the articles of a dump that are not in the output yet.

    Args:
        dump: what to read.
        out: a JSONL file; fields as in docs/data-web.md.
        licence: of the texts; needed for wikis that are not Wikimedia's.
        max_articles: stop when the output holds so many.
        progress: told of every page.

    Returns:
        The licence, and how many pages became what.
    """
    counts: Counter[str] = Counter(articles=0, new=0)
    with GrowingJsonl(out, "pageid") as output:
        for page in dump.pages():
            licence = licence or dump.licence()
            if licence is None:
                raise DataError(f"{dump.path} is of {dump.base or 'nowhere'}: give its --licence")
            if max_articles is not None and len(output) >= max_articles:
                break
            counts["pages"] += 1
            found = "there before" if page.pageid in output else _article(page)
            if isinstance(found, dict):
                output.append(found | {"url": dump.address(page.title), "licence": licence})
                counts["new"] += 1
            else:
                counts[found] += 1
            progress("pages", counts["pages"], None)
        counts["articles"] = len(output)
    return licence or "", counts


def _article(page: Page) -> dict[str, Any] | str:
    """The record, or what the page is instead of an article."""
    if page.redirect:
        return "redirect"
    if page.namespace != 0:
        return "other namespace"
    if page.model != "wikitext":
        return "not wikitext"
    if DISAMBIGUATION.search(page.text):
        return "disambiguation page"
    try:
        text, categories = plain_text(page.text)
    except MarkupError:
        return "broken markup"
    if not text:
        return "without text"
    return {
        "title": page.title,
        "pageid": page.pageid,
        "revision": page.revision,
        "revised": page.revised,
        "categories": categories,
        "text": text,
    }


def _local(tag: str) -> str:
    """`page` of `{http://www.mediawiki.org/xml/export-0.10/}page`."""
    return tag.rpartition("}")[2]
