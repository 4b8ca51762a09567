"""Every parameter and every alias of LightGBM, as the library itself knows them: each has its effect, or is refused
with the reason.
"""

from __future__ import annotations

import math
from typing import Any

import lightgbm as lgb
import pytest
from lightgbm.basic import LightGBMError, _ConfigAliases

from features.config.lightgbm_names import ALIASES, MAIN
from features.config.model_file import Label, ModelFile
from features.config.model_parameter_needs import NEEDS
from features.config.model_parameters import (
    ACCEPTED,
    INT32_MAX,
    LEAVES_MAX,
    OURS,
    REFUSED,
    Choice,
    Number,
    wrong_parameters,
)
from tests.training.fitting.test_fit import EARLY
from training.bundle import forest
from training.fitting.fit import DEFAULTS, BadParameters, parameters_of

GOSS = {"data_sample_strategy": "goss", "learning_rate": 0.5}
BAGGING = {"bagging_fraction": 0.6, "bagging_freq": 1}
QUANTIZED = {"use_quantized_grad": True}

SAMPLES: dict[str, tuple[Any, dict[str, Any]]] = {
    "learning_rate": (0.3, {}),
    "num_leaves": (5, {}),
    "max_depth": (2, {}),
    "min_data_in_leaf": (90, {}),
    "min_sum_hessian_in_leaf": (20, {}),
    "min_gain_to_split": (1.5, {}),
    "max_delta_step": (0.1, {}),
    "lambda_l1": (5, {}),
    "lambda_l2": (5, {}),
    "path_smooth": (5, {}),
    "extra_trees": (True, {}),
    "extra_seed": (9, {"extra_trees": True}),
    "cegb_tradeoff": (3, {"cegb_penalty_split": 0.01}),
    "cegb_penalty_split": (0.01, {}),
    "boost_from_average": (False, {}),
    "is_unbalance": (True, {}),
    "scale_pos_weight": (3, {}),
    "data_sample_strategy": ("goss", {"learning_rate": 0.5}),
    "bagging_fraction": (0.6, {"bagging_freq": 1, "pos_bagging_fraction": 1.0}),
    "pos_bagging_fraction": (0.5, {"bagging_freq": 1}),
    "neg_bagging_fraction": (0.5, {"bagging_freq": 1}),
    "bagging_freq": (1, {"bagging_fraction": 0.6}),
    "bagging_seed": (9, BAGGING),
    "top_rate": (0.4, GOSS),
    "other_rate": (0.4, GOSS),
    "feature_fraction": (0.5, {}),
    "feature_fraction_bynode": (0.5, {}),
    "feature_fraction_seed": (9, {"feature_fraction": 0.5}),
    "min_data_per_group": (600, {}),
    "max_cat_threshold": (1, {}),
    "max_cat_to_onehot": (20, {}),
    "cat_l2": (90, {}),
    "cat_smooth": (200, {}),
    "monotone_constraints_method": ("advanced", {"num_leaves": 15}),
    "monotone_penalty": (2, {}),
    "max_bin": (7, {}),
    "min_data_in_bin": (60, {}),
    "bin_construct_sample_cnt": (100, {}),
    "data_random_seed": (7, {"bin_construct_sample_cnt": 100}),
    "use_missing": (False, {}),
    "zero_as_missing": (True, {}),
    "use_quantized_grad": (True, {}),
    "num_grad_quant_bins": (8, QUANTIZED),
    "quant_train_renew_leaf": (True, QUANTIZED),
    "stochastic_rounding": (False, QUANTIZED),
}
"""Main name -> a value that changes the trees of the tests' data, and what must stand beside it."""
SAME_TREES: dict[str, Any] = {
    "objective": "binary",
    "boosting": "gbdt",
    "tree_learner": "serial",
    "device_type": "cpu",
    "feature_pre_filter": False,
    "enable_bundle": False,
    "is_enable_sparse": False,
    "deterministic": False,
    "force_col_wise": False,
    "force_row_wise": True,
    "histogram_pool_size": 1.0,
}
"""Those that say what is so anyway, or how trees are computed, not which."""
MONOTONE = {"c0": "increasing"}


