"""API keys: how they are configured, recognised, rotated and refused, and that an open service stays on loopback."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from serving.http.auth import BadKeys, KeyEntry, Keys, entry_yaml, new_key, parse_keys, require_safe_bind
from serving.http.problems import Unauthenticated

pytestmark = pytest.mark.clock

SECRET = "SECRET-CANARY"


def entry(key: str = "k", **fields: Any) -> dict[str, Any]:
    return {"name": "shop", "role": "decide", "sha256": hashlib.sha256(key.encode()).hexdigest()} | fields


def written(path: Path, entries: list[dict[str, Any]], mode: int = 0o600) -> Path:
    path.write_text(yaml.safe_dump(entries))
    path.chmod(mode)
    return path


def test_new_key_is_strong_and_only_its_digest_is_configured(tmp_path: Path) -> None:
    """A made key starts with its name, has 256 random bits, works from its own entry, and the entry does not contain
    it.
    """
    key, made = new_key("shop", ("decide", "events"))
    name, _, secret = key.partition(".")
    assert (name, len(secret)) == ("shop", 43)
    assert key not in entry_yaml(made)
    assert new_key("shop", ("decide",))[0] != key
    path = tmp_path / "keys.yaml"
    path.write_text(entry_yaml(made))
    path.chmod(0o600)
    caller = Keys.from_file(path).caller(f"Bearer {key}".encode(), None)
    assert (caller.name, set(caller.roles)) == ("shop", {"decide", "events"})


def test_every_comparison_is_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A presented key is held against a configured digest by `hmac.compare_digest` and by nothing else."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return False

    monkeypatch.setattr("hmac.compare_digest", compare)
    keys = Keys(parse_keys(yaml.safe_dump([entry("k")]), "test"))
    with pytest.raises(Unauthenticated):
        keys.caller(b"Bearer k", None)
    assert compared == [(hashlib.sha256(b"k").digest(),) * 2]


def test_two_keys_of_a_name_for_rotation(tmp_path: Path) -> None:
    """Old and new key are valid together, a third is refused unless one has expired, and the file is read again when it
    changes.
    """
    path = written(tmp_path / "keys.yaml", [entry("old")])
    keys = Keys.from_file(path)
    assert not keys.refresh()
    written(path, [entry("old"), entry("new")])
    assert keys.refresh()
    assert keys.caller(None, b"old").name == keys.caller(None, b"new").name == "shop"
    written(path, [entry("new")])
    assert keys.refresh()
    with pytest.raises(Unauthenticated):
        keys.caller(None, b"old")
    three = [entry("a"), entry("b"), entry("c")]
    with pytest.raises(BadKeys, match="at most 2 valid keys"):
        Keys(parse_keys(yaml.safe_dump(three), "test"))
    three[0]["expires"] = "2020-01-01T00:00:00Z"
    assert Keys(parse_keys(yaml.safe_dump(three), "test")).configured


def test_a_bad_file_leaves_the_keys_as_they_are(tmp_path: Path) -> None:
    """A file that became bad, world-readable or vanished is reported and does not lock anybody out."""
    path = written(tmp_path / "keys.yaml", [entry("k")])
    keys = Keys.from_file(path)
    path.write_text("[")
    with pytest.raises(BadKeys, match="line 1"):
        keys.refresh()
    path.chmod(0o644)
    with pytest.raises(BadKeys, match="chmod 600"):
        keys.refresh()
    path.unlink()
    with pytest.raises(BadKeys, match="No such file"):
        keys.refresh()
    assert keys.caller(None, b"k").name == "shop"


@pytest.mark.parametrize(
    "expires", ["2026-01-02T00:00:00Z", "2026-01-02T01:00:00+01:00", datetime.date(2026, 1, 2), "2026-01-02"]
)
def test_expiry(expires: Any) -> None:
    """A key is valid before its moment and not from it on; a date is its first moment in UTC."""
    moment = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC).timestamp()
    now = [moment - 0.001]
    keys = Keys(parse_keys(yaml.safe_dump([entry("k", expires=expires)]), "test"), clock=lambda: now[0])
    assert keys.caller(None, b"k").name == "shop"
    now[0] = moment
    with pytest.raises(Unauthenticated):
        keys.caller(None, b"k")


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [(None, None), (b"", None), (b"Bearer", None), (b"Bearer ", None), (b"Basic k", None), (b"Bearer K", None),
    (b"Bearer k k", None),
     (None, b""), (None, b"k" * 300), (b"Basic x", b"k"), (None, b"\xff\x00")],
)  # fmt: skip
def test_refused_credentials(authorization: bytes | None, api_key: bytes | None) -> None:
    """Nothing, other schemes and wrong keys are refused with a challenge; a bad Authorization is not excused by
    X-API-Key.
    """
    keys = Keys(parse_keys(yaml.safe_dump([entry("k")]), "test"))
    with pytest.raises(Unauthenticated) as raised:
        keys.caller(authorization, api_key)
    assert dict(raised.value.headers)[b"www-authenticate"].startswith(b"Bearer")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "line 1: expected YAML or JSON"),
        ("{}", "expected a list"),
        ("[]", "empty list"),
        (SECRET, "came str"),
        (f"[{SECRET}]", r"`\$\[0\]`: Expected `object`, got `str`"),
        (yaml.safe_dump([entry(role=SECRET)]), r"\$\[0\]\.role.*expected one of decide"),
        (yaml.safe_dump([entry(sha256=SECRET)]), r"\$\[0\]\.sha256"),
        (yaml.safe_dump([entry(sha256="AB" * 32)]), r"\$\[0\]\.sha256"),
        (yaml.safe_dump([entry(name="Shop Key")]), r"\$\[0\]\.name"),
        (yaml.safe_dump([entry() | {"key": SECRET}]), "unknown field `key`"),
        (yaml.safe_dump([entry(roles=["decide"])]), "came both"),
        (yaml.safe_dump([{k: v for k, v in entry().items() if k != "role"}]), "came neither"),
        (yaml.safe_dump([entry("k"), entry("k", name="other")]), "came one twice"),
        (yaml.safe_dump([entry(expires="soon")]), r"\$\[0\]\.expires"),
    ],
)
def test_bad_configuration(text: str, message: str) -> None:
    """Each way to write keys badly is refused with where and what was expected, and the text is not quoted."""
    with pytest.raises(BadKeys, match=message) as raised:
        Keys(parse_keys(text, "test"), "test")
    assert SECRET not in str(raised.value)
    assert str(raised.value).startswith("test")


def test_environment(tmp_path: Path) -> None:
    """Keys come from a file or from the environment's text, in YAML or JSON; both at once are refused, neither means
    open.
    """
    path = str(written(tmp_path / "keys.yaml", [entry("k")]))
    text = msgspec.json.encode([entry("k")]).decode()
    assert Keys.from_environment({"OPPORTUNE_KEYS_FILE": path}).caller(None, b"k").roles == {"decide"}
    assert Keys.from_environment({"OPPORTUNE_KEYS": text}).caller(None, b"k").roles == {"decide"}
    assert not Keys.from_environment({}).configured
    with pytest.raises(BadKeys, match="came both"):
        Keys.from_environment({"OPPORTUNE_KEYS_FILE": path, "OPPORTUNE_KEYS": text})


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o620, 0o666])
def test_a_key_file_is_private(tmp_path: Path, mode: int) -> None:
    """A key file that others can read, or that others or its group can write, is refused with the remedy."""
    with pytest.raises(BadKeys, match="chmod 600"):
        Keys.from_file(written(tmp_path / "keys.yaml", [entry()], mode))
    with pytest.raises(BadKeys, match="regular file"):
        Keys.from_file(tmp_path)


@pytest.mark.parametrize(
    ("host", "safe"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("[::1]", True), ("localhost", True), ("0.0.0.0", False),
    ("::", False),
     ("", False), ("10.0.0.1", False), ("example.com", False), ("localhost.example.com", False),
     ("127.0.0.1.example.com", False)],
)  # fmt: skip
def test_safe_bind(host: str, safe: bool) -> None:
    """Without keys only loopback may be bound, and the refusal names the remedy; with keys any address may be."""
    require_safe_bind(host, Keys((msgspec.convert(entry(), KeyEntry),)))
    if safe:
        return require_safe_bind(host, Keys())
    with pytest.raises(BadKeys, match="opportune key new shop --role decide"):
        require_safe_bind(host, Keys())
    return None
