import inspect
import json

import pytest
import yaml
from huggingface_hub import HfApi

from spikeloom.data.hub_card import hub_licence
from spikeloom.data.manifest import write_manifest
from spikeloom.data.push import plan, upload
from spikeloom.errors import ConfigError, DataError

TOKEN = "hf_of_ours"


class FakeApi:
    """What `upload` uses of huggingface_hub.HfApi; keeps what it was given."""

    def __init__(self, refusal=None):
        self.repo, self.sent, self.refusal = None, {}, refusal

    def create_repo(self, **given):
        inspect.signature(HfApi.create_repo).bind(self, **given)
        if self.refusal:
            raise self.refusal
        self.repo = given

    def create_commit(self, **given):
        inspect.signature(HfApi.create_commit).bind(self, **given)
        assert given["repo_id"] == self.repo["repo_id"]
        assert given["repo_type"] == self.repo["repo_type"] == "dataset"
        assert given["commit_message"]
        for operation in given["operations"]:
            with operation.as_file() as file:
                self.sent[operation.path_in_repo] = file.read()


def output(path, licence="CC BY-SA 4.0", counts=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"text": "x"}\n')
    command = f"spikeloom data wikipedia --out {path.name}"
    write_manifest(
        path,
        source="https://a.b",
        licence=licence,
        counts=counts or {"articles": 1},
        command=command,
    )


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "corpus"
    output(folder / "wiki.jsonl", counts={"articles": 1, "by_shelf": {"a|b": 1}})
    output(folder / "sub" / "papers.jsonl", ["CC0 1.0", "CC BY 4.0"])
    (folder / "wiki.jsonl.survey").mkdir()
    for name in ("wiki.jsonl.survey/views.jsonl", ".env", "notes.txt"):
        (folder / name).write_text("HF_TOKEN=secret")
    return folder


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def test_only_what_a_manifest_answers_for_is_planned(folder):
    planned = plan(folder, "me/corpus")
    assert list(planned.files) == [
        "sub/papers.jsonl",
        "sub/papers.jsonl.manifest.json",
        "wiki.jsonl",
        "wiki.jsonl.manifest.json",
    ]
    assert planned.left_out == [".env", "notes.txt", "wiki.jsonl.survey/views.jsonl"]


def test_the_card_tells_hub_and_reader(folder):
    text = plan(folder, "me/corpus").card
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "license": ["cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0"],
        "tags": ["spikeloom"],
        "configs": [
            {"config_name": "sub_papers", "data_files": "sub/papers.jsonl"},
            {"config_name": "wiki", "data_files": "wiki.jsonl"},
        ],
    }
    assert body.startswith("\n# corpus\n")
    for told in ("https://a.b", "CC BY 4.0, CC0 1.0", "`spikeloom data wikipedia", "a\\|b: 1"):
        assert told in body


def test_a_folder_that_is_an_output(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "0.bin").write_bytes(b"\0")
    given = {"source": "x", "licence": "MIT", "counts": {}, "command": "spikeloom"}
    write_manifest(tmp_path / "shards", **given)
    planned = plan(tmp_path / "shards", "me/x")
    assert list(planned.files) == ["0.bin", "manifest.json"]
    assert "license: mit" in planned.card
    assert list(plan(tmp_path, "me/x").files) == ["shards/0.bin", "shards/manifest.json"]


def test_everything_goes_up_in_one_commit(folder, token):
    api = FakeApi()
    planned = plan(folder, "me/corpus")
    assert upload(planned, api=api) == "https://huggingface.co/datasets/me/corpus"
    assert api.repo["repo_id"] == "me/corpus"
    assert api.repo["private"] is api.repo["exist_ok"] is True
    assert sorted(api.sent) == sorted([*planned.files, "README.md"])
    assert api.sent["wiki.jsonl"] == b'{"text": "x"}\n'
    assert api.sent["README.md"].decode() == planned.card
    assert not any(b"secret" in raw or TOKEN.encode() in raw for raw in api.sent.values())


def test_a_card_of_ones_own_is_kept(folder, token):
    (folder / "README.md").write_text("# mine\n")
    api = FakeApi()
    planned = plan(folder, "me/corpus")
    assert planned.card is None
    upload(planned, private=False, api=api)
    assert api.sent["README.md"] == b"# mine\n"
    assert api.repo["private"] is False


def test_files_that_changed_are_refused(folder):
    (folder / "wiki.jsonl").write_text("other")
    with pytest.raises(DataError, match=r"not of these files any more: wiki.jsonl"):
        plan(folder, "me/corpus")


@pytest.mark.parametrize("licence", ["not stated", "unknown", "", ["MIT", "unknown"]])
def test_a_licence_that_is_not_stated_is_refused(tmp_path, licence):
    output(tmp_path / "a.jsonl", licence)
    with pytest.raises(DataError, match="the licence is not stated"):
        plan(tmp_path, "me/corpus")


def test_a_manifest_cannot_reach_outside(folder, tmp_path):
    (tmp_path / "secret").write_text("x")
    path = folder / "wiki.jsonl.manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = {"../secret": {"bytes": 1, "sha256": ""}}
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="lies outside"):
        plan(folder, "me/corpus")


def test_what_cannot_be_planned(folder, tmp_path):
    with pytest.raises(ConfigError, match="write OWNER/NAME"):
        plan(folder, "corpus")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no manifest"):
        plan(tmp_path / "empty", "me/x")
    with pytest.raises(DataError, match="is not a folder"):
        plan(tmp_path / "nowhere", "me/x")


def test_without_a_token_nothing_is_sent(folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    api = FakeApi()
    with pytest.raises(ConfigError, match="HF_TOKEN is not set"):
        upload(plan(folder, "me/corpus"), api=api)
    assert api.repo is None


def test_a_refusal_is_one_line(folder, token):
    api = FakeApi(refusal=RuntimeError("403 Forbidden\n\nlong story"))
    with pytest.raises(DataError, match=r"the hub refused.*\(403 Forbidden\)") as caught:
        upload(plan(folder, "me/corpus"), api=api)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("CC BY-SA 4.0", "cc-by-sa-4.0"),
        ("CC BY-NC-ND 4.0", "cc-by-nc-nd-4.0"),
        ("CC0 1.0", "cc0-1.0"),
        ("MIT", "mit"),
        ("Public domain in the USA", "other"),
    ],
)
def test_licences_of_the_hub(name, known):
    assert hub_licence(name) == known
