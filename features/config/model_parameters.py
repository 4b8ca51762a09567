"""`parameters` of `model.yaml`: what each of LightGBM's parameters may say here, or why it may say nothing.

Every parameter of LightGBM stands in `ACCEPTED` or in `REFUSED`, under its main name. What is accepted reaches the
trainer and has an effect; what would be passed over, undone, or could not be served, is refused with the way out.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from features.config.lightgbm_names import ALIASES, MAIN
from features.config.model_parameter_needs import wrong_together

LEAVES_MAX = 256
"""Leaves of a tree that the server can score."""
INT32_MAX = 2**31 - 1


class Number(NamedTuple):
    """A number within bounds; `is_open`: the lower bound itself is out. `is_whole`: a whole number."""

    low: float | None = None
    high: float | None = None
    is_open: bool = False
    is_whole: bool = False

    def takes(self, value: object) -> bool:
        """Return whether the value is of this kind and within the bounds; true and false are no numbers here."""
        if (
            isinstance(value, bool)
            or not isinstance(value, int if self.is_whole else (int, float))
            or not math.isfinite(value)
        ):
            return False
        above = self.low is None or (value > self.low if self.is_open else value >= self.low)
        return above and (self.high is None or value <= self.high) and (not self.is_whole or abs(value) <= INT32_MAX)

    def __str__(self) -> str:
        kind = "a whole number" if self.is_whole else "a number"
        above = "" if self.low is None else f" above {self.low:g}" if self.is_open else f" of {self.low:g} at least"
        below = "" if self.high is None else f"{' and' if above else ' of'} {self.high:g} at most"
        return kind + above + below


class Choice(NamedTuple):
    """One of some words, or true or false."""

    values: tuple[str | bool, ...]

    def takes(self, value: object) -> bool:
        """Return whether it is one of them; 1 is not true."""
        return any(value is one or (isinstance(one, str) and value == one) for one in self.values)

    def __str__(self) -> str:
        words = [str(value).lower() for value in self.values]
        return f"`{words[0]}`" if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _whole(low: float | None = None, high: float | None = None) -> Number:
    return Number(low, high, is_whole=True)


_FLAG, _SEED, _PART = Choice((True, False)), _whole(0), Number(0, 1, is_open=True)

ACCEPTED: dict[str, Number | Choice] = {
    # how trees grow
    "objective": Choice(("binary",)),
    "boosting": Choice(("gbdt", "gbrt")),
    "tree_learner": Choice(("serial",)),
    "device_type": Choice(("cpu",)),
    "learning_rate": Number(0, is_open=True),
    "num_leaves": _whole(2, LEAVES_MAX),
    "max_depth": _whole(),
    "min_data_in_leaf": _whole(0),
    "min_sum_hessian_in_leaf": Number(0),
    "min_gain_to_split": Number(0),
    "max_delta_step": Number(0),
    "lambda_l1": Number(0),
    "lambda_l2": Number(0),
    "path_smooth": Number(0),
    "extra_trees": _FLAG,
    "extra_seed": _SEED,
    "cegb_tradeoff": Number(0),
    "cegb_penalty_split": Number(0),
    "boost_from_average": _FLAG,
    "is_unbalance": _FLAG,
    "scale_pos_weight": Number(0, is_open=True),
    # what a tree sees of rows and columns
    "data_sample_strategy": Choice(("bagging", "goss")),
    "bagging_fraction": _PART,
    "pos_bagging_fraction": _PART,
    "neg_bagging_fraction": _PART,
    "bagging_freq": _whole(0),
    "bagging_seed": _SEED,
    "top_rate": _PART,
    "other_rate": _PART,
    "feature_fraction": _PART,
    "feature_fraction_bynode": _PART,
    "feature_fraction_seed": _SEED,
    # categories and monotone columns
    "min_data_per_group": _whole(1),
    "max_cat_threshold": _whole(1),
    "max_cat_to_onehot": _whole(1),
    "cat_l2": Number(0),
    "cat_smooth": Number(0),
    "monotone_constraints_method": Choice(("basic", "intermediate", "advanced")),
    "monotone_penalty": Number(0),
    # histograms
    "max_bin": _whole(2),
    "min_data_in_bin": _whole(1),
    "bin_construct_sample_cnt": _whole(1),
    "data_random_seed": _SEED,
    "use_missing": _FLAG,
    "zero_as_missing": _FLAG,
    "feature_pre_filter": _FLAG,
    "enable_bundle": _FLAG,
    "is_enable_sparse": _FLAG,
    "use_quantized_grad": _FLAG,
    "num_grad_quant_bins": _whole(2, 127),
    "quant_train_renew_leaf": _FLAG,
    "stochastic_rounding": _FLAG,
    # how it is computed
    "deterministic": _FLAG,
    "force_col_wise": _FLAG,
    "force_row_wise": _FLAG,
    "histogram_pool_size": Number(),
}
"""Main name -> what it takes, which is never more than LightGBM takes."""

OURS = {
    "num_iterations": "rounds_max",
    "early_stopping_round": "patience_rounds",
    "seed": "seed",
    "monotone_constraints": "monotone",
    "interaction_constraints": "additive",
    "ignore_column": "leave_out",
    "label_column": "label",
    "weight_column": "weight_without_success",
}
"""Main name -> the key of `model.yaml` that says it, which LightGBM's own would undo without a word."""

