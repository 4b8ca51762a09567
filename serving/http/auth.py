"""API keys: who may call. Only SHA-256 digests are configured; a key is compared in constant time.

A key reads `NAME.SECRET`: the name is public and may be logged, the secret has 256 random bits. Two keys of one name
may be valid at a time, so that a key can be changed without an interruption: add the new one, move the clients, remove
the old one.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import ipaddress
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta, Struct

from features.common.clock import now_s
from features.common.moments import Seconds
from serving.http.problems import Unauthenticated

Role = Literal["decide", "events", "experiments", "admin"]
ROLES: tuple[Role, ...] = ("decide", "events", "experiments", "admin")

FILE_VARIABLE, TEXT_VARIABLE = "OPPORTUNE_KEYS_FILE", "OPPORTUNE_KEYS"
KEYS_A_NAME_MAX = 2
KEY_BYTES_MAX = 256
SECRET_BYTES = 32
_BUCKET_BYTES = 4

_INVALID = ((b"www-authenticate", b'Bearer realm="opportune", error="invalid_token"'),)


class BadKeys(ValueError):
    """The configured keys cannot be used; the message says where, what was expected and the way out."""


class KeyEntry(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key as it is configured."""

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}$(?!\n)")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    role: Role | None = None
    roles: tuple[Role, ...] = ()
    expires: datetime.datetime | None = None
    """Valid before this moment; in a file a date is its first moment, and a time without offset is UTC."""


class Caller(Struct, frozen=True):
    """A key that was recognised: its public name and what it may call."""

    name: str
    roles: frozenset[str]


class _Held(Struct, frozen=True):
    digest: bytes
    expires_at: float
    caller: Caller


class Keys:
    """The keys that are valid now. `configured` is False when there are none: then only loopback is served."""

    def __init__(
        self, entries: tuple[KeyEntry, ...] = (), where: str = "keys", clock: Callable[[], Seconds] = now_s
    ) -> None:
        self.configured = bool(entries)
        self._clock = clock
        self._file: Path | None = None
        self._stamp: tuple[int, ...] = ()
        self._held = _index(entries, where, clock())

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Keys:
        """Return the keys of OPPORTUNE_KEYS_FILE (YAML or JSON) or OPPORTUNE_KEYS (the same as text); none when neither
        is set.
        """
        environment = os.environ if environment is None else environment
        path, text = environment.get(FILE_VARIABLE), environment.get(TEXT_VARIABLE)
        if path and text:
            raise BadKeys(f"expected {FILE_VARIABLE} or {TEXT_VARIABLE}, came both: unset one of them")
        if path:
            return cls.from_file(Path(path))
        return cls(parse_keys(text, TEXT_VARIABLE), TEXT_VARIABLE) if text else cls()

    @classmethod
    def from_file(cls, path: Path) -> Keys:
        stamp = _guard_file(path)
        keys = cls(parse_keys(path.read_text("utf-8"), str(path)), str(path))
        keys._file, keys._stamp = path, stamp
        return keys

    def refresh(self) -> bool:
        """Reads the file again if it changed; a bad file raises `BadKeys` and leaves the keys as they are."""
        if self._file is None:
            return False
        stamp = _guard_file(self._file)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        entries = parse_keys(self._file.read_text("utf-8"), str(self._file))
        self._held = _index(entries, str(self._file), self._clock())
        return True

    def caller(self, authorization: bytes | None, api_key: bytes | None) -> Caller:
        """Return who presents `Authorization: Bearer KEY`, or without that field `X-API-Key: KEY`; raises
        `Unauthenticated`.
        """
        if authorization is None:
            if api_key is None:
                raise Unauthenticated()
            key = api_key
        elif authorization[:7].lower() == b"bearer ":
            key = authorization[7:].strip(b" ")
        else:
            raise Unauthenticated("Expected `Authorization: Bearer KEY`, came another scheme.", headers=_INVALID)
        if len(key) <= KEY_BYTES_MAX:
            # Buckets go by a prefix of the digest: its timing tells nothing of the key. The digest itself is compared
            # whole.
            digest = hashlib.sha256(key).digest()
            for held in self._held.get(digest[:_BUCKET_BYTES], ()):
                if hmac.compare_digest(held.digest, digest) and self._clock() < held.expires_at:
                    return held.caller
        raise Unauthenticated("The key is unknown or has expired. Ask the operator for a valid one.", headers=_INVALID)


def new_key(name: str, roles: tuple[Role, ...], expires: datetime.datetime | None = None) -> tuple[str, KeyEntry]:
    """Return a new key, to be shown once, and the entry to configure: 256 random bits behind the public name."""
    key = f"{name}.{secrets.token_urlsafe(SECRET_BYTES)}"
    raw = {"name": name, "sha256": hashlib.sha256(key.encode("ascii")).hexdigest(), "roles": roles, "expires": expires}
    try:
        return key, msgspec.convert({field: value for field, value in raw.items() if value is not None}, KeyEntry)
    except msgspec.ValidationError as refusal:
        raise BadKeys(f"key new: {refusal}") from None


