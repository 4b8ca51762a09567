"""Prepared workspaces: made once by the product's own steps, kept outside git in `.bench/`, copied for each catalogue
and store.

A place is a workspace folder of its own that can be served: the same model and customers, a catalogue of so many
offers, an online store of one kind. Nothing in the product knows that it is a benchmark's.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import yaml

from benchmarks import synthetic
from features.common.files import write_whole
from features.common.timestamps import now
from features.lake.offers import catalogue_file, read_catalogue
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.deploy.publish import publish, serving_version
from pipelines.materialize import steps
from training.bundle import bundle
from training.fitting.train import train

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".bench"
GROCERY = ROOT / "examples" / "grocery"


PLAIN: dict[str, Any] = {
    "offers.yaml": {"placements": {"checkout": {"limit": 3}}, "treatments": [{"payload": {"headline": "{name}"}}]},
    "policies.yaml": {"rules": {"targeted": {"when": "default(pair.targeted_all, 1) >= 1"}}},
}
"""The grocery without its limits, weights and diversity: the oracle knows propensity and value, and asks for one
customer very often.
"""


class NotPrepared(RuntimeError):
    """A workspace could not be brought to what the bars are about."""


def prepared(name: str, fresh: bool = False) -> Workspace:
    """`plain`, `pairs` or `grocery`, ready to be served; made when it is missing or was made of other files."""
    place = CACHE / f"{name}-{_digest(name)}"
    if fresh or (place.exists() and not _usable(place)):
        shutil.rmtree(place, ignore_errors=True)
    if not place.exists():
        began = time.monotonic()
        print(f"preparing the workspace {name} (once; kept in {place.relative_to(ROOT)})", flush=True)
        aside = CACHE / f".{name}-{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        if name == "grocery":
            shutil.copytree(GROCERY, aside, ignore=shutil.ignore_patterns(".opportune"))
        else:
            synthetic.write(aside, name)
        aside.rename(place)  # Feast's registry holds whole paths: what is made must be made where it stays
        prepare(load(place))
        print(f"  ready after {time.monotonic() - began:.0f} s", flush=True)
    workspace = load(place, sources=False)
    if name != "grocery":
        _require_size(workspace)
    return workspace


def _digest(name: str) -> str:
    """Of what the workspace is made of."""
    if name == "grocery":
        files = sorted(
            file
            for file in GROCERY.rglob("*")
            if file.is_file() and ".opportune" not in file.parts and file.suffix in (".yaml", ".parquet")
        )
    else:
        source = Path(synthetic.__file__).read_text()
        return hashlib.sha256(ast.dump(ast.parse(source)).encode()).hexdigest()[
            :12
        ]  # its form and comments make no other data
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:12]


def _usable(place: Path) -> bool:
    workspace = load(place, sources=False)
    done = steps.is_computed(workspace) and steps.is_materialized(workspace)
    return done and serving_version(workspace) is not None and catalogue_file(workspace).exists()


def prepare(workspace: Workspace) -> None:
    """What `opportune up` does before it serves."""
    with steps.alone(workspace):
        if not steps.is_imported(workspace):
            steps.import_tables(workspace, now())
        if not steps.is_computed(workspace):
            steps.compute_features(workspace, now())
        if not steps.is_materialized(workspace):
            steps.materialize(workspace)
        if serving_version(workspace) is None:
            with steps.quiet():
                trained = train(workspace, now())
            if not trained.promoted:
                raise NotPrepared(
                    f"{workspace.settings.name}: expected a model that passes its gates, got {trained.report['gates']}"
                )
            publish(workspace, trained.version)


def _require_size(workspace: Workspace) -> None:
    """The bars are about 200 trees of 31 leaves on 35 customer and 5 offer columns: refuse to measure anything else."""
    place = bundle.current(workspace.bundles)
    assert place is not None
    found = bundle.read(place)
    kinds = [len(found.contract.of_kind(kind)) for kind in ("customer", "offer")]
    shape = [found.forest.trees, int(found.forest.leaves.min()), int(found.forest.leaves.max()), *kinds]
    offer_columns = synthetic.OFFER_COLUMNS + (2 if workspace.settings.name.endswith("pairs") else 0)
    if (
        shape[:4] != [synthetic.TREES, synthetic.LEAVES, synthetic.LEAVES, synthetic.CUSTOMER_COLUMNS]
        or kinds[1] > offer_columns
    ):
        raise NotPrepared(
            "expected 200 trees of 31 leaves on 35 customer columns, got [trees, least, most, customer, offer] ="
            f" {shape}"
        )


def copy(base: Workspace, offers: int | None, url: str = "embedded", label: str = "") -> Workspace:
    """A servable copy with a catalogue of so many offers (None: its own), reading from the store at `url`; `label`
    tells it from others.
    """
    name = f"{base.folder.name}.{offers or 'own'}.{'embedded' if url == 'embedded' else 'redis'}{label and '.' + label}"
    place = CACHE / "places" / name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(base.folder, place, ignore=shutil.ignore_patterns("data", ".opportune"))
    made = place / base.settings.data
    made.mkdir()
    if url != "embedded":
        settings = yaml.safe_load((place / "workspace.yaml").read_text())
        settings["stores"] = {"online": {"url": url}}
        (place / "workspace.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    else:
        shutil.copytree(base.online, made / "online")
    shutil.copytree(base.bundles, made / "bundles")
    shutil.copytree(base.data / "feast", made / "feast")
    if base.settings.name == "grocery":
        (place / "experiments.yaml").unlink(missing_ok=True)  # it speaks of rules and groups that the plain one lacks
        for file, said in PLAIN.items():
            (place / file).write_text(yaml.safe_dump(said, sort_keys=False))
    catalogue = read_catalogue(base) if offers is None else synthetic.offers_of(_variant(base), offers)
    workspace = load(place, sources=False)
    write_whole(catalogue_file(workspace), msgspec.json.encode(catalogue))
    return workspace


def fill(base: Workspace, url: str) -> int:
    """Bring the base's customers into the store at `url` through Feast, from the base's offline tables; returns those
    read back.
    """
    place = copy(base, None, url)
    for name in ("offline", "lake"):
        shutil.copytree(base.data / name, place.data / name)
    for name in ("steps.json", "timeline.json"):
        if (base.data / name).exists():
            shutil.copyfile(base.data / name, place.data / name)
    return steps.materialize(place)


def _variant(base: Workspace) -> str:
    return base.settings.name.removeprefix("bench-")
