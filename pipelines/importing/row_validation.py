"""Rows of a business's own files become rows of ours, or are refused with a reason; nothing is rounded, cut or
guessed.
"""

from __future__ import annotations

import duckdb

from features.common.moments import Micros
from features.common.timestamps import MICROSECONDS
from features.common.types import CONTEXT_TEXT_CHARACTERS_MAX, ID_CHARACTERS_MAX, ID_TEXT
from features.lake.lake import literal, quoted
from features.lake.tables import Field, Table
from features.workspace.timeline import Timeline
from features.workspace.workspace import Workspace
from pipelines.importing.erased_rows import refuse_forgotten
from pipelines.importing.source_files import Given, Progress, SourceFiles
from pipelines.importing.values import EARLIEST, END, INTEGER_MAX, START, FileColumn, column, open_ended

FUTURE_SECONDS_MAX = 300
"""A clock may run ahead by so much before its rows are refused as coming from the future."""

NUMBER_MAX = 1e18
"""Sums are added as whole millionths in 128 bits: so large numbers fit 10^14 times."""

WORDS = "_words"
"""The column of `judged` that tells which words stood where nothing was meant, as texts `column=word`; NULL where none
did.
"""


def judge(
    con: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    table: Table,
    files: SourceFiles,
    words: tuple[str, ...],
    moved: Timeline,
    now: Micros,
    progress: Progress,
) -> None:
    """Make the temporary table `judged`: `_row`, canonical types, the moved timeline, and `_reason` to refuse a row, or
    NULL.

    Raises:
        BadTable: a file cannot be read.
    """
    types = ", ".join(f"{quoted(field.name)} {field.sql_type}" for field in table.fields)
    con.execute(f"CREATE TEMP TABLE judged (_row BIGINT, {types}, _reason VARCHAR, {WORDS} VARCHAR[])")
    of_table = _reasons_of_table(workspace, table, now)
    for given in files.parts(progress):
        given.read(f"INSERT INTO judged {_judged(table, given, of_table, words, moved)}")
    refuse_forgotten(con, workspace, table)


def _judged(
    table: Table, given: Given, of_table: list[tuple[str, str]], words: tuple[str, ...], moved: Timeline
) -> str:
    """SQL of rows as they were given, judged."""
    columns = [
        column(table, field, given.types.get(field.name), moved, words, f"_x{at}", f"_t{at}")
        for at, field in enumerate(table.fields)
    ]
    named = list(zip(range(len(columns)), table.fields, columns, strict=True))
    raw = ", ".join(f"{made.raw} AS _x{at}" for at, _, made in named)
    typed = ", ".join(f"{made.typed} AS _t{at}" for at, _, made in named)
    worded = [(at, field) for at, field, made in named if made.word is not None]
    spoken = "".join(f", {made.word} AS _w{at}" for at, _, made in named if made.word is not None)
    final = ", ".join(_final(at, field, made) for at, field, made in named)
    reasons = [reason for _, field, made in named for reason in _reasons(table, field, made)] + of_table
    cases = " ".join(f"WHEN {test} THEN {literal(reason)}" for test, reason in reasons)
    told = "NULL"
    if worded:
        some = " OR ".join(f"_w{at} IS NOT NULL" for at, _ in worded)
        listed = ", ".join(f"{literal(field.name + '=')} || trim(_w{at})" for at, field in worded)
        told = f"CASE WHEN {some} THEN list_filter([{listed}], lambda text: text IS NOT NULL) END"
    fields = ", ".join(quoted(field.name) for field in table.fields)
    carried = "".join(f", _w{at}" for at, _ in worded)
    return f"""
        SELECT _row, {fields}, CASE {cases} END AS _reason, {told} AS {WORDS}
        FROM (SELECT _row, {final}{carried}
            FROM (SELECT *{spoken}
                FROM (SELECT *, {typed} FROM (SELECT _row, {raw} FROM ({given.reader}))))
        )"""


def _final(at: int, field: Field, made: FileColumn) -> str:
    has = "" if field.dtype == "texts" else f", {made.present} AS {_has(field)}"
    if made.word is None:
        return f"_t{at} AS {quoted(field.name)}{has}"
    if has:
        has = f", {made.present} AND _w{at} IS NULL AS {_has(field)}"
    # The texts of a list are without their words already.
    value = f"CASE WHEN _w{at} IS NULL THEN _t{at} END" if field.dtype == "category" else f"_t{at}"
    return f"{value} AS {quoted(field.name)}{has}"


def _has(field: Field) -> str:
    return quoted(f"_has_{field.name}")


def _reasons(table: Table, field: Field, made: FileColumn) -> list[tuple[str, str]]:
    """Tests that refuse a row for one of its columns, in the order in which they are told."""
    typed, name, has = quoted(field.name), f"`{field.name}`", _has(field)
    if field.dtype == "texts":
        return [
            (
                f"len(list_filter({typed}, lambda text: length(text) > {CONTEXT_TEXT_CHARACTERS_MAX})) > 0",
                f"{name} has too long a text",
            )
        ]
    if field.dtype == "category":
        reasons = []
        if (
            field.id
        ):  # 1042.0 is the id 1042, but 1042.5 is nobody's, and of floats beyond INTEGER_MAX several look alike
            told = f"{name} is a float, but no whole number up to {INTEGER_MAX}: store ids as texts or integers"
            reasons.append((f"{has} AND {typed} IS NULL", told))
        if field.required:
            reasons.append((f"{typed} IS NULL", f"{name} is missing"))
        longest = ID_CHARACTERS_MAX if field.id else CONTEXT_TEXT_CHARACTERS_MAX
        reasons.append((f"length({typed}) > {longest}", f"{name} is longer than {longest} characters"))
        if field.id:
            reasons.append(
                (
                    f"NOT regexp_full_match({typed}, {literal(ID_TEXT)})",
                    f"{name} has characters that an id may not have",
                )
            )
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
        first, year = (START, 1970) if field.required or open_ended(table, field) else (EARLIEST, 1900)
        reasons.append((f"{typed} < {first} OR {typed} >= {END}", f"{name} is before {year} or after 2199"))
    return reasons


def _reasons_of_table(workspace: Workspace, table: Table, now: Micros) -> list[tuple[str, str]]:
    reasons = []
    if table.time is not None and table.name != "customers":  # what will be true of a customer may be known before
        late = now + FUTURE_SECONDS_MAX * MICROSECONDS
        reasons.append((f"{quoted(table.time)} > make_timestamptz({late}::BIGINT)", f"`{table.time}` is in the future"))
    if table.name == "offers":
        declared = ", ".join(map(literal, workspace.offers.placements))
        reasons.append(("valid_from >= valid_until", "`valid_until` is not after `valid_from`"))
        reasons.append(
            (f"NOT list_has_all([{declared}], placements)", "`placements` has one that offers.yaml does not declare")
        )
    if table.name == "decisions":
        reasons.append(
            ("action_probability <= 0 OR action_probability > 1", "`action_probability` is not above 0 and at most 1")
        )
    return reasons
