"""The online engine: one small interface in front of every store that a decision can read from.

An engine gives the row of one customer as plain arrays, laid out by the views of the workspace, whatever the store.
Three engines implement it, held by one contract suite: `embedded` (LMDB, in process), `redis` (Redis, Valkey, clusters)
and `feast` (any other store of Feast, slower).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.columns.views import View
from features.common.errors import Failure

Floats = NDArray[np.float64]
Ids = NDArray[np.uint32]


CUSTOMER_JOIN_KEY = "customer_id"
EVERYONE_JOIN_KEY = "everyone_id"
"""Feast's join keys of the two entities; part of the key of every stored record."""


class Dictionary:
    """Texts as small numbers, given in the order in which they are first seen; one for each process and engine.

    Categories and keys travel as word ids, so that a row is plain numbers and a bundle turns an id into its own code by
    one look-up in an array, longer whenever `len(words)` has grown. Ids are never reused, not even when a store was
    rebuilt; id 0 is the empty text. `id` may be called from any thread.
    """

    def __init__(self, texts: list[str] | None = None) -> None:
        self.texts: list[str] = []
        self.ids: dict[str, int] = {}
        self._adding = threading.Lock()
        for text in ["", *(texts or [])]:
            self.id(text)

    def id(self, text: str) -> int:
        """Return the id of a text, new if need be."""
        found = self.ids.get(text)
        if found is None:
            with self._adding:
                found = self.ids.get(text)
                if found is None:
                    found = len(self.texts)
                    self.texts.append(text)  # before its id is given away: whoever has an id finds its text
                    self.ids[text] = found
        return found

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class RowSchema:
    """Where each stored value of a customer's views goes in a row.

    Slots number the scalars of all views in order; families are numbered likewise. Views of the entity `everyone` have
    a schema of their own.
    """

    views: tuple[View, ...]
    scalars: dict[str, int]
    """`view.scalar` -> slot."""
    families: dict[str, int]
    """`view.family` -> position in `OnlineRow.families`."""

    @staticmethod
    def of(views: tuple[View, ...], entity: str = "customer") -> RowSchema:
        chosen = tuple(view for view in views if view.entity == entity)
        scalars = [f"{view.name}.{scalar.name}" for view in chosen for scalar in view.scalars]
        families = [f"{view.name}.{family.name}" for view in chosen for family in view.families]
        return RowSchema(
            chosen, {name: slot for slot, name in enumerate(scalars)}, {name: at for at, name in enumerate(families)}
        )

    def nobody(self) -> OnlineRow:
        """Return a new row of which nothing is known: an unknown customer's, or one that was not read."""
        families: list[KeyedRow | None] = [None] * len(self.families)
        return OnlineRow(np.full(len(self.scalars), np.nan), families, np.full(len(self.views), np.nan))


@dataclass(slots=True)
class KeyedRow:
    """A family of one customer: word ids of its keys (sorted by text), shape (k,), and values, shape (measures, k)."""

    keys: Ids
    values: Floats
    hidden: tuple[int, ...] = ()
    """Measures that may not be used: missing for every offer, where one without keys would otherwise have none, that is
    0.
    """


@dataclass(slots=True)
class OnlineRow:
    """What one read gives of one customer. Its arrays may be read-only views of the stored record: copy before writing.

    Attributes:
        numbers: one value a slot: numbers and integers as they are, booleans 0 or 1, times in seconds since 1970 (exact
            to the microsecond as far as a double goes), categories as word ids; NaN is missing.
        families: one a family of the plan; None when its view is absent, or its list of keys. A measure that is absent
            is NaN.
        event_times: seconds since 1970, one a view of the plan; NaN when the view is absent: the customer is unknown to
            it.
    """

    numbers: Floats
    families: list[KeyedRow | None] = field(default_factory=list)
    event_times: Floats = field(default_factory=lambda: np.empty(0))

    @property
    def known(self) -> bool:
        """Whether any view has a row for this customer."""
        return any(
            time == time for time in self.event_times.tolist()
        )  # NaN is not itself; a few numbers, no array's price


class StoreUnavailable(Failure):
    """The online store did not answer in time, or is damaged or gone: decide without features, and say so."""


class OnlineEngine(Protocol):
    """Reads rows. `words` grows as texts are met. `read_now` and `read` belong to one event loop thread, `everyone` to
    any.

    They raise StoreUnavailable, never anything else that a store may throw. An unknown customer is a row of NaN. What
    is stored but does not decode is missing, and counted in `damaged`. An engine recovers by itself when its store
    does.
    """

    words: Dictionary
    plan: RowSchema
    damaged: int

    def read_now(self, customer_id: str) -> OnlineRow | None:
        """Return the row without waiting, or None where a read needs a round trip: then `await read`."""
        ...

    async def read(self, customer_id: str) -> OnlineRow:
        """Return the row of one customer, within the engine's deadline."""
        ...

    def everyone(self) -> OnlineRow:
        """Return the one row of the views of everyone, laid out by `RowSchema.of(views, "everyone")`; blocking, for
        catalogue loads.
        """
        ...

    def close(self) -> None: ...
