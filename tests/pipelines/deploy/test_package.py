"""`opportune build`: a bento that serves by BentoML's own command, from an empty folder, with nothing of ours around
it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from features.common.types import DecisionRequest
from features.validation.load import load
from features.workspace import ramps, timeline
from serving.kernel import compile_cache
from serving.reload.reloader import Reloader
from serving.settings import KEEP_ALIVE_VARIABLE
from tests import environments
from tests.serving.decisions import decide
from tests.serving.live import ROOT, Live, decision, idle_seconds, serving_copy

pytestmark = pytest.mark.slow


def build(folder: Path, home: Path, *options: str) -> tuple[str, Path]:
    """What `opportune build` prints, and the folder of the bento."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.main", "build", "-w", str(folder), *options],
        cwd=ROOT,
        env=dict(os.environ) | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tag = done.stdout.strip()
    return tag, home / "bentos" / tag.replace(":", "/") / "src"


@pytest.mark.timeout(900)
def test_bento_serves_from_what_it_asks_for(trained_workspace: Path, tmp_path: Path) -> None:
    """In an environment of its own requirements, the bento with its customers answers what this process decides, by its
    own files.
    """
    folder = serving_copy(trained_workspace, tmp_path / "shop")
    tag, place = build(folder, tmp_path / "home", "--with-customers")
    assert tag.startswith("opportune:") and "\n" not in tag
    asked = place.parent / "env" / "python" / "requirements.txt"
    assert "://" not in asked.read_text()
    python = environments.environment(tmp_path / "env", "--require-hashes", "-r", str(asked))
    had = environments.run([environments.uv(), "pip", "freeze", "--python", str(python)]).stdout
    assert not re.search(r"^(duckdb|pyarrow|pandas|feast|mlflow|lightgbm|opportune)\b", had, re.M), (
        "the server needs none of them"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    live = Live(
        empty,
        command=(
            "/usr/bin/env",
            "-C",
            str(empty),
            "-u",
            "PYTHONPATH",
            str(python),
            "-m",
            "bentoml",
            "serve",
            tag,
            "--host",
            "127.0.0.1",
            "--port",
            "{port}",
        ),
        environment={
            "BENTOML_HOME": str(tmp_path / "home"),
            "BENTOML_DO_NOT_TRACK": "True",
            "TZ": "UTC",
            "PATH": f"{python.parent}:/usr/bin:/bin",
            KEEP_ALIVE_VARIABLE: "1.5",
        },
    ).start()
    try:
        assert idle_seconds(live.port) > 1.4, "the bento honours the setting for idle connections"
        desk = Reloader(load(folder, sources=False))
        desk.load()
        assert desk.loaded is not None
        for customer in ("436600000", "436600001", "who-is-this"):
            told = live.decide(customer)
            assert told["degraded"] == [] and told["model"]["bundle"] == desk.loaded.stamp.bundle
            request = msgspec.convert(decision(customer), DecisionRequest)
            moment = int(told["decision_id"].split("-")[0], 16)
            expected = decide(
                request,
                desk.loaded,
                asyncio.run(desk.stores.customers.row(customer)),
                moment,
                decision_id=told["decision_id"],
            )
            assert told == json.loads(msgspec.json.encode(expected))
        desk.close()
        assert live.ask("GET", "/").status == 404
        assert list((place / "serving/kernel/__pycache__").glob("*.nbi")), (
            "the bento's own code was compiled, or brought along, and run"
        )
        assert not list(empty.iterdir())
    finally:
        live.stop()


def test_bento_has_no_customers_unless_asked(trained_workspace: Path, tmp_path: Path) -> None:
    """Without the option the package holds code, workspace and bundle, and no row of a customer; its files say what the
    workspace's say.
    """
    folder = serving_copy(trained_workspace, tmp_path / "shop")
    with (folder / "workspace.yaml").open("a") as settings:
        settings.write("demo: {now: 2018-01-01T05:00:00Z}\n")
    moved = load(folder, sources=False)
    timeline.timeline_file(moved).write_text(json.dumps({"offset": 3 * timeline.WEEK_MICROSECONDS}))
    (moved.data / ramps.RECORD).write_text("a step\n")
    _, place = build(folder, tmp_path / "home")
    packed = load(place / "workspace", sources=False)
    assert packed.settings.demo == moved.settings.demo is not None and packed.settings.stores == moved.settings.stores
    assert timeline.recorded(packed) == timeline.Timeline(3 * timeline.WEEK_MICROSECONDS)
    assert (packed.data / ramps.RECORD).read_text() == "a step\n", "where ramps stand goes with them"
    found = {str(file.relative_to(place)) for file in place.rglob("*") if file.is_file()}
    assert {
        "workspace/workspace.yaml",
        "workspace/made/catalogue.json",
        "serving/service.py",
        "features/columns/layout.py",
    } <= found
    assert any(name.startswith("workspace/made/bundles/") and name.endswith("forest.npz") for name in found)
    assert not any(name.startswith("workspace/made/online/") or name.endswith(".mdb") for name in found)
    rooms = {str(Path(name).parent) for name in found if name.startswith("compiled/")}
    assert {"compiled/serving/kernel", "compiled/features/columns"} <= rooms, (
        "the machine code of every room is brought along"
    )
    assert not any(name.startswith(("pipelines/", "tests/", "workspace/data/")) for name in found)


def test_nothing_to_build(trained_workspace: Path, tmp_path: Path) -> None:
    """A workspace without a published model is refused in one line."""
    folder = serving_copy(trained_workspace, tmp_path / "shop")
    (load(folder, sources=False).bundles / "current").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.main", "build", "-w", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert next(line for line in done.stderr.splitlines() if not line.startswith("build:")).startswith(
        "opportune: expected a published model"
    )


def test_compiled_code_is_packed_and_unpacked(tmp_path: Path) -> None:
    """What numba has compiled travels in a folder of its own, and what is there already is not replaced."""
    cache = tmp_path / "from" / "serving/kernel/__pycache__"
    cache.mkdir(parents=True)
    (cache.parent / "kernel.py").touch()
    for name in ("kernel.f-1.py311.nbi", "kernel.f-1.py311.1.nbc", "kernel.cpython-311.pyc"):
        (cache / name).write_text(name)
    assert compile_cache.pack(tmp_path / "to", tmp_path / "from") == 2
    made = tmp_path / "to" / "serving/kernel/__pycache__"
    made.mkdir(parents=True)
    (made / "kernel.f-1.py311.nbi").write_text("newer")
    compile_cache.unpack(tmp_path / "to")
    assert {file.name: file.read_text() for file in made.iterdir()} == {
        "kernel.f-1.py311.nbi": "newer",
        "kernel.f-1.py311.1.nbc": "kernel.f-1.py311.1.nbc",
    }
    compile_cache.unpack(tmp_path / "nowhere")
