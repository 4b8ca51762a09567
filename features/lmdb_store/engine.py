"""The embedded engine: rows straight from LMDB's memory map, some microseconds each, without a server.

The decode of a record is planned once for each combination of schemas that records are made of; a plan is then a few
array look-ups. Nothing here writes, and nothing here imports Feast: `feature_store/lmdb_online_store.py` is the other
side.
"""

from __future__ import annotations

import struct
import threading
from pathlib import Path
from time import monotonic
from zlib import crc32

import lmdb
import numpy as np
from numpy import frombuffer
from numpy.typing import NDArray

from features.columns.rows import (
    CUSTOMER_JOIN_KEY,
    EVERYONE_JOIN_KEY,
    Dictionary,
    Floats,
    Ids,
    KeyedRow,
    OnlineRow,
    RowSchema,
    StoreUnavailable,
)
from features.columns.views import EVERYONE, View
from features.lmdb_store.environment import (
    CURRENT,
    ROWS,
    WORDS,
    Environment,
    attach,
    entries_after,
    failing,
    schemas_in,
)
from features.lmdb_store.record import CHECKED, FORMAT, HEADER, KEY_BYTES_MAX, LIST_NONE, DamagedRecord, Schema
from features.lmdb_store.row_layout import SectionPlan, Shape

CHECK_SECONDS = 0.2
"""How often the path is looked at: a deleted or swapped store is noticed within this time."""

_F8 = np.dtype("<f8")
_U4 = np.dtype("<u4")
_CUSTOMER = ROWS + CUSTOMER_JOIN_KEY.encode() + b"\0"
_header = HEADER.unpack_from
_EVERYONE = ROWS + f"{EVERYONE_JOIN_KEY}\0{EVERYONE}".encode()


