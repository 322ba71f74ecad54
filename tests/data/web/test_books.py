import json

import pytest

from spikeloom.data.web.books import collect, numbers_of
from spikeloom.data.web.gutenberg import Gutenberg, NoBookError, between_marks, unwrap
from spikeloom.errors import DataError
from web_server import answer

RDF = """<?xml version="1.0" encoding="utf-8"?>
<rdf:RDF xml:base="http://www.gutenberg.org/" xmlns:dcterms="http://purl.org/dc/terms/"
 xmlns:pgterms="http://www.gutenberg.org/2009/pgterms/" xmlns:dcam="http://purl.org/dc/dcam/"
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
 <pgterms:ebook rdf:about="ebooks/84">
  <dcterms:publisher>Project Gutenberg</dcterms:publisher>
  <dcterms:issued rdf:datatype="http://www.w3.org/2001/XMLSchema#date">1993-10-01</dcterms:issued>
  <dcterms:rights>{rights}</dcterms:rights>
  <dcterms:title>Frankenstein
or, the Modern Prometheus</dcterms:title>
  <dcterms:creator><pgterms:agent rdf:about="2009/agents/61">
   <pgterms:name>Shelley, Mary Wollstonecraft</pgterms:name>
   <pgterms:alias>Shelley, Mary</pgterms:alias></pgterms:agent></dcterms:creator>
  <dcterms:language><rdf:Description rdf:nodeID="N1"><rdf:value>en</rdf:value></rdf:Description>
  </dcterms:language>
  <dcterms:subject><rdf:Description rdf:nodeID="N2"><rdf:value>Horror tales</rdf:value>
   </rdf:Description></dcterms:subject>
  <pgterms:bookshelf><rdf:Description rdf:nodeID="N3"><rdf:value>Gothic Fiction</rdf:value>
   </rdf:Description></pgterms:bookshelf>
 </pgterms:ebook>
</rdf:RDF>"""
FREE = RDF.format(rights="Public domain in the USA.")
NEW_START = "*** START OF THE PROJECT GUTENBERG EBOOK FRANKENSTEIN; OR, THE\nMODERN PROMETHEUS ***"
NEW_END = "*** END OF THE PROJECT GUTENBERG EBOOK FRANKENSTEIN ***"
TEXT = (
    f"\ufeffThe Project Gutenberg eBook of X\r\n\r\n{NEW_START}\r\n\r\nYou will\r\nrejoice.\r\n\r\n"
)
TEXT += f"{NEW_END}\r\n\r\nUpdated editions …"
TOP = """<h2 id="books-last1">Top 100 EBooks yesterday</h2><ol>
<li><a href="/ebooks/11">Alice (9)</a></li></ol>
<h2 id="books-last30">Top 100 EBooks last 30 days</h2><ol>
<li><a href="/ebooks/84">Frankenstein (50303)</a></li>
<li><a href="/ebooks/1342">Pride and Prejudice (40000)</a></li></ol>
<h2 id="authors-last30">Top 100 Authors</h2><ol><li><a href="/ebooks/author/65">S</a></li>
<li><a href="/ebooks/99">no</a></li></ol>"""


@pytest.fixture
def gutenberg(site, client):
    for number in (84, 1342):
        site.route(f"/cache/epub/{number}/pg{number}.rdf", lambda query, path: answer(FREE))
        site.route(f"/cache/epub/{number}/pg{number}.txt", lambda query, path: answer(TEXT))
    site.route("/browse/scores/top", lambda query, path: answer(TOP))
    return Gutenberg(client, site.url)


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_book_has_its_facts(gutenberg, tmp_path):
    counts = collect(gutenberg, [84], tmp_path / "a.jsonl")
    (book,) = read(tmp_path / "a.jsonl")
    book.pop("fetched")
    assert book == {
        "gutenberg_id": 84,
        "title": "Frankenstein: or, the Modern Prometheus",
        "authors": ["Shelley, Mary Wollstonecraft"],
        "language": "en",
        "subjects": ["Horror tales"],
        "bookshelves": ["Gothic Fiction"],
        "issued": "1993-10-01",
        "text": "You will\nrejoice.",
        "licence": "Public domain in the USA",
        "url": "https://www.gutenberg.org/ebooks/84",
    }
    assert counts == {"books": 1, "new": 1}


