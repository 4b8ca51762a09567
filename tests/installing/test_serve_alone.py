"""The server alone: a distribution of the same code without Feast, MLflow, DuckDB, pandas and LightGBM, installed for
real.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from features.validation.load import load
from pipelines.simulation.sampling import sampled
from tests import environments
from tests.serving.live import ask
from tests.stores import free_port
from tests.trained import copy_of
from tests.waiting import until

PACKAGES_MAX = 85
MEGABYTES_MAX = 340
"""Of the installed files, without what numba compiles; measured: 81 packages, 324 MB on Python 3.11, Linux x86-64."""
ABSENT = (
    "feast",
    "mlflow",
    "pandas",
    "lightgbm",
    "scikit-learn",
    "scipy",
    "duckdb",
    "pyarrow",
    "matplotlib",
    "dask",
    "sqlalchemy",
)
READY_SECONDS_MAX = 600
"""The first start compiles the kernel."""
FOLDER = environments.ROOT / "distributions/serve"


@pytest.fixture(scope="module")
def opportune(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, in an environment made of requirements-serve.lock and of the wheel that only serves."""
    folder = tmp_path_factory.mktemp("serve")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=FOLDER, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    words = [
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--no-deps",
        "-r",
        str(environments.ROOT / "requirements-serve.lock"),
    ]
    python = environments.environment(folder / "env", *words)
    environments.run(
        [environments.uv(), "pip", "install", "--offline", "--no-deps", "--python", str(python), str(wheel)]
    )
    environments.run([environments.uv(), "pip", "check", "--python", str(python)])
    return python.with_name("opportune")


def test_it_is_small(opportune: Path) -> None:
    """It has few packages and megabytes, and none of those that import, train and publish."""
    (site,) = opportune.parents[1].glob("lib/python*/site-packages")
    names = {re.sub(r"[-_.]+", "-", entry.name.partition("-")[0]).lower() for entry in site.glob("*.dist-info")}
    size = (
        sum(file.stat().st_size for file in site.rglob("*") if file.is_file() and "__pycache__" not in file.parts) / 1e6
    )
    assert "opportune-serve" in names
    assert not names & set(ABSENT)
    assert 40 < len(names) <= PACKAGES_MAX
    assert 100 < size <= MEGABYTES_MAX


@pytest.mark.timeout(1200)
def test_it_serves_what_was_published(opportune: Path, trained_workspace: Path, tmp_path: Path) -> None:
    """`opportune serve` answers from the embedded store and the published model, with the customer's own features."""
    workspace, port = copy_of(trained_workspace, tmp_path / "shop"), free_port()
    with (tmp_path / "said.txt").open("wb") as said:
        command = [str(opportune), "serve", "-w", str(workspace), "--port", str(port)]
        running = subprocess.Popen(command, cwd="/", env=environments.clean(), stdout=said, stderr=said)
    try:
        until(
            lambda: running.poll() is not None or ask(port, "GET", "/readyz").status == 200,
            "the server is ready",
            READY_SECONDS_MAX,
        )
        assert running.poll() is None, (tmp_path / "said.txt").read_text()
        answer = ask(
            port, "POST", "/v1/decisions", {"customer_id": sampled(load(workspace), 1)[0], "placement": "home"}
        )
        assert answer.status == 200
        assert answer.json["offers"]
        assert answer.json["degraded"] == []
    finally:
        running.terminate()
        running.wait(60)


@pytest.mark.parametrize("verb", ["import", "features", "train", "evaluate", "doctor", "registry"])
def test_verbs_that_need_more_say_what_to_install(
    opportune: Path, trained_workspace: Path, tmp_path: Path, verb: str
) -> None:
    """A verb that imports, trains or reports ends with one line that names the other distribution."""
    done = environments.run(
        [str(opportune), verb, "-w", str(copy_of(trained_workspace, tmp_path / "shop"))], check=False
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("opportune:")]
    assert done.returncode == 1
    assert len(lines) == 1
    assert re.fullmatch(
        r"opportune: expected the package `\w+`, which `opportune-serve` leaves out: .* Install `opportune` in its"
        r" place .*",
        lines[0],
    )
    assert "Traceback" not in done.stderr


def test_both_distributions_ask_for_the_same_versions() -> None:
    """What the server alone asks for is asked for by the whole, with the same floors and ceilings, and so are Python
    and the release.
    """
    whole, alone = (
        tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in (environments.ROOT, FOLDER)
    )
    assert set(alone["dependencies"]) <= set(whole["dependencies"])
    assert len(alone["dependencies"]) > 10
    for name in ("version", "requires-python", "license", "scripts"):
        assert alone[name] == whole[name]


def test_both_locks_pin_the_same_versions() -> None:
    """Whatever requirements-serve.lock pins, requirements.lock pins alike."""
    whole, alone = (
        set(re.findall(r"^([\w.-]+==\S+)", (environments.ROOT / name).read_text(), re.M))
        for name in ("requirements.lock", "requirements-serve.lock")
    )
    assert len(alone) > 40
    assert alone <= whole
