"""Requests that are read off stories."""

import json
import random
import re
from collections import Counter

import pytest

from spikeloom.data.requests import (
    exchanged,
    hero,
    load_words,
    make_records,
    recurring,
    renamed,
    request,
)

MAX = "Once upon a time, there was a little dog named Max. Max saw a ball. The ball was red."
KITE = "A girl named Sue had a kite. A kite! Kites fly, and Sue's kite flew. Her kites are old."
LISTED = "Anna and Ben had a kite. They loved the kite, and Ben flew it. Anna said Ben was good."


@pytest.mark.parametrize(
    ("story", "wanted"),
    [
        (MAX, "a little dog named Max"),
        ("There lived an old, kind owl called Ollie in a tree.", "an old, kind owl named Ollie"),
        ("One day the red car named Bobby drove off.", "a red car named Bobby"),
        ("Once there was a funny cat. It sat.", "a cat"),
        ("Once a cat met a mouse.", "a cat"),
        ("Once upon a time, a boy named Tim slept.", "a boy named Tim"),
        (LISTED, "Ben"),
        ("It was cold. Then Mom came, and Mom sat, and so Mom slept.", None),
        ("It rained all day and nobody came.", None),
    ],
)
def test_who_a_story_is_about(story, wanted):
    assert hero(story) == wanted


def test_what_comes_up_twice():
    assert recurring(MAX) == ["ball"]
    assert recurring("In the park he ran to a park with one ball") == ["park"]
    assert recurring("His T-shirt was a good T-shirt") == []


def test_what_comes_up_most_often_comes_first():
    assert recurring("A hat, a cup, a cup, a hat, a ball, a ball, a ball.") == [
        "ball",
        "hat",
        "cup",
    ]


def test_creatures_come_up_but_verbs_do_not():
    assert recurring("The boy had a dog. His dog could fly. I fly, said the dog.") == ["dog"]
    assert recurring("A boy saw the fly fly.") == ["fly"]


def asked_for(story, seeds=200):
    return {request(story, random.Random(seed), 0)[0] for seed in range(seeds)}


def test_requests_name_what_the_story_has():
    asked = asked_for(MAX)
    assert "Write a story about a little dog named Max." in asked
    assert "Write a story about a little dog named Max and a ball." in asked
    assert "Tell me a story." in asked
    about = [text for text in asked if "about" in text]
    assert all("a little dog named Max" in text for text in about)
    at = asked_for("A girl named Sue ran to the beach. The beach was big.")
    assert "Write a story about a girl named Sue at the beach." in at


def test_a_creature_that_is_not_the_hero_can_be_asked_for():
    asked = asked_for("A girl named Sue had a dog. The dog ran to Sue. The girl ran. The girl sat.")
    assert "Write a story about a girl named Sue and a dog." in asked
    asked = asked_for("Once a cat met a mouse. The cat ran. The mouse ran. The cat sat.")
    assert "Write a story about a cat and a mouse." in asked
    assert asked_for("Once a unicorn ran. The unicorn sat.") >= {"Write a story about a unicorn."}


def test_the_thing_that_comes_up_most_often_is_named():
    asked = asked_for("A boy named Tim had a hat, and a hat, and a cup. The cup, the cup!")
    assert "Write a story about a boy named Tim and a cup." in asked
    assert not any("hat" in text for text in asked - set(load_words().open_requests) if text)


def test_a_story_about_nothing_known_is_asked_for_openly_or_not_at_all():
    assert asked_for("It rained all day.") == {None, *load_words().open_requests}


def test_records():
    counts, stories = Counter(), [MAX.replace("Max", f"Max{i}") for i in range(400)]
    told = [*stories, "word " * 400]
    records = list(make_records(told, counts, plain_share=0.25, rename_share=0, swap_share=0))
    assert counts["too long"] == 1
    assert counts["requests"] + counts["plain"] == 400
    assert 70 < counts["plain"] < 130
    for record, story in zip(records, stories, strict=True):
        if "text" in record:
            assert record == {"text": story}
        else:
            user, answer = record["messages"]
            assert (user["role"], answer) == ("user", {"role": "assistant", "content": story})


def test_a_story_becomes_the_same_whatever_stands_beside_it():
    alone = list(make_records([MAX], Counter()))
    among = list(make_records([LISTED, MAX], Counter()))
    assert among[1:] == alone


