"""Rows of a business's own files become rows of ours, or are refused with a reason; nothing is rounded, cut or guessed."""

from __future__ import annotations

import duckdb

from features.lake import literal, quoted
from features.moments import MICROSECONDS
from features.tables import Field, Table
from features.timeline import Timeline
from features.vocabulary import CONTEXT_INTEGER_MAX, CONTEXT_TEXT_CHARACTERS_MAX, ID_CHARACTERS_MAX, ID_TEXT
from features.workspace import Workspace
from pipelines.forgotten_rows import refuse_forgotten

FUTURE_SECONDS_MAX = 300
"""A clock may run ahead by so much before its rows are refused as coming from the future."""

LIST_SEPARATOR = "|"
"""Separates the texts of a list in a CSV cell."""

INTEGER_MAX = CONTEXT_INTEGER_MAX
"""Beyond this a float64 column, which is what a model sees, no longer holds every integer."""

NUMBER_MAX = 1e18
"""Sums are added as whole millionths in 128 bits: so large numbers fit 10^14 times."""

_START, _EARLIEST, _END = (f"TIMESTAMPTZ '{year}-01-01 00:00:00+00'" for year in (1970, 1900, 2200))
_FLOATS = ("DOUBLE", "FLOAT", "DECIMAL")


def judge(con: duckdb.DuckDBPyConnection, workspace: Workspace, table: Table, moved: Timeline, now: int) -> None:
    """Turn the temporary table `raw` into `judged`: canonical types, the moved timeline, and `_reason` to refuse a row, or NULL."""
    types = {row[0]: row[1] for row in con.execute("DESCRIBE raw").fetchall()}
    columns, reasons = [], []
    for field in table.fields:
        if field.dtype not in ("category", "texts") or _float_id(field, types[field.name]):
            columns.append(f"{_present(table, field, types[field.name])} AS {_has(field)}")
        columns.append(f"{_typed(table, field, types[field.name], moved)} AS {quoted(field.name)}")
        reasons += _reasons(table, field, types[field.name])
    reasons += _reasons_of_table(workspace, table, now)
    cases = " ".join(f"WHEN {test} THEN {literal(reason)}" for test, reason in reasons)
    fields = ", ".join(quoted(field.name) for field in table.fields)
    typed = f"SELECT rowid AS _row, _file, {', '.join(columns)} FROM raw"
    con.execute(f"CREATE TEMP TABLE judged AS SELECT _row, _file, {fields}, CASE {cases} END AS _reason FROM ({typed})")
    con.execute("DROP TABLE raw")
    refuse_forgotten(con, workspace, table)


def _has(field: Field) -> str:
    return quoted(f"_has_{field.name}")


def _float_id(field: Field, given: str) -> bool:
    """Ids that came as floats: 1042.0 is the id 1042, but 1042.5 is nobody's, and beyond INTEGER_MAX several ids look alike."""
    return field.id and given.startswith(_FLOATS)


def _open_ended(table: Table, field: Field) -> bool:
    return table.name == "offers" and field.name in ("valid_from", "valid_until")


def _moment(field: Field, given: str) -> str:
    """A time as the source states it; without an offset it is UTC."""
    column = f"raw.{quoted(field.name)}"
    if given == "TIMESTAMP WITH TIME ZONE":
        return column
    if given.startswith("TIMESTAMP"):
        return f"make_timestamptz(epoch_us({column}))"
    text = f"nullif(trim({column}), '')" if given == "VARCHAR" else column
    return f"TRY_CAST({text} AS TIMESTAMPTZ)"


def _typed(table: Table, field: Field, given: str, moved: Timeline) -> str:
    column = f"raw.{quoted(field.name)}"
    floating = given.startswith(_FLOATS)
    if field.dtype == "texts":
        parts = f"{column}::VARCHAR[]" if given.endswith("]") else f"string_split({column}::VARCHAR, '{LIST_SEPARATOR}')"
        trimmed = f"list_transform({parts}, lambda text: trim(text))"
        return f"nullif(list_filter({trimmed}, lambda text: text <> ''), [])"
    if field.dtype == "time":
        moment = f"make_timestamptz(epoch_us({_moment(field, given)}) + {moved.offset})" if moved.offset else _moment(field, given)
        return f"CASE WHEN {_has(field)} THEN {moment} END" if _open_ended(table, field) else moment
    if field.dtype == "category":
        # A column of whole numbers with gaps comes as floats from many tools: 1042.0 is the id 1042, NaN a gap.
        if not floating:
            return f"nullif({column}::VARCHAR, '')"
        whole = f"{column} = trunc({column}) AND abs({column}) <= {INTEGER_MAX} THEN {column}::BIGINT::VARCHAR"
        other = "NULL" if field.id else f"{column}::VARCHAR"
        return f"CASE WHEN NOT isfinite({column}::DOUBLE) THEN NULL WHEN {whole} ELSE {other} END"
    text = f"nullif(trim({column}), '')" if given == "VARCHAR" else column
    if field.dtype == "integer":
        return f"CASE WHEN TRY_CAST({text} AS DOUBLE) = trunc(TRY_CAST({text} AS DOUBLE)) THEN TRY_CAST({text} AS BIGINT) END"
    if field.dtype == "boolean" and given not in ("VARCHAR", "BOOLEAN"):
        return f"CASE WHEN TRY_CAST({text} AS DOUBLE) IN (0, 1) THEN TRY_CAST({text} AS BOOLEAN) END"
    return f"TRY_CAST({text} AS {field.sql_type})"


