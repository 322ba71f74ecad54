"""Payloads and weights for the products on a GPU, and where they are tried."""

import pytest
import torch

from spikeloom.ops.event import pack

GPU = torch.cuda.is_available()
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(GPU, reason="compiled for the GPU here")),
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not GPU, reason="no GPU")]),
]


def make(d_in, d_out, rate, dtype="bfloat16", device="cpu"):
    generator = torch.Generator().manual_seed(d_in)
    weight = torch.randn(d_out, d_in, generator=generator)
    theta = 0.1 + torch.rand(d_in, generator=generator)
    payload = torch.randint(-24, 25, (d_in,), generator=generator)
    payload = payload * (torch.rand(d_in, generator=generator) < rate)
    return payload.to(device), pack(weight, theta, dtype).to(device)
