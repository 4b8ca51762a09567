"""MLflow: the record of every training run, the registered versions, and the aliases that say which of them serves."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

# A registry that is away must fail in seconds; the defaults block for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see `fit`; whoever imports LightGBM first decides
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import lightgbm as lgb
import mlflow
import mlflow.lightgbm
import pandas as pd
from matplotlib.figure import Figure
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

from features.common.clock import OFFSET_US
from features.common.errors import Failure
from features.common.timestamps import now
from features.workspace.workspace import Workspace
from training.bundle import artifact_locations as locations

CHAMPION = "champion"
ARTIFACTS = "opportune"
"""Folder of a run's artifacts that a bundle is made from."""

MODEL_DIGEST_TAG = "opportune.model_sha256"

METRICS_A_CALL_MAX = 1_000
PARAMETER_CHARACTERS_MAX = 6_000
"""Limits of MLflow's own."""


class RegistryUnavailable(Failure):
    """MLflow did not answer, or does not have what was asked for."""


class UnknownVersion(Failure):
    """The registry has no such version and no such alias."""


_ABSENT = tuple(ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE))
"""How MLflow says that there is no such version or alias."""


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, sqlite3.Error, OSError) as error:  # what requests raises is an OSError too
        raise RegistryUnavailable(
            f"expected MLflow to {doing}, got: {(str(error).splitlines() or [repr(error)])[0]}"
        ) from error


def address(workspace: Workspace) -> str:
    """Return where MLflow keeps runs and versions: a SQLite file in the data folder unless the workspace names a
    server.

    Raises:
        RegistryUnavailable: the file holds addresses of another place, from which the workspace came, and cannot be
            written.
    """
    named = workspace.settings.stores.registry
    if not named:
        with _explained("find its artifacts where the workspace lies now"):
            locations.relocate(workspace.data)
    return named or locations.database_address(workspace.data)


def connect(workspace: Workspace) -> mlflow.MlflowClient:
    """Return a client of the workspace's registry; also makes it MLflow's own default in this process."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    where = address(workspace)
    mlflow.set_tracking_uri(where)
    mlflow.set_registry_uri(where)
    with _explained("open its store"), locations.without_empty_folder(workspace.data):
        client = mlflow.MlflowClient(where, where)
        if client.get_experiment_by_name(workspace.settings.name) is None:
            place = None if where.startswith("http") else locations.artifacts_address(workspace.data)
            client.create_experiment(workspace.settings.name, place)
        mlflow.set_experiment(workspace.settings.name)
        if "%" in where:
            client.search_registered_models(
                max_results=1
            )  # opens the store of versions too, while its empty folder is minded
    return client


@contextmanager
def _recording(workspace: Workspace) -> Iterator[mlflow.MlflowClient]:
    """Return a client, while the addresses of artifacts stay those of the workspace's present place."""
    with ExitStack() as held:
        if not workspace.settings.stores.registry:
            with _explained("find its artifacts where the workspace lies now"):
                held.enter_context(locations.recording(workspace.data))
        yield connect(workspace)


def record(
    workspace: Workspace,
    booster: lgb.Booster,
    example: pd.DataFrame,
    *,
    parameters: dict[str, Any],
    metrics: dict[str, float],
    steps: dict[str, list[float]],
    tags: dict[str, str],
    figures: dict[str, Figure],
    artifacts: dict[str, bytes],
) -> tuple[str, str]:
    """Record one training run and register its model.

    Args:
        example: some rows of the training data, columns named; becomes the signature and the input example.
        steps: metrics by round.
        artifacts: files for the bundle, by name.

    Returns:
        Run id and registered version.
    """
    with _recording(workspace) as client, _explained("record a run"), mlflow.start_run() as run, _quiet():
        mlflow.log_params({name: str(value)[:PARAMETER_CHARACTERS_MAX] for name, value in parameters.items()})
        mlflow.log_metrics(metrics)
        at = now() // 1_000
        by_round = [
            Metric(name, value, at, step + 1) for name, values in steps.items() for step, value in enumerate(values)
        ]
        for first in range(0, len(by_round), METRICS_A_CALL_MAX):
            client.log_batch(run.info.run_id, by_round[first : first + METRICS_A_CALL_MAX])
        mlflow.set_tags(tags)
        for name, figure in figures.items():
            mlflow.log_figure(figure, f"plots/{name}.png")
        for name, content in artifacts.items():
            mlflow.log_text(content.decode(), f"{ARTIFACTS}/{name}")
        model = mlflow.lightgbm.log_model(
            booster,
            name="model",
            registered_model_name=workspace.model.name,
            signature=infer_signature(example, booster.predict(example)),
            input_example=example,
            pip_requirements=[
                f"lightgbm=={lgb.__version__}",
                f"pandas=={pd.__version__}",
                f"mlflow=={mlflow.__version__}",
            ],
        )
        return run.info.run_id, str(model.registered_model_version)


