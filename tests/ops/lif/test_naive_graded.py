"""The graded LIF specification: ties, dead zone, clipping, window, resets, gradients."""

import pytest
import torch

from spikeloom.ops.lif.naive import graded_lif, graded_spike

ONE = torch.ones(1, dtype=torch.float64)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def spike(*values, theta=1.0, **shape):
    return graded_spike(column(*values), theta * ONE, **shape).flatten().tolist()


@pytest.mark.parametrize("theta", [1.0, 0.25, 4.0])
def test_ties_round_half_to_even(theta):
    ties = [theta * v for v in (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5)]
    got = spike(*ties, theta=theta, levels=8, fire_level=1, signed=True)
    assert got == [-2, -2, 0, 0, 2, 2, 4]


def test_integer_lif_is_fire_level_one():
    got = spike(-9, -1.2, -0.4, 0.4, 0.6, 1.2, 9, levels=4, fire_level=1, signed=True)
    assert got == [-4, -1, 0, 0, 1, 1, 4]


def test_one_level_is_the_ternary_or_binary_lif_with_threshold_half_theta():
    v = (-7.0, -0.51, -0.5, 0.0, 0.5, 0.51, 7.0)
    assert spike(*v, levels=1, fire_level=1, signed=True) == [-1, -1, 0, 0, 0, 1, 1]
    assert spike(*v, levels=1, fire_level=1, signed=False) == [0, 0, 0, 0, 0, 1, 1]


def test_dead_zone_is_silent_and_payloads_above_it_keep_their_size():
    v = (-4.0, -3.0, -2.4, -1.0, 0.0, 2.4, 2.5, 2.6, 3.0, 4.0)
    got = spike(*v, levels=24, fire_level=3, signed=True)
    # 2.5 is a tie and rounds to 2, inside the dead zone
    assert got == [-4, -3, 0, 0, 0, 0, 0, 3, 3, 4]


