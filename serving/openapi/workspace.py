"""What requests may say in one workspace, written into the schemas of the contract: its placements, context columns and
experiments.

Rules that bind two fields stand under `if`, which says them to a validator and leaves the types of generated clients
simple.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from features.common.types import (
    CONSENT,
    CONTEXT_INTEGER_MAX,
    CONTEXT_TEXT_CHARACTERS_MAX,
    EXPOSURE,
    IDENTIFY,
    IMPRESSION,
    OFFERS_CONSIDERED,
    OUTCOMES,
    DecisionRequest,
    Event,
)
from features.config.features_file import ContextColumn
from features.events.semantics import NUMBER_MAX
from features.workspace.workspace import Workspace
from serving.api.experiment_views import AssignmentRequest
from serving.api.ofrep import (
    EXPERIMENT,
    FLAG_CHARACTERS_MAX,
    OFFERS,
    Evaluation,
    EvaluationContext,
    EvaluationFailure,
    Evaluations,
)
from serving.hub.request_check import ANY, CHANNEL
from serving.openapi.bodies import REFERENCE, Schema, or_null, reference, text_pattern

_NULL = {"type": "null"}
_PLACEMENT, _CONTEXT, _EXPERIMENT = (
    {"$ref": REFERENCE.format(name=name)} for name in ("Placement", "Context", "ExperimentKey")
)


def narrow(components: dict[str, Schema], workspace: Workspace | None) -> None:
    """Change the schemas of requests to what the service takes.

    Args:
        workspace: None where nothing serves yet: then only the rules that hold in every workspace are written.
    """
    if workspace is not None:
        components |= _names(workspace)
    for kind, change in (
        (DecisionRequest, _decision),
        (AssignmentRequest, _assignment),
        (EvaluationContext, _evaluation),
    ):
        if (schema := components.get(kind.__name__)) is not None:
            change(schema, workspace)
    if (event := components.get(Event.__name__)) is not None:
        _event(event)
    if (flags := components.get(Evaluations.__name__)) is not None:  # a union of structs, which msgspec cannot say
        flags["properties"]["flags"]["items"] = {"anyOf": [reference(Evaluation), reference(EvaluationFailure)]}


def key_schema(workspace: Workspace | None, *, flags: bool) -> Schema:
    """Return the schema of `{key}` in a path: of an experiment, or of a flag. Any other key is answered with 404."""
    if workspace is not None:
        keys = list(workspace.experiments.experiments)
        if flags:
            return _enumerated(
                [EXPERIMENT + key for key in keys] + [OFFERS + name for name in workspace.offers.placements]
            )
        if keys:
            return _EXPERIMENT
    return {"type": "string", "minLength": 1, "maxLength": FLAG_CHARACTERS_MAX, "pattern": "^[A-Za-z0-9._-]+$"}


def context_schema(columns: dict[str, ContextColumn]) -> dict[str, Schema]:
    """Return the schema of each context column that a request may give."""
    return {name: _column(column) for name, column in columns.items() if name != OFFERS_CONSIDERED}


def _decision(schema: Schema, workspace: Workspace | None) -> None:
    properties = schema["properties"]
    rules = [_one_of("customer_id", "anonymous_id"), _ONE_PLACEMENT]
    properties["placements"]["uniqueItems"] = True
    if workspace is not None:
        properties["placement"] = {"anyOf": [_PLACEMENT, _NULL]}
        properties["placements"]["items"] = _PLACEMENT
        properties["context"] = _CONTEXT
        rules += _channel_rules(workspace)
    schema["allOf"] = rules


def _assignment(schema: Schema, workspace: Workspace | None) -> None:
    properties = schema["properties"]
    if workspace is not None:
        properties["context"] = _CONTEXT
        if workspace.experiments.experiments:
            properties["experiments"]["items"] = _EXPERIMENT
        else:
            properties["experiments"] = _NULL
    schema["allOf"] = [_one_of("customer_id", "anonymous_id", "account")]


def _evaluation(schema: Schema, workspace: Workspace | None) -> None:
    schema["additionalProperties"] = True
    if workspace is not None:
        schema["properties"] = context_schema(workspace.features.context) | schema["properties"]


def _event(schema: Schema) -> None:
    properties = schema["properties"]
    bounds = {"minimum": -NUMBER_MAX, "maximum": NUMBER_MAX}
    properties["value"] |= bounds
    properties["fields"]["propertyNames"]["pattern"] = text_pattern()
    for one in properties["fields"]["additionalProperties"]["anyOf"]:
        if one["type"] == "number":
            one |= bounds
    schema["allOf"] = [
        _one_of("customer_id", "anonymous_id"),
        _where([IMPRESSION, *OUTCOMES], {"required": ["offer_id"], "properties": {"offer_id": {"type": "string"}}}),
        _where(
            [IDENTIFY],
            {"required": ["customer_id", "anonymous_id"], "properties": {"anonymous_id": {"type": "string"}}},
        ),
        _where([CONSENT], {"required": ["purposes"], "properties": {"purposes": {"minProperties": 1}}}),
        _where(
            [EXPOSURE],
            {
                "required": ["experiment", "arm"],
                "properties": {name: {"type": "string"} for name in ("experiment", "arm")},
            },
        ),
    ]


def _where(types: list[str], then: Schema) -> Schema:
    return {"if": {"properties": {"type": {"enum": types}}}, "then": then}


def _given(name: str) -> Schema:
    """Return the schema of objects that have a member, and not as null."""
    return {"required": [name], "properties": {name: {"not": _NULL}}}


def _one_of(*names: str) -> Schema:
    """Return the rule that at least one of the members is given."""
    *first, last = names
    rule = _given(last)
    for name in reversed(first):
        rule = {"if": _given(name), "else": rule}
    return rule


_ONE_PLACEMENT = {
    "if": _given("placements"),
    "then": {"properties": {"placement": _NULL}},
    "else": _given("placement"),
}


def _names(workspace: Workspace) -> dict[str, Schema]:
    """Return components for what the workspace names, so that generated types have these names too."""
    context = {
        "type": "object",
        "properties": context_schema(workspace.features.context),
        "additionalProperties": False,
    }
    found = {"Placement": _enumerated(workspace.offers.placements), "Context": context}
    if workspace.experiments.experiments:
        found["ExperimentKey"] = _enumerated(workspace.experiments.experiments)
    return {name: schema | {"title": name} for name, schema in found.items()}


def _enumerated(names: Iterable[str]) -> Schema:
    return {"type": "string", "enum": list(names)}


def _column(column: ContextColumn) -> Schema:
    if column.dtype == "category":
        if column.values is not None:
            return or_null({"type": "string", "enum": list(column.values)})
        return or_null({"type": "string", "maxLength": CONTEXT_TEXT_CHARACTERS_MAX, "pattern": text_pattern()})
    if column.dtype == "boolean":
        return or_null({"type": "boolean"})
    least = -CONTEXT_INTEGER_MAX if column.minimum is None else max(column.minimum, -CONTEXT_INTEGER_MAX)
    most = CONTEXT_INTEGER_MAX if column.maximum is None else min(column.maximum, CONTEXT_INTEGER_MAX)
    return or_null({"type": column.dtype, "minimum": least, "maximum": most})


def _channel_rules(workspace: Workspace) -> list[Schema]:
    """Return a rule for each placement that exists in some channels only: the request must be in one of them."""
    column = workspace.features.context.get(CHANNEL)
    assumed = ANY if column is None or column.default is None else str(column.default)
    rules = []
    for name, placement in workspace.offers.placements.items():
        if placement.channels:
            rules.append(_asked_for(name, _in_channels(list(placement.channels), column is not None, assumed)))
    return rules


def _in_channels(channels: list[str], declared: bool, assumed: str) -> Schema:
    taken: list[Any] = [*channels, None] if assumed in channels else channels
    if not declared:
        return {} if assumed in channels else {"not": {}}
    within: Schema = {"properties": {CHANNEL: {"enum": taken}}}
    if assumed in channels:
        return {"properties": {"context": within}}
    return {"required": ["context"], "properties": {"context": within | {"required": [CHANNEL]}}}


def _asked_for(placement: str, then: Schema) -> Schema:
    """Return the rule for requests that ask for a placement, alone or among others."""
    alone = {"required": ["placement"], "properties": {"placement": {"const": placement}}}
    among = {
        "required": ["placements"],
        "properties": {"placements": {"type": "array", "contains": {"const": placement}}},
    }
    return {"if": {"anyOf": [alone, among]}, "then": then}
