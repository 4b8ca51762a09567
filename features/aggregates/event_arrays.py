"""Recent events as the arrays that the kernels of the fold read: times, numbers, texts, and which filters hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.aggregates import incremental_kernels as kernels
from features.columns.rows import Dictionary, Floats
from features.common.timestamps import MICROSECONDS
from features.config.features_file import Range, Where
from features.ledger.recent import RecentEvent
from features.redis_store.feast_format import WORDS_MAX

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


class EventArrays(NamedTuple):
    """Events of one stream.

    Attributes:
        times: microseconds since 1970, shape (n,).
        numbers: shape (fields, n), NaN where absent.
        texts: ids of words, shape (fields, n), -1 where absent.
        truths: which events each `where` counts, shape (wheres, n).
    """

    times: Integers
    numbers: Floats
    texts: Integers
    truths: Booleans


class EventReader:
    """Collects what a view needs of its events, and then reads them. Name all fields and filters before `compile`.

    Args:
        words: gives the ids of texts in rows.

    Attributes:
        spans: the length of each window in microseconds; None for all time.
    """

    def __init__(self, words: Dictionary) -> None:
        self.words = words
        self.spans: list[int | None] = []
        self._numbers: dict[str, int] = {}
        self._texts: dict[str, int] = {}
        self._wheres: list[Where] = []

    def number(self, name: str) -> int:
        """Return the row in `numbers` of a field."""
        return self._numbers.setdefault(name, len(self._numbers))

    def text(self, name: str) -> int:
        """Return the row in `texts` of a field."""
        return self._texts.setdefault(name, len(self._texts))

    def where(self, where: Where) -> int:
        """Return the row in `truths` of a filter."""
        if where not in self._wheres:
            self._wheres.append(where)
        return self._wheres.index(where)

    def window(self, seconds: int | None) -> int:
        """Return the position of a window in `spans`."""
        span = None if seconds is None else seconds * MICROSECONDS
        if span not in self.spans:
            self.spans.append(span)
        return self.spans.index(span)

    def compile(self, stored: Iterable[str | None]) -> None:
        """Make the filters arrays.

        Args:
            stored: fields whose texts rows hold, and which therefore need ids; others are only compared.
        """
        conditions, bounds = [], []
        sets: list[int] = []
        for number, where in enumerate(self._wheres):
            for field, wanted in where.items():
                first = len(sets)
                if isinstance(wanted, Range):
                    conditions.append([number, 0, self.number(field), 0, 0])
                    bounds.append([np.nan if limit is None else limit for limit in (wanted.minimum, wanted.below)])
                else:
                    sets += [self.words.id(text) for text in ([wanted] if isinstance(wanted, str) else wanted)]
                    conditions.append([number, 1, self.text(field), first, len(sets)])
                    bounds.append([np.nan, np.nan])
        self._conditions, self._sets = int_table(conditions, 5), np.array(sets, np.int64)
        self._bounds = np.array(bounds, np.float64).reshape(len(bounds), 2)
        kept = frozenset(stored)
        self._read = [(name, self._interned if name in kept else self._compared) for name in self._texts]

    def _compared(self, text: str) -> int:
        return self.words.ids.get(text, -1)

    def _interned(self, text: str) -> int:
        word = self.words.ids.get(text)
        if word is None:
            word = -1 if len(self.words) >= WORDS_MAX else self.words.id(text)
        return word

    def read(self, events: list[RecentEvent]) -> EventArrays:
        """Return events as arrays."""
        count = len(events)
        fields = [event.fields for event in events]
        times = np.array([event.time for event in events], np.int64)
        numbers = np.array([_numbers(fields, name) for name in self._numbers], np.float64).reshape(
            len(self._numbers), count
        )
        texts = np.array([_texts(fields, name, of) for name, of in self._read], np.int64).reshape(
            len(self._read), count
        )
        truths = np.empty((len(self._wheres), count), np.bool_)
        kernels.hold(numbers, texts, self._conditions, self._bounds, self._sets, truths)
        return EventArrays(times, numbers, texts, truths)


def int_table(rows: list[list[int]], width: int) -> Integers:
    """Return rows of integers as an array, shape (rows, width), also where there are none."""
    return np.array(rows, np.int64).reshape(len(rows), width)


def _numbers(fields: Iterable[dict[str, float | str]], name: str) -> list[float]:
    """Return a number of each event; NaN where it is absent, or is none."""
    return [value if type(value := event.get(name)) is float else _number(value) for event in fields]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else np.nan


def _texts(fields: Iterable[dict[str, float | str]], name: str, of: Callable[[str], int]) -> list[int]:
    """Return the word id of a text of each event; -1 where it is absent, is no text, or is not looked for."""
    return [of(value) if type(value := event.get(name)) is str else -1 for event in fields]
