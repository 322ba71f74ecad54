"""RWKV-4's mixing: the recurrence against its definition, and all tokens at once against it."""

import pytest
import torch
from torch.testing import assert_close

from spikeloom.ops.wkv import doubling, naive

LENGTHS = [1, 2, 3, 7, 64, 65]


def draw(length, size=5, batch=2, scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(length)
    k, v = torch.randn(2, batch, length, size, generator=generator, dtype=dtype)
    decay = torch.logspace(-2, 1, size, dtype=dtype)
    bonus = torch.randn(size, generator=generator, dtype=dtype)
    return scale * k, v, decay, bonus


def some_state(length=9):
    return naive.wkv(*draw(length))[1].detach()


def some_starts(length, batch=2):
    generator = torch.Generator().manual_seed(length)
    return torch.rand(batch, length, generator=generator) < 0.3


def outcome(form, given, *context):
    """Outputs, last sums in units of 1, and the gradients of all that was given."""
    given = [t.clone().requires_grad_() for t in given]
    out, state = form.wkv(*given, *context)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    sums = state[:, :2] * state[:, 2:].exp()
    ((out * weight).sum() + sums.sin().sum()).backward()
    return [out.detach(), sums.detach(), *(t.grad for t in given)]


def test_the_recurrence_is_the_weighted_mean_of_the_paper():
    k, v, w, u = draw(6)
    out, _ = naive.wkv(k, v, w, u)
    for t in range(6):
        distance = torch.arange(t, -1, -1)[:, None] - 1.0
        weights = (k[:, : t + 1] - distance * w).exp()
        weights[:, t] = (k[:, t] + u).exp()
        mean = (weights * v[:, : t + 1]).sum(1) / weights.sum(1)
        assert_close(out[:, t], mean)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("goes_on", [False, True])
def test_all_tokens_at_once_is_the_recurrence(length, packed, goes_on):
    starts = some_starts(length) if packed else None
    state = some_state() if goes_on else None
    given = draw(length)
    for ours, theirs in zip(
        outcome(doubling, given, state, starts), outcome(naive, given, state, starts), strict=True
    ):
        assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", [naive, doubling])
def test_huge_keys_neither_overflow_nor_vanish(form):
    given = draw(40, scale=300.0, dtype=torch.float32)
    assert not given[0].exp().isfinite().all()
    exact, _ = naive.wkv(*(t.double() for t in given))
    out, _ = form.wkv(*(t.requires_grad_() for t in given))
    assert_close(out.double(), exact, rtol=1e-3, atol=1e-3)
    out.sum().backward()
    assert all(t.grad.isfinite().all() for t in given)


@pytest.mark.parametrize("form", [naive, doubling])
def test_a_text_in_two_parts_is_the_text(form):
    k, v, w, u = draw(11)
    whole, last = form.wkv(k, v, w, u)
    first, state = form.wkv(k[:, :4], v[:, :4], w, u)
    second, end = form.wkv(k[:, 4:], v[:, 4:], w, u, state)
    assert_close(torch.cat([first, second], 1), whole)
    assert_close(end, last)


@pytest.mark.parametrize("form", [naive, doubling])
def test_a_document_does_not_see_the_one_before_it(form):
    k, v, w, u = draw(10)
    starts = torch.zeros(2, 10, dtype=torch.bool)
    starts[:, 6] = True
    packed, state = form.wkv(k, v, w, u, some_state(), starts)
    alone, last = form.wkv(k[:, 6:], v[:, 6:], w, u)
    assert_close(packed[:, 6:], alone)
    assert_close(state, last)
    changed = v.clone()
    changed[:, 7] += 1.0
    after, _ = form.wkv(k, changed, w, u, some_state(), starts)
    assert torch.equal(after[:, :7], packed[:, :7])
    assert (after[:, 7:] != packed[:, 7:]).all()


def test_half_precision_goes_in_and_out():
    k, v, w, u = draw(20)
    exact, _ = naive.wkv(k.bfloat16().double(), v.bfloat16().double(), w, u)
    out, state = doubling.wkv(k.bfloat16(), v.bfloat16(), w.float(), u.float())
    assert out.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    assert_close(out.double(), exact, rtol=1e-2, atol=1e-2)
