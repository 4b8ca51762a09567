"""Adding events to stored values: machine code over plain arrays, what SQL says in `windows.py` said again for a few
events.

Events come as arrays: times in microseconds since 1970, shape (n,); numbers, shape (fields, n), NaN where absent; texts
as word ids, shape (fields, n), -1 where absent. What is added to is a value that the batch has stored, so that both
give the same doubles: sums are taken back to whole millionths, which is exact below 2**33, added as integers, and
written as the batch writes them.
"""

from __future__ import annotations

import numba
import numpy as np

from features.aggregate_kinds.operations import Operation

COUNT, SUM, MINIMUM, MAXIMUM, MOMENT, STATED, LAST_NUMBER, LAST_TEXT, LATEST_NUMBER, LATEST_TEXT = map(int, Operation)
"""How a value takes in an event, as plain integers for numba."""

MICROSECONDS = 1_000_000
EXACT = 2.0**33
"""Below it a sum of millionths, divided by a million, has one double of its own."""
STORED, TIED = -1, -2
"""Instead of an event: the stored text is still the last; several texts have the same moment."""

_VECTOR, _WHOLE = numba.float64[::1], numba.int64[::1]
_TABLE, _IDS, _TRUTHS = numba.float64[:, ::1], numba.int64[:, ::1], numba.boolean[:, ::1]
_KEYS = numba.types.Array(numba.uint32, 1, "C", readonly=True)
_VALUES = numba.types.Array(numba.float64, 2, "A", readonly=True)


@numba.njit(numba.float64(numba.float64), nogil=True, cache=True)
def millionths(number):  # type: ignore[no-untyped-def]
    """Return an amount in whole millionths: half away from zero, as DuckDB rounds."""
    scaled = number * 1e6
    whole = np.trunc(scaled)
    rest = scaled - whole
    if rest >= 0.5:
        whole += 1.0
    elif rest <= -0.5:
        whole -= 1.0
    return whole


@numba.njit(inline="always")
def _plus(total, number):  # type: ignore[no-untyped-def]
    """Return a stored sum, NaN for none, with one more number."""
    whole = millionths(number)
    if np.isnan(total):
        return whole / 1e6
    if abs(total) >= EXACT or abs(number) >= EXACT:
        return total + whole / 1e6
    before = np.rint(total * 1e6)
    if before / 1e6 != total:  # the product was rounded to the neighbour
        before += 1.0 if before / 1e6 < total else -1.0
    return (before + whole) / 1e6


@numba.njit(numba.void(_TABLE, _IDS, _IDS, _TABLE, _WHOLE, _TRUTHS), nogil=True, cache=True)
def hold(numbers, texts, conditions, bounds, sets, out):  # type: ignore[no-untyped-def]
    """Write to `out` which events count for which `where`, shape (wheres, n).

    Args:
        conditions: a row each: where, 1 of a text or 0 of a number, field, first and end of its texts in `sets`.
        bounds: a row each: minimum and below, NaN where there is none.
    """
    out[:, :] = True
    for c in range(conditions.shape[0]):
        where, field = conditions[c, 0], conditions[c, 2]
        low, below = bounds[c, 0], bounds[c, 1]
        for i in range(out.shape[1]):
            if conditions[c, 1] == 1:
                found, text = False, texts[field, i]
                for s in range(conditions[c, 3], conditions[c, 4]):
                    found = found or sets[s] == text
            else:
                number = numbers[field, i]
                found = (
                    not np.isnan(number) and (np.isnan(low) or number >= low) and (np.isnan(below) or number < below)
                )
            if not found:
                out[where, i] = False