def test_a_hero_gets_another_name_everywhere():
    story = "There was a girl named Sue. Sue's dog saw Sue, and Suellen saw her. She met Nora."
    told = {renamed(story, random.Random(seed)) for seed in range(300)}
    names = {text.split("named ")[1].split(".")[0] for text in told}
    assert names == set(load_words().names["she"]) - {"Sue", "Nora"}
    for text, name in ((text, text.split("named ")[1].split(".")[0]) for text in told):
        assert text == story.replace("Sue.", f"{name}.").replace("Sue'", f"{name}'").replace(
            "saw Sue,", f"saw {name},"
        )
    assert renamed("It rained. Sue slept.", random.Random(0)) == "It rained. Sue slept."


def test_request_and_story_agree_on_the_name():
    told = [MAX.replace("saw", f"saw {i}") for i in range(300)]
    records = [r["messages"] for r in make_records(told, Counter(), 0, rename_share=1)]
    asked = [(user["content"], answer["content"]) for user, answer in records]
    assert len({hero(story) for _, story in asked}) > 20
    assert all(hero(story) in text for text, story in asked if "about" in text)


def others(thing, story, seeds=200):
    """Stories by the thing that took the place of this one."""
    told = (exchanged(story, thing, random.Random(seed)) for seed in range(seeds))
    return {new: text for text, new in told}


@pytest.mark.parametrize(
    ("thing", "story", "other", "wanted"),
    [
        ("kite", KITE, "drum", KITE.replace("ite", "rum").replace("k", "d").replace("K", "D")),
        ("cake", "A cake! I ate a cake.", "apple", "An apple! I ate an apple."),
        ("axe", "An axe is an axe, an old axe.", "knife", "A knife is a knife, an old knife."),
        ("knife", "a knife, two knives", "axe", "an axe, two axes"),
        ("box", "Boxes in a box, not a boxer.", "bag", "Bags in a bag, not a boxer."),
        ("penny", "Her penny, his pennies", "key", "Her key, his keys"),
        ("key", "Her key, his keys", "penny", "Her penny, his pennies"),
        ("leaf", "The leaf, the leaves", "stone", "The stone, the stones"),
        ("shirt", "A shirt. His T-shirt.", "hat", "A hat. His T-shirt."),
    ],
)
def test_a_thing_becomes_another_of_its_group(thing, story, other, wanted):
    assert others(thing, story)[other] == wanted


def test_the_other_thing_is_new_to_the_story():
    assert others("plate", "A plate, a bowl, cups, Bottles.").keys() == {"jug", "spoon"}
    assert others("wand", "Wand, sword, flags, Umbrella") == {
        "wand": "Wand, sword, flags, Umbrella"
    }


@pytest.mark.parametrize("word", ["beach", "moon", "dog", "toy"])
def test_places_creatures_and_what_nothing_can_stand_for_stay(word):
    assert others(word, f"A {word}, the {word}s") == {word: f"A {word}, the {word}s"}


@pytest.mark.parametrize(
    "story",
    [
        "A little boat named Bob swam. The boat was a happy boat.",
        "So it was Penny. Then Penny, as Penny does, found a penny, a penny.",
    ],
)
def test_a_thing_that_is_the_hero_stays(story):
    assert {request(story, random.Random(seed), 1)[1] for seed in range(100)} == {story}


@pytest.mark.parametrize(
    ("story", "thing"),
    [(MAX, "ball"), (KITE, "kite"), ("It rained. A car came. The car was big.", "car")],
)
def test_request_and_story_agree_on_the_thing(story, thing):
    told = [f"{story} {i}" for i in range(300)]
    records = list(make_records(told, Counter(), 0, rename_share=1, swap_share=1))
    assert records == list(make_records(told, Counter(), 0, rename_share=1, swap_share=1))
    asked = [[turn["content"] for turn in record["messages"]] for record in records]
    named = set()
    for text, answer in asked:
        (most,) = recurring(answer)
        if most != thing:
            named.add(most)
            assert most in text
            assert not re.search(rf"\b{thing}s?\b", text + answer, re.IGNORECASE)
        elif text not in load_words().open_requests:
            assert thing not in text
    assert named == set(load_words().things[thing])


def test_the_share_of_exchanges_is_an_option(spikeloom, tmp_path):
    stories, out = tmp_path / "stories.jsonl", tmp_path / "out.jsonl"
    stories.write_text("".join(json.dumps({"text": f"{KITE} {n}"}) + "\n" for n in range(60)))
    told = {}
    for share in ("0", "1"):
        to = ("--licence", "CC0 1.0", "--out", out, "--swap", share)
        assert spikeloom("data", "requests", stories, *to).code == 0
        told[share] = out.read_text()
    assert all("kite" in line for line in told["0"].splitlines())
    assert " and a drum" in told["1"]
    assert "--swap 1" in json.loads((tmp_path / "out.jsonl.manifest.json").read_text())["command"]
    assert "--swap" in spikeloom("data", "requests", "--help").out
