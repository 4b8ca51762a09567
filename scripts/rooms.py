"""Draw the rooms of the four packages and who imports whom, from the imports themselves, into docs/architecture.md.

    python3 scripts/rooms.py            # writes the picture
    python3 scripts/rooms.py --check    # ends with 1 where the picture is not that of the imports

A room is a folder with modules. Arrows point to what is imported; one that follows from others is left out.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("features", "training", "serving", "pipelines")
"""In their order: each may import itself and what stands left of it."""
DOCUMENT = ROOT / "docs/architecture.md"
BEGIN, END = "<!-- rooms: made by scripts/rooms.py -->", "<!-- end of rooms -->"

Graph = dict[str, set[str]]
"""Who imports whom, by dotted name of a module or by path of a room."""


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return all modules but the `__init__` files, by their dotted names, with their paths relative to the root."""
    found = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            if file.name != "__init__.py":
                path = file.relative_to(root)
                found[".".join(path.with_suffix("").parts)] = path
    return found


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything that a module imports, wherever the import stands, also below
    TYPE_CHECKING, by statement or by `import_module`; a relative name begins with its dots.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def module_graph(root: Path = ROOT) -> Graph:
    """Return which of our modules each of them imports."""
    known = modules(root)
    graph: Graph = {name: set() for name in known}
    for name, path in known.items():
        for _, full in imports(ast.parse((root / path).read_text())):
            graph[name] |= {other for other in (full, full.rpartition(".")[0]) if other in known}
    return graph


def room_of(module: str) -> str:
    """Return the path of the folder that a module is in: `features/lake` for `features.lake.files`."""
    return "/".join(module.split(".")[:-1])


def room_graph(graph: Graph) -> Graph:
    """Return which rooms the modules of each room import from, their own aside."""
    rooms: Graph = {room_of(module): set() for module in graph}
    for module, others in graph.items():
        rooms[room_of(module)] |= {room_of(other) for other in others} - {room_of(module)}
    return rooms


def reduced(graph: Graph) -> Graph:
    """Return the graph without the arrows that follow from others; it must have no cycle."""
    reach: Graph = {}

    def reachable(room: str) -> set[str]:
        if room not in reach:
            reach[room] = graph[room] | {far for near in graph[room] for far in reachable(near)}
        return reach[room]

    return {
        room: {near for near in others if not any(near in reachable(other) for other in others - {near})}
        for room, others in graph.items()
    }


def said(room: str) -> str:
    """Return what a room says of itself."""
    return ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text())) or ""


def picture() -> str:
    """Return the rooms as a Mermaid flowchart and as a table, in the order of their imports."""
    graph = module_graph()
    rooms = room_graph(graph)
    ids = {room: room.replace("/", "_") for room in rooms}
    lines = ["```mermaid", "flowchart RL"]
    for package in PACKAGES:  # a subgraph must not have the id of a node: the doors have the package's own
        lines.append(f'  subgraph {package}_rooms["{package}"]')
        lines += [
            f'    {ids[room]}["{room.partition("/")[2] or "doors"}"]'
            for room in sorted(rooms)
            if room.split("/")[0] == package
        ]
        lines.append("  end")
    for room, others in sorted(reduced(rooms).items()):
        lines += [f"  {ids[room]} --> {ids[other]}" for other in sorted(others)]
    lines += ["```", "", "| room | files | what is there |", "|---|--:|---|"]
    for room in ordered(rooms):
        count = sum(room_of(module) == room for module in graph)
        lines.append(f"| `{room}` | {count} | {said(room)} |")
    return "\n".join(lines)


def ordered(graph: Graph) -> list[str]:
    """Return the rooms such that each stands behind those that it imports from, as near as that allows to the packages'
    order.

    Raises:
        ValueError: some import each other in a circle.
    """
    done: list[str] = []
    left = set(graph)
    while left:
        free = [room for room in left if not graph[room] & left]
        if not free:
            raise ValueError(f"expected rooms without a circle of imports, got one among {', '.join(sorted(left))}")
        done.append(min(free, key=lambda room: (PACKAGES.index(room.split("/")[0]), "/" not in room, room)))
        left.discard(done[-1])
    return done


def written(text: str) -> str:
    """Return the document with the picture of now."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"expected the lines {BEGIN!r} and {END!r} in {DOCUMENT.name}, got none")
    return f"{before}{BEGIN}\n\n{picture()}\n\n{END}{after}"


def main(words: list[str]) -> int:
    """Write the picture, or say whether it is the one of now."""
    text = DOCUMENT.read_text()
    now = written(text)
    if "--check" in words:
        if now != text:
            print(
                "docs/architecture.md: the picture of the rooms is not that of the imports: run `python3"
                " scripts/rooms.py`",
                file=sys.stderr,
            )
        return int(now != text)
    DOCUMENT.write_text(now)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
