"""Chunked SDSA equals the recurrence, gradients included, at awkward lengths and borders."""

import pytest
import torch

from spikeloom.ops.attention import chunked, hadamard, naive

CHUNK = 64
# Where documents start: nowhere, at 0, one after another, and around the edges of chunks.
STARTS = {
    "none": None,
    "first": (0,),
    "consecutive": (0, 1, 2, 3),
    "edges": (62, 63, 64, 65, 127, 128),
    "middle": (4, 40, 100),
}


def draw(L, B=2, H=3, K=4, V=5, dtype=torch.float64, decay=1.0):
    torch.manual_seed(L)
    q, k, v = (torch.randn(B, H, L, n, dtype=dtype) for n in (K, K, V))
    log_decay = -decay * torch.rand(B, H, L, dtype=dtype)
    state = torch.randn(B, H, K, V, dtype=torch.promote_types(dtype, torch.float32))
    return [x.requires_grad_() for x in (q, k, v, log_decay, state)]


def borders(places, L, B=2):
    if places is None:
        return None
    starts = torch.zeros(B, L, dtype=torch.bool)
    for i, place in enumerate(places):
        if place < L:
            starts[i % B :, place] = True  # rows differ
    return starts


@pytest.mark.parametrize("carried", [False, True], ids=["fresh", "carried"])
@pytest.mark.parametrize("places", STARTS)
@pytest.mark.parametrize("L", [1, 5, 63, 64, 65, 130])
def test_chunked_equals_naive_with_all_gradients(L, places, carried):
    q, k, v, log_decay, state = draw(L)
    starts = borders(STARTS[places], L)
    inputs = (q, k, v, log_decay, *([state] if carried else []))
    first = state if carried else None
    results = []
    for form in (naive, chunked):
        out, last = form.sdsa(q, k, v, log_decay, first, starts)
        torch.manual_seed(0)
        loss = (out * torch.randn_like(out)).sum() + (last * torch.randn_like(last)).sum()
        grads = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
        results.append((out, last, *grads))
    for a, b in zip(*results, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(b, a, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("chunk", [1, 3, 16, 1000])
def test_the_chunk_size_does_not_matter(chunk):
    q, k, v, log_decay, state = draw(37)
    starts = borders((0, 15, 16, 17), 37)
    expected = naive.sdsa(q, k, v, log_decay, state, starts)
    got = chunked.sdsa(q, k, v, log_decay, state, starts, chunk=chunk)
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(b, a, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("form", [naive, chunked])
def test_equals_the_masked_sum_written_out(form):
    q, k, v, log_decay, _ = draw(9)
    out, _ = form.sdsa(q, k, v, log_decay)
    for i in range(9):
        expected = torch.zeros_like(v[:, :, 0])
        for j in range(i + 1):
            decay = log_decay[:, :, j + 1 : i + 1].sum(-1).exp()
            score = (q[:, :, i] * k[:, :, j]).sum(-1) * decay
            expected = expected + score[..., None] * v[:, :, j]
        torch.testing.assert_close(out[:, :, i], expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("form", [naive, chunked])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_very_strong_decay_stays_finite(form, dtype):
    # The trap: above the diagonal exp(G_i - G_j) overflows, and inf * 0 is NaN in the gradient.
    q, k, v, log_decay, state = draw(130, dtype=dtype)
    log_decay = torch.full_like(log_decay, -1e4).requires_grad_()
    out, last = form.sdsa(q, k, v, log_decay, state, borders((70,), 130))
    grads = torch.autograd.grad(out.sum() + last.sum(), (q, k, v, log_decay, state))
    for x in (out, last, *grads):
        assert x.isfinite().all()
    # nothing but the token itself is left
    expected = (q * k).sum(-1, keepdim=True) * v
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("cut", [1, 63, 64, 65, 129])
@pytest.mark.parametrize("second", [naive, chunked])
def test_state_handed_over_between_two_calls(cut, second):
    L = 130
    q, k, v, log_decay, state = draw(L)
    starts = borders((0, 65, 100), L)
    whole, last = chunked.sdsa(q, k, v, log_decay, state, starts)
    pieces, carried = [], state
    for form, part in ((chunked, slice(cut)), (second, slice(cut, None))):
        out, carried = form.sdsa(
            q[:, :, part],
            k[:, :, part],
            v[:, :, part],
            log_decay[:, :, part],
            carried,
            starts[:, part],
        )
        pieces.append(out)
    torch.testing.assert_close(torch.cat(pieces, 2), whole, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(carried, last, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("form", [naive, chunked])
def test_bf16_inputs_are_close_to_float64_and_keep_a_float32_state(form):
    q, k, v, log_decay, _ = draw(130, dtype=torch.bfloat16, decay=0.1)
    out, last = form.sdsa(q, k, v, log_decay)
    exact, _ = naive.sdsa(q.double(), k.double(), v.double(), log_decay.double())
    assert out.dtype == torch.bfloat16
    assert last.dtype == torch.float32
    error = (out.double() - exact).norm() / exact.norm()
    assert error < 0.01
    grads = torch.autograd.grad(out.float().sum() + last.sum(), (q, k, v, log_decay))
    assert all(g.isfinite().all() and g.dtype == torch.bfloat16 for g in grads)


def test_autocast_does_not_touch_the_chunks_arithmetic():
    q, k, v, log_decay, state = draw(70, dtype=torch.float32)
    expected = chunked.sdsa(q, k, v, log_decay, state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = chunked.sdsa(q, k, v, log_decay, state)
    for a, b in zip(expected, got, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("form", [naive, chunked])
def test_later_tokens_do_not_change_earlier_outputs(form):
    q, k, v, log_decay, state = draw(70)
    other = [x.detach().clone() for x in (q, k, v, log_decay)]
    for x in other:
        x[:, :, 40:] = -x[:, :, 40:].abs() - 1
    a, _ = form.sdsa(q, k, v, log_decay, state)
    b, _ = form.sdsa(*other, state)
    assert torch.equal(a[:, :, :40], b[:, :, :40])
    assert not torch.equal(a[:, :, 40:], b[:, :, 40:])


@pytest.mark.parametrize("form", [naive, chunked], ids=["naive", "chunked"])
def test_the_hadamard_form_is_the_diagonal_of_the_state(form):
    q, k, v, log_decay, _ = draw(70, K=4, V=4)
    starts = borders((0, 15, 64), 70)
    first = torch.randn(2, 3, 1, 4, dtype=torch.float64)
    state, expected = first[:, :, 0], []
    for t in range(70):
        state = state * log_decay[:, :, t, None].exp() * ~starts[:, t, None, None]
        state = state + k[:, :, t] * v[:, :, t]
        expected.append(q[:, :, t] * state)
    out, last = hadamard.sdsa(form, q, k, v, log_decay, first, starts)
    torch.testing.assert_close(out, torch.stack(expected, 2), atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(last[:, :, 0], state, atol=1e-10, rtol=1e-10)
