"""One column of a business's own files in SQL: what a value of this type becomes in a column of that dtype.

A value is judged by the type that its own file gives it. 3.0 of a float column is the text 3; the text 3.0 stays as it
is.
"""

from __future__ import annotations

import re

from msgspec import Struct

from features.common.missing import WORDS
from features.common.types import CONTEXT_INTEGER_MAX
from features.lake.lake import literal, quoted
from features.lake.tables import Field, Table
from features.workspace.timeline import Timeline

LIST_SEPARATOR = "|"
"""Separates the texts of a list in a CSV cell."""

INTEGER_MAX = CONTEXT_INTEGER_MAX
"""Beyond this a float64 column, which is what a model sees, no longer holds every integer."""

START, EARLIEST, END = (f"TIMESTAMPTZ '{year}-01-01 00:00:00+00'" for year in (1970, 1900, 2200))
_FLOATS = ("DOUBLE", "FLOAT")
_WHOLE = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
)
_TEXTS = ("VARCHAR", "JSON", "UUID", "BLOB")


class FileColumn(Struct, frozen=True):
    """SQL of one column, over `x`, the raw value as `raw` gives it, and `t`, what `typed` makes of it.

    Attributes:
        raw: of a row of the reader.
        typed: of `x`; NULL where it is missing, or cannot be one.
        present: of `x`, whether the file states something.
        word: of `x` and `t`: the word that says that the value is missing, or NULL; None where there can be none.
    """

    raw: str
    typed: str
    present: str
    word: str | None


def open_ended(table: Table, field: Field) -> bool:
    """Return whether a time is a bound that may be missing: 9999-12-31 means that an offer has no end."""
    return table.name == "offers" and field.name in ("valid_from", "valid_until")


def column(
    table: Table, field: Field, given: str | None, moved: Timeline, words: tuple[str, ...], x: str, t: str
) -> FileColumn:
    """Return the SQL of a column.

    Args:
        given: DuckDB's type of the values; None where the files do not have the column.
        words: in lower case, those that mean that a value is missing.
        x, t: what the raw and the typed value are called.
    """
    if given is None:
        return FileColumn(f"NULL::{field.sql_type}", x, "false", None)
    text = given in _TEXTS or given.startswith("ENUM")
    raw = quoted(field.name) + ("::VARCHAR" if text and given != "VARCHAR" else "")
    if text:
        given = "VARCHAR"
    if field.dtype == "texts":
        return _texts(raw, given, words, x)
    typed = {"time": _moment, "category": _category, "boolean": _boolean, "integer": _integer}.get(
        field.dtype, _number
    )(x, given, field)
    if field.dtype == "time" and moved.offset:
        typed = f"make_timestamptz(epoch_us({typed}) + {moved.offset})"
    floating = field.id and given.startswith(_FLOATS)
    present = (
        f"coalesce({x} <> '', false)" if text else f"coalesce(isfinite({x}), false)" if floating else f"{x} IS NOT NULL"
    )
    if open_ended(table, field):
        beyond = (
            f"{_moment(x, given, field)} >= {END}"
            if field.name == "valid_until"
            else f"{_moment(x, given, field)} < {START}"
        )
        present = f"({present} AND NOT coalesce({beyond}, false))"
        typed = f"CASE WHEN {present} THEN {typed} END"
    return FileColumn(raw, typed, present, _word(field, words, x, t) if text and words else None)


def _word(field: Field, words: tuple[str, ...], x: str, t: str) -> str:
    # `nan` is a number that is not finite, and refused as one, as in Parquet.
    meant = [word for word in words if word != "nan" or field.dtype not in ("number", "integer")]
    if not meant:
        return "NULL"
    # A pattern, because DuckDB makes a join of IN; and what stands behind THEN is evaluated only where it has to be: a
    # word is no number, time or boolean.
    word = f"CASE WHEN regexp_full_match({x}, {literal(_pattern(meant))}) THEN {x} END"
    return word if field.dtype == "category" else f"CASE WHEN {t} IS NULL THEN {word} END"


