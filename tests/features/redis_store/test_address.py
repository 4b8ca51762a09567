"""The address of a Redis store: what its URL says, and what a URL that says nothing is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.online.engines import open_engine
from features.redis_store.address import Address
from features.redis_store.routing import slot_of
from tests.features.redis_store.redis_cases import SHOP


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgres://h", "expected redis://"),
        ("redis://", "expected host:port"),
        ("redis://h:port", "expected host:port"),
        ("redis://h/x", "database number"),
        ("redis+cluster://h:1,g:2/1", "0 with a cluster"),
        ("redis://h?retries=3", "unknown option 'retries'"),
    ],
)
def test_urls_that_say_nothing(url: str, message: str) -> None:
    """A URL that is not understood says what was expected."""
    with pytest.raises(ValueError, match=message):
        open_engine(url, Path(), (SHOP,), 25, "shop")


def test_urls() -> None:
    """Hosts, ports, IPv6, credentials, databases and clusters are read from the URL."""
    assert Address.parse("redis://h").nodes == (("h", 6379),)
    assert Address.parse("redis://u:p%2F@[::1]:7/2") == Address((("::1", 7),), False, "u", "p/", 2, None)
    assert Address.parse("rediss+cluster://a:1,b,c:3").nodes == (("a", 1), ("b", 6379), ("c", 3))
    assert Address.parse("rediss://h").tls is not None


def test_slots() -> None:
    """The examples of the Redis Cluster specification."""
    assert slot_of(b"123456789") == 0x31C3
    assert slot_of(b"{user1000}.following") == slot_of(b"{user1000}.followers") == slot_of(b"user1000")
    assert slot_of(b"foo{}{bar}") != slot_of(b"bar")
    assert slot_of(b"foo{{bar}}zap") == slot_of(b"{bar")
