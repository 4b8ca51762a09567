"""A workspace: the folder that describes one business, as it was read. `features.validation.load` reads and checks
it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from features.columns.contract import Contract, contract_of
from features.columns.views import View, views_of
from features.config.documents import Document
from features.config.experiments import ExperimentsFile
from features.config.features_file import FeaturesFile
from features.config.model_file import ModelFile
from features.config.offers_file import OffersFile
from features.config.placeholders import filled
from features.config.policies import PoliciesFile
from features.config.workspace_file import Source, WorkspaceFile
from features.workspace.ramps import RampState, standings_of
from features.workspace.store_kind import StoreKind, kind_of

ONLINE_URL_VARIABLE = "OPPORTUNE_ONLINE_URL"


def is_sqlite(section: dict[str, Any]) -> bool:
    """Return whether Feast's section of an online store means its SQLite store, which is a file."""
    return str(section.get("type")).endswith(("sqlite", "SqliteOnlineStore"))


@dataclass(frozen=True)
class Workspace:
    """One business: its files as structs, and the places where what is made of them is kept."""

    folder: Path
    settings: WorkspaceFile
    features: FeaturesFile
    offers: OffersFile
    policies: PoliciesFile
    experiments: ExperimentsFile
    model: ModelFile
    documents: dict[str, Document]

    @cached_property
    def data(self) -> Path:
        """Where everything lives that the program makes; safe to delete when nothing runs, at the cost of making it
        again; but for journal and event log, and the record of ramps, which say what really happened.
        """
        return self.folder / self.settings.data

    @cached_property
    def ramps(self) -> dict[str, RampState]:
        """Where the ramps of experiments stood when somebody asked first.

        Raises:
            OSError: their record is there and cannot be read.
        """
        return standings_of(self.experiments, self.data)

    @property
    def lake(self) -> Path:
        return self.data / "lake"

    @property
    def offline(self) -> Path:
        return self.data / "offline"

    @property
    def online(self) -> Path:
        return self.data / "online"

    @property
    def bundles(self) -> Path:
        return self.data / "bundles"

    @property
    def project(self) -> str:
        """The workspace's name as Feast spells it; part of the keys of a Redis store."""
        return self.settings.name.replace("-", "_")

    @property
    def online_url(self) -> str:
        """The store that serving reads; the environment may name another than the file, for one workspace in several
        places.

        A store that Feast reads has no address: its name here is `feast:<type>#<digest of its settings as the file has
        them>`.
        """
        if self._feast_serves:
            given = (
                self.settings.stores.online.feast or {}
            )  # no path of this machine: the same wherever the workspace lies
            digest = hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()
            return f"feast:{given.get('type')}#{digest[:8]}"
        return os.environ.get(ONLINE_URL_VARIABLE) or self.settings.stores.online.url

    @property
    def store_kind(self) -> StoreKind:
        """What kind of store `online_url` names."""
        return kind_of(self.online_url)

    @property
    def online_feast(self) -> dict[str, Any] | None:
        """Feast's section of the online store, placeholders filled in; None where the store is embedded or a Redis.

        Raises:
            Failure: when a placeholder names a variable that is not set.
        """
        return self._placed(filled(self.settings.stores.online.feast, os.environ)) if self._feast_serves else None

    @property
    def online_feast_written(self) -> dict[str, Any]:
        """The same as the file has it, with its placeholders; a SQLite file is found from any folder."""
        return self._placed(self.settings.stores.online.feast or {})

    def _placed(self, section: dict[str, Any]) -> dict[str, Any]:
        path = section.get("path", str(self.data / "online.db"))
        if is_sqlite(section) and isinstance(path, str) and not path.startswith("${"):
            return {**section, "path": str(self.folder / path)}
        return section

    @property
    def _feast_serves(self) -> bool:
        return self.settings.stores.online.feast is not None and not os.environ.get(ONLINE_URL_VARIABLE)

    @cached_property
    def views(self) -> tuple[View, ...]:
        return views_of(self.features)

    @cached_property
    def contract(self) -> Contract:
        return contract_of(self.features, self.model.leave_out)

    def source(self, table: str) -> Source | None:
        """Return where a canonical table or, as `streams.<name>`, an event stream comes from."""
        sources = self.settings.sources
        found = (
            sources.streams.get(table.removeprefix("streams."))
            if table.startswith("streams.")
            else getattr(sources, table)
        )
        return Source(found) if isinstance(found, str) else found
