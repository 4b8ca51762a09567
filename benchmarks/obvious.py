"""Rival (c): the obvious composition of the same parts, written fairly, as their tutorials would.

Feast's SDK for each request, pandas for the cross join with the offers, `Booster.predict` on one thread (its default
stalls under load), `@bentoml.api` with pydantic; access log off, metrics as they come. Model, calibration, features,
offers and answer are ours.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import bentoml
import lightgbm as lgb
import msgspec
import numpy as np
import pandas as pd
import pydantic

from features.feature_store import definitions
from features.lake.offers import read_catalogue
from features.validation.load import load
from training.bundle import bundle
from training.bundle.calibration_map import Calibration


class RankedOffer(pydantic.BaseModel):
    """One offer of the answer."""

    rank: int
    offer_id: str
    score: float
    propensity: float
    treatment: dict[str, Any]
    reasons: list[str] = []


class Answer(pydantic.BaseModel):
    """What ours answers, but for what only ours knows."""

    decision_id: str
    customer_id: str
    placement: str
    offers: list[RankedOffer]


@bentoml.service(
    name="obvious", workers=int(os.environ.get("BENCH_WORKERS", "1")), logging={"access": {"enabled": False}}
)
class Obvious:
    """Feast, pandas, LightGBM and BentoML, one after the other."""

    def __init__(self) -> None:
        workspace = load(Path(os.environ["OPPORTUNE_WORKSPACE"]), sources=False)
        place = bundle.current(workspace.bundles)
        assert place is not None
        self.store = definitions.open_store(workspace)
        self.features = self.store.get_feature_service(definitions.FEATURE_SERVICE)
        self.booster = lgb.Booster(model_file=str(place / "model.txt"))
        self.calibration = msgspec.json.decode((place / "calibration.json").read_bytes(), type=Calibration)
        offers = read_catalogue(workspace)
        names = self.booster.feature_name()
        self.customer = [name for name in names if not name.startswith("offer_")]
        columns = {
            name: [offer.attributes[name.removeprefix("offer_")] for offer in offers]
            for name in names
            if name.startswith("offer_")
        }
        self.catalogue = pd.DataFrame(
            {"offer_id": [offer.offer_id for offer in offers], "name": [offer.name for offer in offers], **columns}
        )
        self.columns = [*self.customer, *columns]
        self.limits = {name: placement.limit for name, placement in workspace.offers.placements.items()}

    @bentoml.api(route="/v1/decisions")  # type: ignore[untyped-decorator]
    def decide(self, customer_id: str, placement: str) -> Answer:
        """The best offers for one customer."""
        row = self.store.get_online_features(features=self.features, entity_rows=[{"customer_id": customer_id}]).to_df()
        matrix = row[self.customer].merge(self.catalogue, how="cross")
        raw = np.asarray(self.booster.predict(matrix[self.columns].to_numpy(np.float64), raw_score=True, num_threads=1))
        best = np.argsort(-raw)[: self.limits[placement]]
        chances = self.calibration.probabilities(raw[best])
        offers = [
            RankedOffer(
                rank=place + 1,
                offer_id=str(self.catalogue.at[at, "offer_id"]),
                score=chance,
                propensity=chance,
                treatment={"headline": self.catalogue.at[at, "name"]},
            )
            for place, (at, chance) in enumerate(zip(best.tolist(), chances.tolist(), strict=True))
        ]
        return Answer(decision_id=str(uuid.uuid4()), customer_id=customer_id, placement=placement, offers=offers)
