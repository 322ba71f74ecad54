import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from spikeloom.data import sources
from spikeloom.data.sources import documents, files, fingerprint, objects, records
from spikeloom.errors import DataError, MissingExtraError


@pytest.fixture
def corpus(tmp_path):
    """b.txt, a.jsonl with `text` and `body`, sub/c.md, and files to be passed over."""
    (tmp_path / "b.txt").write_text("B")
    records = [{"text": "A1", "body": "X1"}, {"text": "  ", "body": "X2"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.md").write_text("C")
    (tmp_path / "picture.png").write_bytes(b"\0")
    (tmp_path / ".hidden.txt").write_text("H")
    return tmp_path


def complaint(source: str) -> str:
    with pytest.raises(DataError) as caught:
        list(documents(source))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_a_glob_a_list_and_a_column(corpus):
    assert list(documents(str(corpus))) == ["A1", "B", "C"]
    assert list(documents(f"{corpus}/*.txt")) == ["B"]
    assert list(documents(f"{corpus}/**/*.md")) == ["C"]
    assert list(documents(f"{corpus}/b.txt, {corpus}/sub")) == ["B", "C"]
    assert list(documents(f"{corpus}/a.jsonl::body")) == ["X1", "X2"]


def test_a_path_with_a_comma_and_one_from_home(corpus, monkeypatch):
    (corpus / "x,y.txt").write_text("XY")
    monkeypatch.setenv("HOME", str(corpus))
    assert list(documents(f"{corpus}/x,y.txt")) == ["XY"]
    assert list(documents("~/b.txt")) == ["B"]


def test_documents_are_read_as_they_are_asked_for(corpus):
    stream = documents(f"{corpus}/b.txt,{corpus}/missing.txt")
    assert next(stream) == "B"
    with pytest.raises(DataError):
        next(stream)


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("{}/bb.txt", "does not exist (did you mean 'b.txt'?)"),
        ("pyton-docs", "did you mean 'python-docs'?"),
        ("{}/nowhere/b.txt", "there is no folder"),
        ("{}/*.csv", "no file here is of a known kind"),
        ("{}/picture.png", "unknown kind of file"),
        ("{}/empty.txt", "holds no text"),
        (" , ", "no source named"),
        ("hub:", "write hub:OWNER/NAME"),
        ("hub:a/b:train:text:more", "write hub:OWNER/NAME"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(corpus, source, want):
    (corpus / "empty.txt").write_text("")
    assert want in complaint(source.format(corpus))


def test_fingerprint_follows_the_files(corpus):
    before = fingerprint(str(corpus))
    assert fingerprint(str(corpus)) == before
    os.utime(corpus / "b.txt", ns=(0, 0))
    touched = fingerprint(str(corpus))
    (corpus / "d.txt").write_text("D")
    assert len({before, touched, fingerprint(str(corpus))}) == 3


def test_fingerprint_does_not_depend_on_how_a_path_is_written(corpus, monkeypatch):
    monkeypatch.chdir(corpus)
    assert fingerprint("b.txt") == fingerprint(f"{corpus}/sub/../b.txt")
    assert fingerprint("a.jsonl") != fingerprint("a.jsonl::body")


def test_fingerprint_of_named_sources():
    prints = [fingerprint(name) for name in ("python-docs", "hub:a/b", "hub:a/b:test")]
    assert len(set(prints)) == 3
    with pytest.raises(DataError, match="does not exist"):
        fingerprint("missing.txt")


def fake_hub(monkeypatch, load):
    errors = SimpleNamespace(DatasetNotFoundError=type("NotFound", (FileNotFoundError,), {}))
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))
    monkeypatch.setitem(sys.modules, "datasets.exceptions", errors)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *args, **kwargs: None)
    return errors


def test_the_hub_is_streamed(monkeypatch):
    calls = []

    def load(*args, **kwargs):
        calls.append((args, kwargs))
        return iter([{"story": "one"}, {"story": None}, {"story": "two"}])

    fake_hub(monkeypatch, load)
    assert list(documents("hub:owner/name/config:validation:story")) == ["one", "two"]
    assert calls == [(("owner/name", "config"), {"split": "validation", "streaming": True})]
    assert "no column 'text'; it has 'story'" in complaint("hub:owner/name")


def test_hub_failures_are_one_line(monkeypatch):
    failure: Exception = ConnectionError("no route\nto host")

    def load(*args, **kwargs):
        raise failure

    errors = fake_hub(monkeypatch, load)
    assert "cannot be reached; local files and 'python-docs'" in complaint("hub:a/b")
    failure = errors.DatasetNotFoundError("x")
    assert "no such data set" in complaint("hub:a/b")
    failure = ValueError("Unknown split 'x'.\nmore")
    assert complaint("hub:a/b:x") == "hub:a/b:x: Unknown split 'x'."


def test_no_network_is_noticed_before_datasets_retries(monkeypatch):
    def fail(*args, **kwargs):
        raise OfflineModeIsEnabled("offline")

    fake_hub(monkeypatch, load=None)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", fail)
    assert "cannot be reached" in complaint("hub:a/b")


def test_without_datasets_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"spikeloom\[hub\]"):
        list(documents("hub:a/b"))


def test_reading_sources_does_not_load_torch():
    code = "import sys, spikeloom.data.sources; sys.exit('torch' in sys.modules)"
    path = str(Path(sources.__file__).parents[2])
    assert os.spawnve(os.P_WAIT, sys.executable, ["py", "-c", code], {"PYTHONPATH": path}) == 0


def test_records_carry_their_other_columns(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one", "title": "A", "topics": ["x"]}\n')
    (tmp_path / "b.txt").write_text("two")
    source = f"{tmp_path / 'a.jsonl'},{tmp_path / 'b.txt'}"
    found = [(document.text, document.about) for document in records(source)]
    assert found == [("one", {"title": "A", "topics": ["x"]}), ("two", {"title": "b"})]


def test_local_files_are_named(tmp_path):
    for name in ("a.jsonl", "b.txt"):
        (tmp_path / name).write_text("x")
    found = files(f"{tmp_path}/a.jsonl::body,{tmp_path},python-docs,hub:a/b")
    assert [path.name for path in found] == ["a.jsonl", "a.jsonl", "b.txt"]


def test_whole_records_come_from_files_and_the_hub(tmp_path, monkeypatch):
    fake_hub(monkeypatch, lambda *args, **kwargs: [{"question": "q", "n": 1}])
    (tmp_path / "a.jsonl").write_text('{"x": [1]}\n')
    found = list(objects(f"{tmp_path},hub:owner/name"))
    assert found == [
        (f"{tmp_path}/a.jsonl, line 1", {"x": [1]}),
        ("hub:owner/name", {"question": "q", "n": 1}),
    ]
