import json

import pytest

from spikeloom.data.web.arxiv import Arxiv, read_number
from spikeloom.data.web.client import FetchError
from spikeloom.data.web.html_text import article_text
from spikeloom.data.web.papers import collect, much_cited, read_list
from spikeloom.errors import DataError
from web_server import answer

LICENCES = {
    "1706.03762": "http://arxiv.org/licenses/nonexclusive-distrib/1.0/",
    "2302.13939": "http://creativecommons.org/licenses/by/4.0/",
    "2307.01694": "http://creativecommons.org/publicdomain/zero/1.0/",
    "solv-int/9901001": "",
}
PAGE = """<!DOCTYPE html><html><head><title>no</title><style>p{}</style></head><body>
<nav class="ltx_page_navbar">menu</nav><article class="ltx_document">
<h1 class="ltx_title ltx_title_document">Spiking <em>GPT</em></h1>
<div class="ltx_authors">A. Person</div>
<section class="ltx_section"><h2 class="ltx_title">1 Intro<br></h2>
<div class="ltx_para"><p class="ltx_p">Let <math alttext="x_1"><mi>x</mi></math> be
small.<span class="ltx_note">footnote</span> See <cite>[<a href="#b">1</a>]</cite>.</p></div>
<figure><img src="x.png"><figcaption>A figure</figcaption></figure>
<ul><li><span class="ltx_tag ltx_tag_item">•</span><p>item one</p></li></ul></section>
<section class="ltx_bibliography"><h2>References</h2><p>Book</p></section>
</article><footer>end</footer></body></html>"""
TEXT = "== Spiking GPT ==\n\n== 1 Intro ==\n\nLet $x_1$ be small. See [1].\n\nitem one"


def atom(query, path):
    entries = []
    for number in query["id_list"].split(","):
        if number in LICENCES:
            entries.append(f"""<entry><id>http://arxiv.org/abs/{number}v7</id>
<updated>2023-08-02T00:41:18Z</updated><published>2017-06-12T17:57:34Z</published>
<title>Attention Is All\n  You Need</title><summary>  The dominant\nmodels.\n</summary>
<author><name>Ashish Vaswani</name></author><author><name>Noam Shazeer</name></author>
<link href="http://arxiv.org/abs/{number}v7" rel="alternate" type="text/html"/>
<arxiv:primary_category xmlns:arxiv="http://arxiv.org/schemas/atom" term="cs.CL"/>
<category term="cs.CL" scheme="http://arxiv.org/schemas/atom"/></entry>""")
    return answer(f"""<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom"><title>ArXiv Query</title>
{"".join(entries)}</feed>""")


def oai(query, path):
    assert query["metadataPrefix"] == "arXiv"
    number = query["identifier"].removeprefix("oai:arXiv.org:")
    licence = LICENCES[number] and f"<license>{LICENCES[number]}</license>"
    return answer(f"""<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/"><GetRecord><record>
<header><identifier>oai:arXiv.org:{number}</identifier></header><metadata>
<arXiv xmlns="http://arxiv.org/OAI/arXiv/"><id>{number}</id>{licence}</arXiv></metadata>
</record></GetRecord></OAI-PMH>""")


@pytest.fixture
def arxiv(site, client):
    site.route("/api/query", atom)
    site.route("/oai", oai)
    site.route("/html/2302.13939", lambda query, path: answer(PAGE))
    return Arxiv(client, f"{site.url}/api/query", f"{site.url}/oai", f"{site.url}/html")


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_licence_decides_what_is_taken(site, arxiv, tmp_path):
    licences, counts = collect(arxiv, [*LICENCES, "9999.99999"], tmp_path / "a.jsonl")
    closed, free, without_html, old = read(tmp_path / "a.jsonl")
    fetched = closed.pop("fetched")
    assert len(fetched) == 10
    assert closed == {
        "arxiv_id": "1706.03762",
        "version": "v7",
        "title": "Attention Is All You Need",
        "authors": ["Ashish Vaswani", "Noam Shazeer"],
        "categories": ["cs.CL"],
        "published": "2017-06-12T17:57:34Z",
        "abstract": "The dominant models.",
        "part": "abstract",
        "text": "The dominant models.",
        "licence": "CC0 1.0",
        "url": "https://arxiv.org/abs/1706.03762",
        "paper_licence": "arXiv",
    }
    assert (free["part"], free["text"], free["licence"]) == ("full text", TEXT, "CC BY 4.0")
    assert (without_html["part"], without_html["paper_licence"]) == ("abstract", "CC0 1.0")
    assert (old["arxiv_id"], old["part"]) == ("solv-int/9901001", "abstract")
    assert licences == ["CC BY 4.0", "CC0 1.0"]
    assert counts == {
        "papers": 4,
        "new": 4,
        "not there": 1,
        "full text": 1,
        "abstract: the licence allows no more": 2,
        "abstract: no HTML version": 1,
    }
    assert [r for r in site.requests if "/html/" in r and "1706" in r] == []


