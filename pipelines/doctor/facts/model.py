"""Facts of the doctor from the published bundles and the registry."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import duckdb

from features.common.timestamps import parse_moment
from features.workspace.variants import aliases
from features.workspace.workspace import Workspace
from pipelines.doctor.facts.check import CannotSay
from pipelines.doctor.facts.facts import ModelFacts, RegistryFacts
from training.bundle import bundle

SQLITE = "sqlite:///"


def registry_file(workspace: Workspace) -> Path | None:
    """Return the SQLite file of the registry; None where it is a server."""
    given = workspace.settings.stores.registry
    if given is None:
        return workspace.data / "mlflow.db"
    return Path(given.removeprefix(SQLITE)) if given.startswith(SQLITE) else None


def registry(workspace: Workspace) -> RegistryFacts:
    """Return the versions and aliases of the workspace's model; `fault` where the registry cannot be asked.

    Raises:
        CannotSay: there is no registry yet. Asking MLflow would make one.
    """
    file = registry_file(workspace)
    if file is not None:
        if not file.exists():
            raise CannotSay("nothing was trained yet")
        try:
            with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as db:
                [(said,)] = db.execute("PRAGMA quick_check(1)").fetchall()
                [(tables,)] = db.execute(
                    "SELECT count(*) FROM sqlite_master WHERE name = 'registered_models'"
                ).fetchall()
            db.close()
            said = said if said != "ok" or tables else "it holds no registry"
        except sqlite3.Error as error:
            said = str(error)
        if said != "ok":
            return RegistryFacts(f"{file.name} is damaged: {said}")
    from training.bundle import registry as mlflow

    names = {mlflow.CHAMPION, *aliases(workspace.experiments)}
    found, made = dict[str, str | None](), dict[str, int]()
    try:
        for name in sorted(names):
            found[name] = mlflow.version_of(workspace, name)
        place = bundle.current(workspace.bundles)
        serving = None if place is None else bundle.read(place).manifest.version
        for version in {serving, found[mlflow.CHAMPION]} - {None}:
            at = mlflow.registered_at(workspace, str(version))
            if at is not None:
                made[str(version)] = at
    except bundle.BadBundle:
        pass  # bundle_refused tells
    except mlflow.RegistryUnavailable as error:
        return RegistryFacts(str(error))
    return RegistryFacts("", found, made)


def model(workspace: Workspace, con: duckdb.DuckDBPyConnection, registered: Mapping[str, int]) -> ModelFacts:
    """Return which bundle serves, or why none can, and how many decisions came after it was trained.

    Args:
        registered: by version, when it was trained, microseconds since 1970; of others it counts when their bundle was
            made.
    """
    refused, serving, trained, measured, trees = "", None, None, dict[str, float](), 0
    try:
        place = bundle.current(workspace.bundles)
        found = None if place is None else bundle.read(place)
        if found is not None and found.contract.fingerprint != workspace.contract.fingerprint:
            refused = "it was trained for other columns than features.yaml and model.yaml say now"
        elif found is not None:
            serving, made = found.manifest.version, parse_moment(found.manifest.created_at)
            trained = min(made, registered.get(serving, made))
            measured, trees = dict(found.manifest.metrics), found.forest.trees
    except bundle.BadBundle as error:
        refused = str(error)
    query = (
        "SELECT count(DISTINCT decision_id), count(DISTINCT decision_id) FILTER (WHERE epoch_us(time) > ?) FROM"
        " decisions"
    )
    decisions, after = con.execute(query, [trained or 0]).fetchall()[0]
    return ModelFacts(serving, refused, trained, decisions, after if trained else 0, measured, trees)
