"""What one event means: whether it fits the workspace, and what the ledger has to hear of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from features.columns.catalogue import category_text
from features.columns.streams import offer_categories
from features.common.following import followed, moment_of
from features.common.missing import EXPECTED_ID, NOBODY
from features.common.moments import Micros
from features.common.timestamps import MICROSECONDS, duration_seconds
from features.common.types import ANONYMOUS, CONSENT, EXPOSURE, IDENTIFY, IMPRESSION, OUTCOMES, Event, Offer
from features.config.features_file import FeaturesFile
from features.config.model_file import ModelFile
from features.config.policies import PoliciesFile
from features.contact_history import history
from features.contact_history.history import key_of, word_of
from features.contact_history.takes import ContactEvent
from features.ledger.recent import Heard, RecentEvent
from features.workspace.workspace import Workspace

RESERVED_TYPES = (IMPRESSION, IDENTIFY, CONSENT, EXPOSURE)
"""Types of events that are neither outcomes nor streams."""
AHEAD_SECONDS_MAX = 300
"""How far the clock of a client may be ahead."""
NUMBER_MAX = 1e12
"""Of values and of the numbers of streams, either sign: beyond, sums would lose their cents."""

WORDS_MAX = 1_024
"""Channels and types whose hashes are kept at hand."""

POISON = (
    "type-unknown",
    "offer-unknown",
    "clock-skew",
    "field-missing",
    "field-unknown",
    "field-type",
    "field-value",
    "out-of-range",
)
"""Codes of what does not fit."""

_word_of = lru_cache(WORDS_MAX)(word_of)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class InvalidEvent(NamedTuple):
    """Why an event does not fit: a code, the field (a JSON pointer within the event) and what was expected there."""

    code: str
    pointer: str
    expected: str


class _Known(NamedTuple):
    """What an event takes from its offer."""

    key: int
    group: int
    fields: dict[str, float | str]


def time_of(event: Event) -> int:
    """Return when it happened, as it says, microseconds since 1970."""
    return (event.occurred_at - _EPOCH) // _MICROSECOND


def outcome_types(policies: PoliciesFile, model: ModelFile) -> frozenset[str]:
    """Types of outcomes that a workspace has: everybody's, the model's label, and what its pauses wait for."""
    return frozenset((*OUTCOMES, model.label.outcome, *(pause.outcome for pause in policies.pauses.values())))


def purposes_of(features: FeaturesFile) -> frozenset[str]:
    """Purposes that a workspace knows: of its columns, and those that ask for consent."""
    declared = (
        *features.customer.attributes.values(),
        *features.context.values(),
        *features.columns.values(),
        *features.pairs.values(),
    )
    found = {purpose for column in declared for purpose in column.purposes or ()}
    found.update(
        features.customer.purposes, features.consent, *(stream.purposes for stream in features.streams.values())
    )
    return frozenset(found)


class EventSchema:
    """The events that a workspace understands, on a catalogue.

    Args:
        offers: what can be shown; None where that is not known yet: then every offer id is taken.
    """

    def __init__(self, workspace: Workspace, offers: Iterable[Offer] | None) -> None:
        features = workspace.features
        self._outcomes = outcome_types(workspace.policies, workspace.model)
        self._streams = {
            name: (frozenset(one.numbers), frozenset(one.categories)) for name, one in features.streams.items()
        }
        self._windowed = {column.stream for column in features.columns.values()}
        self._windowed |= {pair.stream for pair in features.pairs.values() if pair.scope == "customer"}
        self._purposes = purposes_of(features)
        self._arms = {key: frozenset(one.arms) for key, one in workspace.experiments.experiments.items()}
        self._late = duration_seconds(workspace.settings.events.late) * MICROSECONDS
        self._attributes = tuple(offer_categories(features).items())
        self._offers = None if offers is None else {offer.offer_id: self._offer(offer) for offer in offers}

    def _offer(self, offer: Offer) -> _Known:
        texts = {name: category_text(offer.attributes.get(attribute)) for name, attribute in self._attributes}
        fields: dict[str, float | str] = {
            "offer_id": offer.offer_id,
            **{name: text for name, text in texts.items() if text},
        }
        return _Known(key_of(offer.offer_id), key_of(offer.group) if offer.group else 0, fields)

    def poison(self, event: Event, now: Micros) -> InvalidEvent | None:
        """Why the event does not fit; None when it does.

        Args:
            now: microseconds since 1970.
        """
        kind = event.type
        time = time_of(event)
        if not now - self._late <= time <= now + AHEAD_SECONDS_MAX * MICROSECONDS:
            days = self._late / (86_400 * MICROSECONDS)
            return InvalidEvent(
                "clock-skew", "/occurred_at", f"a time within the last {days:g} days, and at most 5 minutes ahead"
            )
        if not event.customer_id and not event.anonymous_id:
            return InvalidEvent("field-missing", "/customer_id", "a customer_id or an anonymous_id")
        if event.customer_id in NOBODY or event.anonymous_id in NOBODY or event.decision_id in NOBODY:
            return _of_nobody(event)
        if kind == IMPRESSION or kind in self._outcomes:
            return self._of_offer(event)
        if kind in self._streams:
            return self._surplus(event, "fields") or self._of_stream(event, *self._streams[kind])
        if kind == IDENTIFY:
            if event.customer_id and event.anonymous_id:
                return self._surplus(event, "")
            return InvalidEvent(
                "field-missing", "/anonymous_id" if event.customer_id else "/customer_id", "both ids, to link them"
            )
        if kind == CONSENT:
            return self._surplus(event, "purposes") or self._of_consent(event)
        if kind == EXPOSURE:
            return self._surplus(event, "arm") or self._of_exposure(event)
        return InvalidEvent("type-unknown", "/type", "one of " + ", ".join(self.types))

    @property
    def types(self) -> list[str]:
        """All types that are understood."""
        return [IMPRESSION, *sorted(self._outcomes), *sorted(self._streams), IDENTIFY, CONSENT, EXPOSURE]

    def _of_offer(self, event: Event) -> InvalidEvent | None:
        if event.offer_id is None:
            return InvalidEvent("field-missing", "/offer_id", "the offer that it is about")
        if self._offers is not None and event.offer_id not in self._offers:
            return InvalidEvent("offer-unknown", "/offer_id", "an offer of the catalogue")
        if event.value is not None and not -NUMBER_MAX <= event.value <= NUMBER_MAX:
            return InvalidEvent("out-of-range", "/value", f"a number from -{NUMBER_MAX:g} to {NUMBER_MAX:g}")
        return self._surplus(event, "" if event.type == IMPRESSION else "value")

    def _surplus(self, event: Event, allowed: str) -> InvalidEvent | None:
        """What such an event does not have is refused: silently it would be lost."""
        if event.fields and allowed != "fields":
            return InvalidEvent("field-unknown", "/fields", "fields with events of a declared stream only")
        if event.purposes and allowed != "purposes":
            return InvalidEvent("field-unknown", "/purposes", "purposes with `consent` only")
        if event.value is not None and allowed != "value":
            return InvalidEvent("field-unknown", "/value", "a value with outcomes only")
        if (event.experiment is not None or event.arm is not None) and allowed != "arm":
            return InvalidEvent(
                "field-unknown",
                "/arm" if event.experiment is None else "/experiment",
                "an experiment and its arm with `exposure` only",
            )
        return None

    def _of_stream(self, event: Event, numbers: frozenset[str], categories: frozenset[str]) -> InvalidEvent | None:
        for name, value in event.fields.items():
            pointer = f"/fields/{name}"
            if name in numbers:
                if isinstance(value, str):
                    return InvalidEvent("field-type", pointer, "a number")
                if value is not None and not -NUMBER_MAX <= value <= NUMBER_MAX:
                    return InvalidEvent("out-of-range", pointer, f"a number from -{NUMBER_MAX:g} to {NUMBER_MAX:g}")
            elif name not in categories:
                return InvalidEvent("field-unknown", "/fields", "one of " + ", ".join(sorted(numbers | categories)))
            elif value is not None and not isinstance(value, str):
                return InvalidEvent("field-type", pointer, "a text")
        return None

    def _of_consent(self, event: Event) -> InvalidEvent | None:
        if not event.purposes:
            return InvalidEvent("field-missing", "/purposes", "at least one purpose")
        if not self._purposes.issuperset(event.purposes):
            return InvalidEvent("field-value", "/purposes", "one of " + ", ".join(sorted(self._purposes)))
        return None

    def _of_exposure(self, event: Event) -> InvalidEvent | None:
        if event.experiment is None or event.arm is None:
            return InvalidEvent(
                "field-missing",
                "/experiment" if event.experiment is None else "/arm",
                "an experiment and the arm that was seen",
            )
        arms = self._arms.get(event.experiment)
        if arms is None:
            return InvalidEvent("field-value", "/experiment", "an experiment of this workspace")
        return None if event.arm in arms else InvalidEvent("field-value", "/arm", "one of " + ", ".join(sorted(arms)))

    def heard(self, event: Event, received: int) -> Heard:
        """Return what the ledger has to hear of an event that fits.

        Args:
            received: when the log took it, microseconds since 1970.
        """
        kind, time = event.type, followed(time_of(event), moment_of(event.decision_id))
        if kind == IDENTIFY:
            return Heard(ANONYMOUS + str(event.anonymous_id), identify=event.customer_id, received=received)
        if kind == CONSENT:
            return Heard(event.unit, consent={purpose: (time, allowed) for purpose, allowed in event.purposes.items()})
        if kind == EXPOSURE:
            return Heard(event.unit)  # for analysis alone
        if kind in self._streams:
            given = {name: value for name, value in event.fields.items() if value is not None and value != ""}
            return Heard(event.unit, event=self._recent(event, kind, time, received, given))
        offer = self._known(event.offer_id or "")
        seen = kind == IMPRESSION
        fields = dict(offer.fields)
        if seen:
            _put(fields, placement=event.placement, channel=event.channel)
        else:
            _put(fields, type=kind, value=event.value)
        contact = ContactEvent(
            history.IMPRESSION if seen else history.OUTCOME,
            time / MICROSECONDS,
            offer.key,
            key_of(event.decision_id) if event.decision_id else 0,
            offer.group,
            _word_of(event.channel) if event.channel else 0,
            0 if seen else _word_of(kind),
        )
        stream = "impressions" if seen else "outcomes"
        return Heard(event.unit, contact, self._recent(event, stream, time, received, fields))

    def _recent(
        self, event: Event, stream: str, time: int, received: int, fields: dict[str, float | str]
    ) -> RecentEvent | None:
        """None where no window of a customer looks at the stream: it would only drive out what some window waits
        for.
        """
        return RecentEvent(key_of(event.event_id), stream, time, received, fields) if stream in self._windowed else None

    def _known(self, offer_id: str) -> _Known:
        found = None if self._offers is None else self._offers.get(offer_id)
        return found or _Known(key_of(offer_id), 0, {"offer_id": offer_id})  # it may have left the catalogue since


def _of_nobody(event: Event) -> InvalidEvent:
    """Return which of its ids is a word for what is missing."""
    name = next(name for name in ("customer_id", "anonymous_id", "decision_id") if getattr(event, name) in NOBODY)
    return InvalidEvent("field-value", f"/{name}", EXPECTED_ID)


def _put(fields: dict[str, float | str], **given: float | str | None) -> None:
    fields.update({name: value for name, value in given.items() if value is not None})


def decided_at(decision_id: str, received: int, late: int) -> Micros | None:
    """Return the moment of one of our decisions, from its id, microseconds since 1970; None where the id is not one of
    ours.

    Args:
        received: what comes later, or is more than `late` microseconds older, is no decision's moment.
    """
    moment = moment_of(decision_id)
    if moment is None or not received - late <= moment <= received + AHEAD_SECONDS_MAX * MICROSECONDS:
        return None
    return Micros(moment)
