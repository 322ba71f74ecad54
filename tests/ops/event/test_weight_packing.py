"""Packing in C++ is packing in torch, to the bit."""

import pytest
import torch

from spikeloom.ops.event import native, pack
from spikeloom.ops.event.weights import DTYPES

pytestmark = pytest.mark.skipif(not native.available(), reason="no C++ compiler")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (33, 7), (64, 32), (100, 65), (1000, 513)])
def test_compiled_is_torch(dtype, shape):
    torch.manual_seed(0)
    weight, step = torch.randn(shape), torch.rand(shape[1])
    weight[:, 0] = 0
    for given in (weight, weight.bfloat16(), weight.t().contiguous().t()):
        ours, theirs = (pack(given, step, dtype, compiled=c) for c in (True, False))
        assert torch.equal(ours.data, theirs.data)
        assert torch.equal(ours.scale, theirs.scale)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_no_number_stays_none(dtype):
    weight = torch.tensor([[1.0, float("nan")], [float("inf"), -float("inf")]])
    packed = pack(weight, None, dtype).data.float()
    assert torch.equal(packed.isnan(), weight.t().isnan())
    assert torch.equal(packed.isinf(), weight.t().isinf())
