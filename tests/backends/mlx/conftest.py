"""What the tests of the MLX backend share."""

import pytest


@pytest.fixture(autouse=True)
def mostly_plain(request):
    """On Linux `mx.compile` calls a C++ compiler for every new kernel: only `compiled` tests do."""
    mx = pytest.importorskip("mlx.core", reason="needs `pip install 'spikeloom[mlx]'`")
    if "compiled" in request.fixturenames:
        yield
        return
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.fixture
def compiled():
    """This test compiles."""
