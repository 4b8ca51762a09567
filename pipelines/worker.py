"""The background worker: ships what happened into the lake, keeps the features up to date, and brings the champion into
serving.

python -m pipelines.worker WORKSPACE
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ["TZ"] = "UTC"
time.tzset()

from features.common.clock import notice  # noqa: E402
from features.common.errors import Failure  # noqa: E402
from features.common.files import keep_private  # noqa: E402
from features.common.timestamps import MICROSECONDS, duration_seconds, now  # noqa: E402
from features.config.faults import BadWorkspace  # noqa: E402
from features.validation.load import load  # noqa: E402
from features.workspace.variants import aliases  # noqa: E402
from features.workspace.workspace import Workspace  # noqa: E402
from pipelines.deploy.publish import publish, publish_beside, serving_version, version_beside  # noqa: E402
from pipelines.erasure import erase as erasure  # noqa: E402
from pipelines.experiments import mismatch  # noqa: E402
from pipelines.materialize import rebuild, steps  # noqa: E402
from pipelines.materialize import refresh_changed as refreshing  # noqa: E402
from pipelines.ramps import ramp as ramps  # noqa: E402
from pipelines.shipping import compact, retention, ship  # noqa: E402
from serving.runtime import parent_watch  # noqa: E402

logger = logging.getLogger("opportune.worker")

SHIP_SECONDS = 3.0
"""What was answered or acknowledged is in the lake some seconds later."""
COMPACT_SECONDS, RETAIN_SECONDS = 60.0, 3_600.0
REGISTRY_SECONDS = 15.0
FORGET_SECONDS = MEND_SECONDS = 30.0
FEATURES_SECONDS = 6 * 3_600
"""Windows slide with the clock even when nothing is bought: so often they are computed again."""
RAMP_SECONDS = SPLITS_SECONDS = 60.0
RAMP_SHARE = 0.05
"""A look reads all exposures since a ramp began: many of them must not keep a core from those who answer."""
TURN_SECONDS = 0.5


class BackgroundTask(NamedTuple):
    """Something to be done again and again."""

    work: Callable[[Workspace], object]
    seconds: float
    share: float = 1.0
    """The part of the time that it may take."""

    def due(self, begun: float, ended: float) -> float:
        """Return when the next turn is, after one from `begun` to `ended`, all in seconds: after a long one it is
        later.
        """
        return begun + max(self.seconds, (ended - begun) / self.share)


def refresh(workspace: Workspace) -> None:
    """Compute and materialize all when the rows are old, or something was imported."""
    age = (now() - steps.state_of(workspace).computed_at) / MICROSECONDS
    if age > FEATURES_SECONDS or not steps.is_computed(workspace):
        with steps.alone(workspace):
            steps.compute_features(workspace, now())
            compared = steps.materialize(workspace)
        logger.info("features are up to date; %d customers compared", compared)


def refresh_changed(workspace: Workspace) -> None:
    """Refresh the rows of all customers with new events since the last run."""
    with steps.alone(workspace):
        customers = refreshing.refresh_changed(workspace)
    if customers:
        logger.info("the windows of %d customers are up to date", customers)


def follow(workspace: Workspace) -> None:
    """Publish the champion when it is another version than the one that serves."""
    from training.bundle import registry

    def behind() -> str | None:
        champion = registry.version_of(workspace, registry.CHAMPION)
        return champion if champion is not None and champion != serving_version(workspace) else None

    if behind():
        with steps.alone(workspace):
            champion = behind()  # `opportune publish` may have been quicker
            if champion:
                publish(workspace, champion)
                logger.info("version %s serves", champion)
    for alias in aliases(_latest(workspace).experiments):
        follow_beside(workspace, alias)


def _latest(workspace: Workspace) -> Workspace:
    """Return what the files say by now; what they said at the start where they have faults, which the servers tell
    of.
    """
    try:
        return load(workspace.folder, sources=False)
    except BadWorkspace:
        return workspace


def follow_beside(workspace: Workspace, alias: str) -> None:
    """Publish the version that an alias has by now, for the arms that name it."""
    from training.bundle import registry

    def behind() -> str | None:
        version = registry.version_of(workspace, alias)
        return version if version is not None and version != version_beside(workspace, alias) else None

    if behind():
        with steps.alone(workspace):
            version = behind()
            if version:
                publish_beside(workspace, alias, version)
                logger.info("version %s serves the arms that name %s", version, alias)


def resume_forgetting(workspace: Workspace) -> None:
    """Go on with what was to be forgotten when a process ended."""
    done = erasure.resume(workspace)
    if done:
        logger.info("%d customers are forgotten whose forgetting had been interrupted", len(done))


def ramp(workspace: Workspace) -> None:
    """Take the steps of ramps that there are."""
    ramps.tend(workspace, now())


def watch_splits(workspace: Workspace) -> None:
    """Tell the servers' metrics whether experiments have the units that their splits give them."""
    mismatch.watch(_latest(workspace), now())


def tasks(workspace: Workspace) -> tuple[tuple[BackgroundTask, ...], ...]:
    """Return what goes on side by side, and one after the other within: a long computation keeps no event from the
    lake.
    """
    return (
        (
            BackgroundTask(ship.ship, SHIP_SECONDS),
            BackgroundTask(lambda found: compact.compact(found, now()), COMPACT_SECONDS),
            BackgroundTask(lambda found: retention.retain(found, now()), RETAIN_SECONDS),
        ),
        (
            BackgroundTask(resume_forgetting, FORGET_SECONDS),
            BackgroundTask(lambda found: rebuild.mend(found, logger.warning), MEND_SECONDS),
            BackgroundTask(refresh, REGISTRY_SECONDS),
            BackgroundTask(refresh_changed, duration_seconds(workspace.settings.events.refresh)),
            BackgroundTask(follow, REGISTRY_SECONDS),
        ),
        (BackgroundTask(ramp, RAMP_SECONDS, RAMP_SHARE), BackgroundTask(watch_splits, SPLITS_SECONDS, RAMP_SHARE)),
    )


def work(workspace: Workspace, turns: tuple[BackgroundTask, ...], stopped: threading.Event) -> None:
    """Do tasks at their times, until told to stop; one that fails is told of, and tried again at its next turn."""
    due = {task: time.monotonic() + task.seconds for task in turns}
    while not stopped.wait(TURN_SECONDS):
        for task in turns:
            if time.monotonic() < due[task] or stopped.is_set():
                continue
            begun = time.monotonic()
            try:
                task.work(workspace)
            except (Failure, OSError) as error:
                logger.warning("%s: %s", getattr(task.work, "__name__", "task"), error)
            due[task] = task.due(begun, time.monotonic())


def main(folder: str) -> None:
    """Work until told to stop."""
    keep_private()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if moved := notice():
        logger.warning("%s", moved)
    parent_watch.end_with_starter()
    workspace = load(Path(folder), sources=False)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    # A fault that nobody expected ends the whole process: `opportune up` starts another one.
    failed: list[BaseException] = []

    def one(turns: tuple[BackgroundTask, ...]) -> None:
        try:
            work(workspace, turns, stopped)
        except BaseException as fault:  # noqa: BLE001 (the edge of a thread)
            failed.append(fault)
            stopped.set()

    beside = [
        threading.Thread(target=one, args=(turns,), name=f"worker {at}") for at, turns in enumerate(tasks(workspace))
    ]
    for thread in beside:
        thread.start()
    for thread in beside:
        thread.join()
    if failed:
        raise failed[0]


if __name__ == "__main__":
    main(sys.argv[1])
