"""Experiments in a running server of two workers: one arm for a unit whatever races, files and models that come and go
under load.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from features.events.journal import Settled, read_lines
from features.validation.load import load
from pipelines.shipping.journal_files import lines as frames_of
from serving.api.split_metrics import FILE, SplitMetric, Splits
from serving.settings import WATCH_VARIABLE
from tests.serving.live import Answer, Live, another_bundle, load_on, serving_copy, wait_for
from training.bundle import bundle

UNITS, AT_ONCE = 12, 100
NOW = 1_795_978_800_000_000
REFUSED = 'opportune_refused_total{what="config"}'


def experiments(first: float, **more: Any) -> dict[str, Any]:
    """A sticky experiment with a split; its second arm shows one offer."""
    arms = {
        "as_it_is": {"weight": first},
        "short": {"weight": round(1 - first, 3), "changes": {"placements": {"home": {"limit": 1}}}},
    }
    return {"experiments": {"short": {"status": "running", "sticky": True, "arms": arms} | more}}


def write(folder: Path, content: dict[str, Any]) -> None:
    draft = folder / "experiments.draft"
    draft.write_text(yaml.safe_dump(content, sort_keys=False))
    draft.replace(folder / "experiments.yaml")


@pytest.fixture
def live(trained_workspace: Path, tmp_path: Path) -> Iterator[Live]:
    folder = serving_copy(trained_workspace, tmp_path / "shop")
    write(folder, experiments(0.5))
    server = Live(folder, workers=2, environment={WATCH_VARIABLE: "0.05"}).start()
    yield server
    server.stop()


def arm(answer: Any) -> str:
    """The arm that an answer names, which its slate bears out."""
    (found,) = answer["experiments"]
    assert len(answer["offers"]) == (1 if found["arm"] == "short" else 3)
    return str(found["arm"])


def serves(live: Live) -> set[str]:
    """The digests that workers serve by now."""
    return {
        name.partition('config="')[2].partition('"')[0]
        for name in live.metrics()
        if name.startswith("opportune_bundle_info")
    }


def test_a_unit_has_one_arm_whatever_races(live: Live) -> None:
    """100 first requests at once for each unit, while the split turns round and back: one arm a unit, always, and again
    afterwards.
    """
    seen: list[set[str]] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for unit in range(UNITS):
            write(live.workspace, experiments(0.0 if unit % 2 else 1.0))
            seen.append(
                {arm(found) for found in pool.map(lambda _, unit=unit: live.decide(f"new-{unit}"), range(AT_ONCE))}
            )  # type: ignore[misc]
    assert [len(found) for found in seen] == [1] * UNITS
    write(live.workspace, experiments(0.0, bucket_version=0, coverage=0.0))
    before = serves(live)
    wait_for(lambda: serves(live) != before or len(serves(live)) == 1)
    for unit, found in enumerate(seen):
        answers = [live.decide(f"new-{unit}") for _ in range(4)]
        assert {arm(one) for one in answers} == found
    lines = [
        line
        for file in (load(live.workspace, sources=False).data / "journal").rglob("*")
        if file.is_file()
        for line in read_lines(file)
    ]
    by_unit: dict[str, set[str]] = {}
    for line in lines:
        by_unit.setdefault(line.customer_id, set()).update(given[1] for given in line.experiments)
    assert [by_unit[f"new-{unit}"] for unit in range(UNITS)] == seen
    assert _settled(live) == {f"new-{unit}": found for unit, found in enumerate(seen)}, (
        "the journal says what was written down"
    )
    # Whichever worker is asked, the background worker's last look at the split is told.
    told = Splits(NOW, (SplitMetric("short", ("as_it_is", "short"), (461, 211), (336.0, 336.0), 1e-20, True),))
    (live.workspace / ".opportune" / FILE).write_bytes(msgspec.json.encode(told))
    for _ in range(8):
        seen_by_one = live.metrics()
        assert seen_by_one['opportune_experiment_mismatch{experiment="short"}'] == 1
        assert seen_by_one['opportune_experiment_units{experiment="short",arm="short"}'] == 211


def _settled(live: Live) -> dict[str, set[str]]:
    """The arms that the journal says a unit was given to keep."""
    found: dict[str, set[str]] = {}
    for file in (load(live.workspace, sources=False).data / "journal").glob("2*"):
        for _, one, _ in frames_of(file.read_bytes(), []):
            if isinstance(one, Settled):
                found.setdefault(one.unit, set()).update(arm for arm, *_ in one.arms.values())
    return found


def test_files_and_models_change_under_load(live: Live) -> None:
    """No request fails while experiments come, break and go; a model that is not published is refused with the way out,
    then taken.
    """
    with load_on(live.port, connections=3, pause=0.005) as seen:
        wait_for(lambda: len(seen) > 20)
        wrong = {"experiments": {"e": {"status": "running", "arms": {"alone": {}}}}}
        missing = {
            "experiments": {
                "e": {
                    "status": "running",
                    "arms": {"old": {"weight": 0}, "new": {"weight": 1, "changes": {"model": "challenger"}}},
                }
            }
        }
        for content, why in ((wrong, "two arms at least"), (missing, "run `opportune publish --alias challenger`")):
            before = live.metrics().get(REFUSED, 0)
            write(live.workspace, content)
            wait_for(lambda before=before: live.metrics().get(REFUSED, 0) >= before + 2, what=why)  # type: ignore[misc]
            assert why in (live.workspace / ".opportune" / "logs" / "server.log").read_text()
            assert live.decide()["model"]["version"] == "1" and live.decide()["experiments"][0]["key"] == "short"
        place = another_bundle(live.workspace, "2")
        bundle.point(load(live.workspace, sources=False).bundles, "challenger", place)
        wait_for(
            lambda: all(live.decide()["model"]["version"] == "2" for _ in range(20)), what="the challenger decides"
        )
        (live.workspace / "experiments.yaml").unlink()
        wait_for(lambda: all("experiments" not in live.decide() for _ in range(20)), what="no experiments")
    _check(seen)


def _check(seen: list[Answer]) -> None:
    assert len(seen) > 100 and [answer for answer in seen if answer.status != 200] == []
    arms = {tuple(one["arm"] for one in answer.json.get("experiments", [])) for answer in seen}
    assert {(), ("new",)} <= arms
