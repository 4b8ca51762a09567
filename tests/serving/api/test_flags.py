"""Asking for flags over HTTP: what they say is what decisions do, with an ETag, and a single evaluation is kept."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest

from serving.api.preview import Enquiry
from serving.hub.request_check import UnknownPlacement
from tests.serving import edge_server as edge
from tests.serving.edge_server import ROLE_KEYS
from tests.serving.trials import CUSTOMERS, FLAGS, Served


def test_a_single_flag_of_a_sticky_experiment_is_kept(served: Served) -> None:
    """The first evaluation writes the arm down, the second finds it; all flags together and the route of experiments
    write nothing.
    """
    customer = next(
        one for one in map(str, range(100, 200)) if served.flag("experiment.headline", one).json().get("value")
    )
    served.ask("POST", FLAGS, {"context": {"targetingKey": customer}})
    served.ask("GET", f"/v1/experiments/kept/assignments/{customer}")
    assert served.kept(customer) == {}
    first, second = (served.flag("experiment.kept", customer).json() for _ in range(2))
    assert (first["metadata"]["assignment"], second["metadata"]["assignment"]) == ("split", "sticky")
    assert first["value"] == second["value"]
    assert served.kept(customer)["kept"] == (first["value"], 0, 0.5)


def test_offers_as_a_flag_are_a_decision(served: Served) -> None:
    """A single evaluation is recorded and has its id; all flags together are neither, though they show the same
    offers.
    """
    before, customer = served.lines(), CUSTOMERS[3]
    every = {
        one["key"]: one
        for one in served.ask("POST", FLAGS, {"context": {"targetingKey": customer, "hour": 8}}).json()["flags"]
    }
    glimpsed = every["offers.home"]
    assert glimpsed["value"]["decision_id"] is None
    assert served.lines() == before
    told = served.flag("offers.home", customer, hour=8).json()
    assert served.lines() == before + 1
    decided = served.ask(
        "POST", "/v1/decisions", {"customer_id": customer, "placement": "home", "context": {"hour": 8}}
    ).json()
    ids = [
        [offer["offer_id"] for offer in offers]
        for offers in (told["value"]["offers"], glimpsed["value"]["offers"], decided["offers"])
    ]
    assert ids[0] == ids[1] == ids[2] != []
    assert told["value"]["decision_id"] == told["metadata"]["decisionId"]
    assert told["reason"] in ("SPLIT", "DISABLED")
    assert all(type(value) in (bool, int, float, str) for one in every.values() for value in one["metadata"].values())


def test_all_flags_have_an_etag(served: Served) -> None:
    """What a client has already is answered with 304 and nothing else; another customer, or another arm, has another
    ETag.
    """
    body = {"context": {"targetingKey": CUSTOMERS[5]}}
    first = served.ask("POST", FLAGS + "?flagConfigEtag=x&flagConfigLastModified=1", body, "experiments")
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        same = served.ask("POST", FLAGS, body, "experiments", if_none_match=known)
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
        assert not {"content-length", "content-type", "transfer-encoding"} & set(same.headers)
    for known in ('"other"', etag.strip('"')):
        assert served.ask("POST", FLAGS, body, "experiments", if_none_match=known).status_code == 200
    others = {
        served.ask("POST", FLAGS, {"context": {"targetingKey": one}}, "experiments").headers["etag"]
        for one in CUSTOMERS[:20]
    }
    assert len(others) > 5


def test_reasons(served: Served) -> None:
    """A split says so, an arm for everybody does not, and whoever is in no experiment has no value."""
    said = {
        customer: served.ask("GET", f"/v1/experiments/one-or-two/assignments/{customer}").json()
        for customer in CUSTOMERS
    }
    seen = set()
    for customer, one in said.items():
        for flag in ("experiment.one-or-two", "experiment.app-only", "experiment.idea"):
            told = served.flag(flag, customer, channel="app").json()
            reason = told["metadata"]["assignment"]
            seen.add((flag, told["reason"], reason))
            assert ("value" in told) == (reason in ("split", "sticky")) == bool(told["variant"])
            assert told["metadata"].get("holdout", False) == (one["group"] == "holdout")
    assert seen == {
        ("experiment.one-or-two", "SPLIT", "split"),
        ("experiment.one-or-two", "DISABLED", "not_covered"),
        ("experiment.one-or-two", "DISABLED", "holdout"),
        ("experiment.one-or-two", "DISABLED", "control_group"),
        ("experiment.app-only", "TARGETING_MATCH", "split"),
        ("experiment.app-only", "DISABLED", "holdout"),
        ("experiment.app-only", "DISABLED", "control_group"),
        ("experiment.idea", "DISABLED", "draft"),
    }


KEYS_IN_PATHS = {
    "experiment.headline": 200,
    "experiment%2Eheadline": 200,
    "%65xperiment.head%6cine": 200,
    "experiment.headline/": 404,
    "experiment.headline%2F": 404,
    "experiment.head%20line": 404,
    "experiment.t%C3%A9te": 404,
    "experiment.%zz": 404,
    "experiment.a/b": 404,
    "": 404,
    "experiment.": 404,
    "offers.%2e%2e": 404,
    "x" * 200: 404,
}


@pytest.mark.parametrize(("came", "status"), KEYS_IN_PATHS.items(), ids=[came[:30] for came in KEYS_IN_PATHS])
def test_keys_in_paths(served: Served, came: str, status: int) -> None:
    """Escapes in a key stand for bytes of UTF-8; whatever is no flag is FLAG_NOT_FOUND, with the key that was asked
    for.
    """
    status_line, fields, body = edge.split(edge.raw(served.port, evaluation(f"{FLAGS}/{came}")))
    told = json.loads(body)
    assert (status_line, fields["content-type"]) == (status, "application/json")
    assert told["key"] == unquote(came)
    assert status == 200 or (told["errorCode"], bool(told["errorDetails"])) == ("FLAG_NOT_FOUND", True)


def evaluation(
    path: str, *fields: str, body: bytes = b'{"context":{"targetingKey":"7"}}', role: str = "admin"
) -> bytes:
    """The bytes of an evaluation."""
    key = [f"X-API-Key: {ROLE_KEYS[role]}"] if role else []
    return edge.post(body, *(fields or ("Content-Type: application/json",)), *key, path=path)


OTHER_REQUESTS = {
    "charset": (evaluation(f"{FLAGS}/experiment.idea", 'Content-Type: application/json; charset="UTF-8"'), 200, ""),
    "no type": (evaluation(f"{FLAGS}/experiment.idea", "X-Nothing: 1"), 415, "GENERAL"),
    "text": (evaluation(f"{FLAGS}/experiment.idea", "Content-Type: text/plain"), 415, "GENERAL"),
    "accepts html": (
        evaluation(f"{FLAGS}/experiment.idea", "Content-Type: application/json", "Accept: text/html"),
        406,
        "GENERAL",
    ),
    "array": (evaluation(FLAGS, body=b"[]"), 400, "PARSE_ERROR"),
    "null": (evaluation(FLAGS, body=b"null"), 400, "PARSE_ERROR"),
    "text as JSON": (evaluation(FLAGS, body=b'"x"'), 400, "PARSE_ERROR"),
    "nothing": (evaluation(FLAGS, body=b""), 400, "PARSE_ERROR"),
    "bulk nobody": (evaluation(FLAGS, body=b'{"context":{}}'), 400, "TARGETING_KEY_MISSING"),
    "bulk unfit": (evaluation(FLAGS, body=b'{"context":{"targetingKey":["7"]}}'), 400, "INVALID_CONTEXT"),
}


@pytest.mark.parametrize(("request_bytes", "status", "code"), OTHER_REQUESTS.values(), ids=OTHER_REQUESTS)
def test_other_requests_for_flags(served: Served, request_bytes: bytes, status: int, code: str) -> None:
    """Whatever is wrong with an evaluation is said in OFREP's form, with a code that OFREP knows."""
    answered, fields, body = edge.split(edge.raw(served.port, request_bytes))
    assert (answered, fields["content-type"], json.loads(body).get("errorCode", "")) == (
        status,
        "application/json",
        code,
    )


