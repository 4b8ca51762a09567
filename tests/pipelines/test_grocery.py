"""The example, from its files to its answers, as the README tells it: real data, a real server, no shortcuts."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GROCERY = ROOT / "examples" / "grocery"
README = (ROOT / "README.md").read_text()
START_SECONDS_MAX = 800
COUPON = re.compile(r"(\d+)-\d+$")
"""An id of the table: campaign and coupon."""


class Started:
    """`opportune up` on a copy of the example."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.process: subprocess.Popen[str] | None = None
        self.said = ""

    def up(self) -> float:
        """Start, wait for the greeting; returns the seconds that it took."""
        began = time.monotonic()
        command = [sys.executable, "-m", "pipelines.main", "up", "-w", str(self.folder), "--port", str(self.port)]
        log = self.folder.parent / "up.log"
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, cwd=ROOT, text=True
            )
        while "Ctrl-C stops" not in (text := log.read_text()):
            assert self.process.poll() is None, text
            assert time.monotonic() - began < START_SECONDS_MAX, text
            time.sleep(0.1)
        self.said = text
        return time.monotonic() - began

    def stop(self) -> int:
        """Ctrl-C, as a person would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def ask(self, body: str) -> tuple[int, dict[str, Any]]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as connection:
            connection.request("POST", "/v1/decisions", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("example") / "grocery"
    shutil.copytree(GROCERY, folder, ignore=shutil.ignore_patterns(".opportune"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = Started(folder, port)
    seconds = running.up()
    print(f"\nthe example answered after {seconds:.1f} s")
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()


def opportune(*arguments: str) -> str:
    """Run a verb and return what it prints."""
    environment = os.environ | {"COLUMNS": "160"}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.main", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def readme_request() -> str:
    """The body of the README's curl."""
    found = re.search(r"curl .*?-d '(\{.*?\})'", README, re.S)
    assert found is not None
    return found[1]


