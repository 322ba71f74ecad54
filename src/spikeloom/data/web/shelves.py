"""Named shelves: what `--shelf physics` means, as categories of the English Wikipedia.

Wikipedia's category graph is no tree and drifts with depth ("Physics" leads to a football club in
six steps), so a shelf names several roots near good articles, and how many steps to go down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spikeloom.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Shelf:
    """Roots (without `Category:`) and the number of steps below them that still count."""

    name: str
    roots: tuple[str, ...]
    depth: int = 1


_TABLE = (
    Shelf(
        "people",
        (
            "Nobel laureates in Physics",
            "Nobel laureates in Chemistry",
            "Nobel laureates in Literature",
            "Nobel Peace Prize laureates",
            "Presidents of the United States",
            "Prime ministers of the United Kingdom",
            "Time 100",
            "Grammy Lifetime Achievement Award winners",
            "Best Actress Academy Award winners",
            "Best Actor Academy Award winners",
        ),
        depth=0,
    ),
    Shelf("biology", ("Biology", "Branches of biology", "Evolutionary biology", "Cell biology")),
    Shelf("physics", ("Physics", "Concepts in physics", "Subfields of physics", "Astrophysics")),
    Shelf("chemistry", ("Chemistry", "Branches of chemistry", "Chemical elements")),
    Shelf("mathematics", ("Mathematics", "Fields of mathematics", "Mathematical concepts")),
    Shelf("history", ("World history", "Ancient history", "Early modern period", "Wars by type")),
    Shelf("geography", ("Geography", "Continents", "Member states of the United Nations", "Seas")),
    Shelf(
        "cities",
        ("Capitals in Africa", "Capitals in Asia", "Capitals in Europe", "Megacities"),
        depth=0,
    ),
    Shelf(
        "companies",
        (
            "Companies in the Dow Jones Industrial Average",
            "Companies in the Nasdaq-100",
            "Multinational companies",
        ),
        depth=0,
    ),
    Shelf("philosophy", ("Philosophy", "Concepts in ethics", "Epistemology", "Metaphysics")),
    Shelf("technology", ("Technology", "Computing", "Inventions", "Electronics")),
    Shelf("arts", ("The arts", "Art movements", "Musical instruments", "Literary genres")),
)
SHELVES = {shelf.name: shelf for shelf in _TABLE}


def chosen(names: Sequence[str], categories: Sequence[str], depth: int | None) -> tuple[Shelf, ...]:
    """Named shelves, then one shelf for each category.

    Args:
        names: of the table.
        categories: of the wiki, with or without `Category:`.
        depth: overrides every shelf's own; a category's is 1.

    Raises:
        DataError: a name is not in the table.
    """
    shelves = [_shelf(name) for name in names]
    plain = [name.removeprefix("Category:").replace("_", " ") for name in categories]
    shelves += [Shelf(name, (name,)) for name in plain]
    return tuple(shelf if depth is None else replace(shelf, depth=depth) for shelf in shelves)


def _shelf(name: str) -> Shelf:
    if name not in SHELVES:
        hint = did_you_mean(name, SHELVES) or f", expected one of {', '.join(SHELVES)}"
        raise DataError(f"--shelf {name} is unknown{hint}; --category takes any category")
    return SHELVES[name]