def model(parameters: dict[str, Any], monotone: dict[str, Any] | None = None) -> ModelFile:
    return ModelFile(
        "m", Label("taken"), parameters=parameters, rounds_max=6, patience_rounds=6, monotone=monotone or {}
    )


def wrong(parameters: dict[str, Any]) -> list[str]:
    return [one.remedy for one in wrong_parameters(parameters, is_monotone=True, has_categories=True)]


def needs_monotone(name: str) -> dict[str, Any]:
    return MONOTONE if name.startswith("monotone") else {}


def test_the_table_of_names_is_the_librarys() -> None:
    """Each name that LightGBM knows has its main name here, and no other does; none has two."""
    theirs = _ConfigAliases._get_all_param_aliases()
    assert {main: set(names) for main, names in theirs.items()} == {
        main: {main, *others} for main, others in ALIASES.items()
    }
    assert len(MAIN) == sum(map(len, theirs.values())) > 280


def test_each_parameter_is_accepted_or_refused() -> None:
    """All of them, each once; what is accepted has a sample here, so that a new one cannot pass untried."""
    places = [*ACCEPTED, *OURS, *REFUSED]
    assert sorted(places) == sorted(ALIASES)
    assert {*SAMPLES, *SAME_TREES} == set(ACCEPTED) and not set(SAMPLES) & set(SAME_TREES)
    assert {name for need in NEEDS for name in need.names} <= set(ACCEPTED)


@pytest.mark.parametrize("name", sorted(MAIN))
def test_any_name_reaches_the_trainer_under_the_main_one_or_is_refused(name: str) -> None:
    """By whichever of its names: the value is what LightGBM gets, in place of our default; or the name is told, with
    the way out.
    """
    main = MAIN[name]
    if main not in ACCEPTED:
        with pytest.raises(BadParameters, match=rf"expected .*, got `{name}` among `parameters`\. .+\.$"):
            parameters_of(model({name: 1}), EARLY)
        return
    value, beside = SAMPLES.get(main) or (SAME_TREES[main], {})
    given = parameters_of(model({**beside, name: value}, needs_monotone(main)), EARLY)
    assert given[main] == value
    assert not [other for other in given if MAIN.get(other) != other], "main names alone"
    assert {key for key in given if key != "force_col_wise"} >= set(DEFAULTS) - {"force_col_wise"}


def trained(parameters: dict[str, Any]) -> str:
    """The text of a model of a few rounds, on one thread: dozens are made."""
    names = EARLY.contract.names
    data = lgb.Dataset(EARLY.values, EARLY.labels, feature_name=names, categorical_feature=["c2"])
    return lgb.train(parameters | {"num_threads": 1}, data, 6).model_to_string()


def text_of(parameters: dict[str, Any], monotone: dict[str, Any]) -> tuple[str, str]:
    """The trees of a model, and the section that says its parameters."""
    trees, _, rest = trained(parameters_of(model(parameters, monotone), EARLY)).partition("end of trees")
    return trees.partition("Tree=0")[2], rest[rest.index("parameters:") : rest.index("end of parameters")]


@pytest.mark.parametrize("name", sorted(ACCEPTED))
def test_what_is_accepted_is_in_the_model(name: str) -> None:
    """The model's own text says the value; and but for those that cannot, it changes the trees."""
    value, beside = SAMPLES.get(name) or (SAME_TREES[name], {})
    monotone = needs_monotone(name)
    trees, parameters = text_of({**beside, name: value}, monotone)
    said = f"{int(value)}" if isinstance(value, bool) else f"{value:g}" if isinstance(value, (int, float)) else value
    assert f"[{name}: {said}]" in parameters
    without, _ = text_of({} if wrong(beside) else beside, monotone)
    assert (trees != without) == (name in SAMPLES)


def edges(kind: Number) -> tuple[list[Any], list[Any]]:
    """Values at the bounds that are taken, and values just beyond that are not."""
    step = 1 if kind.is_whole else 1e-9
    inside, outside = [], []
    if kind.low is not None:
        low = int(kind.low) if kind.is_whole else kind.low
        inside.append(low + 0.01 if kind.is_open else low)  # so that something is left of what is sampled
        outside.append(low if kind.is_open else low - step)
    if kind.high is not None:
        high = int(kind.high) if kind.is_whole else kind.high
        inside.append(high)
        outside.append(high + step)
    return inside, outside


