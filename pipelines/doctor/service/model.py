"""Checks of what serves: is there a model, is it the champion, does the registry know it, is it worth serving, is it
older than its data.
"""

from __future__ import annotations

from features.columns.rows import Dictionary, RowSchema
from features.common.moments import in_seconds
from features.common.timestamps import DAY_SECONDS, MICROSECONDS, rfc3339
from features.lake.offers import catalogue_file, read_catalogue
from pipelines.doctor.facts.check import CannotSay, Finding, Seen
from pipelines.doctor.facts.gather import Facts
from training.bundle import bundle

DECISIONS_MIN = 1_000
AFTER_SHARE_MAX = 0.5
COIN_AUC_MAX = 0.52
"""No better than a coin, but for chance."""
TREES_MIN = 2


def bundle_refused(facts: Facts) -> Seen:
    """What was published cannot serve, or nothing was."""
    model = facts.model
    if model.serving is not None:
        return Seen("the published bundle: digests, format, columns")
    if model.refused:
        todo = "Run `opportune train` and `opportune publish`."
        finding = Finding("bundle_refused", "error", "what was published cannot serve", {"why": model.refused}, todo)
        return Seen("the published bundle", [finding])
    todo = "Run `opportune up`, or `opportune train` and `opportune publish`."
    return Seen("the folder of bundles", [Finding("bundle_refused", "error", "nothing was published yet", {}, todo)])


def golden_fails(facts: Facts) -> Seen:
    """The kernel does not give the answers that were recorded with the bundle."""
    from serving.state.snapshot import Snapshot

    workspace = facts.workspace
    place = bundle.current(workspace.bundles)
    if facts.model.serving is None or place is None:
        raise CannotSay("nothing serves")
    if not catalogue_file(workspace).exists():
        raise CannotSay("nothing was imported yet")
    found = bundle.read(place)
    try:
        nobody = RowSchema.of(workspace.views, "everyone").nobody()
        Snapshot(workspace, found, read_catalogue(workspace), nobody, Dictionary(), in_seconds(facts.now))
    except bundle.BadBundle as bad:
        todo = (
            "Run `opportune publish`; where it refuses too, the installed libraries are others than those that trained:"
            " see packages."
        )
        finding = Finding(
            "golden_fails",
            "error",
            "the model does not give the answers that it was published with",
            {"why": str(bad)},
            todo,
        )
        return Seen("golden requests", [finding])
    return Seen(
        f"{len(found.golden)} golden requests, by the kernel; LightGBM's own answers are asked for by `opportune"
        " publish`"
    )


def registry_answers(facts: Facts) -> Seen:
    """The registry does not answer, is damaged, or names no champion."""
    registry = facts.registry
    if registry.fault:
        todo = (
            "Start MLflow's server, or take mlflow.db from a backup. What serves goes on; nothing new is trained or"
            " published meanwhile."
        )
        what = "the registry cannot be asked: champions do not change, and `train` and `publish` fail"
        return Seen("the registry", [Finding("registry_answers", "error", what, {"why": registry.fault}, todo)])
    if registry.aliases.get("champion") is None:
        todo = "Run `opportune train`, which names one when its gates are passed, or `opportune publish --version N`."
        what = "the registry names no champion of this model"
        return Seen("the aliases of the registry", [Finding("registry_answers", "warning", what, {}, todo)])
    return Seen(f"{len(registry.aliases)} aliases of the registry")


def served_version_registered(facts: Facts) -> Seen:
    """The version that serves is not in the registry."""
    serving = facts.model.serving
    if serving is None:
        raise CannotSay("nothing serves")
    if facts.registry.fault:
        raise CannotSay("the registry cannot be asked: see registry_answers")
    if serving in facts.registry.registered:
        return Seen("the version that serves, in the registry")
    todo = (
        "Point the workspace at the registry that trained it (`stores.registry`), or train and publish again: it cannot"
        " be rolled back to."
    )
    what = "the version that serves is not in the registry"
    return Seen("the registry", [Finding("served_version_registered", "warning", what, {"serves": serving}, todo)])


