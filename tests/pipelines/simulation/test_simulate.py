"""`opportune simulate` through the real command, held against decisions made one by one."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import xml.etree.ElementTree
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet
import pytest
import yaml

from features.common.timestamps import MICROSECONDS, now, rfc3339, to_microseconds
from features.common.types import Decision, DecisionRequest
from features.config.policies import Arbitration, PoliciesFile
from features.contact_history.history import IMPRESSION, key_of, word_of
from features.contact_history.takes import ContactEvent
from features.lake.offers import read_catalogue
from features.ledger.ledger import ledger_of
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.materialize.contact_import import contacting_of
from pipelines.simulation.report import JSON_FILE, MARKDOWN_FILE, PLOT_FILE
from pipelines.simulation.sampling import sample_of
from serving.reload.reloader import Reloader
from serving.state.snapshot import Snapshot
from tests.pipelines.verbs import opportune
from tests.serving.decisions import decide
from tests.trained import copy_of, end_of_data
from tests.workspaces import POLICIES, make_workspace

SAMPLE, SEED = 300, 3
Pairs = list[tuple[DecisionRequest, Decision, Decision]]


def changes(folder: Path, **files: Any) -> Path:
    """A folder with the files that differ."""
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(
            content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        )
    return folder


def simulated(workspace: Path, other: Path, *options: str | Path) -> dict[str, Any]:
    done = opportune(
        "simulate",
        "-w",
        workspace,
        "--changes",
        other,
        "--sample",
        str(SAMPLE),
        "--seed",
        str(SEED),
        "--placement",
        "home",
        "--json",
        *options,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def shop(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, since what has limits opens a ledger."""
    return copy_of(trained_workspace, tmp_path_factory.mktemp("shop") / "fernruf")


def one_by_one(folder: Path, at: int, changed: Callable[[Workspace], Workspace]) -> Pairs:
    """The sample decided by hand: plain decisions of two states that are built without any file."""
    desk = Reloader(load(folder, sources=False), clock=lambda: at)
    desk.load()
    assert desk.loaded is not None
    before = desk.loaded
    other = changed(desk.workspace)
    after = Snapshot(
        other, before.bundle, read_catalogue(other), before.everyone, desk.stores.engine.words, at / MICROSECONDS
    )
    found: Pairs = []
    for request in sample_of(desk.workspace, SAMPLE, SEED, "home").requests:
        row = asyncio.run(desk.stores.customers.row(request.customer_id))
        found.append((request, decide(request, before, row, at), decide(request, after, row, at)))
    desk.close()
    return found


def ids(decision: Decision) -> list[str]:
    return [offer.offer_id for offer in decision.offers]


def test_doubled_lever_is_what_decisions_say_one_by_one(shop: Path, tmp_path: Path) -> None:
    """Shares, changes and expected worth are those of plain decisions; the interval is that of a bootstrap over
    customers.
    """
    other = changes(tmp_path / "other", policies=POLICIES | {"arbitration": {"offers": {"offer-05": 2.0}}})
    at = now() // MICROSECONDS * MICROSECONDS
    out = tmp_path / "out"
    found = simulated(shop, other, "--at", rfc3339(at), "--out", out)
    pairs = one_by_one(
        shop,
        at,
        lambda made: dataclasses.replace(
            made, policies=msgspec.structs.replace(made.policies, arbitration=Arbitration(offers={"offer-05": 2.0}))
        ),
    )
    result = found["result"]
    assert (
        found["source"] == "decisions"
        and found["files"] == ["policies.yaml"]
        and result["decisions"] == SAMPLE == len(pairs)
    )
    assert result["customers"] == len({request.customer_id for request, *_ in pairs})
    assert result["changed"] == sum(ids(before) != ids(after) for _, before, after in pairs) > 20
    assert result["changed_first"] == sum(ids(before)[:1] != ids(after)[:1] for _, before, after in pairs)
    for side, which in (("before", 1), ("after", 2)):
        shares = Counter(offer for pair in pairs for offer in ids(pair[which]))  # type: ignore[arg-type]
        assert {one["offer_id"]: one[side] for one in result["offers"] if one[side]} == shares
    first = result["offers"][0]
    assert first["offer_id"] == "offer-05" and first["after"] > first["before"]
    value = {offer.offer_id: offer.value for offer in read_catalogue(load(shop, sources=False))}
    worth = np.array(
        [[sum(o.propensity * value[o.offer_id] for o in one.offers) for one in pair[1:]] for pair in pairs]
    )
    told = result["worth"]
    assert [told["before"], told["after"]] == pytest.approx(worth.sum(0).tolist(), rel=1e-9)
    assert told["difference"] == pytest.approx(told["after"] - told["before"], rel=1e-9)
    low, high = bootstrap([request.customer_id for request, *_ in pairs], worth[:, 1] - worth[:, 0])
    assert [told["low"], told["high"]] == pytest.approx([low, high], abs=0.15 * (high - low))
    assert json.loads((out / JSON_FILE).read_text()) == found
    assert xml.etree.ElementTree.parse(out / PLOT_FILE).getroot().tag.endswith("svg")
    page = (out / MARKDOWN_FILE).read_text()
    assert (
        f"({PLOT_FILE})" in page and "| offer-05 |" in page and f"{result['changed']:,} of {SAMPLE} decisions" in page
    )


