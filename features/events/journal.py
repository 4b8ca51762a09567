"""Lines of the journal: what one decision saw and said. `journal_frames.py` carries them in a file.

Arrays travel as their bytes, little endian, so that writing a line copies memory and converts nothing. Fields may be
added at the end of a struct, with a default: older lines go on being read.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features.common.types import ContextValue, Decision, DecisionRequest
from features.events.journal_frames import CHECKED_FROM, DECISION, FORMAT, HEAD, HEAD_BYTES, MAGIC, SETTLED, frames
from features.ledger.recent import KeptArm

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

SCORES_MAX = 1024
"""With more offers considered, only the scores of those shown are written: 8 KiB a line at most."""
PAIR_VALUES_MAX = 512
"""With more pair values (offers considered x pair columns), only those of the offers shown are written: 4 KiB a line at
most.
"""

_FLOAT, _INTEGER = np.dtype("<f8"), np.dtype("<i4")


class Versions(Struct, frozen=True, array_like=True):
    """What decided: the bundle's id, the fingerprint of its columns, and the digest of the `Lineup` that positions
    refer to.
    """

    bundle: str
    contract: str
    lineup: str


GivenTo = tuple[str, str, float, float, str, bool]
"""Experiment, arm, P(arm | in the experiment), P(in the experiment), reason, and whether the decision exposed the unit
to it: some arm changes what is decided there, or could have.
"""


class Line(Struct, frozen=True, array_like=True):
    """One answered decision. `bytes` fields hold arrays: float64 unless said otherwise; NaN is missing.

    Positions are those of offers in the lineup. The shown are in the order of the answer, the considered ascending.
    """

    decision_id: str
    at: int
    """Microseconds since 1970."""
    customer_id: str
    placement: str
    limit: int | None
    context: dict[str, ContextValue]
    exclude: list[str]
    degraded: tuple[str, ...]
    versions: Versions
    lineup_offers: int
    """Offers in the lineup; 0 when `considered` lists positions rather than bits."""
    considered: bytes
    """A bit for each offer of the lineup (numpy's `packbits`), or int32 positions where those are shorter."""
    shown: bytes
    """int32 positions."""
    offer_ids: list[str]
    """Of the shown."""
    propensities: bytes
    """Calibrated, of the shown."""
    probabilities: bytes
    """With which the policy would show each of the shown in its place; 1 where nothing was drawn."""
    raw_of_considered: bool
    """Whether `raw` has a score for each offer considered, or only for those shown."""
    raw: bytes
    shared: bytes
    """Customer and context columns as the model saw them, shape (shared,)."""
    offers: bytes
    """Offer columns of the shown, shape (shown, offer columns)."""
    pairs_of_considered: bool
    pairs: bytes
    """Pair columns of the considered or only of the shown, shape (offers, pair columns)."""
    config: str = ""
    """Digest of the policies and offers files that decided."""
    scores: bytes = b""
    """Priorities of the shown."""
    placements: tuple[str, ...] = ()
    """Where each of the shown stands, in an answer for several placements; `placement` then names all of them."""
    withheld: tuple[str, ...] = ()
    """Columns that were not allowed to be used; their values are missing here as they were for the decision."""

    group: str = ""
    """`holdout`, or the control group that decided; empty for all others."""
    group_probability: float = 1.0
    """Of being in that group, or in none."""
    experiments: tuple[GivenTo, ...] = ()
    """The experiments that the unit is in."""
    units: tuple[str, ...] = ()
    """Of `experiments`, whose arm each is, as the ledger names units; empty where all are the decision's own."""
    took_us: int | None = None
    """Microseconds from the read of what is known of the unit to the answer; None in lines that were written before
    this was.
    """

    def positions(self) -> Integers:
        """Return the positions of the offers considered, ascending."""
        if self.lineup_offers == 0:
            return np.frombuffer(self.considered, _INTEGER)
        bits = np.unpackbits(np.frombuffer(self.considered, np.uint8), count=self.lineup_offers)
        return np.flatnonzero(bits).astype(np.int32)

    def columns(self) -> Floats:
        """Return what the model saw of each offer shown, in model order: shape (shown, shared + offer + pair
        columns).
        """
        shown = np.frombuffer(self.shown, _INTEGER)
        if not len(shown):
            return np.empty((0, 0))
        shared = np.frombuffer(self.shared, _FLOAT)
        offers = np.frombuffer(self.offers, _FLOAT).reshape(len(shown), -1)
        pairs = np.frombuffer(self.pairs, _FLOAT)
        if self.pairs_of_considered:
            considered = self.positions()
            pairs = pairs.reshape(len(considered), -1)[np.searchsorted(considered, shown)]
        return np.hstack([np.tile(shared, (len(shown), 1)), offers, pairs.reshape(len(shown), -1)])


class Settled(Struct, frozen=True, array_like=True):
    """Sticky assignments of one unit that were to be written down, as they hold from then on: what a ledger that is
    rebuilt has them from.
    """

    unit: str
    """As the ledger names units: a customer, `~` and an anonymous id, `@` and an account."""
    at: int
    """Microseconds since 1970."""
    arms: dict[str, KeptArm]
    """By experiment; what another request wrote down first holds."""
    over: dict[str, KeptArm]
    """By experiment, what was read before, and was to be replaced."""


class Lineup(Struct, frozen=True, array_like=True):
    """The offers that positions refer to, with their columns as the model saw them; kept once a load, beside the lines.

    `values` are the offer columns, float64, shape (offers, offer columns).
    """

    offer_ids: list[str]
    values: bytes

    @property
    def digest(self) -> str:
        """Return the first 128 bits of SHA-256, in hex."""
        return hashlib.sha256(msgspec.msgpack.encode(self)).hexdigest()[:32]


_CERTAIN = struct.pack("<d", 1.0)


def considered_of(mask: NDArray[np.bool_], chosen: Integers) -> tuple[int, bytes]:
    """Return the offers considered as a line holds them, `lineup_offers` and `considered`: bits, or positions where
    those are shorter.

    Args:
        mask: one truth an offer of the lineup.
        chosen: the same as positions, int32, ascending.
    """
    return (len(mask), np.packbits(mask).tobytes()) if len(mask) < 32 * len(chosen) else (0, chosen.tobytes())


def line_of(
    request: DecisionRequest,
    decision: Decision,
    at: int,
    versions: Versions,
    considered: tuple[int, bytes],
    best: Integers,
    shown: Integers,
    propensities: Floats,
    scores: Floats,
    raw: Floats,
    shared: Floats,
    pairs: Floats,
    offer_values: Floats,
    probabilities: Floats | None = None,
    group: tuple[str, float] = ("", 1.0),
    experiments: tuple[GivenTo, ...] = (),
    units: tuple[str, ...] = (),
    took_us: int | None = None,
) -> Line:
    """Return the line of a decision, of what `decide` has in hand; 2 us for 50 offers. Copies: scratch memory may be
    used again at once.

    Args:
        considered: what `considered_of` gave; `raw` and the rows of `pairs` are in the order of the offers considered.
        best: which of those are shown, in the order of the answer.
        shown: their positions in the lineup; `propensities`, `scores` and `probabilities` are in its order.
        offer_values: offer columns of the whole lineup.
        probabilities: None where nothing was drawn.
        group, experiments, units, took_us: see `Line`.
    """
    whole_raw, whole_pairs = len(raw) <= SCORES_MAX, pairs.size <= PAIR_VALUES_MAX
    return Line(
        decision.decision_id,
        at,
        request.customer_id,
        decision.placement,
        request.limit,
        request.context,
        request.exclude,
        decision.degraded,
        versions,
        *considered,
        shown.tobytes(),
        [offer.offer_id for offer in decision.offers],
        propensities.tobytes(),
        _CERTAIN * len(best) if probabilities is None else probabilities.tobytes(),
        whole_raw,
        raw.tobytes() if whole_raw else raw[best].tobytes(),
        shared.tobytes(),
        offer_values.take(shown, 0).tobytes(),
        whole_pairs,
        pairs.tobytes() if whole_pairs else pairs[best].tobytes(),
        decision.config,
        scores.tobytes(),
        () if request.placements is None else tuple([str(offer.placement) for offer in decision.offers]),
        decision.withheld,
        *group,
        experiments,
        units,
        took_us,
    )


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Line)
decode_settled = msgspec.msgpack.Decoder(Settled).decode
"""The body of a frame of the kind `SETTLED`; raises `msgspec.MsgspecError` where it is none."""


def write_frame(line: Line | Settled, buffer: bytearray) -> None:
    """Put one frame into `buffer`, in place of what it held. 2 us for a line of 3 KB."""
    _encoder.encode_into(line, buffer, HEAD_BYTES)
    HEAD.pack_into(buffer, 0, MAGIC, 0, len(buffer) - HEAD_BYTES, DECISION if type(line) is Line else SETTLED, FORMAT)
    with memoryview(buffer) as view:
        buffer[4:8] = zlib.crc32(view[CHECKED_FROM:]).to_bytes(4, "little")


def read_lines(path: Path, gaps: list[tuple[int, int]] | None = None) -> Iterator[Line]:
    """Yield the decisions of a file, in the order of their answers.

    A torn tail, damage and other kinds are passed over; see `frames`.
    """
    for kind, version, body in frames(path.read_bytes(), [] if gaps is None else gaps):
        if kind == DECISION and version == FORMAT:
            yield _decoder.decode(body)
