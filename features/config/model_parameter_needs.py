"""Parameters of LightGBM that have an effect only beside others, or clash with others; all by their main names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

_FRACTIONS = ("bagging_fraction", "pos_bagging_fraction", "neg_bagging_fraction")
_COLUMN_FRACTIONS = ("feature_fraction", "feature_fraction_bynode")

Given = Mapping[str, Any]
"""Parameters by main name, each of its kind and within its bounds; `_monotone` and `_categories` say what the model has
beside them.
"""


class Need(NamedTuple):
    """Of each of `names`: what must hold where it is given and not `idle`.

    Attributes:
        idle: the value that asks for nothing; None where every value asks.
    """

    names: tuple[str, ...]
    idle: object
    holds: Callable[[Given], bool]
    expected: str
    remedy: str


def _samples(given: Given) -> bool:
    return any(given.get(name, 1) < 1 for name in _FRACTIONS)


def _bags(given: Given) -> bool:
    return given.get("bagging_freq", 0) > 0 and _samples(given)


def _goss(given: Given) -> bool:
    return given.get("data_sample_strategy") == "goss"


NEEDS = (
    Need(_FRACTIONS, 1, lambda given: not _goss(given), "no bagging beside `data_sample_strategy: goss`",
        "Leave one of them out."),
    Need(("bagging_freq",), 0, lambda given: not _goss(given), "no bagging beside `data_sample_strategy: goss`",
        "Leave one of them out."),
    Need(_FRACTIONS, 1, lambda given: given.get("bagging_freq", 0) > 0, "`bagging_freq` too",
        "Without it no rows are sampled: say `bagging_freq: 1`."),
    Need(("bagging_freq",), 0, _samples, "a fraction below 1 too",
        "Without it no rows are sampled: say `bagging_fraction: 0.7`, for example."),
    Need(
        ("bagging_fraction",), 1, lambda given: not any(given.get(name, 1) < 1 for name in _FRACTIONS[1:]),
        "`bagging_fraction`, or `pos_bagging_fraction` and `neg_bagging_fraction`",
            "LightGBM passes over the first of them: leave it out.",
    ),
    Need(("bagging_seed",), None, lambda given: _bags(given) or _goss(given), "rows that are sampled",
        "Say `bagging_fraction` and `bagging_freq` too."),
    Need(("top_rate", "other_rate"), None, _goss, "`data_sample_strategy: goss` too", "Without it this has no effect."),
    Need(
        ("other_rate",), None, lambda given: given.get("top_rate", 0.2) + given["other_rate"] <= 1,
        "`top_rate` and `other_rate` of 1 at most together", "Lower one of them.",
    ),
    Need(
        ("top_rate",), None, lambda given: given["top_rate"] + given.get("other_rate", 0.1) <= 1,
        "`top_rate` and `other_rate` of 1 at most together", "Lower one of them.",
    ),
    Need(
        ("feature_fraction_seed",), None, lambda given: any(given.get(name, 1) < 1 for name in _COLUMN_FRACTIONS),
        "columns that are sampled", "Say `feature_fraction` below 1 too.",
    ),
    Need(("extra_seed",), None, lambda given: given.get("extra_trees") is True, "`extra_trees: true` too",
        "Without it this has no effect."),
    Need(
        ("cegb_tradeoff",), 1, lambda given: given.get("cegb_penalty_split", 0) > 0,
        "`cegb_penalty_split` too", "Without it this has no effect.",
    ),
    Need(
        ("num_grad_quant_bins", "quant_train_renew_leaf", "stochastic_rounding"), None,
            lambda given: given.get("use_quantized_grad") is True,
        "`use_quantized_grad: true` too", "Without it this has no effect.",
    ),
    Need(("zero_as_missing",), False, lambda given: given.get("use_missing", True), "`use_missing: true`",
        "Without it nothing is missing."),
    Need(
        ("monotone_constraints_method", "monotone_penalty"), None, lambda given: given["_monotone"],
        "columns under `monotone` too", "Without them this has no effect.",
    ),
    Need(
        ("monotone_constraints_method",), "basic", lambda given: given.get("feature_fraction_bynode", 1) == 1,
        "`basic` beside `feature_fraction_bynode`", "LightGBM takes `basic` then: leave one of them out.",
    ),
    Need(
        ("cat_l2", "cat_smooth", "max_cat_threshold", "max_cat_to_onehot", "min_data_per_group"), None,
            lambda given: given["_categories"],
        "a column of `dtype: category` that the model uses", "Without one this has no effect.",
    ),
    Need(
        ("min_data_in_leaf",), None, lambda given: given["min_data_in_leaf"] >= 2 or not given.get("path_smooth", 0),
        "2 at least beside `path_smooth`", "LightGBM would raise it.",
    ),
    Need(
        ("scale_pos_weight",), 1, lambda given: not given.get("is_unbalance"),
        "`is_unbalance` or `scale_pos_weight`", "Both weigh successes: leave one of them out.",
    ),
    Need(
        ("force_row_wise",), False, lambda given: not given.get("force_col_wise"),
        "`force_row_wise` or `force_col_wise`", "Leave one of them out.",
    ),
)  # fmt: skip


def wrong_together(
    parameters: Given, *, is_monotone: bool, has_categories: bool
) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, what was expected, what came and the way out, of each parameter that what it needs is not beside."""
    given = {**parameters, "_monotone": is_monotone, "_categories": has_categories}
    told = set()
    for need in NEEDS:
        for name in need.names:
            asks = name in parameters and not (need.idle is not None and parameters[name] == need.idle)
            if asks and name not in told and not need.holds(given):
                told.add(name)
                yield name, need.expected, f"`{name}: {str(parameters[name]).lower()}`", need.remedy
