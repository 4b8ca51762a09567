"""The whole server with keys: every route answers its roles alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.http.auth import entry_yaml, new_key
from tests.serving.live import Live, decision, serving_copy
from tests.serving.service_calls import OFREP, bentoml_client, bodies, named, problem

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def keyed(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, dict[str, str]]]:
    """A server with keys, on all addresses, and a key of each role."""
    folder = serving_copy(trained_workspace, tmp_path_factory.mktemp("keyed") / "shop")
    file, keys, entries = tmp_path_factory.mktemp("keys") / "keys.yaml", {}, []
    for role in ("decide", "events", "experiments", "admin"):
        keys[role], entry = new_key(role, (role,))  # type: ignore[arg-type]
        entries.append(entry_yaml(entry))
    file.write_text("".join(entries))
    file.chmod(0o600)
    command = (
        sys.executable,
        "-m",
        "pipelines.main",
        "serve",
        "-w",
        str(folder),
        "--port",
        "{port}",
        "--host",
        "0.0.0.0",
    )
    server = Live(folder, environment={"OPPORTUNE_KEYS_FILE": str(file)}, command=command).start()
    yield server, keys
    server.stop()


def test_routes_want_their_keys(keyed: tuple[Live, dict[str, str]]) -> None:
    """Every route that has roles answers them alone; without a key, or with a wrong one, 401."""
    live, keys = keyed
    contract = live.ask("GET", "/openapi.json", authorization=f"Bearer {keys['decide']}").json
    seen = 0
    for template, methods in contract["paths"].items():
        if template in OFREP:
            continue
        path = named(template)
        for method, operation in methods.items():
            body = None if method in ("get", "delete") else bodies().get(path, decision())
            allowed = operation.get("x-roles", [])
            if not allowed:
                assert live.ask(method.upper(), path).status == 200
                continue
            for headers in ({}, {"authorization": "Bearer decide.wrong"}, {"x_api_key": "nonsense"}):
                assert problem(live.ask(method.upper(), path, body, **headers)) == (401, "unauthenticated")
            for role, key in keys.items():
                answer = live.ask(method.upper(), path, body, x_api_key=key)
                good = (404,) if template == "/v1/experiments/{key}/assignments/{unit}" else (200, 202)
                assert answer.status in good if role in allowed else problem(answer) == (403, "forbidden"), (path, role)
                seen += 1
    assert seen >= 20


@pytest.mark.parametrize("path", ["/v1/decisions", "/decide", "/decide_many"])
def test_explanations_want_an_admin(keyed: tuple[Live, dict[str, str]], path: str) -> None:
    """An explanation shows a customer's data: a key of the role `decide` gets 403, one of the role `admin` the
    columns.
    """
    live, keys = keyed
    body = {"requests": [decision(), decision(explain=True)]} if path == "/decide_many" else decision(explain=True)
    assert problem(live.ask("POST", path, body, authorization=f"Bearer {keys['decide']}")) == (403, "forbidden")
    answer = live.ask("POST", path, body, authorization=f"Bearer {keys['admin']}")
    assert answer.status == 200 and b'"explanation"' in answer.body


def test_bentoml_client_brings_its_key(keyed: tuple[Live, dict[str, str]]) -> None:
    """BentoML's client sends a key as its token."""
    live, keys = keyed
    with bentoml_client(live, token=keys["decide"]) as client:
        assert client.decide(customer_id="436600000", placement="home")["customer_id"] == "436600000"
