"""Processes that write: for tests that need a second writer, or one to kill. Forked from one that has imported Feast
already.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from features.columns.views import View
from tests.features.feast_fixtures import feast_store, view
from tests.features.store_cases import Arena, write


def rounds_view(name: str) -> View:
    """A view of two numbers and a family."""
    return view(name, {f"{name}_a": "number", f"{name}_b": "number"}, {"by_group": ["spend"]})


def values(name: str, number: int) -> dict[str, object]:
    """A row whose values all tell the number of its round."""
    count = number % 7 + 1
    group = {"by_group__keys": [f"g{i}" for i in range(count)], "by_group__spend": [float(number)] * count}
    return {f"{name}_a": float(number), f"{name}_b": float(number), **group}


class Writer:
    """A process that writes one row a customer and round, from round `first` on, and tells each round that is done."""

    def __init__(self, arena: Arena, name: str, first: int, rounds: int, customers: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self.told, telling = context.Pipe(duplex=False)
        arguments = (telling, arena.folder, arena.project, arena.online, name, first, rounds, customers)
        self.process: BaseProcess = context.Process(target=_write_rounds, args=arguments)
        self.process.start()
        telling.close()

    def close(self) -> int:
        """Waits for the end; the exit code."""
        self.process.join()
        self.told.close()
        code = self.process.exitcode
        self.process.close()
        assert code is not None
        return code


def _write_rounds(
    telling: Connection,
    folder: Path,
    project: str,
    online: dict[str, Any],
    name: str,
    first: int,
    rounds: int,
    customers: int,
) -> None:
    store = feast_store(folder, online, project=project)
    for number in range(first, first + rounds):
        write(store, rounds_view(name), [(str(i), values(name, number), float(number)) for i in range(customers)])
        telling.send(number)
