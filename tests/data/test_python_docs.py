import sysconfig

import pytest

from spikeloom.data import python_docs as module
from spikeloom.data.python_docs import python_docs
from spikeloom.data.sources import documents
from spikeloom.errors import DataError


@pytest.fixture(scope="module")
def docs():
    return list(python_docs())


def test_there_is_more_than_a_megabyte_and_nothing_is_empty(docs):
    assert sum(len(text.encode()) for text in docs) > 1_000_000
    assert all(text.strip() for text in docs)
    assert len(set(docs)) == len(docs) > 300


def test_topics_and_modules_are_mixed(docs):
    first_lines = [text.partition("\n")[0] for text in docs]
    assert "json.decoder" in first_lines
    assert sorted(first_lines) != first_lines
    assert not any(line.startswith(("test.", "idlelib.")) for line in first_lines)


def test_members_follow_their_module(docs):
    text = next(text for text in docs if text.startswith("json.decoder\n"))
    assert 0 < text.index("json.decoder.JSONDecoder\n") < text.index("json.decoder.JSONDecoder.de")


def test_an_interpreter_without_sources_has_topics_and_one_without_both_says_so(
    monkeypatch, tmp_path, docs
):
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    topics = list(python_docs())
    assert 50 < len(topics) < len(docs)
    monkeypatch.setattr(module, "_topics", dict)
    with pytest.raises(DataError, match="python-docs holds no text"):
        list(documents("python-docs"))


def test_broken_and_bare_modules_are_passed_over(monkeypatch, tmp_path):
    (tmp_path / "broken.py").write_text("def (:")
    (tmp_path / "bare.py").write_text("x = 1")
    (tmp_path / "odd.py").write_text('"A \\ud800 :class:`~a.B` and ``c`` \\d."')
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    monkeypatch.setattr(module, "_topics", dict)
    assert list(python_docs()) == ["odd\n\nA � a.B and c \\d.\n"]
