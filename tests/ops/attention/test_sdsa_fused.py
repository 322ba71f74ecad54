"""The Triton programs equal the recurrence, gradients included: interpreted, or on a GPU."""

import pytest
import torch

from spikeloom.ops.attention import _fits, naive, sdsa

fused = pytest.importorskip("spikeloom.ops.attention.fused", reason="triton is not installed")
passes = pytest.importorskip("spikeloom.ops.attention.passes", reason="triton is not installed")

GPU = torch.cuda.is_available()
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(GPU, reason="compiled for the GPU here")),
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not GPU, reason="no GPU")]),
]
# Two segments, the last of which is not full; interpreted, segments are two chunks long.
LONG = 530 if GPU else 150
# Half precision rounds as bf16 does, only finer; the interpreter has no bf16 products.
# The gradient of the log decay is a sum of differences that nearly cancel: rounding alone, done by
# hand in torch, makes up to 0.9% of it in bf16 over 530 tokens, depending on the draw.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
NAMES = ("out", "last", "dq", "dk", "dv", "d log_decay", "d initial_state")


@pytest.fixture(params=["walk", "segments"], autouse=True)
def order(request, monkeypatch):
    """Both ways to bring states to the chunks, whatever the number of heads."""
    if not GPU:
        monkeypatch.setattr(passes, "SEGMENT", 2)
    monkeypatch.setattr(passes, "WALKERS", 0 if request.param == "walk" else 10**9)


def draw(L, B=1, H=2, K=16, V=32, dtype=torch.float32, device="cpu", decay=1.0):
    """q, k, v (tokens before heads in memory, as a model gives them), log decay, state."""
    torch.manual_seed(L)
    q, k, v = (torch.randn(B, L, H, n, dtype=dtype).transpose(1, 2) for n in (K, K, V))
    log_decay, state = -decay * torch.rand(B, H, L), torch.randn(B, H, K, V)
    return [x.to(device).requires_grad_() for x in (q, k, v, log_decay, state)]


def borders(places, L, B=1, device="cpu"):
    starts = torch.zeros(B, L, dtype=torch.bool, device=device)
    starts[:, [place for place in places if place < L]] = True
    return starts


def outcome(form, inputs, starts=None, dtype=None):
    """Outputs, last state and all gradients, for one random direction of each output."""
    inputs = [x.detach().to(dtype or x.dtype).requires_grad_() for x in inputs]
    out, last = form.sdsa(*inputs, starts=starts)
    torch.manual_seed(0)
    d_out, d_last = torch.randn(out.shape), torch.randn(last.shape)
    grads = torch.autograd.grad((out, last), inputs, (d_out.to(out), d_last.to(last)))
    return out, last, *grads


def assert_equal(inputs, starts=None):
    exact = outcome(naive, inputs, starts, torch.float64)
    got = outcome(fused, inputs, starts)
    for name, a, b in zip(NAMES, exact, got, strict=False):
        error = (b.double() - a).norm() / a.norm().clamp(min=1e-9)
        assert error < TOLERANCE[inputs[0].dtype], f"{name} is off by {error:.2g}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("L", [2, 65, LONG])
def test_equals_naive_with_all_gradients(L, packed, device):
    starts = (
        borders((0, 1, 40, 63, 64, 65, 127, 128, 140, 511, 512, 520), L, device=device)
        if packed
        else None
    )
    assert_equal(draw(L, device=device), starts)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("K", "V"), [(64, 64), (128, 32), (32, 128)])
def test_head_widths(K, V, device):
    assert_equal(draw(70, B=2, K=K, V=V, device=device), borders((65,), 70, 2, device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_products_with_float32_states(dtype, device):
    if device == "cpu" and dtype == torch.bfloat16:
        pytest.skip("the interpreter has no bf16 products")
    inputs = draw(LONG, H=1, V=16, dtype=dtype, device=device, decay=0.1)
    assert_equal(inputs)
    assert fused.sdsa(*inputs)[1].dtype == torch.float32


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("decay", [30.0, 1e4])
def test_very_strong_decay_stays_finite(decay, device):
    q, k, v, log_decay, state = draw(LONG, H=1, V=16, device=device)
    log_decay = torch.full_like(log_decay, -decay)
    out, *rest = outcome(fused, (q, k, v, log_decay, state))
    assert all(x.isfinite().all() for x in (out, *rest))
    torch.testing.assert_close(out[:, :, 1:], ((q * k).sum(-1, keepdim=True) * v)[:, :, 1:])


@pytest.mark.parametrize("device", DEVICES)
def test_strides_are_taken_as_they_come(device):
    # contiguous q, k of other strides, one decay per head, a gradient with strides of 0
    q, k, v, _, _ = draw(70, device=device)
    k = k.detach().contiguous().requires_grad_()
    per_head = torch.tensor([-0.1, -0.5], device=device, requires_grad=True)
    results = []
    for form in (naive, fused):
        out, _ = form.sdsa(q, k, v, per_head[None, :, None].expand(1, 2, 70))
        results.append((out, *torch.autograd.grad(out.sum(), (q, k, v, per_head))))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_only_the_last_state_is_asked_for(device):
    inputs = draw(70, device=device)
    grads = []
    for form in (naive, fused):
        _, last = form.sdsa(*inputs)
        grads.append(
            torch.autograd.grad(last.sum(), inputs, allow_unused=True, materialize_grads=True)
        )
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-4)


def test_the_operator_is_registered_as_torch_wants_it(order):
    q, k, v, log_decay, state = draw(70)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    starts = borders((5,), 70)
    torch.library.opcheck(fused._sdsa, (q, k, v, log_decay, state, starts), test_utils=checks)
    torch.library.opcheck(fused._sdsa, (q, k, v, log_decay, None, None), test_utils=checks)


@pytest.mark.parametrize("device", DEVICES)
def test_compiles_without_a_graph_break(device):
    q, k, v, log_decay, _ = draw(70, device=device)

    def mix(q, k, v, log_decay):
        return fused.sdsa(2 * q, k, v, log_decay)[0].transpose(1, 2).flatten(2)

    results = []
    for form in (mix, torch.compile(mix, fullgraph=True, backend="aot_eager")):
        out = form(q, k, v, log_decay)
        results.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v, log_decay))))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b, a)


def test_what_does_not_fit_is_said_in_one_line(capsys):
    f32, f64, bf16 = torch.float32, torch.float64, torch.bfloat16
    assert _fits((bf16,) * 3, 64, 128)
    assert capsys.readouterr().err == ""
    for dtypes, width, why in (((f64,) * 3, 64, "float64"), ((f32,) * 3, 48, "48")):
        assert not _fits(dtypes, width, width)
        said = capsys.readouterr().err
        assert why in said or said == ""  # once a process
        assert said.count("\n") <= 1
    assert not _fits((f32, bf16, bf16), 64, 64)


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no GPU")
def test_the_dispatcher_takes_the_programs_on_a_gpu(monkeypatch):
    calls = []
    monkeypatch.setattr(fused, "sdsa", lambda *args: calls.append(args) or fused._sdsa(*args)[:2])
    inputs = draw(70, dtype=torch.bfloat16, device="cuda")
    assert sdsa(*inputs)[0].dtype == torch.bfloat16
    assert len(calls) == 1
