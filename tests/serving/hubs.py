"""What the tests of the decision hub share: states made of the trained workspace with other files, and customers made
by hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from features.columns.rows import KeyedRow, OnlineRow
from features.common.timestamps import MICROSECONDS, to_microseconds
from features.common.types import Decision, DecisionRequest, Offer
from features.config.experiments import ExperimentsFile
from features.config.features_file import FeaturesFile
from features.config.offers_file import OffersFile
from features.config.policies import PoliciesFile
from features.validation.load import load
from features.workspace.workspace import Workspace
from serving.reload.reloader import Reloader
from serving.state.snapshot import Snapshot
from training.bundle.bundle import Bundle

HOUR_SECONDS = 3_600.0
TOPICS = ("data", "voice", "roaming", "device")


@dataclasses.dataclass
class Hubs:
    """Makes states of one trained bundle under any policies, offers and features that leave its columns as they are."""

    desk: Reloader

    @property
    def trained(self) -> Snapshot:
        assert self.desk.loaded is not None, self.desk.refusal
        return self.desk.loaded

    def workspace(self, **files: Any) -> Workspace:
        """The trained workspace with other files: `policies`, `offers`, `features`, as structs."""
        return dataclasses.replace(self.desk.workspace, **files)

    def make(
        self,
        policies: Mapping[str, Any] | None = None,
        offers: list[Offer] | None = None,
        placements: Mapping[str, Any] | None = None,
        bundles: Mapping[str, Any] | None = None,
        features: FeaturesFile | None = None,
        experiments: Mapping[str, Any] | None = None,
        models: Mapping[str, Bundle] | None = None,
        **settings: Any,
    ) -> Snapshot:
        """A state; what is not given is as it was trained, but for policies, of which there are none.

        Args:
            policies, placements, bundles, experiments: as their YAML says it.
            models: bundles of the models that arms name.
            settings: keys of workspace.yaml.
        """
        before, was = self.trained, self.desk.workspace
        said = {"placements": placements or {"home": {"limit": 50}, "bill": {"limit": 50}}, "bundles": bundles or {}}
        workspace = self.workspace(
            policies=msgspec.convert(policies or {}, PoliciesFile),
            offers=msgspec.convert(said, OffersFile),
            features=features or was.features,
            experiments=msgspec.convert(experiments or {}, ExperimentsFile),
            settings=msgspec.structs.replace(was.settings, **settings),
        )
        bundle = msgspec.structs.replace(before.bundle, contract=workspace.contract)
        given = before.catalogue.offers if offers is None else offers
        return Snapshot(workspace, bundle, given, before.everyone, self.desk.stores.engine.words, NOON, models)

    def row(
        self,
        families: Mapping[str, Mapping[str, list[float]]] | None = None,
        age: float = HOUR_SECONDS,
        now: float = 0.0,
        **scalars: Any,
    ) -> OnlineRow:
        """A customer of whom this is known, `age` seconds before `now`.

        Args:
            families: `view.family` -> key -> values of its measures.
            scalars: by name; None and what is not given is missing.
        """
        plan, words = self.trained.layout.plan, self.desk.stores.engine.words
        row = plan.nobody()
        slots = {name.partition(".")[2]: slot for name, slot in plan.scalars.items()}
        for name, value in scalars.items():
            row.numbers[slots[name]] = (
                np.nan if value is None else words.id(value) if isinstance(value, str) else float(value)
            )
        for name, values in (families or {}).items():
            keys = np.array([words.id(key) for key in sorted(values)], np.uint32)
            measures = next(
                len(f.measures) for view in plan.views for f in view.families if f"{view.name}.{f.name}" == name
            )
            columns = (
                np.array([values[key] for key in sorted(values)], np.float64).reshape(len(keys), measures).T.copy()
            )
            row.families[plan.families[name]] = KeyedRow(keys, columns)
        row.event_times[:] = (now or NOON) - age
        return row


NOON = 1_794_916_800.0
"""2026-11-17, a Tuesday, 12:00 UTC; seconds since 1970."""


def opened(trained_workspace: Path) -> Iterator[Hubs]:
    """For a fixture of a test module."""
    desk = Reloader(load(trained_workspace, sources=False))
    desk.load()
    assert desk.loaded is not None, desk.refusal
    yield Hubs(desk)
    desk.close()


def asked(placement: str | None = "home", **fields: Any) -> DecisionRequest:
    """A request of somebody, somewhere."""
    given: dict[str, Any] = {"customer_id": "436600000", "context": {}} | (
        {} if placement is None else {"placement": placement}
    )
    return msgspec.convert(given | fields, DecisionRequest)


def offer(number: int, **fields: Any) -> Offer:
    """An offer that is always valid; facts by its number."""
    attributes = {"topic": TOPICS[number % len(TOPICS)], "price": float(number), "countries": ["at"]}
    return Offer(f"o{number}", **({"value": 1.0, "attributes": attributes} | fields))


def shown(decision: Decision, placement: str | None = None) -> list[str]:
    """Ids of the offers of an answer, or of one of its placements."""
    return [one.offer_id for one in decision.offers if placement is None or one.placement == placement]


def microseconds(moment: Any) -> int:
    """A datetime, or seconds since 1970, in microseconds."""
    return round(moment * MICROSECONDS) if isinstance(moment, (int, float)) else to_microseconds(moment)
