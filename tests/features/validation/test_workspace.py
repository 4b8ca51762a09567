"""Cross-checks: each class of fault between and within the files of a workspace has its message and its way out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.config.documents import BadWorkspace
from features.validation.load import load
from features.validation.workspace import CHECKS
from tests.features.validation.feature_faults import COUNT, FEATURE_FAULTS
from tests.workspaces import make_workspace

GONE = object()

FAULTS: list[tuple[str, str, Any, str]] = [
    # workspace.yaml
    (
        "workspace",
        "time_zone",
        "Vienna",
        "$.time_zone: expected an IANA time zone, got `Vienna`. For example Europe/Vienna",
    ),
    (
        "workspace",
        "stores",
        {"online": {"url": "localhost"}},
        "$.stores.online.url: expected `embedded` or a Redis address, got an error: expected a URL that starts with",
    ),
    (
        "workspace",
        "stores",
        {"online": {"near_cache_rows": 1_000}},
        (
            "$.stores.online.near_cache_rows: expected a Redis store, which tells of changes, got another one. Leave it"
            " out, or name"
        ),
    ),
    ("workspace", "data", ".", "$.data: expected a folder of its own: it may be deleted, got `.`"),
    ("workspace", "data", "..", "$.data: expected a folder of its own"),
    (
        "workspace",
        "demo",
        {"now": "2026-02-30"},
        "$.demo.now: expected a moment that the calendar has, got `2026-02-30`",
    ),
    (
        "workspace",
        "sources.offers",
        "data/none.csv",
        "$.sources.offers: expected a file, folder or glob that exists, got `data/none.csv`",
    ),
    (
        "workspace",
        "sources.streams.cals",
        "data/calls.parquet",
        "$.sources.streams.cals: expected a stream of features.yaml, got `cals`. Did you mean `calls`?",
    ),
    (
        "workspace",
        "sources.customers.columns.tarif",
        "x",
        "$.sources.customers.columns.tarif: expected a column of the table, renamed as `ours: theirs`",
    ),
    *FEATURE_FAULTS,
    # offers.yaml
    (
        "offers",
        "offers.1.offer_id",
        "summer-data",
        "$.offers[1].offer_id: expected an id of its own, got `summer-data` again",
    ),
    (
        "offers",
        "offers.0.attributes.prize",
        3,
        "$.offers[0].attributes.prize: expected an attribute of features.yaml, got `prize`. Did you mean `price`?",
    ),
    ("offers", "offers.0.attributes.price", "dear", "$.offers[0].attributes.price: expected a number, got 'dear'"),
    ("offers", "offers.0.attributes.price", True, "$.offers[0].attributes.price: expected a number, got True"),
    ("offers", "offers.0.attributes.months", 1.5, "$.offers[0].attributes.months: expected an integer, got 1.5"),
    ("offers", "offers.0.attributes.topic", 5, "$.offers[0].attributes.topic: expected a category, got 5"),
    (
        "offers",
        "offers.0.attributes.countries",
        "at",
        "$.offers[0].attributes.countries: expected a list of texts, got 'at'",
    ),
    ("offers", "offers.0.attributes.online_only", 1, "$.offers[0].attributes.online_only: expected a boolean, got 1"),
    ("offers", "offers.0.attributes.launched", "May", "$.offers[0].attributes.launched: expected a time, got 'May'"),
    (
        "offers",
        "offers.0.placements",
        ["hme"],
        "$.offers[0].placements[0]: expected a declared placement, got `hme`. Did you mean `home`?",
    ),
    (
        "offers",
        "offers.0.valid_until",
        "2019-12-31",
        "$.offers[0].valid_until: expected a moment after valid_from, got `2019-12-31`",
    ),
    (
        "offers",
        "offers.0.valid_until",
        "2020-01-01T01:00:00+02:00",
        "$.offers[0].valid_until: expected a moment after valid_from",
    ),
    (
        "offers",
        "offers.0.valid_until",
        "2026-13-01",
        "$.offers[0].valid_until: expected a moment that the calendar has",
    ),
    (
        "offers",
        "treatments.1.channel",
        "shp",
        "$.treatments[1].channel: expected a channel that the context knows, or any, got `shp`. Did you mean `shop`?",
    ),
    (
        "offers",
        "treatments.1.channel",
        "any",
        "$.treatments[1].channel: expected each channel once in a locale, got `any` and `any` again",
    ),
    (
        "offers",
        "treatments.0.payload.headline",
        "{nam}!",
        "$.treatments[0].payload.headline: expected a placeholder that offers can fill, got `nam`",
    ),
    (
        "offers",
        "offers.0.treatments.0.payload.deep",
        {"list": ["{x}"]},
        "$.offers[0].treatments[0].payload.deep.list[0]: expected a placeholder",
    ),
    # policies.yaml and model.yaml
    (
        "policies",
        "rules.not_pushed.unless",
        "pair.targeted >= 1",
        "$.rules.not_pushed.unless: expected a name of pair, got `pair.targeted`",
    ),
    ("model", "leave_out", ["calls_8d"], "$.leave_out[0]: expected a column, got `calls_8d`. Did you mean `calls_7d`?"),
    (
        "model",
        "monotone",
        {"calls_8d": "increasing"},
        "$.monotone.calls_8d: expected a column that the model uses, got `calls_8d`",
    ),
    (
        "model",
        "monotone",
        {"tariff": "increasing"},
        "$.monotone.tariff: expected a numeric column, got `tariff`, a category",
    ),
    ("model", "split", {"cut": "2026-02-30"}, "$.split.cut: expected a moment that the calendar has, got `2026-02-30`"),
    (
        "model",
        "parameters.objective",
        "lambdarank",
        (
            "$.parameters.objective: expected `binary`, got the text 'lambdarank'. A propensity is a probability: leave"
            " it out."
        ),
    ),
    (
        "model",
        "parameters.boosting",
        "dart",
        "$.parameters.boosting: expected gbdt or gbrt, got the text 'dart'. dart cannot stop early",
    ),
    (
        "model",
        "parameters.boost",
        "dart",
        "$.parameters.boost: expected gbdt or gbrt, got the text 'dart'. dart cannot stop early",
    ),
    (
        "model",
        "parameters.max_leaves",
        7,
        "$.parameters.max_leaves: expected each parameter once, got `max_leaves` beside `num_leaves` in line",
    ),
    (
        "model",
        "parameters.num_leaves",
        "7",
        "$.parameters.num_leaves: expected a whole number of 2 at least and 256 at most, got the text '7'.",
    ),
    (
        "model",
        "parameters.metric",
        "auc",
        "$.parameters.metric: expected no such parameter: rounds stop by the log loss",
    ),
    (
        "model",
        "parameters.bagging",
        0.7,
        "$.parameters.bagging: expected `bagging_freq` too, got `bagging_fraction: 0.7`. Without it no rows",
    ),
    ("model", "parameters.mc_method", "advanced", "$.parameters.mc_method: expected columns under `monotone` too, got"),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("check"), customers=3, decisions=1, days=2)


def changed(folder: Path, file: str, path: str, value: Any) -> list[Any]:
    """The faults of a workspace in which one part of one file is another; the file is put back."""
    place = folder / f"{file}.yaml"
    before = place.read_text()
    content = node = copy.deepcopy(yaml.safe_load(before))
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in steps:
        node = node[step] if isinstance(node, list) else node.setdefault(step, {})
    if value is GONE:
        del node[last]
    else:
        node[last] = value
    place.write_text(yaml.safe_dump(content, sort_keys=False))
    try:
        load(folder)
    except BadWorkspace as bad:
        return bad.faults
    finally:
        place.write_text(before)
    return []


@pytest.mark.parametrize(
    ("file", "path", "value", "message"),
    FAULTS,
    ids=[f"{file}.{path}-{n}" for n, (file, path, _, _) in enumerate(FAULTS)],
)
def test_a_fault_has_its_message(good: Path, file: str, path: str, value: Any, message: str) -> None:
    """One change makes one fault, told with file, line, path, what was expected, what came, and what to do."""
    faults = changed(good, file, path, value)
    if not message:
        assert faults == []
        return
    assert len(faults) == 1, faults
    assert message in str(faults[0])
    assert faults[0].file == f"{file}.yaml"
    assert faults[0].line is not None
    assert str(faults[0]).startswith(f"{file}.yaml:{faults[0].line}: at $")


def test_a_business_must_have_offers_and_columns(tmp_path: Path) -> None:
    """There must be something to offer and something to learn from."""
    folder = make_workspace(tmp_path, customers=3, decisions=1, days=2, settings={"sources": {}})
    (folder / "features.yaml").write_text("")
    (folder / "policies.yaml").write_text("")
    (folder / "offers.yaml").write_text("placements: {home: {}}")
    with pytest.raises(BadWorkspace) as caught:
        load(folder)
    assert [str(fault) for fault in caught.value.faults] == [
        (
            "offers.yaml:1: at $.offers: expected offers here, or `sources.offers` in workspace.yaml, got neither."
            " Declare at least one offer."
        ),
        (
            "model.yaml:1: at $: expected at least one column for the model to use, got none. Declare columns in"
            " features.yaml."
        ),
    ]


def test_the_faults_above_are_many() -> None:
    """A list that lost its entries would pass."""
    assert len(CHECKS) == 15
    assert len(FAULTS) > 70


def test_too_many_columns_are_refused(good: Path) -> None:
    """A thousand columns are enough; more is a mistake."""
    columns = {
        f"c{n}": COUNT | {"windows": ["1d", "2d", "3d", "4d", "5d", "6d", "7d", "8d", "9d", "10d"]} for n in range(100)
    }
    (fault,) = changed(good, "features", "columns", columns)
    assert "at $: expected at most 1000 columns, got" in str(fault)