@pytest.mark.parametrize(("levels", "fire_level"), [(1, 1), (4, 1), (4, 4), (24, 6)])
def test_unsigned_is_never_negative_and_signed_is_odd(levels, fire_level):
    v = torch.linspace(-40, 40, 4001, dtype=torch.float64)[:, None]
    shape = {"levels": levels, "fire_level": fire_level}
    unsigned = graded_spike(v, ONE, signed=False, **shape)
    signed = graded_spike(v, ONE, signed=True, **shape)
    assert unsigned.min() == 0
    assert torch.equal(signed, -graded_spike(-v, ONE, signed=True, **shape))
    assert torch.equal(unsigned, signed.clamp(min=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_payloads_are_exact_integers_whatever_theta(dtype):
    torch.manual_seed(0)
    v = (torch.randn(2000, 7) * 5).to(dtype)
    theta = (torch.rand(7) + 0.05).to(dtype)
    s = graded_spike(v, theta, levels=24, fire_level=3, signed=True)
    assert s.dtype == dtype
    assert torch.equal(s, s.round())
    assert torch.equal(s, torch.where((v / theta).round().abs() >= 3, s, 0.0))


@pytest.mark.parametrize(
    ("levels", "fire_level", "signed", "window"),
    [
        (levels, fire_level, signed, window)
        for levels, fire_level in ((1, 1), (4, 1), (4, 4), (7, 4))
        for signed in (True, False)
        for window in (0.0, 0.5, 1.0)
    ],
)
def test_gradient_window_enumerated(levels, fire_level, signed, window):
    v = torch.arange(-12, 12.25, 0.25, dtype=torch.float64)[:, None].requires_grad_()
    theta = torch.full((1,), 0.5, dtype=torch.float64, requires_grad=True)
    s = graded_spike(v, theta, levels=levels, fire_level=fire_level, signed=signed, window=window)
    grad_v, grad_theta = torch.autograd.grad(s.sum(), (v, theta))
    passed = 0.0
    for value, got in zip(v.flatten().tolist(), grad_v.flatten().tolist(), strict=True):
        k = round(value / 0.5)  # Python rounds half to even too
        opens = window * fire_level <= (abs(k) if signed else k) <= levels
        assert got == (2.0 if opens else 0.0), value
        passed += -2.0 * value / 0.5 if opens else 0.0
    assert grad_theta.item() == pytest.approx(passed, abs=1e-9)


def scan(*x, **options):
    shape = {"levels": 4, "fire_level": 2, "signed": True, "beta": 0.5} | options
    s, v = graded_lif(column(*x), 0.5 * ONE, **shape)
    return s.flatten().tolist(), v.item()


def test_soft_reset_leaves_the_residual():
    # theta 1/2. v: 0.625 (k 1, silent), 1.4375 (k 3, emits 1.5, left -0.0625), 8.96875 (clipped to
    # 4 levels, emits 2, left 6.96875)
    assert scan(0.625, 1.125, 9.0) == ([0, 3, 4], 6.96875)


def test_hard_reset_forgets_and_only_where_it_fired():
    # 0.625 silent, 1.4375 fires -> 0, 0.25 silent
    assert scan(0.625, 1.125, 0.25, v_reset=0.0) == ([0, 3, 0], 0.25)


def test_negative_payloads_reset_upwards():
    assert scan(-1.25, 0.0) == ([-2, 0], -0.125)


def test_membrane_clip_comes_before_firing():
    assert scan(9.0, clip_membrane=1.5) == ([3], 0.0)


def test_starts_empty_the_membrane():
    starts = torch.tensor([[False], [True]])
    assert scan(0.625, 0.625, starts=starts) == ([0, 0], 0.625)


CASES = [
    {"levels": 4, "fire_level": 2, "signed": True},
    {"levels": 4, "fire_level": 1, "signed": False, "v_reset": 0.0},
    {"levels": 1, "fire_level": 1, "signed": True, "clip_membrane": 1.0},
    {"levels": 8, "fire_level": 4, "signed": True, "window": 0.0, "v_reset": -0.25},
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cut", [1, 6, 10])
def test_two_pieces_equal_one_scan(case, cut):
    torch.manual_seed(0)
    x = torch.randn(11, 3, 5, dtype=torch.float64)
    theta = torch.rand(5, dtype=torch.float64) + 0.1
    starts = torch.rand(11, 3, 1) < 0.2
    s, v = graded_lif(x, theta, beta=0.8, starts=starts, **case)
    s1, v1 = graded_lif(x[:cut], theta, beta=0.8, starts=starts[:cut], **case)
    s2, v2 = graded_lif(x[cut:], theta, v1, beta=0.8, starts=starts[cut:], **case)
    assert torch.equal(torch.cat([s1, s2]), s)
    assert torch.equal(v2, v)


@pytest.mark.parametrize("case", CASES)
def test_gradient_through_time_equals_the_recurrence_derived_by_hand(case):
    torch.manual_seed(3)
    S, B, D = 12, 3, 4
    x = torch.randn(S, B, D, dtype=torch.float64, requires_grad=True)
    theta = (torch.rand(D, dtype=torch.float64) + 0.2).requires_grad_()
    beta = torch.tensor([0.0, 0.5, 0.9, 0.99], dtype=torch.float64, requires_grad=True)
    first = torch.randn(B, D, dtype=torch.float64, requires_grad=True)
    starts = torch.rand(S, B, 1) < 0.15
    s, last = graded_lif(x, theta, first, beta=beta, starts=starts, **case)
    grad_s, grad_last = torch.randn_like(s), torch.randn_like(last)
    got = torch.autograd.grad((s, last), (x, theta, beta, first), (grad_s, grad_last))
    with torch.no_grad():
        expected = _backward(x, theta, first, beta, starts, s, grad_s, grad_last, **case)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


def _backward(
    x,
    theta,
    first,
    beta,
    starts,
    s,
    grad_s,
    grad_last,
    *,
    levels,
    fire_level,
    signed,
    window=0.5,
    v_reset=None,
    clip_membrane=None,
):
    """With a[t] = dLoss/dv[t] after the reset and p the window (0 or 1):

    d = grad_s - theta a (soft) or grad_s (hard);  g = a (0 where a hard reset fell) + p d / theta
    dLoss/dtheta += -a s (soft only) - p d v / theta^2;  a[t-1] = beta g
    """
    limit = torch.inf if clip_membrane is None else clip_membrane
    kept, raw, v = [], [], first
    for t in range(x.shape[0]):
        kept.append(torch.where(starts[t], 0.0, v))
        raw.append(beta * kept[-1] + x[t])
        before = raw[-1].clamp(-limit, limit)
        v = before - theta * s[t] if v_reset is None else torch.where(s[t] != 0, v_reset, before)
    grad_x, grad_theta = torch.zeros_like(x), torch.zeros_like(theta)
    grad_beta, a = torch.zeros_like(beta), grad_last
    for t in reversed(range(x.shape[0])):
        before = raw[t].clamp(-limit, limit)
        k = (before / theta).round()
        size = k.abs() if signed else k
        p = ((size >= window * fire_level) & (size <= levels)).double()
        if v_reset is None:
            d = grad_s[t] - theta * a
            grad_theta += (-a * s[t]).sum(0)
            g = a + p * d / theta
        else:
            d = grad_s[t]
            g = a * (s[t] == 0) + p * d / theta
        grad_theta += (-p * d * before / theta.square()).sum(0)
        g = g * (raw[t].abs() <= limit)
        grad_x[t] = g
        grad_beta += (g * kept[t]).sum(0)
        a = torch.where(starts[t], 0.0, beta * g)
    return grad_x, grad_theta, grad_beta, a
