import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeloom.data.web.sampling import order, take_turns

VIEWS = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 10**9), max_size=30)
SHARES = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@given(VIEWS, SHARES, st.integers(0, 5))
def test_an_order_holds_every_title_once(views, share, seed):
    assert sorted(order(views, share, seed)) == sorted(views)


@given(VIEWS, SHARES, st.integers(0, 30))
def test_every_beginning_holds_its_share_of_the_most_viewed(views, share, length):
    beginning = list(order(views, share))[:length]
    ranked = sorted(views, key=lambda title: (-views[title], title))
    assert set(ranked[: int(share * len(beginning))]) <= set(beginning)


def test_by_views_alone():
    assert list(order({"a": 1, "b": 3, "c": 2}, top_share=1.0)) == ["b", "c", "a"]


def test_the_draw_follows_the_root_of_the_views():
    """A title with 400 times the views of ten others: chance 20 / (20 + 10) to come first."""
    views = {"big": 400} | {f"small {n}": 1 for n in range(10)}
    first = [next(order(views, 0.0, seed)) for seed in range(3000)]
    assert first.count("big") / 3000 == pytest.approx(2 / 3, abs=0.03)


def test_the_draw_depends_on_the_seed_only():
    views = {str(n): n for n in range(20)}
    again = dict(reversed(views.items()))
    assert list(order(views, 0.5, 1)) == list(order(again, 0.5, 1)) != list(order(views, 0.5, 2))


def test_shelves_take_turns_and_no_title_comes_twice():
    shelves = {"x": iter("abcd"), "y": iter("ab"), "z": iter("ca")}
    assert list(take_turns(shelves)) == [("x", "a"), ("y", "b"), ("z", "c"), ("x", "d")]


def test_shelves_are_asked_no_more_than_needed():
    endless = (str(n) for n in itertools.count())
    assert list(itertools.islice(take_turns({"x": endless}), 2)) == [("x", "0"), ("x", "1")]
