"""Every kind of online store says what it is in one place, and has a class that opens it and removes customers."""

from __future__ import annotations

import ast

import pytest

from features.online.stores import STORES
from features.workspace.store_kind import EMBEDDED, FEAST, SERVER, STORE_KINDS, kind_of
from tests.features.names_compared import ROOT, places_of_names

NAMED = {"embedded": EMBEDDED, "feast:sqlite#0a1b2c3d": FEAST, "redis://cache:6379/1": SERVER, "ftp://nowhere": SERVER}


def test_every_kind_has_a_store() -> None:
    """There is one class a kind, and each kind is found by the address that names it."""
    assert set(STORES) == set(STORE_KINDS) == set(NAMED.values())
    assert len({type(store) for store in STORES.values()}) == len(STORE_KINDS)


@pytest.mark.parametrize("url", NAMED)
def test_an_address_names_a_kind(url: str) -> None:
    """An address is of one kind; where rows lie in the data folder, the ledger does too, and Feast is not needed."""
    kind = kind_of(url)
    assert kind is NAMED[url]
    assert kind.ledger_in_data_folder or not kind.in_data_folder
    assert not (kind.in_data_folder and kind.needs_feast)


def test_no_code_knows_a_store_by_its_name() -> None:
    """Outside of the kinds, nobody compares the address of a store with a name, or with how it begins."""
    own = "features/workspace/store_kind.py"
    assert places_of_names(frozenset({EMBEDDED.name, FEAST.name}), own) == []
    for package in ("features", "pipelines"):
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                called = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
                if called == "startswith" and isinstance(node, ast.Call) and isinstance(node.args[0], ast.Constant):
                    assert node.args[0].value != FEAST.name, f"{file}:{node.lineno}"
