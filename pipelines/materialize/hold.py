"""Holding a workspace still: nobody else changes lake, offline tables, stores, bundles or the record of steps
meanwhile. Servers go on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from features.common.files import locked
from features.workspace.workspace import Workspace
from pipelines.materialize import steps
from pipelines.shipping import ship

ALONE_SECONDS_MAX = 600.0
"""How long is waited for whoever else works on the workspace; training takes minutes."""
LOOK_SECONDS = 0.1


@contextmanager
def held(workspace: Workspace) -> Iterator[None]:
    """Hold what all others hold that change lake, offline tables and stores: steps, shipper, imports.

    Raises:
        Busy: somebody holds the workspace for longer than is waited.
    """
    deadline = time.monotonic() + ALONE_SECONDS_MAX
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(steps.alone(workspace))
                break
            except steps.Busy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(LOOK_SECONDS)
        stack.enter_context(ship.alone(workspace))
        stack.enter_context(locked(workspace.data / "import.lock"))
        yield
