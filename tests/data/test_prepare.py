import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom import tokenizers
from spikeloom.data import prepare as preparing
from spikeloom.data import sources
from spikeloom.data.manifest import changes, read_manifest
from spikeloom.data.packing import PackedTokens, TokenRows, pack
from spikeloom.data.prepare import Layout, prepare, shuffled
from spikeloom.data.readers import Document
from spikeloom.data.shards import Spliced
from spikeloom.errors import ConfigError, DataError

STORIES = [f"Story {n}. Once upon a time, fox number {n} ate {n} pears.\n" for n in range(40)]

documents = st.lists(
    st.text(min_size=1, max_size=50).filter(lambda text: not text.isspace()),
    min_size=2,
    max_size=12,
    unique=True,
)
layouts = st.builds(
    Layout,
    eval_share=st.floats(0.05, 0.9),
    seed=st.none() | st.integers(0, 9),
    shard_tokens=st.integers(1, 200),
)


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.train("bpe", STORIES, 300)


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "stories.jsonl", STORIES)


def write_source(path, texts, **about):
    lines = [
        json.dumps({"text": text, "title": f"no. {n}"} | about) for n, text in enumerate(texts)
    ]
    path.write_text("\n".join(lines), "utf-8")
    return str(path)


def texts_of(packed, tokenizer):
    ids = np.asarray(packed.tokens)
    return [tokenizer.decode(part[1:]) for part in np.split(ids, packed.documents[1:].tolist())]


def files_of(directory):
    """All that was written, without the dates of the manifest."""
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in found
        if path.name != "manifest.json"
    }


class KilledError(Exception):
    pass


def prepare_and_die(source, tokenizer, out, layout, after):
    """As if the process was killed after so many documents; False if it was done before."""
    whole = sources.records

    def dying(name):
        yield from itertools.islice(whole(name), after)
        raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "records", dying)
        with pytest.raises(KilledError):
            prepare(source, tokenizer, out, layout)


@settings(deadline=None, max_examples=40)
@given(documents, layouts, st.integers(1, 40))
def test_nothing_is_lost_or_repeated(tokenizer, tmp_path_factory, texts, layout, context):
    folder = tmp_path_factory.mktemp("lost")
    source = write_source(folder / "a.jsonl", texts)
    counts = prepare(source, tokenizer, folder / "out", layout)
    found = []
    for part in ("train", "eval"):
        packed = pack(str(folder / "out"), tokenizer, part)
        found += texts_of(packed, tokenizer)
        length = min(context, len(packed))
        rows = TokenRows(packed, length)
        stream = torch.cat([rows[n]["input_ids"] for n in range(len(rows))])
        assert stream.tolist() == np.asarray(packed.tokens)[: len(stream)].tolist()
        assert len(packed) - len(stream) < length
        assert counts["parts"][part]["tokens"] == len(packed)
    assert sorted(found) == sorted(texts)
    assert texts_of(pack(str(folder / "out"), tokenizer), tokenizer) == found