def test_readme_request_gets_real_offers(started: Started) -> None:
    """The request of the README is answered with offers, in the shape that the README shows."""
    status, answer = started.ask(readme_request())
    shown = json.loads(re.search(r"```json\n(\{.*?\})\n```", README, re.S)[1])  # type: ignore[index]
    assert status == 200
    assert answer["offers"]
    assert set(answer) == set(shown)
    assert set(answer["offers"][0]) == set(shown["offers"][0])
    assert answer["degraded"] == []
    scores = [offer["score"] for offer in answer["offers"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < offer["propensity"] < 1 for offer in answer["offers"])
    assert all(COUPON.match(offer["offer_id"]) for offer in answer["offers"])


def test_households_get_different_offers(started: Started) -> None:
    """Among the two households that the start proposes, the offers differ."""
    customers = re.findall(r"--customer (\S+)", started.said)
    assert len(customers) == 2
    answers = [started.ask(json.dumps({"customer_id": c, "placement": "checkout"}))[1] for c in customers]
    offers = [[offer["offer_id"] for offer in answer["offers"]] for answer in answers]
    assert offers[0] and offers[1] and offers[0] != offers[1]


def test_strangers_get_a_ranking(started: Started) -> None:
    """An unknown customer gets a ranking of the same shape, not degraded."""
    status, answer = started.ask('{"customer_id":"nobody-knows","placement":"checkout"}')
    assert status == 200
    assert len(answer["offers"]) == 3
    assert answer["degraded"] == []


def test_only_coupons_of_own_running_campaigns_are_offered(started: Started) -> None:
    """A household is offered coupons of campaigns that were mailed to it and run now, and no others."""
    import duckdb

    customer = re.findall(r"--customer (\S+)", started.said)[0]
    _, answer = started.ask(json.dumps({"customer_id": customer, "placement": "checkout", "limit": 50}))
    mailed = duckdb.execute(
        f"SELECT DISTINCT split_part(offer_id, '-', 1) FROM '{GROCERY}/data/decisions.parquet' WHERE customer_id = ?",
        [customer],
    )
    campaigns = {row[0] for row in mailed.fetchall()}
    running = duckdb.execute(
        f"SELECT DISTINCT campaign_id FROM '{GROCERY}/data/offers.parquet' WHERE valid_until > TIMESTAMPTZ '2018-01-01'"
    )
    running_campaigns = {row[0] for row in running.fetchall()}
    offered = {coupon[1] for offer in answer["offers"] if (coupon := COUPON.match(offer["offer_id"]))}
    assert {offer["offer_id"] for offer in answer["offers"] if not COUPON.match(offer["offer_id"])} <= {"thank-you"}
    assert offered
    assert offered <= campaigns & running_campaigns


def test_quality_reaches_its_bars(started: Started) -> None:
    """Evaluation of the published version: the split has the counts it should have, and the model its figures."""
    report = json.loads(opportune("evaluate", "-w", str(started.folder), "--json"))
    print(
        json.dumps(
            {
                "model": report["model"],
                "baselines": {name: values["mrr"] for name, values in report["baselines"].items()},
            }
        )
    )
    assert report["split"]["cut"].startswith("2017-08-01")
    assert report["split"]["test"]["decisions_with_success"] == 513
    assert report["split"]["training"]["decisions_with_success"] == 262
    assert report["model"]["mrr"] >= 0.53
    assert report["model"]["ndcg@10"] >= 0.47
    assert report["model"]["mrr"] > max(values["mrr"] for values in report["baselines"].values())


def test_decide_explains(started: Started) -> None:
    """`opportune decide --explain` tells on one screen why these offers, and what stopped the others."""
    customer = re.findall(r"--customer (\S+)", started.said)[0]
    for placement, *context in (
        ("checkout",),
        ("app_home", "locale=es"),
        ("mail", "channel=mail"),
        ("push", "channel=push"),
    ):
        facts = [word for fact in context for word in ("--context", fact)]
        text = opportune(
            "decide", "-w", str(started.folder), "--customer", customer, "--placement", placement, *facts, "--explain"
        )
        assert re.search(rf"^{placement} for customer {customer}: \d of \d+ offers considered$", text, re.M)
        assert re.search(r"^rule targeted +\d+ +\d+ +\d+-\d+ .*eligibility: .*is 0 \(needs >= 1\)", text, re.M), text
        assert len(text.splitlines()) <= 45 and max(map(len, text.splitlines())) <= 160, text
        if placement == "checkout":
            assert "own_spend_all +" in text and "a lever of " in text


def test_help_comes_before_coupons(started: Started) -> None:
    """Where a case is open, or a customer is upset, coupons give way to what helps; the call centre never reads out
    coupons.
    """
    customer = re.findall(r"--customer (\S+)", started.said)[0]
    for placement, context in (
        ("call_centre", {"channel": "call_centre", "open_case": True}),
        ("app_home", {"channel": "app", "mood": "upset"}),
        ("app_home", {"channel": "web", "page": "help", "locale": "es"}),
    ):
        _, answer = started.ask(json.dumps({"customer_id": customer, "placement": placement, "context": context}))
        assert answer["offers"][0]["offer_id"] == "help-with-complaint"
        assert not any(COUPON.match(offer["offer_id"]) for offer in answer["offers"])
        assert ("help_first" in answer["notes"]) == (
            placement == "app_home"
        )  # no coupon was to be had at the call centre
    _, calm = started.ask(
        json.dumps({"customer_id": customer, "placement": "call_centre", "context": {"channel": "call_centre"}})
    )
    assert calm["offers"][-1]["treatment"] == {"say": "Is there anything else that I can do for you?"}


def test_coupons_come_before_what_the_model_never_saw(started: Started) -> None:
    """On the first screen of the app a household that has coupons sees some of them, and never more than two other
    offers.
    """
    customer = re.findall(r"--customer (\S+)", started.said)[0]
    _, answer = started.ask(
        json.dumps({"customer_id": customer, "placement": "app_home", "context": {"channel": "app"}})
    )
    coupons = [offer for offer in answer["offers"] if COUPON.match(offer["offer_id"])]
    assert len(answer["offers"]) == 4 and len(coupons) >= 2


def test_readme_commands_run(started: Started) -> None:
    """The README's `opportune` lines that read only run as they stand, on the copy of the example."""
    lines = [
        line.split("#")[0].strip()
        for line in README.splitlines()
        if line.startswith(("opportune decide", "opportune evaluate"))
    ]
    assert len(lines) >= 2
    for line in lines:
        opportune(*shlex.split(line.replace("examples/grocery", str(started.folder)))[1:])


def test_feast_reads_the_registry(started: Started) -> None:
    """Feast's own command line lists the views, and its SDK reads a household from the online store."""
    feast = [
        sys.executable,
        "-c",
        "from feast.cli.cli import cli; cli()",
        "-c",
        str(started.folder / ".opportune" / "feast"),
    ]
    done = subprocess.run([*feast, "feature-views", "list"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "purchases" in done.stdout


def test_second_start_does_not_train_again(started: Started) -> None:
    """After Ctrl-C the next start serves the same bundle, from what was made before."""
    _, before = started.ask(readme_request())
    code = started.stop()
    assert code in (0, 130)
    seconds = started.up()
    print(f"\nthe second start answered after {seconds:.1f} s")
    _, after = started.ask(readme_request())
    assert after["model"] == before["model"]
    assert [offer["offer_id"] for offer in after["offers"]] == [offer["offer_id"] for offer in before["offers"]]
