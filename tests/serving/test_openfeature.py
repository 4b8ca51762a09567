"""Stock OpenFeature clients, as they are, against the real server: Python's in this process, Node's in one of its
own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason
from openfeature.track import TrackingEventDetails

from features.common import clock
from features.validation.load import load
from pipelines.experiments.export import write_exposures
from serving.settings import ORIGINS_VARIABLE
from tests.clients.npm import installed
from tests.serving.live import ROOT, Live
from tests.serving.openfeature_clients import CUSTOMERS, answers, hook_module, logged
from tests.serving.page_examples import examples, run
from tests.serving.trial_server import keys_file, trial_workspace
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.slow

SHOP, THIEF = "https://shop.example", "https://thief.example"
NODE = ROOT / "tests" / "clients" / "node"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    return keys_file(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def live(
    trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, dict[str, str]]
) -> Iterator[Live]:
    """A server with experiments, and with keys."""
    folder = trial_workspace(trained_workspace, tmp_path_factory.mktemp("flags") / "shop")
    server = Live(
        folder, environment={"OPPORTUNE_KEYS_FILE": str(keys[0]), ORIGINS_VARIABLE: f"https://other.example {SHOP}"}
    ).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def app(live: Live, keys: tuple[Path, dict[str, str]]) -> tuple[str, dict[str, str]]:
    """What an application has: the server's address, and the header with its key."""
    return f"http://127.0.0.1:{live.port}", {"x-api-key": keys[1]["app"]}


@pytest.fixture(scope="module")
def known(live: Live, keys: tuple[Path, dict[str, str]]) -> tuple[str, str]:
    """A customer who is in all experiments, and one who is not in `one-or-two`."""
    said = answers(live, keys[1]["experiments"], "one-or-two")
    return next(one for one, said in said.items() if said["arm"]), next(
        one for one, said in said.items() if said["reason"] == "not_covered"
    )


def test_python(
    live: Live, app: tuple[str, dict[str, str]], keys: tuple[Path, dict[str, str]], known: tuple[str, str]
) -> None:
    """The stock provider reads variants and offers; whatever is wrong gives the default, with OpenFeature's own
    code.
    """
    api.set_provider(OFREPProvider(app[0], headers_factory=lambda: app[1]), "stock")
    client, said = api.get_client("stock"), answers(live, keys[1]["experiments"], "headline")
    for customer in CUSTOMERS[:20]:
        details = client.get_string_details("experiment.headline", "none", EvaluationContext(customer))
        arm = said[customer]["arm"]
        assert details.value == (arm or "none")
        assert details.variant == (arm or "")
        assert details.reason == (Reason.SPLIT if arm else Reason.DISABLED)
        assert details.flag_metadata["assignment"] == said[customer]["reason"]
        assert details.error_code is None
    context = EvaluationContext(
        known[0], {"channel": "app", "anything": {"at": ["all"]}, "when": datetime(2026, 1, 1, tzinfo=UTC).isoformat()}
    )
    ranked = client.get_object_details("offers.home", {}, context)
    assert isinstance(ranked.value, dict)
    assert [offer["rank"] for offer in ranked.value["offers"]] == list(range(1, len(ranked.value["offers"]) + 1))  # type: ignore[index,arg-type,call-overload]
    assert f"one-or-two={answers(live, keys[1]['experiments'], 'one-or-two')[known[0]]['arm']}" in str(ranked.variant)
    for flag, asked, code in (
        ("experiment.nonsense", context, ErrorCode.FLAG_NOT_FOUND),
        ("offers.nowhere", context, ErrorCode.FLAG_NOT_FOUND),
        ("experiment.headline", EvaluationContext(), ErrorCode.TARGETING_KEY_MISSING),
        ("experiment.headline", EvaluationContext("7", {"channel": "moon"}), ErrorCode.INVALID_CONTEXT),
        ("offers.home", context, ErrorCode.TYPE_MISMATCH),
    ):
        details = client.get_string_details(flag, "none", asked)
        assert (details.value, details.error_code) == ("none", code), flag
    mismatch = client.get_boolean_details("experiment.headline", False, context)
    assert (mismatch.value, mismatch.error_code) == (False, ErrorCode.TYPE_MISMATCH)
    outside = client.get_string_details("experiment.one-or-two", "none", EvaluationContext(known[1]))
    assert (outside.value, outside.reason, outside.error_code) == ("none", Reason.DISABLED, None)


def test_python_with_a_wrong_key(app: tuple[str, dict[str, str]]) -> None:
    """Without a valid key the application goes on with its default."""
    api.set_provider(OFREPProvider(app[0], headers_factory=lambda: {"authorization": "Bearer wrong"}), "wrong")
    details = api.get_client("wrong").get_string_details("experiment.headline", "none", EvaluationContext("7"))
    assert (details.value, details.error_code, details.error_message) == ("none", ErrorCode.GENERAL, "unauthorized")


