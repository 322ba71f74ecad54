"""English prose that every Python carries: about 2 MB, no download.

The language reference that `help()` prints (`pydoc_data.topics`) and the docstrings of the
standard library, one document a topic and one a module. Modules are parsed, never imported.
Text and size differ a little between versions of Python.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from spikeloom.data.readers import without_surrogates

# Third-party code, code written to be tested or translated, and tables without prose.
_SKIPPED = {
    "site-packages",
    "dist-packages",
    "__pycache__",
    "test",
    "tests",
    "idlelib",
    "idle_test",
    "lib2to3",
    "turtledemo",
    "ensurepip",
    "pydoc_data",
    "encodings",
}
_ROLE = re.compile(r":[a-z][a-z:+-]*:`[~!]?([^`<]*[^`<\s])(?:\s*<[^`>]*>)?`")
_LITERAL = re.compile(r"``([^`\n]+)``")


def python_docs() -> Iterator[str]:
    """Documents, none of them empty, in an order that is shuffled but always the same.

    An interpreter without topics or sources (a minimal or frozen one) yields what it has.
    """
    topics, modules = _topics(), _modules(Path(sysconfig.get_paths()["stdlib"]))
    for name in sorted({*topics, *modules}, key=_shuffled):
        text = topics[name] if name in topics else _module_text(name, modules[name])
        if text := without_surrogates(text).strip():
            yield text + "\n"


def _shuffled(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def _topics() -> dict[str, str]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        return {}
    once = {text: name for name, text in topics.items()}  # a few topics share their text
    return {f"topic {name}": text for text, name in once.items()}


def _modules(root: Path) -> dict[str, Path]:
    """Dotted names of the standard library's modules, and their source files."""
    modules = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        if _SKIPPED.isdisjoint(parts) and all(part.isidentifier() for part in parts):
            modules[".".join(parts).removesuffix(".__init__")] = path
    return modules


def _module_text(name: str, path: Path) -> str:
    """Name, docstring, then the name and docstring of each class and function; or nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes that a newer Python frowns upon
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    sections = [f"{title}\n\n{_plain(doc)}" for title, doc in _docstrings(tree, name)]
    return "\n\n".join(sections)


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """(qualified name, cleaned docstring) of a node and of what is defined in it, in order."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        doc = ast.get_docstring(node)
        if doc:
            yield name, doc
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            inner = getattr(child, "name", None)
            yield from _docstrings(child, f"{name}.{inner}" if inner else name)


def _plain(doc: str) -> str:
    """Without reStructuredText's roles and literal marks: ":class:`~a.B`" is "a.B"."""
    return _LITERAL.sub(r"\1", _ROLE.sub(r"\1", doc))
