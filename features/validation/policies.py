"""Checks of policies.yaml and of what offers.yaml says about groups, placements and bundles: every name exists, every
rule compiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from zoneinfo import available_timezones

from features.common.time_zones import zone_of
from features.common.timestamps import DAY_SECONDS, duration_seconds
from features.config.documents import Document
from features.config.faults import Fault, Path
from features.config.policies import Whom
from features.contact_history.limits import LIMITS_MAX, SECONDS_MAX
from features.events.semantics import RESERVED_TYPES
from features.workspace.rulebook import read_rules
from features.workspace.situations import SITUATIONS, source
from features.workspace.workspace import Workspace


def expressions(workspace: Workspace) -> Iterable[Fault]:
    """Every expression reads, and speaks of what is declared."""
    document = workspace.documents["policies.yaml"]
    book = read_rules(workspace.policies, workspace.features, workspace.settings.currency)
    for path, problem in book.problems:
        place = (
            f", at line {problem.line}, column {problem.column} of the expression"
            if problem.column > 1 or problem.line > 1
            else ""
        )
        yield document.fault(path, problem.expected, problem.got + place, problem.remedy)
    if workspace.policies.situation_first is not None and not any(source(name, book.scope) for name in SITUATIONS):
        names = ", ".join(SITUATIONS)
        remedy = "Declare one as a segment, or as a boolean context or customer column."
        yield document.fault(("situation_first",), f"at least one of {names} to be declared", "none", remedy)


def names(workspace: Workspace) -> Iterable[Fault]:
    """Placements, channels, groups and offers that policies speak of exist, as far as files tell."""
    document, policies = workspace.documents["policies.yaml"], workspace.policies
    whom: list[tuple[Path, Whom]] = [(("rules", name), rule) for name, rule in policies.rules.items()]
    whom += [(("limits", name), limit) for name, limit in policies.limits.items()]
    whom += [(("pauses", name), pause) for name, pause in policies.pauses.items()]
    whom += [(("quiet_hours", name), quiet) for name, quiet in policies.quiet_hours.items()]
    whom += [(("arbitration", "weights", name), weight) for name, weight in policies.arbitration.weights.items()]
    for path, one in whom:
        for at, placement in enumerate(one.placements):
            if placement not in workspace.offers.placements:
                yield document.unknown(
                    (*path, "placements", at), "a declared placement", placement, workspace.offers.placements
                )
        yield from _offers(workspace, document, (*path, "offers"), one.offers)
        yield from _groups(workspace, document, (*path, "groups"), one.groups)
        yield from _groups(workspace, document, (*path, "except_groups"), one.except_groups)
    if policies.situation_first is not None:
        yield from _groups(workspace, document, ("situation_first", "service"), policies.situation_first.service)
    yield from _groups(workspace, document, ("arbitration", "groups"), tuple(policies.arbitration.groups))
    yield from _offers(workspace, document, ("arbitration", "offers"), tuple(policies.arbitration.offers))
    kinds = {kind for offer in workspace.offers.offers for kind in offer.values}
    for kind in policies.arbitration.worth:
        if kind not in kinds:
            yield document.unknown(("arbitration", "worth", kind), "a kind of value that some offer has", kind, kinds)
    for position, offer in enumerate(workspace.offers.offers):
        for kind in offer.values:
            if kind not in policies.arbitration.worth:
                remedy = f"Say in policies.yaml what a unit is worth: arbitration: {{worth: {{{kind}: 1}}}}."
                path = ("offers", position, "values", kind)
                yield workspace.documents["offers.yaml"].fault(
                    path, "a kind of value whose worth is known", f"`{kind}`", remedy
                )


def limits(workspace: Workspace) -> Iterable[Fault]:
    """Channels of limits and quiet hours exist, and times of day and zones are sane."""
    document, policies = workspace.documents["policies.yaml"], workspace.policies
    channels = channels_of(workspace)
    for name, limit in policies.limits.items():
        path: Path = ("limits", name)
        if limit.channel not in ("any", "each") and channels is not None and limit.channel not in channels:
            yield document.unknown(
                (*path, "channel"), "any, each, or a channel of the context", limit.channel, channels
            )
        if limit.channel == "each" and channels is None:
            remedy = "Declare the values of `channel` in features.yaml, under context."
            yield document.fault((*path, "channel"), "`each` only where the channels are declared", "`each`", remedy)
        if limit.per == "any" and (limit.offers or limit.groups or limit.except_groups):
            remedy = "Use `per: offer` or `per: group`, or leave offers and groups out."
            yield document.fault(
                (*path, "per"), "`offer` or `group`, where offers or groups are named", "`any`", remedy
            )
    yield from _spans(workspace)
    for name, quiet in policies.quiet_hours.items():
        path = ("quiet_hours", name)
        for at, channel in enumerate(quiet.channels):
            if channels is not None and channel not in channels:
                yield document.unknown((*path, "channels", at), "a channel of the context", channel, channels)
        if quiet.begin == quiet.end:
            yield document.fault(
                (*path, "end"), "another time than `begin`", f"`{quiet.end}`", "For the whole day use a rule."
            )
        if quiet.time_zone is not None:
            yield from _time_zone(workspace, document, (*path, "time_zone"), quiet.time_zone)


def _spans(workspace: Workspace) -> Iterable[Fault]:
    """A contact history can remember as long as limits and pauses look back, and limits are not more than it can be
    held to.
    """
    document, policies = workspace.documents["policies.yaml"], workspace.policies
    spans: list[tuple[Path, str]] = [
        (("limits", name, "window"), limit.window) for name, limit in policies.limits.items()
    ]
    spans += [(("pauses", name, "within"), pause.within) for name, pause in policies.pauses.items()]
    spans += [(("pauses", name, "pause"), pause.pause) for name, pause in policies.pauses.items()]
    for path, text in [*spans, (("hold",), policies.hold)]:
        if duration_seconds(text) > SECONDS_MAX:
            remedy = "Use a shorter one: a contact history remembers no longer."
            yield document.fault(path, f"at most {SECONDS_MAX / DAY_SECONDS:.0f} days", f"`{text}`", remedy)
    each = sum(limit.channel == "each" for limit in policies.limits.values())
    compiled = len(policies.limits) + each * len(channels_of(workspace) or ())
    if compiled > LIMITS_MAX:
        remedy = "Use `channel: any` for some of them."
        yield document.fault(
            ("limits",), f"at most {LIMITS_MAX} limits, one of each channel counted as several", str(compiled), remedy
        )


def placements(workspace: Workspace) -> Iterable[Fault]:
    """Groups, channels, fallbacks and bundles of offers.yaml exist."""
    document, offers = workspace.documents["offers.yaml"], workspace.offers
    channels = channels_of(workspace)
    for which in ("group", "category"):
        attribute = getattr(offers, which)
        if attribute is None:
            continue
        declared = workspace.features.offer.get(attribute)
        if declared is None or declared.dtype != "category":
            categories = [name for name, one in workspace.features.offer.items() if one.dtype == "category"]
            yield document.unknown((which,), "an attribute of offers that is a category", attribute, categories)
    for name, placement in offers.placements.items():
        path: Path = ("placements", name)
        yield from _groups(workspace, document, (*path, "groups"), placement.groups)
        yield from _offers(workspace, document, (*path, "fallback"), placement.fallback)
        for at, channel in enumerate(placement.channels):
            if channels is not None and channel not in channels:
                yield document.unknown((*path, "channels", at), "a channel of the context", channel, channels)
    member_of: dict[str, str] = {}
    for name, members in offers.bundles.items():
        yield from _offers(workspace, document, ("bundles", name), members)
        for at, member in enumerate(members):
            if member_of.setdefault(member, name) != name or member in members[:at]:
                remedy = "An offer goes together with one set of others."
                yield document.fault(("bundles", name, at), "an offer of one bundle, once", f"`{member}` again", remedy)
    for position, offer in enumerate(offers.offers):
        yield from _offers(workspace, document, ("offers", position, "requires"), offer.requires)
        yield from _offers(workspace, document, ("offers", position, "excludes"), offer.excludes)
        if offer.offer_id in (*offer.requires, *offer.excludes):
            yield document.fault(
                ("offers", position),
                "other offers in requires and excludes",
                f"`{offer.offer_id}` itself",
                "Remove it.",
            )


def channels_of(workspace: Workspace) -> tuple[str, ...] | None:
    """Return the declared channels; None where any text may be one."""
    column = workspace.features.context.get("channel")
    return None if column is None else column.values


def _groups(workspace: Workspace, document: Document, path: Path, groups: tuple[str, ...]) -> Iterable[Fault]:
    """Groups that come from a table cannot be known here; the server says when a group has no offer."""
    if workspace.offers.group is not None:
        return
    known = {offer.group for offer in workspace.offers.offers if offer.group}
    for at, group in enumerate(groups):
        if group not in known:
            place = (
                (*path, group) if path[-1] == "groups" and path[0] == "arbitration" and len(path) == 2 else (*path, at)
            )
            yield document.unknown(place, "a group that some offer has", group, known)


def _offers(workspace: Workspace, document: Document, path: Path, offers: tuple[str, ...]) -> Iterable[Fault]:
    """Offers by id, where all are in offers.yaml; those of a table are known when it is imported."""
    if workspace.settings.sources.offers is not None:
        return
    known = {offer.offer_id for offer in workspace.offers.offers}
    for at, offer in enumerate(offers):
        if offer not in known:
            yield document.unknown(
                (*path, offer) if path == ("arbitration", "offers") else (*path, at), "an offer", offer, known
            )


def _time_zone(workspace: Workspace, document: Document, path: Path, zone: str) -> Iterable[Fault]:
    if zone.startswith(("customer.", "context.")):
        kind = zone.partition(".")[0]
        columns = workspace.features.customer.attributes if kind == "customer" else workspace.features.context
        known = [f"{kind}.{column}" for column, declared in columns.items() if declared.dtype == "category"]
        if zone not in known:
            yield document.unknown(path, "a time zone, or a category of customer or context that holds it", zone, known)
    elif zone_of(zone) is None:
        yield document.unknown(path, "a time zone, or a column that holds it", zone, available_timezones())


def consent(workspace: Workspace) -> Iterable[Fault]:
    """Consent is a boolean attribute of the customer, for a purpose that some column has."""
    document, features = workspace.documents["features.yaml"], workspace.features
    purposes = {purpose for view in workspace.views for scalar in view.scalars for purpose in scalar.purposes}
    purposes |= {purpose for column in features.context.values() for purpose in column.purposes or ()}
    purposes |= {
        purpose
        for view in workspace.views
        for family in view.families
        for measure in family.measures
        for purpose in measure.purposes
    }
    answers = [name for name, attribute in features.customer.attributes.items() if attribute.dtype == "boolean"]
    for purpose, one in features.consent.items():
        if purpose not in purposes:
            yield document.unknown(("consent", purpose), "a purpose of some column", purpose, purposes)
        if one.column not in answers:
            yield document.unknown(
                ("consent", purpose, "column"), "a boolean attribute of the customer", one.column, answers
            )


def outcomes(workspace: Workspace) -> Iterable[Fault]:
    """The outcomes that the label and the pauses speak of are not other types of events."""
    policies, model = workspace.documents["policies.yaml"], workspace.documents["model.yaml"]
    named: list[tuple[Document, Path, str]] = [(model, ("label", "outcome"), workspace.model.label.outcome)]
    named += [
        (policies, ("pauses", name, "outcome"), pause.outcome) for name, pause in workspace.policies.pauses.items()
    ]
    for document, path, outcome in named:
        if outcome in RESERVED_TYPES:
            yield document.fault(
                path, "a type of outcome", f"`{outcome}`, another type of event", "Name the outcome otherwise."
            )


POLICY_CHECKS: tuple[Callable[[Workspace], Iterable[Fault]], ...] = (
    consent,
    expressions,
    names,
    limits,
    outcomes,
    placements,
)
