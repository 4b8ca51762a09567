"""OFREP 0.3.0, the OpenFeature Remote Evaluation Protocol: what it asks, what it answers, and how it says that
something is wrong.

Its contexts carry anything: only the members that the workspace knows are looked at, and those strictly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from features.common.missing import EXPECTED_ID, NOBODY
from features.common.types import (
    ANONYMOUS,
    CONTEXT_INTEGER_MAX,
    CONTEXT_TEXT_CHARACTERS_MAX,
    ID_CHARACTERS_MAX,
    ID_PATTERN,
    OFFERS_CONSIDERED,
    UNIT_PATTERN,
    ContextValue,
    Id,
)
from features.config.features_file import ContextColumn
from serving.assignment.assignment import Units
from serving.http.problems import Invalid, Problem, Unreadable
from serving.http.routing import Refusal
from serving.http.strict_json import read_openly, refused_texts
from serving.hub.request_check import BadContext, check_context

EXPERIMENT, OFFERS = "experiment.", "offers."
"""What the keys of our flags begin with; the key of an experiment, or the name of a placement, follows."""
FLAGS_PATH = "/ofrep/v1/evaluate/flags"
_SINGLE = FLAGS_PATH.encode() + b"/"
TARGETING_KEY, ANONYMOUS_ID = "targetingKey", "anonymous_id"

Reason = Literal["STATIC", "TARGETING_MATCH", "SPLIT", "DISABLED", "UNKNOWN"]
Scalar = bool | int | float | str

FLAG_CHARACTERS_MAX = 200
"""Of a key that is repeated in an answer; no flag of ours is as long."""

_IS_ID = re.compile(ID_PATTERN).match
_OUT_OF_SCOPE = frozenset((401, 403))


class FlagNotFound(Problem):
    """The key names no flag, or none that the caller's key may ask for."""

    status, slug, title = 404, "flag-not-found", "No such flag"
    text = (
        "Expected `experiment.` and the key of an experiment, or `offers.` and the name of a placement, that this"
        " workspace has."
    )


class TargetingKeyMissing(Problem):
    """The context does not say for whom."""

    status, slug, title = 400, "targeting-key-missing", "The targeting key is missing"
    text = "Expected `context.targetingKey`: the id of a customer, or `~` and an anonymous id."


class InvalidContext(Problem):
    """A member of the context that the workspace knows is not what it may be."""

    status, slug, title = 400, "invalid-context", "The context does not fit"
    text = "Expected a context that fits the columns that features.yaml declares."


class EvaluationContext(Struct, frozen=True):
    """What is asked. Further members are columns of the context where features.yaml declares them, and are ignored
    otherwise.
    """

    targetingKey: Annotated[str, Meta(pattern=UNIT_PATTERN)]
    """The id of a customer, or `~` and an anonymous id."""
    anonymous_id: Id | UnsetType | None = UNSET
    """Whom experiments on anonymous ids assign; the targeting key when absent."""


class EvaluationRequest(Struct, frozen=True):
    """The body of an evaluation."""

    context: EvaluationContext


class Evaluation(Struct, frozen=True, omit_defaults=True):
    """One flag. Without `value` the default in the client's code holds."""

    key: str
    reason: Reason
    variant: str | UnsetType = UNSET
    """Always given: clients of today read it unasked. Empty where there is none."""
    value: str | dict[str, Any] | UnsetType = UNSET
    metadata: dict[str, Scalar] = {}


class EvaluationFailure(Struct, frozen=True, omit_defaults=True):
    """Why there is no evaluation."""

    errorDetails: str
    key: str | UnsetType = UNSET
    errorCode: str | UnsetType = UNSET


class Evaluations(Struct, frozen=True, omit_defaults=True):
    """All flags of one context."""

    flags: list[Evaluation]
    """Of placements that the context does not fit: `EvaluationFailure`."""
    metadata: dict[str, Scalar] = {}
    """`degraded`, where some flag is."""


class FlagQuery(NamedTuple):
    """Whom an evaluation is for, and what is known of the moment."""

    units: Units
    context: dict[str, ContextValue]
    """The declared columns that were given."""


_encode = msgspec.json.Encoder().encode


def read_evaluation(body: bytes, columns: Mapping[str, ContextColumn]) -> FlagQuery:
    """Return what a body asks.

    Args:
        columns: of the context, as the workspace declares them.

    Raises:
        Problem: it is no JSON object; `TargetingKeyMissing`, `InvalidContext`.
    """
    given = read_openly(body).get("context")
    if given is None:
        raise TargetingKeyMissing()
    if type(given) is not dict:
        raise InvalidContext("Expected `context` to be an object.")
    key = given.get(TARGETING_KEY)
    if key is None or key == "":
        raise TargetingKeyMissing()
    units = _units(key, given.get(ANONYMOUS_ID))
    context = (
        {name: given[name] for name in columns if name in given and name != OFFERS_CONSIDERED} if len(given) > 1 else {}
    )
    if context:
        _check(context, columns)
    return FlagQuery(units, context)


