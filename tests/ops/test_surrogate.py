"""Surrogates: exact spikes forward, and slopes that are what their table says."""

import pytest
import torch

from spikeloom.config import SURROGATES
from spikeloom.ops.surrogate import PROXIES, SLOPES, heaviside

# Points where a proxy has a corner, and a central difference would average two slopes.
CORNERS = {"piecewise_quadratic": (-1.0, 0.0, 1.0), "straight_through": (-0.5, 0.5)}


def grid(name, low=-3.0, high=3.0, points=2401, margin=1e-4):
    u = torch.linspace(low, high, points, dtype=torch.float64)
    for corner in CORNERS.get(name, (0.0,)):
        u = u[(u - corner).abs() > margin]
    return u


def test_config_and_ops_know_the_same_surrogates():
    assert set(SURROGATES) == set(SLOPES) == set(PROXIES)


@pytest.mark.parametrize("name", SURROGATES)
def test_slope_is_the_derivative_of_the_proxy(name):
    u, h = grid(name), 1e-6
    difference = (PROXIES[name](u + h) - PROXIES[name](u - h)) / (2 * h)
    torch.testing.assert_close(SLOPES[name](u), difference, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("name", SURROGATES)
def test_slope_integrates_to_one(name):
    # u = tan(a) brings the heavy tails of atan and fast_sigmoid into a finite interval.
    points = 2_000_001
    angle = torch.linspace(-torch.pi / 2, torch.pi / 2, points + 2, dtype=torch.float64)[1:-1]
    integrand = SLOPES[name](angle.tan()) / angle.cos().square()
    assert torch.trapezoid(integrand, angle).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", SURROGATES)
def test_proxy_rises_from_zero_to_one_through_a_half(name):
    far = torch.tensor([-1e9, 0.0, 1e9], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(PROXIES[name](far), expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SURROGATES)
def test_forward_is_exactly_u_at_least_zero(name, dtype):
    tiny = torch.finfo(dtype).tiny
    u = torch.tensor([-1.0, -tiny, -0.0, 0.0, tiny, 1.0], dtype=dtype)
    s = heaviside(u, name)
    assert s.dtype == dtype
    assert s.tolist() == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", SURROGATES)
def test_backward_multiplies_by_the_slope(name):
    u = grid(name).requires_grad_()
    weights = torch.randn(u.shape, dtype=u.dtype, generator=torch.Generator().manual_seed(0))
    (grad,) = torch.autograd.grad((heaviside(u, name) * weights).sum(), u)
    assert torch.equal(grad, weights * SLOPES[name](u.detach()))


def test_unknown_surrogate_is_refused():
    u = torch.zeros(1, requires_grad=True)
    with pytest.raises(KeyError):
        heaviside(u, "no such slope").sum().backward()
