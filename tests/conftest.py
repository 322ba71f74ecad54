"""What every test shares."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported: its programs run in NumPy


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Models this small lose more to thread hand-over than they win."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
