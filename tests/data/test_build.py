import json

import pytest

from spikeloom import tokenizers
from spikeloom.data import build as building
from spikeloom.data.build import build, load_recipe
from spikeloom.data.manifest import changes, read_manifest
from spikeloom.data.packing import pack
from spikeloom.errors import ConfigError, DataError

RECIPE = """
sources:
  - {source: tales.jsonl, name: tales, category: story, licence: CC0}
  - {source: facts.jsonl, name: facts, category_column: topics, licence: MIT}
tokenizer: {kind: bpe, vocab_size: 300}
contexts: [16]
eval_share: 0.2
rules: rules.yaml
"""


def write(path, texts, **about):
    path.write_text("".join(json.dumps({"text": text, **about}) + "\n" for text in texts))


@pytest.fixture
def recipe(tmp_path):
    write(tmp_path / "tales.jsonl", [f"The fox number {n} went home." for n in range(20)])
    facts = ["The fox number 3 went home!", *(f"Iron {n} is a metal." for n in range(9))]
    write(tmp_path / "facts.jsonl", facts, topics=["chemistry", "metals"])
    (tmp_path / "rules.yaml").write_text("quality: {min_words: 2}")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def test_one_command_makes_the_corpus(recipe, tmp_path):
    out = tmp_path / "corpus"
    counts = build(load_recipe(recipe), out, processes=1)
    assert counts["clean"]["dropped"] == {"duplicate: exact": 1}
    per_source = counts["prepared"]["sources"]
    assert {name: each["documents"] for name, each in per_source.items()} == {
        "tales": 20,
        "facts": 9,
    }
    words = tokenizers.load(out / "prepared" / "tokenizer")
    assert tokenizers.size(words) <= 300
    packed = pack(str(out / "prepared"), words)
    assert len(packed) == sum(part["tokens"] for part in counts["prepared"]["parts"].values())
    categories = [(about["source"], about["category"]) for about in packed.about()]
    assert set(categories) == {("tales", "story"), ("facts", "chemistry")}
    manifest = read_manifest(out)
    assert manifest["licence"] == ["CC0", "MIT"]
    assert len(manifest["inputs"]) == 2
    assert {"clean.jsonl.xz", "prepared/prepared.json"} < manifest["files"].keys()
    for part in (out, out / "clean.jsonl.xz", out / "prepared"):
        assert changes(part) == []


def test_finished_steps_are_not_done_again(recipe, tmp_path, monkeypatch):
    out = tmp_path / "corpus"
    first = build(load_recipe(recipe), out, processes=1)
    monkeypatch.setattr(building, "clean", None)
    monkeypatch.setattr(tokenizers, "train", None)
    again = build(load_recipe(recipe), out, processes=1)
    assert again["clean"] == first["clean"]
    assert again["prepared"]["parts"] == first["prepared"]["parts"]
    recipe.write_text(RECIPE.replace("category: story", "category: fable"))
    with pytest.raises(DataError, match="built from another recipe"):
        build(load_recipe(recipe), out, processes=1)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("licence: MIT", "license: MIT", r"sources\[1\]\.license: unknown key"),
        ("licence: MIT", "licence: ''", r"sources\[1\]\.licence: '' is impossible"),
        ("name: facts", "name: tales", "name of its own"),
        ("category: story", "category: story, category_column: x", "either category or"),
        ("sources:", "origins:", "needs a list of 'sources'"),
        ("vocab_size: 300", "vocab_size: -1", r"tokenizer\.vocab_size"),
        ("contexts: [16]", "contexts: 16", "contexts: expected a list"),
    ],
)
def test_bad_recipes_are_refused(before, after, why, recipe):
    recipe.write_text(RECIPE.replace(before, after))
    with pytest.raises(ConfigError, match=why):
        load_recipe(recipe)


def test_a_source_must_name_its_licence(recipe):
    recipe.write_text(RECIPE.replace(", licence: MIT", ""))
    with pytest.raises(ConfigError, match=r"sources\[1\]: 'licence' is missing"):
        load_recipe(recipe)
