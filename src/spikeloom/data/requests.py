"""Stories to requests and the stories that answer them, by rule: no model, no network.

Who and what a story is about is read off its own words ("a dog named Max", a ball that comes up
twice), and asked for in one of a few phrasings (`requests.yaml`). A share of the stories stays
plain text, so that a model tuned on the outcome goes on telling stories unasked. Records are what
`spikeloom train --set training.chat=true` reads (`spikeloom.data.conversations`).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from spikeloom.strict import parse_yaml

OPENING = 400  # characters in which a hero is introduced
OPEN_SHARE = 0.1  # of the requests, that ask for any story
THING_SHARE = 0.6  # of the requests about somebody, that name a thing or place too

_WORD = re.compile(r"\b[a-z]+\b")
_LOOKS = r"(?:[a-z]+,? ){{0,3}}"
_NAMED = rf"\b(?:[Aa]n?|[Tt]he) (?P<what>{_LOOKS}(?:{{kinds}})) (?:named|called) (?P<name>[A-Z]\w+)"
_SOMEBODY = rf"\b[Aa]n? {_LOOKS}(?P<kind>{{kinds}})\b"
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+\b")  # not at the start of a sentence


@dataclass(frozen=True)
class Words:
    """The lists of `requests.yaml`; a place goes with its preposition."""

    heroes: tuple[str, ...]
    things: tuple[str, ...]
    places: dict[str, str]
    no_names: frozenset[str]
    names: dict[str, tuple[str, ...]]
    requests: tuple[str, ...]
    open_requests: tuple[str, ...]


def make_records(
    stories: Iterable[str],
    counts: Counter[str],
    plain_share: float = 0.3,
    rename_share: float = 0.5,
    most_words: int = 350,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """A record a story: `{"messages": [user, assistant]}`, or `{"text"}`.

    What becomes of a story depends on its text and the seed alone, not on its neighbours.

    Args:
        stories: texts.
        counts: filled with what was made, and what was passed over as too long.
        plain_share: of the stories, that stay plain text; those about nothing known do too.
        rename_share: of the stories asked for, whose hero gets another name, there and in the
            request: most are called Lily or Tim, and a model would not need to read who is asked
            for.
        most_words: longer stories are passed over: an answer has to fit in a row.
        seed: of the choices.
    """
    for story in stories:
        story, choose = story.strip(), random.Random(f"{seed} {story.strip()}")
        if len(story.split()) > most_words:
            counts["too long"] += 1
            continue
        asked = None
        if choose.random() >= plain_share:
            story = renamed(story, choose) if choose.random() < rename_share else story
            asked = request(story, choose)
        counts["plain" if asked is None else "requests"] += 1
        yield {"text": story} if asked is None else {"messages": _turns(asked, story)}


def request(story: str, choose: random.Random) -> str | None:
    """What somebody who wanted this story would have asked for; None if it is about nothing known.

    Args:
        story: its text.
        choose: draws the phrasing, and how much is said.
    """
    words = load_words()
    if choose.random() < OPEN_SHARE:
        return choose.choice(words.open_requests)
    topic = _topic(story, choose)
    return None if topic is None else choose.choice(words.requests).format(topic=topic)


@cache
def load_words() -> Words:
    """The lists in the package."""
    file = Path(__file__).with_suffix(".yaml")
    tree: dict[str, Any] = parse_yaml(file.read_text("utf-8"))
    return Words(
        heroes=tuple(" ".join(tree["heroes"].values()).split()),
        things=tuple(tree["things"].split()),
        places={place: where for where, some in tree["places"].items() for place in some.split()},
        no_names=frozenset(tree["no_names"].split()),
        names={kind: tuple(some.split()) for kind, some in tree["names"].items()},
        requests=tuple(tree["requests"]),
        open_requests=tuple(tree["open_requests"]),
    )


def _topic(story: str, choose: random.Random) -> str | None:
    """`a little dog named Max and a ball`, as far as the story has it."""
    who = hero(story)
    with_things = who is None or choose.random() < THING_SHARE
    found = [word for word in recurring(story) if not who or word not in who.split()]
    if not (found and with_things):
        return who
    thing = found[0]
    if who is None:
        return _with_article(thing)
    if (where := load_words().places.get(thing)) is not None:
        return f"{who} {where} {thing}"
    return f"{who} and {_with_article(thing)}"


def renamed(story: str, choose: random.Random) -> str:
    """The story with another name for its hero, if one is introduced by name."""
    match = _patterns()[0].search(story[:OPENING])
    if match is None:
        return story
    counted = Counter(_WORD.findall(story.lower()))
    she = counted["she"] + counted["her"] > counted["he"] + counted["his"]
    known = load_words().names["she" if she else "he"]
    free = [name for name in known if not re.search(rf"\b{name}\b", story)]
    return re.sub(rf"\b{match['name']}\b", choose.choice(free), story) if free else story


def hero(story: str) -> str | None:
    """Who a story is about: `a dog named Max`, else `a dog`, else `Max`."""
    named, somebody = _patterns()
    opening = story[:OPENING]
    if match := named.search(opening):
        return f"{_with_article(match['what'])} named {match['name']}"
    if match := somebody.search(opening):
        return _with_article(match["kind"])
    names = Counter(_NAME.findall(story))
    (name, count), *_ = names.most_common(1) or [("", 0)]
    return name if count >= 2 and name not in load_words().no_names else None


def recurring(story: str) -> list[str]:
    """Things and places that come up twice or more, in the order in which they first do."""
    words = load_words()
    counted = Counter(_WORD.findall(story))
    return [w for w, n in counted.items() if n >= 2 and (w in words.things or w in words.places)]


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    words = load_words()
    somebody, anything = "|".join(words.heroes), "|".join(words.heroes + words.things)
    return (
        re.compile(_NAMED.format(kinds=anything)),
        re.compile(_SOMEBODY.format(kinds=somebody)),
    )


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _turns(asked: str, story: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": story}]