def bootstrap(customers: list[str], differences: np.ndarray[Any, Any]) -> tuple[float, float]:
    """95 % of the totals of as many decisions, over customers drawn again and again."""
    names, at = np.unique(customers, return_inverse=True)
    totals, sizes = np.bincount(at, differences), np.bincount(at)
    drawn = np.random.default_rng(1).integers(0, len(names), (4_000, len(names)))
    means = totals[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975]) * len(differences)
    return float(low), float(high)


def test_rule_leaves_a_group_out_for_whom_it_concerns(shop: Path, tmp_path: Path) -> None:
    """A rule on a group takes its offers from business customers, and touches nobody else."""
    rule = {"unless": "customer.business", "groups": ["data"]}
    other = changes(
        tmp_path / "other",
        policies={"rules": POLICIES["rules"] | {"no_data": rule}},
        offers=yaml.safe_load((shop / "offers.yaml").read_text()) | {"group": "topic"},
    )
    # At a moment that lies as far from the data on every day: the ages of offers, and so the answers, are the same
    # whenever this runs.
    found = simulated(shop, other, "--at", rfc3339(to_microseconds(end_of_data() + timedelta(hours=6))))
    result = found["result"]
    table = pyarrow.parquet.read_table(shop / "data" / "customers.parquet").to_pylist()
    business = {row["msisdn"] for row in table if row["business"]}
    data = {
        offer.offer_id for offer in read_catalogue(load(shop, sources=False)) if offer.attributes.get("topic") == "data"
    }
    assert found["files"] == ["offers.yaml", "policies.yaml"] and len(data) > 2
    assert len(result["changes"]) == result["changed"] > 10
    for change in result["changes"]:
        assert change["customer_id"] in business
        assert not data & set(change["after"])
    # Without data offers before, others change places: relative columns compare an offer with those that are left.
    assert sum(bool(data & set(change["before"])) for change in result["changes"]) > 0.8 * result["changed"]
    (step,) = [one for one in result["steps"] if one["step"] == "rule no_data"]
    asked = [request.customer_id for request in sample_of(load(shop, sources=False), SAMPLE, SEED, "home").requests]
    concerned = sum(customer in business for customer in asked)
    assert step == {
        "step": "rule no_data",
        "decisions_before": 0,
        "decisions_after": concerned,
        "offers_before": 0,
        "offers_after": concerned * len(data),
    }


