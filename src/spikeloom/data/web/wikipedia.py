"""Collect articles: walk the categories, look up views, choose, fetch.

What was learned on the way is kept beside the output in `OUT.survey/` (members of each category,
views of each title, titles that gave no article and why), so that a run that was stopped, or is
asked for more, repeats no request. Views are not asked again later: remove the folder for that.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from spikeloom.data.readers import read_lines
from spikeloom.data.report import Report, silent
from spikeloom.data.resume import GrowingJsonl
from spikeloom.data.web.mediawiki import NoArticleError, Wiki
from spikeloom.data.web.sampling import order, take_turns
from spikeloom.data.web.shelves import Shelf
from spikeloom.errors import DataError

A = TypeVar("A")


@dataclass(frozen=True)
class Wish:
    """What to collect.

    Args:
        shelves: categories to walk, each with its depth.
        titles: titles to take as well (shelf `titles`), all of them and first.
        max_articles: end when so many articles are in the output; None takes all.
        max_candidates: articles of one shelf whose views are looked up, nearest the roots first.
        top_share: see `sampling`.
        months: whole months before this one whose views are summed.
        concurrency: requests under way at a time.
        seed: of the draw.
    """

    shelves: tuple[Shelf, ...] = ()
    titles: tuple[str, ...] = ()
    max_articles: int | None = 100
    max_candidates: int = 2000
    top_share: float = 0.5
    months: int = 12
    concurrency: int = 4
    seed: int = 0


@dataclass
class Outcome:
    """What became of it: articles in the output, new ones, and titles passed over by reason."""

    licence: str
    articles: int = 0
    new: int = 0
    by_shelf: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    empty_categories: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, Any]:
        return {
            "articles": self.articles,
            "new": self.new,
            "by_shelf": dict(self.by_shelf),
            "passed_over": dict(self.passed_over),
            "empty_categories": self.empty_categories,
        }


def collect(wiki: Wiki, wish: Wish, out: Path, progress: Report = silent) -> Outcome:
    """Bring the output up to what is wished for, fetching only what is missing.

    Args:
        wiki: where to look.
        wish: what to take.
        out: a JSONL file; see docs/data-web.md for the fields.
        progress: told of every step.

    Raises:
        DataError: nothing was named, nothing was found, or a server gave up.
    """
    if not wish.shelves and not wish.titles:
        raise DataError("nothing named: give --shelf, --category or --titles")
    with ExitStack() as open_files, ThreadPoolExecutor(wish.concurrency) as pool:
        output = open_files.enter_context(GrowingJsonl(out, "pageid"))
        survey = _Survey(out.with_name(out.name + ".survey"), open_files)
        collector = _Collector(wiki, wish, output, survey, pool, progress)
        return collector.run()


class _Survey:
    """What was learned from earlier requests."""

    def __init__(self, folder: Path, open_files: ExitStack) -> None:
        def log(name: str, key: str) -> GrowingJsonl:
            return open_files.enter_context(GrowingJsonl(folder / f"{name}.jsonl", key))

        self.categories, self.views = log("categories", "category"), log("views", "title")
        self.titles = log("titles", "title")  # what each title led to
        self.members = {record["category"]: record for record in self.categories.records()}
        self.views_of = {record["title"]: record["views"] for record in self.views.records()}
        self.led_to = {record["title"]: record["reason"] for record in self.titles.records()}


class _Collector:
    def __init__(
        self,
        wiki: Wiki,
        wish: Wish,
        output: GrowingJsonl,
        survey: _Survey,
        pool: ThreadPoolExecutor,
        progress: Report,
    ) -> None:
        self.wiki, self.wish, self.output, self.survey = wiki, wish, output, survey
        self.pool, self.progress = pool, progress
        self.months = _months(date.today(), wish.months)
        self.outcome = Outcome(licence="")

    def run(self) -> Outcome:
        self.outcome.licence = self.wiki.licence()
        for record in self.output.records():
            self.outcome.by_shelf[record["shelf"]] += 1
            self.survey.led_to[record["title"]] = ""
        chosen = self._chosen()
        for shelf, title, found in self._in_parallel(self._article, chosen, self._room):
            self._keep(shelf, title, found)
        self.outcome.articles = len(self.output)
        if not self.outcome.articles:
            raise DataError(f"no article found: {self._why_none()}")
        return self.outcome

    def _chosen(self) -> Iterator[tuple[str, str]]:
        """(shelf, title) in the order of taking, without those that were dealt with before."""
        orders = {shelf.name: self._ordered(shelf) for shelf in self.wish.shelves}
        titles = (("titles", title) for title in dict.fromkeys(self.wish.titles))
        for shelf, title in itertools.chain(titles, take_turns(orders)):
            if title not in self.survey.led_to:
                yield shelf, title
            elif reason := self.survey.led_to[title]:
                self.outcome.passed_over[reason] += 1

    def _ordered(self, shelf: Shelf) -> Iterator[str]:
        candidates = list(itertools.islice(self._walk(shelf), self.wish.max_candidates))
        unknown = [title for title in candidates if title not in self.survey.views_of]
        looked_up = self._in_parallel(self._views, ((shelf.name, title) for title in unknown))
        for done, (_, title, views) in enumerate(looked_up, start=1):
            self._note_views(title, views)
            self.progress(f"views: {shelf.name}", done, len(unknown))
        views_of = {title: self.survey.views_of[title] for title in candidates}
        return order(views_of, self.wish.top_share, self.wish.seed)

    def _walk(self, shelf: Shelf) -> Iterator[str]:
        """Articles of a shelf, breadth first, each once."""
        level = [f"Category:{root.removeprefix('Category:')}" for root in shelf.roots]
        seen_categories, seen = set(level), set[str]()
        for _ in range(shelf.depth + 1):
            below: list[str] = []
            for category in level:
                articles, subcategories = self._members(category)
                yield from (title for title in articles if title not in seen)
                seen.update(articles)
                self.progress(f"categories: {shelf.name}", len(seen), None)
                below += [name for name in subcategories if name not in seen_categories]
                seen_categories.update(subcategories)
            level = below

    def _members(self, category: str) -> tuple[list[str], list[str]]:
        if category not in self.survey.members:
            articles, subcategories = self.wiki.members(category)
            record = {"category": category, "articles": articles, "subcategories": subcategories}
            self.survey.categories.append(record)
            self.survey.members[category] = record
        known = self.survey.members[category]
        if not known["articles"] and not known["subcategories"]:
            self.outcome.empty_categories.append(category)
        return known["articles"], known["subcategories"]

    def _views(self, title: str) -> int:
        return self.wiki.views(title, *self.months)

    def _note_views(self, title: str, views: int) -> None:
        first, last = self.months
        months = f"{first:%Y-%m}..{last:%Y-%m}"
        self.survey.views.append({"title": title, "views": views, "months": months})
        self.survey.views_of[title] = views

    def _article(self, title: str) -> dict[str, Any] | str:
        """The article, or the reason why there is none."""
        try:
            article = self.wiki.article(title)
        except NoArticleError as reason:
            return str(reason)
        known = self.survey.views_of.get(title)
        article["views"] = self._views(article["title"]) if known is None else known
        return article

    def _keep(self, shelf: str, title: str, found: dict[str, Any] | str) -> None:
        if isinstance(found, dict) and found["pageid"] in self.output:
            found = "the same article under another title"
        if isinstance(found, dict):
            facts = {"shelf": shelf, "licence": self.outcome.licence, "fetched": _today()}
            self.output.append(found | facts)
            self.outcome.new += 1
            self.outcome.by_shelf[shelf] += 1
            self.progress("articles", len(self.output), self.wish.max_articles)
            found = ""
        else:
            self.outcome.passed_over[found] += 1
        self.survey.titles.append({"title": title, "reason": found})
        self.survey.led_to[title] = found

    def _room(self) -> int:
        """How many more articles are wanted."""
        limit = self.wish.max_articles
        return self.wish.concurrency if limit is None else limit - len(self.output)

    def _in_parallel(
        self,
        work: Callable[[str], A],
        jobs: Iterable[tuple[str, str]],
        room: Callable[[], int] | None = None,
    ) -> Iterator[tuple[str, str, A]]:
        """(shelf, title, result) as they come; never more under way than there is room for."""
        jobs = iter(jobs)
        running: dict[Future[A], tuple[str, str]] = {}
        while True:
            most = min(self.wish.concurrency, room() if room else self.wish.concurrency)
            for shelf, title in itertools.islice(jobs, max(most - len(running), 0)):
                running[self.pool.submit(work, title)] = (shelf, title)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield *running.pop(future), future.result()

    def _why_none(self) -> str:
        reasons: Mapping[str, int] = self.outcome.passed_over
        if reasons:
            return ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        empty = ", ".join(self.outcome.empty_categories)
        return f"no such category, or nothing in it: {empty}" if empty else "all were known before"


def read_titles(file: Path) -> tuple[str, ...]:
    """One title a line; raises like `read_lines`."""
    return tuple(line.replace("_", " ") for line in read_lines(file))


def _months(today: date, count: int) -> tuple[date, date]:
    """First and last day of the `count` whole months before today's."""
    last = today.replace(day=1) - timedelta(days=1)
    months = last.year * 12 + last.month - count
    return date(months // 12, months % 12 + 1, 1), last


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
