"""The oracle: what an answer must be, by LightGBM on the columns that the layout lays, in the benchmark's own process.

It shares the layout with the server, which is the contract of training and serving, and nothing after it: scores come
from `Booster.predict`, not from the kernel, and the order from a plain sort.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import lightgbm as lgb
import msgspec
import numpy as np

from features.common.timestamps import MICROSECONDS, now
from features.common.types import OFFERS_CONSIDERED, DecisionRequest
from features.lake.offers import read_catalogue
from features.lmdb_store.engine import EmbeddedEngine
from features.workspace.workspace import Workspace
from serving.decision.case import DecisionInputs
from serving.decision.eligibility import eligible
from serving.state.customer import CustomerState
from serving.state.snapshot import Snapshot
from training.bundle import bundle

RELATIVE_TOLERANCE = 1e-12
"""A probability of one score and of the same score among others may differ in the last bit: vectors round as vectors
do.
"""


class WrongAnswer(AssertionError):
    """A server's answer is not what the oracle says."""


class Answered(msgspec.Struct):
    """The part of an answer that every rival gives."""

    decision_id: str
    customer_id: str
    offers: list[dict[str, Any]]


@dataclass
class Oracle:
    """Knows the right answers of one workspace. `checked` counts comparisons: a check that ran nothing has failed."""

    workspace: Workspace
    online: Workspace
    """Where the embedded store is, from which rows are read whatever store the server reads."""
    checked: int = 0
    _parts: tuple[EmbeddedEngine, Snapshot, lgb.Booster] | None = field(default=None, repr=False)

    def parts(self) -> tuple[EmbeddedEngine, Snapshot, lgb.Booster]:
        """The engine, what a server would load, and LightGBM's own model; made at the first use."""
        if self._parts is None:
            workspace = self.workspace
            engine = EmbeddedEngine(self.online.online, workspace.views)
            place = bundle.current(workspace.bundles)
            assert place is not None
            offers = read_catalogue(workspace)
            loaded = Snapshot(
                workspace, bundle.read(place), offers, engine.everyone(), engine.words, now() / MICROSECONDS
            )
            self._parts = engine, loaded, lgb.Booster(model_file=str(place / "model.txt"))
        return self._parts

    def scores(self, request: DecisionRequest, moment: int) -> dict[str, tuple[float, float]]:
        """Raw score and propensity of each offer that may be offered; `moment` in microseconds since 1970."""
        engine, loaded, booster = self.parts()
        row, seconds = engine.read_now(request.customer_id), moment / MICROSECONDS
        chosen = np.flatnonzero(eligible(DecisionInputs(request, loaded, CustomerState(row), moment))).astype(np.int32)
        if not len(chosen):
            return {}
        shared = loaded.layout.shared_values(row, request.context | {OFFERS_CONSIDERED: len(chosen)}, seconds)
        pairs = loaded.layout.pair_values(row, loaded.everyone, loaded.offer_values, chosen, seconds)
        matrix = np.hstack([np.tile(shared, (len(chosen), 1)), loaded.offer_values[chosen], pairs])
        raw = np.asarray(booster.predict(matrix, raw_score=True, num_threads=1))
        chances = loaded.bundle.calibration.probabilities(raw)
        return {loaded.catalogue.offers[at].offer_id: (float(raw[i]), float(chances[i])) for i, at in enumerate(chosen)}

    def check(self, request: str, answer: str | bytes, *, ours: bool = True) -> None:
        """Compare one answer.

        Args:
            ours: whether the decision's id begins with its moment, as ours do; columns may depend on it.

        Raises:
            WrongAnswer: another customer, other offers, another order, or another propensity.
        """
        asked, given = msgspec.json.decode(request, type=DecisionRequest), msgspec.json.decode(answer, type=Answered)
        moment = int(given.decision_id.split("-")[0], 16) if ours else now()
        scores = self.scores(asked, moment)
        limit = asked.limit or self.workspace.offers.placements[str(asked.placement)].limit
        # The default formula: propensity x value. Where offers are worth the same, the raw score orders them, to the
        # last bit.
        worth = {offer.offer_id: offer.value for offer in self.parts()[1].catalogue.offers}
        by_value = len(set(worth.values())) > 1
        order = sorted(
            scores, key=lambda offer: scores[offer][1] * worth[offer] if by_value else scores[offer][0], reverse=True
        )
        expected = [scores[offer] for offer in order[:limit]]
        got = [(offer["offer_id"], offer["propensity"]) for offer in given.offers]
        # Of equal scores any may come first; each must be an offer of its own, with the score of its place.
        raws = [scores.get(offer_id, (np.nan, np.nan))[0] for offer_id, _ in got]
        if given.customer_id != asked.customer_id or raws != [raw for raw, _ in expected] or len(dict(got)) != len(got):
            raise WrongAnswer(
                f"{request}: expected offers with the scores {expected}, got {got} for {given.customer_id}, which have"
                f" {raws}"
            )
        if not np.allclose(
            [chance for _, chance in got], [chance for _, chance in expected], rtol=RELATIVE_TOLERANCE, atol=0
        ):
            raise WrongAnswer(f"{request}: expected the propensities {expected}, got {got}")
        self.checked += 1
