"""Cross-checks of `features.yaml`: streams, windows, pair columns, context and names."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from features.aggregate_kinds.kinds import AGGREGATES
from features.columns.streams import BUILT_IN_STREAMS, streams_of
from features.columns.views import window_name
from features.common.timestamps import DAY_SECONDS, duration_seconds, window_seconds
from features.config.documents import Document
from features.config.faults import Fault, Path
from features.config.features_file import COLUMNS_MAX, ContextColumn, PairColumn, Range, Stream, Where, WindowColumn
from features.events.semantics import RESERVED_TYPES, outcome_types
from features.lake.tables import FIXED, reserved
from features.workspace.workspace import Workspace


def _streams(workspace: Workspace) -> Iterable[Fault]:
    document = workspace.documents["features.yaml"]
    for name, stream in workspace.features.streams.items():
        if name in (*BUILT_IN_STREAMS, *FIXED, "customer", "everyone") or name.startswith("everyone_"):
            yield document.fault(("streams", name), "a name that is not built in", f"`{name}`", "Rename the stream.")
        elif name in (*RESERVED_TYPES, *outcome_types(workspace.policies, workspace.model)):
            remedy = "Rename the stream: events are sent by that type."
            yield document.fault(("streams", name), "a name that is no type of event already", f"`{name}`", remedy)
        for kind, fields in (("numbers", stream.numbers), ("categories", stream.categories)):
            yield from _repeated(document, ("streams", name, kind), "each field once", fields)
        for field in sorted(reserved("streams") & {*stream.numbers, *stream.categories}):
            yield document.fault(
                ("streams", name), "fields beside those that every stream has", f"`{field}`", "Remove it from the list."
            )
        for field in sorted(set(stream.numbers) & set(stream.categories)):
            yield document.fault(
                ("streams", name), "each field once", f"`{field}`, both a number and a category", "Remove one."
            )


def _facts(workspace: Workspace) -> Iterable[Fault]:
    """Yield what tables and requests state: their columns stand beside those that every table has."""
    features, document = workspace.features, workspace.documents["features.yaml"]
    for path, table, names in (
        (("customer", "attributes"), "customers", features.customer.attributes),
        (("offer",), "offers", features.offer),
        (("context",), "decisions", features.context),
    ):
        for name in names:
            if name in reserved(table):
                yield document.fault(
                    (*path, name), f"a name that the table `{table}` does not have anyway", f"`{name}`", "Rename it."
                )
    for name, attribute in features.customer.attributes.items():
        if attribute.missing == "zero" and attribute.dtype in ("category", "time"):
            yield _no_zero(document, ("customer", "attributes", name), attribute.dtype)
    for name, offer in features.offer.items():
        if offer.missing == "zero" and offer.dtype in ("category", "time", "texts"):
            yield _no_zero(document, ("offer", name), offer.dtype)
        for key in ("purposes", "freshness"):
            if getattr(offer, key) is not None:
                yield document.fault(
                    ("offer", name, key), "no such key: an offer is not a customer's data", f"`{key}`", "Remove it."
                )
    for name, column in features.context.items():
        yield from _context(document, ("context", name), column)


def _no_zero(document: Document, path: Path, what: str) -> Fault:
    return document.fault((*path, "missing"), f"unknown: a {what} has no zero", "`zero`", "Remove it.")


def _context(document: Document, path: Path, column: ContextColumn) -> Iterable[Fault]:
    numeric = column.dtype in ("number", "integer")
    if column.freshness is not None:
        yield document.fault(
            (*path, "freshness"), "no such key: it comes with the request", f"`{column.freshness}`", "Remove it."
        )
    if column.missing == "zero" and column.dtype == "category":
        yield _no_zero(document, path, "category")
    if column.missing == "zero" and column.default is not None:
        yield document.fault((*path, "missing"), "either `missing: zero` or `default`", "both", "Remove one.")
    if column.values is not None and column.dtype != "category":
        yield document.fault(
            (*path, "values"), "no such key for a number", "`values`", "Use minimum and maximum, or dtype: category."
        )
    for bound in ("minimum", "maximum"):
        if getattr(column, bound) is not None and not numeric:
            yield document.fault((*path, bound), f"no such key for a {column.dtype}", f"`{bound}`", "Remove it.")
    low, high = column.minimum, column.maximum
    if low is not None and high is not None and low > high:
        yield document.fault((*path, "maximum"), "not less than minimum", f"{high:g}", "Swap them.")
    default = column.default
    if default is None:
        return
    fits = {"category": isinstance(default, str), "boolean": isinstance(default, bool)}
    if not fits.get(column.dtype, isinstance(default, (int, float)) and not isinstance(default, bool)):
        yield document.fault(
            (*path, "default"), f"a {column.dtype}", repr(default), "It stands for what a request does not say."
        )
    elif isinstance(default, str) and column.values is not None and default not in column.values:
        yield document.unknown((*path, "default"), "one of `values`", default, column.values)
    elif numeric and not (low is None or float(default) >= low) & (high is None or float(default) <= high):
        yield document.fault(
            (*path, "default"),
            "a number from minimum to maximum",
            repr(default),
            "It stands for what a request does not say.",
        )


def _windows(workspace: Workspace) -> Iterable[Fault]:
    document = workspace.documents["features.yaml"]
    streams = streams_of(workspace.features)
    for name, column in workspace.features.columns.items():
        yield from _window_column(document, ("columns", name), column, streams)
    for name, pair in workspace.features.pairs.items():
        yield from _pair_column(workspace, document, ("pairs", name), pair, streams)


def _window_column(document: Document, path: Path, column: WindowColumn, streams: dict[str, Stream]) -> Iterable[Fault]:
    stream = streams.get(column.stream)
    if stream is None:
        yield document.unknown((*path, "stream"), "a declared stream", column.stream, streams)
        return
    kind = AGGREGATES[column.aggregate]
    yield from _aggregated(document, path, column.aggregate, column.of, stream)
    yield from _where(document, path, column.where, stream)
    if kind.is_part and not column.where and column.group is None:
        yield document.fault(
            path, "`where` or `group`: which part the share is of", "neither", "Add `where: {category: [value]}`."
        )
    if column.group is not None:
        by = column.group.by
        if by not in stream.categories:
            yield document.unknown((*path, "group", "by"), "a category of the stream", by, stream.categories)
        if by in column.where:
            yield document.fault(
                (*path, "where", by),
                "no condition on what the column is grouped by",
                f"`{by}`",
                "List its values in `group`.",
            )
    if column.missing == "zero" and (not kind.has_zero or (kind.dtype is None and column.of in stream.categories)):
        yield _no_zero(document, path, kind.dtype or "category")
    yield from _repeated(document, (*path, "windows"), "each window once", column.windows)


def _pair_column(
    workspace: Workspace, document: Document, path: Path, pair: PairColumn, streams: dict[str, Stream]
) -> Iterable[Fault]:
    stream = streams.get(pair.stream)
    if stream is None:
        yield document.unknown((*path, "stream"), "a declared stream", pair.stream, streams)
        return
    yield from _aggregated(document, path, pair.aggregate, pair.of, stream)
    yield from _where(document, path, pair.where, stream)
    if pair.key not in stream.categories:
        yield document.unknown((*path, "key"), "a category of the stream", pair.key, stream.categories)
    matches = {"offer_id", *(n for n, a in workspace.features.offer.items() if a.dtype in ("category", "texts"))}
    if pair.match not in matches:
        yield document.unknown(
            (*path, "match"), "an offer attribute of texts, a category, or offer_id", pair.match, matches
        )
    if pair.missing == "zero" and not AGGREGATES[pair.aggregate].zero:
        yield document.fault(
            (*path, "missing"), f"unknown: `{pair.aggregate}` of nothing is not zero", "`zero`", "Remove it."
        )
    if pair.scope == "everyone":
        for position, window in enumerate(pair.windows):
            seconds = window_seconds(window)
            if seconds is not None and seconds % DAY_SECONDS:
                yield document.fault(
                    (*path, "windows", position), "whole days for `scope: everyone`", f"`{window}`", "Use 1d or more."
                )
        freshness = pair.freshness or stream.freshness
        if freshness is not None and duration_seconds(freshness) <= DAY_SECONDS:
            remedy = "It is computed at midnight: use 2d or more."
            yield document.fault(
                (*path, "freshness"), "more than a day for `scope: everyone`", f"`{freshness}`", remedy
            )
    yield from _repeated(document, (*path, "windows"), "each window once", pair.windows)
    yield from _repeated(document, (*path, "relative"), "each of them once", pair.relative)


def _aggregated(document: Document, path: Path, aggregate: str, of: str | None, stream: Stream) -> Iterable[Fault]:
    wanted = AGGREGATES[aggregate].fields
    fields = {"category": stream.categories, "any": (*stream.numbers, *stream.categories)}.get(wanted, stream.numbers)
    if of is None:
        if wanted not in ("none", "number or none"):
            yield document.fault(
                path,
                f"`of`: the field that `{aggregate}` is taken of",
                "none",
                f"Fields: {', '.join(fields) or 'none'}.",
            )
    elif wanted == "none":
        yield document.fault(
            (*path, "of"), f"no field: `{aggregate}` looks at events alone", f"`{of}`", "Remove `of`, or use sum."
        )
    elif of not in fields:
        yield document.unknown((*path, "of"), f"a field of the stream that `{aggregate}` can take", of, fields)


def _where(document: Document, path: Path, where: Where, stream: Stream) -> Iterable[Fault]:
    for field, condition in where.items():
        place = (*path, "where", field)
        number = isinstance(condition, Range)
        known = stream.numbers if number else stream.categories
        if field not in known:
            yield document.unknown(
                place, "a number of the stream" if number else "a category of the stream", field, known
            )
        elif condition == []:
            yield document.fault(place, "at least one value", "an empty list", "List the categories that count.")
        elif isinstance(condition, Range):
            low, below = condition.minimum, condition.below
            if low is None and below is None:
                yield document.fault(place, "`minimum`, `below` or both", "neither", "For example {minimum: 10}.")
            elif low is not None and below is not None and low >= below:
                yield document.fault(
                    place, "minimum less than below", f"{low:g} and {below:g}", "No number is in this range."
                )


def _repeated(document: Document, path: Path, expected: str, values: tuple[str, ...]) -> Iterable[Fault]:
    for position, value in enumerate(values):
        if value in values[:position]:
            yield document.fault((*path, position), expected, f"`{value}` again", "Remove one of the two.")


def _names(workspace: Workspace) -> Iterable[Fault]:
    """A column name means one thing: the model's order and the bundle's contract are by name."""
    features, document = workspace.features, workspace.documents["features.yaml"]
    places: dict[str, Path] = {}
    declared: list[tuple[str, Path]] = [
        (name, ("customer", "attributes", name)) for name in features.customer.attributes
    ]
    declared += [(name, ("context", name)) for name in features.context]
    declared += [(f"offer_{name}", ("offer", name)) for name in features.offer]
    for name, column in features.columns.items():
        values = column.group.values if column.group else (None,)
        declared += [
            (window_name(name, window, value), ("columns", name))
            for window in dict.fromkeys(column.windows)
            for value in values
        ]
    for name, pair in features.pairs.items():
        for window in dict.fromkeys(pair.windows):
            base = window_name(name, window)
            declared += [
                (base, ("pairs", name)),
                *((f"{base}_{r}", ("pairs", name)) for r in dict.fromkeys(pair.relative)),
            ]
    for name, path in declared:
        if name in places:
            other = ".".join(map(str, places[name]))
            yield document.fault(
                path, "a column name of its own", f"`{name}`, which {other} makes too", "Rename one of the two."
            )
        places.setdefault(name, path)
    if len(declared) > COLUMNS_MAX:
        yield document.fault(
            (), f"at most {COLUMNS_MAX} columns", str(len(declared)), "Fewer windows or groups make fewer columns."
        )


FEATURE_CHECKS: tuple[Callable[[Workspace], Iterable[Fault]], ...] = (_streams, _facts, _windows, _names)