def test_python_tracks(live: Live, app: tuple[str, dict[str, str]], known: tuple[str, str]) -> None:
    """What is tracked is an event of the log, and reading a variant an exposure; one whom it does not concern is not
    exposed.
    """
    hooks, before = hook_module(), len(logged(live))
    provider = hooks.TrackingProvider(app[0], headers_factory=lambda: app[1])
    api.set_provider(provider, "tracking")
    client = api.get_client("tracking")
    client.add_hooks([hooks.ExposureHook(provider)])
    arm = client.get_string_value("experiment.one-or-two", "none", EvaluationContext(known[0]))
    assert client.get_string_value("experiment.one-or-two", "none", EvaluationContext(known[1])) == "none"
    client.track(
        "conversion",
        EvaluationContext(known[0]),
        TrackingEventDetails(12.5, {"offer_id": "say-nothing", "channel": "app"}),
    )
    client.track(
        "calls", EvaluationContext("~visitor"), TrackingEventDetails(attributes={"minutes": 3, "topic": "data"})
    )
    provider.shutdown()
    assert provider.lost == 0
    exposure, conversion, call = logged(live)[before:]
    assert (exposure.type, exposure.customer_id, exposure.experiment, exposure.arm) == (
        "exposure",
        known[0],
        "one-or-two",
        arm,
    )
    assert (conversion.type, conversion.customer_id, conversion.value, conversion.offer_id) == (
        "conversion",
        known[0],
        12.5,
        "say-nothing",
    )
    assert (call.type, call.unit, call.fields) == ("calls", "~visitor", {"minutes": 3.0, "topic": "data"})


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stock packages, the hook and the script."""
    files = [*NODE.iterdir(), ROOT / "clients" / "node" / "opportune-openfeature.mjs"]
    return installed(tmp_path_factory.mktemp("node"), files, "Node's stock client")


def test_node(
    live: Live, app: tuple[str, dict[str, str]], keys: tuple[Path, dict[str, str]], known: tuple[str, str], node: Path
) -> None:
    """The same from Node: variants, offers, defaults with OpenFeature's codes, tracking and exposures."""
    before, arm = len(logged(live)), answers(live, keys[1]["experiments"], "headline")[known[0]]["arm"]
    command = ["node", "ask.mjs", app[0], keys[1]["app"], *known, "web-7"]
    done = subprocess.run(command, cwd=node, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["string"]["value"], told["string"]["variant"], told["string"]["reason"]) == (arm, arm, "SPLIT")
    assert told["object"]["value"]["offers"][0]["rank"] == 1
    assert told["object"]["value"]["decision_id"] == told["object"]["flagMetadata"]["decisionId"]
    failed = {
        name: (told[name]["value"], told[name].get("errorCode"))
        for name in ("boolean", "unknown", "nobody", "unfit", "wrong", "outside")
    }
    assert failed == {
        "boolean": (False, "TYPE_MISMATCH"),
        "unknown": ("none", "FLAG_NOT_FOUND"),
        "nobody": ("none", "TARGETING_KEY_MISSING"),
        "unfit": ("none", "INVALID_CONTEXT"),
        "wrong": ("none", "GENERAL"),
        "outside": (
            "none",
            "GENERAL",
        ),  # provider 0.1.3 is older than the answer without a value, and takes its default all the same
    }
    assert (told["unseen"], told["lost"]) == ("none", 0)
    exposure, conversion, call = logged(live)[before:]
    assert (exposure.customer_id, exposure.anonymous_id, exposure.experiment, exposure.arm) == (
        known[0],
        "web-7",
        "visitor",
        told["seen"],
    )
    assert (conversion.type, conversion.customer_id, conversion.value) == ("conversion", known[0], 12.5)
    assert (call.type, call.unit, call.fields) == ("calls", "~web-7", {"minutes": 3.0, "topic": "data"})


def test_node_in_a_page(
    live: Live, app: tuple[str, dict[str, str]], keys: tuple[Path, dict[str, str]], known: tuple[str, str], node: Path
) -> None:
    """The web provider, behind a browser's rules, reads all flags, and 304 where it has them; a page of another origin
    gets nothing.
    """
    before, arm = len(logged(live)), answers(live, keys[1]["experiments"], "headline")[known[0]]["arm"]
    command = ["node", "web.mjs", app[0], keys[1]["app"], known[0], SHOP, THIEF]
    done = subprocess.run(command, cwd=node, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["failed"], told["string"]["value"], told["string"]["reason"]) == ("", arm, "SPLIT")
    assert (told["again"]["value"], told["statuses"]) == (arm, [200, 304, 401])
    assert told["object"]["value"]["offers"][0]["rank"] == 1 and told["object"]["value"]["decision_id"] is None
    assert (told["outside"]["value"], told["outside"]["reason"], told["outside"].get("errorCode")) == (
        "none",
        "DISABLED",
        None,
    )
    assert (told["unknown"]["value"], told["unknown"]["errorCode"]) == ("none", "FLAG_NOT_FOUND")
    assert told["wrong"] and told["stranger"], (
        "neither provider is ready; the statuses say that one was refused, and the other not let out"
    )
    assert len(logged(live)) == before


