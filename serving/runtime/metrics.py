"""Counters, gauges and histograms of fixed buckets: an observation is one or two additions to 8-byte slots.

Labels are closed sets, but for the rows of a `LabelTable`.

Each process owns one file of slots, mapped into memory. Whoever is asked for the metrics adds up the files of all
processes, so that every worker gives the same answer. A file outlives its process and is taken over by the next one,
which counts on: counters never fall while the directory lives. Put the directory on a memory file system
(`memory_directory`): the kernel may hold up a write to a mapped page of a disk file while it writes the page back.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import mmap
import os
import stat
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HEADER_BYTES = 4096
INFO_BYTES_MAX = 2048
ROW_NAME_BYTES = 192
"""Of a row of a table: two of its length, then its labels' values as JSON."""
OTHER = "other"
PROCESSES_MAX = 256
_MAGIC = b"opportune-slots1"
_INFO_AT = 64
_NANOSECONDS = 1_000_000_000

LATENCY_SECONDS = (5e-5, 1e-4, 1.5e-4, 2e-4, 3e-4, 5e-4, 7.5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0)
"""Bounds of latency buckets: dense where a decision should lie."""


class _Family:
    """A metric with every series it can ever have: the product of closed sets of label values."""

    def __init__(self, kind: str, name: str, text: str, labels: dict[str, tuple[str, ...]], width: int) -> None:
        self.kind, self.name, self.text, self.labels, self.width = kind, name, text, labels, width
        self.series = list(itertools.product(*labels.values()))
        self._index = {values: number * width for number, values in enumerate(self.series)}
        self.place(0)

    def place(self, first: int) -> None:
        """Gives the family its slots, `first` to `end`, which hold whatever memory the metrics are attached to."""
        self.first, self.end = first, first + self.width * len(self.series)
        self.slots = memoryview(bytearray(8 * self.end)).cast("Q")

    def slot(self, *values: str) -> int:
        """Return where the series of these label values starts; look it up once, outside the hot path."""
        return self.first + self._index[values]


class Counter(_Family):
    """Counts up, over restarts too."""

    def add(self, *values: str, count: int = 1) -> None:
        self.slots[self.first + self._index[values]] += count

    def add_at(self, slot: int) -> None:
        self.slots[slot] += 1


class Gauge(_Family):
    """A whole number of this process, summed over the living ones."""

    def set(self, value: int, *values: str) -> None:
        self.slots[self.first + self._index[values]] = value


class Histogram(_Family):
    """Slots of a series: one a bucket, one for what is beyond, and the sum in nanoseconds."""

    def __init__(self, name: str, text: str, labels: dict[str, tuple[str, ...]], bounds: tuple[float, ...]) -> None:
        super().__init__("histogram", name, text, labels, len(bounds) + 2)
        self.bounds = bounds
        self._bounds_ns = [round(bound * _NANOSECONDS) for bound in bounds]

    def observe(self, nanoseconds: int, slot: int) -> None:
        """Adds one duration to the series that starts at `slot` (see `slot`)."""
        slots = self.slots
        slots[slot + bisect_left(self._bounds_ns, nanoseconds)] += 1
        slots[slot + self.width - 1] += nanoseconds


