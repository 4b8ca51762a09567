"""The background worker: brings the features up to date, and what the registry calls champion into serving.

python -m pipelines.worker WORKSPACE
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

os.environ["TZ"] = "UTC"
time.tzset()

from features.failures import Failure  # noqa: E402
from features.moments import MICROSECONDS, now  # noqa: E402
from features.workspace import Workspace, load  # noqa: E402
from pipelines import steps  # noqa: E402
from pipelines.publishing import publish, serving_version  # noqa: E402
from serving import leash  # noqa: E402

logger = logging.getLogger("opportune.worker")

REGISTRY_SECONDS = 15
FEATURES_SECONDS = 6 * 3_600
"""Windows slide with the clock even when nothing is bought: so often they are computed again."""


def refresh(workspace: Workspace) -> None:
    """Compute and materialize when the rows are old, or the lake has changed."""
    age = (now() - steps.state_of(workspace).computed_at) / MICROSECONDS
    if age > FEATURES_SECONDS or not steps.is_computed(workspace):
        with steps.alone(workspace):
            steps.compute_features(workspace, now())
            compared = steps.materialize(workspace)
        logger.info("features are up to date; %d customers compared", compared)


def follow(workspace: Workspace) -> None:
    """Publish the champion when it is another version than the one that serves."""
    from training import registry

    def behind() -> str | None:
        champion = registry.version_of(workspace, registry.CHAMPION)
        return champion if champion is not None and champion != serving_version(workspace) else None

    if behind():
        with steps.alone(workspace):
            champion = behind()  # `opportune publish` may have been quicker
            if champion:
                publish(workspace, champion)
                logger.info("version %s serves", champion)


def main(folder: str) -> None:
    """Work until told to stop; a task that fails is told of, and tried again at its next turn."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    leash.end_with_starter()
    workspace = load(Path(folder), sources=False)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    while not stopped.wait(REGISTRY_SECONDS):
        for task in (refresh, follow):
            try:
                task(workspace)
            except (Failure, OSError) as error:
                logger.warning("%s: %s", task.__name__, error)


if __name__ == "__main__":
    main(sys.argv[1])
