"""The contact policies of a workspace on a catalogue: which offers a customer's contact history keeps away, and what is
taken.

The history is read with the features and keeps away what is exhausted or paused; the word that counts is the take's,
which the store does at once for all workers. Where the history could not be read, every offer that some limit or pause
concerns is kept away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf

from features.columns.catalogue import Catalogue
from features.common.moments import Seconds
from features.common.timestamps import DAY_SECONDS, duration_seconds
from features.common.types import Budget as OfferBudget
from features.config.policies import Limit as LimitRule
from features.config.policies import Pause as PauseRule
from features.config.policies import PoliciesFile
from features.contact_history.counts import CatalogueIndex, blocked, paused_positions
from features.contact_history.history import OUTCOME, entries, key_of, word_of
from features.contact_history.limits import Contact, ContactLimit, ContactPause, ContactPolicy
from features.contact_history.takes import Take
from features.ledger.budgets import BUDGET_HOLD_SECONDS_MAX, BudgetBound, Fell, Moment
from features.validation.policies import channels_of
from features.workspace.workspace import Workspace
from serving.hub.quiet_hours import day_of
from serving.hub.request_check import ANY
from serving.hub.rules import concerned

ANY_CHANNEL, EACH_CHANNEL = "any", "each"
NO_CHANNEL = ANY
"""The channel of requests that name none, where none is the default."""
STOCK = "stock of "
"""Before an offer's id, in the key of its stock."""
CONTACTS_KEPT_MAX = 200_000
"""Contacts that are kept ready, one an offer, placement and channel."""
ACCEPTANCES = ("accepted", "acceptance", "conversion")
"""Types of outcomes that mean that an offer was taken up, beside the label's own."""
ACCEPTANCES_SECONDS = 2 * 366.0 * DAY_SECONDS
"""How long a customer's acceptances are remembered where offers require or exclude others: what is older never was."""


@dataclass(frozen=True, slots=True)
class CompiledLimit:
    """A limit or pause of policies.yaml as one of the compiled ones; a limit of each channel is one for each of
    them.
    """

    name: str
    concerned: int
    placements: frozenset[str]
    channel: str | None
    """The only channel in which it concerns an offer; None: all."""

    def applies(self, placement: str, channel: str) -> bool:
        return (self.channel is None or self.channel == channel) and (
            not self.placements or placement in self.placements
        )