class LabelTable(_Family):
    """Counters by labels that become known while a process runs: so many rows, each with its labels' values and a slot
    a column.

    A row is never given up, for counters do not fall: what finds none shares the first one, whose labels are all
    `OTHER`. Rows live in the file of their process; whoever is asked adds up those of the same labels.
    """

    def __init__(self, name: str, labels: tuple[str, ...], columns: dict[str, str], rows: int) -> None:
        super().__init__("table", name, repr((labels, *columns)), {}, rows * len(columns))
        self.label_names, self.columns, self.rows_max = labels, columns, rows
        self.names = memoryview(bytearray(rows * ROW_NAME_BYTES))
        self._rows: dict[tuple[str, ...], int] = {}
        self.row(*(OTHER for _ in labels))

    def row(self, *values: str) -> int:
        """The slot of the first column of the row of these values; the other columns follow. Ask outside the hot path,
        after `attach`.
        """
        number = self._rows.get(values)
        if number is None:
            text = msgspec.json.encode(values)
            if len(self._rows) >= self.rows_max or len(text) > ROW_NAME_BYTES - 2:
                return self.first
            number = self._rows[values] = len(self._rows)
            at = number * ROW_NAME_BYTES
            self.names[at + 2 : at + 2 + len(text)] = text
            self.names[at : at + 2] = len(text).to_bytes(2, "little")  # last: a reader sees no name, or the whole
        return self.first + number * len(self.columns)

    def take_over(self, slots: memoryview, names: memoryview) -> None:
        """Goes on in a file, with the rows that it has; slots that were asked for before are void."""
        before, counts = self._rows, self.slots
        self.slots, self.names, self._rows = slots, names, {values: number for number, values in _row_names(names)}
        for values, number in before.items():
            old, new = self.first + number * len(self.columns), self.row(*values)
            for column in range(len(self.columns)):
                slots[new + column] += counts[old + column]

    def lines(self, totals: dict[tuple[str, ...], list[int]]) -> Iterator[str]:
        """A counter a column."""
        for at, (column, text) in enumerate(self.columns.items()):
            yield from (f"# HELP {self.name}_{column} {text}", f"# TYPE {self.name}_{column} counter")
            for values, counts in sorted(totals.items()):
                labels = [f'{label}="{_escaped(value)}"' for label, value in zip(self.label_names, values, strict=True)]
                yield f"{self.name}_{column}{_braced(labels)} {counts[at]}"


F = TypeVar("F", bound=_Family)


