"""The C++ product and the fallback against the specification, at awkward sizes and rates."""

import subprocess

import pytest
import torch

from spikeloom.ops import event
from spikeloom.ops.event import build, fallback, naive, native, pack


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny products are slower in many threads, much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SIZES = [(1, 1), (3, 5), (7, 16), (8, 17), (32, 33), (65, 64), (40, 2049), (100, 4100)]
DTYPES = ["float32", "bfloat16", "int8"]
RATES = [0.0, 0.15, 1.0]
FORMS = {"native": native, "fallback": fallback}


def make(d_in: int, d_out: int, dtype: str, rate: float, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(d_out, d_in, generator=generator)
    theta = 0.1 + torch.rand(d_in, generator=generator)
    payload = torch.randint(1, 25, (d_in,), generator=generator)
    sign = torch.randint(0, 2, (d_in,), generator=generator) * 2 - 1
    fires = torch.rand(d_in, generator=generator) < rate
    return weight, theta, (payload * sign * fires).float(), pack(weight, theta, dtype)


@pytest.fixture(params=FORMS)
def form(request):
    if request.param == "native" and not native.available():
        pytest.skip("no C++ compiler")
    return FORMS[request.param]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("d_in", "d_out"), SIZES)
def test_every_form_equals_the_specification(form, d_in, d_out, dtype):
    for rate in RATES:
        _, _, payload, weights = make(d_in, d_out, dtype, rate)
        expected = naive.event_matvec(payload.double(), weights)
        bound = (payload.abs() @ weights.dequantised().abs().t()).clamp(min=1e-6)
        y = form.event_matvec(payload, weights)
        assert y.shape == (d_out,)
        assert y.dtype == torch.float32
        assert ((y - expected).abs() <= 1e-6 * bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_specification_is_the_product_with_the_emission(dtype):
    weight, theta, payload, weights = make(48, 31, dtype, 0.5)
    emitted = theta * payload
    bound = emitted.abs() @ weight.abs().t()
    expected = weight @ emitted
    relative = {"float32": 1e-6, "bfloat16": 2**-8, "int8": 1 / 64}[dtype]
    assert ((naive.event_matvec(payload, weights) - expected).abs() <= relative * bound).all()


def test_integer_payloads_are_taken(form):
    _, _, payload, weights = make(33, 20, "float32", 0.5)
    expected = form.event_matvec(payload, weights)
    assert torch.equal(form.event_matvec(payload.long(), weights), expected)


def test_silent_rows_are_not_read(form):
    _, _, payload, weights = make(33, 20, "float32", 0.5)
    weights.data[payload == 0] = torch.nan
    assert form.event_matvec(payload, weights).isfinite().all()


def test_int8_quantises_each_row_to_half_a_step():
    weight, theta, _, weights = make(50, 70, "int8", 1.0)
    step = weight.abs().amax(0) / 127
    error = (weights.dequantised() / theta - weight).abs()
    assert (error <= 0.5001 * step).all()


def test_a_row_of_zeros_stays_zero():
    weights = pack(torch.zeros(4, 3), None, "int8")
    assert torch.equal(weights.dequantised(), torch.zeros(4, 3))


def test_without_a_compiler_the_fallback_runs_and_says_so_once(monkeypatch, capfd, tmp_path):
    monkeypatch.setenv("SPIKELOOM_CACHE", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    build.load.cache_clear()
    build._say_once.cache_clear()
    try:
        _, _, payload, weights = make(20, 30, "float32", 0.5)
        for _ in range(2):
            y = event.event_matvec(payload, weights)
            torch.testing.assert_close(y, naive.event_matvec(payload, weights))
        printed = capfd.readouterr().err
    finally:
        build.load.cache_clear()
        build._say_once.cache_clear()
    assert printed.count("\n") == 1
    assert "no C++ compiler" in printed


def test_a_broken_source_names_the_compiler_error(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SPIKELOOM_CACHE", str(tmp_path))
    source = tmp_path / "broken.cpp"
    source.write_text("int f() { return nonsense; }")
    build._say_once.cache_clear()
    with pytest.raises(subprocess.CalledProcessError if native.available() else OSError):
        build.compiled(source)
    assert build.load(source) is None
    build._say_once.cache_clear()
    assert capfd.readouterr().err.count("\n") == 1
    assert not list(tmp_path.rglob("broken.so"))


def test_a_library_is_compiled_once(tmp_path, monkeypatch):
    if not native.available():
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("SPIKELOOM_CACHE", str(tmp_path))
    source = tmp_path / "one.cpp"
    source.write_text('extern "C" int one() { return 1; }')
    library = build.compiled(source)
    stamp = library.stat().st_mtime_ns
    assert build.compiled(source).stat().st_mtime_ns == stamp
    source.write_text('extern "C" int one() { return 2; }')
    assert build.compiled(source) != library
    assert build.load(source).one() == 2