@numba.njit(inline="always")
def _simple(operation, value, number, time):  # type: ignore[no-untyped-def]
    """Return a value, NaN for none, after one event that counts; for operations that need no companion."""
    if operation == COUNT:
        return 1.0 if np.isnan(value) else value + 1.0
    if operation == MOMENT:
        second = float(time // MICROSECONDS)
        return second if np.isnan(value) or second > value else value
    if np.isnan(number):
        return value
    if operation == SUM:
        return _plus(value, number)
    if operation == STATED:
        return 1.0 if np.isnan(value) else value + 1.0
    if np.isnan(value) or (number < value) == (operation == MINIMUM):
        return number
    return value


@numba.njit(
    numba.void(_WHOLE, _TABLE, _IDS, _TRUTHS, _IDS, _WHOLE, numba.boolean[::1], _VECTOR, _WHOLE),
    nogil=True,
    cache=True,
)
def add(times, numbers, texts, truths, specs, since, fresh, row, chosen):  # type: ignore[no-untyped-def]
    """Add events to the scalars of one view, in place; what stands beside a scalar comes after it.

    Args:
        specs: a row each: operation, where, field, window, slot, slot of what is beside it or -1, whether nothing is
            zero.
        since: when each window begins. fresh: whether that is after all that is stored, which then does not count.
        chosen: of each LAST_TEXT the event whose text it is, or STORED, or TIED.
    """
    for s in range(specs.shape[0]):
        operation, where, field, begin = specs[s, 0], specs[s, 1], specs[s, 2], since[specs[s, 3]]
        slot, beside, empty = specs[s, 4], specs[s, 5], 0.0 if specs[s, 6] == 1 else np.nan
        value = row[slot]
        chosen[s] = STORED
        if fresh[specs[s, 3]]:
            value = np.nan
        elif beside >= 0 and operation in (MINIMUM, MAXIMUM) and row[beside] == 0.0:
            value = np.nan  # the zero that says that there is none
        if operation in (LATEST_TEXT, LATEST_NUMBER):
            for i in range(times.shape[0]):
                there = texts[field, i] >= 0 if operation == LATEST_TEXT else not np.isnan(numbers[field, i])
                if there and truths[where, i] and times[i] >= begin and (np.isnan(value) or times[i] > value):
                    value = float(times[i])
        elif operation in (LAST_TEXT, LAST_NUMBER):
            latest = np.nan if fresh[specs[s, 3]] else row[beside]
            value = np.nan if np.isnan(latest) else value
            for i in range(times.shape[0]):
                there = texts[field, i] >= 0 if operation == LAST_TEXT else not np.isnan(numbers[field, i])
                if not there or not truths[where, i] or times[i] < begin:
                    continue
                if np.isnan(latest) or times[i] > latest:
                    latest, chosen[s] = float(times[i]), i
                    value = float(texts[field, i]) if operation == LAST_TEXT else numbers[field, i]
                elif times[i] == latest:
                    if operation == LAST_NUMBER:
                        value = max(value, numbers[field, i])
                    elif value != float(texts[field, i]):
                        chosen[s] = TIED
        else:
            for i in range(times.shape[0]):
                if truths[where, i] and times[i] >= begin:
                    value = _simple(operation, value, numbers[field, i] if field >= 0 else np.nan, times[i])
        row[slot] = empty if np.isnan(value) else value


@numba.njit(numba.void(_IDS, _VECTOR), nogil=True, cache=True)
def divide(quotients, row):  # type: ignore[no-untyped-def]
    """Compute means and shares from their companions, in place.

    Args:
        quotients: a row each: slot, slot of the dividend, slot of the divisor, whether nothing is zero.
    """
    for q in range(quotients.shape[0]):
        slot, dividend, divisor = quotients[q, 0], row[quotients[q, 1]], row[quotients[q, 2]]
        if np.isnan(divisor):
            continue  # stored without it
        if divisor == 0.0:
            row[slot] = 0.0 if quotients[q, 3] == 1 else np.nan
        else:
            row[slot] = (0.0 if np.isnan(dividend) else dividend) / divisor


@numba.njit(numba.int64(_KEYS, _WHOLE, _WHOLE), nogil=True, cache=True)
def place(keys, wanted, at):  # type: ignore[no-untyped-def]
    """Write to `at` where each event's key stands among those of a family: -1 nowhere, -2 the event has none.

    Return how many stand nowhere.
    """
    missing = 0
    for i in range(wanted.shape[0]):
        at[i] = -2 if wanted[i] < 0 else -1
        if wanted[i] >= 0:
            for k in range(keys.shape[0]):
                if keys[k] == wanted[i]:
                    at[i] = k
                    break
            missing += at[i] == -1
    return missing


@numba.njit(
    numba.void(_KEYS, _VALUES, _WHOLE, _WHOLE, _WHOLE, _WHOLE, numba.uint32[::1], _TABLE), nogil=True, cache=True
)
def widen(keys, values, before, new, wanted, at, keys_out, values_out):  # type: ignore[no-untyped-def]
    """Write a family with new keys, which have no values yet, and to `at` where keys stand now.

    Args:
        before: position in `keys` that each new key comes before, ascending. new: the new keys.
    """
    done = 0
    for k in range(keys.shape[0] + 1):
        while done < new.shape[0] and before[done] == k:
            keys_out[k + done] = new[done]
            values_out[:, k + done] = np.nan
            done += 1
        if k < keys.shape[0]:
            keys_out[k + done] = keys[k]
            for m in range(values.shape[0]):
                values_out[m, k + done] = values[m, k]
    for i in range(at.shape[0]):
        if at[i] >= 0:
            shift = 0
            while shift < new.shape[0] and before[shift] <= at[i]:
                shift += 1
            at[i] += shift
        elif at[i] == -1:
            for n in range(new.shape[0]):
                if new[n] == wanted[i]:
                    at[i] = before[n] + n


@numba.njit(
    numba.void(_WHOLE, _TABLE, _TRUTHS, _IDS, _WHOLE, numba.boolean[::1], _WHOLE, _TABLE), nogil=True, cache=True
)
def add_by_key(times, numbers, truths, specs, since, fresh, at, values):  # type: ignore[no-untyped-def]
    """Add events to the measures of a family, in place.

    Args:
        specs: a row a measure: operation, where, field, window.
        at: where the key of each event stands, below 0 nowhere.
    """
    for m in range(specs.shape[0]):
        operation, where, field, begin = specs[m, 0], specs[m, 1], specs[m, 2], since[specs[m, 3]]
        if fresh[specs[m, 3]]:
            values[m, :] = np.nan
        for i in range(times.shape[0]):
            if at[i] >= 0 and truths[where, i] and times[i] >= begin:
                number = numbers[field, i] if field >= 0 else np.nan
                values[m, at[i]] = _simple(operation, values[m, at[i]], number, times[i])
