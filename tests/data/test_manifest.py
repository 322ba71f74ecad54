import json
import sys

import pytest

from spikeloom.data.manifest import changes, manifest_path, read_manifest, this_command
from spikeloom.data.manifest import write_manifest as write
from spikeloom.errors import DataError

GIVEN = {"source": "here", "licence": "MIT", "counts": {"kept": 2}, "command": "spikeloom x"}
SHA_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_file_has_its_manifest_beside_it(tmp_path):
    output = tmp_path / "a.jsonl"
    output.write_text("abc")
    path = write(output, inputs=[output], **GIVEN)
    assert path == manifest_path(output) == tmp_path / "a.jsonl.manifest.json"
    manifest = read_manifest(output)
    assert manifest["files"] == {"a.jsonl": {"bytes": 3, "sha256": SHA_OF_ABC}}
    assert manifest["inputs"] == [{"path": str(output), "bytes": 3, "sha256": SHA_OF_ABC}]
    assert {key: manifest[key] for key in GIVEN} == GIVEN
    assert manifest["date"].endswith("Z")
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_a_folder_holds_its_manifest(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b", "sub/a", ".hidden", "cache"):
        (tmp_path / name).write_text("abc")
    given = GIVEN | {"licence": ["MIT", "CC0 1.0", "MIT"]}
    assert write(tmp_path, skip=["cache"], **given) == tmp_path / "manifest.json"
    write(tmp_path, skip=["cache"], **given)  # again: the manifest is no part of the output
    manifest = read_manifest(tmp_path)
    assert list(manifest["files"]) == ["b", "sub/a"]
    assert manifest["licence"] == ["CC0 1.0", "MIT"]


def test_changes_are_noticed(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("abc")
    write(tmp_path, **GIVEN)
    assert changes(tmp_path) == []
    (tmp_path / "a").write_text("abd")
    (tmp_path / "c").unlink()
    assert changes(tmp_path) == ["a", "c"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no manifest"),
        ("{", "not JSON"),
        ("[]", "not a manifest"),
        ('{"format": 1}', "lacks 'output'"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, text, says):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_later_format_is_refused(tmp_path):
    (tmp_path / "a").write_text("abc")
    path = write(tmp_path, **GIVEN)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(DataError, match="format 2 is unknown"):
        read_manifest(tmp_path)


def test_the_command_leaves_out_who_asked(monkeypatch):
    typed = ["/bin/spikeloom", "data", "x", "--contact", "me@x.org", "--contact=me@x.org", "a b"]
    monkeypatch.setattr(sys, "argv", typed)
    assert this_command() == "spikeloom data x --contact '…' '--contact=…' 'a b'"
