"""From a simulated world to a published model of it: the steps that any business takes, those that were taken left
out.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from features.common.moments import Micros
from features.common.timestamps import now
from features.config.documents import BadWorkspace, Fault
from features.validation.load import load
from features.workspace import timeline
from features.workspace.workspace import Workspace
from pipelines.deploy.publish import publish, serving_version
from pipelines.materialize import steps
from pipelines.output import console
from pipelines.world.settings import NOW, WorldSettings
from pipelines.world.workspace import WORLD_FILE, read_settings, write_workspace
from pipelines.world.world import World
from training.bundle.bundle import BadBundle


def world_in(folder: Path, **wanted: int | None) -> World:
    """Return the world of a folder; written first where the folder is new or empty.

    Args:
        wanted: settings that were asked for; None where any will do.

    Raises:
        BadWorkspace: the folder holds something else, or another world.
    """
    asked = {name: value for name, value in wanted.items() if value is not None}
    found = read_settings(folder)
    if found is None:
        world = World(WorldSettings(**asked))
        write_workspace(world, folder)
        return world
    there = msgspec.structs.asdict(found)
    for name, value in asked.items():
        if there[name] != value:
            remedy = f"Leave --{name} out, or name another folder."
            raise BadWorkspace(
                [Fault(str(folder / WORLD_FILE), f"$.{name}", str(value), str(there[name]), remedy=remedy)]
            )
    return World(found)


def prepared(folder: Path, tell: console.Told = lambda *_: None, ago: int = 0) -> Workspace:
    """Return the workspace of a world with everything made of it that serving needs, as at the end of its history.

    Args:
        ago: so many microseconds at least lie between the end of a history that is imported now and the present.

    Raises:
        BadWorkspace, BadBundle: the files were changed so that they do not fit, or the model did not pass its gates.
        Busy: another process works on the workspace.
    """
    workspace = load(folder)
    with steps.alone(workspace), steps.quiet_warnings():
        if not steps.is_imported(workspace):
            tell("import", None)
            steps.import_tables(workspace, Micros(now() - ago))
        moment = Micros(NOW + shift(workspace))
        if not steps.is_computed(workspace):
            tell("windows at every moment that training needs", None)
            steps.compute_features(workspace, moment)
        if not steps.is_materialized(workspace):
            tell("online store", None)
            steps.materialize(workspace)
        if not steps.are_contacts_brought(workspace):
            steps.bring_contacts(workspace, moment)
        if serving_version(workspace) is None:
            _train(workspace, moment, tell)
    return workspace


def shift(workspace: Workspace) -> int:
    """Microseconds by which the import moved the world's own time."""
    moved = timeline.recorded(workspace)
    return 0 if moved is None else moved.from_source(NOW) - NOW


def _train(workspace: Workspace, moment: Micros, tell: console.Told) -> None:
    from training.fitting.train import train

    trained = train(workspace, moment, tell)
    if not trained.promoted:
        raise BadBundle(f"the model did not pass its gates: {'; '.join(trained.report['gates'])}. Take more customers.")
    tell("verify and publish", None)
    publish(workspace, trained.version)
