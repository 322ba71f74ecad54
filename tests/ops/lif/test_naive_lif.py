"""The LIF specification, against traces and a backward recurrence worked out by hand."""

import pytest
import torch

from spikeloom.config import SURROGATES
from spikeloom.ops.lif.naive import lif
from spikeloom.ops.surrogate import SLOPES


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


# beta = 1/2 and dyadic inputs: every number below is exact, worked out on paper.
TRACES = {
    "soft reset keeps the residual": (
        # v before firing: 0.75, 0.875, 1.25 -> 0.25, 2.125 -> 1.125, 1.0625 -> 0.0625
        {},
        (0.75, 0.5, 0.8125, 2.0, 0.5),
        (0, 0, 1, 1, 1),
        0.0625,
    ),
    "hard reset forgets it": (
        # 0.75, 0.875, 1.25 -> 0, 2 -> 0, 0.5
        {"v_reset": 0.0},
        (0.75, 0.5, 0.8125, 2.0, 0.5),
        (0, 0, 1, 1, 0),
        0.5,
    ),
    "hard reset below rest": (
        # 1.25 -> -0.5, 0.75 (= -0.25 + 1), 1.375 -> -0.5
        {"v_reset": -0.5},
        (1.25, 1.0, 1.0),
        (1, 0, 1),
        -0.5,
    ),
    "the threshold itself fires": ({}, (1.0, 0.0), (1, 0), 0.0),
    "threshold in units of x": ({"v_threshold": 2.0}, (1.0, 1.0, 1.25), (0, 0, 1), 0.0),
    "clip before firing": (
        # -8 -> -2, -1 + 2.5 = 1.5 -> 0.5, 0.25 + 9 -> 2 -> 1
        {"clip_membrane": 2.0},
        (-8.0, 2.5, 9.0),
        (0, 1, 1),
        1.0,
    ),
    "a clip below the threshold silences": ({"clip_membrane": 0.5}, (9.0, 9.0), (0, 0), 0.5),
}


@pytest.mark.parametrize("name", TRACES)
def test_hand_traces(name):
    options, x, spikes, last = TRACES[name]
    s, v = lif(column(*x), beta=0.5, **options)
    assert s.flatten().tolist() == list(spikes)
    assert v.item() == last


def test_starts_empty_the_membrane_before_the_step():
    x = column(0.75, 0.75, 0.75)
    s, v = lif(x, beta=0.5, starts=torch.tensor([[False], [True], [False]]))
    # 0.75; start: 0.75 again; 1.125 -> fires, residual 0.125
    assert s.flatten().tolist() == [0, 0, 1]
    assert v.item() == 0.125


def test_start_at_the_first_step_ignores_the_initial_state():
    x = column(0.25)
    s, v = lif(x, column(8.0)[0], beta=0.5, starts=torch.tensor([[True]]))
    assert (s.item(), v.item()) == (0, 0.25)


def test_initial_state_leaks_before_the_first_input():
    s, v = lif(column(0.25), column(1.0)[0], beta=0.5)
    assert (s.item(), v.item()) == (0, 0.75)


def test_beta_per_channel():
    x = torch.tensor([[0.5, 0.5], [0.25, 0.25]], dtype=torch.float64)
    _, v = lif(x, beta=torch.tensor([0.0, 0.5], dtype=torch.float64))
    assert v.tolist() == [0.25, 0.5]


OPTIONS = [
    {},
    {"v_reset": 0.0},
    {"v_reset": -0.25, "clip_membrane": 1.5},
    {"clip_membrane": 1.25},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("cut", [1, 4, 10])
def test_two_pieces_with_the_state_handed_over_equal_one_scan(options, cut):
    torch.manual_seed(0)
    x = torch.randn(11, 3, 5, dtype=torch.float64)
    starts = torch.rand(11, 3, 1) < 0.2
    s, v = lif(x, beta=0.8, starts=starts, **options)
    s1, v1 = lif(x[:cut], beta=0.8, starts=starts[:cut], **options)
    s2, v2 = lif(x[cut:], v1, beta=0.8, starts=starts[cut:], **options)
    assert torch.equal(torch.cat([s1, s2]), s)
    assert torch.equal(v2, v)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_gradient_through_time_equals_the_recurrence_derived_by_hand(options, surrogate):
    torch.manual_seed(1)
    S, B, D, threshold = 13, 3, 4, 0.75
    x = torch.randn(S, B, D, dtype=torch.float64, requires_grad=True)
    beta = torch.tensor([0.2, 0.5, 0.9, 0.99], dtype=torch.float64, requires_grad=True)
    first = torch.randn(B, D, dtype=torch.float64, requires_grad=True)
    starts = torch.rand(S, B, 1) < 0.15
    s, last = lif(
        x,
        first,
        beta=beta,
        v_threshold=threshold,
        surrogate=surrogate,
        starts=starts,
        **options,
    )
    grad_s, grad_last = torch.randn_like(s), torch.randn_like(last)
    got = torch.autograd.grad((s, last), (x, beta, first), (grad_s, grad_last))

    with torch.no_grad():
        expected = _backward(
            x, first, beta, threshold, surrogate, starts, grad_s, grad_last, **options
        )
    assert got[0].abs().sum() > 0
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def _backward(
    x,
    first,
    beta,
    threshold,
    surrogate,
    starts,
    grad_s,
    grad_last,
    v_reset=None,
    clip_membrane=None,
):
    """With a[t] = dLoss/dv[t] after the reset, h the slope, for t = S-1 ... 0:

    soft: dLoss/d(before firing) = a + (grad_s - threshold a) h;  hard: a (1 - s) + grad_s h
    and a[t-1] = beta * that, unless a document starts at t or the clip was hit.
    """
    before, raw, kept = [], [], []
    v = first
    for t in range(x.shape[0]):
        kept.append(torch.where(starts[t], 0.0, v))
        raw.append(beta * kept[-1] + x[t])
        limit = torch.inf if clip_membrane is None else clip_membrane
        before.append(raw[-1].clamp(-limit, limit))
        fired = before[-1] >= threshold
        after = before[-1] - threshold * fired
        v = after if v_reset is None else torch.where(fired, v_reset, before[-1])
    grad_x, grad_beta, a = torch.zeros_like(x), torch.zeros_like(beta), grad_last
    for t in reversed(range(x.shape[0])):
        h = SLOPES[surrogate](before[t] - threshold)
        if v_reset is None:
            g = a + (grad_s[t] - threshold * a) * h
        else:
            g = a * (before[t] < threshold) + grad_s[t] * h
        if clip_membrane is not None:
            g = g * (raw[t].abs() <= clip_membrane)
        grad_x[t] = g
        grad_beta += (g * kept[t]).sum(0)
        a = torch.where(starts[t], 0.0, beta * g)
    return grad_x, grad_beta, a


def test_later_inputs_do_not_change_earlier_spikes():
    torch.manual_seed(2)
    x = torch.randn(9, 4, dtype=torch.float64)
    changed = x.clone()
    changed[5:] += 3.0
    assert torch.equal(lif(x)[0][:5], lif(changed)[0][:5])
