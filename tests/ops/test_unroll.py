import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikeloom.ops.unroll import slots


@st.composite
def payloads_and_levels(draw):
    levels = draw(st.integers(1, 40))
    values = draw(st.lists(st.integers(-levels, levels), min_size=1, max_size=12))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int32]))
    return torch.tensor(values).to(dtype), levels


@pytest.mark.parametrize("form", ["unary", "bitwise"])
@given(case=payloads_and_levels())
def test_slots_sum_back_exactly_and_are_ternary(form, case):
    payloads, levels = case
    total, spikes = torch.zeros_like(payloads), 0
    for weight, slot in slots(payloads, levels, form):
        assert slot.dtype == payloads.dtype
        assert set(slot.tolist()) <= {-1, 0, 1}
        total = total + weight * slot
        spikes += int(slot.count_nonzero())
    assert torch.equal(total, payloads)
    sizes = [abs(int(s)) for s in payloads]
    assert spikes == sum(sizes if form == "unary" else map(int.bit_count, sizes))


def test_by_hand():
    s = torch.tensor([-5.0, 0.0, 3.0, 1.0])
    unary = [(weight, slot.tolist()) for weight, slot in slots(s, 5, "unary")]
    assert unary == [
        (1, [-1, 0, 1, 1]),
        (1, [-1, 0, 1, 0]),
        (1, [-1, 0, 1, 0]),
        (1, [-1, 0, 0, 0]),
        (1, [-1, 0, 0, 0]),
    ]
    bitwise = [(weight, slot.tolist()) for weight, slot in slots(s, 5, "bitwise")]
    assert bitwise == [(1, [-1, 0, 1, 1]), (2, [0, 0, 1, 0]), (4, [-1, 0, 0, 0])]
