"""The first step: hold a request against the workspace, and leave out what of the customer may not be used for it."""

from __future__ import annotations

from features.common.moments import in_seconds
from serving.decision.case import Case, DecisionInputs, PlacementCase
from serving.hub.consent import without
from serving.hub.request_check import channel_of, check_request


def open_case(inputs: DecisionInputs) -> Case:
    """Return the case of a request, without what is withheld.

    Raises:
        UnknownPlacement, BadContext, BadRequest: the request does not fit the workspace.
    """
    request, serving, customer = inputs.request, inputs.serving, inputs.customer
    workspace = serving.workspace
    places = [PlacementCase(name, placement) for name, placement in check_request(workspace, request)]
    row, context = customer.row, request.context
    if row is None:
        row = serving.layout.plan.nobody()
    case = Case(
        request,
        customer.unit or request.unit,
        serving,
        serving,
        row,
        customer.contacts,
        context,
        inputs.now,
        in_seconds(inputs.now),
        "",
        places,
        None,
        {},
        request.explain or inputs.inspect is not None,
    )
    withheld = serving.hub.purposes.withheld(row, request.purposes, customer.consent, case.seconds)
    if withheld is not None:
        case.withheld, case.row, case.context = withheld, withheld.row(row), without(context, withheld.context)
    case.channel = channel_of(workspace, case.context)
    return case
