"""Every function that the tutorial names is there."""

import importlib
import re
from functools import reduce
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "numpy.md"
FILES = "neurons|attention|layers|decoder|training|recurrent|colour"


def test_the_tutorial_names_what_exists():
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(rf"`({FILES})\.([A-Za-z_.]+?)`", text))
    named = {(module, name) for module, name in named if name != "py"}
    assert len(named) > 25
    for module, name in sorted(named):
        found = importlib.import_module(f"spikeloom.backends.numpy.{module}")
        assert reduce(getattr, name.split("."), found) is not None
    assert {module for module, _ in named} == set(FILES.split("|"))


def test_the_page_shows_only_commands_that_exist():
    from typer.testing import CliRunner

    from spikeloom.cli import app

    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    verbs = re.findall(r"^spikeloom (\w+)", "".join(blocks), re.MULTILINE)
    assert set(verbs) == {"train", "generate", "bench"}
    for verb in set(verbs):
        assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0
