"""Lines of the journal: what one decision saw and said, and the frames that carry lines in a file.

A frame is a head (magic, checksum, length, kind, version) and a body in MessagePack. A file is frames one after another
and nothing else, so that whatever a killed process left behind is still a file: a reader takes every whole frame,
wherever it stands, and says which bytes were none. Arrays travel as their bytes, little endian, so that writing a line
copies memory and converts nothing. Fields may be added at the end of a struct, with a default: older lines go on being
read.
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
from features.ledger.recent import KeptArm

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

DECISION = 1
"""Kind of a frame. Others may come (events); a reader of decisions passes over them."""
SETTLED = 2
"""Kind of a frame that holds sticky assignments."""
BLANK = 0
"""Kind of a frame whose line was forgotten: zeros, as long as it was, so that those behind it keep their places in the
file.
"""
FORMAT = 1
"""Version of a body. Raised only when older bodies would be misread."""
FRAME_BYTES_MAX = 1 << 20
SCORES_MAX = 1024
"""With more offers considered, only the scores of those shown are written: 8 KiB a line at most."""
PAIR_VALUES_MAX = 512
"""With more pair values (offers considered x pair columns), only those of the offers shown are written: 4 KiB a line at
most.
"""

MAGIC = b"\xf7oj\n"
_HEAD = struct.Struct("<4sIIBB")
HEAD_BYTES = _HEAD.size
_CHECKED_FROM = 8  # the checksum covers what follows it: length, kind, version, body
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
        """Positions of the offers considered, ascending."""
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
        """First 128 bits of SHA-256, in hex."""
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
    _HEAD.pack_into(buffer, 0, MAGIC, 0, len(buffer) - HEAD_BYTES, DECISION if type(line) is Line else SETTLED, FORMAT)
    with memoryview(buffer) as view:
        buffer[4:8] = zlib.crc32(view[_CHECKED_FROM:]).to_bytes(4, "little")


def blank_frame(body_bytes: int) -> bytes:
    """Return a whole frame that says nothing."""
    frame = bytearray(HEAD_BYTES + body_bytes)
    _HEAD.pack_into(frame, 0, MAGIC, 0, body_bytes, BLANK, FORMAT)
    frame[4:8] = zlib.crc32(frame[_CHECKED_FROM:]).to_bytes(4, "little")
    return bytes(frame)


def frames(data: bytes, gaps: list[tuple[int, int]]) -> Iterator[tuple[int, int, memoryview]]:
    """Every whole frame of a file as (kind, version, body).

    `gaps` takes (from, to) of the bytes that are in no frame. A gap that reaches the end is what a killed writer
    leaves, or what is being written now; any other is damage.
    """
    at, size, view = 0, len(data), memoryview(data)
    while at < size:
        head = _head_at(view, at)
        if head is not None:
            length, kind, version = head
            yield kind, version, view[at + HEAD_BYTES : at + HEAD_BYTES + length]
            at += HEAD_BYTES + length
            continue
        start = at
        at = data.find(MAGIC, start + 1)
        while at >= 0 and _head_at(view, at) is None:
            at = data.find(MAGIC, at + 1)
        at = size if at < 0 else at
        gaps.append((start, at))


def damage(content: bytes) -> str:
    """Why a file that nobody writes holds more than frames and a torn end; empty when it does not.

    Torn ends are what a killed writer or a power cut leaves: the beginning of one frame, or zeros.
    """
    gaps: list[tuple[int, int]] = []
    whole = sum(1 for _ in frames(content, gaps))
    if gaps and gaps[-1][1] == len(content):
        tail = content[gaps[-1][0] :]
        if len(tail) <= FRAME_BYTES_MAX and (MAGIC.startswith(tail[: len(MAGIC)]) or not tail.strip(b"\0")):
            gaps.pop()
    return (
        f"expected frames only, got other bytes in {len(gaps)} places: {gaps[:10]}; {whole} frames are whole"
        if gaps
        else ""
    )


def _head_at(view: memoryview, at: int) -> tuple[int, int, int] | None:
    """Length of the body, kind and version of the frame that begins here; None when no whole frame does."""
    if at + HEAD_BYTES > len(view):
        return None
    magic, checksum, length, kind, version = _HEAD.unpack_from(view, at)
    end = at + HEAD_BYTES + length
    if (
        magic != MAGIC
        or length > FRAME_BYTES_MAX
        or end > len(view)
        or zlib.crc32(view[at + _CHECKED_FROM : end]) != checksum
    ):
        return None
    return length, kind, version


def read_lines(path: Path, gaps: list[tuple[int, int]] | None = None) -> Iterator[Line]:
    """The decisions of a file, in the order of their answers. A torn tail, damage and other kinds are passed over; see
    `frames`.
    """
    for kind, version, body in frames(path.read_bytes(), [] if gaps is None else gaps):
        if kind == DECISION and version == FORMAT:
            yield _decoder.decode(body)
