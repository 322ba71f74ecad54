"""The recurrent LIF layer against its equations, by hand and through time."""

import pytest
import torch

from spikeloom.ops.lif.naive import lif
from spikeloom.ops.lif.recurrent import recurrent_lif, recurrent_unit

S, B, D = 7, 3, 5


def inputs(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(S, B, D, generator=generator, dtype=dtype)
    weight = torch.randn(D, D, generator=generator, dtype=dtype)
    beta = torch.rand(D, generator=generator, dtype=dtype)
    return x, weight, beta


def test_three_steps_by_hand():
    # two neurons, the second hears the first one with weight 2
    weight = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    x = torch.tensor([[[1.5, 0.0]], [[0.0, -0.5]], [[0.0, 0.0]]])
    spikes, (v, s) = recurrent_lif(x, weight, beta=0.5)
    # 1.5 fires, 0.5 is left; then 0.25 and -0.5 + 2, which fires; then 0.125 and 0.25
    assert spikes[:, 0].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert v.tolist() == [[0.125, 0.25]]
    assert s.tolist() == [[0, 0]]


def test_without_recurrence_it_is_the_lif():
    x, weight, beta = inputs()
    ours, (v, _) = recurrent_lif(x, 0 * weight, beta=beta, v_threshold=0.5)
    theirs, membrane = lif(x, beta=beta, v_threshold=0.5)
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(v, membrane)


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_the_state_carries_everything(cut):
    x, weight, beta = inputs()
    whole, last = recurrent_lif(x, weight, beta=beta)
    first, state = recurrent_lif(x[:cut], weight, beta=beta)
    second, end = recurrent_lif(x[cut:], weight, state, beta=beta)
    assert torch.equal(torch.cat([first, second]), whole)
    assert all(torch.equal(a, b) for a, b in zip(end, last, strict=True))


def test_a_start_forgets_membrane_and_spikes():
    x, weight, beta = inputs()
    starts = torch.zeros(S, B, 1, dtype=torch.bool)
    starts[4, 1] = True
    spikes, _ = recurrent_lif(x, weight, beta=beta, starts=starts)
    apart, _ = recurrent_lif(x[4:], weight, beta=beta)
    together, _ = recurrent_lif(x, weight, beta=beta)
    assert torch.equal(spikes[4:, 1], apart[:, 1])
    assert torch.equal(spikes[:, 0], together[:, 0])
    assert not torch.equal(spikes[4:, 1], together[4:, 1])


def test_a_threshold_is_a_gain():
    x, weight, beta = inputs()
    threshold = torch.tensor([0.3, 0.5, 1.0, 1.5, 2.0], dtype=x.dtype)
    v, s = torch.zeros(B, D, dtype=x.dtype), torch.zeros(B, D, dtype=x.dtype)
    expected = []
    for t in range(S):
        v = beta * v + x[t] + s @ weight.T
        s = (v >= threshold).to(x.dtype)
        v = v - threshold * s
        expected.append(s)
    ours, _ = recurrent_lif(x / threshold, weight / threshold[:, None], beta=beta)
    assert torch.equal(ours, torch.stack(expected))


def test_gradient_through_time_by_the_chain_rule():
    """Reverse recursion written out, against autograd; the surrogate is the only choice in it."""
    x, weight, beta = inputs()
    for each in (x, weight, beta):
        each.requires_grad_()
    pull = torch.randn(S, B, D, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    spikes, _ = recurrent_lif(x, weight, beta=beta)
    (spikes * pull).sum().backward()
    with torch.no_grad():
        before, v, s = [], torch.zeros_like(x[0]), torch.zeros_like(x[0])
        kept = [(v, s)]
        for t in range(S):
            u = beta * v + x[t] + s @ weight.T
            s = (u >= 1).to(u.dtype)
            v = u - s
            before.append(u)
            kept.append((v, s))
        to_x, to_weight, to_beta = torch.zeros_like(x), 0 * weight, 0 * beta
        to_v, to_s = torch.zeros_like(x[0]), torch.zeros_like(x[0])
        for t in reversed(range(S)):
            slope = 1 / (1 + (torch.pi * (before[t] - 1)).square())
            to_u = to_v + (pull[t] + to_s - to_v) * slope  # the reset takes 1 from v per spike
            to_x[t] = to_u
            to_weight += to_u.T @ kept[t][1]
            to_beta += (to_u * kept[t][0]).sum(0)
            to_v, to_s = beta * to_u, to_u @ weight
    torch.testing.assert_close(x.grad, to_x)
    torch.testing.assert_close(weight.grad, to_weight)
    torch.testing.assert_close(beta.grad, to_beta)


def test_the_dense_unit_is_smooth():
    x, weight, beta = (each.requires_grad_() for each in inputs())

    def outputs(x, weight, beta):
        out, (v, last) = recurrent_unit(x, weight, beta=beta, surrogate="sigmoid")
        assert ((out > 0) & (out < 1)).all()
        return out, v, last

    assert torch.autograd.gradcheck(outputs, (x, weight, beta))
