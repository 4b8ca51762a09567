"""What a request asks, held against the workspace: the part of its correctness that its type leaves open."""

from __future__ import annotations

from collections.abc import Mapping

from features.common.missing import EXPECTED_ID, NOBODY
from features.common.types import OFFERS_CONSIDERED, ContextValue, DecisionRequest
from features.config.features_file import ContextColumn
from features.config.offers_file import Placement
from features.workspace.workspace import Workspace

CHANNEL, LOCALE = "channel", "locale"
"""The context columns that choose among an offer's treatments."""
ANY = "any"


class UnknownPlacement(ValueError):
    """The request names a placement that the workspace does not have."""


class BadRequest(ValueError):
    """A field of the request does not fit. `field` is its name, `code` a problem code, `expected` what it should be."""

    def __init__(self, field: str, code: str, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}")
        self.field, self.code, self.expected = field, code, expected


class BadContext(ValueError):
    """A value of the request's context is not what its column may be."""

    def __init__(self, name: str, code: str, expected: str) -> None:
        super().__init__(f"context.{name}: expected {expected}")
        self.name, self.code, self.expected = name, code, expected


def check_request(workspace: Workspace, request: DecisionRequest) -> list[tuple[str, Placement]]:
    """Check what the type of a request leaves open; return the placements with their names, in the order asked.

    Raises:
        UnknownPlacement, BadContext, BadRequest: the request does not fit the workspace.
    """
    if not request.customer_id and not request.anonymous_id:
        raise BadRequest("customer_id", "field-missing", "a customer, or an `anonymous_id`")
    if request.customer_id in NOBODY or request.anonymous_id in NOBODY:
        raise BadRequest("customer_id" if request.customer_id in NOBODY else "anonymous_id", "field-value", EXPECTED_ID)
    if request.context:
        check_context(workspace.features.context, request.context)
    declared = workspace.offers.placements
    if request.placements is None:
        if request.placement is None:
            raise BadRequest("placement", "field-missing", "a placement, or several as `placements`")
        names = [request.placement]
    else:
        names = request.placements
        if request.placement is not None:
            raise BadRequest("placements", "field-unknown", "either `placement` or `placements`")
        if len(set(names)) != len(names):
            raise BadRequest("placements", "field-value", "each placement once")
    found = []
    for name in names:
        placement = declared.get(name)
        if placement is None:
            raise UnknownPlacement(name)
        if placement.channels and channel_of(workspace, request.context) not in placement.channels:
            raise BadContext(
                CHANNEL, "field-value", f"one of {', '.join(placement.channels)}, in which placement {name} exists"
            )
        found.append((name, placement))
    return found


def channel_of(workspace: Workspace, context: Mapping[str, ContextValue]) -> str:
    """Return the channel that everything goes by: the request's, else the declared default."""
    return _of(workspace, context, CHANNEL)


def locale_of(workspace: Workspace, context: Mapping[str, ContextValue]) -> str:
    """Return the same for the locale."""
    return _of(workspace, context, LOCALE)


def _of(workspace: Workspace, context: Mapping[str, ContextValue], name: str) -> str:
    given = context.get(name)
    if given is None:
        column = workspace.features.context.get(name)
        given = None if column is None else column.default
    return ANY if given is None else str(given)


def check_context(columns: dict[str, ContextColumn], context: dict[str, ContextValue]) -> None:
    """Hold each value against its declared column.

    Raises:
        BadContext: for an unknown name, a wrong type, or a value outside the declared ones.
    """
    for name, value in context.items():
        column = columns.get(name)
        if column is None or name == OFFERS_CONSIDERED:
            known = ", ".join(declared for declared in columns if declared != OFFERS_CONSIDERED)
            raise BadContext(name, "field-unknown", f"one of {known or 'no fields: the workspace declares none'}")
        if value is None:
            continue
        if column.dtype == "category":
            if not isinstance(value, str):
                raise BadContext(name, "field-type", "string")
            if column.values is not None and value not in column.values:
                raise BadContext(name, "field-value", f"one of {', '.join(column.values)}")
        elif column.dtype == "boolean":
            if not isinstance(value, bool):
                raise BadContext(name, "field-type", "boolean")
        elif (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or (column.dtype == "integer" and not isinstance(value, int) and not value.is_integer())
        ):
            raise BadContext(name, "field-type", "integer" if column.dtype == "integer" else "number")
        elif (column.minimum is not None and value < column.minimum) or (
            column.maximum is not None and value > column.maximum
        ):
            raise BadContext(name, "out-of-range", f"{column.dtype} from {column.minimum} to {column.maximum}")
