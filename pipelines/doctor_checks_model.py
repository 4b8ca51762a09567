"""Checks of what serves: is there a model, is it the champion, is it older than its data."""

from __future__ import annotations

from features.moments import rfc3339
from pipelines.doctor_facts import Facts, Finding

DECISIONS_MIN = 1_000
AFTER_SHARE_MAX = 0.5


def bundle_refused(facts: Facts) -> list[Finding] | str:
    """What was published cannot serve, or nothing was."""
    model = facts.model
    if isinstance(model, str):
        return model
    if model.serving is not None:
        return []
    if model.refused:
        todo = "Run `opportune train` and `opportune publish`."
        return [Finding("bundle_refused", "error", "what was published cannot serve", {"why": model.refused}, todo)]
    return [
        Finding(
            "bundle_refused", "error", "nothing was published yet", {}, "Run `opportune up`, or `opportune train` and `opportune publish`."
        )
    ]


def champion_serves(facts: Facts) -> list[Finding] | str:
    """Another version serves than the registry calls champion."""
    model = facts.model
    if isinstance(model, str):
        return model
    if model.champion is None:
        return "the registry names no champion, or does not answer"
    if model.serving is None:
        return "nothing serves"
    if model.serving == model.champion:
        return []
    evidence: dict[str, float | str] = {"serves": model.serving, "champion": model.champion}
    todo = "Run `opportune publish`; the background worker's log says why it did not follow."
    return [Finding("champion_serves", "warning", "the champion is not what serves", evidence, todo)]


def model_older_than_data(facts: Facts) -> list[Finding] | str:
    """Most decisions came after the model was trained."""
    model = facts.model
    if isinstance(model, str):
        return model
    if model.trained_at is None:
        return "nothing serves that says when it was trained"
    if model.decisions < DECISIONS_MIN:
        return f"{model.decisions} decisions in the lake, expected at least {DECISIONS_MIN}"
    share = model.decisions_after / model.decisions
    if share <= AFTER_SHARE_MAX:
        return []
    evidence: dict[str, float | str] = {"decisions": model.decisions, "after_training": model.decisions_after, "share": share}
    todo = "Run `opportune train`: it takes recorded decisions where there are enough."
    what = "the model was trained before most of the decisions that are known"
    return [Finding("model_older_than_data", "warning", what, evidence, todo, rfc3339(model.trained_at))]


def experiments(facts: Facts) -> str:
    """Nothing to look at yet."""
    del facts
    return "this version has no experiments"


CHECKS = (bundle_refused, champion_serves, model_older_than_data, experiments)