@pytest.mark.parametrize("name", sorted(ACCEPTED))
def test_bounds_are_never_wider_than_the_librarys(name: str) -> None:
    """LightGBM itself takes what stands at our bounds; beyond them, and of another type, a value is refused here."""
    kind = ACCEPTED[name]
    inside, outside = edges(kind) if isinstance(kind, Number) else (list(kind.values), ["nonsense", 7])
    beside = SAMPLES.get(name, (None, {}))[1]
    for value in inside:
        assert kind.takes(value), value
        if wrong({**beside, name: value}):  # together with what stands beside it
            continue
        given = DEFAULTS | {"force_col_wise": False} | beside | {name: value}
        if needs_monotone(name):
            given["monotone_constraints"] = [1, 0, 0, 0]
        try:
            lgb.train(given | {"num_threads": 1}, lgb.Dataset(EARLY.values, EARLY.labels), 1)
        except LightGBMError as error:
            pytest.fail(f"{name}: {value}: {error}")
    wrong_types: list[Any] = [None, [1], {"a": 1}, "nonsense", math.nan, math.inf, *outside]
    wrong_types += ["7", "0.5", True] if isinstance(kind, Number) else [0, 1, "true", "yes"]
    wrong_types += [0.5, INT32_MAX + 1] if isinstance(kind, Number) and kind.is_whole else []
    for value in wrong_types:
        assert not kind.takes(value), value
        assert wrong({name: value}), value


def test_what_has_no_effect_alone_is_refused_alone() -> None:
    """Each need is felt: what it is of is refused without it, and taken with it."""
    helped = {"data_sample_strategy", "monotone_constraints_method", "data_random_seed"}
    """What stands beside them makes the effect show on the tests' few rows."""
    lonely = {name for name, (_, beside) in SAMPLES.items() if beside} - helped
    assert len(lonely) == 13
    for name in lonely:
        value, beside = SAMPLES[name]
        assert len(wrong({name: value})) == 1, name
        assert wrong({**beside, name: value}) == [], name
    none = list(wrong_parameters({"monotone_penalty": 1, "cat_l2": 5}, is_monotone=False, has_categories=False))
    assert [one.name for one in none] == ["monotone_penalty", "cat_l2"]


@pytest.mark.parametrize(
    "clash",
    [
        {"is_unbalance": True, "scale_pos_weight": 2.0},
        {"force_col_wise": True, "force_row_wise": True},
        {**GOSS, **BAGGING},
        {**GOSS, "top_rate": 0.7, "other_rate": 0.5},
        {"path_smooth": 1, "min_data": 1},
        {"bagging": 0.5, "pos_bagging": 0.5, "subsample_freq": 1},
        {"monotone_constraints_method": "intermediate", "feature_fraction_bynode": 0.5},
        {"use_missing": False, "zero_as_missing": True},
        {"eta": 0.1, "shrinkage_rate": 0.1},
        {"num_leaf": 7, "num_leaves": 7},
    ],
)
def test_what_clashes_is_refused(clash: dict[str, Any]) -> None:
    """Two names of one parameter, and parameters of which LightGBM would pass over one, or end."""
    assert len(wrong(clash)) >= 1
    assert all(wrong(clash))


def test_neutral_values_ask_for_nothing() -> None:
    """A fraction of 1, a frequency of 0 and a flag that is off need nothing beside them."""
    idle = {
        "bagging_fraction": 1.0,
        "bagging_freq": 0,
        "pos_bagging_fraction": 1,
        "zero_as_missing": False,
        "force_row_wise": False,
        "cegb_tradeoff": 1,
    }
    assert wrong(idle) == []
    assert trained(parameters_of(model(idle), EARLY))


def test_leaves_are_those_that_the_server_scores() -> None:
    """The bound of `num_leaves` is the kernel's, and a choice is told in words."""
    assert LEAVES_MAX == forest.LEAVES_MAX
    assert str(Choice((True, False))) == "true or false" and str(Choice(("a", "b", "c"))) == "a, b or c"
    assert str(Number(0, 1, is_open=True)) == "a number above 0 and 1 at most"
    assert not Number().takes(math.nan)
