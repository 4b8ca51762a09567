"""Calibration: three methods, one winner by held-out log loss, always monotone and never certain."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from training.bundle.calibration_map import Calibration
from training.fitting import calibration

Floats = NDArray[np.float64]


def sigmoid(raw: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-raw)))


def drawn(seed: int, rows: int = 4_000, slope: float = 1.0, intercept: float = 0.0) -> tuple[Floats, Floats]:
    """Raw scores, and labels whose log odds are slope * raw + intercept."""
    chance = np.random.default_rng(seed)
    raw = chance.normal(-2, 1.5, rows)
    return raw, (chance.random(rows) < sigmoid(slope * raw + intercept)).astype(float)


@pytest.mark.parametrize("method", calibration.METHODS)
@pytest.mark.parametrize("seed", range(5))
def test_every_method_is_monotone_and_never_certain(method: calibration.Method, seed: int) -> None:
    """A higher raw score never has a lower probability, and no score, however large, gives 0 or 1."""
    raw, labels = drawn(seed, rows=300, slope=2.5)
    found = calibration.fit(method, raw, labels)
    asked = np.concatenate([np.linspace(-900, 900, 2_001), raw, [-1e300, 1e300, -np.inf, np.inf]])
    given_ = found.probabilities(np.sort(asked))
    assert (np.diff(given_) >= 0).all()
    assert given_.min() > 0 and given_.max() < 1
    assert found.probabilities(asked).shape == asked.shape


def test_identity_is_the_plain_sigmoid() -> None:
    """Within the range of real scores the identity changes nothing."""
    raw = np.linspace(-30, 30, 601)
    assert np.allclose(calibration.fit("identity", raw, raw).probabilities(raw), sigmoid(raw), rtol=1e-15)


def test_sigmoid_finds_slope_and_intercept() -> None:
    """Labels drawn with log odds 0.5 raw - 1 are found again."""
    found = calibration.fit("sigmoid", *drawn(1, 60_000, 0.5, -1.0))
    assert found.slope == pytest.approx(0.5, abs=0.03)
    assert found.intercept == pytest.approx(-1.0, abs=0.06)


def test_scores_that_point_the_wrong_way_are_left_as_they_are() -> None:
    """A negative slope would turn the order of offers round, so the sigmoid becomes the identity; isotonic becomes
    flat.
    """
    raw, labels = drawn(2, slope=-1.5)
    found = calibration.fit("sigmoid", raw, labels)
    assert (found.slope, found.intercept) == (1.0, 0.0)
    flat = calibration.fit("isotonic", raw, labels).probabilities(raw)
    assert np.ptp(flat) < 0.2 and flat.mean() == pytest.approx(labels.mean(), abs=0.02)
    assert (
        calibration.fit("sigmoid", np.zeros(10), np.tile([0.0, 1.0], 5)).slope == 1.0
    )  # and so are scores that say nothing


def test_isotonic_follows_any_shape_and_keeps_few_knots() -> None:
    """A staircase is found within its noise, with at most so many knots, whatever the number of rows."""
    chance = np.random.default_rng(3)
    raw = chance.uniform(-3, 3, 50_000)
    truth = np.where(raw < -1, 0.05, np.where(raw < 2, 0.2, 0.7))
    found = calibration.fit("isotonic", raw, (chance.random(50_000) < truth).astype(float))
    assert 2 <= len(found.x) <= calibration.KNOTS_MAX
    assert np.abs(found.probabilities(raw) - truth).mean() < 0.015


def test_the_best_of_the_three_is_chosen() -> None:
    """True log odds keep the identity, stretched ones take the sigmoid, a staircase takes isotonic; all losses are
    told.
    """
    chance = np.random.default_rng(5)
    raw = chance.uniform(-3, 3, 20_000)
    groups = np.arange(20_000) // 4
    shapes = {
        "identity": sigmoid(raw),
        "sigmoid": sigmoid(0.3 * raw - 2),
        "isotonic": np.where(raw < -1, 0.02, np.where(raw < 2, 0.1, 0.9)),
    }
    for expected, truth in shapes.items():
        chosen = calibration.choose(raw, (chance.random(20_000) < truth).astype(float), groups)
        assert set(chosen.log_losses) == set(calibration.METHODS)
        assert chosen.log_losses[chosen.method] == min(chosen.log_losses.values())
        if expected == "identity":  # the sigmoid may find the identity itself, to a hair
            assert chosen.log_losses["identity"] <= chosen.log_losses["isotonic"]
            assert chosen.log_losses["identity"] == pytest.approx(chosen.log_losses["sigmoid"], abs=1e-3)
        else:
            assert chosen.method == expected


def test_the_losses_are_of_decisions_that_were_held_out_whole() -> None:
    """Each method's loss is that of predictions by a fit which saw no row of the same decision: a loop gives the same
    figure.
    """
    raw, labels = drawn(7, rows=600, slope=0.6)
    groups = np.sort(np.random.default_rng(7).integers(0, 80, 600))
    chosen = calibration.choose(raw, labels, groups)
    for method in calibration.METHODS:
        predicted = np.empty(600)
        for fold in range(calibration.FOLDS):
            held = np.array([group % calibration.FOLDS == fold for group in groups])
            assert not set(groups[held]) & set(groups[~held])
            predicted[held] = calibration.fit(method, raw[~held], labels[~held]).probabilities(raw[held])
        assert chosen.log_losses[method] == pytest.approx(log_loss(labels, predicted))
    assert chosen.calibration == calibration.fit(chosen.method, raw, labels)


def test_a_memorised_decision_is_not_rewarded() -> None:
    """Rows of one decision that are copies of each other flatter isotonic only where a decision is torn apart by the
    folds.
    """
    chance = np.random.default_rng(8)
    raw = np.repeat(chance.normal(-1, 1, 60), 20)
    labels = np.repeat((chance.random(60) < 0.3).astype(float), 20)  # no relation to the score at all
    whole = calibration.choose(raw, labels, np.repeat(np.arange(60), 20))
    torn = calibration.choose(raw, labels, np.arange(1_200))
    assert whole.log_losses["isotonic"] > torn.log_losses["isotonic"] + 0.05


def test_few_successes_and_few_decisions_are_enough() -> None:
    """One success, or a single decision: a calibration comes out, and folds without both outcomes fall back to the
    identity.
    """
    labels = np.zeros(12)
    labels[3] = 1
    for groups in (np.arange(12), np.zeros(12, np.int64)):
        chosen = calibration.choose(np.linspace(-2, 2, 12), labels, groups)
        assert all(math.isfinite(loss) for loss in chosen.log_losses.values())
        assert 0 < chosen.calibration.probabilities(np.zeros(1))[0] < 1


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from(calibration.METHODS))
def test_a_calibration_survives_json_to_the_bit(seed: int, method: calibration.Method) -> None:
    """What is written into a bundle and read again is equal and gives equal bits."""
    raw, labels = drawn(seed, rows=200)
    labels[:2] = [0, 1]
    found = calibration.fit(method, raw, labels)
    again = msgspec.json.decode(msgspec.json.encode(found), type=Calibration)
    assert again == found
    assert again.probabilities(raw).tobytes() == found.probabilities(raw).tobytes()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"method":"sigmoid","slope":-1.0}', "a slope above zero"),
        ('{"method":"sigmoid","slope":0.0}', "a slope above zero"),
        ('{"method":"isotonic"}', "knots for the isotonic method"),
        ('{"method":"isotonic","x":[0.0,1.0],"y":[0.5]}', "as many y as x"),
        ('{"method":"isotonic","x":[1.0,0.0],"y":[0.1,0.5]}', "rising x"),
        ('{"method":"isotonic","x":[0.0,1.0],"y":[0.5,0.1]}', "never falls"),
        ('{"method":"isotonic","x":[0.0,1.0],"y":[0.0,0.5]}', "above 0 and below 1"),
        ('{"method":"exact"}', "Invalid enum value"),
    ],
)
def test_what_is_no_calibration_is_refused_when_it_is_read(text: str, reason: str) -> None:
    """Numbers that would reorder offers, or give no probability, do not decode."""
    with pytest.raises(msgspec.ValidationError, match=reason):
        msgspec.json.decode(text, type=Calibration)