class Contacting:
    """Limits, pauses, prerequisites and exclusions on a catalogue.

    Args:
        channels: the declared channels.
        acceptances: types of outcomes that mean that an offer was taken up.
    """

    def __init__(
        self,
        policies: PoliciesFile,
        catalogue: Catalogue,
        channels: tuple[str, ...],
        acceptances: tuple[str, ...],
        time_zone: str,
    ) -> None:
        self._time_zone = time_zone
        self._limits: list[CompiledLimit] = []
        self._pauses: list[CompiledLimit] = []
        self._offers = [key_of(offer.offer_id) for offer in catalogue.offers]
        self._groups = [key_of(offer.group) if offer.group else 0 for offer in catalogue.offers]
        self._index = CatalogueIndex(self._offers, self._groups)
        self._members: dict[int, int] = {}
        for at, group in enumerate(self._groups):
            self._members[group] = self._members.get(group, 0) | 1 << at
        limits: list[ContactLimit] = []
        pauses: list[ContactPause] = []
        for name, rule in policies.limits.items():
            for channel in channels_counted(rule.channel, channels):
                limits.append(_limit(rule, channel))
                self._limits.append(
                    CompiledLimit(f"limit {name}", self._held(rule, catalogue), frozenset(rule.placements), channel)
                )
        for name, pause in policies.pauses.items():
            pauses.append(_pause(pause))
            self._pauses.append(
                CompiledLimit(f"pause {name}", self._held(pause, catalogue), frozenset(pause.placements), None)
            )
        bound = any(offer.requires or offer.excludes for offer in catalogue.offers)
        remembered = ACCEPTANCES_SECONDS if bound else 0.0
        self.policy = ContactPolicy(tuple(limits), tuple(pauses), float(duration_seconds(policies.hold)), remembered)
        self._at = {key: at for at, key in enumerate(self._offers)}
        self._acceptances = frozenset(map(word_of, acceptances))
        self._requires = [
            (at, frozenset(map(key_of, offer.requires))) for at, offer in enumerate(catalogue.offers) if offer.requires
        ]
        self._excludes = [
            (at, frozenset(map(key_of, offer.excludes))) for at, offer in enumerate(catalogue.offers) if offer.excludes
        ]
        self._bound_by_history = sum(1 << at for at in {at for at, _ in (*self._requires, *self._excludes)})
        self._contacts: dict[tuple[int, str, str], Contact | None] = {}
        self._budgets = {
            at: _budgets(offer.offer_id, offer.budget)
            for at, offer in enumerate(catalogue.offers)
            if offer.budget is not None
        }
        self._budgeted = sum(1 << at for at in self._budgets)
        self._stocks = frozenset(
            key_of(STOCK + offer.offer_id) for offer in catalogue.offers if offer.budget is not None
        )

    @classmethod
    def of(cls, workspace: Workspace, catalogue: Catalogue) -> Contacting:
        """Return the policy of a workspace's files."""
        acceptances = (workspace.model.label.outcome, *ACCEPTANCES)
        return cls(
            workspace.policies, catalogue, channels_of(workspace) or (), acceptances, workspace.settings.time_zone
        )

    def _held(self, rule: LimitRule | PauseRule, catalogue: Catalogue) -> int:
        """Return the offers that a limit or pause concerns: one by group has nothing to say of an offer that has
        none.
        """
        return concerned(rule, catalogue) & (self._index.grouped if rule.per == "group" else self._index.everything)

    @property
    def limits(self) -> bool:
        """Whether contacts or budgets must be taken before some offers are shown."""
        return bool(self._limits or self._budgets)

    @property
    def needed(self) -> bool:
        """Whether a decision looks at the customer's contact history."""
        return bool(self._limits or self._pauses or self._bound_by_history)

    def fallen(self, history: bytes | None, placement: str, channel: str, now: Seconds) -> list[tuple[str, int]]:
        """Return what keeps offers away now, with those offers as sets.

        Args:
            history: None when it could not be read.
            now: seconds since 1970.
        """
        if history is None:
            found = [
                (bound.name, bound.concerned)
                for bound in (*self._limits, *self._pauses)
                if bound.applies(placement, channel)
            ]
            return [*found, ("contact history", self._bound_by_history)]
        found = [
            (bound.name, offers) for bound, offers in self.holding(history, now) if bound.applies(placement, channel)
        ]
        if self._bound_by_history:
            found += self.after_acceptances(history)
        return found

    def holding(self, history: bytes, now: Seconds) -> Iterator[tuple[CompiledLimit, int]]:
        """Return the limits that are exhausted and the pauses that hold, with the offers that they keep away, as
        sets.
        """
        if history:
            exhausted = blocked(history, self.policy, self._index, now) if self._limits else {}
            resting = paused_positions(history, self.policy, self._index, now) if self._pauses else {}
            for bounds, hit in ((self._limits, exhausted), (self._pauses, resting)):
                for at, offers in hit.items():
                    yield bounds[at], offers & bounds[at].concerned

    def ends(self, history: bytes) -> Iterable[float]:
        """Return the moments, seconds since 1970, at which some limit or pause may let go: an entry leaves its window,
        or its hold ends.
        """
        spans = {limit.window_seconds for limit in self.policy.limits} | {self.policy.hold_seconds}
        spans |= {pause.pause_seconds for pause in self.policy.pauses}
        spans |= {pause.within_seconds + pause.pause_seconds for pause in self.policy.pauses}
        return {time + span for time in entries(history)["time"].tolist() for span in spans}

    def after_acceptances(self, history: bytes) -> list[tuple[str, int]]:
        """Return what was accepted before keeps away: offers that lack what they require, and those that it
        excludes.
        """
        found = entries(history)
        outcomes = found[found["kind"] == OUTCOME]  # most histories have none, and entry by entry is slow
        accepted = {int(entry["offer"]) for entry in outcomes if int(entry["what"]) in self._acceptances}
        lacking = sum(1 << at for at, required in self._requires if required.isdisjoint(accepted))
        barred = sum(1 << at for at, excluded in self._excludes if not excluded.isdisjoint(accepted))
        return [("requires", lacking), ("excludes", barred)]

    def limited(self, offer: int, placement: str, channel: str) -> Contact | None:
        """Return what must be taken before an offer is shown; None where no limit concerns it."""
        key = (offer, placement, channel)
        if key not in self._contacts:
            if len(self._contacts) >= CONTACTS_KEPT_MAX:  # a channel that is not declared may be any text
                self._contacts.clear()
            positions = [
                at
                for at, bound in enumerate(self._limits)
                if bound.concerned >> offer & 1 and bound.applies(placement, channel)
            ]
            made = (
                self.policy.contact(self._offers[offer], self._groups[offer], word_of(channel), positions)
                if positions
                else None
            )
            self._contacts[key] = made
        return self._contacts[key]

    def concerned(self, placement: str, channel: str) -> int:
        """Return the offers that a limit or a budget concerns, as a set."""
        found = self._budgeted
        for bound in self._limits:
            if bound.applies(placement, channel):
                found |= bound.concerned
        return found

    def take(self, customer_id: str, decision_id: str, now: Seconds, contacts: list[Contact]) -> Take:
        """Return what a decision asks of the store."""
        return Take(customer_id, key_of(decision_id), now, tuple(contacts), self.policy)

    def budgets(self, offer: int) -> tuple[BudgetBound, ...]:
        """Return what must be reserved before an offer is shown: of its budget of shows, and of its stock."""
        return self._budgets.get(offer, ())

    def moment(self, now: Seconds) -> Moment:
        """Return when budgets are taken; the day is that of the workspace's time zone, from 1970 on."""
        return Moment(now, day_of(now, self._time_zone), min(self.policy.hold_seconds, BUDGET_HOLD_SECONDS_MAX))

    def beyond(self, limit: int, offer: int, placement: str, channel: str) -> int:
        """Return the offers for which there is no room at a placement where there was none for `offer`, as a set: those
        that are counted with it.
        """
        bound = self._limits[limit]
        if not bound.applies(placement, channel):
            return 0
        scope = self.policy.limits[limit].scope
        if scope == "offer":
            return bound.concerned & 1 << offer
        return bound.concerned & (self._members[self._groups[offer]] if scope == "group" else -1)

    def name_of(self, limit: int) -> str:
        """Return the name of a limit that fell, as in policies.yaml."""
        return self._limits[limit].name

    def name_of_budget(self, budget: BudgetBound, which: Fell) -> str:
        """Return what a budget that fell is called in explanations."""
        return f"budget {'stock' if budget.offer in self._stocks else which}"