def test_limit_binds_within_a_slate_and_by_the_ledger(shop: Path, tmp_path: Path) -> None:
    """One contact in all leaves one offer in an answer, none to those whom the ledger has; the ledger stays as it
    was.
    """
    limits = {"one": {"max": 1, "window": "30d", "per": "any"}}
    other = changes(tmp_path / "other", policies=POLICIES | {"limits": limits})
    workspace = load(shop, sources=False)
    limited = dataclasses.replace(workspace, policies=msgspec.convert(POLICIES | {"limits": limits}, PoliciesFile))
    asked = [request.customer_id for request in sample_of(workspace, SAMPLE, SEED, "home").requests]
    met = sorted(set(asked))[::3]

    async def histories(note: bool) -> list[bytes]:
        ledger, policy, at = ledger_of(workspace), contacting_of(limited)[0].policy, now() / MICROSECONDS
        seen = [ContactEvent(IMPRESSION, at - 60, key_of("offer-01"), 0, 0, word_of("shop"))]
        for customer in met if note else ():
            await ledger.note(customer, policy, seen, at)
        found = [await ledger.read(customer) for customer in sorted(set(asked))]
        ledger.close()
        return found

    before = asyncio.run(histories(note=True))
    found = simulated(shop, other)
    assert asyncio.run(histories(note=False)) == before and sum(map(bool, before)) == len(met)
    result = found["result"]
    shown = sum(one["after"] for one in result["offers"])
    reached = sum(customer not in set(met) for customer in asked)
    assert shown == reached < sum(one["before"] for one in result["offers"])
    assert result["empty_before"] == 0 and result["empty_after"] == SAMPLE - reached > 50
    (step,) = [one for one in result["steps"] if one["step"] == "limit one"]
    assert step["decisions_before"] == 0 and step["decisions_after"] == SAMPLE
    assert all(len(change["after"]) == (change["customer_id"] not in set(met)) for change in result["changes"])
    assert any("look back further" in note for note in found["notes"])


def test_nothing_differs(shop: Path, tmp_path: Path) -> None:
    """Files that say the same, in other words, change nothing, and the report says so; so does a change without
    effect.
    """
    same = changes(tmp_path / "same", policies="# Only a comment.\n" + yaml.safe_dump(POLICIES))
    found = simulated(shop, same)
    assert found["files"] == [] and found["config_before"] == found["config_after"]
    assert (
        found["result"]["changed"] == 0
        and found["result"]["changes"] == []
        and found["result"]["worth"]["difference"] == 0
    )
    idle = changes(tmp_path / "idle", policies=POLICIES | {"arbitration": {"offers": {"nobody-has-me": 3.0}}})
    for other, said in ((same, "say the same"), (idle, "Nothing differs in what is shown")):
        done = opportune("simulate", "-w", shop, "--changes", other, "--sample", "20", "--markdown")
        assert done.returncode == 0 and said in done.stdout and done.stdout.startswith("## What the change of"), done
        for line in done.stdout.splitlines():
            assert not line.startswith("|") or line.count(" | ") in (3, 4, 5)


def refused(*arguments: str | Path) -> str:
    done = opportune("simulate", *arguments)
    assert done.returncode != 0 and not done.stdout and "Traceback" not in done.stderr, done
    return done.stderr


def test_what_cannot_be_simulated_is_refused(shop: Path, tmp_path: Path) -> None:
    """Faults are told with file, line and remedy; so are folders without files, files without effect, and other
    data.
    """
    broken = changes(tmp_path / "broken", policies="rules:\n  odd: {when: customer.tenure > 3}\n")
    said = refused("-w", shop, "--changes", broken)
    assert f"{broken / 'policies.yaml'}:2: at $.rules.odd.when: expected" in said
    assert "a folder" in refused("-w", shop, "--changes", tmp_path / "nowhere")
    assert "policy.yaml, which would be without effect" in refused(
        "-w", shop, "--changes", changes(tmp_path / "odd", policy={})
    )
    features = yaml.safe_load((shop / "features.yaml").read_text())
    del features["pairs"]["dearest"]
    assert "with `opportune up`" in refused("-w", shop, "--changes", changes(tmp_path / "columns", features=features))
    assert "expected one of home, bill, got attic" in refused("-w", shop, "--changes", shop, "--placement", "attic")
    assert "--at" in refused("-w", shop, "--changes", shop, "--at", "yesterday")
    assert "got both" in opportune("simulate", "-w", shop, "--changes", shop, "--json", "--markdown").stderr
    fresh = make_workspace(tmp_path / "fresh", customers=5)
    assert "opportune up" in refused("-w", fresh, "--changes", fresh)
