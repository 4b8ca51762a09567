"""CSV files as people have them: each by its own header, separator and encoding; nothing is guessed from its rows.

Arrow reads a file fast. It takes stray quotes for text, and joins rows over a quote that is not closed, so `survey`
looks first at what stands beside each quote. Files in which a quote stands elsewhere than at the edge of a cell, and
those in UTF-16, are read by Python's `csv`, which is slower and exact. It also finds the line where Arrow gave up.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from pipelines.importing.errors import BadFile

ENDINGS = (".csv", ".tsv")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
DELIMITERS = (",", ";", "\t")
"""What may stand between the columns; the one that tells most of them apart in the header does. Lists use `|`."""
CHUNK_BYTES = 4 << 20
BATCH_ROWS = 50_000
CELL_CHARACTERS_MAX = 1 << 20
HEADER_BYTES = 1 << 20

_UTF8 = "Save it as UTF-8."
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_QUOTE = ord('"')


@dataclass(frozen=True)
class CsvFile:
    """One file and its dialect.

    Attributes:
        names: of its columns, in order.
    """

    path: Path
    names: tuple[str, ...]
    delimiter: str
    encoding: str


def is_csv(file: Path) -> bool:
    """Return whether its name says that it is one, compressed or not."""
    return _inner(file) in ENDINGS


def _inner(file: Path) -> str:
    name = Path(file.stem) if file.suffix.lower() in COMPRESSIONS else file
    return name.suffix.lower()


def opened(path: Path) -> Any:
    """Return the bytes of a file, decompressed as its name says, in any case: Arrow's stream, which Python reads as
    well.
    """
    return pa.input_stream(str(path), compression=COMPRESSIONS.get(path.suffix.lower()))  # type: ignore[arg-type]


def read_header(path: Path) -> CsvFile | None:
    """Return the columns of a file and how it is written; None for a file without a single byte.

    Raises:
        BadFile: there is no header that names each column once.
    """
    with opened(path) as stream:
        start = stream.read(HEADER_BYTES)
    if not start:
        return None
    encoding = next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")
    if encoding != "utf-16" and b"\0" in start[:1_000]:
        raise BadFile(f"expected text, got zero bytes, as UTF-16 without a mark has them. {_UTF8}", 1)
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(start)
    except UnicodeDecodeError as error:
        text = start[: error.start].decode(encoding)
        if "\n" not in text and "\r" not in text:
            raise BadFile(
                f"expected UTF-8, got the byte 0x{start[error.start]:02x} in the header. {_UTF8}", 1
            ) from error
    found = {delimiter: _first_record(text, delimiter) for delimiter in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda one: len(found[one]))
    names = tuple(name.strip() for name in found[delimiter])
    if not names or not all(names) or len({name.lower() for name in names}) < len(names):
        got = "none" if not any(names) else ", ".join(name or "an empty name" for name in names)
        raise BadFile(f"expected a header with each column once, got {got}. Mend its first line.", 1)
    return CsvFile(path, names, delimiter, encoding)


def _first_record(text: str, delimiter: str) -> list[str]:
    try:
        return next((cells for cells in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if cells), [])
    except csv.Error:
        return []


def is_plain(file: CsvFile) -> bool:
    """Return whether quotes stand only where cells begin and end, or double within them: then all readers agree on what
    the file says.

    Raises:
        BadFile: it is not in its encoding.
    """
    if file.encoding == "utf-16":
        return False
    beside = np.zeros(256, bool)
    beside[[ord(file.delimiter), 10, 13, _QUOTE]] = True
    decoder = codecs.getincrementaldecoder("utf-8")()
    odd, held, start = False, b"\n", True
    with opened(file.path) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            if not chunk.isascii() or decoder.getstate()[0]:
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError:
                    raise _not_utf8(file) from None
            part = held + (chunk.removeprefix(codecs.BOM_UTF8) if start else chunk)
            fits, odd = _quotes_fit(part, beside, odd)
            if not fits:
                return False
            held, start = part[-2:], False
    if decoder.getstate()[0]:
        raise _not_utf8(file)
    fits, odd = _quotes_fit(held + b"\n", beside, odd)
    return fits and not odd


def _quotes_fit(part: bytes, beside: NDArray[np.bool_], odd: bool) -> tuple[bool, bool]:
    """Return whether all quotes but the first and last byte stand beside a separator or each other, and whether one is
    open after them.

    Args:
        odd: whether one is open before.
    """
    if b'"' not in part:
        return True, odd
    content = np.frombuffer(part, np.uint8)
    places = np.flatnonzero(content[1:-1] == _QUOTE) + 1
    opening, closing = places[int(odd) :: 2], places[1 - int(odd) :: 2]
    fits = bool(beside[content[opening - 1]].all() and beside[content[closing + 1]].all())
    return fits, odd ^ bool(len(places) % 2)


def records(file: CsvFile) -> Iterator[tuple[int, list[str]]]:
    """Yield each record but blank lines, header first, with the line that it begins on, from 1.

    Raises:
        BadFile: at the first that is none, or has not as many cells as the header.
    """
    before = csv.field_size_limit(CELL_CHARACTERS_MAX)
    try:
        with opened(file.path) as stream:
            text = io.TextIOWrapper(stream, encoding=file.encoding, newline="")
            reader = csv.reader(text, delimiter=file.delimiter, strict=True)
            while True:
                line = reader.line_num + 1
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    raise _no_record(file, line, reader.line_num, error) from error
                except UnicodeError as error:
                    raise _not_utf8(file) from error
                if cells is None:
                    return
                if cells and len(cells) != len(file.names):
                    told = (
                        f"expected {len(file.names)} cells, as the header has, got {len(cells)}. Mend or remove the"
                        " line"
                    )
                    more = " (text with a separator in it stands in quotes)" if len(cells) > len(file.names) else ""
                    raise BadFile(f"{told}{more}.", line)
                if cells:
                    yield line, cells
    finally:
        csv.field_size_limit(before)


def _no_record(file: CsvFile, line: int, until: int, error: csv.Error) -> BadFile:
    noticed = "" if until <= line else f", noticed on line {until:,}"
    if "limit" in str(error):
        return BadFile(
            f"expected cells of at most {CELL_CHARACTERS_MAX:,} characters, got a longer one: is a quote not closed?",
            line,
        )
    if "unexpected end" in str(error):
        told = (
            f"expected each quote to be closed, got one that is open to the end of the file{noticed}. Close it, or"
            " double it within a cell."
        )
        return BadFile(told, line, _last_column(file, line))
    told = (
        f"expected a separator after a closing quote, got text{noticed}: a quote before it is not closed, or not"
        " doubled within a cell."
    )
    return BadFile(told, line)


def _last_column(file: CsvFile, line: int) -> str | None:
    """Return the column in which the text of a line ends."""
    with opened(file.path) as stream:
        text = io.TextIOWrapper(stream, encoding=file.encoding, errors="replace", newline="")
        for number, content in enumerate(text, 1):
            if number == line:
                cells = next(csv.reader([content], delimiter=file.delimiter), [])
                return file.names[len(cells) - 1] if 0 < len(cells) <= len(file.names) else None
    return None


def _not_utf8(file: CsvFile) -> BadFile:
    """Return which line of a file is the first that is not in its encoding, and in which column."""
    with opened(file.path) as stream:
        text = io.TextIOWrapper(stream, encoding=file.encoding, errors="surrogateescape", newline="")
        if file.encoding == "utf-16":
            return BadFile(f"expected UTF-16, as its mark says, got bytes that are none. {_UTF8}")
        for number, content in enumerate(text, 1):
            wrong = next((letter for letter in content if "\udc80" <= letter <= "\udcff"), None)
            if wrong is not None:
                cells = next(csv.reader([content], delimiter=file.delimiter), [])
                at = next((place for place, cell in enumerate(cells) if wrong in cell), len(file.names))
                told = f"expected UTF-8, got the byte 0x{ord(wrong) - 0xDC00:02x}. {_UTF8}"
                return BadFile(told, number, file.names[at] if at < len(file.names) else None)
    return BadFile(f"expected UTF-8, got bytes that are none. {_UTF8}")


def batches(file: CsvFile, columns: dict[str, str], schema: pa.Schema, base: int) -> Iterator[pa.RecordBatch]:
    """Yield all rows of a file, as texts.

    Args:
        columns: our name -> the file's, of those that the file has.
        schema: `_row`, then all columns as texts; those that the file does not have are null.
        base: `_row` of its first row.

    Raises:
        BadFile: it is no CSV.
    """
    done = 0
    try:
        if is_plain(file):
            for batch in _quickly(file, columns, schema, base):
                done += batch.num_rows
                yield batch
            return
    except pa.ArrowException:  # what is wrong, and where, is found by reading again
        pass
    yield from _exactly(file, columns, schema, base, done)


def _quickly(file: CsvFile, columns: dict[str, str], schema: pa.Schema, base: int) -> Iterator[pa.RecordBatch]:
    used = {name: f"f{file.names.index(given)}" for name, given in columns.items()}
    wanted = sorted(set(used.values())) or ["f0"]
    with opened(file.path) as stream:
        reader = pa.csv.open_csv(
            stream,
            read_options=pa.csv.ReadOptions(autogenerate_column_names=True, block_size=CHUNK_BYTES),
            parse_options=pa.csv.ParseOptions(delimiter=file.delimiter, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()), include_columns=wanted, strings_can_be_null=False
            ),
        )
        skip = 1  # the header
        for batch in reader:
            batch, skip = batch.slice(min(skip, batch.num_rows)), max(0, skip - batch.num_rows)
            yield _batch(schema, base, batch.num_rows, {name: batch.column(given) for name, given in used.items()})
            base += batch.num_rows


def _exactly(
    file: CsvFile, columns: dict[str, str], schema: pa.Schema, base: int, skip: int
) -> Iterator[pa.RecordBatch]:
    """Yield the same from the record number `skip` on, one by one."""
    places = {name: file.names.index(given) for name, given in columns.items()}
    rows: list[list[str]] = []
    base += skip

    def made() -> pa.RecordBatch:
        return _batch(
            schema,
            base,
            len(rows),
            {name: pa.array([row[at] for row in rows], pa.string()) for name, at in places.items()},
        )

    for number, (_, cells) in enumerate(records(file), -1):
        if number >= skip:
            rows.append(cells)
        if len(rows) == BATCH_ROWS:
            yield made()
            base, rows = base + len(rows), []
    if rows:
        yield made()


def _batch(schema: pa.Schema, base: int, rows: int, found: dict[str, Any]) -> pa.RecordBatch:
    numbers = pa.array(np.arange(base, base + rows, dtype=np.int64))
    texts = [found[name] if name in found else pa.nulls(rows, pa.string()) for name in schema.names[1:]]
    return pa.RecordBatch.from_arrays([numbers, *texts], schema=schema)


def lines_of(file: CsvFile, rows: set[int]) -> dict[int, int]:
    """On which line each of these rows begins; both count from 1, rows without the header."""
    found: dict[int, int] = {}
    for number, (line, _) in enumerate(records(file)):
        if number in rows:
            found[number] = line
            if len(found) == len(rows):
                break
    return found
