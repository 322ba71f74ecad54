"""The house stands: imports point down only, and what must be light is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import spikeloom

ROOT = Path(spikeloom.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# What each part of the house may import besides itself, directly; everything points down.
BASE = {"errors", "strict", "presets", "config"}
DISK = {"tokenizers", "data", "checkpoint"}
MODEL = BASE | {"ops", "neurons", "model"}
MAY_IMPORT = {
    "errors": set(),
    "strict": {"errors"},
    "presets": {"errors", "strict"},
    "pretrained": {"errors"},
    "config": BASE,
    "checkpoint": BASE,
    "ops": BASE,
    "neurons": BASE | {"ops"},
    "model": MODEL,
    "tokenizers": {"errors", "config"},
    "data": {"errors", "strict", "config", "tokenizers"},
    "metrics": MODEL,
    "inference": MODEL | DISK,
    "evaluation": MODEL | DISK | {"metrics", "inference"},
    "training": MODEL | DISK | {"metrics", "inference", "evaluation"},
    "tuning": MODEL | DISK | {"metrics", "inference", "evaluation", "training"},
    "backends": MODEL | DISK | {"metrics", "inference", "evaluation", "training"},
    "export": MODEL | DISK | {"metrics", "inference", "evaluation"},
    "bench": MODEL | DISK | {"metrics", "inference", "evaluation", "training", "backends"},
}
# The top: reads everything below, is imported by nobody below.
TOP = {"cli", "demo", "demo_colour", "__init__", "__main__"}
LIGHT_CLI = {"typer", "rich", "spikeloom.errors", *sys.stdlib_module_names}


def unit(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(node):
    """Full module names that an import statement asks for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        if node.level:
            return ["." * node.level + (node.module or "")]
        if node.module == "spikeloom":
            return [f"spikeloom.{alias.name}" for alias in node.names]
        return [node.module]
    return []


def imports_of(path):
    return [
        (node.lineno, name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in imported(node)
    ]


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_down(path):
    here = unit(path)
    for line, name in imports_of(path):
        assert not name.startswith("."), f"{path}:{line}: write imports in full"
        if not name.startswith("spikeloom.") or here in TOP:
            continue
        other = name.split(".")[1]
        if other == here or other == "__version__":
            continue
        assert here in MAY_IMPORT, f"{here}: new in the house; place it in MAY_IMPORT"
        assert other in MAY_IMPORT[here], f"{path}:{line}: {here} may not import {other}"


def test_the_order_has_no_cycle():
    placed = set()
    waiting = dict(MAY_IMPORT)
    while waiting:
        free = {name for name, below in waiting.items() if below - {name} <= placed}
        assert free, f"a cycle among {sorted(waiting)}"
        placed |= free
        waiting = {name: below for name, below in waiting.items() if name not in free}


@pytest.mark.parametrize("file", sorted((ROOT / "cli").glob("*.py")), ids=relative)
def test_the_command_line_imports_lazily(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body:
        for name in imported(node):
            light = name in LIGHT_CLI or name.partition(".")[0] in LIGHT_CLI
            light |= name == "spikeloom.cli" or name.startswith("spikeloom.cli.")
            assert light, f"{file.name}:{node.lineno}: import {name} inside the verb that needs it"


HEAVY = ("torch", "transformers", "tokenizers", "datasets", "numpy", "matplotlib")


@pytest.mark.parametrize(
    "code",
    [
        "import spikeloom, spikeloom.errors, spikeloom.strict, spikeloom.config, spikeloom.presets",
        "import spikeloom; spikeloom.pretrained_path",
        "from spikeloom import load_config; load_config('spikeloom-1m', ['model.num_steps=2'])",
        "import spikeloom.cli",
    ],
    ids=["config", "shipped model", "reading a preset", "command line"],
)
def test_light_modules_stay_light(code):
    check = f"{code}\nimport sys\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", check], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