def channels_counted(channel: str, channels: tuple[str, ...]) -> tuple[str | None, ...]:
    """Return the channels that a limit counts one by one; None: all together.

    Where each is counted, so is the one of requests that name none: they would pass by every limit.
    """
    if channel == EACH_CHANNEL:
        return (*channels, NO_CHANNEL)
    return (None if channel == ANY_CHANNEL else channel,)


def _budgets(offer_id: str, budget: OfferBudget) -> tuple[BudgetBound, ...]:
    daily, lifetime, stock = (
        inf if most is None else float(most) for most in (budget.daily, budget.lifetime, budget.stock)
    )
    shows = () if daily == lifetime == inf else (BudgetBound(key_of(offer_id), daily, lifetime),)
    return shows if stock == inf else (*shows, BudgetBound(key_of(STOCK + offer_id), inf, stock))


def _limit(rule: LimitRule, channel: str | None) -> ContactLimit:
    return ContactLimit(
        rule.max,
        float(duration_seconds(rule.window)),
        rule.per,
        0,
        0 if channel is None else word_of(channel),
        rule.count,
    )


def _pause(rule: PauseRule) -> ContactPause:
    return ContactPause(
        word_of(rule.outcome),
        rule.times,
        float(duration_seconds(rule.within)),
        float(duration_seconds(rule.pause)),
        rule.per,
    )
