"""The package with a model in it: built, installed, talked to; and the model that it ships."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import spikeloom
from placeholder import make_checkpoint
from spikeloom.export.slim import slim
from spikeloom.pretrained import FOLDER

ROOT = Path(spikeloom.__file__).parents[2]
LIMIT = 16 * 2**20
shipped = pytest.mark.skipif(
    not (FOLDER / "model.safetensors").exists(), reason="this package was built without its model"
)


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """This project with a placeholder in the model's place."""
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("the project's source is not here")
    home = tmp_path_factory.mktemp("source")
    (home / "run").mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, home / name)
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.safetensors", "*.json")
    shutil.copytree(ROOT / "src", home / "src", ignore=unwanted)
    place = home / "src" / "spikeloom" / "pretrained"
    slim(make_checkpoint(home / "run"), place)
    (place / "README.md").write_text("# placeholder\n")
    return home


@pytest.fixture(scope="module")
def wheel(source):
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    # Python's own distutils may already be loaded by a .pth file of the environment.
    environment = {**os.environ, "SETUPTOOLS_USE_DISTUTILS": "stdlib"}
    run(sys.executable, "-m", "pip", "wheel", ".", *options, "--wheel-dir", source / "dist",
        cwd=source, env=environment)  # fmt: skip
    (file,) = (source / "dist").glob("*.whl")
    return file


@pytest.mark.slow
def test_the_wheel_carries_the_model(wheel, source):
    inside = {Path(n).name for n in zipfile.ZipFile(wheel).namelist() if "/pretrained/" in n}
    place = source / "src" / "spikeloom" / "pretrained"
    assert inside == {file.name for file in place.iterdir() if file.is_file()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= inside


@pytest.mark.slow
def test_installed_it_talks_at_once(wheel, tmp_path):
    """In a fresh environment; what it depends on is borrowed, as there is no network."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", "--without-pip")
    place = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target",
        place, wheel)  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    (place / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
    python = tmp_path / "venv" / "bin" / "python"
    where = run(python, "-c", "import spikeloom; print(spikeloom.pretrained_path())",
                env=environment, cwd=tmp_path)  # fmt: skip
    assert Path(where.strip()) == place / "spikeloom" / "pretrained"
    talk = [python, "-m", "spikeloom.cli", "chat", "--max-new-tokens", 5, "--json", "talk.json"]
    run(*talk, input="Tell me a story.\n", env=environment, cwd=tmp_path)
    assert "Tell me a story." in (tmp_path / "talk.json").read_text()


@pytest.mark.slow
@shipped
def test_the_shipped_model():
    from spikeloom.evaluation.checkpoint import load
    from spikeloom.evaluation.verify import verify
    from spikeloom.inference.chat import Conversation, speaks_in_roles
    from spikeloom.inference.generate import Generator, Sampling

    assert (FOLDER / "model.safetensors").stat().st_size <= LIMIT
    assert (FOLDER / "README.md").read_text("utf-8").count("(seed ") >= 10
    assert speaks_in_roles(FOLDER)
    assert verify(load(FOLDER)[0])["passed"]
    conversation = Conversation(Generator.load(FOLDER), Sampling(max_new_tokens=60), roles=True)
    story = conversation.answer("Tell me a story about a dog named Max.", lambda _: None)
    assert len(story.split()) >= 20
