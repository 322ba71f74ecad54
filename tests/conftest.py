"""What every test shares."""

import os
import sys
from typing import NamedTuple

import pytest
import torch

from spikeloom import cli
from web_server import Site

if not torch.cuda.is_available():
    # Before anything imports triton: its programs then run in Python, on the CPU.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Models this small lose more to thread hand-over than they win."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def site():
    """A web of our own, on 127.0.0.1."""
    with Site() as site:
        yield site


@pytest.fixture
def client():
    """Asks politely, but does not wait long."""
    from spikeloom.data.web.client import Client, Manners

    with Client(Manners(contact="me@example.org", first_wait=0.01, timeout=0.5)) as client:
        yield client


class Run(NamedTuple):
    """What a command ended with and printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def spikeloom(capsys, monkeypatch):
    """Runs the entry point with arguments, in this process."""
    monkeypatch.setenv("COLUMNS", "200")  # help is not wrapped

    def run(*arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["spikeloom", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Run(end.value.code or 0, *capsys.readouterr())

    return run
