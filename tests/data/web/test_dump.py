import bz2
import gzip
import json
import lzma
import subprocess
import sys

import pytest

from spikeloom.data.web.dump import Dump, convert
from spikeloom.errors import DataError

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">
  <siteinfo><sitename>Wikipedia</sitename><dbname>enwiki</dbname>
    <base>https://en.wikipedia.org/wiki/Main_Page</base></siteinfo>
"""


def page(number, title, text, namespace=0, extra="", model="wikitext"):
    return f"""  <page><title>{title}</title><ns>{namespace}</ns><id>{number}</id>{extra}
    <revision><id>{1000 + number}</id><parentid>1</parentid>
      <timestamp>2016-04-22T10:19:33Z</timestamp>
      <contributor><username>X</username><id>77</id></contributor>
      <model>{model}</model><format>text/x-wiki</format>
      <text bytes="9" xml:space="preserve">{text}</text><sha1>x</sha1></revision>
  </page>
"""


PAGES = [
    page(1, "Old cat", "#REDIRECT [[Cat]]", extra='<redirect title="Cat" />'),
    page(2, "Cat", "The '''cat'''&lt;ref&gt;A.&lt;/ref&gt; sat. [[Category:Pets]]"),
    page(3, "Talk:Cat", "What?", namespace=1),
    page(4, "Mercury", "{{disambiguation}} May be: …"),
    page(5, "Picture", "[[File:x.png]]"),
    page(6, "Module", "return 1", model="Scribunto"),
    page(7, "Häuser & Co".replace("&", "&amp;"), "Über alles."),
]
DUMP = HEAD + "".join(PAGES) + "</mediawiki>\n"
PACK = {".xml": bytes, ".xml.bz2": bz2.compress, ".xml.xz": lzma.compress, ".gz": gzip.compress}


def write(path, text=DUMP, pack=bytes):
    path.write_bytes(pack(text.encode()))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("suffix", PACK)
def test_articles_come_out_and_the_rest_is_counted(tmp_path, suffix):
    file = write(tmp_path / f"dump{suffix}", pack=PACK[suffix])
    licence, counts = convert(Dump(file), tmp_path / "a.jsonl")
    cat, houses = read(tmp_path / "a.jsonl")
    assert cat == {
        "title": "Cat",
        "pageid": 2,
        "revision": 1002,
        "revised": "2016-04-22T10:19:33Z",
        "categories": ["Pets"],
        "text": "The cat sat.",
        "url": "https://en.wikipedia.org/wiki/Cat",
        "licence": "CC BY-SA 4.0",
    }
    assert houses["url"] == "https://en.wikipedia.org/wiki/H%C3%A4user_%26_Co"
    assert licence == "CC BY-SA 4.0"
    assert counts == {
        "articles": 2,
        "new": 2,
        "pages": 7,
        "redirect": 1,
        "other namespace": 1,
        "disambiguation page": 1,
        "without text": 1,
        "not wikitext": 1,
    }


def test_a_second_run_adds_only_what_is_missing(tmp_path):
    file, out = write(tmp_path / "dump.xml"), tmp_path / "a.jsonl"
    convert(Dump(file), out, max_articles=1)
    before = out.read_text()
    _, counts = convert(Dump(file), out)
    assert out.read_text().startswith(before)
    assert (counts["articles"], counts["new"], counts["there before"]) == (2, 1, 1)


def test_a_cut_dump_keeps_what_came_before_the_cut(tmp_path):
    file = write(tmp_path / "dump.xml", DUMP[: DUMP.index("<title>Häuser")])
    with pytest.raises(DataError, match="damaged or cut short"):
        convert(Dump(file), tmp_path / "a.jsonl")
    assert [record["title"] for record in read(tmp_path / "a.jsonl")] == ["Cat"]
    packed = bz2.compress(DUMP.encode())
    (tmp_path / "dump.xml.bz2").write_bytes(packed[:-20])
    with pytest.raises(DataError, match="cut short"):
        convert(Dump(tmp_path / "dump.xml.bz2"), tmp_path / "b.jsonl")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<html><p>no</p></html>", "begins with <html>"),
        ("plain", "damaged"),
        ("", "damaged|empty"),
        (HEAD + "<page><title>x</title></page></mediawiki>", "a page without 'revision'"),
        (DUMP.replace("en.wikipedia.org", "wiki.example.org"), "give its --licence"),
    ],
)
def test_what_is_no_dump_is_refused(tmp_path, text, says):
    with pytest.raises(DataError, match=says) as caught:
        convert(Dump(write(tmp_path / "dump.xml", text)), tmp_path / "a.jsonl")
    assert "\n" not in str(caught.value)


def test_a_licence_can_be_given(tmp_path):
    file = write(tmp_path / "dump.xml", DUMP.replace("en.wikipedia.org", "wiki.example.org"))
    convert(Dump(file), tmp_path / "a.jsonl", licence="MIT")
    assert {record["licence"] for record in read(tmp_path / "a.jsonl")} == {"MIT"}


def test_memory_does_not_grow_with_the_dump(tmp_path):
    """40 MB of pages in a process that may grow by 20."""
    many = page(9, "Long", "#REDIRECT [[x]]" + "word " * 40_000, extra='<redirect title="x" />')
    file = write(tmp_path / "dump.xml", HEAD + many * 200 + "</mediawiki>")
    code = """
import resource, sys
from pathlib import Path
from spikeloom.data.web.dump import Dump
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dump = Dump(Path(sys.argv[1]))
assert sum(1 for page in dump.pages()) == 200
assert dump.bytes_read > 40_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = [sys.executable, "-c", code, str(file)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    grown = int(done.stdout) // (1024 if sys.platform == "darwin" else 1)  # in KiB
    assert grown < 20_000
