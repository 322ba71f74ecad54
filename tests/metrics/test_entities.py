"""Entity scores, counted by hand."""

import pytest

from spikeloom.metrics.entities import begun, entity_scores

GOLD = [["B-A", "I-A", "O", "B-B"], ["O", "B-B", "B-B"]]


def test_all_right():
    scores = entity_scores(GOLD, GOLD)
    assert scores["precision"] == scores["recall"] == scores["f1"] == 1.0
    assert scores["entities"] == 4
    assert scores["per_type"]["B"]["entities"] == 3


def test_borders_and_types_must_be_right():
    found = [["B-A", "O", "O", "B-A"], ["O", "B-B", "I-B"]]  # short; other type; two as one
    assert entity_scores(GOLD, found)["f1"] == 0.0
    found = [["B-A", "I-A", "O", "O"], ["B-A", "B-B", "O"]]  # 2 of 3 found are right, 2 of 4 there
    scores = entity_scores(GOLD, found)
    assert scores["precision"] == pytest.approx(2 / 3)
    assert scores["recall"] == 0.5
    assert scores["f1"] == pytest.approx(4 / 7)
    assert scores["per_type"]["A"]["precision"] == 0.5
    assert scores["per_type"]["B"]["recall"] == pytest.approx(1 / 3)


def test_an_i_without_a_beginning_begins_an_entity():
    assert begun(["I-A", "I-A", "I-B", "O", "I-B"]) == ["B-A", "I-A", "B-B", "O", "B-B"]
    assert entity_scores([["B-A", "I-A", "B-B"]], [["I-A", "I-A", "I-B"]])["f1"] == 1.0


def test_nothing_to_find_and_nothing_found():
    scores = entity_scores([["O"], []], [["O"], []])
    assert (scores["f1"], scores["per_type"]) == (0.0, {})
