"""Collect papers of arXiv: the full text where its licence allows copies, else the abstract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from spikeloom.data.readers import read_lines
from spikeloom.data.report import Report, silent
from spikeloom.data.resume import GrowingJsonl
from spikeloom.data.web.arxiv import ABSTRACT_LICENCE, Arxiv, is_free, read_number
from spikeloom.errors import DataError

_AT_A_TIME = 50  # papers in one question to the Atom API


def much_cited() -> list[str]:
    """The numbers of our own list, papers.txt."""
    with as_file(files("spikeloom.data.web") / "papers.txt") as file:
        return read_list(file)


def read_list(file: Path) -> list[str]:
    """Numbers at the beginnings of the lines of a file.

    Raises:
        DataError: the file cannot be read, or a number is malformed.
    """
    return [read_number(line.split()[0]) for line in read_lines(file)]


def collect(
    arxiv: Arxiv,
    numbers: Sequence[str],
    out: Path,
    full_text: bool = True,
    progress: Report = silent,
) -> tuple[list[str], Counter[str]]:
    """Write the papers that are not in the output yet.

    Args:
        arxiv: where to look.
        numbers: which papers, as `read_number` gives them.
        out: a JSONL file; fields as in docs/data-web.md.
        full_text: look for texts at all, not for abstracts only.
        progress: told of every paper.

    Returns:
        All licences in the output, and how many papers became what.

    Raises:
        DataError: none of them is to be had.
    """
    counts: Counter[str] = Counter(papers=0, new=0)
    with GrowingJsonl(out, "arxiv_id") as output:
        missing = [number for number in dict.fromkeys(numbers) if number not in output]
        for done, paper in enumerate(_papers(arxiv, missing, counts), start=1):
            text, what = _text(arxiv, paper["arxiv_id"]) if full_text else ({}, "abstract")
            output.append(paper | _as_abstract(paper) | text)
            counts.update(["new", what])
            progress("papers", done, len(missing))
        counts["papers"] = len(output)
        licences = sorted({record["licence"] for record in output.records()})
    if not counts["papers"]:
        raise DataError(f"no paper found: {counts['not there']} are not there")
    return licences, counts


def _papers(arxiv: Arxiv, numbers: list[str], counts: Counter[str]) -> Iterable[dict[str, Any]]:
    for start in range(0, len(numbers), _AT_A_TIME):
        batch = numbers[start : start + _AT_A_TIME]
        found = arxiv.facts(batch)
        for number in batch:
            if number in found:
                yield found[number]
            else:
                counts["not there"] += 1


def _as_abstract(paper: dict[str, Any]) -> dict[str, Any]:
    return {
        "part": "abstract",
        "text": paper["abstract"],
        "licence": ABSTRACT_LICENCE,
        "url": f"https://arxiv.org/abs/{paper['arxiv_id']}",
        "fetched": datetime.now(UTC).date().isoformat(),
    }


def _text(arxiv: Arxiv, number: str) -> tuple[dict[str, Any], str]:
    """What a record gets instead of its abstract, and what to count it as."""
    licence = arxiv.licence(number)
    if not is_free(licence):
        return {"paper_licence": licence}, "abstract: the licence allows no more"
    text = arxiv.text(number)
    if text is None:
        return {"paper_licence": licence}, "abstract: no HTML version"
    more = {"part": "full text", "text": text, "licence": licence, "paper_licence": licence}
    return more, "full text"
