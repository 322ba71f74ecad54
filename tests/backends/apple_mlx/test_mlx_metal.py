"""The Metal kernels where there is no Metal: their text, compiled as C++, is run thread by thread.

That shows the mathematics of both kernels, not that a Mac compiles them: no Mac ran them yet.
"""

import ctypes
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch

mx = pytest.importorskip("mlx.core", reason="needs `pip install 'spikeloom[mlx]'`")

from mlx import nn  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from parity import VARIANTS, small_model, tokens_of, weights_of  # noqa: E402

from spikeloom.backends.mlx import metal, scan  # noqa: E402
from spikeloom.backends.mlx.checkpoint import from_numpy  # noqa: E402
from spikeloom.backends.mlx.training import losses  # noqa: E402
from spikeloom.config import SURROGATES, NeuronConfig  # noqa: E402

pytestmark = pytest.mark.mlx

GRADED = NeuronConfig(theta=0.5, levels=4, fire_level=2, beta=0.8)
LIF = NeuronConfig(kind="lif", beta=0.9, clip_membrane=2.0, surrogate="sigmoid")
NEURONS = {
    "graded": GRADED,
    "graded, unsigned": replace(GRADED, signed=False, fire_level=1),
    "graded, hard": replace(GRADED, reset="hard", v_reset=0.1),
    "graded, clipped": replace(GRADED, clip_membrane=1.2),
    "lif": LIF,
    "lif, hard": replace(LIF, reset="hard", v_reset=-0.25),
    **{f"lif, {name}": replace(LIF, surrogate=name) for name in SURROGATES},
}

