"""`opportune demo`: shoppers play against the running service, and one sees how its answers follow what they do.

Nothing here knows a business: which placement, which stream tells of offers, and what may be dismissed stands in the
workspace.
"""

from __future__ import annotations

import http.client
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from features.common.errors import Failure
from features.common.timestamps import now, rfc3339
from features.common.types import ANONYMOUS, Decision, Offer
from features.config.features_file import PairColumn
from features.lake.offers import read_catalogue
from features.workspace.workspace import Workspace

SECONDS_MAX = 10.0
"""How long one request may take."""
PURCHASES = 3
"""Rows of a stream that a shopper leaves for one offer: enough to move a rank."""
DISMISSALS = 2

Json = dict[str, Any]


class DemoFailed(Failure):
    """The service did not answer as the demo needs it."""


@dataclass
class DemoCounts:
    """The law of conservation, as the answers to our events tell it."""

    sent: int = 0
    accepted: int = 0
    stored: int = 0
    duplicates: int = 0
    dead: int = 0
    refusals: list[Json] = field(default_factory=list)

    @property
    def conserved(self) -> bool:
        return self.sent == self.accepted == self.stored + self.duplicates + self.dead


class Service:
    """The running service, as a shop's frontend meets it."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise DemoFailed(f"expected an address like http://127.0.0.1:3000, got {url}")
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=SECONDS_MAX)
        self._headers = {"content-type": "application/json"} | ({"x-api-key": key} if key else {})
        self.counts = DemoCounts()

    def _ask(self, path: str, body: Json, expected: int) -> bytes:
        try:
            self._connection.request("POST", path, msgspec.json.encode(body), self._headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise DemoFailed(
                f"the service does not answer ({error}): start it with `opportune up`, or name it with --url"
            ) from error
        if answer.status != expected:
            raise DemoFailed(
                f"expected {expected} from {path}, got {answer.status}: {content.decode(errors='replace')[:300]}"
            )
        return content

    def decide(self, who: str, placement: str, **more: Any) -> Decision:
        """Offers for a customer, or for an anonymous id (which begins with `~` here)."""
        asked: Json = {"anonymous_id": who[1:]} if who.startswith(ANONYMOUS) else {"customer_id": who}
        return msgspec.json.decode(
            self._ask("/v1/decisions", asked | {"placement": placement, **more}, 200), type=Decision
        )

    def tell(self, events: list[Json]) -> None:
        """Events, durable and heard when this returns."""
        answer = msgspec.json.decode(self._ask("/v1/events", {"events": events}, 202))
        counts = self.counts
        counts.sent += len(events)
        counts.accepted += answer["accepted"]
        counts.stored += answer["stored"]
        counts.duplicates += answer["duplicates"]
        counts.dead += answer["dead"]
        counts.refusals += answer.get("refused", [])


@dataclass(frozen=True)
class Scene:
    """What was done, and the answers before and after it."""

    title: str
    before: Decision
    after: Decision
    remark: str


class Play:
    """One shopper's visit after another."""

    def __init__(self, workspace: Workspace, service: Service, placement: str, tell: Callable[[Scene], None]) -> None:
        self._workspace, self._service, self._placement, self._tell = workspace, service, placement, tell
        self._offers: dict[str, Offer] = {offer.offer_id: offer for offer in read_catalogue(workspace)}
        self._run = secrets.token_hex(4)
        self._sent: list[Json] = []

    def customer(self, customer_id: str) -> bool:
        """Looks, dismisses, buys; False where there is nothing to be shown."""
        first = self._service.decide(customer_id, self._placement)
        if len(first.offers) < 2:
            return False
        self._see(customer_id, first)
        unwanted = first.offers[0].offer_id
        self._send(
            [
                self._event(customer_id, "dismissal", decision_id=first.decision_id, offer_id=unwanted)
                for _ in range(DISMISSALS)
            ]
        )
        second = self._service.decide(customer_id, self._placement)
        gone = all(offer.offer_id != unwanted for offer in second.offers)
        remark = f"{unwanted} is {'no longer' if gone else 'still'} offered"
        self._tell(Scene(f"customer {customer_id} dismisses {unwanted} {DISMISSALS} times", first, second, remark))
        self._see(customer_id, second)
        self._buy(customer_id, second)
        return True

    def stranger(self, customer_id: str) -> None:
        """Somebody without a name dismisses, then logs in: under either id it is the same history."""
        anonymous = f"{ANONYMOUS}visit-{self._run}"
        self._service.decide(anonymous, self._placement)
        shown = self._service.decide(customer_id, self._placement)
        if not shown.offers:
            return
        unwanted = shown.offers[0].offer_id
        self._send([self._event(anonymous, "dismissal", offer_id=unwanted) for _ in range(DISMISSALS)])
        self._send([self._event(anonymous, "identify", customer_id=customer_id)])
        as_customer = self._service.decide(customer_id, self._placement)
        as_anonymous = self._service.decide(anonymous, self._placement)
        agree = [o.offer_id for o in as_customer.offers] == [o.offer_id for o in as_anonymous.offers]
        remark = (
            "what was dismissed without a name counts after the log-in; under both ids the answer is"
            f" {'the same' if agree else 'NOT the same'}"
        )
        self._tell(
            Scene(f"a visitor dismisses {unwanted}, then logs in as customer {customer_id}", shown, as_customer, remark)
        )

    def objector(self, customer_id: str) -> None:
        """A customer withdraws a purpose, and gives it again."""
        purposes = sorted(
            {purpose for view in self._workspace.views for scalar in view.scalars for purpose in scalar.purposes}
        )
        if not purposes:
            return
        before = self._service.decide(customer_id, self._placement)
        self._send([self._event(customer_id, "consent", purposes=dict.fromkeys(purposes, False))])
        after = self._service.decide(customer_id, self._placement)
        self._send([self._event(customer_id, "consent", purposes=dict.fromkeys(purposes, True))])
        remark = f"{len(after.withheld)} columns are withheld from the very next decision"
        self._tell(Scene(f"customer {customer_id} no longer allows {', '.join(purposes)}", before, after, remark))

    def repetition(self) -> None:
        """A client that was unsure sends all again, and with it something that nobody can read."""
        self._service.tell(
            [
                *self._sent[-20:],
                {"event_id": f"{self._run}-poison", "type": "no_such_type", "occurred_at": rfc3339(now())},
            ]
        )

    def _see(self, who: str, decision: Decision) -> None:
        self._send(
            [
                self._event(who, "impression", decision_id=decision.decision_id, offer_id=offer.offer_id)
                for offer in decision.offers
            ]
        )

    def _buy(self, customer_id: str, before: Decision) -> None:
        """Rows of the stream that tells of offers, for the last offer shown."""
        pair, wanted = self._telling(), before.offers[-1].offer_id
        if pair is None or wanted not in self._offers:
            return
        keys = self._offers[wanted].attributes.get(pair.match)
        key = keys[0] if isinstance(keys, list) and keys else keys
        if not isinstance(key, str) or not key:
            return
        stream = self._workspace.features.streams[pair.stream]
        fields: Json = dict.fromkeys(stream.numbers, 10.0) | {pair.key: key}
        self._send([self._event(customer_id, pair.stream, fields=fields) for _ in range(PURCHASES)])
        after = self._service.decide(customer_id, self._placement)
        ranks = [
            next((offer.rank for offer in decision.offers if offer.offer_id == wanted), 0)
            for decision in (before, after)
        ]
        remark = f"{wanted} was {_place(ranks[0])}, and is {_place(ranks[1])}"
        self._tell(
            Scene(f"customer {customer_id}: {PURCHASES} {pair.stream} of what {wanted} is about", before, after, remark)
        )

    def _telling(self) -> PairColumn | None:
        """Return the pair column that purchases of an offer's things show in."""
        found = (
            p
            for p in self._workspace.features.pairs.values()
            if p.scope == "customer" and p.stream in self._workspace.features.streams
        )
        return next(found, None)

    def _send(self, events: list[Json]) -> None:
        if events:
            self._sent += events
            self._service.tell(events)

    def _event(self, who: str, kind: str, **more: Any) -> Json:
        whose: Json = {"anonymous_id": who[1:]} if who.startswith(ANONYMOUS) else {"customer_id": who}
        return (
            {"event_id": f"{self._run}-{secrets.token_hex(6)}", "type": kind, "occurred_at": rfc3339(now())}
            | whose
            | more
        )


def _place(rank: int) -> str:
    return f"in place {rank}" if rank else "not shown"
