"""Requests that are read off stories."""

import random
from collections import Counter

import pytest

from spikeloom.data.requests import hero, load_words, make_records, recurring, renamed, request

MAX = "Once upon a time, there was a little dog named Max. Max saw a ball. The ball was red."
LISTED = "Anna and Ben had a kite. They loved the kite, and Ben flew it. Anna said Ben was good."


@pytest.mark.parametrize(
    ("story", "wanted"),
    [
        (MAX, "a little dog named Max"),
        ("There lived an old, kind owl called Ollie in a tree.", "an old, kind owl named Ollie"),
        ("One day the red car named Bobby drove off.", "a red car named Bobby"),
        ("Once there was a funny cat. It sat.", "a cat"),
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


def asked_for(story, seeds=200):
    return {request(story, random.Random(seed)) for seed in range(seeds)}


def test_requests_name_what_the_story_has():
    asked = asked_for(MAX)
    assert "Write a story about a little dog named Max." in asked
    assert "Write a story about a little dog named Max and a ball." in asked
    assert "Tell me a story." in asked
    about = [text for text in asked if "about" in text]
    assert all("a little dog named Max" in text for text in about)
    at = asked_for("A girl named Sue ran to the beach. The beach was big.")
    assert "Write a story about a girl named Sue at the beach." in at


def test_a_story_about_nothing_known_is_asked_for_openly_or_not_at_all():
    assert asked_for("It rained all day.") == {None, *load_words().open_requests}


def test_records():
    counts, stories = Counter(), [MAX.replace("Max", f"Max{i}") for i in range(400)]
    told = [*stories, "word " * 400]
    records = list(make_records(told, counts, plain_share=0.25, rename_share=0))
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
