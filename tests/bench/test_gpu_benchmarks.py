"""GPU benchmarks refuse other devices, and refuse to time what is wrong."""

import pytest
import torch

from spikeloom.bench import attention, event, load
from spikeloom.errors import ConfigError


@pytest.mark.parametrize("name", ["attention", "event"])
def test_they_want_a_gpu(name):
    with pytest.raises(ConfigError, match="--device cuda"):
        load(name)("cpu")


def test_targets_stand_where_the_issue_sets_them():
    both = "forward + backward"
    assert attention.target_of("flash SDPA, torch 2", "forward", 8, 64, 1024) == 1.0
    assert attention.target_of("chunk_linear_attn, no decay", both, 8, 64, 4096) == 1.0
    assert attention.target_of("chunk_linear_attn, no decay", "forward", 8, 64, 4096) is None
    assert attention.target_of("chunk_simple_gla", both, 8, 64, 4096) is None
    assert attention.target_of("flash SDPA, torch 2", both, 1, 64, 8192) is None


def test_a_wrong_product_is_not_timed(monkeypatch):
    weights = event.InputMajor(torch.ones(8, 4), torch.ones(8))
    payload = torch.ones(8)
    right = torch.full((4,), 8.0)
    monkeypatch.setattr(event, "product", lambda *_: lambda: right)
    event.check(payload, weights)
    monkeypatch.setattr(event, "product", lambda *_: lambda: right * 1.01)
    with pytest.raises(RuntimeError, match="wrong at 8 in, 4 out"):
        event.check(payload, weights)
