"""The kernel against its oracle: `Booster.predict(raw_score=True)`, bit for bit."""

from collections.abc import Callable

import lightgbm
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.kernel.kernel import OFFERS_MAX, Kernel
from tests.forests import OBJECTIVES, trained, values, written
from training.bundle.forest import CATEGORICAL, Forest
from training.bundle.forest_compiler import compile_forest

Floats = npt.NDArray[np.float64]
Seed = st.integers(0, 2**32 - 1)


def settled(examples: int) -> settings:
    """The same cases on every machine; a seed found elsewhere belongs into a test of its own."""
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def compare(booster: lightgbm.Booster, forest: Forest, seed: int) -> int:
    """Deal the columns out at random, score awkward rows twice, return how many scores were compared."""
    rng = np.random.default_rng(seed)
    columns = rng.permutation(len(forest.columns))
    first, second = np.sort(rng.integers(0, len(columns) + 1, 2))
    shared, offer, pair = columns[:first], columns[first:second], columns[second:]
    default = rng.choice([np.nan, 0.0, -0.0, 1.0, 3.0, np.inf], len(pair))
    kernel = Kernel(forest, shared.tolist(), offer.tolist(), pair.tolist(), default)
    thresholds = forest.threshold[forest.decision & CATEGORICAL == 0]
    offers, compared = int(rng.integers(1, 40)), 0
    offer_values = values(rng, thresholds, (offers, len(offer)))
    table = kernel.prepare(offer_values)
    for asked in (int(rng.integers(1, 40)), int(rng.integers(1, 4)), 0):
        chosen = rng.integers(0, offers, asked).astype(np.int32)
        shared_values = values(rng, thresholds, (len(shared),))
        pair_values = values(rng, thresholds, (asked, len(pair)))
        mostly = rng.random(pair_values.shape) < rng.choice([0.0, 0.8, 1.0])
        pair_values[mostly] = np.broadcast_to(default, pair_values.shape)[mostly]
        out = np.full(asked, np.nan)
        kernel.score(shared_values, table, chosen, pair_values, out)
        if not asked:
            continue
        matrix = np.empty((asked, len(columns)))
        matrix[:, shared], matrix[:, offer], matrix[:, pair] = shared_values, offer_values[chosen], pair_values
        expected = booster.predict(matrix, raw_score=True, num_threads=1)
        assert out.tobytes() == np.asarray(expected).tobytes()
        compared += asked
    return compared


def held(check: Callable[[], None], counted: list[int]) -> None:
    """Run a property; a check that ran nothing has failed."""
    check()
    assert len(counted) >= 20
    assert sum(counted) > 200


@pytest.mark.slow
@pytest.mark.parametrize(("low", "high", "examples"), [(2, 32, 300), (33, 64, 80), (65, 256, 100)])
def test_trained_models_score_as_lightgbm_scores_them(low: int, high: int, examples: int) -> None:
    """Any model LightGBM trains for binary and regression objectives scores bit for bit as LightGBM scores it."""
    counted: list[int] = []

    @settled(examples)
    @given(
        Seed,
        st.integers(low, high),
        st.sampled_from(OBJECTIVES),
        st.booleans(),
        st.booleans(),
        st.sampled_from(["gbdt", "dart"]),
    )
    def check(seed: int, leaves: int, objective: str, zero: bool, missing: bool, boosting: str) -> None:
        booster = trained(seed, leaves, objective, zero_as_missing=zero, use_missing=missing, boosting=boosting)
        counted.append(compare(booster, compile_forest(booster.model_to_string()), seed))

    held(check, counted)


@pytest.mark.slow
@pytest.mark.parametrize("leaves_max", [3, 32, 64, 256])
def test_written_models_score_as_lightgbm_scores_them(leaves_max: int) -> None:
    """Trees no training would make (mixed missing types on a column, edge thresholds, any category set) score alike."""
    counted: list[int] = []

    @settled(400)
    @given(Seed, st.integers(1, 6), st.integers(1, 8))
    def check(seed: int, columns: int, trees: int) -> None:
        text = written(np.random.default_rng(seed), columns, trees, leaves_max)
        counted.append(compare(lightgbm.Booster(model_str=text), compile_forest(text), seed))

    held(check, counted)