def _units(key: Any, anonymous: Any) -> Units:
    if type(key) is not str:
        raise InvalidContext("Expected `context.targetingKey` to be a string.")
    known = not key.startswith(ANONYMOUS)
    if not _is_id(key if known else key[1:]):
        raise InvalidContext(
            f"Expected `context.targetingKey` of at most {ID_CHARACTERS_MAX} letters, digits and . _ : @ + = | ~ -, the"
            " first a letter or digit."
        )
    if anonymous is not None and (type(anonymous) is not str or not _is_id(anonymous)):
        raise InvalidContext("Expected `context.anonymous_id` to be an id: see `context.targetingKey`.")
    if key in NOBODY or anonymous in NOBODY:
        raise InvalidContext(
            f"Expected `context.{TARGETING_KEY if key in NOBODY else ANONYMOUS_ID}` to be {EXPECTED_ID}."
        )
    return Units(key, anonymous or key) if known else Units("", anonymous or key[1:])


def _is_id(text: str) -> bool:
    return len(text) <= ID_CHARACTERS_MAX and _IS_ID(text) is not None


def _check(context: dict[str, Any], columns: Mapping[str, ContextColumn]) -> None:
    for name, value in context.items():
        if type(value) is str:
            if len(value) > CONTEXT_TEXT_CHARACTERS_MAX or next(refused_texts(value, ()), None) is not None:
                text = f"text of at most {CONTEXT_TEXT_CHARACTERS_MAX} characters, without control characters"
                raise InvalidContext(f"Expected `context.{name}` to be {text}.")
        elif type(value) in (int, float) and not -CONTEXT_INTEGER_MAX <= value <= CONTEXT_INTEGER_MAX:
            raise InvalidContext(f"Expected `context.{name}` to be a number of at most 2^53 either way.")
        elif type(value) in (dict, list):
            raise InvalidContext(f"Expected `context.{name}` to be a single value.")
    try:
        check_context(dict(columns), context)
    except BadContext as bad:
        raise InvalidContext(f"Expected `context.{bad.name}` to be {bad.expected}.") from None


def _status(kind: type[Problem]) -> int:
    """What cannot be read and what breaks the contract are one and the same to OFREP."""
    return 400 if kind.status == 422 else kind.status


def _code(problem: Problem) -> str:
    if isinstance(problem, FlagNotFound):
        return "FLAG_NOT_FOUND"
    if isinstance(problem, TargetingKeyMissing):
        return "TARGETING_KEY_MISSING"
    if isinstance(problem, InvalidContext):
        return "INVALID_CONTEXT"
    return "PARSE_ERROR" if isinstance(problem, Unreadable | Invalid) else "GENERAL"


def failure_of(problem: Problem, flag: str | UnsetType = UNSET) -> EvaluationFailure:
    """Return a problem as an evaluation that failed."""
    expected = [error.expected for error in problem.errors]
    details = f"{problem.detail} Expected: {'; '.join(expected)}." if expected else problem.detail
    return EvaluationFailure(details, flag, _code(problem))


def _render(problem: Problem, path: bytes) -> bytes:
    status = _status(type(problem))
    if status in _OUT_OF_SCOPE:
        return b""
    return _encode(EvaluationFailure(problem.detail) if status >= 500 else failure_of(problem, _flag_of_path(path)))


def flag_of(came: str) -> str:
    """Return the key that stands in a path: escapes stand for bytes of UTF-8. Empty where it is no text that an answer
    may repeat.

    Args:
        came: the parameter of the route, bytes as Latin-1.
    """
    try:
        flag = unquote_to_bytes(came.encode("latin-1")).decode()
    except UnicodeDecodeError:
        return ""
    return flag if len(flag) <= FLAG_CHARACTERS_MAX and flag.isprintable() else ""


def _flag_of_path(path: bytes) -> str | UnsetType:
    """Return the key in the path of a single evaluation; OFREP wants it in the answer."""
    _, single, came = path.partition(_SINGLE)
    return flag_of(came.decode("latin-1")) if single else UNSET


REFUSAL = Refusal(form=EvaluationFailure, status=_status, render=_render, empty=_OUT_OF_SCOPE)
"""How OFREP's routes say that something is wrong: not as RFC 9457."""