SHIM = """
#include <cmath>
#include <algorithm>
typedef unsigned int uint;
namespace metal {{
using std::abs; using std::tanh; using std::rint; using std::min; using std::max;
}}
struct uint3 {{ uint x, y, z; }};
{header}
extern "C" void run(uint threads, {arguments}) {{
    for (uint n = 0; n < threads; ++n) {{
        uint3 thread_position_in_grid = {{n, 0, 0}};
        {source}
    }}
}}
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Compiles a program once; returns its function."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to run Metal's text as C++")
    folder, functions = tmp_path_factory.mktemp("metal"), {}

    def build(program):
        if program not in functions:
            given = [
                f"const float* {name}, const int* {name}_shape" for name in program.input_names
            ]
            arguments = ", ".join([*given, *(f"float* {name}" for name in program.output_names)])
            text = SHIM.format(header=program.header, arguments=arguments, source=program.source)
            (folder / f"{program.name}.cpp").write_text(text)
            command = ["g++", "-O1", "-shared", "-fPIC", f"{program.name}.cpp", "-o"]
            subprocess.run([*command, f"{program.name}.so"], cwd=folder, check=True)
            functions[program] = ctypes.CDLL(str(folder / f"{program.name}.so")).run
        return functions[program]

    return build


@pytest.fixture
def as_cpp(built, monkeypatch):
    """Scans take the kernels, and these run on the CPU; returns the programs that ran."""
    ran = []

    def launch(program, inputs, shapes):
        grid, group = metal.threads(inputs[0].shape)
        assert grid[0] == inputs[0].shape[1]
        assert 1 <= group[0] <= min(256, grid[0])
        ran.append(program)
        arrays = [np.ascontiguousarray(np.array(x, np.float32)) for x in inputs]
        dimensions = [np.array(x.shape, np.int32) for x in arrays]
        outputs = [np.full(shape, np.nan, np.float32) for shape in shapes]
        given = [a for pair in zip(arrays, dimensions, strict=True) for a in pair] + outputs
        built(program)(ctypes.c_uint(grid[0]), *(a.ctypes.data_as(ctypes.c_void_p) for a in given))
        return [mx.array(out) for out in outputs]

    monkeypatch.setattr(metal, "launch", launch)
    monkeypatch.setattr(scan, "takes_metal", lambda steps: True)
    return ran


@pytest.mark.parametrize("c", NEURONS.values(), ids=NEURONS)
def test_the_kernels_compute_what_the_loop_computes(c, as_cpp):
    rng = np.random.default_rng(0)
    x, weights = (mx.array(rng.normal(0, 1, (9, 2, 3, 5)).astype(np.float32)) for _ in "ab")
    theta = mx.array(rng.uniform(0.4, 0.9, 5).astype(np.float32))
    beta = mx.array(rng.uniform(0.5, 0.9, 5).astype(np.float32))
    initial = mx.array(rng.normal(0, 0.3, (2, 3, 5)).astype(np.float32))

    def total(function):
        def loss(x, theta, beta, initial):
            s, last = function(x, theta, beta, c, initial)
            return (s * weights).sum() + (last * weights[0]).sum()

        return mx.value_and_grad(loss, argnums=(0, 1, 2, 3))(x, theta, beta, initial)

    expected, found = scan.naive(x, theta, beta, c, initial), scan.scan(x, theta, beta, c, initial)
    assert mx.abs(expected[0]).sum() > 0
    for ours, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.array(ours), np.array(plain), atol=1e-5)
    (_, ours), (_, plain) = total(scan.scan), total(scan.naive)
    for name, g, wanted in zip(("x", "theta", "beta", "initial"), ours, plain, strict=True):
        np.testing.assert_allclose(np.array(g), np.array(wanted), atol=1e-4, err_msg=name)
    assert {program.name.rpartition("_")[2] for program in as_cpp} == {"forward", "backward"}


@pytest.mark.parametrize(
    "name", ["membrane, soft reset", "membrane, hard reset", "graded steps", "gains"]
)
def test_a_model_on_the_kernels_has_the_same_gradients(name, as_cpp, monkeypatch):
    assert name in VARIANTS
    model = small_model(name, torch.float32)
    ours = from_numpy(model.config.architecture, weights_of(model))
    rows = mx.array(tokens_of(model, 2, 11))

    def gradients():
        total = nn.value_and_grad(ours, lambda rows: losses(ours, rows, 0.01))
        (loss, *_), grads = total(rows)
        return loss.item(), {k: np.array(g) for k, g in tree_flatten(grads)}

    loss, found = gradients()
    assert as_cpp
    monkeypatch.setattr(scan, "takes_metal", lambda steps: False)
    plain_loss, expected = gradients()
    assert loss == pytest.approx(plain_loss, abs=1e-5)
    for key, gradient in expected.items():
        size = max(np.linalg.norm(gradient), 1e-3)
        assert np.linalg.norm(found[key] - gradient) <= 1e-4 * size, key


@pytest.mark.parametrize("c", NEURONS.values(), ids=NEURONS)
def test_mlx_takes_the_programs_and_asks_for_metal_only_to_run_them(c):
    for program in metal.programs(c):
        assert metal._kernel(program) is not None
    if mx.metal.is_available():
        return
    x, channel = mx.zeros((9, 6)), mx.ones(3)
    with pytest.raises(RuntimeError, match="No Metal back-end"):
        metal.launch(
            metal.programs(c)[0],
            [x, channel, channel, mx.zeros(6)],
            [x.shape, (6,), x.shape],
        )


def test_without_metal_the_loop_computes():
    if mx.metal.is_available():
        pytest.skip("this machine has Metal")
    assert not any(scan.takes_metal(steps) for steps in (1, 8, 1000))


def test_with_metal_long_scans_take_the_kernels(monkeypatch):
    monkeypatch.setattr(scan, "on_gpu", lambda: True)
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    assert [scan.takes_metal(steps) for steps in (1, scan.LONG - 1, scan.LONG)] == [
        False,
        False,
        True,
    ]


def test_every_neuron_has_a_text_of_its_own():
    texts = {metal.programs(c)[1].header + metal.programs(c)[1].source for c in NEURONS.values()}
    names = {metal.programs(c)[0].name for c in NEURONS.values()}
    distinct = len(set(NEURONS.values()))
    assert len(texts) == len(names) == distinct
    for c in NEURONS.values():
        for program in metal.programs(c):
            text = program.header + program.source
            assert text.count("{") == text.count("}")
            for name in (*program.input_names, *program.output_names):
                assert f"{name}[" in program.source


@pytest.mark.parametrize(("width", "group"), [(1, 1), (100, 100), (256, 256), (1000, 256)])
def test_a_thread_per_channel_of_a_row(width, group):
    assert metal.threads((7, width)) == ((width, 1, 1), (group, 1, 1))