@pytest.mark.parametrize("path", [FLAGS, f"{FLAGS}/experiment.idea"])
def test_who_may_not_gets_no_body(served: Served, path: str) -> None:
    """401 and 403 have no body, and say no type of it; 401 says how to present a key."""
    for role, status in (("", 401), ("events", 403)):
        answered, fields, body = edge.split(edge.raw(served.port, evaluation(path, role=role)))
        assert (answered, body, fields["content-length"]) == (status, b"", "0")
        assert "content-type" not in fields and ("www-authenticate" in fields) == (status == 401)


def test_other_methods_on_flags(served: Served) -> None:
    """Evaluations are posted: other methods are 405 with the one that is allowed, and HEAD has no body."""
    for method in ("GET", "HEAD", "PUT", "OPTIONS"):
        for path in (FLAGS, f"{FLAGS}/experiment.idea", f"{FLAGS}/a%20b"):
            answered, fields, body = edge.split(
                edge.raw(served.port, evaluation(path, body=b"").replace(b"POST", method.encode(), 1))
            )
            assert (answered, fields["allow"], body == b"") == (405, "POST", method == "HEAD")


def test_if_none_match(served: Served) -> None:
    """A client's list may come in several fields, weak or strong; what looks like the ETag but is none does not
    match.
    """
    plain = served.ask("POST", FLAGS, {"context": {"targetingKey": "7"}}, "experiments")
    etag, fixed = plain.headers["etag"], served.ask("GET", "/ofrep/v1/configuration").headers["etag"]
    assert etag[0] == etag[-1] == '"' and len(etag) > 20
    for given, status in (
        ((etag,), 304),
        ((f"W/{etag}", '"b"'), 304),
        (('"a"', etag, '"b"'), 304),
        ((f'"a",,\t{etag} , "b"',), 304),
        (("*",), 304),
        ((etag[:-1],), 200),
        ((etag.replace('"', "'"),), 200),
        (("",), 200),
    ):
        fields = [f"If-None-Match: {one}" for one in given]
        answered, answer, body = edge.split(
            edge.raw(served.port, evaluation(FLAGS, "Content-Type: application/json", *fields, role="experiments"))
        )
        assert (answered, answer["etag"], body == b"") == (status, etag, status == 304), given
    assert served.ask("GET", "/ofrep/v1/configuration", if_none_match=fixed).status_code == 304
    head = served.ask("HEAD", "/ofrep/v1/configuration")
    assert (head.status_code, head.headers["etag"], head.content) == (200, fixed, b"")


def test_flags_of_files_that_are_gone(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A placement that new files took away while all flags were on their way is not found; the others are answered."""
    glimpse = Enquiry.glimpse

    async def gone(enquiry: Enquiry, request: Any) -> Any:
        if request.placement == "bill":
            raise UnknownPlacement("bill")
        return await glimpse(enquiry, request)

    monkeypatch.setattr(Enquiry, "glimpse", gone)
    flags = {one["key"]: one for one in served.ask("POST", FLAGS, {"context": {"targetingKey": "7"}}).json()["flags"]}
    assert (flags["offers.bill"]["errorCode"], flags["offers.home"]["reason"]) == (
        "FLAG_NOT_FOUND",
        flags["offers.home"]["reason"],
    )