def _present(table: Table, field: Field, given: str) -> str:
    """Whether the source states something. An offer's validity beyond what we count is no bound: 9999-12-31 means no end."""
    column = f"raw.{quoted(field.name)}"
    if _float_id(field, given):
        return f"coalesce(isfinite({column}::DOUBLE), false)"
    present = f"coalesce({column} <> '', false)" if given == "VARCHAR" else f"{column} IS NOT NULL"
    if _open_ended(table, field):
        beyond = f"{_moment(field, given)} >= {_END}" if field.name == "valid_until" else f"{_moment(field, given)} < {_START}"
        present = f"({present} AND NOT coalesce({beyond}, false))"
    return present


def _reasons(table: Table, field: Field, given: str) -> list[tuple[str, str]]:
    """Tests that refuse a row for one of its columns, in the order in which they are told."""
    typed, name, has = quoted(field.name), f"`{field.name}`", _has(field)
    if field.dtype == "texts":
        return [
            (f"len(list_filter({typed}, lambda text: length(text) > {CONTEXT_TEXT_CHARACTERS_MAX})) > 0", f"{name} has too long a text")
        ]
    if field.dtype == "category":
        reasons = []
        if _float_id(field, given):
            told = f"{name} is a float, but no whole number up to {INTEGER_MAX}: store ids as texts or integers"
            reasons.append((f"{has} AND {typed} IS NULL", told))
        if field.required:
            reasons.append((f"{typed} IS NULL", f"{name} is missing"))
        longest = ID_CHARACTERS_MAX if field.id else CONTEXT_TEXT_CHARACTERS_MAX
        reasons.append((f"length({typed}) > {longest}", f"{name} is longer than {longest} characters"))
        if field.id:
            reasons.append((f"NOT regexp_full_match({typed}, {literal(ID_TEXT)})", f"{name} has characters that an id may not have"))
        return reasons
    article = "an" if field.dtype == "integer" else "a"
    reasons = [(f"NOT {has}", f"{name} is missing")] if field.required else []
    reasons.append((f"{has} AND {typed} IS NULL", f"{name} is not {article} {field.dtype}"))
    if field.dtype == "number":
        reasons.append((f"NOT isfinite({typed})", f"{name} is not finite"))
        reasons.append((f"abs({typed}) > {NUMBER_MAX}", f"{name} is beyond {NUMBER_MAX:g}"))
    if field.dtype == "integer":
        reasons.append((f"abs({typed}) > {INTEGER_MAX}", f"{name} is beyond {INTEGER_MAX}"))
    if field.dtype == "time":
        first, year = (_START, 1970) if field.required or _open_ended(table, field) else (_EARLIEST, 1900)
        reasons.append((f"{typed} < {first} OR {typed} >= {_END}", f"{name} is before {year} or after 2199"))
    return reasons


def _reasons_of_table(workspace: Workspace, table: Table, now: int) -> list[tuple[str, str]]:
    reasons = []
    if table.time is not None and table.name != "customers":  # what will be true of a customer may be known before
        late = now + FUTURE_SECONDS_MAX * MICROSECONDS
        reasons.append((f"{quoted(table.time)} > make_timestamptz({late}::BIGINT)", f"`{table.time}` is in the future"))
    if table.name == "offers":
        declared = ", ".join(map(literal, workspace.offers.placements))
        reasons.append(("valid_from >= valid_until", "`valid_until` is not after `valid_from`"))
        reasons.append((f"NOT list_has_all([{declared}], placements)", "`placements` has one that offers.yaml does not declare"))
    if table.name == "decisions":
        reasons.append(("action_probability <= 0 OR action_probability > 1", "`action_probability` is not above 0 and at most 1"))
    return reasons