class Metrics:
    """Declare every family, then `attach` a directory; without one the slots are this process's own."""

    def __init__(self) -> None:
        self._families: list[_Family] = []
        self._info: tuple[str, str, tuple[str, ...]] | None = None
        self._info_values: tuple[str, ...] = ()
        self._beside: list[Callable[[], Iterable[str]]] = []
        self._directory: Path | None = None
        self._map: mmap.mmap | None = None

    def counter(self, name: str, text: str, **labels: Iterable[str]) -> Counter:
        return self._declare(Counter("counter", name, text, {key: tuple(values) for key, values in labels.items()}, 1))

    def gauge(self, name: str, text: str, **labels: Iterable[str]) -> Gauge:
        return self._declare(Gauge("gauge", name, text, {key: tuple(values) for key, values in labels.items()}, 1))

    def histogram(
        self, name: str, text: str, bounds: tuple[float, ...] = LATENCY_SECONDS, **labels: Iterable[str]
    ) -> Histogram:
        return self._declare(Histogram(name, text, {key: tuple(values) for key, values in labels.items()}, bounds))

    def table(self, name: str, labels: tuple[str, ...], columns: dict[str, str], rows: int) -> LabelTable:
        """Counters `<name>_<column>` with labels that are not known yet; `columns` are their texts."""
        return self._declare(LabelTable(name, labels, columns, rows))

    def info(self, name: str, text: str, *labels: str) -> None:
        """One series of value 1 whose labels say what this process serves; `set_info` gives the values."""
        self._info = (name, text, labels)

    def beside(self, lines: Callable[[], Iterable[str]]) -> None:
        """Whole lines of text that another one keeps, and that are the same in every process; asked for at each
        scrape.
        """
        self._beside.append(lines)

    def set_info(self, *values: str) -> None:
        self._info_values = values
        if self._map is not None:
            text = msgspec.json.encode(values)[:INFO_BYTES_MAX]
            # The length is written last: a reader sees the old text, nothing, or the new text.
            self._map[_INFO_AT : _INFO_AT + 4] = bytes(4)
            self._map[_INFO_AT + 4 : _INFO_AT + 4 + len(text)] = text
            self._map[_INFO_AT : _INFO_AT + 4] = len(text).to_bytes(4, "little")

    def attach(self, directory: Path) -> None:
        """Takes the first file in `directory` that no living process holds, and counts on from what it says."""
        if self._map is not None:
            raise RuntimeError("metrics: attached already: attach once a process")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        layout, names_at = self._layout(), HEADER_BYTES + 8 * self._slots_count()
        size = names_at + sum(len(table.names) for table in self._tables())
        for number in range(PROCESSES_MAX):
            file = os.open(directory / f"{number}.slots", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                os.close(file)
        else:
            raise RuntimeError(f"{directory}: expected at most {PROCESSES_MAX} processes: stop some of them")
        found = os.pread(file, size, 0) if os.fstat(file).st_size == size else b""
        if not found.startswith(layout) or not _are_readable(memoryview(found)[names_at:], self._tables()):
            os.truncate(file, 0)  # new, of another version of the program, or torn by a power cut
            os.truncate(file, size)
        self._directory, self._map = (
            directory,
            mmap.mmap(file, size),
        )  # the file stays open, and so locked, as long as we live
        slots, names = memoryview(self._map)[HEADER_BYTES:names_at].cast("Q"), memoryview(self._map)[names_at:]
        for family in self._families:
            if isinstance(family, LabelTable):
                mine, names = names[: len(family.names)], names[len(family.names) :]
                family.take_over(slots, mine)
                continue
            for slot in range(family.first, family.end):
                before = 0 if isinstance(family, Gauge) else slots[slot]
                slots[slot] = before + family.slots[slot]
            family.slots = slots
        self._map[: len(layout)] = layout
        self.set_info(*self._info_values)

    def exposition(self) -> bytes:
        """Return all series of all processes as Prometheus text 0.0.4."""
        totals, infos, rows = self._totals()
        lines: list[str] = []
        for family in self._families:
            if isinstance(family, LabelTable):
                lines += family.lines(rows[family.name])
                continue
            lines += [f"# HELP {family.name} {family.text}", f"# TYPE {family.name} {family.kind}"]
            for values in family.series:
                labels = [f'{label}="{_escaped(value)}"' for label, value in zip(family.labels, values, strict=True)]
                at = family.first + family._index[values]
                if isinstance(family, Histogram):
                    lines += _histogram_lines(family, labels, totals[at : at + family.width])
                else:
                    lines.append(f"{family.name}{_braced(labels)} {totals[at]}")
        if self._info is not None:
            name, text, names = self._info
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
            for values in sorted(infos):
                labels = [f'{label}="{_escaped(value)}"' for label, value in zip(names, values, strict=True)]
                lines.append(f"{name}{_braced(labels)} 1")
        for more in self._beside:
            lines += more()
        return ("\n".join(lines) + "\n").encode()

    def _declare(self, family: F) -> F:
        if self._map is not None:
            raise RuntimeError(f"metrics: {family.name}: declare every metric before `attach`")
        family.place(self._slots_count())
        self._families.append(family)
        return family

    def _slots_count(self) -> int:
        return self._families[-1].end if self._families else 0

    def _tables(self) -> list[LabelTable]:
        return [family for family in self._families if isinstance(family, LabelTable)]

    def _layout(self) -> bytes:
        parts = [
            (
                f.kind,
                f.name,
                f.text if isinstance(f, LabelTable) else "",
                f.width,
                sorted(f.labels),
                f.series,
                getattr(f, "bounds", ()),
            )
            for f in self._families
        ]
        return _MAGIC + hashlib.sha256(repr(parts).encode()).digest()

    def _totals(self) -> tuple[list[int], set[tuple[str, ...]], dict[str, Rows]]:
        """Of all processes: slots, infos, and the rows of each table."""
        count, tables = self._slots_count(), self._tables()
        infos = {self._info_values} if self._info_values else set()
        rows: dict[str, Rows] = {table.name: {} for table in tables}
        if self._directory is None:
            for table in tables:
                _add_rows(rows[table.name], table, table.slots, table.names)
            return (
                [value for family in self._families for value in family.slots[family.first : family.end]],
                infos,
                rows,
            )
        layout, totals = self._layout(), [0] * count
        for path in sorted(self._directory.glob("*.slots")):
            with path.open("rb") as file:
                content = file.read()
                names_at = HEADER_BYTES + 8 * count
                if (
                    len(content) != len(self._map or b"")
                    or not content.startswith(layout)
                    or not _are_readable(memoryview(content)[names_at:], tables)
                ):
                    continue  # of another version of the program, or torn
                alive = _is_held(file)
            slots, names = memoryview(content)[HEADER_BYTES:names_at].cast("Q"), memoryview(content)[names_at:]
            for family in self._families:
                if isinstance(family, LabelTable):
                    _add_rows(rows[family.name], family, slots, names)
                    names = names[len(family.names) :]
                elif alive or not isinstance(family, Gauge):
                    for slot in range(family.first, family.end):
                        totals[slot] += slots[slot]
            if alive and (length := int.from_bytes(content[_INFO_AT : _INFO_AT + 4], "little")):
                try:
                    infos.add(msgspec.json.decode(content[_INFO_AT + 4 : _INFO_AT + 4 + length], type=tuple[str, ...]))
                except msgspec.MsgspecError:
                    continue  # caught while its process was writing it; the next scrape has it
        return totals, {values for values in infos if self._info and len(values) == len(self._info[2])}, rows


def memory_directory(data_directory: Path) -> Path:
    """Return where the slots of the service with this data directory live: on /dev/shm where there is one, else within
    it.

    Raises RuntimeError when the place on /dev/shm belongs to someone else.
    """
    shared = Path("/dev/shm")  # noqa: S108 (a private directory in it, whose owner is checked)
    if not os.access(shared, os.W_OK):
        return data_directory / "metrics"
    digest = hashlib.sha256(os.fsencode(data_directory.resolve())).hexdigest()[:16]
    place = shared / f"opportune-{os.geteuid()}-{digest}"
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise RuntimeError(f"{place}: expected a directory of this user: remove it")
    return place


Rows = dict[tuple[str, ...], list[int]]
"""Of a table: by its labels' values, a count a column."""


def _row_names(names: memoryview) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The rows that are taken, which are the first ones, and their labels' values."""
    for at in range(0, len(names), ROW_NAME_BYTES):
        length = int.from_bytes(names[at : at + 2], "little")
        if not length:
            return
        yield at // ROW_NAME_BYTES, msgspec.json.decode(names[at + 2 : at + 2 + length], type=tuple[str, ...])


def _are_readable(names: memoryview, tables: list[LabelTable]) -> bool:
    """Whether the rows of a file can be read, of all its tables: where the file is on a disk, a power cut may keep a
    length without its text.
    """
    try:
        for table in tables:
            deque(_row_names(names[: len(table.names)]), maxlen=0)
            names = names[len(table.names) :]
    except msgspec.MsgspecError:
        return False
    return True


def _add_rows(rows: Rows, table: LabelTable, slots: memoryview, names: memoryview) -> None:
    width = len(table.columns)
    for number, values in _row_names(names[: len(table.names)]):
        at = table.first + number * width
        counts = rows.setdefault(values, [0] * width)
        rows[values] = [before + more for before, more in zip(counts, slots[at : at + width], strict=True)]


def _is_held(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _histogram_lines(family: Histogram, labels: list[str], slots: list[int]) -> Iterator[str]:
    seen = 0
    for bound, count in zip((*family.bounds, None), slots, strict=False):
        seen += count
        limit = 'le="+Inf"' if bound is None else f'le="{bound:g}"'
        yield f"{family.name}_bucket{_braced([*labels, limit])} {seen}"
    yield f"{family.name}_sum{_braced(labels)} {slots[-1] / _NANOSECONDS!r}"
    yield f"{family.name}_count{_braced(labels)} {seen}"


def labelled(**labels: str) -> str:
    """Return labels as Prometheus text has them, in braces."""
    return _braced([f'{name}="{_escaped(value)}"' for name, value in labels.items()])


def _braced(labels: list[str]) -> str:
    return "{" + ",".join(labels) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