def test_a_second_run_asks_for_what_is_missing(site, gutenberg, tmp_path):
    collect(gutenberg, [84], tmp_path / "a.jsonl")
    counts = collect(gutenberg, [84, 1342, 84], tmp_path / "a.jsonl")
    assert counts == {"books": 2, "new": 1}
    assert len(site.asked("pg84.")) == 2


def test_what_is_left_out_is_counted(site, gutenberg, tmp_path):
    kept = RDF.format(rights="Copyrighted. Read the copyright notice inside this book.")
    site.route("/cache/epub/5/pg5.rdf", lambda query, path: answer(kept))
    site.route("/cache/epub/6/pg6.rdf", lambda query, path: answer(FREE))
    site.route("/cache/epub/7/pg7.rdf", lambda query, path: answer(FREE))
    site.route("/cache/epub/7/pg7.txt", lambda query, path: answer(TEXT.partition("*** END")[0]))
    counts = collect(gutenberg, [84, 4, 5, 6, 7], tmp_path / "a.jsonl")
    assert counts == {"books": 1, "new": 1, "not there": 2, "under copyright": 1, "no end mark": 1}
    with pytest.raises(DataError, match="no book found: 1 not there"):
        collect(gutenberg, [4], tmp_path / "b.jsonl")


@pytest.mark.parametrize("at", [".rdf", ".txt"])
@pytest.mark.parametrize(
    "fault",
    [{"status": 503, "headers": {"Retry-After": "0"}}, {"body": b"<rdf:RDF \xff", "cut": 6}],
    ids=["503", "cut short"],
)
def test_faults_pass(site, gutenberg, tmp_path, at, fault):
    site.fault(at=at, **fault)
    assert collect(gutenberg, [84], tmp_path / "a.jsonl")["new"] == 1
    assert site.faults == []


def test_the_top_list(site, gutenberg):
    site.fault(body=b"<h2>try later</h2>")
    assert gutenberg.top() == [84, 1342]


def test_shelves():
    assert 1497 in numbers_of("philosophy")
    with pytest.raises(DataError, match="did you mean 'philosophy'"):
        numbers_of("philosofy")


@pytest.mark.parametrize(
    "start",
    [
        NEW_START,
        "***START OF THE PROJECT GUTENBERG EBOOK X***",
        "*** START OF THIS PROJECT GUTENBERG EBOOK X ***",
        "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*",
        "*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*",
        f"{NEW_START}\n\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN EBOOKS*Ver.10/04/01*END*",
        f"{NEW_START}\n\n\n\n\nProduced by A. Person and the Online\nTeam by hand\n\n",
        f"{NEW_START}\n\n[Transcriber's Note: _x_ is italic.]\n\n",
        f"{NEW_START}\n\nThis eBook was produced by David Widger",
    ],
)
@pytest.mark.parametrize(
    "end",
    [
        NEW_END,
        "***END OF THE PROJECT GUTENBERG EBOOK X***",
        "*** END OF THIS PROJECT GUTENBERG EBOOK X ***",
        "End of the Project Gutenberg EBook of X, by Y\n\n" + NEW_END,
        "End of Project Gutenberg's X, by Y",
        "End of The Project Gutenberg Etext of X",
        "  End of Project Gutenberg Etext X",
    ],
)
def test_marks_of_every_age(start, end):
    body = "CHAPTER I\n\nPrepared as she was by nature, it was the end of the project."
    assert between_marks(f"Licence\n\n{start}\n\n{body}\n\n{end}\nMore licence") == body


def test_a_book_without_marks_is_none():
    with pytest.raises(NoBookError, match="no start mark"):
        between_marks(f"Text\n{NEW_END}")


def test_paragraphs_are_joined_but_verse_is_not():
    line = "A line of prose that is long enough to have been wrapped"
    verse = "Tyger Tyger, burning bright,\nIn the forests of the night;"
    assert unwrap(f"{line}\n{line}\nshort.\n\n\n{verse}") == f"{line} {line} short.\n\n{verse}"
    assert unwrap(f"  {line}\n{line}") == f"  {line}\n{line}"
