import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom.data.split import split_documents

texts = st.lists(st.text(min_size=1), unique=True, min_size=2, max_size=60)
shares = st.floats(0.01, 0.99)


@settings(deadline=None)
@given(texts, shares)
def test_both_sides_get_something_and_nothing_is_lost_or_repeated(documents, share):
    train = list(split_documents(documents, "train", share))
    held_out = list(split_documents(documents, "eval", share))
    assert train
    assert held_out
    assert sorted(train + held_out) == sorted(documents)


@settings(deadline=None)
@given(texts, st.randoms())
def test_the_order_of_documents_does_not_matter(documents, random):
    shuffled = random.sample(documents, len(documents))
    assert set(split_documents(documents, "eval")) == set(split_documents(shuffled, "eval"))


def test_new_documents_move_no_old_ones():
    old = [f"old {n}" for n in range(1000)]
    new = [f"new {n}" for n in range(1000)]
    before = list(split_documents(old, "eval"))
    after = list(split_documents([*new, *old], "eval"))
    assert [text for text in after if text.startswith("old")] == before


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_share_is_about_what_was_asked(share):
    documents = [f"document {n}" for n in range(4000)]
    assert len(list(split_documents(documents, "eval", share))) / 4000 == pytest.approx(share, 0.2)


def test_a_single_document_is_cut_at_a_line():
    lines = [f"line {n}\n" for n in range(1000)]
    (train,) = split_documents(["".join(lines)], "train")
    (held_out,) = split_documents(["".join(lines)], "eval")
    assert train + held_out == "".join(lines)
    assert held_out.startswith("line 9")
    assert len(held_out) / len(train + held_out) == pytest.approx(0.05, 0.1)


@settings(deadline=None)
@given(st.text(), shares)
def test_a_single_document_is_never_lost(text, share):
    parts = [*split_documents([text], "train", share), *split_documents([text], "eval", share)]
    assert "".join(parts) == text
    assert all(parts)


def test_no_documents_give_no_documents():
    assert list(split_documents([], "train")) == []


def test_documents_are_not_hoarded():
    taken = []

    def endless():
        for n in range(10**9):
            taken.append(n)
            yield f"document {n}"

    stream = split_documents(endless(), "train")
    for _ in range(100):
        next(stream)
    assert len(taken) < 120