_BY_POSITION = "it goes by the position of columns, which features.yaml may change"
_DART = "it is for `boosting: dart`, which cannot stop early and so cannot be trained here"
_FILES = "data comes from the workspace and the model goes to the registry"
_MACHINES = "one machine trains"
_GPU = "the model is trained on the CPU"
_OTHER = "it is for another objective than `binary`"
_PREDICT = "the server scores with a kernel of its own"
_SHOWN = "it changes what is printed or kept, not the model"
_LINEAR = "the server scores trees with a constant in each leaf"
_STOPPING = "rounds stop by the log loss on the later training decisions"

_REASONS: dict[str, tuple[str, ...]] = {
    _BY_POSITION: (
        "cegb_penalty_feature_coupled", "cegb_penalty_feature_lazy", "feature_contri", "forcedbins_filename",
        "forcedsplits_filename",
        "max_bin_by_feature",
    ),
    "categories are the columns of `dtype: category` in features.yaml": ("categorical_feature",),
    _DART: ("drop_rate", "drop_seed", "max_drop", "skip_drop", "uniform_drop", "xgboost_dart_mode"),
    _FILES: (
        "config", "convert_model", "convert_model_language", "data", "header", "input_model", "output_model",
        "output_result",
        "parser_config_file", "precise_float_parser", "pre_partition", "refit_decay_rate", "save_binary",
        "snapshot_freq", "task",
        "two_round", "valid",
    ),
    _MACHINES: ("local_listen_port", "machine_list_filename", "machines", "num_machines", "time_out", "top_k"),
    _GPU: ("gpu_device_id", "gpu_device_id_list", "gpu_platform_id", "gpu_use_dp", "num_gpu"),
    "training takes the cores that its process may use": ("num_threads",),
    _OTHER: (
        "alpha", "auc_mu_weights", "bagging_by_query", "eval_at", "fair_c", "group_column", "label_gain",
        "lambdarank_norm",
        "lambdarank_position_bias_regularization", "lambdarank_truncation_level", "multi_error_top_k", "num_class",
        "objective_seed",
        "poisson_max_delta_step", "reg_sqrt", "tweedie_variance_power",
    ),
    _PREDICT: (
        "num_iteration_predict", "pred_early_stop", "pred_early_stop_freq", "pred_early_stop_margin", "predict_contrib",
        "predict_disable_shape_check", "predict_leaf_index", "predict_raw_score", "start_iteration_predict",
    ),
    _SHOWN: ("is_provide_training_metric", "metric_freq", "saved_feature_importance_type", "verbosity"),
    _LINEAR: ("linear_lambda", "linear_tree"),
    _STOPPING: ("early_stopping_min_delta", "first_metric_only", "metric"),
    "raw scores are log odds, which calibration brings to probabilities": ("sigmoid",),
}  # fmt: skip

