"""Models beside the one that serves: published under an alias for the arms that name it, followed by the background
worker, kept.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines import worker
from pipelines.deploy import publish as publishing
from pipelines.main import app
from serving.reload.published import models
from serving.reload.reloader import Reloader
from tests.serving.live import another_bundle
from tests.trained import copy_of
from training.bundle import bundle, registry

ARMS = {"champion": {}, "challenger": {"changes": {"model": "challenger"}}}


@pytest.fixture(scope="module")
def workspace(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = copy_of(trained_workspace, tmp_path_factory.mktemp("beside") / "fernruf")
    (folder / "experiments.yaml").write_text(
        yaml.safe_dump({"experiments": {"e": {"status": "running", "arms": ARMS}}})
    )
    return load(folder, sources=False)


def test_the_worker_follows_the_aliases_that_arms_name(workspace: Workspace) -> None:
    """An alias without a version is left alone; one that has a version is published beside, once, and what serves
    stays.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        worker.follow(workspace)
        assert bundle.aliased(workspace.bundles, "challenger") is None and models(workspace) == {}
        desk = Reloader(workspace)
        desk.load()
        assert desk.loaded is None and "run `opportune publish --alias challenger`" in str(desk.refusal)
        registry.set_alias(workspace, "challenger", "1")
        served = bundle.current(workspace.bundles)
        worker.follow(workspace)
        place = bundle.aliased(workspace.bundles, "challenger")
        assert place is not None and publishing.version_beside(workspace, "challenger") == "1"
        written = place.stat().st_mtime_ns
        worker.follow(workspace)
        assert bundle.current(workspace.bundles) == served and place.stat().st_mtime_ns == written
        assert set(models(workspace)) == {"challenger"}
        desk.load()
        assert desk.loaded is not None, desk.refusal
        desk.close()


def test_a_bundle_that_an_alias_names_is_kept(workspace: Workspace) -> None:
    """However many bundles come after it, the one of an alias stays on the disk, until the alias has another."""
    place, other = (another_bundle(workspace.folder, version, float(version)) for version in ("7", "8"))
    bundle.switch(workspace.bundles, other)
    for alias in ("kept", "kept-too"):
        bundle.point(workspace.bundles, alias, place)
    for number in range(bundle.KEPT + 2):
        bundle.switch(workspace.bundles, another_bundle(workspace.folder, f"1{number}", 0.1 * number))
    assert bundle.aliased(workspace.bundles, "kept") == place and place.is_dir() and not other.is_dir()
    served = bundle.current(workspace.bundles)
    assert served is not None
    bundle.point(workspace.bundles, "kept", served)
    assert place.is_dir()
    bundle.point(workspace.bundles, "kept-too", served)
    assert not place.is_dir() and served.is_dir()


def test_the_verb_publishes_beside(workspace: Workspace) -> None:
    """`opportune publish --alias` says what it did, and refuses an alias that the registry does not have."""
    registry.set_alias(workspace, "shadow", "1")
    served = bundle.current(workspace.bundles)
    done = CliRunner().invoke(app, ["publish", "-w", str(workspace.folder), "--alias", "shadow"])
    assert done.exit_code == 0, done.output
    assert "serves arms that name shadow" in " ".join(done.output.split())
    assert bundle.current(workspace.bundles) == served and publishing.version_beside(workspace, "shadow") == "1"
    assert CliRunner().invoke(app, ["publish", "-w", str(workspace.folder), "--alias", "nobody"]).exit_code != 0


def test_a_version_and_an_alias_go_together(workspace: Workspace) -> None:
    """With both, the registry's alias is set to the version and the version published for it, whatever the alias was
    before.
    """
    served = bundle.current(workspace.bundles)
    for alias in ("newcomer", "newcomer", "challenger"):
        done = said("publish", "-w", str(workspace.folder), "--version", "1", "--alias", alias, "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["alias"] == alias
        assert registry.version_of(workspace, alias) == "1" and publishing.version_beside(workspace, alias) == "1"
    assert bundle.current(workspace.bundles) == served


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ["--alias", "rival"],
            "got `rival`; versions: 1; aliases: .*champion \\(1\\).* `opportune publish --version 1 --alias rival`",
        ),
        (["--version", "9"], "got `9`; versions: 1; aliases: .*champion \\(1\\)"),
        (["--version", "9", "--alias", "rival"], "got `9`; versions: 1;"),
        (["--version", "1", "--alias", "2"], "expected the name of an alias for version 1, got '2'"),
        (["--version", "1", "--alias", "../rival"], "expected letters, digits, - and _"),
        (["--version", "1", "--alias", "v1"], "neither `latest` nor `v` and a number"),
    ],
)
def test_options_of_publish_that_lead_nowhere_are_refused(
    workspace: Workspace, options: list[str], reason: str
) -> None:
    """An unknown version or alias is answered with those that exist, an alias without a version with the command that
    gives it one.
    """
    done = said("publish", "-w", str(workspace.folder), *options)
    assert done.exit_code != 0 and bundle.aliased(workspace.bundles, "rival") is None
    assert re.search(reason, " ".join(f"{done.output} {done.exception}".replace("│", " ").split())), (
        done.output,
        done.exception,
    )


def said(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)
