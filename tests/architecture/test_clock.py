"""One clock: wall-clock time is read in `features/common/clock.py` alone, so that a setting moves all of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.house import PACKAGES, modules, refuse, tree

CLOCK = Path("features/common/clock.py")
CALLS = frozenset(
    f"{owner}.{name}"
    for owner, names in {
        "time": (
            "time",
            "time_ns",
            "localtime",
            "gmtime",
            "ctime",
            "strftime",
            "asctime",
            "clock_gettime",
            "clock_gettime_ns",
        ),
        "datetime": ("now", "utcnow", "today"),
        "date": ("today",),
        "Timestamp": ("now", "today", "utcnow"),
        "uuid": ("uuid1", "uuid6", "uuid7"),
    }.items()
    for name in names
)
STAMPS = frozenset({"st_mtime", "st_ctime", "st_atime", "st_birthtime", "getmtime", "getctime"})
IN_SQL = re.compile(
    r"\bnow\(\)|\bcurrent_(date|time|timestamp)\b|\bget_current_timestamp\b|\btransaction_timestamp\b|'now'|\btoday\(\)",
    re.IGNORECASE,
)
CLAUSE = re.compile(r"\b(SELECT|AS|WHERE|VALUES|SET|DEFAULT)\b")

# file -> what it reads, and why that is no wall-clock time which a setting ought to move
EXCEPTIONS: dict[str, tuple[str, str]] = {
    "features/feature_store/engine.py": ("time.localtime", "names the zone of the process in a refusal"),
    "pipelines/erasure/task.py": ("st_mtime", "orders files among themselves; nothing compares them with the clock"),
    "tests/architecture/test_clock.py": ("SQL:now()", "an example of what is refused"),
    "tests/clients/python/ask.py": ("datetime.now", "a client of another environment, which has none of our code"),
    "tests/features/common/test_clock.py": ("time.time st_mtime", "holds our clock against the system's"),
    "tests/pipelines/doctor/test_doctor.py": (
        "time.time",
        "a server of another machine stamps its answers by that machine's clock",
    ),
}


def _reads(file: Path) -> Iterator[tuple[int, str]]:
    """Line and name of every read of the system's clock, of every file stamp, and of clocks in SQL."""
    imported: dict[str, str] = {}
    docstrings = {id(node.value) for node in ast.walk(tree(file)) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "uuid"):
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree(file)):
        name = ""
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            name = node.attr if node.attr in STAMPS else f"{owner}.{node.attr}"
        elif isinstance(node, ast.Name):
            name = imported.get(node.id, "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            # A whole text may be prose; what asks a database names a clause as well.
            found = IN_SQL.search(node.value)
            name = f"SQL:{found[0]}" if found and CLAUSE.search(node.value) else ""
        if name in CALLS or name in STAMPS or name.startswith("SQL:"):
            yield node.lineno, name


def test_only_the_clock_reads_the_clock() -> None:
    """Whoever needs the moment takes it as an argument or asks `features.common.clock`, and file stamps are compared
    through it.
    """
    faults, used = list[str](), set[str]()
    assert len(list(_reads(CLOCK))) >= 3, "expected the clock to read the system's"
    for file in modules(*PACKAGES, "tests"):
        allowed = EXCEPTIONS.get(file.as_posix(), ("", ""))[0].split()
        for line, name in _reads(file) if file != CLOCK else ():
            if name in allowed:
                used.add(file.as_posix())
            else:
                faults.append(
                    f"{file}:{line}: reads `{name}`: take the moment as an argument, or from features.common.clock"
                )
    faults += [f"{file}: reads no clock any more: take it out of EXCEPTIONS" for file in EXCEPTIONS.keys() - used]
    refuse(faults)


def test_moments_say_their_unit() -> None:
    """A parameter or field called `now` is of a type that names its unit, so that mypy refuses seconds for
    microseconds.
    """
    faults, seen = [], 0
    for file in modules(*PACKAGES):
        for node in ast.walk(tree(file)):
            named = node.arg if isinstance(node, ast.arg) else getattr(getattr(node, "target", None), "id", "")
            if named == "now" and isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
                seen += 1
                kinds = {part.id for part in ast.walk(node.annotation) if isinstance(part, ast.Name)}
                if kinds & {"int", "float"}:
                    faults.append(
                        f"{file}:{node.lineno}: `now: {ast.unparse(node.annotation)}`: expected Micros or Seconds of"
                        " common/moments.py"
                    )
    refuse(faults)
    assert seen > 100, f"expected moments in many signatures, found {seen}"


def test_a_read_is_found_however_it_is_written(tmp_path: Path) -> None:
    """Aliases, modules and SQL are seen through; timers and arguments called `now` are left alone."""
    file = tmp_path / "reads.py"
    file.write_text(
        "import time, datetime\nfrom time import time_ns as tick, monotonic\n"
        "a = time.time()\nb = tick\nc = datetime.datetime.now(datetime.UTC)\nd = path.stat().st_mtime\n"
        "e = 'SELECT now() AS at'\nf = monotonic() + time.perf_counter()\ng = moments.now()\nh = 'say it now'\n"
    )
    assert [line for line, _ in _reads(file)] and sorted(line for line, _ in _reads(file)) == [3, 4, 5, 6, 7]
