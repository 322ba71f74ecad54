"""Two services of a MediaWiki site: the action API and the pageviews REST API.

https://www.mediawiki.org/wiki/API:Main_page         articles, categories, site facts
https://doc.wikimedia.org/generated-data-platform/aqs/analytics-api   views of an article
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import quote

from spikeloom.data.web.client import Client, FetchError, NotFoundError, Params, TryLaterError

VIEWS_API = "https://wikimedia.org/api/rest_v1/metrics/pageviews/per-article"
MAX_LAG = 5  # seconds that the database copies may be behind before we step back (API:Etiquette)

_PASSING = {"maxlag", "ratelimited", "readonly"}


class NoArticleError(FetchError):
    """The title leads to nothing that can be read; the message is the reason in a few words."""


@dataclass(frozen=True)
class Wiki:
    """One wiki.

    Args:
        client: who asks.
        site: address of the wiki, without a slash at the end.
        views_api: address of the pageviews service up to `per-article`.
    """

    client: Client
    site: str
    views_api: str = VIEWS_API

    def licence(self) -> str:
        """The licence of the texts, as the site itself states it."""
        facts = self._ask({"meta": "siteinfo", "siprop": "rightsinfo"})["query"]["rightsinfo"]
        return licence_name(facts.get("url", ""), facts.get("text", ""))

    def members(self, category: str) -> tuple[list[str], list[str]]:
        """Titles of the articles in a category, and of its direct subcategories.

        Args:
            category: with its prefix, as `Category:Physics`.
        """
        articles, subcategories = [], []
        query: Params = {"list": "categorymembers", "cmtitle": category, "cmlimit": "max"}
        query |= {"cmtype": "page|subcat", "cmprop": "title"}
        for answer in self._pages_of(query):
            for member in answer["query"]["categorymembers"]:
                if member["ns"] == 0:
                    articles.append(member["title"])
                elif member["ns"] == 14:
                    subcategories.append(member["title"])
        return articles, subcategories

    def article(self, title: str) -> dict[str, Any]:
        """Title, pageid, revision, categories (hidden ones left out), text and url of an article.

        Redirects are followed, so the title may be another one.

        Raises:
            NoArticleError: missing, invalid, a disambiguation page, or without text.
        """
        page = self._page(title)
        if page.get("missing") or page.get("invalid") or page.get("ns", 0) != 0:
            raise NoArticleError("missing" if page.get("missing") else "not an article")
        if "disambiguation" in page.get("pageprops", {}):
            raise NoArticleError("disambiguation page")
        if not page.get("extract", "").strip():
            raise NoArticleError("without text")
        return {
            "title": page["title"],
            "pageid": page["pageid"],
            "revision": page["revisions"][0]["revid"],
            "categories": [c["title"].partition(":")[2] for c in page.get("categories", [])],
            "text": page["extract"].strip(),
            "url": self.address(page["title"]),
        }

    def address(self, title: str) -> str:
        """Where a reader finds an article."""
        return f"{self.site}/wiki/{quote(title.replace(' ', '_'), safe='/:(),')}"

    def views(self, title: str, first: date, last: date) -> int:
        """Views of an article by people (no robots), summed over whole months.

        Args:
            first: the first day of the first month.
            last: the last day of the last month; the service leaves out months that are not whole.
        """
        project = self.site.partition("://")[2].removesuffix(".org")
        span = f"{first:%Y%m%d}00/{last:%Y%m%d}00"
        name = quote(title.replace(" ", "_"), safe="")
        url = f"{self.views_api}/{project}/all-access/user/{name}/monthly/{span}"
        try:
            return self.client.get(url, _summed_views)
        except NotFoundError:  # the service's way to say that nobody came
            return 0

    def _page(self, title: str) -> dict[str, Any]:
        """One page, put together from all parts of the answer."""
        query: Params = {"titles": title, "redirects": 1, "explaintext": 1}
        query |= {"exsectionformat": "wiki", "clshow": "!hidden", "cllimit": "max"}
        query |= {"prop": "extracts|revisions|categories|pageprops", "rvprop": "ids"}
        page: dict[str, Any] = {}
        for answer in self._pages_of(query | {"ppprop": "disambiguation"}):
            found = answer.get("query", {}).get("pages")
            if not found:
                raise NoArticleError("not an article")  # a link to another wiki, for one
            for key, value in found[0].items():
                page[key] = page[key] + value if key == "categories" and key in page else value
        return page

    def _pages_of(self, query: Params) -> Any:
        """All parts of a long answer (API:Continue)."""
        more: Params = {}
        while True:
            answer = self._ask(query | more)
            yield answer
            if "continue" not in answer:
                return
            more = answer["continue"]

    def _ask(self, query: Params) -> dict[str, Any]:
        fixed: Params = {"action": "query", "format": "json", "formatversion": 2}
        fixed |= {"maxlag": MAX_LAG}
        return self.client.get(f"{self.site}/w/api.php", _parsed, fixed | query)


def licence_name(url: str, text: str) -> str:
    """`CC BY-SA 4.0` for https://creativecommons.org/licenses/by-sa/4.0/; else the words given."""
    parts = url.rstrip("/").removesuffix("/deed.en").split("/")
    if "creativecommons.org" not in url or len(parts) < 3:
        return text or "unknown"
    kind, version = parts[-2:]
    name = {"zero": "CC0", "mark": "Public Domain Mark"}.get(kind, f"CC {kind.upper()}")
    return f"{name} {version}"


def _parsed(body: bytes) -> dict[str, Any]:
    """The answer of the action API, which tells its errors with status 200."""
    answer = json.loads(body)
    if not isinstance(answer, dict):
        raise ValueError(f"a {type(answer).__name__}, not an object")
    if not answer.keys() & {"query", "batchcomplete", "error"}:
        raise ValueError("not an answer of the action API")
    if error := answer.get("error"):
        code, what = error.get("code", ""), error.get("info", "")
        if code in _PASSING or code.startswith("internal_api_error"):
            raise TryLaterError(f"{code}: {what}", 5.0 if code == "maxlag" else None)
        raise FetchError(f"the wiki refused: {code}: {what}")
    return answer


def _summed_views(body: bytes) -> int:
    answer = json.loads(body)
    if not isinstance(answer, dict) or "items" not in answer:
        raise ValueError("no 'items' in it")
    return sum(item["views"] for item in answer["items"])
