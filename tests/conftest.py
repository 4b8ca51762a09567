"""All tests run in UTC, as all our processes do. What takes long to make is made once and shared: change a copy of
it.
"""

import os
import time
from pathlib import Path

import pytest

from tests import parts
from tests.shared import once

os.environ.setdefault(
    "MACHINE_TZ", os.environ.get("TZ", "UTC")
)  # what processes of tests start in, see `tests.environment`
os.environ["TZ"] = "UTC"
time.tzset()
os.umask(0o077)  # that of our processes, whatever the shell has: data folders that tests make are as those of commands
os.environ.pop(
    "PYTHONDONTWRITEBYTECODE", None
)  # packages are installed without bytecode: a child keeps what it compiles for the next


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of `tests/serving/openapi/test_contract.py`."""
    parser.addoption("--contract-seed", metavar="N", help="draw other requests than those of every run")
    parser.addoption("--contract-examples", metavar="N", help="how many requests of an operation are drawn")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which part of the suite each test belongs to, and put the files that take longest first."""
    for item in items:
        parts.mark(item)
    items[:] = parts.in_order(items)


@pytest.fixture(scope="session")
def trained_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a workspace of 520 customers that is imported, computed, materialized (embedded), trained and
    published.

    Made once a run, and copied for each worker. To be read only; `tests.trained.copy_of` makes a copy that may be
    changed.
    """
    from tests.trained import build, copy_of

    made = once(tmp_path_factory, "trained", lambda folder: build(folder / "fernruf")) / "fernruf"
    return (
        made
        if "PYTEST_XDIST_WORKER" not in os.environ
        else copy_of(made, tmp_path_factory.mktemp("trained") / "fernruf")
    )
