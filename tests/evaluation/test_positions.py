"""Bits per byte over position: chunked reading is one long pass, and every byte is counted once."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import CONFIGS, DOCUMENTS, build_model
from typer.testing import CliRunner

from spikeloom import tokenizers
from spikeloom.cli import app
from spikeloom.data.packing import pack
from spikeloom.errors import ConfigError, DataError
from spikeloom.evaluation import pictures
from spikeloom.evaluation.positions import EDGES, evaluate_by_position, openings, read
from spikeloom.model import active_share, fed_weights


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("chunk", [7, 16])
def test_chunks_equal_one_long_pass(name, chunk):
    model = build_model(**CONFIGS[name]).double()
    ids = torch.randint(5, 64, (3, 39), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = model(ids[:, :-1])
    expected = F.cross_entropy(whole.logits.transpose(1, 2).float(), ids[:, 1:], reduction="none")
    nats, share, _ = read(model, ids, chunk)
    assert torch.allclose(nats, expected, atol=1e-5)
    assert share.item() == pytest.approx(
        active_share(whole.firing_rates, fed_weights(model)).item(), rel=1e-5
    )


def test_texts_of_other_lengths_beside_it_change_nothing(source, tokenizer):
    model = build_model(vocab_size=261)
    stream = pack(source, tokenizer)
    together = evaluate_by_position(model, tokenizer, stream, edges=[0, 8, 16], chunk=5)
    alone = evaluate_by_position(model, tokenizer, stream, edges=[0, 8, 16], chunk=16, batch_size=1)
    assert together["documents"] == 3
    assert np.allclose(together["per_document"], alone["per_document"], rtol=1e-5)


def test_buckets_are_what_a_loop_over_tokens_finds(source, tokenizer):
    model = build_model(vocab_size=261, max_position_embeddings=16)
    report = evaluate_by_position(
        model, tokenizer, pack(source, tokenizer), edges=[0, 4, 8, 20, 23], batch_size=2
    )
    long = [text for text in DOCUMENTS if len(text.encode()) >= 23]
    assert (report["documents"], report["left_out"]) == (len(long), len(DOCUMENTS) - len(long))
    for bucket in report["buckets"]:
        nats, size = 0.0, 0
        for text in long:
            ids = [0, *tokenizer.encode(text, add_special_tokens=False)]
            for position in range(bucket["from"], bucket["to"]):
                with torch.no_grad():
                    logits = model(torch.tensor([ids[: position + 1]])).logits[0, -1]
                nats -= float(logits.log_softmax(-1)[ids[position + 1]])
            size += bytes_ending_in(text, bucket["from"], bucket["to"])
        assert bucket["bytes"] == size
        assert bucket["loss"] == pytest.approx(nats / bucket["tokens"], rel=1e-5)
        assert bucket["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert report["bytes"] == sum(bucket["bytes"] for bucket in report["buckets"])
    assert report["tokens"] == 23 * len(long)
    assert report["protocol"]["trained_context"] == 16
    assert json.loads(json.dumps(report)) == report


def bytes_ending_in(text, first, last):
    """Bytes of the characters whose last byte (one token each here) lies in the bucket."""
    ends = np.cumsum([len(c.encode()) for c in text])
    return sum(len(c.encode()) for c, end in zip(text, ends, strict=True) if first < end <= last)


def test_state_of_constant_size_stays_so(source, tokenizer):
    sizes = {}
    for name in ("sdsa", "windows only", "graded"):
        model = build_model(vocab_size=261, **CONFIGS[name])
        sizes[name] = [
            evaluate_by_position(
                model, tokenizer, pack(source, tokenizer), edges=[0, last], max_documents=1
            )["state_bytes"]
            for last in (10, 20)
        ]
    assert sizes["sdsa"][0] == sizes["sdsa"][1]
    assert sizes["windows only"][0] == sizes["windows only"][1]
    assert sizes["graded"][0] < sizes["graded"][1]


def test_only_documents_that_reach_the_last_edge_count(source, tokenizer):
    stream = pack(source, tokenizer)
    sizes = sorted(len(text.encode()) for text in DOCUMENTS)
    for last, left_out in [(sizes[0], 0), (sizes[0] + 1, 1), (sizes[2], 2)]:
        texts = openings(stream, tokenizer, [0, last])
        assert (texts.left_out, texts.tokens.shape) == (left_out, (3 - left_out, last + 1))
    with pytest.raises(DataError, match=f"no document has {sizes[2] + 1} tokens.*{sizes[2]}"):
        openings(stream, tokenizer, [0, sizes[2] + 1])
    assert len(openings(stream, tokenizer, [0, 4], max_documents=2).tokens) == 2


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"edges": [0]}, "edges"),
        ({"edges": [0, 8, 8]}, "edges.*rising"),
        ({"edges": [-1, 8]}, "edges"),
        ({"chunk": 0}, "chunk"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_documents": 0}, "max_documents"),
    ],
)
def test_what_is_impossible_is_refused(source, tokenizer, changes, why):
    with pytest.raises(ConfigError, match=why):
        evaluate_by_position(build_model(), tokenizer, pack(source, tokenizer), **changes)


def test_the_verb_puts_models_side_by_side(source, checkpoints, tmp_path):
    out, picture = tmp_path / "report.json", tmp_path / "new" / "long.png"
    words = ["positions", *map(str, checkpoints.values()), "--data", source, "--device", "cpu"]
    words += ["--edges", "0,4,16", "--json", str(out), "--picture", str(picture)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    models = json.loads(out.read_text())["models"]
    assert [m["name"] for m in models] == ["spiking", "dense"]
    assert [m["active_share"] < 1 for m in models] == [True, False]
    assert f"{models[1]['buckets'][1]['bits_per_byte']:.4f}" in result.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert models[0]["protocol"]["source"] == source
    with pytest.raises(ConfigError, match="--edges 0,x"):
        CliRunner().invoke(app, [*words, "--edges", "0,x"], catch_exceptions=False)


def test_models_side_by_side_have_one_tokenizer_and_two_names(source, checkpoints, tmp_path):
    twice = [checkpoints["spiking"], tmp_path / "spiking"]
    shutil.copytree(*twice)
    out = tmp_path / "report.json"
    ends = ["--data", source, "--device", "cpu", "--edges", "0,4,16", "--json", str(out)]
    words = ["positions", *map(str, twice)]
    CliRunner().invoke(app, [*words, *ends], catch_exceptions=False)
    assert [m["name"] for m in json.loads(out.read_text())["models"]] == list(map(str, twice))
    tokenizers.train("bpe", DOCUMENTS, 261).save_pretrained(twice[1])
    with pytest.raises(ConfigError, match="different tokenizers"):
        CliRunner().invoke(app, [*words, *ends], catch_exceptions=False)


def test_a_line_that_explodes_beyond_its_context_does_not_flatten_the_others(monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "save", lambda figure, path: drawn.append(figure))
    models = [
        {
            "name": "full",
            "active_share": share,
            "state_bytes": 1,
            "protocol": {"trained_context": 8},
            "buckets": [
                {"from": 0, "to": 8, "bits_per_byte": 2.0},
                {"from": 8, "to": 16, "bits_per_byte": far},
            ],
        }
        for far, share in ((1.9, 0.3), (40.0, 1.0))
    ]
    pictures.by_position(models, "unused.png")
    assert drawn[0].axes[0].get_ylim()[1] == pytest.approx(2.2)
    spiking, dense = drawn[0].axes[0].get_lines()[:2]
    assert (spiking.get_linestyle(), dense.get_linestyle()) == ("-", "--")
    assert spiking.get_color() == dense.get_color()  # each the first of its kind
    pictures.by_position(models[:1], "unused.png")
    assert drawn[1].axes[0].get_ylim()[1] < 2.1


def test_default_edges_double():
    assert EDGES[:3] == (0, 64, 128)
    assert EDGES[-1] == 16384
