"""Every tool says all about itself: what it takes, how it cuts and ramps, what it would not split."""

from __future__ import annotations

import typing

import msgspec
import pytest

from features.bucketing.tools import NAMES, TOOLS, WORDS, Cut, Words
from features.config.experiments import Experiment, Hashing
from features.workspace.experiments import split_of, words_of
from tests.features.names_compared import places_of_names

UNITS = [f"u{number}" for number in range(2_000)]
ARMS = {"arms": {"old": {}, "new": {}}}


def test_files_may_name_what_is_computed() -> None:
    """experiments.yaml takes the tools that there are, each under its own name."""
    assert typing.get_args(Hashing) == NAMES == tuple(tool.name for tool in TOOLS.values())
    assert len(NAMES) >= 8


def test_no_code_knows_a_tool_by_its_name() -> None:
    """Outside of the tools, no name of one is compared."""
    assert places_of_names(frozenset(NAMES), "features/bucketing/tools.py") == []


@pytest.mark.parametrize("name", NAMES)
def test_a_tool_cuts_ramps_and_hashes_what_it_takes(name: str) -> None:
    """Equal arms share all units, half of the coverage leaves half out, a ramp is as large as it says, and another word
    is another split.
    """
    tool, words, equal = TOOLS[name], Words("key"), Cut((None, None))
    assert set(tool.takes) <= set(WORDS)
    assert list(tool.weight_faults(equal)) == []
    whole, half = tool.split(words, equal), tool.split(words, Cut((None, None), coverage=0.5))
    assert whole.covered == pytest.approx(1.0, abs=1e-9) and half.covered == pytest.approx(0.5, abs=0.01)
    assert whole.shares == pytest.approx((0.5, 0.5), abs=1e-3)
    arms = [whole(unit)[0] for unit in UNITS]
    assert set(arms) == {0, 1} and abs(arms.count(0) / len(arms) - 0.5) < 0.05
    ramped = tool.ramped(words, [[(0.0, 0.25)], [(0.75, 1.0)]])
    assert ramped.covered == pytest.approx(0.5, abs=0.01) and ramped.shares == pytest.approx((0.5, 0.5), abs=0.01)
    assert any(tool.split(Words("other"), equal)(unit) != whole(unit) for unit in UNITS)
    for word in set(tool.takes) - {"encoding", "traffic_salt", "seed"}:
        changed = tool.split(_with(words, word, "w"), equal)
        assert any(changed(unit) != whole(unit) for unit in UNITS), word


def _with(words: Words, word: str, text: str) -> Words:
    return Words(**{"key": words.key, word: text})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_hands_its_words_over(name: str) -> None:
    """What a file says reaches the tool word by word, and an experiment without any has the split of its key."""
    entry = msgspec.convert({"hash": name, **ARMS}, Experiment)
    assert words_of("key", entry) == Words("key")
    said = {word: 7 if TOOLS[name].seed_is_number and word == "seed" else "w" for word in TOOLS[name].takes}
    said |= {"encoding": "utf-16"} if "encoding" in said else {}
    assert words_of("key", msgspec.convert({"hash": name, **said, **ARMS}, Experiment)) == Words("key", **said)  # type: ignore[arg-type]
    assert [split_of("key", entry)(unit) for unit in UNITS[:50]] == [
        TOOLS[name].split(Words("key"), Cut((None, None)))(unit) for unit in UNITS[:50]
    ]
