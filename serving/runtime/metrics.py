"""Counters, gauges and histograms of fixed buckets: an observation is one or two additions to 8-byte slots.

Labels are closed sets, but for the rows of a `LabelTable`.

Each process owns one file of slots, mapped into memory. Whoever is asked for the metrics adds up the files of all
processes, so that every worker gives the same answer. A file outlives its process and is taken over by the next one,
which counts on: counters never fall while the directory lives. Put the directory on a memory file system
(`slots_folder.memory_directory`): the kernel may hold up a write to a mapped page of a disk file while it writes the
page back.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from serving.runtime.exposition import braced, escaped, histogram_lines, table_lines
from serving.runtime.metric_families import (
    Counter,
    Family,
    Gauge,
    Histogram,
    LabelTable,
    Rows,
    add_rows,
    are_readable,
)

HEADER_BYTES = 4096
INFO_BYTES_MAX = 2048
PROCESSES_MAX = 256
_MAGIC = b"opportune-slots1"
_INFO_AT = 64

LATENCY_SECONDS = (5e-5, 1e-4, 1.5e-4, 2e-4, 3e-4, 5e-4, 7.5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0)
"""Bounds of latency buckets: dense where a decision should lie."""


F = TypeVar("F", bound=Family)


class Metrics:
    """Declare every family, then `attach` a directory; without one the slots are this process's own."""

    def __init__(self) -> None:
        self._families: list[Family] = []
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
        if not found.startswith(layout) or not are_readable(memoryview(found)[names_at:], self._tables()):
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
                lines += table_lines(family, rows[family.name])
                continue
            lines += [f"# HELP {family.name} {family.text}", f"# TYPE {family.name} {family.kind}"]
            for values in family.series:
                labels = [f'{label}="{escaped(value)}"' for label, value in zip(family.labels, values, strict=True)]
                at = family.first + family._index[values]
                if isinstance(family, Histogram):
                    lines += histogram_lines(family, labels, totals[at : at + family.width])
                else:
                    lines.append(f"{family.name}{braced(labels)} {totals[at]}")
        if self._info is not None:
            name, text, names = self._info
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
            for values in sorted(infos):
                labels = [f'{label}="{escaped(value)}"' for label, value in zip(names, values, strict=True)]
                lines.append(f"{name}{braced(labels)} 1")
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
        """Return, of all processes, slots, infos, and the rows of each table."""
        count, tables = self._slots_count(), self._tables()
        infos = {self._info_values} if self._info_values else set()
        rows: dict[str, Rows] = {table.name: {} for table in tables}
        if self._directory is None:
            for table in tables:
                add_rows(rows[table.name], table, table.slots, table.names)
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
                    or not are_readable(memoryview(content)[names_at:], tables)
                ):
                    continue  # of another version of the program, or torn
                alive = _is_held(file)
            slots, names = memoryview(content)[HEADER_BYTES:names_at].cast("Q"), memoryview(content)[names_at:]
            for family in self._families:
                if isinstance(family, LabelTable):
                    add_rows(rows[family.name], family, slots, names)
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


def _is_held(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
