"""Print what each package that pyproject.toml names costs: its own megabytes, and those of the packages that come for
it alone.

    .venv/bin/python scripts/package_sizes.py

Files of bytecode are not counted: they come and go.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
ROWS_MAX = 15


def megabytes(found: Distribution) -> float:
    """Return the size of the files of a package in 10^6 bytes."""
    files = [Path(str(found.locate_file(file))) for file in found.files or () if file.suffix != ".pyc"]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def needed(wanted: list[str]) -> set[str]:
    """Return the names of all packages that these requirements bring into this environment."""
    seen: set[tuple[str, str]] = set()
    open_ = [Requirement(text) for text in wanted]
    while open_:
        one = open_.pop()
        name = canonicalize_name(one.name)
        for extra in ("", *one.extras):
            if (name, extra) in seen or (one.marker and not one.marker.evaluate({"extra": ""})):
                continue
            seen.add((name, extra))
            for text in distribution(name).requires or ():
                inner = Requirement(text)
                if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                    inner.marker = None
                    open_.append(inner)
    return {name for name, _ in seen}


def main() -> None:
    """Print the sums, the packages that cost most with all that comes for them alone, and the largest ones."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    own, tests = project["dependencies"], project["optional-dependencies"]["test"]
    sizes: dict[str, float] = {canonicalize_name(found.metadata["Name"]): megabytes(found) for found in distributions()}
    whole, everything = needed(own), needed(own + tests)
    for title, names in (("with the tests", everything), ("without them", whole)):
        print(f"{title}: {len(names)} packages, {sum(sizes[name] for name in names):,.0f} MB")
    print("\n| would go without it | packages | MB |\n|---|---|---|")
    rows = []
    for wanted, all_of_them in ((own, whole), (tests, everything)):
        for text in wanted:
            gone = all_of_them - needed([other for other in (own if wanted is own else own + tests) if other != text])
            rows.append(
                (
                    sum(sizes[name] for name in gone),
                    len(gone),
                    Requirement(text).name + ("" if wanted is own else " (tests)"),
                )
            )
    for size, count, name in sorted(rows, reverse=True)[:ROWS_MAX]:
        print(f"| {name} | {count} | {size:,.1f} |")
    print(
        "\nlargest: "
        + ", ".join(f"{name} {size:,.0f}" for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:ROWS_MAX])
    )


if __name__ == "__main__":
    main()
