"""Forgetting over HTTP: the path, the role, and the process that does it; what it does is
`tests/pipelines/erasure/test_erase.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.api.erasure import Forgetting
from serving.http.app import FrontDoor
from serving.http.auth import Keys
from serving.http.routing import JSON_HEADERS, Answer, Call, Patterns, Route
from tests.serving import edge_server as edge
from tests.serving.edge_server import ROLE_KEYS
from tests.serving.live import ask, wait_for

FORGET = r"""
import json, pathlib, sys, time
folder, unit = pathlib.Path(sys.argv[1]), sys.stdin.readline().strip()
(folder / "met").open("a").write(unit + "\n")
while unit == "slow" and not (folder / "go").exists():
    time.sleep(0.01)
if unit == "broken":
    sys.exit(1)
if unit == "begun":
    sys.exit(75)
place = {"found": 3, "removed": 3, "left": 0, "how": ""}
proof = {"files": 7, "bytes": 8, "plaintext_hits": 0, "where": []}
told = {"done": unit != "stays", "at": "now", "units": 1, "places": {"lake": place}, "proof": proof, "seconds": 0.1}
print(json.dumps(told | {"sources": ""}))
"""


async def echo(_: bytes, call: Call) -> Answer:
    return 200, JSON_HEADERS, json.dumps(dict(call.parameters)).encode(), ()


def front_door(folder: Path, keys: Keys | None = None, seconds: float = 30.0) -> FrontDoor:
    forgetting = Forgetting([sys.executable, "-c", FORGET, str(folder)], answer_seconds_max=seconds)
    other = Route(
        method="GET", path="/v1/customers/all", name="all", summary="A path that could be a parameter's.", handler=echo
    )
    two = Route(method="GET", path="/v1/{one}/of/{two}", name="two", summary="Two parameters.", handler=echo)
    return FrontDoor([forgetting.route(), other, two], keys or Keys())


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with edge.served(front_door(tmp_path)) as found:
        yield found


def delete(port: int, path: str, key: str = "") -> Any:
    answer = ask(port, "DELETE", path, authorization=f"Bearer {key}") if key else ask(port, "DELETE", path)
    return answer.status, answer.json


def test_the_answer_is_that_of_the_process(port: int, tmp_path: Path) -> None:
    """Done is 200 with what was found, removed and proved; begun and not done is 202; what could not be begun is
    503.
    """
    status, said = delete(port, "/v1/customers/c-1")
    assert (status, said["done"], said["places"]["lake"]["removed"], said["proof"]["plaintext_hits"]) == (
        200,
        True,
        3,
        0,
    )
    assert delete(port, "/v1/customers/~a@b")[0] == 200
    assert delete(port, "/v1/customers/c%7C2%40d")[0] == 200, "as clients write an id in a path"
    assert delete(port, "/v1/customers/begun") == (202, {"done": False})
    assert delete(port, "/v1/customers/stays")[0] == 202
    status, said = delete(port, "/v1/customers/broken")
    assert (status, said["type"]) == (503, "urn:opportune:problem:forgetting-failed")
    assert (tmp_path / "met").read_text().split() == ["c-1", "~a@b", "c|2@d", "begun", "stays", "broken"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/customers/", 404),
        ("/v1/customers/~", 422),
        ("/v1/customers/~~a", 422),
        ("/v1/customers/-a", 422),
        ("/v1/customers/canary,1", 422),
        ("/v1/customers/" + "a" * 65, 422),
        ("/v1/customers/{id}", 422),
        ("/v1/customers/a%20b", 422),
        ("/v1/customers/%2561", 422),
        ("/v1/customers/a/", 404),
        ("/v1/customers/a/b", 404),
        ("/v1/customers", 404),
        ("//v1/customers/a", 404),
        ("/v1/customers/all", 405),
    ],
)
def test_what_is_no_id_of_a_customer(port: int, tmp_path: Path, path: str, status: int) -> None:
    """Nothing but an id, as it stands, reaches the process; no answer repeats what came."""
    answer = ask(port, "DELETE", path)
    assert answer.status == status, answer
    assert b"canary" not in answer.body
    assert not (tmp_path / "met").exists()


def test_paths_go_before_parameters(port: int) -> None:
    """A path of the table is itself; another is compared segment by segment, and each `{name}` is one of them."""
    assert ask(port, "GET", "/v1/customers/all").json == {}
    assert ask(port, "GET", "/v1/a.b/of/~c").json == {"one": "a.b", "two": "~c"}
    refused = ask(port, "GET", "/v1/customers/c-1")
    assert (refused.status, refused.headers["allow"]) == (405, "DELETE")


def test_patterns() -> None:
    """Escapes stand for bytes in parameters, and paths without parameters are not looked for; an open end takes all
    that is left, as it came.
    """
    patterns = Patterns(["/v1/x", "/v1/x/{id}"])
    assert patterns.find(b"/v1/x/7") == (b"/v1/x/{id}", {"id": "7"})
    assert patterns.find(b"/v1/x") is None
    assert patterns.find(b"/v1/x/a%40b%2F") == (b"/v1/x/{id}", {"id": "a@b/"})
    assert patterns.find(b"/v1/%78/7") is None
    open_ended = Patterns(["/v1/x/{id}"], {"/v1/x/{id}"})
    assert open_ended.find(b"/v1/x") is None
    assert open_ended.find(b"/v1/%78/7") is None
    for rest in ("7", "", "%37", "a/b", "/", "\xff"):
        assert open_ended.find(b"/v1/x/" + rest.encode("latin-1")) == (b"/v1/x/{id}", {"id": rest})


def test_only_administrators(tmp_path: Path) -> None:
    """With keys, the role admin alone may forget."""
    with edge.served(front_door(tmp_path, edge.all_keys())) as port:
        for role, key in ROLE_KEYS.items():
            assert delete(port, "/v1/customers/c-1", key)[0] == (200 if role == "admin" else 403)
        assert delete(port, "/v1/customers/c-1")[0] == 401
    assert (tmp_path / "met").read_text().split() == ["c-1"]


def test_what_takes_long_goes_on(tmp_path: Path) -> None:
    """After the time of an answer it is 202; another customer has to wait; who asks again gets the answer of the same
    process.
    """
    with edge.served(front_door(tmp_path, seconds=0.3)) as port:
        assert delete(port, "/v1/customers/slow") == (202, {"done": False})
        status, said = delete(port, "/v1/customers/other")
        assert (status, said["type"]) == (409, "urn:opportune:problem:forgetting-busy")
        assert delete(port, "/v1/customers/slow")[0] == 202
        (tmp_path / "go").touch()
        wait_for(lambda: delete(port, "/v1/customers/slow")[0] == 200)
        wait_for(lambda: delete(port, "/v1/customers/other")[0] in (200, 202))
    assert (tmp_path / "met").read_text().split()[0] == "slow"
