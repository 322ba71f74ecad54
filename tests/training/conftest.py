"""A tiny run: 300 letters of vocabulary, 32 wide, two layers, a few steps."""

import pytest
from tiny_runs import TEXT


@pytest.fixture(autouse=True, scope="package")
def cache(tmp_path_factory):
    """Packed tokens are shared by the tests of this folder, and by nobody else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPIKELOOM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="package")
def text(tmp_path_factory):
    """A source of 25 rows of 16 tokens, one of them held out."""
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text(TEXT, "utf-8")
    return str(file)
