"""What /openapi.json says of a running server is true: Schemathesis asks it all that the contract allows, and what it
does not.

`--contract-seed N` draws other requests than those of every run, `--contract-examples N` more or fewer of them.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.settings import ORIGINS_VARIABLE
from tests.serving.bodies import events
from tests.serving.live import ROOT, Answer, Live, ask, wait_for
from tests.serving.trial_server import keys_file, trial_workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EXAMPLES, EXAMPLES_WITH_KEYS = 8, 2
"""Requests of an operation that are drawn, good and bad, besides Schemathesis's own list of edge cases."""
SECONDS_MAX = 600
"""Of one run, on a machine with other work; on two quiet cores it takes half a minute."""
PAGE = "https://shop.example"
FLAGS = "/ofrep/v1/evaluate/flags"
NOT_COUNTED, NOT_ASKED = 1, 1
"""Operations that Schemathesis leaves out: the contract itself, and forgetting, as `schemathesis.toml` says."""


@pytest.fixture(scope="module")
def folder(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with experiments of every kind, and a placement that exists in one channel only."""
    folder = trial_workspace(trained_workspace, tmp_path_factory.mktemp("contract") / "shop")
    offers = yaml.safe_load((folder / "offers.yaml").read_text())
    offers["placements"]["bill"]["channels"] = ["shop"]
    (folder / "offers.yaml").write_text(yaml.safe_dump(offers, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def live(folder: Path) -> Iterator[Live]:
    """A server without keys."""
    server = Live(folder).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def keyed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, dict[str, str]]]:
    """A server with keys that pages of another origin may call, and the key of each role."""
    file, keys = keys_file(tmp_path_factory.mktemp("keys"))
    server = Live(folder, environment={"OPPORTUNE_KEYS_FILE": str(file), ORIGINS_VARIABLE: PAGE}).start()
    yield server, keys
    server.stop()


def contract_of(live: Live, **headers: str) -> dict[str, Any]:
    """The contract as the server tells it."""
    answer = live.ask("GET", "/openapi.json", **headers)
    assert answer.status == 200
    document: dict[str, Any] = answer.json
    return document


def schemathesis(
    live: Live, request: pytest.FixtureRequest, folder: Path, operations: int, examples: int, *arguments: str
) -> None:
    """Run it as a person would, with the settings of this repository; what it prints is what a failure shows."""
    seed, asked = request.config.getoption("--contract-seed"), request.config.getoption("--contract-examples")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(ROOT / "schemathesis.toml"), "run"]
    command += [
        f"http://127.0.0.1:{live.port}/openapi.json",
        "--phases",
        "coverage,fuzzing",
        "--max-examples",
        asked or str(examples),
    ]
    command += [
        "--continue-on-failure",
        "--no-color",
        *(["--seed", seed] if seed else ["--generation-deterministic"]),
        *arguments,
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    said = "\n".join(line[:400] for line in done.stdout.splitlines())
    assert done.returncode == 0, said + done.stderr
    total = operations - NOT_COUNTED
    assert f"{total - NOT_ASKED} selected / {total} total" in said, said
    assert said.count(f"✅ {total - NOT_ASKED} passed") == 2, said


def operations_of(document: dict[str, Any]) -> int:
    return sum(len(methods) for methods in document["paths"].values())


def test_without_keys(live: Live, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Every request that the contract allows is taken, every other is refused, and every answer has a documented
    form.
    """
    document = contract_of(live)
    assert not any(operation["security"] for methods in document["paths"].values() for operation in methods.values())
    schemathesis(live, request, tmp_path, operations_of(document), EXAMPLES)


def test_with_keys(keyed: tuple[Live, dict[str, str]], request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The same behind keys, with preflights; no operation that asks for a key answers without a valid one."""
    live, keys = keyed
    document = contract_of(live, x_api_key=keys["decide"])
    secured = [
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
        if operation["security"]
    ]
    assert len(secured) > 10
    assert len([True for methods in document["paths"].values() if "options" in methods]) > 10
    schemathesis(
        live, request, tmp_path, operations_of(document), EXAMPLES_WITH_KEYS, "--header", f"X-API-Key: {keys['admin']}"
    )


def conforms(document: dict[str, Any], path: str, method: str, answer: Answer) -> None:
    """Fail unless the answer's status, type, fields and body are documented."""
    described = document["paths"][path][method]["responses"][str(answer.status)]
    for name, field in described.get("headers", {}).items():
        assert name in answer.headers or not field["required"], (name, answer)
    if "content" not in described:
        assert not answer.body and "content-type" not in answer.headers, answer
        return
    schema = described["content"][answer.headers["content-type"]]["schema"]
    jsonschema_rs.Draft202012Validator(schema | {"components": document["components"]}).validate(answer.json)


def test_flags(live: Live) -> None:
    """All flags at once: those that could be evaluated and those that could not, and 304 for who has them."""
    document = contract_of(live)
    body = {"context": {"targetingKey": "7", "channel": "app", "anything": {"at": ["all"]}}}
    answer = live.ask("POST", FLAGS, body)
    conforms(document, FLAGS, "post", answer)
    assert [one["errorCode"] for one in answer.json["flags"] if "reason" not in one] == ["INVALID_CONTEXT"], (
        "bill is in the shop only"
    )
    again = live.ask("POST", FLAGS, body, if_none_match=answer.headers["etag"])
    assert again.status == 304
    conforms(document, FLAGS, "post", again)
    for bad in (b"{", {"context": {}}, {"context": {"targetingKey": "7", "hour": 25}}):
        conforms(document, FLAGS, "post", live.ask("POST", FLAGS, bad))
    configuration = live.ask("GET", "/ofrep/v1/configuration")
    conforms(document, "/ofrep/v1/configuration", "get", configuration)
    conforms(
        document,
        "/ofrep/v1/configuration",
        "get",
        live.ask("GET", "/ofrep/v1/configuration", if_none_match=configuration.headers["etag"]),
    )


def test_refusals_with_keys(keyed: tuple[Live, dict[str, str]]) -> None:
    """401 and 403 are documented as they are answered, on every operation that asks for a role."""
    live, keys = keyed
    document = contract_of(live, x_api_key=keys["decide"])
    seen = set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            asked = (
                path.replace("{unit}", "7")
                .replace("{id}", "7")
                .replace("{key}", "experiment.kept" if path.startswith("/ofrep") else "kept")
            )
            body = {} if method == "post" else None
            for key in ("", *(keys[role] for role in ("decide", "events", "experiments"))):
                answer = live.ask(method.upper(), asked, body, **({"x_api_key": key} if key else {}))
                if operation["security"] and answer.status in (401, 403):
                    conforms(document, path, method, answer)
                    seen.add((path, answer.status))
    assert len([path for path, status in seen if status == 401]) == len(
        [path for path, methods in document["paths"].items() if any(one["security"] for one in methods.values())]
    )


def test_forgetting(live: Live) -> None:
    """Forgetting, which Schemathesis leaves out, answers what is documented; an id may be percent-encoded, as clients
    do.
    """
    document, path = contract_of(live), "/v1/customers/{id}"
    for written, status in (("nobody%40home", 200), ("a%20b", 422), ("%7E", 422)):
        patient = http.client.HTTPConnection("127.0.0.1", live.port, timeout=SECONDS_MAX)
        answer = ask(live.port, "DELETE", path.replace("{id}", written), connection=patient)
        patient.close()
        assert answer.status in (status, 202 if status == 200 else status), answer
        conforms(document, path, "delete", answer)


@given(items=st.lists(events(), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_items_of_a_batch(live: Live, items: list[dict[str, Any]]) -> None:
    """Of a batch exactly the items are refused that the contract does not allow, and those that the workspace does not
    know.
    """
    document = contract_of(live)
    event = jsonschema_rs.Draft202012Validator(
        {"$ref": "#/components/schemas/Event", "components": document["components"]}, validate_formats=True
    )
    answer = live.ask("POST", "/v1/events", {"events": items})
    assert answer.status == 202
    conforms(document, "/v1/events", "post", answer)
    refused = {one["index"] for one in answer.json["refused"]}
    assert refused >= {at for at, item in enumerate(items) if not event.is_valid(item)}


def test_it_follows_the_files(folder: Path, live: Live) -> None:
    """A placement that the files name from now on is in the contract as soon as it is served."""
    offers = yaml.safe_load((folder / "offers.yaml").read_text())
    offers["placements"]["basket"] = {"limit": 2}
    before = contract_of(live)["components"]["schemas"]["Placement"]["enum"]
    (folder / "offers.yaml").write_text(yaml.safe_dump(offers, sort_keys=False))
    wait_for(lambda: live.ask("POST", "/v1/decisions", {"customer_id": "7", "placement": "basket"}).status == 200, 60)
    after = contract_of(live)["components"]["schemas"]["Placement"]["enum"]
    assert set(after) - set(before) == {"basket"}