class EmbeddedEngine:
    """Reads the LMDB store at `path`; see `OnlineEngine`. The store may be missing at first, go away and come back.

    Args:
        path: the folder that holds the generations.
        views: the views to lay out; what the store has beyond them is passed over.
    """

    def __init__(self, path: Path | str, views: tuple[View, ...], check_seconds: float = CHECK_SECONDS) -> None:
        self.path = Path(path)
        self.words = Dictionary()
        self.plan = RowSchema.of(views)
        self.everyone_plan = RowSchema.of(views, "everyone")
        self.damaged = 0
        self._check_seconds = check_seconds
        self._check_at = 0.0
        self._environment: Environment | None = None
        self._pointer: tuple[int, int] | None = None
        self._why = ""
        self._schemas: dict[int, Schema] = {}
        self._shapes: dict[bytes, Shape] = {}
        self._everyone_shapes: dict[bytes, Shape] = {}
        self._stored_words: list[int] = []
        self._renamed: NDArray[np.uint32] | None = None
        """Stored word id -> our word id; None while they are the same, which they are until a store is replaced."""
        self._loading = threading.RLock()

    def read_now(self, customer_id: str) -> OnlineRow:
        """Return the row of one customer, at once: an embedded read never needs to wait."""
        return self._read(_CUSTOMER + customer_id.encode("utf-8", "surrogatepass"), self.plan, self._shapes)

    async def read(self, customer_id: str) -> OnlineRow:
        return self.read_now(customer_id)

    def everyone(self) -> OnlineRow:
        return self._read(_EVERYONE, self.everyone_plan, self._everyone_shapes)

    def close(self) -> None:
        self._leave("the engine was closed")
        self._check_at = float("inf")

    def _read(self, key: bytes, plan: RowSchema, shapes: dict[bytes, Shape]) -> OnlineRow:
        if monotonic() >= self._check_at:
            self._check()
        environment = self._environment
        if environment is None:
            with self._loading:  # another thread may be opening it right now
                environment = self._environment
            if environment is None:
                raise StoreUnavailable(self._why)
        if len(key) > KEY_BYTES_MAX:
            return plan.nobody()
        try:
            if not environment.whole():
                raise lmdb.CorruptedError("the file was cut off")
            transaction = environment.begin()
            try:
                record = transaction.get(key)
                if record is not None:
                    return self._decode(record, plan, shapes, transaction)
            finally:
                transaction.abort()
        except (DamagedRecord, struct.error, ValueError, IndexError):
            self.damaged += 1
        except (lmdb.Error, OSError) as error:
            self._leave(f"cannot read the online store at {self.path}: {error}")
            raise StoreUnavailable(self._why) from error
        return plan.nobody()

    def _decode(
        self, record: bytes, plan: RowSchema, shapes: dict[bytes, Shape], transaction: lmdb.Transaction[bytes]
    ) -> OnlineRow:
        if crc32(record) != CHECKED or record[0] != FORMAT:
            raise DamagedRecord("a record's format or checksum does not fit")
        _, sections, _, words = _header(record)
        if words > len(self._stored_words):
            self._load_words(transaction, words)
        ids = record[HEADER.size : HEADER.size + 4 * sections]
        shape = shapes.get(ids) or self._shape(plan, shapes, ids, transaction)
        doubles = frombuffer(record, _F8)
        families: list[KeyedRow | None] = shape.families.copy()
        if families:
            units = frombuffer(record, _U4)
            at = shape.variable
            for section, length in zip(
                shape.sections, shape.lengths.unpack_from(record, shape.lengths_at), strict=True
            ):
                if section.families:
                    lengths = section.lengths.unpack_from(record, at)
                    if section.runs is None or not self._runs(section, lengths, at, doubles, units, families):
                        self._lists(section, lengths, at, doubles, units, families)
                at += length
        row = OnlineRow(shape.numbers(doubles), families, shape.events(doubles))
        return row if self._renamed is None else self._rename(row, shape.categories)

    def _runs(
        self,
        section: SectionPlan,
        lengths: tuple[int, ...],
        at: int,
        doubles: Floats,
        units: Ids,
        families: list[KeyedRow | None],
    ) -> bool:
        """Read the families of a section, all measures of one as a single view of the record; False where their lists
        differ in length.
        """
        at = (at + section.lengths.size) >> 3
        for position, keys, measures in section.runs or ():
            count = lengths[keys]
            if count == LIST_NONE or lengths[keys + 1 : keys + 1 + measures] != (count,) * measures:
                return False
            first = at + ((count + 1) >> 1)
            ids = units[2 * at : 2 * at + count]
            at = first + measures * count
            families[position] = KeyedRow(ids, doubles[first:at].reshape(measures, count))
        return True

    def _lists(
        self,
        section: SectionPlan,
        lengths: tuple[int, ...],
        at: int,
        doubles: Floats,
        units: Ids,
        families: list[KeyedRow | None],
    ) -> None:
        """Read the same where lists are missing, of other lengths or in another order."""
        at += section.lengths.size
        starts = []
        for length, text in zip(lengths, section.texts, strict=True):
            starts.append(at)
            if length != LIST_NONE:
                at += (4 * length + 7) & -8 if text else 8 * length
        for position, keys, measures in section.families:
            count = lengths[keys]
            families[position] = None
            if count == LIST_NONE:
                continue
            values = np.full((len(measures), count), np.nan)
            for measure, index in enumerate(measures):
                if index < 0 or lengths[index] == LIST_NONE:
                    continue
                if lengths[index] == count:
                    values[measure] = doubles[starts[index] >> 3 : (starts[index] >> 3) + count]
                else:
                    self.damaged += 1
            families[position] = KeyedRow(units[starts[keys] >> 2 : (starts[keys] >> 2) + count], values)

    def _rename(self, row: OnlineRow, categories: NDArray[np.intp]) -> OnlineRow:
        """Ids of a store that was replaced, as the ids that this process gave its words before."""
        renamed = self._renamed
        assert renamed is not None
        slots = categories[~np.isnan(row.numbers[categories])]
        row.numbers[slots] = renamed[row.numbers[slots].astype(np.intp)]
        for family in row.families:
            if family is not None:
                family.keys = renamed[family.keys]
        return row

    def _shape(
        self, plan: RowSchema, shapes: dict[bytes, Shape], ids: bytes, transaction: lmdb.Transaction[bytes]
    ) -> Shape:
        numbers = struct.unpack(f"<{len(ids) // 4}I", ids)
        with self._loading:
            if any(number not in self._schemas for number in numbers):
                schemas_in(transaction, self._schemas)
            if any(number not in self._schemas for number in numbers):
                raise DamagedRecord("a record names a schema that the store does not have")
            shape = shapes[ids] = Shape(plan, numbers, self._schemas)
        return shape

    def _load_words(self, transaction: lmdb.Transaction[bytes], needed: int) -> None:
        """Takes over words that other processes have added."""
        with self._loading:
            met = len(self._stored_words)
            texts = entries_after(transaction, WORDS, met)
            self._stored_words.extend(self.words.id(text.decode("utf-8", "surrogatepass")) for text in texts)
            if needed > len(self._stored_words):
                raise DamagedRecord("a record names words that the store does not have")
            if self._renamed is not None or self._stored_words[met:] != list(range(met, len(self._stored_words))):
                self._renamed = np.array(self._stored_words, dtype=np.uint32)

    def _check(self) -> None:
        """Looks whether the path still leads to the store that is open, and opens what it leads to."""
        with self._loading:
            self._check_at = monotonic() + self._check_seconds
            try:
                found = (self.path / CURRENT).stat()
            except OSError:
                self._leave(f"there is no online store at {self.path}; `opportune materialize` builds it")
                return
            pointer = (found.st_ino, found.st_mtime_ns)
            environment = self._environment
            if environment is not None and pointer == self._pointer and environment.same:
                try:
                    environment.measure()
                except lmdb.Error as error:
                    self._leave(f"cannot read the online store at {self.path}: {error}")
                return
            self._leave("")
            try:
                opened = attach(self.path)
                try:
                    with failing("read the words of the online store"), opened.begin() as transaction:
                        self._schemas, self._stored_words, self._renamed = {}, [], None
                        self._shapes, self._everyone_shapes = {}, {}
                        self._load_words(transaction, 0)
                except StoreUnavailable:
                    opened.release()
                    raise
            except StoreUnavailable as error:
                self._why = str(error)
                return
            self._environment, self._pointer = opened, pointer

    def _leave(self, why: str) -> None:
        environment, self._environment, self._why = self._environment, None, why
        if environment is not None:
            environment.release()
