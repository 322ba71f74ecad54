"""The fused memoryless neuron equals the specification at `beta = 0`, its rate its docstring."""

import itertools

import pytest
import torch

from spikeloom.ops.lif.memoryless import graded_emission
from spikeloom.ops.lif.naive import graded_lif

SHAPES = list(itertools.product([(1, 1), (24, 6), (4, 4)], [True, False], [0.0, 0.5]))
SIZES = [(5,), (1, 1), (7, 3), (2, 13, 5), (3, 1, 2, 17)]


def draw(size, scale=3.0):
    torch.manual_seed(sum(size))
    v = (torch.randn(size, dtype=torch.float64) * scale).requires_grad_()
    theta = (torch.rand(size[-1], dtype=torch.float64) + 0.1).requires_grad_()
    return v, theta


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("levels_fire", "signed", "window"), SHAPES)
def test_equals_naive_with_gradients(size, levels_fire, signed, window):
    levels, fire_level = levels_fire
    shape = {"levels": levels, "fire_level": fire_level, "signed": signed, "window": window}
    v, theta = draw(size)
    y, rate = graded_emission(v, theta, **shape)
    s, _ = graded_lif(v[None], theta, beta=0.0, **shape)
    expected = theta * s[0]
    assert torch.equal(y, expected)
    assert rate.item() == pytest.approx((s != 0).double().mean().item(), abs=1e-7)
    weights = torch.randn_like(y)
    got = torch.autograd.grad(y, (v, theta), weights)
    wanted = torch.autograd.grad(expected, (v, theta), weights)
    torch.testing.assert_close(got[0], wanted[0], atol=1e-14, rtol=1e-14)
    torch.testing.assert_close(got[1], wanted[1], atol=1e-12, rtol=1e-12)


def triangle(u, signed, boundary):
    """d rate / d u of one element, from the docstring."""
    size, sign = (u.abs(), u.sign()) if signed else (u, 1.0)
    return (1 - 2 * (size - boundary).abs() / boundary).clamp(min=0) * 2 / boundary * sign


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize(("levels_fire", "signed", "window"), SHAPES)
def test_rate_gradient_is_the_triangle_around_the_boundary(size, levels_fire, signed, window):
    levels, fire_level = levels_fire
    v, theta = draw(size)
    _, rate = graded_emission(
        v, theta, levels=levels, fire_level=fire_level, signed=signed, window=window
    )
    grad_v, grad_theta = torch.autograd.grad(rate, (v, theta))
    u = (v / theta).detach()
    slope = triangle(u, signed, fire_level - 0.5) / v.numel()
    torch.testing.assert_close(grad_v, slope / theta.detach())
    by_theta = (-slope * u / theta.detach()).flatten(0, -2).sum(0)
    torch.testing.assert_close(grad_theta, by_theta)


@pytest.mark.parametrize("fire_level", [1, 6])
def test_the_triangle_stands_for_one_step_of_the_rate(fire_level):
    u = torch.linspace(0, 40, 400_001, dtype=torch.float64)
    area = torch.trapezoid(triangle(u, False, fire_level - 0.5), u)
    assert area.item() == pytest.approx(1.0, abs=1e-6)


def test_both_gradients_add_up():
    v, theta = draw((6, 5))
    shape = {"levels": 8, "fire_level": 2, "signed": True}

    def grads(a, b):
        y, rate = graded_emission(v, theta, **shape)
        return torch.autograd.grad(a * y.square().sum() + b * rate, (v, theta))

    for both, emission, rate in zip(grads(1, 1), grads(1, 0), grads(0, 1), strict=True):
        torch.testing.assert_close(both, emission + rate)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_membranes_get_gradients_in_their_dtype(dtype):
    v, theta = draw((4, 6))
    v = v.detach().to(dtype).requires_grad_()
    theta = theta.detach().float().requires_grad_()
    y, rate = graded_emission(v, theta, levels=24, fire_level=6, signed=True)
    (y.float().sum() + rate).backward()
    assert v.grad.dtype == dtype
    assert theta.grad.dtype == torch.float32
    assert rate.dtype == torch.float32
    assert v.grad.isfinite().all()
