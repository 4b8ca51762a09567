"""What was published for a workspace: its bundle, those of the models that arms name, its offers; and what tells that
any of it changed.
"""

from __future__ import annotations

from dataclasses import dataclass

from features.lake.offers import catalogue_file
from features.workspace.variants import aliases
from features.workspace.workspace import Workspace
from serving.hub.hub import digest_of
from training.bundle import bundle
from training.bundle.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Published:
    """What a state is made of: when any of it changes, it is made again."""

    bundle: str
    manifest: int
    catalogue: int
    everyone: tuple[float, ...]
    turn: int
    config: str
    models: tuple[tuple[str, str], ...] = ()
    """The models that arms name, with their bundles; those that were published."""


def published(workspace: Workspace, everyone: tuple[float, ...], turn: int) -> Published | None:
    """Return what there is to load; None when there is nothing.

    Args:
        everyone: event times of the row of everyone.
        turn: of the clock, where columns age.

    Raises:
        OSError, ValueError: it cannot be said.
    """
    folder = workspace.bundles
    place, offers = bundle.current(folder), catalogue_file(workspace)
    if place is None or not offers.exists():
        return None
    manifest = place / bundle.MANIFEST
    written = manifest.stat().st_mtime_ns if manifest.exists() else 0
    found = [(name, bundle.aliased(folder, name)) for name in aliases(workspace.experiments)]
    models = tuple([(name, at.name) for name, at in found if at is not None])
    return Published(place.name, written, offers.stat().st_mtime_ns, everyone, turn, digest_of(workspace), models)


def glance(workspace: Workspace, seen: Published | None) -> tuple[int, ...]:
    """Return when the files that tell of something new were written, in nanoseconds since 1970; 0 for one that is not
    there. It takes microseconds.
    """
    folder = workspace.bundles
    places = [folder / bundle.CURRENT, catalogue_file(workspace), folder / bundle.ALIASES]
    if seen is not None:
        places.append(folder / seen.bundle / bundle.MANIFEST)
    written = []
    for place in places:
        try:
            written.append(place.stat().st_mtime_ns)
        except OSError:
            written.append(0)
    return tuple(written)


def models(workspace: Workspace) -> dict[str, Bundle]:
    """Return the bundles of the models that arms of running experiments name, by that name; those that were published.

    Raises:
        BadBundle: one of them is damaged.
    """
    found = {name: bundle.aliased(workspace.bundles, name) for name in aliases(workspace.experiments)}
    return {name: bundle.read(place) for name, place in found.items() if place is not None}
