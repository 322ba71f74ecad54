"""Stories to requests and the stories that answer them, by rule: no model, no network.

Who and what a story is about is read off its own words ("a dog named Max", a ball that comes up
twice), and asked for in one of a few phrasings (`requests.yaml`). Some heroes get another name and
some things become other things, lest a model guess what it should read in the request. A share of
the stories stays plain text, so that a model tuned on the outcome goes on telling stories unasked.
Records are what `spikeloom train --set training.chat=true` reads (`spikeloom.data.conversations`).
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
THING_SHARE = 0.6  # of the requests about somebody, that name a thing, place or creature too

_WORD = re.compile(r"(?<![\w-])[a-z]+(?![\w-])")  # no part of a T-shirt
_LOOKS = r"(?:(?!an? |the )[a-z]+,? ){{0,3}}"  # not "a cat met a (mouse)"
_NAMED = rf"\b(?:[Aa]n?|[Tt]he) (?P<what>{_LOOKS}(?:{{kinds}})) (?:named|called) (?P<name>[A-Z]\w+)"
_SOMEBODY = rf"\b[Aa]n? {_LOOKS}(?P<kind>{{kinds}})\b"
_CREATURE = r"\b(?:[Aa]n?|[Tt]he) ({kinds})\b"  # "the fly", but not "to fly"
_PLURALS = ((r"fe?$", "ves"), (r"(?<![aeo])y$", "ies"), (r"(s|x|ch|sh)$", r"\1es"))
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+\b")  # not at the start of a sentence


@dataclass(frozen=True)
class Words:
    """The lists of `requests.yaml`.

    A thing goes with those that may stand for it, a place with its preposition.
    """

    heroes: tuple[str, ...]
    creatures: tuple[str, ...]
    things: dict[str, tuple[str, ...]]
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
    swap_share: float = 0.5,
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
        swap_share: of the stories asked for with a thing, that get another thing, there and in
            the request: a model could guess the thing from the rest of the request.
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
            asked, story = request(story, choose, swap_share)
        counts["plain" if asked is None else "requests"] += 1
        yield {"text": story} if asked is None else {"messages": _turns(asked, story)}


def request(story: str, choose: random.Random, swap_share: float) -> tuple[str | None, str]:
    """What somebody who wanted this story would have asked for, and the story that answers it.

    The request is None if the story is about nothing known.

    Args:
        story: its text.
        choose: draws the phrasing, how much is said, and what is exchanged.
        swap_share: how often the thing that is asked for is exchanged for another.
    """
    words = load_words()
    if choose.random() < OPEN_SHARE:
        return choose.choice(words.open_requests), story
    who, thing = hero(story), None
    if who is None or choose.random() < THING_SHARE:
        known = who.lower().split() if who else []
        thing = next((word for word in recurring(story) if word not in known), None)
    if thing is not None and choose.random() < swap_share:
        story, thing = exchanged(story, thing, choose)
    topic = _topic(who, thing)
    return (choose.choice(words.requests).format(topic=topic) if topic else None), story


@cache
def load_words() -> Words:
    """The lists in the package."""
    file = Path(__file__).with_suffix(".yaml")
    tree: dict[str, Any] = parse_yaml(file.read_text("utf-8"))
    return Words(
        heroes=tuple(" ".join(tree["heroes"].values()).split()),
        creatures=tuple(tree["heroes"]["creatures"].split()),
        things={
            thing: () if group == "others" else tuple(other for other in some if other != thing)
            for group, some in ((group, text.split()) for group, text in tree["things"].items())
            for thing in some
        },
        places={place: where for where, some in tree["places"].items() for place in some.split()},
        no_names=frozenset(tree["no_names"].split()),
        names={kind: tuple(some.split()) for kind, some in tree["names"].items()},
        requests=tuple(tree["requests"]),
        open_requests=tuple(tree["open_requests"]),
    )


def _topic(who: str | None, thing: str | None) -> str | None:
    """`a little dog named Max and a ball`, as far as there is somebody and something."""
    if who is None or thing is None:
        return who or (thing and _with_article(thing))
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


def exchanged(story: str, thing: str, choose: random.Random) -> tuple[str, str]:
    """The story with another thing of its group in place of this one, and that other thing.

    Both as they were if none of the group is new to the story; so are places and creatures.
    """
    others = load_words().things.get(thing, ())
    free = [other for other in others if not _forms(other).search(story)]
    if not free:
        return story, thing
    new = choose.choice(free)

    def put(match: re.Match[str]) -> str:
        word = new if match["word"].lower() == thing else _plural(new)
        article = match["article"]
        before = f"{article[0]}{_article(new)[1:]} " if article else ""
        return before + (word.capitalize() if match["word"][0].isupper() else word)

    return _forms(thing).sub(put, story), new


def hero(story: str) -> str | None:
    """Who a story is about: `a dog named Max`, else `a dog`, else `Max`."""
    named, somebody, _ = _patterns()
    opening = story[:OPENING]
    if match := named.search(opening):
        return f"{_with_article(match['what'])} named {match['name']}"
    if match := somebody.search(opening):
        return _with_article(match["kind"])
    names = Counter(_NAME.findall(story))
    (name, count), *_ = names.most_common(1) or [("", 0)]
    return name if count >= 2 and name not in load_words().no_names else None


def recurring(story: str) -> list[str]:
    """Things, places and creatures that come up twice or more, the most frequent first.

    Of equals, that comes first which first comes up.
    """
    words = load_words()
    known = words.things.keys() | words.places.keys() | set(_patterns()[2].findall(story))
    return [w for w, n in Counter(_WORD.findall(story)).most_common() if n >= 2 and w in known]


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    words = load_words()
    somebody, anything = "|".join(words.heroes), "|".join((*words.heroes, *words.things))
    return (
        re.compile(_NAMED.format(kinds=anything)),
        re.compile(_SOMEBODY.format(kinds=somebody)),
        re.compile(_CREATURE.format(kinds="|".join(words.creatures))),
    )


@cache
def _forms(thing: str) -> re.Pattern[str]:
    """One or many of a thing, and the article if that stands right before it."""
    forms = rf"(?<![\w-])(?P<word>{thing}|{_plural(thing)})(?![\w-])"
    return re.compile(rf"(?:\b(?P<article>an?) )?{forms}", re.IGNORECASE)


def _plural(thing: str) -> str:
    for ending, plural in _PLURALS:
        if (many := re.sub(ending, plural, thing)) != thing:
            return many
    return f"{thing}s"


def _with_article(words: str) -> str:
    return f"{_article(words)} {words}"


def _article(words: str) -> str:
    vowel = words[0] in "aeiou" and not words.startswith("uni")  # a unicorn, a unique dog
    return "an" if vowel else "a"


def _turns(asked: str, story: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": story}]
