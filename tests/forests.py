"""Models to test against: trained by LightGBM, and written by hand where training would never go."""

from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ZERO = float(np.float32(1e-35))
EDGES = [
    *(np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -5e-324, 1e-35, -1e-35, ZERO, -ZERO),
    *(np.nextafter(ZERO, 1), np.nextafter(ZERO, 0), np.nextafter(-ZERO, -1), np.nextafter(-ZERO, 0)),
    *(1e300, -1e300, np.nextafter(1e300, np.inf), 1.7976931348623157e308, 2.2250738585072014e-308, 1e-30, -1e-30),
    *(-1.0, -0.5, np.nextafter(-1.0, 0.0), np.nextafter(1.0, 0.0), 0.5, 1.0, 1.5, 31.0, 31.9, 32.0, 63.0, 64.0, 999.0),
    *(2.0**31 - 1, 2.0**31 - 0.5, 2.0**31, 2.0**32, 2.0**32 + 3, -(2.0**31), 2.0**63, 2.0**64, 1e19),
]
OBJECTIVES = [
    "binary",
    "regression",
    "regression_l1",
    "huber",
    "fair",
    "poisson",
    "quantile",
    "mape",
    "gamma",
    "tweedie",
]
OBJECTIVES += ["cross_entropy"]


def trained(seed: int, leaves: int, objective: str, columns: int = 5, trees: int = 4, **more: Any) -> lightgbm.Booster:
    """A small model; a seed decides the data, the kinds of the columns and their missing values."""
    rng = np.random.default_rng(seed)
    rows = max(200, 12 * leaves)
    data = rng.normal(size=(rows, columns)) * 10.0 ** rng.integers(-3, 4, columns)
    categorical = [c for c in range(columns) if rng.random() < 0.3]
    for c in range(columns):
        if c in categorical:
            data[:, c] = rng.integers(0, rng.choice([2, 5, 40, 300]), rows)
        elif rng.random() < 0.3:
            data[:, c] = rng.integers(-3, 4, rows)
        if rng.random() < 0.5:
            data[rng.random(rows) < 0.2, c] = np.nan
        if rng.random() < 0.4:
            data[rng.random(rows) < 0.4, c] = 0.0
    score = (np.nan_to_num(data) * (rng.normal(size=columns) / (np.nanstd(data, axis=0) + 1e-9))).sum(axis=1)
    label = (score > np.median(score)).astype(float) if objective in ("binary", "cross_entropy") else np.exp(score / 4)
    fixed = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 1, "min_data_per_group": 5, "max_cat_to_onehot": 3}
    params = {"objective": objective, "num_leaves": leaves, "seed": 1, "min_sum_hessian_in_leaf": 1e-6, **fixed, **more}
    dataset = lightgbm.Dataset(data, label, categorical_feature=categorical, params=params)
    return lightgbm.train(params, dataset, trees)


def written(rng: np.random.Generator, columns: int, trees: int, leaves_max: int) -> str:
    """A model text of random trees: any threshold with any missing type and direction, sets of any categories."""
    blocks = []
    for tree in range(trees):
        leaves = int(rng.integers(1, leaves_max + 1))
        left: list[int] = []
        right: list[int] = []
        parent: dict[int, tuple[int | None, int]] = {0: (None, 0)}
        for split in range(leaves - 1):  # as LightGBM grows: a leaf becomes a split, its right side the next leaf
            leaf = int(rng.integers(0, split + 1))
            owner, side = parent[leaf]
            if owner is not None:
                (left, right)[side][owner] = split
            left.append(~leaf)
            right.append(~(split + 1))
            parent[leaf], parent[split + 1] = (split, 0), (split, 1)
        kinds, thresholds, bounds, words = [], [], [0], []
        for _ in range(leaves - 1):
            missing, default_left = int(rng.integers(0, 3)), int(rng.integers(0, 2))
            categorical = rng.random() < 0.3
            kinds.append(int(categorical) | default_left << 1 | missing << 2)
            if categorical:
                thresholds.append(float(len(bounds) - 1))
                words += [int(w) for w in rng.integers(0, 2**32, int(rng.integers(1, 5)), dtype=np.uint64)]
                bounds.append(len(words))
            else:
                edge = EDGES[int(rng.integers(1, len(EDGES)))]
                edge = edge if np.isfinite(edge) else 1e300
                thresholds.append(float(rng.choice([edge, float(rng.normal()), float(rng.integers(-2, 5))])))

        def line(name: str, values: list[Any]) -> str:
            return f"{name}={' '.join(repr(value) for value in values)}\n"

        text = f"Tree={tree}\nnum_leaves={leaves}\nnum_cat={len(bounds) - 1}\n"
        text += line("split_feature", [int(c) for c in rng.integers(0, columns, leaves - 1)])
        text += line("split_gain", [1.0] * (leaves - 1)) + line("threshold", thresholds) + line("decision_type", kinds)
        text += line("left_child", left) + line("right_child", right)
        text += line("leaf_value", (rng.normal(size=leaves) * 10.0 ** rng.integers(-9, 9, leaves)).tolist())
        text += line("leaf_weight", [1.0] * leaves) + line("leaf_count", [1] * leaves)
        text += line("internal_value", [0.0] * (leaves - 1)) + line("internal_weight", [1.0] * (leaves - 1))
        text += line("internal_count", [2] * (leaves - 1))
        if words:
            text += line("cat_boundaries", bounds) + line("cat_threshold", words)
        blocks.append(text + "is_linear=0\nshrinkage=1\n\n\n")
    head = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
    head += f"max_feature_idx={columns - 1}\nobjective=regression\n"
    head += f"feature_names={' '.join(f'c{c}' for c in range(columns))}\nfeature_infos={' '.join(['none'] * columns)}\n"
    head += f"tree_sizes={' '.join(str(len(block)) for block in blocks)}\n\n"
    return (
        head
        + "".join(blocks)
        + "end of trees\n\nfeature_importances:\n\nparameters:\nend of parameters\n\npandas_categorical:null\n"
    )


def values(rng: np.random.Generator, thresholds: Floats, shape: tuple[int, ...]) -> Floats:
    """Values where models break: thresholds and their neighbours, edges, whole and broken categories, plain numbers."""
    at = thresholds if len(thresholds) else np.zeros(1)
    with np.errstate(over="ignore"):  # beyond the largest double lies infinity, and that is welcome
        beside = np.nextafter(rng.choice(at, shape), rng.choice([np.inf, -np.inf], shape))
    pools = [
        rng.choice(at, shape),
        beside,
        rng.choice(np.array(EDGES), shape),
        rng.integers(-3, 130, shape) + rng.choice([0.0, 0.0, 0.5], shape),
        rng.normal(size=shape) * 10.0 ** rng.integers(-2, 4, shape),
    ]
    return np.choose(rng.integers(0, len(pools), shape), pools).astype(np.float64)
