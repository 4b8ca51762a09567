"""A workspace with everything made of it: imported, computed, materialized, trained, published. Making one takes half a
minute.
"""

from __future__ import annotations

import shutil
import warnings
from datetime import datetime, timedelta
from pathlib import Path

from features.common import clock
from features.common.timestamps import to_microseconds
from features.validation.load import load
from tests.workspaces import make_workspace

CUSTOMERS = 520


def end_of_data() -> datetime:
    """Return the moment at which everything was computed: not on a whole second, always at 19:00, and more than a day
    ago.

    What tests let happen within the last day is later than the rows at whatever hour they run.
    """
    return clock.now().replace(hour=0, minute=0, second=0, microsecond=123_456) - timedelta(hours=29)


def build(folder: Path) -> Path:
    """Make one; the champion is version 1 and serves."""
    from pipelines.deploy import publish as publishing
    from pipelines.materialize import steps
    from training.fitting.train import train

    end = end_of_data()
    workspace = load(make_workspace(folder, seed=7, customers=CUSTOMERS, decisions=4, now=end))
    now = to_microseconds(end)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own; the tests of each room look at ours
        steps.import_tables(workspace, now)
        steps.compute_features(workspace, now)
        steps.materialize(workspace)
        trained = train(workspace, now)
        assert trained.promoted and trained.version == "1"
        publishing.publish(workspace, trained.version)
    return folder


def copy_of(workspace: Path, target: Path) -> Path:
    """A copy to change or damage."""
    return Path(shutil.copytree(workspace, target, symlinks=True))
