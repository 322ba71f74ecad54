"""Which articles to take: the famous ones, and a fair draw from the rest.

The most-viewed articles alone are celebrities and the news of the year; a uniform draw is stubs.
So each shelf is put in an order whose beginnings, of whatever length, hold a share `top_share` of
its most-viewed articles, and for the rest articles drawn without replacement with weight
sqrt(views): a hundred times the views is ten times the chance. Shelves take turns, so that all get
the same number as long as they last; an article on several shelves counts for the first to take it.

The draw depends on seed and title alone (keys u^(1/w) of Efraimidis and Spirakis, 2006), so the
first 100 of an order are among the first 200: a larger `--max-articles` only adds.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterator, Mapping


def order(views: Mapping[str, int], top_share: float = 0.5, seed: int = 0) -> Iterator[str]:
    """Titles of one shelf in the order of taking.

    Args:
        views: title -> views.
        top_share: share of the most viewed in every beginning of the order; 1 sorts by views.
        seed: of the draw.
    """
    by_views = iter(sorted(views, key=lambda title: (-views[title], title)))
    by_draw = iter(sorted(views, key=lambda title: (-_key(title, views[title], seed), title)))
    taken: set[str] = set()
    top = 0
    while len(taken) < len(views):
        from_top = top < top_share * (len(taken) + 1)
        title = next(t for t in (by_views if from_top else by_draw) if t not in taken)
        taken.add(title)
        top += from_top
        yield title


def take_turns(orders: Mapping[str, Iterator[str]]) -> Iterator[tuple[str, str]]:
    """(shelf, title) from all shelves in turn, no title twice."""
    waiting, seen = deque(orders.items()), set[str]()
    while waiting:
        shelf, titles = waiting.popleft()
        title = next((t for t in titles if t not in seen), None)
        if title is not None:
            seen.add(title)
            yield shelf, title
            waiting.append((shelf, titles))


def _key(title: str, views: int, seed: int) -> float:
    """log(u) / w with u uniform in (0, 1): the same order as u^(1/w), without underflow."""
    raw = hashlib.blake2b(f"{seed}\n{title}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(raw) + 0.5) / 2**64
    return math.log(uniform) / math.sqrt(max(views, 1))
