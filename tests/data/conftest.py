"""A web of our own: a local server, and a client that does not wait long."""

import pytest
from web_server import Site

from spikeloom.data.web.client import Client, Manners


@pytest.fixture
def site():
    with Site() as site:
        yield site


@pytest.fixture
def client():
    with Client(Manners(contact="me@example.org", first_wait=0.01, timeout=0.5)) as client:
        yield client
