"""Bring a registered version into serving: make its bundle, verify it, let the kernel rehearse it, switch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from features.columns.rows import Dictionary, RowSchema
from features.common.moments import in_seconds
from features.common.timestamps import now
from features.lake.offers import catalogue_file, read_catalogue, write_catalogue
from features.workspace.workspace import Workspace
from training.bundle import bundle
from training.bundle.bundle import BadBundle


def publish(workspace: Workspace, version: str) -> Path:
    """Make the bundle of a version and switch serving to it.

    Raises:
        BadBundle: a check failed; what serves stays.
    """
    from training.bundle import publish as publisher

    place = publisher.make(workspace, version)
    rehearse(workspace, place)
    bundle.switch(workspace.bundles, place)
    return place


def publish_beside(workspace: Workspace, alias: str, version: str, *, name: bool = False) -> Path:
    """Make the bundle of a version the one that arms of experiments get that name this alias, or this version; what
    serves stays.

    Args:
        name: point the registry's alias at the version too.

    Raises:
        BadBundle: a check failed; the alias stays as it was.
        RegistryUnavailable: MLflow does not take the alias; it stays as it was.
    """
    from training.bundle import publish as publisher
    from training.bundle import registry

    place = publisher.make(workspace, version)
    rehearse(workspace, place)
    if name:
        registry.set_alias(workspace, alias, version)
    bundle.point(workspace.bundles, alias, place)
    return place


def version_beside(workspace: Workspace, alias: str) -> str | None:
    """Return the version that an alias has in serving; None when nothing usable was published for it."""
    return _version_at(workspace, bundle.aliased(workspace.bundles, alias))


def rehearse(workspace: Workspace, place: Path) -> None:
    """Load a bundle as a server would, which answers its golden requests with the kernel.

    What explanations need is compiled here too, once a machine: a server's event loop would stand still for seconds.
    """
    from serving.state.snapshot import Snapshot

    if not catalogue_file(workspace).exists():
        write_catalogue(workspace)
    nobody = RowSchema.of(workspace.views, "everyone").nobody()
    loaded = Snapshot(workspace, bundle.read(place), read_catalogue(workspace), nobody, Dictionary(), in_seconds(now()))
    if not np.isfinite(loaded.explainer.base):
        raise BadBundle("expected leaves whose mean is a number: the scores could not be explained")


def require_published(workspace: Workspace) -> None:
    """Refuse early what a server would refuse at its start.

    Raises:
        BadBundle: nothing usable was published.
    """
    if serving_version(workspace) is None:
        raise BadBundle(
            "expected a published model for the workspace's columns, got none: run `opportune up`, or `opportune train`"
            " and `opportune publish`"
        )


def serving_version(workspace: Workspace) -> str | None:
    """Return the version that serves; None when nothing usable does."""
    return _version_at(workspace, bundle.current(workspace.bundles))


def _version_at(workspace: Workspace, place: Path | None) -> str | None:
    try:
        found = None if place is None else bundle.read(place)
    except BadBundle:
        return None
    if found is None or found.contract.fingerprint != workspace.contract.fingerprint:
        return None
    return found.manifest.version
