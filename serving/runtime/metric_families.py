"""Families of metrics: counters, gauges, histograms, and tables of counters, each on slots of 8 bytes."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator

import msgspec

ROW_NAME_BYTES = 192
"""Of a row of a table: two of its length, then its labels' values as JSON."""
OTHER = "other"
NANOSECONDS = 1_000_000_000


class Family:
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


class Counter(Family):
    """Counts up, over restarts too."""

    def add(self, *values: str, count: int = 1) -> None:
        self.slots[self.first + self._index[values]] += count

    def add_at(self, slot: int) -> None:
        self.slots[slot] += 1


class Gauge(Family):
    """A whole number of this process, summed over the living ones."""

    def set(self, value: int, *values: str) -> None:
        self.slots[self.first + self._index[values]] = value


class Histogram(Family):
    """Slots of a series: one a bucket, one for what is beyond, and the sum in nanoseconds."""

    def __init__(self, name: str, text: str, labels: dict[str, tuple[str, ...]], bounds: tuple[float, ...]) -> None:
        super().__init__("histogram", name, text, labels, len(bounds) + 2)
        self.bounds = bounds
        self._bounds_ns = [round(bound * NANOSECONDS) for bound in bounds]

    def observe(self, nanoseconds: int, slot: int) -> None:
        """Adds one duration to the series that starts at `slot` (see `slot`)."""
        slots = self.slots
        slots[slot + bisect_left(self._bounds_ns, nanoseconds)] += 1
        slots[slot + self.width - 1] += nanoseconds


class LabelTable(Family):
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
        """Return the slot of the first column of the row of these values; the other columns follow. Ask outside the hot
        path, after `attach`.
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
        self.slots, self.names, self._rows = slots, names, {values: number for number, values in row_names(names)}
        for values, number in before.items():
            old, new = self.first + number * len(self.columns), self.row(*values)
            for column in range(len(self.columns)):
                slots[new + column] += counts[old + column]


Rows = dict[tuple[str, ...], list[int]]
"""Of a table: by its labels' values, a count a column."""


def row_names(names: memoryview) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the rows that are taken, which are the first ones, and their labels' values."""
    for at in range(0, len(names), ROW_NAME_BYTES):
        length = int.from_bytes(names[at : at + 2], "little")
        if not length:
            return
        yield at // ROW_NAME_BYTES, msgspec.json.decode(names[at + 2 : at + 2 + length], type=tuple[str, ...])


def are_readable(names: memoryview, tables: list[LabelTable]) -> bool:
    """Return whether the rows of a file can be read, of all its tables: where the file is on a disk, a power cut may
    keep a length without its text.
    """
    try:
        for table in tables:
            deque(row_names(names[: len(table.names)]), maxlen=0)
            names = names[len(table.names) :]
    except msgspec.MsgspecError:
        return False
    return True


def add_rows(rows: Rows, table: LabelTable, slots: memoryview, names: memoryview) -> None:
    """Add the counts of a table's rows to those of the same labels."""
    width = len(table.columns)
    for number, values in row_names(names[: len(table.names)]):
        at = table.first + number * width
        counts = rows.setdefault(values, [0] * width)
        rows[values] = [before + more for before, more in zip(counts, slots[at : at + width], strict=True)]
