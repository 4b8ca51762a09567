"""A workspace that the release before made serves, and its Feast configuration loads, as they are.

The fixture was made on 2026-11-30 by the commit before files moved to rooms: `opportune init shop`, `opportune up`, a
limit of one contact an offer in seven days, and one impression of `offer-02` by `c0002`; without the tables that it was
imported from. `SAID` is what that release answered of it at `MOMENT`.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from tests.serving.live import ROOT, Live

MADE = ROOT / "tests/fixtures/previous_release/workspace.tar.xz"
MOMENT = "2026-12-01T12:00:00Z"
SAID = {
    "c0001": {
        "offer-07": 0.30209777247,
        "offer-03": 0.193249598369,
        "offer-01": 0.254179876778,
        "newsletter": 0.028749010275,
    },
    "c0002": {
        "offer-10": 0.164058033725,
        "offer-08": 0.221081386093,
        "offer-04": 0.150402657491,
        "offer-09": 0.03772547722,
    },
    "c0003": {
        "offer-10": 0.304237313195,
        "offer-04": 0.221362969767,
        "offer-09": 0.155686811974,
        "offer-00": 0.028749010275,
    },
}
"""By customer, the propensities of some offers."""
OLD_PATH = "features.feast_lmdb.LmdbOnlineStore"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The workspace of the release before, to be changed."""
    with tarfile.open(MADE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "shop"


def test_it_serves_what_it_served(shop: Path) -> None:
    """Bundle, online rows, contact history and configuration are read as they lie there: same propensities, same offer
    held back.
    """
    live = Live(shop, environment={"OPPORTUNE_CLOCK": MOMENT}).start()
    try:
        answers = {
            customer: live.ask(
                "POST", "/v1/decisions", {"customer_id": customer, "placement": "home", "limit": 50}
            ).json
            for customer in SAID
        }
    finally:
        assert live.stop() == 0
    for customer, propensities in SAID.items():
        answer = answers[customer]
        assert answer["degraded"] == [] and answer["model"]["version"] == "1"
        given = {offer["offer_id"]: offer["propensity"] for offer in answer["offers"]}
        assert {offer: given[offer] for offer in propensities} == pytest.approx(propensities, abs=1e-11)
        assert len(given) == (12 if customer == "c0002" else 13)
    assert "offer-02" not in {offer["offer_id"] for offer in answers["c0002"]["offers"]}, (
        "its impression is in the ledger"
    )


def test_feast_finds_the_store_by_its_old_path(shop: Path) -> None:
    """A `feature_store.yaml` that names the class where it was loads, and reads the customer's row."""
    from feast import FeatureStore

    folder = shop / ".opportune/feast"
    assert OLD_PATH in (folder / "feature_store.yaml").read_text()
    store = FeatureStore(repo_path=str(folder))
    view = next(view for view in store.list_feature_views() if view.entities == ["customer"])
    wanted = [f"{view.name}:{field.name}" for field in view.features]
    row = store.get_online_features(wanted, entity_rows=[{"customer_id": "c0001"}]).to_dict()
    assert any(value != [None] for name, value in row.items() if name != "customer_id")


def test_applying_writes_the_new_path(shop: Path) -> None:
    """When Feast is told of the views again, its file names the class where it is now."""
    from features.feature_store.definitions import apply
    from features.validation.load import load

    (shop / "data").mkdir()
    workspace = load(shop, sources=False)
    apply(workspace)
    text = (shop / ".opportune/feast/feature_store.yaml").read_text()
    assert OLD_PATH not in text and "features.feature_store.lmdb_online_store.LmdbOnlineStore" in text
    shutil.rmtree(shop)
