"""Front doors, with keys and without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving.http.app import FrontDoor
from tests.serving import edge_server as edge


@pytest.fixture(scope="module")
def app() -> FrontDoor:
    return edge.front_door()


@pytest.fixture(scope="module")
def port(app: FrontDoor) -> Iterator[int]:
    with edge.served(app) as port:
        yield port


@pytest.fixture(scope="module")
def locked() -> Iterator[int]:
    """A server with keys."""
    with edge.served(edge.front_door(edge.all_keys())) as port:
        yield port
