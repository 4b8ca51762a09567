"""Everything a decision needs, in memory and made once: bundle, catalogue, layout, kernel, treatments.

A `Snapshot` never changes. A new bundle or catalogue is a new one, rehearsed and then put in place by one assignment: a
request sees the old or the new, never both.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from features.aggregates.incremental import Fold
from features.aggregates.partitions import fnv1a
from features.columns.catalogue import UNBOUNDED, Catalogue
from features.columns.layout import Layout
from features.columns.rows import Dictionary, OnlineRow, RowSchema
from features.common.moments import Micros, Seconds
from features.common.timestamps import MICROSECONDS, duration_seconds
from features.common.types import ModelStamp, Offer
from features.events.journal import Lineup, Versions
from features.workspace.workspace import Workspace
from serving.assignment.experiments import ExperimentStates
from serving.conditions.bitsets import bits_of
from serving.hub.hub import USUAL, Hub, Logic
from serving.kernel.kernel import Kernel, OfferTable
from serving.kernel.shap import Explainer
from serving.state.freshness import Freshness
from serving.state.offer_sets import OfferSet, ValidOffers
from serving.state.treatments import treatments_of
from training.bundle.bundle import BadBundle, Bundle, Golden, numbers


class Calibrator:
    """A bundle's calibration with its knots as arrays."""

    def __init__(self, bundle: Bundle) -> None:
        self._given = bundle.calibration
        self._x, self._y = np.array(self._given.x), np.array(self._given.y)

    def __call__(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probabilities of raw scores, same shape."""
        if self._given.method == "isotonic":
            found: NDArray[np.float64] = np.interp(raw, self._x, self._y)
            return found
        return self._given.probabilities(raw)


class Snapshot:
    """A bundle on a catalogue. Holds scratch memory of layout and kernel: for one thread only.

    Args:
        everyone: the row of the views of everyone, of which offer columns are made.
        words: the engine's word ids.
        now: seconds since 1970.
        bundles: of the models that arms of experiments name, by that name.

    Raises:
        BadBundle: the bundle's columns are not the workspace's, or a golden request is not answered as recorded.
    """

    def __init__(
        self,
        workspace: Workspace,
        bundle: Bundle,
        offers: list[Offer],
        everyone: OnlineRow,
        words: Dictionary,
        now: Seconds,
        bundles: Mapping[str, Bundle] | None = None,
    ) -> None:
        if bundle.contract.fingerprint != workspace.contract.fingerprint:
            raise BadBundle(
                "expected a bundle for the columns of the workspace, got one for others: run `opportune train` and"
                " `opportune publish`"
            )
        self.workspace, self.bundle, self.everyone = workspace, bundle, everyone
        self._bundles, self._now = bundles or {}, now
        self.catalogue = Catalogue(offers)
        everyone_plan = RowSchema.of(workspace.views, "everyone")
        self.layout = Layout(
            bundle.contract, RowSchema.of(workspace.views), everyone_plan, self.catalogue, bundle.categories, words
        )
        shared, offer, pair = len(self.layout.shared), len(self.layout.offer), len(self.layout.pair)
        first, second = shared, shared + offer
        defaults = [
            0.0 if column.empty == "zero" and column.relative != "rank" else np.nan for column in self.layout.pair
        ]
        columns = list(range(second + pair))
        self.kernel = Kernel(
            bundle.forest, columns[:first], columns[first:second], columns[second:], pair_default=defaults
        )
        self.calibrate = Calibrator(bundle)
        self.offer_values = self.layout.offer_values(everyone, now)
        self.prepared_offers: OfferTable = self.kernel.prepare(self.offer_values)
        self.stamp = ModelStamp(bundle.manifest.name, bundle.manifest.version, bundle.id)
        self.offer_table = Lineup([offer.offer_id for offer in offers], self.offer_values.tobytes())
        self.versions = Versions(bundle.id, bundle.contract.fingerprint, self.offer_table.digest)
        self.freshness = Freshness(bundle.contract, self.layout.plan)
        self.fold = Fold(self.layout.plan, words)
        """Adds what is new of a customer to the row."""
        self.hub = Hub(workspace, self.catalogue, self.layout, words)
        self.answer_microseconds = duration_seconds(workspace.settings.serving.answer_valid) * MICROSECONDS
        self._valid_offers: dict[str, ValidOffers] = {}
        self.treatments = [treatments_of(offer, workspace) for offer in offers]
        """By offer, how it looks in each channel and locale."""
        self.draws = np.array([fnv1a(offer.offer_id) for offer in offers], np.uint64) << np.uint64(32)
        """One number an offer, of its id alone: with the customer's it orders equal scores."""
        self.reasons = [
            (column.name, column.reason)
            for column in (*bundle.contract.columns, *bundle.contract.auxiliary)
            if column.reason
        ]
        self.rehearse()

    @cached_property
    def explainer(self) -> Explainer:
        """Return what explains scores by columns; made by the first call, since most workers never explain anything."""
        return Explainer(self.bundle.forest)

    @cached_property
    def experiment_states(self) -> ExperimentStates[Snapshot]:
        """Return the experiments of this state, with the states of their arms; a server makes them where it makes the
        state.

        Raises:
            BadBundle: an arm names a model that was not published, or that cannot serve.
        """
        return ExperimentStates(self, self._bundles)

    def changed(self, workspace: Workspace, logic: Logic = USUAL) -> Snapshot:
        """Return the copy for an arm or a control group; only policies and placements differ."""
        made = copy(self)
        made.workspace, made.hub, made._valid_offers = workspace, self.hub.changed(workspace, logic), {}
        made.__dict__.pop("experiment_states", None)
        return made

    def on(self, bundle: Bundle) -> Snapshot:
        """Return the same files and offers on another model.

        Raises:
            BadBundle: see `Snapshot`.
        """
        return Snapshot(self.workspace, bundle, self.catalogue.offers, self.everyone, self.layout.words, self._now)

    def rehearse(self) -> None:
        """Answer the golden requests; also makes every code path warm before the first customer."""
        if not self.bundle.golden:
            raise BadBundle("expected golden requests in the bundle, got none: a check that runs nothing has failed")
        for number, case in enumerate(self.bundle.golden):
            self._replay(number, case)

    def valid_offers(self, placement: str, now: Micros) -> ValidOffers:
        """Return which offers are valid and may be shown at a placement, kept until the next offer begins or ends."""
        known = self._valid_offers.get(placement)
        if known is not None and known.since <= now < known.until:
            return known
        begins, ends = self.catalogue.valid_from, self.catalogue.valid_until
        moments = np.concatenate([begins, ends])
        later, earlier = moments[moments > now], moments[moments <= now]
        since, until = Micros(int(earlier.max(initial=-UNBOUNDED))), Micros(int(later.min(initial=UNBOUNDED)))
        valid = (begins <= now) & (now < ends)
        mask = valid & self.hub.placements[placement]
        shown = OfferSet(bits_of(mask), mask, np.flatnonzero(mask).astype(np.int32))
        made = self._valid_offers[placement] = ValidOffers(since, until, bits_of(valid), shown)
        return made

    def _replay(self, number: int, case: Golden) -> None:
        offers = np.array([numbers(row) for row in case.offers]).reshape(len(case.offers), -1)
        pairs = np.array([numbers(row) for row in case.pairs]).reshape(len(case.pairs), -1)
        raw = np.empty(len(offers))
        table = self.kernel.prepare(offers)
        self.kernel.score(numbers(case.shared), table, np.arange(len(offers), dtype=np.int32), pairs, raw)
        if not np.array_equal(raw, np.array(case.raw)):
            raise BadBundle(
                f"golden request {number}: expected the recorded scores to the bit, got others: the bundle must not"
                " serve"
            )
        if not np.allclose(self.calibrate(raw), np.array(case.propensities), rtol=1e-12, atol=0):
            raise BadBundle(
                f"golden request {number}: expected the recorded propensities, got others: the bundle must not serve"
            )