@pytest.mark.skipif(not shutil.which("curl"), reason="the examples ask with curl, which is not installed")
def test_curl_examples_of_the_page(live: Live, keys: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """The page's calls are answered as it says."""
    one, many = (json.loads(run(["sh", "-c"], text, tmp_path, keys[1]["experiments"])) for text in examples(live, "sh"))
    assert (one["unit"], one["assignment"]["arm"], one["assignment"]["reason"]) == ("7", "one", "split")
    assert [assignment["arm"] for assignment in many["results"][0]["assignments"]] == ["one"]
    assert len(many["results"]) == 2


def test_python_examples_of_the_page(live: Live, keys: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """The stock provider prints arm and offers, and the hook tells of the exposure and the outcome."""
    (text,) = examples(live, "python")
    arm, offers = run(
        [sys.executable, "-c"], f"import os\nKEY = os.environ['KEY']\n{text}", tmp_path, keys[1]["app"]
    ).splitlines()
    assert (arm, "'rank': 1" in offers) == ("one", True)
    (hook,), before = examples(live, "python", hook=True), len(logged(live))
    run([sys.executable, "-c"], f"import os\nKEY = os.environ['KEY']\n{hook}", tmp_path, keys[1]["app"])
    assert [(event.type, event.customer_id, event.arm) for event in logged(live)[before:]] == [
        ("exposure", "7", "one"),
        ("conversion", "7", None),
    ]


def test_node_examples_of_the_page(live: Live, keys: tuple[Path, dict[str, str]], node: Path) -> None:
    """The same from Node."""
    command = ["node", "--input-type=module", "-e"]
    (text,), (hook,) = examples(live, "js"), examples(live, "js", hook=True)
    assert run(command, f"const KEY = process.env.KEY;\n{text}", node, keys[1]["app"]).strip() == "one"
    before = len(logged(live))
    run(command, f"const KEY = process.env.KEY;\n{hook}", node, keys[1]["app"])
    assert [(event.type, event.customer_id, event.arm) for event in logged(live)[before:]] == [
        ("exposure", "7", "one"),
        ("conversion", "7", None),
    ]


def test_exposures_of_clients_are_exported(live: Live, keys: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """An exposure that a client tells of is a row of the lake under the experiment's own kind of unit, with the exact
    probabilities.
    """
    at = clock.now().isoformat()
    events = [
        {
            "event_id": f"x{number}",
            "type": "exposure",
            "occurred_at": at,
            "experiment": "visitor",
            "arm": "left",
            **unit,
        }
        for number, unit in enumerate([{"customer_id": "9", "anonymous_id": "seen"}, {"anonymous_id": "seen-too"}])
    ]
    events.append(
        {
            "event_id": "x2",
            "type": "exposure",
            "occurred_at": at,
            "experiment": "one-or-two",
            "arm": "one",
            "customer_id": "9",
            "decision_id": "d",
        }
    )
    bad = [{**events[0], "event_id": "b1", "arm": "up"}, {**events[0], "event_id": "b2", "experiment": "nonsense"}]
    told = live.ask("POST", "/v1/events", {"events": [*events, *bad]}, x_api_key=keys[1]["events"])
    assert told.status == 202
    assert (told.json["stored"], told.json["dead"]) == (3, 2)
    assert [(one["code"], one["pointer"]) for one in told.json["refused"]] == [
        ("field-value", "/events/3/arm"),
        ("field-value", "/events/4/experiment"),
    ]
    workspace, file = load(live.workspace, sources=False), tmp_path / "visitor.parquet"
    write_exposures(workspace, "visitor", "parquet", file, lambda _: None)
    rows = duckdb.sql(
        f"SELECT unit, arm, reason, probability, covered, decision_id FROM '{file}' WHERE event_id IN ('x0', 'x1',"
        " 'x2') ORDER BY unit"
    ).fetchall()
    assert rows == [("~seen", "left", "client", 0.5, 1.0, None), ("~seen-too", "left", "client", 0.5, 1.0, None)]
    lines = tmp_path / "lines.ndjson"
    write_exposures(workspace, "one-or-two", "ndjson", lines, lambda _: None)
    (row,) = [one for one in map(json.loads, lines.read_text().splitlines()) if one["event_id"] == "x2"]
    assert (row["unit"], row["arm"], row["probability"], row["covered"], row["decision_id"]) == (
        "9",
        "one",
        0.5,
        0.3,
        "d",
    )
    assert datetime.fromisoformat(row["time"]) == datetime.fromisoformat(at)