def _pattern(words: list[str]) -> str:
    return rf"(?i)\s*({'|'.join(map(re.escape, words))})\s*"


def _texts(raw: str, given: str, words: tuple[str, ...], x: str) -> FileColumn:
    parts = f"{x}::VARCHAR[]" if given.endswith("]") else f"string_split({x}::VARCHAR, '{LIST_SEPARATOR}')"
    trimmed = f"list_transform({parts}, lambda text: trim(text))"
    listed = ", ".join(map(literal, words)) or "''"
    kept = f"list_filter({trimmed}, lambda text: text <> '' AND lower(text) NOT IN ({listed}))"
    found = f"list_filter({trimmed}, lambda text: lower(text) IN ({listed}))[1]"
    return FileColumn(raw, f"nullif({kept}, [])", f"{x} IS NOT NULL", found if words else None)


def _moment(x: str, given: str, field: Field) -> str:
    """Return a time as the source states it; without an offset it is UTC. A number is no time."""
    del field
    if given == "TIMESTAMP WITH TIME ZONE":
        return x
    if given.startswith("TIMESTAMP"):
        return f"make_timestamptz(epoch_us({x}))"
    cast = f"TRY_CAST({x} AS TIMESTAMPTZ)"
    return f"coalesce({cast}, TRY_CAST(trim({x}) AS TIMESTAMPTZ))" if given == "VARCHAR" else cast


def _category(x: str, given: str, field: Field) -> str:
    """Return a text as it is written; a number without the tail that its type gives it: 1042.0 is 1042, 2.50 is 2.5."""
    if given.startswith("DECIMAL"):
        digits = given.rstrip(")").partition(",")[2]
        if digits.strip() == "0":
            return f"{x}::VARCHAR"
        if field.id:
            return f"CASE WHEN {x} = trunc({x}) THEN regexp_replace({x}::VARCHAR, '[.].*', '') END"
        return f"regexp_replace({x}::VARCHAR, '[.]?0*$', '')"
    if not given.startswith(_FLOATS):
        return f"nullif({x}::VARCHAR, '')"
    # A column of whole numbers with gaps comes as floats from many tools: 1042.0 is the id 1042, NaN a gap.
    whole = f"{x} = trunc({x}) AND abs({x}) <= {INTEGER_MAX} THEN {x}::BIGINT::VARCHAR"
    other = "NULL" if field.id else f"{x}::VARCHAR"
    return f"CASE WHEN NOT isfinite({x}) THEN NULL WHEN {whole} ELSE {other} END"


def _number_text(x: str) -> str:
    """Return a text that may be a number: DuckDB reads 1_000 as 1000, which no other program means as a number in
    data.
    """
    return f"CASE WHEN NOT contains({x}, '_') THEN {x} END"


def _number(x: str, given: str, field: Field) -> str:
    return f"TRY_CAST({_number_text(x) if given == 'VARCHAR' else x} AS {field.sql_type})"


def _integer(x: str, given: str, field: Field) -> str:
    del field
    if given in _WHOLE:
        return f"TRY_CAST({x} AS BIGINT)"
    text = _number_text(x) if given == "VARCHAR" else x
    return (
        f"CASE WHEN TRY_CAST({text} AS DOUBLE) = trunc(TRY_CAST({text} AS DOUBLE)) THEN TRY_CAST({text} AS BIGINT) END"
    )


def _boolean(x: str, given: str, field: Field) -> str:
    """True and false, and the numbers 1 and 0 however they are written."""
    del field
    if given == "BOOLEAN":
        return x
    number = f"TRY_CAST({_number_text(x) if given == 'VARCHAR' else x} AS DOUBLE)"
    of_number = f"CASE WHEN {number} IN (0, 1) THEN {number} = 1 END"
    if given != "VARCHAR":
        return of_number
    return f"coalesce(TRY_CAST(trim({x}) AS BOOLEAN), {of_number})"


def words_of(missing: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the words of a source that mean that a value is missing, in lower case."""
    return WORDS if missing is None else tuple(word.strip().lower() for word in missing)
