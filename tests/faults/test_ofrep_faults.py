"""Flags and assignments while the store is away: they are answered, and say that they may be less than they could
be.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from features.validation.load import load
from features.workspace.workspace import ONLINE_URL_VARIABLE
from serving.api.decisions import Decisions
from serving.api.experiments import ExperimentRoutes
from serving.api.flags import Flags
from serving.api.preview import Enquiry
from serving.http.routing import Call
from serving.reload.reloader import Reloader
from serving.runtime.metrics import Metrics
from tests.serving.trial_server import EXPERIMENTS, RUNNING, trial_workspace
from tests.stores import Server, find_server

pytestmark = pytest.mark.skipif(not find_server()[0], reason=find_server()[1] or "there is one")

CUSTOMER = "436600000"
OF_STORES = {"kept", "tariffs", "rich"}
"""Experiments whose answers depend on the ledger or on columns of the customer."""
LACKS = "features_unavailable,contacts_unavailable"
TRIES_MAX = 500


class Asking:
    """Flags of a workspace on a store, asked without HTTP."""

    def __init__(self, desk: Reloader) -> None:
        self.desk = desk
        self.flags = Flags(Enquiry(desk), Decisions(desk, desk.workspace, Metrics()))
        self.experiments = ExperimentRoutes(Enquiry(desk))

    async def ask(self, key: str = "", targeting_key: str = CUSTOMER) -> dict[str, Any]:
        call = Call(b"test", None, {}, {})
        body = msgspec.json.encode({"context": {"targetingKey": targeting_key}})
        if key:
            call.parameters = {"key": key}
        status, _, answer, _ = await (self.flags.one if key else self.flags.all)(body, call)
        assert status == 200
        return dict(msgspec.json.decode(answer))

    async def degraded(self, key: str, targeting_key: str = CUSTOMER) -> str:
        """What the metadata of one flag says."""
        return str((await self.ask(key, targeting_key))["metadata"].get("degraded", ""))

    async def lacking(self, *keys: str) -> tuple[str, str]:
        """Why the arms of some experiments are less than they could be: of each alone, and of all in one request."""
        single = []
        for key in keys:
            call = Call(b"test", None, {}, {})
            call.parameters = {"key": key, "unit": CUSTOMER}
            status, _, answer, _ = await self.experiments.one(b"", call)
            assert status == 200
            single.append(",".join(msgspec.json.decode(answer)["degraded"]))
        asked = msgspec.json.encode({"requests": [{"customer_id": CUSTOMER, "experiments": keys}]})
        status, _, answer, _ = await self.experiments.many(asked, Call(b"test", None, {}, {}))
        assert status == 200 and len(set(single)) == 1
        return single[0], ",".join(msgspec.json.decode(answer)["results"][0]["degraded"])

    async def until(self, wanted: str, key: str = "experiment.kept") -> None:
        for _ in range(TRIES_MAX):
            if await self.degraded(key, f"other-{key}") == wanted:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{key} is not `{wanted}`")


def bulk(told: dict[str, Any]) -> dict[str, str]:
    """By flag, why it is less than it could be."""
    return {one["key"]: one["metadata"].get("degraded", "") for one in told["flags"]}


def test_flags_say_that_the_store_is_away(
    trained_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the store killed flags and assignments are answered, say so where it may matter, and no longer when it is
    back.
    """
    store = Server(tmp_path / "valkey").start()
    monkeypatch.setenv(ONLINE_URL_VARIABLE, store.url)
    desk = Reloader(load(trial_workspace(trained_workspace, tmp_path / "shop"), sources=False))
    desk.load()
    assert desk.loaded is not None, desk.refusal
    desk.stores.deadline.seconds = 5.0
    asking = Asking(desk)

    async def told() -> None:
        await asking.until(
            "features_unavailable"
        )  # nothing was materialized there: a stranger's row is unknown, the ledger is not
        before = await asking.ask("experiment.headline")
        sticky = await asking.ask("experiment.kept")
        store.kill()
        desk.stores.deadline.seconds = 0.2
        await asking.until(LACKS)
        assert await asking.ask("experiment.headline") == before, "the hash alone decides"
        assert (await asking.ask("experiment.kept"))["value"] == sticky["value"], "the split is what it was"
        for key in EXPERIMENTS["experiments"]:  # type: ignore[attr-defined]
            assert await asking.degraded(f"experiment.{key}") == (LACKS if key in OF_STORES else ""), key
            anonymous = await asking.degraded(f"experiment.{key}", "~web-7")
            assert anonymous == (LACKS if key in RUNNING else ""), f"whose `~web-7` is may matter to {key}"
        assert await asking.lacking("kept", "rich") == (LACKS, LACKS)
        assert await asking.lacking("headline", "later") == ("", ""), "neither store matters to them"
        assert "contacts_unavailable" in await asking.degraded("offers.home")
        every = await asking.ask()
        assert {key for key, why in bulk(every).items() if why == LACKS} >= {f"experiment.{key}" for key in OF_STORES}
        assert every["metadata"] == {"degraded": LACKS}
        await asyncio.to_thread(store.start)
        desk.stores.deadline.seconds = 5.0
        await asking.until("features_unavailable")
        assert (await asking.ask())["metadata"] == {"degraded": "features_unavailable"}
        assert await asking.lacking("kept", "rich") == ("features_unavailable", "features_unavailable")

    async def whole() -> None:
        try:
            await asyncio.wait_for(told(), 60)
        finally:
            desk.close()
            await asyncio.sleep(0.1)

    try:
        asyncio.run(whole())
    finally:
        store.stop()


def test_what_could_not_be_written_down_is_said(trained_workspace: Path, tmp_path: Path) -> None:
    """A sticky arm that the ledger does not take is answered as the split has it, and said to be unsure; the next one
    is whole.
    """
    desk = Reloader(load(trial_workspace(trained_workspace, tmp_path / "shop"), sources=False))
    desk.load()
    asking, run = Asking(desk), desk.stores.effects.run

    async def refusing(*_: Any) -> None:
        return None

    async def told() -> None:
        for number in range(100):
            customer = f"new-{number}"
            desk.stores.effects.run = refusing  # type: ignore[method-assign]
            first = await asking.ask("experiment.kept", customer)
            desk.stores.effects.run = run  # type: ignore[method-assign]
            if "value" not in first:
                continue
            second = await asking.ask("experiment.kept", customer)
            assert (first["metadata"]["degraded"], second["metadata"].get("degraded")) == ("contacts_unavailable", None)
            assert (first["value"], second["metadata"]["assignment"]) == (second["value"], "split"), (
                "nothing was written before"
            )
            return
        raise AssertionError("nobody is in the experiment")

    asyncio.run(told())
    desk.close()