def champion_serves(facts: Facts) -> Seen:
    """Another version serves than the registry calls champion."""
    serving = facts.model.serving
    if facts.registry.fault:
        raise CannotSay("the registry cannot be asked: see registry_answers")
    champion = facts.registry.aliases.get("champion")
    if champion is None:
        raise CannotSay("the registry names no champion")
    if serving is None:
        raise CannotSay("nothing serves")
    seen = "the alias champion and the published bundle"
    if serving == champion:
        return Seen(seen)
    evidence: dict[str, float | str] = {"serves": serving, "champion": champion}
    todo = "Run `opportune publish`; the background worker's log says why it did not follow."
    return Seen(seen, [Finding("champion_serves", "warning", "the champion is not what serves", evidence, todo)])


def workers_differ(facts: Facts) -> Seen:
    """Workers of the server serve different bundles, or another one than was published."""
    server = facts.server
    if server.metrics != 200:
        raise CannotSay(f"/metrics answered {server.metrics or 'nothing'}: set OPPORTUNE_KEY to a key that may read it")
    if not server.bundles:
        raise CannotSay("the server's metrics name no bundle")
    place = bundle.current(facts.workspace.bundles)
    published = "" if place is None else place.name
    different = [
        one for one in server.bundles if published and one.removeprefix("sha256:")[: len(published)] != published
    ]
    if len(server.bundles) == 1 and not different:
        return Seen("the bundles that the server's workers serve")
    evidence: dict[str, float | str] = {
        "bundles": len(server.bundles),
        "published": published,
        "others": len(different),
    }
    todo = (
        "Wait some seconds and look again; if it stays, the server's log says why a worker refuses what was published,"
        " or start it again."
    )
    what = (
        "workers of the server serve different bundles"
        if len(server.bundles) > 1
        else "the server does not serve what was published"
    )
    return Seen("bundles of workers", [Finding("workers_differ", "warning", what, evidence, todo)])


def model_weak(facts: Facts) -> Seen:
    """The model that serves has next to no trees, or orders offers like a coin."""
    model = facts.model
    if model.serving is None:
        raise CannotSay("nothing serves")
    seen, found = f"{model.trees} trees, and the metrics of its test slice", []
    if model.trees < TREES_MIN:
        evidence: dict[str, float | str] = {"trees": model.trees}
        todo = (
            "Look at `parameters` in model.yaml (boosting, early stopping, min_data_in_leaf), then run `opportune"
            " train`."
        )
        found.append(
            Finding(
                "model_weak",
                "error",
                "the model that serves has hardly a tree: it has learnt next to nothing",
                evidence,
                todo,
            )
        )
    auc = model.metrics.get("auc")
    if auc is not None and auc < COIN_AUC_MAX:
        evidence = {"auc": auc, "trees": model.trees}
        todo = (
            "Look whether the label of model.yaml happens at all, and whether columns say anything"
            " (`columns_say_nothing`); then train again."
        )
        found.append(Finding("model_weak", "error", "the model that serves orders offers like a coin", evidence, todo))
    return Seen(seen, found)


def model_older_than_data(facts: Facts) -> Seen:
    """Most decisions came after the model was trained."""
    model = facts.model
    if model.trained_at is None:
        raise CannotSay("nothing serves that says when it was trained")
    if model.decisions < DECISIONS_MIN:
        raise CannotSay(f"{model.decisions} decisions in the lake, expected at least {DECISIONS_MIN}")
    share = model.decisions_after / model.decisions
    if share <= AFTER_SHARE_MAX:
        return Seen(f"{model.decisions:,} decisions")
    days = (facts.now - model.trained_at) / MICROSECONDS / DAY_SECONDS
    evidence: dict[str, float | str] = {
        "decisions": model.decisions,
        "after_training": model.decisions_after,
        "share": share,
        "days": days,
    }
    todo = "Run `opportune train`: it takes recorded decisions where there are enough."
    what = "the model was trained before most of the decisions that are known"
    return Seen(
        "decisions", [Finding("model_older_than_data", "warning", what, evidence, todo, rfc3339(model.trained_at))]
    )


CHECKS = (
    bundle_refused,
    golden_fails,
    registry_answers,
    served_version_registered,
    champion_serves,
    workers_differ,
    model_weak,
    model_older_than_data,
)