@settings(deadline=None, max_examples=25)
@given(documents, layouts, st.lists(st.integers(0, 12), min_size=1, max_size=3))
def test_resumed_anywhere_equals_unbroken(tokenizer, tmp_path_factory, texts, layout, stops):
    folder = tmp_path_factory.mktemp("resume")
    source = write_source(folder / "a.jsonl", texts)
    prepare(source, tokenizer, folder / "whole", layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikeloom.data.encoding._BATCH_PIECES", 1)  # or nothing is written before
        for after in stops:
            prepare_and_die(source, tokenizer, folder / "broken", layout, after)
    prepare(source, tokenizer, folder / "broken", layout)
    assert files_of(folder / "broken") == files_of(folder / "whole")


def test_a_resumed_run_does_not_tokenise_again(source, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("spikeloom.data.encoding._BATCH_PIECES", 1)
    layout = Layout(shard_tokens=50)
    prepare_and_die(source, tokenizer, tmp_path / "out", layout, 30)
    done = json.loads((tmp_path / "out" / preparing.PROGRESS).read_text())["documents"]
    assert done > 20
    seen = []
    write = preparing.write_streams

    def watched(documents, *args):
        write((seen.append(item) or item for item in documents), *args)

    monkeypatch.setattr(preparing, "write_streams", watched)
    prepare(source, tokenizer, tmp_path / "out", layout)
    assert len(seen) == len(STORIES) - done


def test_a_finished_directory_is_left_alone(source, tokenizer, tmp_path, monkeypatch):
    counts = prepare(source, tokenizer, tmp_path / "out")
    monkeypatch.setattr(preparing, "write_streams", None)
    again = prepare(source, tokenizer, tmp_path / "out", Layout(contexts=(64,)))
    assert again["parts"] == counts["parts"]
    assert list(again["rows"]) == ["64"]


def test_statistics_and_manifest(tokenizer, tmp_path):
    tales = write_source(tmp_path / "a.jsonl", STORIES[:30], source="tales", licence="CC0")
    facts = write_source(tmp_path / "b.jsonl", STORIES[30:], source="facts")
    counts = prepare(f"{tales},{facts}", tokenizer, tmp_path / "out", Layout(shard_tokens=99))
    assert counts["sources"]["tales"]["documents"] == 30
    assert counts["sources"]["facts"]["bytes"] == sum(len(text) for text in STORIES[30:])
    for key in ("documents", "bytes", "tokens"):
        by_part = sum(part[key] for part in counts["parts"].values())
        assert by_part == sum(each[key] for each in counts["sources"].values())
    assert counts["rows"]["256"]["train"] == counts["parts"]["train"]["tokens"] // 256
    manifest = read_manifest(tmp_path / "out")
    assert manifest["licence"] == ["CC0", "unknown"]
    assert manifest["counts"]["sources"] == counts["sources"]
    assert [entry["path"] for entry in manifest["inputs"]] == [tales, facts]
    assert changes(tmp_path / "out") == []


def test_what_is_known_of_a_document_comes_along(source, tokenizer, tmp_path):
    prepare(source, tokenizer, tmp_path / "out", Layout(shard_tokens=99))
    packed = PackedTokens(tmp_path / "out" / "train", tmp_path / "out" / "eval")
    titles = [about["title"] for about in packed.about()]
    for title, text in zip(titles, texts_of(packed, tokenizer), strict=True):
        assert text.startswith(f"Story {title.removeprefix('no. ')}.")


def test_reading_copies_nothing(source, tokenizer, tmp_path):
    prepare(source, tokenizer, tmp_path / "out", Layout(shard_tokens=200))
    packed = PackedTokens(tmp_path / "out" / "train")
    assert isinstance(packed.tokens, Spliced)
    assert all(isinstance(part, np.memmap) for part in packed.tokens.parts)
    border = len(packed.tokens.parts[0])
    inside, over = packed.tokens[3 : border - 3], packed.tokens[border - 2 : border + 2]
    assert isinstance(inside, np.memmap)
    assert inside.base is not None
    assert np.asarray(over).tolist() == np.asarray(packed.tokens).tolist()[border - 2 : border + 2]
    assert len(packed.tokens[5:5]) == 0
    with pytest.raises(ValueError, match="in order"):
        packed.tokens[::2]


def test_parquet_is_a_source(tokenizer, tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"text": STORIES, "category": ["tales"] * len(STORIES)})
    pq.write_table(table, tmp_path / "a.parquet")
    prepare(str(tmp_path / "a.parquet"), tokenizer, tmp_path / "out")
    packed = pack(str(tmp_path / "out"), tokenizer)
    assert sorted(texts_of(packed, tokenizer)) == sorted(STORIES)
    assert {about["category"] for about in packed.about()} == {"tales"}


def test_a_seed_gives_another_order_and_always_the_same(monkeypatch):
    texts = [Document(text) for text in STORIES]
    assert list(shuffled(texts, None)) == texts
    once, again, other = (list(shuffled(texts, seed)) for seed in (1, 1, 2))
    assert once == again != other
    assert sorted(once, key=str) == sorted(texts, key=str)
    monkeypatch.setattr(preparing, "_WINDOW_CHARACTERS", 100)
    assert {d.text for d in itertools.islice(shuffled(texts, 1), 2)} == set(STORIES[:2])


def test_another_tokenizer_is_refused(source, tokenizer, tmp_path):
    prepare(source, tokenizer, tmp_path / "out")
    other = tokenizers.train("char", STORIES, 300)
    with pytest.raises(DataError, match=r"prepared with another tokenizer .*out/tokenizer"):
        pack(str(tmp_path / "out"), other)
    with pytest.raises(DataError, match="begun with another tokenizer_fingerprint"):
        prepare(source, other, tmp_path / "out")


def test_a_directory_in_use_or_not_finished_is_refused(source, tokenizer, tmp_path):
    prepare_and_die(source, tokenizer, tmp_path / "out", Layout(), 3)
    with pytest.raises(DataError, match="is not finished"):
        pack(str(tmp_path / "out"), tokenizer)
    with pytest.raises(DataError, match=r"another seed \(None, now 3\)"):
        prepare(source, tokenizer, tmp_path / "out", Layout(seed=3))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        prepare(source, tokenizer, tmp_path / "full")


@pytest.mark.parametrize(
    "wrong", [{"contexts": ()}, {"contexts": (1,)}, {"eval_share": 1.0}, {"shard_tokens": 0}]
)
def test_impossible_layouts_are_refused(wrong):
    with pytest.raises(ConfigError, match="is impossible"):
        Layout(**wrong)
