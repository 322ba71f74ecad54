"""arXiv: abstracts by the Atom API, licences by OAI-PMH, full texts from the HTML version.

https://info.arxiv.org/help/api/user-manual.html    the Atom API, and its three seconds
https://info.arxiv.org/help/oa/index.html           OAI-PMH, metadata format `arXiv`
https://info.arxiv.org/help/license/index.html      metadata is CC0; texts have their own
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from spikeloom.data.web.client import Client, FetchError, NotFoundError, Params, parse_xml
from spikeloom.data.web.html_text import article_text
from spikeloom.data.web.mediawiki import licence_name
from spikeloom.errors import DataError

API = "https://export.arxiv.org/api/query"
OAI = "https://oaipmh.arxiv.org/oai"
HTML = "https://arxiv.org/html"
SPACING = 3.0  # seconds between requests, as the terms of use ask
ABSTRACT_LICENCE = "CC0 1.0"

_ATOM = "{http://www.w3.org/2005/Atom}"
_OAI = "{http://www.openarchives.org/OAI/2.0/}"
_NUMBER = r"\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7}"
_PREFIXES = r"(?:arxiv:|https?://arxiv\.org/(?:abs|html|pdf)/)?"
_IDENTIFIER = re.compile(rf"(?i:{_PREFIXES})({_NUMBER})(v\d+)?(?:\.pdf)?")


@dataclass(frozen=True)
class Arxiv:
    """The three services.

    Args:
        client: who asks; its manners should keep `SPACING`.
        api, oai, html: addresses.
    """

    client: Client
    api: str = API
    oai: str = OAI
    html: str = HTML

    def facts(self, numbers: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Title, authors, abstract, … of each paper that is there, by number; 50 at a time."""

        def parsed(body: bytes) -> list[dict[str, Any]]:
            return [_facts(entry) for entry in _entries(parse_xml(body))]

        query: Params = {"id_list": ",".join(numbers), "start": 0, "max_results": len(numbers)}
        papers = self.client.get(self.api, parsed, query)
        return {paper["arxiv_id"]: paper for paper in papers}

    def licence(self, number: str) -> str:
        """The licence of a paper's text; `arXiv` is arXiv's own, which allows no copies."""
        query: Params = {"verb": "GetRecord", "identifier": f"oai:arXiv.org:{number}"}
        root = self.client.xml(self.oai, query | {"metadataPrefix": "arXiv"})
        if (error := root.find(f"{_OAI}error")) is not None:
            raise FetchError(f"{self.oai}: {number}: {error.get('code')}: {error.text}")
        url = next((e.text or "" for e in root.iter() if e.tag.endswith("}license")), "")
        return "arXiv" if "arxiv.org" in url or not url else licence_name(url, url)

    def text(self, number: str) -> str | None:
        """The article as plain text, or None if there is no HTML version of it."""
        try:
            return article_text(self.client.text(f"{self.html}/{number}")) or None
        except NotFoundError:
            return None


def is_free(licence: str) -> bool:
    """Whether the text may be copied: the Creative Commons licences, and CC0."""
    return licence.startswith("CC")


def read_number(word: str) -> str:
    """`1706.03762` for an identifier, with or without `arXiv:`, an address or a version.

    Raises:
        DataError: it is none.
    """
    match = _IDENTIFIER.fullmatch(word.strip())
    if match is None:
        raise DataError(f"{word!r} is no arXiv identifier: write it like 1706.03762")
    return match[1]


def _entries(root: ElementTree.Element) -> list[ElementTree.Element]:
    """The papers of a feed; the API tells its errors as an entry, and unknown ids as an empty one.

    Raises:
        FetchError: the API refused.
    """
    papers = []
    for entry in root.iterfind(f"{_ATOM}entry"):
        if "/api/errors" in (entry.findtext(f"{_ATOM}id") or ""):
            raise FetchError(f"arXiv refused: {_line(entry, 'summary')}")
        if entry.find(f"{_ATOM}title") is not None:
            papers.append(entry)
    return papers


def _facts(entry: ElementTree.Element) -> dict[str, Any]:
    address = _line(entry, "id")
    match = _IDENTIFIER.fullmatch(address)
    if match is None:
        raise ValueError(f"{address!r} is no address of a paper")
    return {
        "arxiv_id": match[1],
        "version": match[2],
        "title": _line(entry, "title"),
        "authors": [_line(author, "name") for author in entry.iterfind(f"{_ATOM}author")],
        "categories": [c.get("term", "") for c in entry.iterfind(f"{_ATOM}category")],
        "published": _line(entry, "published"),
        "abstract": _line(entry, "summary"),
    }


def _line(entry: ElementTree.Element, tag: str) -> str:
    return re.sub(r"\s+", " ", entry.findtext(f"{_ATOM}{tag}") or "").strip()
