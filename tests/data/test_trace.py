import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeloom import tokenizers
from spikeloom.data import trace as tracing
from spikeloom.data.prepare import Layout, prepare
from spikeloom.data.trace import Trace
from spikeloom.errors import DataError

WORDS = ["harbour", "boat", "night", "girl", "wall", "net", "gull", "water", "rope", "door", "iron"]


def story(seed, words=300):
    return " ".join(random.Random(seed).choices(WORDS, k=words))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trace")
    texts = [story(n) for n in range(30)]
    lines = (json.dumps({"text": text, "title": f"no. {n}"}) for n, text in enumerate(texts))
    (folder / "a.jsonl").write_text("\n".join(lines))
    words = tokenizers.train("bpe", texts, 290)
    layout = Layout(eval_share=0.1, shard_tokens=3000)
    prepare(str(folder / "a.jsonl"), words, folder / "out", layout)
    return folder / "out"


@pytest.fixture(scope="module")
def trace(prepared):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "_BLOCK", 1000)
        return Trace(prepared)


def test_a_passage_is_found_where_it_stands(trace):
    for document in (0, 7, len(trace._packed.documents) - 1):
        for chunk in (0, 1):
            begin = int(trace._packed.documents[document]) + 256 * chunk + 30
            tokens = np.asarray(trace._packed.tokens[begin : begin + 60]).tolist()
            (best, *others) = trace.nearest(trace._tokenizer.decode(tokens), 3)
            assert [int(number) for number in best.chunk.split(".")] == [document, chunk]
            assert best.share > 0.9
            assert best.run >= 55
            assert all(other.share < best.share for other in others)
            assert best.about["title"] == list(trace._packed.about())[document]["title"]
            assert trace._tokenizer.decode(tokens[5:50]).strip() in best.text


def test_the_score_is_what_the_docstring_says(trace):
    text = story(3)[:150]
    ids = tracing._encode(trace._tokenizer, text).tolist()
    grams = {tuple(ids[n : n + 3]) for n in range(len(ids) - 2)}
    kept = {g for g in grams if tracing._hashes(np.asarray(g))[0] % 2 == 0}
    assert 0.2 < len(kept) / len(grams) < 0.8
    chunks = chunks_of(trace)
    weights = {
        g: np.log(1 + len(chunks) / max(sum(g in c for c in chunks.values()), 1)) for g in kept
    }
    scores = {name: sum(weights[g] for g in kept & has) for name, has in chunks.items()}
    for hit in trace.nearest(text, 5):
        document, chunk = map(int, hit.chunk.split("."))
        assert hit.share == pytest.approx(scores[document, chunk] / sum(weights.values()))
    assert trace.nearest(text, 1)[0].share * sum(weights.values()) == pytest.approx(
        max(scores.values())
    )


def chunks_of(trace):
    """Trigrams of each chunk, by (document, chunk); a trigram belongs to where it starts."""
    ends = [*trace._packed.documents[1:].tolist(), len(trace._packed)]
    tokens = np.asarray(trace._packed.tokens).tolist()
    chunks = {}
    for document, (begin, end) in enumerate(
        zip(trace._packed.documents.tolist(), ends, strict=True)
    ):
        for at in range(begin, end):
            grams = chunks.setdefault((document, (at - begin) // 256), set())
            if at > begin and at + 3 <= end:
                grams.add(tuple(tokens[at : at + 3]))
    return chunks


def test_the_index_is_built_once(prepared, trace, monkeypatch):
    assert len(list((prepared / "train").glob("trace-*.npy"))) == len(trace._shards()) > 1
    monkeypatch.setattr(Trace, "_build", None)
    text = story(4)[:200]
    assert Trace(prepared).nearest(text) == trace.nearest(text)


def test_what_cannot_be_traced_is_refused(trace, tmp_path):
    with pytest.raises(DataError, match="too few to trace"):
        trace.nearest("a")
    with pytest.raises(DataError, match="data prepare"):
        Trace(tmp_path)


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), max_size=12))
def test_the_longest_run(a, b):
    runs = [
        n
        for n in range(1, 13)
        for i in range(len(a) - n + 1)
        for j in range(len(b) - n + 1)
        if a[i : i + n] == b[j : j + n]
    ]
    assert tracing._longest_run(a, b) == max(runs, default=0)
