"""`opportune build`: a bento that serves from any folder: the code that answers, the workspace's files, and what was
published.

Customers' rows stay out of it unless asked for: a package travels further than a store. Without them the service ranks
for strangers, or reads the Redis that the workspace or the environment names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import yaml

from features.common.errors import Failure
from features.common.files import ROOT, as_given
from features.config.yaml import Tree
from features.lake.offers import catalogue_file
from features.validation.load import FILES
from features.workspace import ramps
from features.workspace.timeline import timeline_file
from features.workspace.variants import aliases
from features.workspace.workspace import Workspace
from pipelines.deploy import requirements
from pipelines.deploy.publish import serving_version
from serving.kernel import compile_cache
from serving.settings import WORKERS_VARIABLE, WORKSPACE_VARIABLE
from training.bundle import bundle

PACKAGES = ("features", "training", "serving")
NEEDED = (
    "bentoml",
    "hiredis",
    "httptools",
    "lmdb",
    "mmh3",
    "msgspec",
    "numba",
    "numpy",
    "protobuf",
    "pyyaml",
    "tzdata",
    "uvicorn",
    "uvloop",
)
"""Distributions that the serving process imports; what they need comes with them."""
NEEDED_BY_FEAST = ("feast[redis]",)
"""And where the workspace's online store is one that only Feast can read."""
REQUIREMENTS = "requirements.txt"


class BuildFailed(Failure):
    """BentoML could not make the package."""


class Built(NamedTuple):
    """A bento in BentoML's store."""

    tag: str
    folder: Path


@as_given()
def build(workspace: Workspace, *, customers: bool = False) -> Built:
    """Make a bento in BentoML's own store.

    Args:
        customers: whether the embedded online store, with the customers' rows, is packed too.

    Raises:
        BuildFailed: nothing was published yet, or BentoML refused.
    """
    place, catalogue = bundle.current(workspace.bundles), catalogue_file(workspace)
    if place is None or serving_version(workspace) is None or not catalogue.exists():
        raise BuildFailed(
            "expected a published model to pack, got none: run `opportune up`, or `opportune train` and `opportune"
            " publish`"
        )
    home = Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml").resolve()
    with tempfile.TemporaryDirectory(prefix="opportune-build-") as scratch:
        stage = Path(scratch)
        for name in PACKAGES:
            shutil.copytree(ROOT / name, stage / name, ignore=shutil.ignore_patterns("__pycache__"))
        _stage_workspace(workspace, place, catalogue, stage / "workspace", customers)
        compile_cache.pack(stage)
        _let_read(stage)
        recipe = {
            "service": "serving.service:Opportune",
            "labels": {"workspace": workspace.settings.name, "bundle": place.name},
            "include": [
                *(f"{name}/**/*.py" for name in PACKAGES),
                "workspace/**/*",
                "workspace/**/.*",
                f"{compile_cache.FOLDER}/**/*",
            ],
            "python": {"requirements_txt": REQUIREMENTS, "lock_packages": False},
        }
        (stage / REQUIREMENTS).write_text(asked := requirements_of(workspace))
        (stage / "bentofile.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        done = subprocess.run(
            [sys.executable, "-m", "bentoml", "build", "--output", "tag", "."],
            cwd=stage,
            env={
                name: value for name, value in os.environ.items() if name not in (WORKSPACE_VARIABLE, WORKERS_VARIABLE)
            }
            | {"BENTOML_HOME": str(home)},
            capture_output=True,
            text=True,
            check=False,
        )
    tags = [line.partition("__tag__:")[2].strip() for line in done.stdout.splitlines() if "__tag__:" in line]
    if done.returncode != 0 or not tags:
        raise BuildFailed(f"expected BentoML to build, got: {(done.stderr or done.stdout).strip()[-800:]}")
    # BentoML adds itself a second time and without hashes, which `uv pip install --require-hashes` refuses.
    folder = home / "bentos" / tags[0].replace(":", "/")
    (folder / "env" / "python" / REQUIREMENTS).write_text(asked)
    return Built(tags[0], folder)


def _let_read(stage: Path) -> None:
    """Give what is packed the rights of any file that is made now: data folders are private, and who runs an image is
    another user.
    """
    with as_given() as mask:
        for place in stage.rglob("*"):
            place.chmod((0o777 if place.is_dir() else 0o666) & ~mask)


def requirements_of(workspace: Workspace) -> str:
    """Return the text of the requirements of the package: exact versions and hashes, of no address."""
    lock = requirements.lock_file()
    needed = NEEDED + (NEEDED_BY_FEAST if workspace.store_kind.needs_feast else ())
    return requirements.pinned(needed, "" if lock is None else lock.read_text())


def _stage_workspace(workspace: Workspace, place: Path, catalogue: Path, target: Path, customers: bool) -> None:
    target.mkdir()
    for name in FILES:
        if (workspace.folder / name).exists():
            shutil.copy(workspace.folder / name, target / name)
    settings = Tree(
        "workspace.yaml", (target / "workspace.yaml").read_bytes()
    ).value  # moments stay the texts that they are
    settings["data"] = "made"  # BentoML leaves out what is hidden
    (target / "workspace.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    made = target / "made"
    shutil.copytree(place, made / "bundles" / place.name)
    (made / "bundles" / bundle.CURRENT).write_text(place.name)
    for alias in aliases(workspace.experiments):
        beside = bundle.aliased(workspace.bundles, alias)
        if beside is None:
            raise BuildFailed(
                f"expected a published model for arms that name `{alias}`, got none: run `opportune publish --alias"
                f" {alias}`"
            )
        shutil.copytree(beside, made / "bundles" / beside.name, dirs_exist_ok=True)
        bundle.point(made / "bundles", alias, beside)
    for file in (
        catalogue,
        timeline_file(workspace),
        workspace.data / ramps.RECORD,
    ):  # without it every ramp would be at 0
        if file.exists():
            shutil.copy(file, made / file.name)
    if customers and workspace.online.exists():
        shutil.copytree(workspace.online, made / "online")
