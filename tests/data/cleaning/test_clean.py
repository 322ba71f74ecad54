"""The whole of `spikeloom data clean`: from sources to a file, and what is said about it."""

import json
import lzma
import random

import pytest

from spikeloom.data import sources
from spikeloom.data.cleaning.duplicates import Duplicates, Signer
from spikeloom.data.cleaning.judge import Options
from spikeloom.data.cleaning.pipeline import Labelled, clean
from spikeloom.data.cleaning.rules import load_rules
from spikeloom.data.manifest import changes, read_manifest
from spikeloom.errors import DataError

WORDS = ["harbour", "boats", "night", "girl", "wall", "nets", "gulls", "water", "rope", "door"]
OPENING = "The old man that lived with the sea said to all of us that we have to be patient and "


def story(seed, words=60):
    return OPENING + " ".join(random.Random(seed).choices(WORDS, k=words)) + "."


@pytest.fixture
def corpus(tmp_path):
    near = story(1).replace("patient", "quiet")
    records = [
        {"text": story(0), "title": "first", "kind": ["tale", "sea"]},
        {"text": story(0).upper() + " !!", "title": "shouted", "kind": ["tale"]},
        {"text": story(1), "title": "second", "kind": []},
        {"text": near, "title": "nearly second", "kind": None},
        {"text": "Short.", "title": "short", "kind": "x"},
        {"text": story(2) + "\n\nThe <unk> of it all. Mail me@example.org.", "kind": "tale"},
        {"text": story(3) + " Mail me@example.org.", "title": "letter", "kind": "letter"},
    ]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def records_of(path):
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("processes", [1, 2])
def test_what_stays_and_what_is_said(corpus, tmp_path, processes):
    out = tmp_path / "clean.jsonl.xz"
    labelled = [Labelled(corpus, {"source": "sea", "licence": "CC0"}, "kind")]
    options = Options(redact="patterns", processes=processes)
    report = clean(labelled, out, load_rules(), options)
    kept = records_of(out)
    assert [record.get("title") for record in kept] == ["first", "second", None, "letter"]
    assert [record.get("category") for record in kept] == ["tale", None, "tale", "letter"]
    assert {record["source"] for record in kept} == {"sea"}
    assert kept[2]["text"] == story(2)
    assert kept[3]["text"].endswith("Mail [EMAIL].")
    assert report.read["documents"] == 7
    assert report.kept["bytes"] == sum(len(record["text"].encode()) for record in kept)
    assert report.dropped == {
        "duplicate: exact": 1,
        "duplicate: near": 1,
        "quality: min_words": 1,
    }
    assert report.changed == {"unknown chunks removed": 1, "redacted: EMAIL": 1}
    assert report.samples["duplicate: exact"] == ["of first: shouted"]
    assert report.samples["duplicate: near"] == ["of second: nearly second"]
    assert "me@example.org" not in json.dumps(report.samples["redacted"])
    manifest = read_manifest(out)
    assert manifest["licence"] == ["CC0"]
    assert manifest["counts"]["sources"]["sea"] == {
        "documents": 4,
        "bytes": report.kept["bytes"],
        "dropped": 3,
    }
    assert manifest["counts"]["dropped"] == report.dropped
    assert changes(out) == []


def test_duplicates_are_found_across_sources(corpus, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"text": story(2)}) + "\n" + json.dumps({"text": story(9)}) + "\n")
    report = clean(
        [Labelled(corpus, {"source": "a"}), Labelled(str(other), {"source": "b"})],
        tmp_path / "clean.jsonl",
        load_rules(),
        Options(processes=1),
    )
    assert report.sources["b"] == {
        "documents": 1,
        "bytes": len(story(9)),
        "dropped": 1,
    }


def test_many_processes_give_what_one_gives(tmp_path, monkeypatch):
    monkeypatch.setattr("spikeloom.data.cleaning.pipeline._BATCH_DOCUMENTS", 3)
    path = tmp_path / "many.jsonl"
    texts = [story(n % 17, 20 + n % 5) for n in range(60)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    files = []
    for processes in (1, 2):
        files.append(tmp_path / f"{processes}.jsonl")
        clean([Labelled(str(path))], files[-1], load_rules(), Options(processes=processes))
    assert files[0].read_bytes() == files[1].read_bytes()


def test_near_duplicates_follow_the_threshold():
    texts = [story(n, 200) for n in range(30)]
    changed = [text.replace("patient", "quiet", 1) for text in texts]  # 5 of 215 runs differ
    seen, signer = Duplicates(0.8), Signer(near=True)
    for n, text in enumerate(texts):
        assert seen.find(*signer.sign(text)) is None
        seen.add(str(n), *signer.sign(text))
    for n, text in enumerate(changed):
        assert seen.find(*signer.sign(text)) == ("near", str(n))
    half = texts[0][: len(texts[0]) // 3] + story(99, 150)
    assert seen.find(*signer.sign(half)) is None
    exact_only = Duplicates(None)
    exact_only.add("a", *Signer(near=False).sign("One, two."))
    assert exact_only.find(*Signer(near=False).sign("one TWO")) == ("exact", "a")


def test_a_failed_run_leaves_nothing_behind(corpus, tmp_path, monkeypatch):
    out = tmp_path / "clean" / "out.jsonl"
    records = sources.records

    def broken(source):
        yield next(records(source))
        raise DataError("the disk is gone")

    monkeypatch.setattr(sources, "records", broken)
    with pytest.raises(DataError, match="disk is gone"):
        clean([Labelled(corpus)], out, load_rules(), Options(processes=1))
    assert list(out.parent.iterdir()) == []


def test_what_cannot_be_done_is_refused(corpus, tmp_path):
    with pytest.raises(DataError, match=r"name a \.jsonl"):
        clean([Labelled(corpus)], tmp_path / "out.txt", load_rules())
    labelled = [Labelled(corpus, {}, "topic")]
    with pytest.raises(DataError, match="no column 'topic' for the category; it has title, kind"):
        clean(labelled, tmp_path / "out.jsonl", load_rules(), Options(processes=1))
    short = tmp_path / "short.txt"
    short.write_text("Short.")
    with pytest.raises(DataError, match="nothing is left of 1 documents"):
        clean([Labelled(str(short))], tmp_path / "o.jsonl", load_rules(), Options(processes=1))
