"""The compiled forest: what it refuses, what it keeps, and that no damaged file gets through."""

from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.forests import trained, written
from training.bundle.forest import CATEGORICAL, LAYOUT, Forest, ForestDamaged
from training.bundle.forest_compiler import ForestNotCompilable, compile_forest


@pytest.fixture(scope="module")
def text() -> str:
    """A small binary model with numeric and categorical splits."""
    return trained(13, 12, "binary", trees=3).model_to_string()


@pytest.fixture(scope="module")
def saved(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, compiled and saved."""
    path = tmp_path_factory.mktemp("forest") / "forest.npz"
    compile_forest(text).save(path)
    return path


def refusal(text: str) -> str:
    """The message with which a model is refused; every message says what was expected, what came and the way out."""
    with pytest.raises(ForestNotCompilable) as caught:
        compile_forest(text)
    message = str(caught.value)
    assert "expected" in message and "came" in message and ";" in message
    return message


def train(**params: object) -> str:
    """The text of a model trained with other parameters than ours."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(600, 3))
    label = data[:, 0] if params["objective"] == "regression" else (data[:, 0] > 0) + 0.0
    if params["objective"] == "multiclass":
        label += data[:, 1] > 1
    return lightgbm.train(
        {"verbose": -1, "num_threads": 1, **params}, lightgbm.Dataset(data, label), 3
    ).model_to_string()


def test_models_outside_the_kernel_are_refused() -> None:
    """Multiclass, linear, random-forest and too leafy models are refused with a way out."""
    assert "num_class=3" in refusal(train(objective="multiclass", num_class=3))
    assert "linear_tree: false" in refusal(train(objective="regression", linear_tree=True))
    assert "boosting: gbdt" in refusal(train(objective="binary", boosting="rf", bagging_freq=1, bagging_fraction=0.5))
    leafy = train(objective="regression", num_leaves=300, min_data_in_leaf=1, min_sum_hessian_in_leaf=0)
    assert "num_leaves <= 256" in refusal(leafy)
    per_iteration = train(objective="binary").replace("num_tree_per_iteration=1", "num_tree_per_iteration=2")
    assert "num_tree_per_iteration=2" in refusal(per_iteration)


def test_texts_that_are_not_whole_models_are_refused(text: str) -> None:
    """A text cut anywhere, of another version, or with a field gone or changed is refused, never half compiled."""
    assert "LightGBM 4" in refusal(text.replace("version=v4", "version=v3"))
    assert "version" in refusal("")
    whole = text.index("end of trees") + len("end of trees")
    cuts = np.linspace(0, whole - 1, 300).astype(int)
    for cut in cuts:
        refusal(text[:cut])
    for field in ("threshold", "decision_type", "left_child", "leaf_value", "split_feature", "leaf_count", "num_cat"):
        refusal(text.replace(f"\n{field}=", f"\nno_{field}=", 1))
        refusal(text.replace(f"\n{field}=", f"\n{field}=x", 1))
    refusal(text.replace("\nleft_child=", "\nleft_child=0 ", 1))
    refusal(text.replace("\nsplit_feature=", "\nsplit_feature=9", 1))
    refusal(text.replace("\nleaf_value=", "\nleaf_value=nan ", 1).replace("nan -", "nan", 1))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.sampled_from(["binary", "regression", "poisson"]))
def test_every_number_is_the_models_own(seed: int, leaves: int, objective: str) -> None:
    """Thresholds, leaf values, counts and columns equal those LightGBM dumps, node by node and bit by bit."""
    booster = trained(seed, leaves, objective)
    forest, seen = compile_forest(booster.model_to_string()), 0
    assert forest.columns == tuple(booster.feature_name())
    for tree, info in enumerate(booster.dump_model()["tree_info"]):
        split, leaf = forest.split_start[tree], forest.leaf_start[tree]
        nodes = [(info["tree_structure"], 0 if forest.leaves[tree] > 1 else ~0)]
        while nodes:
            node, number = nodes.pop()
            seen += 1
            if number < 0:
                assert node["leaf_value"] == forest.leaf_value[leaf + ~number]
                assert node.get("leaf_count", 0) == forest.leaf_count[leaf + ~number] or forest.leaves[tree] == 1
                continue
            at = split + number
            assert node["split_feature"] == forest.split_column[at]
            assert node["internal_count"] == forest.split_count[at]
            if not forest.decision[at] & CATEGORICAL:
                assert node["threshold"] == min(forest.threshold[at], 1e300)  # the dump, not the model, ends there
            nodes += [(node["left_child"], int(forest.left[at])), (node["right_child"], int(forest.right[at]))]
    assert seen == len(forest.left) + len(forest.leaf_value)