def test_a_second_run_asks_for_what_is_missing(site, arxiv, tmp_path):
    collect(arxiv, ["1706.03762"], tmp_path / "a.jsonl")
    _, counts = collect(arxiv, ["1706.03762", "2302.13939"], tmp_path / "a.jsonl")
    assert (counts["papers"], counts["new"]) == (2, 1)
    assert len(site.asked("1706.03762")) == 2  # once for the abstract, once for the licence


def test_abstracts_only_ask_for_no_licence(site, arxiv, tmp_path):
    _, counts = collect(arxiv, list(LICENCES), tmp_path / "a.jsonl", full_text=False)
    assert counts["abstract"] == 4
    assert len(site.requests) == 1


@pytest.mark.parametrize("at", ["id_list", "GetRecord", "/html/"])
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503, "headers": {"Retry-After": "0"}},
        {"body": b"<feed", "cut": 3},
        {"status": 429},
    ],
    ids=["503", "cut short", "429"],
)
def test_faults_pass(site, arxiv, tmp_path, at, fault):
    site.fault(at=at, **fault)
    _, counts = collect(arxiv, ["2302.13939"], tmp_path / "a.jsonl")
    assert counts["full text"] == 1
    assert site.faults == []


def test_a_broken_feed_is_asked_for_again(site, arxiv):
    site.fault(at="id_list", body=b"<feed><entry>")
    assert list(arxiv.facts(["1706.03762"])) == ["1706.03762"]


def test_refusals_are_told(site, arxiv, tmp_path):
    site.fault(
        at="id_list",
        body=b'<feed xmlns="http://www.w3.org/2005/Atom"><entry><id>http://arxiv.org/api/errors#x'
        b"</id><title>Error</title><summary>incorrect id format</summary></entry></feed>",
    )
    with pytest.raises(FetchError, match="incorrect id format"):
        collect(arxiv, ["1706.03762"], tmp_path / "a.jsonl")
    site.fault(
        at="GetRecord",
        body=b'<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/">'
        b'<error code="idDoesNotExist">unknown</error></OAI-PMH>',
    )
    with pytest.raises(FetchError, match="idDoesNotExist: unknown"):
        collect(arxiv, ["1706.03762"], tmp_path / "b.jsonl")
    with pytest.raises(DataError, match="1 are not there"):
        collect(arxiv, ["9999.99999"], tmp_path / "c.jsonl")


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("1706.03762", "1706.03762"),
        ("arXiv:1706.03762v7", "1706.03762"),
        ("https://arxiv.org/abs/hep-th/9901001v2", "hep-th/9901001"),
        ("https://arxiv.org/pdf/2302.13939.pdf", "2302.13939"),
        ("math.GT/0309136", "math.GT/0309136"),
    ],
)
def test_identifiers(word, number):
    assert read_number(word) == number


@pytest.mark.parametrize("word", ["", "17", "1706.03762x", "attention", "1706.03762 2"])
def test_what_is_no_identifier(word):
    with pytest.raises(DataError, match="no arXiv identifier"):
        read_number(word)


def test_lists(tmp_path):
    assert len(much_cited()) == len(set(much_cited())) > 30
    file = tmp_path / "list.txt"
    file.write_text("# ours\narXiv:1706.03762v1  Attention\n\n2302.13939\n")
    assert read_list(file) == ["1706.03762", "2302.13939"]
    file.write_text("# none\n")
    with pytest.raises(DataError, match="holds nothing"):
        read_list(file)


def test_pages_without_an_article():
    assert article_text("<html><body><p>No HTML for this paper.</p></body></html>") == ""
    assert article_text("<article><p>open <b>and never closed") == "open and never closed"
    assert article_text("</p><article></article></article><p>x</p>") == ""