REFUSED = {name: reason for reason, names in _REASONS.items() for name in names}
"""Main name -> why it has no place here."""

_NO_FOREST = "The server scores boosted trees, whose values add up."
_WAYS_OUT: dict[str, dict[str, str]] = {
    "boosting": {
        "dart": "dart cannot stop early: its model would be one tree.",
        "goss": "Say `data_sample_strategy: goss` instead.",
        "rf": _NO_FOREST,
        "random_forest": _NO_FOREST,
    }
}
"""Main name -> value, in lower case -> the way out."""
_WAY_OUT = {
    "objective": "A propensity is a probability: leave it out.",
    "device_type": "The model is trained on the CPU: leave it out.",
    "tree_learner": "One machine trains: leave it out.",
    "num_leaves": "The server scores trees of at most so many leaves.",
}
"""Main name -> the way out for any value that it does not take."""


class WrongParameter(NamedTuple):
    """A parameter that cannot be as it is: its name in the file, what was expected, what came, the way out.

    `other` is the name that stands in the way, where two do.
    """

    name: str
    expected: str
    got: str
    remedy: str
    other: str = ""


def main_names(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters by LightGBM's main names; those that it does not know keep theirs."""
    return {MAIN.get(name, name): value for name, value in parameters.items()}


def wrong_parameters(
    parameters: Mapping[str, Any], *, is_monotone: bool, has_categories: bool
) -> Iterator[WrongParameter]:
    """Yield what is wrong with each parameter alone; where nothing is, what is wrong with them together.

    Args:
        parameters: as the file has them, by any of LightGBM's names.
        is_monotone: whether `monotone` names a column.
        has_categories: whether the model uses a category.
    """
    written: dict[str, str] = {}
    is_sound = True
    for name, value in parameters.items():
        wrong = _wrong(name, value, written)
        written.setdefault(MAIN.get(name, name), name)
        if wrong is not None:
            is_sound = False
            yield wrong
    if is_sound:
        for main, expected, got, remedy in wrong_together(
            main_names(parameters), is_monotone=is_monotone, has_categories=has_categories
        ):
            yield WrongParameter(written[main], expected, got, remedy)


def _wrong(name: str, value: Any, written: Mapping[str, str]) -> WrongParameter | None:
    main = MAIN.get(name)
    if main is None:
        near = difflib.get_close_matches(name, ALIASES, 1) or difflib.get_close_matches(name, MAIN, 1)
        return WrongParameter(
            name, "a parameter of LightGBM", f"`{name}`", f"Did you mean `{near[0]}`?" if near else "Take it out."
        )
    if main in written:
        remedy = f"Both are names of `{main}`: keep one."
        return WrongParameter(name, "each parameter once", f"`{name}` beside `{written[main]}`", remedy, written[main])
    if main in OURS:
        return WrongParameter(name, f"`{OURS[main]}`", f"`{name}`", f"Say `{OURS[main]}` instead.")
    if main in REFUSED:
        return WrongParameter(name, f"no such parameter: {REFUSED[main]}", f"`{name}`", "Leave it out.")
    accepted = ACCEPTED[main]
    if accepted.takes(value):
        return None
    remedy = _WAYS_OUT.get(main, {}).get(str(value).lower()) or _unquoted(value) or _WAY_OUT.get(main, "")
    return WrongParameter(name, str(accepted), _shown(value), remedy)


def _shown(value: Any) -> str:
    return f"the text '{value}'" if isinstance(value, str) else "nothing" if value is None else str(value).lower()


def _unquoted(value: Any) -> str:
    """Return the way out for a number or a truth in quotes; empty for any other value."""
    if not isinstance(value, str):
        return ""
    try:
        float(value)
    except ValueError:
        return "Take the quotes away." if value in ("true", "false") else ""
    return "Take the quotes away."