def entry_yaml(entry: KeyEntry) -> str:
    """Return the entry as an item of the key file's list."""
    return str(yaml.safe_dump([msgspec.to_builtins(entry)], sort_keys=False))


def parse_keys(text: str, where: str) -> tuple[KeyEntry, ...]:
    """Return a YAML or JSON list of `{name, role or roles, sha256, expires?}`; raises `BadKeys`, which never quotes the
    text.
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as refusal:
        mark = getattr(refusal, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise BadKeys(f"{where}{line}: expected YAML or JSON, came text that is neither") from None
    if not isinstance(raw, list) or not raw:
        came = "an empty list" if raw == [] else type(raw).__name__
        raise BadKeys(
            f"{where}: expected a list of {{name, role, sha256}}, came {came}; `opportune key new` prints an item"
        )
    try:
        entries = msgspec.convert([_dated(item) for item in raw], tuple[KeyEntry, ...])
    except msgspec.ValidationError as refusal:
        reason, _, at = str(refusal).rpartition(" - at ")
        if reason.startswith("Invalid enum value"):  # msgspec quotes what came, which may be a key in the wrong place
            reason = "expected one of " + ", ".join(ROLES)
        raise BadKeys(f"{where}: {at or '$'}: {reason or refusal}; `opportune key new` prints a valid item") from None
    for number, entry in enumerate(entries):
        if (entry.role is None) == (not entry.roles):
            raise BadKeys(
                f"{where}: $[{number}]: expected either role or roles, came {'both' if entry.role else 'neither'}"
            )
    return entries


def require_safe_bind(host: str, keys: Keys) -> None:
    """Refuses to serve others than this machine without keys."""
    if not keys.configured and not is_loopback(host):
        raise BadKeys(
            f"--host {host or '(all addresses)'}: expected a loopback address, because no keys are configured. Bind"
            " 127.0.0.1, or make a key with `opportune key new shop --role decide` and name the file with its entry in"
            f" {FILE_VARIABLE}."
        )


def is_loopback(host: str) -> bool:
    """Return whether an address or name means this machine; an empty one means all addresses."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _index(entries: tuple[KeyEntry, ...], where: str, now: Seconds) -> dict[bytes, tuple[_Held, ...]]:
    held: dict[bytes, tuple[_Held, ...]] = {}
    valid: dict[str, int] = {}
    for number, entry in enumerate(entries):
        digest, expires_at = bytes.fromhex(entry.sha256), _moment(entry.expires)
        bucket = held.get(digest[:_BUCKET_BYTES], ())
        if any(other.digest == digest for other in bucket):
            raise BadKeys(
                f"{where}: $[{number}]: expected every sha256 once, came one twice: remove one of the two items"
            )
        valid[entry.name] = valid.get(entry.name, 0) + (expires_at > now)
        if valid[entry.name] > KEYS_A_NAME_MAX:
            raise BadKeys(
                f"{where}: $[{number}]: expected at most {KEYS_A_NAME_MAX} valid keys of one name, came a third: "
                "remove the oldest or let it expire"
            )
        roles = frozenset(entry.roles or (entry.role,)) - {None}
        one = _Held(digest, expires_at, Caller(entry.name, frozenset(str(role) for role in roles)))
        held[digest[:_BUCKET_BYTES]] = (*bucket, one)
    return held


def _dated(item: Any) -> Any:
    """Return a configured item with its `expires` as a moment: YAML knows dates and times, JSON has their text."""
    if not isinstance(item, dict) or "expires" not in item:
        return item
    expires = item["expires"]
    if isinstance(expires, str) and len(expires) == len("2026-01-01"):
        with contextlib.suppress(ValueError):
            expires = datetime.date.fromisoformat(expires)
    if isinstance(expires, datetime.date) and not isinstance(expires, datetime.datetime):
        expires = datetime.datetime(expires.year, expires.month, expires.day, tzinfo=datetime.UTC)
    return item | {"expires": expires}


def _moment(expires: datetime.datetime | None) -> float:
    if expires is None:
        return float("inf")
    return (expires if expires.tzinfo else expires.replace(tzinfo=datetime.UTC)).timestamp()


def _guard_file(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError as refusal:
        raise BadKeys(
            f"{path}: expected a readable key file, came {refusal.strerror}: correct {FILE_VARIABLE}"
        ) from None
    if not stat.S_ISREG(found.st_mode):
        raise BadKeys(f"{path}: expected a regular file: correct {FILE_VARIABLE}")
    if found.st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        raise BadKeys(
            f"{path}: expected a file that others can neither read nor write, came mode"
            f" {stat.S_IMODE(found.st_mode):04o}: run `chmod 600 {path}`"
        )
    return found.st_ino, found.st_size, found.st_mtime_ns