@pytest.mark.parametrize("leaves_max", [64, 256])
def test_many_offers_and_many_classes(leaves_max: int) -> None:
    """Thousands of distinct offers, all of them asked for, by way of classes and by way of single look-ups."""
    rng = np.random.default_rng(3)
    text = written(rng, 8, 40, leaves_max)
    booster, forest = lightgbm.Booster(model_str=text), compile_forest(text)
    offer_values = values(rng, forest.threshold, (5_000, 8))
    kernel = Kernel(forest, [], list(range(8)))
    table = kernel.prepare(offer_values)
    assert len(table.class_mask) > 4096  # more than the scratch a kernel starts with
    for asked in (np.arange(5_000, dtype=np.int32), np.array([4_999, 0, 4_999], np.int32)):
        out = np.empty(len(asked))
        kernel.score(np.empty(0), table, asked, np.empty((len(asked), 0)), out)
        assert (
            out.tobytes() == np.asarray(booster.predict(offer_values[asked], raw_score=True, num_threads=1)).tobytes()
        )


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    """Two shared, two offer columns and one pair column."""
    return Kernel(compile_forest(trained(1, 8, "regression").model_to_string()), [0, 1], [2, 3], [4])


@pytest.mark.parametrize(
    ("shared", "chosen", "pair", "out", "message"),
    [
        (3, [0], (1, 1), 1, r"shared_values: expected shape \(2,\), came \(3,\)"),
        (1, [0], (1, 1), 1, "shared_values: expected shape"),
        (2, [0, 1], (1, 1), 2, r"pair_values: expected shape \(2, 1\), came \(1, 1\)"),
        (2, [0, 1], (2, 2), 2, "pair_values: expected shape"),
        (2, [0, 1], (2, 1), 3, r"out: expected shape \(2,\), came \(3,\)"),
        (2, [0, 7], (2, 1), 2, "chosen: expected offers 0 to 3, came 0 to 7"),
        (2, [-1, 0], (2, 1), 2, "chosen: expected offers 0 to 3, came -1 to 0"),
    ],
)
def test_a_wrong_shape_is_a_clear_error(
    kernel: Kernel, shared: int, chosen: list[int], pair: tuple[int, int], out: int, message: str
) -> None:
    """Rows too short or too long and offers outside the table are refused, and nothing is written."""
    result = np.full(out, 7.0)
    with pytest.raises(ValueError, match=message):
        kernel.score(
            np.zeros(shared), kernel.prepare(np.zeros((4, 2))), np.array(chosen, np.int32), np.zeros(pair), result
        )
    assert (result == 7.0).all()


def test_foreign_tables_and_columns_are_refused(kernel: Kernel) -> None:
    """A table of another forest, columns that do not cover the forest and a catalogue too wide or long are refused."""
    other = compile_forest(trained(2, 8, "regression").model_to_string())
    table = Kernel(other, [0, 1], [2, 3], [4]).prepare(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="prepared for this forest"):
        kernel.score(np.zeros(2), table, np.zeros(1, np.int32), np.zeros((1, 1)), np.zeros(1))
    with pytest.raises(ValueError, match="left out"):
        Kernel(other, [0, 1], [2])
    with pytest.raises(ValueError, match="distinct indices"):
        Kernel(other, [0, 1, 2, 3, 4, 4], [])
    with pytest.raises(ValueError, match="distinct indices"):
        Kernel(other, [0, 1, 2, 3, 5], [])
    for shape in ((4, 3), (4, 1), (OFFERS_MAX + 1, 2)):
        with pytest.raises(ValueError, match="offer_values: expected"):
            kernel.prepare(np.zeros(shape))


def test_another_dtype_is_refused(kernel: Kernel) -> None:
    """A float32 row raises TypeError rather than start the compiler on the hot path."""
    table = kernel.prepare(np.zeros((1, 2)))
    with pytest.raises(TypeError):
        kernel.score(np.zeros(2, np.float32), table, np.zeros(1, np.int32), np.zeros((1, 1)), np.zeros(1))


def test_a_table_serves_two_kernels(kernel: Kernel) -> None:
    """Tables are read-only and interchangeable between kernels of the same forest and columns."""
    forest = compile_forest(trained(1, 8, "regression").model_to_string())
    twin = Kernel(forest, [0, 1], [2, 3], [4])
    table, out = kernel.prepare(np.ones((2, 2))), np.zeros((2, 2))
    shared = np.ones(2)
    shared.flags.writeable = False  # as a vector read from a store may be
    for scorer, result in ((kernel, out[0]), (twin, out[1])):
        scorer.score(shared, table, np.arange(2, dtype=np.int32), np.ones((2, 1)), result)
    assert (out[0] == out[1]).all() and (out != 0).all()
    with pytest.raises(ValueError, match="read-only"):
        table.classes[0, 0] = 1