def test_best_iteration_is_honoured() -> None:
    """The forest holds the trees that predict() uses, not those trained after the best iteration."""
    booster = trained(5, 7, "regression", trees=6)
    booster.best_iteration = 2
    assert compile_forest(booster.model_to_string()).trees == 2


def test_save_and_load_keep_every_byte(text: str, saved: Path, tmp_path: Path) -> None:
    """A loaded forest has the same arrays, names and digest; two saves of one forest have one digest."""
    forest, loaded = compile_forest(text), Forest.load(saved)
    assert (loaded.columns, loaded.objective, loaded.digest) == (forest.columns, "binary sigmoid:1", forest.digest)
    for name in LAYOUT:
        assert getattr(loaded, name).tobytes() == getattr(forest, name).tobytes()
        assert not getattr(loaded, name).flags.writeable
    loaded.save(tmp_path / "again.npz")
    assert Forest.load(tmp_path / "again.npz").digest == forest.digest
    with np.load(saved, allow_pickle=False) as plain:  # an ordinary npz
        assert set(plain.files) == {"head", "digest", *LAYOUT}
    with pytest.raises(FileNotFoundError):
        Forest.load(tmp_path / "none.npz")


def test_the_digest_sees_every_array(text: str) -> None:
    """A change of a single leaf value, threshold, name or objective changes the digest."""
    digests = {compile_forest(text).digest}
    for old, new in (("feature_names=Column_0", "feature_names=Column_9"), ("=binary", "=xbinary")):
        digests.add(compile_forest(text.replace(old, new, 1)).digest)
    line = next(line for line in text.splitlines() if line.startswith("leaf_value="))
    first = line.split("=")[1].split()[0]
    digests.add(
        compile_forest(text.replace(line, line.replace(first, repr(np.nextafter(float(first), 9.0).item())))).digest
    )
    assert len(digests) == 4


def test_a_damaged_file_never_gets_through(saved: Path, tmp_path: Path) -> None:
    """Flipped bits and cut files raise ForestDamaged, or touch only what means nothing (a date in the archive)."""
    data, digest = saved.read_bytes(), Forest.load(saved).digest
    rng = np.random.default_rng(0)
    damaged = [data[:cut] for cut in np.linspace(0, len(data) - 1, 150).astype(int)]
    places = np.concatenate((rng.integers(0, len(data), 450), np.arange(60), len(data) - 1 - np.arange(250)))
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(0, 8))
        damaged.append(bytes(flipped))
    path, refused = tmp_path / "damaged.npz", 0
    for content in damaged:
        path.write_bytes(content)
        try:
            assert Forest.load(path).digest == digest
        except ForestDamaged as error:
            refused += 1
            assert "expected" in str(error) and "publish the model again" in str(error)
    assert refused > 500


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1))
def test_a_well_sealed_but_wrong_forest_is_refused(seed: int) -> None:
    """With a right digest and checksums but one wrong number, an index out of its array is still found."""
    rng = np.random.default_rng(seed)
    forest = compile_forest(written(rng, 4, 3, 20))
    arrays = {name: getattr(forest, name).copy() for name in LAYOUT}
    name = str(rng.choice(["leaves", "split_column", "left", "right", "category_start", "decision"]))
    if not len(arrays[name]):
        return
    place = rng.integers(0, len(arrays[name]))
    wild = np.array([-1, 7, 255, 1 << 20, -(1 << 20)]).astype(arrays[name].dtype)
    arrays[name][place] = rng.choice(wild)
    try:
        Forest(columns=forest.columns, objective="", **arrays)
    except ForestDamaged as error:
        assert "expected" in str(error)
    else:  # what still passes is in range: a value that was there, another column, another direction
        assert (arrays[name] == getattr(forest, name)).all() or name in ("decision", "split_column", "category_start")


def test_other_shapes_and_types_are_refused(text: str) -> None:
    """Arrays of another dtype, another rank or another length are refused by name."""
    forest = compile_forest(text)
    for name in LAYOUT:
        array = getattr(forest, name)
        for wrong in (array.astype(np.float32), array.reshape(1, -1), array[:-1].copy(), np.append(array, array[-1:])):
            arrays = {**{other: getattr(forest, other) for other in LAYOUT}, name: wrong}
            with pytest.raises(ForestDamaged, match="expected"):
                Forest(columns=forest.columns, objective="", **arrays)
