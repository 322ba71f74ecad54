"""Muon in batches against torch's own, matrix by matrix."""

import copy

import pytest
import torch
from torch import nn

from spikeloom.training.muon import BatchedMuon

SHAPES = [(24, 40), (24, 40), (40, 24), (16, 16), (24, 40), (1, 8)]


def matrices(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator)) for s in SHAPES]


def give_gradients(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=generator)


def pair(**options):
    ours, theirs = matrices(), matrices()
    torchs = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **options)
    return (ours, BatchedMuon(ours, **options)), (theirs, torchs)


@pytest.mark.parametrize(
    "options",
    [{}, {"weight_decay": 0.3, "lr": 0.02}, {"nesterov": False}, {"ns_steps": 2}],
    ids=str,
)
def test_it_steps_as_torch_does(options):
    both = pair(**options)
    before = matrices()
    for seed in range(3):
        for parameters, optimizer in both:
            give_gradients(parameters, seed)
            optimizer.step()
    (ours, _), (theirs, _) = both
    for start, mine, its in zip(before, ours, theirs, strict=True):
        moved = (its - start).norm()
        assert (mine - its).norm() < 0.01 * moved  # bfloat16 within, summed in another order


def test_a_matrix_without_a_gradient_stays():
    (ours, optimizer), _ = pair()
    give_gradients(ours, 1)
    ours[0].grad = None
    before = copy.deepcopy(ours)
    optimizer.step()
    assert torch.equal(ours[0], before[0])
    assert not torch.equal(ours[1], before[1])


def test_a_closure_is_refused():
    (_, optimizer), _ = pair()
    with pytest.raises(TypeError, match="takes no closure"):
        optimizer.step(lambda: 0.0)


def test_the_state_is_torchs():
    (ours, optimizer), (theirs, torchs) = pair()
    give_gradients(theirs, 1)
    torchs.step()
    optimizer.load_state_dict(torchs.state_dict())
    for mine, its in zip(ours, theirs, strict=True):
        momentum = optimizer.state[mine]["momentum_buffer"]
        torch.testing.assert_close(momentum, torchs.state[its]["momentum_buffer"])
