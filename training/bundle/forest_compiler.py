"""The text of a LightGBM model becomes a compiled forest.

`compile_forest` reads the text of a model (`Booster.model_to_string()`), where thresholds and leaf values stand with 17
significant digits and so come back as the very same doubles. (`Booster.dump_model()` does not: it writes a threshold of
infinity, which splits all numbers from missing, as 1e300.) Nothing here imports LightGBM.
"""

from typing import NoReturn

import numpy as np
import numpy.typing as npt

from training.bundle.forest import CATEGORICAL, LAYOUT, LEAVES_MAX, TREES_MAX, Array, Forest, ForestDamaged


class ForestNotCompilable(ValueError):
    """The model is sound for LightGBM but outside what the kernel scores, or its text is not a LightGBM model."""


def compile_forest(model_text: str) -> Forest:
    """Compile the text of a LightGBM 4 model, `booster.model_to_string()`.

    The trees are those of the text: `model_to_string` stops at the best iteration as `Booster.predict` does.
    Raises ForestNotCompilable for what the kernel does not score (several trees an iteration, linear trees, random
    forests, more than 256 leaves) and for text that is not a whole model; the message names the way out.
    """
    head_text, *blocks = model_text.split("\nTree=")
    head = _pairs(head_text)
    _expect("version", "v4", head.get("version"), "save the model again with LightGBM 4")
    _expect("num_class", "1", head.get("num_class"), "train one binary or regression model a class")
    per_iteration = head.get("num_tree_per_iteration")
    _expect("num_tree_per_iteration", "1", per_iteration, "train one binary or regression model a class")
    if "average_output" in head:
        _refuse("boosting of type gbdt, dart or goss", "a random forest (average_output)", "set boosting: gbdt")
    sizes = head.get("tree_sizes", "").split()
    if not blocks or "\nend of trees" not in blocks[-1] or len(sizes) != len(blocks):
        _refuse(f"{len(sizes)} whole trees", f"{len(blocks)} trees or a cut text", "take model_to_string() whole")
    if len(blocks) > TREES_MAX:
        _refuse(f"at most {TREES_MAX} trees", f"{len(blocks)}", "lower num_iterations")
    blocks[-1] = blocks[-1].split("\nend of trees")[0]
    parts: dict[str, list[Array]] = {name: [] for name in LAYOUT}
    sets = words = 0
    for tree, block in enumerate(blocks):
        arrays, tree_sets = _tree(tree, _pairs("index=" + block), sets, words)
        sets, words = sets + tree_sets, words + len(arrays["category_words"])
        for name, array in arrays.items():
            parts[name].append(array)
    parts["category_start"].insert(0, np.zeros(1, np.int64))
    joined = {name: np.concatenate(arrays).astype(LAYOUT[name][0]) for name, arrays in parts.items()}
    try:
        columns = tuple(head.get("feature_names", "").split(" "))
        return Forest(columns=columns, objective=head.get("objective", ""), **joined)
    except ForestDamaged as error:
        raise ForestNotCompilable(f"{error}; train the model again, or report this text as a bug") from error


def _tree(tree: int, fields: dict[str, str], sets: int, words: int) -> tuple[dict[str, Array], int]:
    """Return the arrays of one tree; `sets` and `words` are the category sets and words of the trees before it."""
    where = f"tree {tree}: "
    if fields.get("is_linear", "0") != "0":
        _refuse(where + "a constant in each leaf", "a linear tree", "set linear_tree: false")
    try:
        leaves, tree_sets = int(fields["num_leaves"]), int(fields["num_cat"])
        if leaves > LEAVES_MAX:
            _refuse(where + f"at most {LEAVES_MAX} leaves", str(leaves), f"set num_leaves <= {LEAVES_MAX}")
        splits = leaves - 1
        arrays = {
            "leaves": np.array([leaves], np.int32),
            "split_column": _numbers(fields, "split_feature", np.int32, splits),
            "threshold": _numbers(fields, "threshold", np.float64, splits),
            "decision": _numbers(fields, "decision_type", np.uint8, splits),
            "left": _numbers(fields, "left_child", np.int32, splits),
            "right": _numbers(fields, "right_child", np.int32, splits),
            "split_count": _numbers(fields, "internal_count", np.int64, splits),
            "leaf_value": _numbers(fields, "leaf_value", np.float64, leaves),
            # LightGBM writes no count for a tree that is a single leaf
            "leaf_count": _numbers(fields, "leaf_count", np.int64, leaves if splits or "leaf_count" in fields else 0),
            "category_start": _numbers(fields, "cat_boundaries", np.int64, tree_sets + 1 if tree_sets else 0)[1:]
            + words,
            "category_words": _numbers(fields, "cat_threshold", np.uint32, None if tree_sets else 0),
        }
    except (KeyError, ValueError, OverflowError) as error:
        if isinstance(error, ForestNotCompilable):
            raise
        _refuse(where + "the fields of a LightGBM 4 tree", repr(error), "take model_to_string() whole")
    if not splits and not len(arrays["leaf_count"]):
        arrays["leaf_count"] = np.zeros(1, np.int64)
    arrays["threshold"][(arrays["decision"] & CATEGORICAL) > 0] += sets
    return arrays, tree_sets


def _pairs(text: str) -> dict[str, str]:
    """`key=value` lines; a bare line such as `average_output` becomes a key with an empty value."""
    return {key: value for key, _, value in (line.partition("=") for line in text.splitlines()) if key}


def _numbers(fields: dict[str, str], name: str, dtype: npt.DTypeLike, count: int | None) -> Array:
    """Return the numbers of one line, each read as Python reads it, so a double comes back bit for bit."""
    words = fields[name].split() if count != 0 else []
    if count is not None and len(words) != count:
        raise ValueError(f"{name}: expected {count} numbers, came {len(words)}")
    return np.array([float(word) for word in words] if dtype is np.float64 else [int(word) for word in words], dtype)


def _expect(name: str, expected: str, came: str | None, way_out: str) -> None:
    if came != expected:
        _refuse(f"{name}={expected}", f"{name}={came}", way_out)


def _refuse(expected: str, came: str, way_out: str) -> NoReturn:
    raise ForestNotCompilable(f"expected {expected}, came {came}; {way_out}")
