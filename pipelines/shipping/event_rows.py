"""An event of the log as rows of the lake, by its type: an impression, an outcome, a row of a stream, a link, consent,
an exposure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from features.common.timestamps import to_microseconds
from features.common.types import CONSENT, EXPOSURE, IDENTIFY, IMPRESSION, OUTCOMES, Event, unit_of
from features.lake.loop_tables import CONSENTS, EXPOSURES, LINKS, UNCLAIMED
from features.lake.tables import stream_table
from features.workspace.experiments import ReadExperiment, read_experiments
from features.workspace.ramps import standings_of
from features.workspace.rulebook import read_rules
from features.workspace.workspace import Workspace
from pipelines.shipping.parts import LakeParts

_decoder = msgspec.msgpack.Decoder(Event)

CLIENT = "client"
"""The reason of exposures that a client told of."""


class EventRows:
    """Turns events into rows.

    A stream that is no longer declared is written as the event has it where the lake has the stream's table, so that it
    is whole when it is declared again; where the lake has none, the event goes whole into `unclaimed`.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._streams = workspace.features.streams
        paused = (pause.outcome for pause in workspace.policies.pauses.values())
        self._outcomes = {*OUTCOMES, workspace.model.label.outcome, *paused}
        self._lake = workspace.lake
        book = read_rules(workspace.policies, workspace.features, workspace.settings.currency)
        standings = standings_of(
            workspace.experiments, workspace.data
        )  # as they are now: a worker's workspace may be older
        self._experiments = {
            one.key: one for one in read_experiments(workspace.experiments, book, standings).experiments
        }

    def add(self, received: int, unit: str, body: bytes, parts: LakeParts) -> str:
        """Add the rows of one event; what is wrong with one that is no row of its own table, else empty: its type, or
        `unreadable`.
        """
        try:
            event = _decoder.decode(body)
        except msgspec.MsgspecError:
            return "unreadable"
        at = to_microseconds(event.occurred_at)
        stamp = (event.event_id, received)
        unit = unit or event.unit
        if event.type == IMPRESSION:
            parts.add(
                "impressions", (event.decision_id, unit, event.offer_id, at, event.placement, event.channel, *stamp), at
            )
        elif event.type == IDENTIFY:
            parts.add(LINKS.name, (unit_of(None, event.anonymous_id), event.customer_id, at, *stamp), at)
        elif event.type == CONSENT:
            for purpose, allowed in event.purposes.items():
                parts.add(CONSENTS.name, (unit, at, purpose, allowed, *stamp), at)
        elif event.type == EXPOSURE:
            parts.add(
                EXPOSURES.name, (*_exposure(event, unit, at, self._experiments.get(event.experiment or "")), *stamp), at
            )
        elif event.type in self._streams:
            self._add_stream(event, unit, at, stamp, parts)
        elif event.type in self._outcomes or (event.offer_id and not event.fields):
            parts.add("outcomes", (event.decision_id, unit, event.offer_id, event.type, at, event.value, *stamp), at)
        elif (self._lake / stream_table(event.type).replace(".", "/")).is_dir():
            parts.add(stream_table(event.type), (unit, at, *stamp), at, dict(event.fields))
        else:
            parts.add(UNCLAIMED.name, (unit, at, event.type, msgspec.json.encode(event).decode(), *stamp), at)
            return event.type
        return ""

    def _add_stream(self, event: Event, unit: str, at: int, stamp: tuple[str, int], parts: LakeParts) -> None:
        stream, fields = self._streams[event.type], event.fields
        numbers = [_number(fields.get(name)) for name in stream.numbers]
        texts = [_text(fields.get(name)) for name in stream.categories]
        known = {*stream.numbers, *stream.categories}
        more = (
            {name: value for name, value in fields.items() if name not in known} if len(fields.keys() - known) else None
        )
        parts.add(stream_table(event.type), (unit, at, *numbers, *texts, *stamp), at, more)


def _exposure(event: Event, unit: str, at: int, read: ReadExperiment | None) -> tuple[Any, ...]:
    """Probabilities are those of the split as it is now: a client does not tell those of the moment at which it asked.
    An arm that has nobody now, as after a ramp was rolled back, had others then: they are missing.
    """
    probability = covered = None
    randomized = unit
    if read is not None:
        covered = read.namespace_share * read.split.covered or None
        if event.arm in read.arms:
            probability = read.split.shares[read.arms.index(event.arm)] or None
        if read.entry.unit == "anonymous" and event.anonymous_id:
            randomized = unit_of(None, event.anonymous_id)
    how = (randomized if randomized != unit else None, event.channel, event.placement, None, None)
    return (unit, event.experiment, event.arm, at, probability, covered, CLIENT, event.decision_id, *how)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _text(value: Any) -> str | None:
    return value or None if isinstance(value, str) else None if value is None else str(value)
