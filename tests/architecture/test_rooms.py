"""The floor plan: which rooms there are, in which order they import each other, and that tests stand where a stranger
looks for them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import rooms

from tests.architecture.house import PACKAGES, ROOT, files, modules, refuse

ORDER = (
    "features/bucketing",
    "features/common",
    "features/config",
    "features/columns",
    "features/expressions",
    "features/lmdb_store",
    "features/redis_store",
    "features/workspace",
    "features/lake",
    "features/ledger",
    "features/aggregates",
    "features/events",
    "features/feature_store",
    "features/online",
    "features/validation",
    "features",
    "training/bundle",
    "training/dataset",
    "training/fitting",
    "serving/runtime",
    "serving/conditions",
    "serving/kernel",
    "serving/hub",
    "serving/decision",
    "serving/reload",
    "serving/http",
    "serving/api",
    "serving/openapi",
    "serving",
    "pipelines/output",
    "pipelines/events",
    "pipelines/importing",
    "pipelines/shipping",
    "pipelines/materialize",
    "pipelines/deploy",
    "pipelines/erasure",
    "pipelines/backup",
    "pipelines/simulation",
    "pipelines/statistics",
    "pipelines/experiments",
    "pipelines/experiments/output",
    "pipelines/ramps",
    "pipelines/doctor/facts",
    "pipelines/doctor/data",
    "pipelines/doctor/service",
    "pipelines/doctor",
    "pipelines/world",
    "pipelines/world_run",
    "pipelines/cli",
    "pipelines/cli/experiments",
    "pipelines/cli/serving",
    "pipelines",
)
"""Each room imports only from rooms that stand before it. A package's own folder holds its doors and comes last."""

DOORS = frozenset(
    {
        "features/feast_lmdb.py",
        "serving/service.py",
        "serving/worker.py",
        "serving/settings.py",
        "serving/uvicorn_protocol.py",
        "serving/precompile.py",
        "pipelines/main.py",
        "pipelines/worker.py",
    }
)
"""Files that stand outside of the rooms, because the world names them: commands, `-m`, what BentoML and uvicorn load,
and the path of a class in users' Feast configurations.
"""

FILES_MAX = 13
TESTED_WHOLE = frozenset(
    {"tests/pipelines", "tests/serving", "tests/faults", "tests/installing", "tests/clients", "tests/benchmarks"}
)
"""Folders whose tests are of the whole program or of a door."""


def test_the_order_names_every_room() -> None:
    """The plan has each room once, and no others."""
    there = set(rooms.room_graph(rooms.module_graph()))
    assert sorted(there) == sorted(ORDER) and len(there) > 30


def test_rooms_import_to_the_left() -> None:
    """A room imports only from rooms that stand before it in the plan, wherever in a file the import stands."""
    faults, seen = [], 0
    for module, others in rooms.module_graph().items():
        here = ORDER.index(rooms.room_of(module))
        for other in others:
            seen += 1
            if ORDER.index(rooms.room_of(other)) > here:
                faults.append(
                    f"{module} imports {other}: `{rooms.room_of(other)}` stands to the right of"
                    f" `{rooms.room_of(module)}`"
                )
    refuse(faults)
    assert seen > 500, f"expected imports between our own modules, found {seen}"


def circle_of(graph: rooms.Graph) -> list[str]:
    """Return modules that import each other in a circle, in its order; none where there is none."""
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph[module]):
            if found := walk(other, [*way, module]):
                return found
        done.add(module)
        return []

    return next((found for module in graph if (found := walk(module, []))), [])


def test_no_module_imports_itself_by_way_of_others() -> None:
    """There is no circle of imports between files, not even below TYPE_CHECKING."""
    assert circle_of({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()}) == ["a", "b", "c", "a"], "a circle is found"
    assert circle_of(rooms.module_graph()) == []


def test_rooms_are_small() -> None:
    """No folder of the packages holds more than 13 modules, and only doors stand outside of the rooms."""
    counts = Counter(file.parent.as_posix() for file in modules() if file.name != "__init__.py")
    refuse(
        f"{room}: {count} files, expected at most {FILES_MAX}" for room, count in counts.items() if count > FILES_MAX
    )
    outside = {file.as_posix() for file in modules() if len(file.parts) == 2 and file.name != "__init__.py"}
    assert outside == DOORS


def test_every_room_says_what_it_holds() -> None:
    """The `__init__` of a room is one sentence."""
    said = {room: rooms.said(room) for room in ORDER}
    refuse(
        f"{room}: expected one sentence, got {text!r}"
        for room, text in said.items()
        if not text.endswith(".") or "\n" in text
    )
    assert len(set(said.values())) == len(ORDER), "each says something of its own"


def test_tests_stand_in_the_rooms_of_what_they_test() -> None:
    """A test file is in the folder of a room below tests/, and where it has a module's name that module is there."""
    found = [
        file for file in files() if file.parts[0] == "tests" and file.name.startswith("test_") and file.suffix == ".py"
    ]
    known = {f"tests/{room}" for room in ORDER} | TESTED_WHOLE | {"tests/architecture"}
    refuse(f"{file}: stands in no room" for file in found if file.parent.as_posix() not in known)
    mirrored = [
        file for file in found if Path(*file.parts[1:-1], file.name.removeprefix("test_")).is_relative_to(file.parts[1])
    ]
    there = [file for file in mirrored if (ROOT / Path(*file.parts[1:-1]) / file.name.removeprefix("test_")).is_file()]
    assert len(there) > 60, f"expected tests of one module each, found {len(there)}"
    assert {file.parts[1] for file in there} == set(PACKAGES)


def test_no_two_parts_of_the_picture_have_one_id() -> None:
    """Mermaid refuses a subgraph that has the id of a node, and draws two nodes of one id as one."""
    lines = [line.strip() for line in rooms.picture().splitlines()]
    ids = [line.removeprefix("subgraph ").partition("[")[0] for line in lines if "[" in line and "-->" not in line]
    assert len(ids) == len(set(ids)) == len(ORDER) + len(PACKAGES)


def test_the_picture_of_the_rooms_is_up_to_date() -> None:
    """The picture of docs/architecture.md is the one that scripts/rooms.py makes of the imports as they are."""
    text = rooms.DOCUMENT.read_text()
    assert rooms.written(text) == text, "run `python3 scripts/rooms.py`"
