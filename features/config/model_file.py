"""`model.yaml` as structs: the label, the split, and LightGBM's parameters. Unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from features.common.timestamps import DURATION_OR_END_PATTERN, Moment

MODEL_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,80}$(?!\n)"


class Label(Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as success: an outcome of this type for the offer, within the attribution window after the
    decision.
    """

    outcome: str
    within: Annotated[str, Meta(pattern=DURATION_OR_END_PATTERN)] = "30d"
    """A duration, or until the offer is no longer valid."""


class TrainingSplit(Struct, frozen=True, forbid_unknown_fields=True):
    """Where time is cut. Training decisions have their attribution window closed before the cut; test decisions come
    after.
    """

    cut: Moment | None = None
    """In the source's own time; when absent, the moment that leaves `test_share` of the decisions behind it."""
    test_share: Annotated[float, Meta(gt=0, lt=0.9)] = 0.2
    open_windows: bool = False
    """Whether test decisions count whose attribution window is still open: their failures may yet turn into successes.
    """
    stopping_share: Annotated[float, Meta(gt=0, lt=0.9)] = 0.25
    """Latest part of the training decisions, on which early stopping and calibration are done."""


class Gates(Struct, frozen=True, forbid_unknown_fields=True):
    """What a model must reach before it may serve."""

    better_than_popularity: bool = True
    """Its MRR on the test slice is at least that of the popularity baseline."""


class ModelFile(Struct, frozen=True, forbid_unknown_fields=True):
    """`model.yaml`: the label, the split, and LightGBM's parameters."""

    name: Annotated[str, Meta(pattern=MODEL_NAME_PATTERN)]
    label: Label
    split: TrainingSplit = TrainingSplit()
    parameters: dict[str, Any] = {}
    """LightGBM's, by any of its names; see `features/config/model_parameters.py`."""
    rounds_max: Annotated[int, Meta(ge=1, le=10_000)] = 500
    patience_rounds: Annotated[int, Meta(ge=1)] = 50
    weight_without_success: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Weight of the decisions that had no success; below 1 the model learns more from choices than from silence."""
    cold_start_share: Annotated[float, Meta(ge=0, lt=1)] = 0.05
    """Part of the training decisions whose customer is made unknown, so that the model can rank for strangers."""
    monotone: dict[str, Literal["increasing", "decreasing"]] = {}
    additive: bool = False
    """No tree mixes columns of customer and context with columns of offer and pair: those move the level, these the
    order.
    """
    leave_out: tuple[str, ...] = ()
    """Columns that the model does not use."""
    learn_from: Literal["auto", "recorded", "imported", "both"] = "auto"
    """`recorded`: what this service decided, with the columns as the model saw them; `imported`: the business's own
    history; `both`. `auto` takes recorded decisions once there are enough of them, and before that what was imported.
    """
    recorded_decisions_min: Annotated[int, Meta(ge=1)] = 20_000
    """So many recorded decisions with a closed attribution window are enough for `auto`,"""
    recorded_successes_min: Annotated[int, Meta(ge=1)] = 200
    """if so many of them had a success: the last fifth of time, on which models are compared, then has about forty."""
    recorded_weight: Annotated[float, Meta(gt=0, le=1_000)] = 1.0
    """With `both`: what a recorded decision weighs against an imported one."""
    popularity: str | None = None
    """The column that the popularity baseline ranks by; each offer's success rate in the training rows when absent."""
    seed: int = 1
    gates: Gates = Gates()