def record_report(
    workspace: Workspace,
    name: str,
    metrics: dict[str, float],
    tags: dict[str, str],
    figures: dict[str, Figure],
    texts: dict[str, str],
) -> str:
    """Record what was read off an experiment: a run without a model.

    Args:
        texts: files by name.

    Returns:
        Run id.
    """
    with _recording(workspace), _explained("record a report"), mlflow.start_run(run_name=name) as run, _quiet():
        mlflow.log_metrics(metrics)
        mlflow.set_tags(tags)
        for file, figure in figures.items():
            mlflow.log_figure(figure, f"plots/{file}")
        for file, text in texts.items():
            mlflow.log_text(text, file)
        return str(run.info.run_id)


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow reports its progress on standard error line by line; ours is shown by the verb that called."""
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        kept, sys.stderr = sys.stderr, nowhere
        try:
            yield
        finally:
            sys.stderr = kept


def set_alias(workspace: Workspace, alias: str, version: str) -> None:
    """Point an alias at a version."""
    client = connect(workspace)
    with _explained(f"set the alias {alias}"):
        client.set_registered_model_alias(workspace.model.name, alias, version)


def version_of(workspace: Workspace, alias_or_version: str) -> str | None:
    """Return the version that an alias points at (or the number itself, when it exists); None when there is none."""
    client = connect(workspace)
    with _explained(f"find {alias_or_version} of {workspace.model.name}"):
        try:
            if alias_or_version.isdigit():
                return str(client.get_model_version(workspace.model.name, alias_or_version).version)
            return str(client.get_model_version_by_alias(workspace.model.name, alias_or_version).version)
        except MlflowException as error:
            if error.error_code not in _ABSENT:
                raise
            return None


def names_of(workspace: Workspace) -> tuple[list[str], dict[str, str]]:
    """Return all versions of the workspace's model, the newest first, and by alias the version that it points at; both
    may be empty.
    """
    client = connect(workspace)
    with _explained(f"list the versions of {workspace.model.name}"):
        try:
            aliases = client.get_registered_model(workspace.model.name).aliases
        except MlflowException as error:
            if error.error_code not in _ABSENT:
                raise
            return [], {}
        literal = workspace.model.name.replace("'", "''")
        versions = [str(found.version) for found in client.search_model_versions(f"name = '{literal}'")]
    return sorted(versions, key=int, reverse=True), {alias: str(version) for alias, version in sorted(aliases.items())}


def registered_at(workspace: Workspace, version: str) -> int | None:
    """Return when a version was registered, microseconds since 1970; None where there is no such version."""
    client = connect(workspace)
    with _explained(f"find version {version} of {workspace.model.name}"):
        try:
            stamped = int(client.get_model_version(workspace.model.name, version).creation_timestamp) * 1_000
            return stamped + OFFSET_US  # MLflow stamps by the system's clock
        except MlflowException as error:
            if error.error_code not in _ABSENT:
                raise
            return None


def download(workspace: Workspace, version: str, place: Path) -> dict[str, Any]:
    """Fetch a version's model text and bundle parts into a folder; nothing of it is loaded.

    Returns:
        run id, model digest as recorded at training, tags and metrics of the run.
    """
    client = connect(workspace)
    with _explained(f"hand out version {version} of {workspace.model.name}"):
        run = _run_of(client, workspace, version)
        mlflow.artifacts.download_artifacts(artifact_uri=f"runs:/{run.info.run_id}/{ARTIFACTS}", dst_path=str(place))
        model = Path(
            mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{workspace.model.name}/{version}", dst_path=str(place / "flavour")
            )
        )
    texts = sorted(model.glob("model.lgb")) or sorted(model.glob("**/*.lgb"))
    if not texts:
        raise RegistryUnavailable(
            f"expected a LightGBM text model in version {version} of {workspace.model.name}, got none"
        )
    texts[0].rename(place / "model.txt")
    return {
        "run_id": run.info.run_id,
        "tags": dict(run.data.tags),
        "metrics": dict(run.data.metrics),
        "digest": run.data.tags.get(MODEL_DIGEST_TAG),
    }


def _run_of(client: mlflow.MlflowClient, workspace: Workspace, version: str) -> Run:
    """Return the run that made a version."""
    found = client.get_model_version(workspace.model.name, version).run_id
    if not found:
        raise RegistryUnavailable(
            f"expected version {version} of {workspace.model.name} to come from a run of ours, got one without a run"
        )
    return client.get_run(found)
