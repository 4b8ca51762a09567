"""Everything a decision needs, in memory and made once: bundle, catalogue, layout, kernel, treatments.

A `Loaded` never changes. A new bundle or catalogue is a new one, rehearsed and then put in place by one assignment: a request
sees the old or the new, never both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.catalogue import Catalogue
from features.layout import Layout
from features.moments import rfc3339
from features.online import OnlineRow, Plan, Words
from features.vocabulary import ModelStamp, Offer, Treatment
from features.workspace import Workspace
from serving.kernel import Kernel, OfferTable
from training.bundle import BadBundle, Bundle, Golden, numbers

ANY_CHANNEL = "any"


@dataclass(frozen=True, slots=True)
class Requirement:
    """An eligibility rule: this matched column must be at least so much."""

    name: str
    column: str
    at_least: float
    unknown: bool


class Calibrator:
    """A bundle's calibration with its knots as arrays."""

    def __init__(self, bundle: Bundle) -> None:
        self._given = bundle.calibration
        self._x, self._y = np.array(self._given.x), np.array(self._given.y)

    def __call__(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of raw scores, same shape."""
        if self._given.method == "isotonic":
            return np.interp(raw, self._x, self._y)
        return self._given.probabilities(raw)


class Loaded:
    """A bundle on a catalogue. Holds scratch memory of layout and kernel: for one thread only.

    Args:
        everyone: the row of the views of everyone, of which offer columns are made.
        words: the engine's word ids.
        now: seconds since 1970.

    Raises:
        BadBundle: the bundle's columns are not the workspace's, or a golden request is not answered as recorded.
    """

    def __init__(self, workspace: Workspace, bundle: Bundle, offers: list[Offer], everyone: OnlineRow, words: Words, now: float) -> None:
        if bundle.contract.fingerprint != workspace.contract.fingerprint:
            raise BadBundle("expected a bundle for the columns of the workspace, got one for others: run `opportune train` and `opportune publish`")
        self.workspace, self.bundle, self.everyone = workspace, bundle, everyone
        self.catalogue = Catalogue(offers)
        everyone_plan = Plan.of(workspace.views, "everyone")
        self.layout = Layout(bundle.contract, Plan.of(workspace.views), everyone_plan, self.catalogue, bundle.categories, words)
        shared, offer, pair = len(self.layout.shared), len(self.layout.offer), len(self.layout.pair)
        ends = np.cumsum([0, shared, offer, pair])
        defaults = [0.0 if column.empty == "zero" and column.relative != "rank" else np.nan for column in self.layout.pair]
        self.kernel = Kernel(bundle.forest, *(list(range(a, b)) for a, b in zip(ends, ends[1:], strict=False)), pair_default=defaults)
        self.calibrate = Calibrator(bundle)
        self.offer_values = self.layout.offer_values(everyone, now)
        self.table: OfferTable = self.kernel.prepare(self.offer_values)
        self.stamp = ModelStamp(bundle.manifest.name, bundle.manifest.version, bundle.id)
        self.requirements = [
            Requirement(name, rule.pair, rule.at_least, rule.unknown == "eligible") for name, rule in workspace.policies.eligibility.items()
        ]
        self.placements = {name: _places(offers, name) for name in workspace.offers.placements}
        self.treatments = [_treatments(offer, workspace.offers.treatments) for offer in offers]
        self.reasons = [(column.name, column.reason) for column in (*bundle.contract.columns, *bundle.contract.auxiliary) if column.reason]
        self.rehearse()

    def rehearse(self) -> None:
        """Answer the golden requests; also makes every code path warm before the first customer."""
        if not self.bundle.golden:
            raise BadBundle("expected golden requests in the bundle, got none: a check that runs nothing has failed")
        for number, case in enumerate(self.bundle.golden):
            self._replay(number, case)

    def _replay(self, number: int, case: Golden) -> None:
        offers = np.array([numbers(row) for row in case.offers]).reshape(len(case.offers), -1)
        pairs = np.array([numbers(row) for row in case.pairs]).reshape(len(case.pairs), -1)
        raw = np.empty(len(offers))
        table = self.kernel.prepare(offers)
        self.kernel.score(numbers(case.shared), table, np.arange(len(offers), dtype=np.int32), pairs, raw)
        if not np.array_equal(raw, np.array(case.raw)):
            raise BadBundle(f"golden request {number}: expected the recorded scores to the bit, got others: the bundle must not serve")
        if not np.allclose(self.calibrate(raw), np.array(case.propensities), rtol=1e-12, atol=0):
            raise BadBundle(f"golden request {number}: expected the recorded propensities, got others: the bundle must not serve")


def _places(offers: list[Offer], placement: str) -> NDArray[np.bool_]:
    return np.array([not offer.placements or placement in offer.placements for offer in offers], bool)


def _treatments(offer: Offer, defaults: tuple[Treatment, ...]) -> dict[str, dict[str, Any]]:
    """Payload by channel, with the offer's own facts filled in."""
    facts = {name: ", ".join(value) if isinstance(value, list) else value for name, value in offer.attributes.items()}
    facts |= {"offer_id": offer.offer_id, "name": offer.name, "value": offer.value}
    facts["valid_until"] = "" if offer.valid_until is None else rfc3339(offer.valid_until)
    return {treatment.channel: _filled(treatment.payload, facts) for treatment in (offer.treatments or defaults)}


def _plain(value: Any) -> str:
    """A fact as it is written: nothing for what is missing, 15 rather than 15.0."""
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e15 else str(value)


def _filled(part: Any, facts: dict[str, Any]) -> Any:
    if isinstance(part, str):
        for name, value in facts.items():
            part = part.replace(f"{{{name}}}", _plain(value))
        return part
    if isinstance(part, dict):
        return {key: _filled(value, facts) for key, value in part.items()}
    return [_filled(value, facts) for value in part] if isinstance(part, list) else part
