"""Limits and pauses of a whole policy against one contact history, as machine code over words: 6 an entry, 4 a limit, 5
a pause.
"""

from __future__ import annotations

import numba
import numpy as np

from features.contact_history.history import DECISION, GAP, IMPRESSION, OUTCOME

_WORDS = numba.types.Array(numba.uint64, 1, "C", readonly=True)
_CHOICES = numba.types.Array(numba.uint16, 1, "C", readonly=True)
_FELL = numba.int64[::1]
_FLAGS = numba.uint8[:, ::1]
_CONTACTS, _OUTCOMES = 0, OUTCOME


@numba.njit(nogil=True)
def _kind(words, at):  # type: ignore[no-untyped-def]
    return (words[6 * at + 5] >> np.uint64(32)) & np.uint64(0xFF)


@numba.njit(nogil=True)
def _gap(words, times, what):  # type: ignore[no-untyped-def]
    """Return the time until which entries are missing; minus infinity where none is."""
    until = -np.inf
    for at in range(words.shape[0] // 6):
        if _kind(words, at) == GAP and words[6 * at + 4] >> np.uint64(32) == what and times[6 * at] > until:
            until = times[6 * at]
    return until


@numba.njit(nogil=True)
def _ways(words, times, held):  # type: ignore[no-untyped-def]
    """Return how each entry counts: 1 as a decision, 2 as an impression, 3 as both."""
    ways = np.zeros(words.shape[0] // 6, np.uint8)
    for at in range(ways.shape[0]):
        kind = _kind(words, at)
        if kind == IMPRESSION:
            ways[at] = 2
        elif kind == DECISION:
            seen = (words[6 * at + 5] >> np.uint64(40)) & np.uint64(0xFF) != 0 or times[6 * at] > held
            ways[at] = 3 if seen else 1
    return ways


@numba.njit(nogil=True)
def _tally(words, times, ways, most, since, bits, key):  # type: ignore[no-untyped-def]
    """Return how many entries a limit counts for a key, up to `most`; the limit's last word says of which kind."""
    scope, channel = (bits >> np.uint64(32)) & np.uint64(0xFF), bits & np.uint64(0xFFFF_FFFF)
    way = np.uint8(2 if (bits >> np.uint64(40)) & np.uint64(0xFF) else 1)
    column = 1 if scope == 1 else 3
    found = 0
    for at in range(ways.shape[0] - 1, -1, -1):  # from the youngest, which are more often within the window
        if not ways[at] & way or times[6 * at] <= since or (scope != 0 and words[6 * at + column] != key):
            continue
        found += channel == 0 or words[6 * at + 4] & np.uint64(0xFFFF_FFFF) == channel
        if found >= most:
            break
    return found


@numba.njit(nogil=True)
def _firsts(words, ways, column, firsts):  # type: ignore[no-untyped-def]
    """Write to `firsts`, for each contact, the first one with the same key."""
    for at in range(ways.shape[0]):
        key, first = words[6 * at + column], 0
        while words[6 * first + column] != key or not ways[first]:
            if first == at:
                break
            first += 1
        firsts[at] = first


@numba.njit(nogil=True)
def _flag_each(words, times, ways, firsts, most, since, bits, counts, flags):  # type: ignore[no-untyped-def]
    """Flag the first entry of each key that a limit is exhausted for. Return whether there is one."""
    channel, some = bits & np.uint64(0xFFFF_FFFF), False
    way = np.uint8(2 if (bits >> np.uint64(40)) & np.uint64(0xFF) else 1)
    counts[:] = 0
    for at in range(ways.shape[0]):
        if (
            ways[at] & way
            and times[6 * at] > since
            and (channel == 0 or words[6 * at + 4] & np.uint64(0xFFFF_FFFF) == channel)
        ):
            first = firsts[at]
            counts[first] += 1
            if counts[first] >= most:
                flags[first] = 1
                some = True
    return some


@numba.njit(numba.boolean(_WORDS, _WORDS, numba.float64, numba.float64, _FLAGS), nogil=True, cache=True)
def flag_limits(words, limits, now, hold, flags):  # type: ignore[no-untyped-def]
    """Flag, limit by limit, the first entry of each key that is exhausted; in the last column, that all of the limit's
    scope is.
    """
    times, spans = words.view(np.float64), limits.view(np.float64)
    n, some = words.shape[0] // 6, False
    until, ways = _gap(words, times, _CONTACTS), _ways(words, times, now - hold)
    firsts, counts = np.empty((2, n), np.int64), np.empty(n, np.int64)
    _firsts(words, ways, 1, firsts[0])
    _firsts(words, ways, 3, firsts[1])
    for which in range(limits.shape[0] // 4):
        most, since, key, bits = (
            spans[4 * which],
            now - spans[4 * which + 1],
            limits[4 * which + 2],
            limits[4 * which + 3],
        )
        scope = (bits >> np.uint64(32)) & np.uint64(0xFF)
        if most <= 0 or until > since:
            flags[which, n] = 1
        elif scope == 0 or key != 0:
            flags[which, n] = _tally(words, times, ways, most, since, bits, key) >= most
        else:
            some |= _flag_each(
                words, times, ways, firsts[0 if scope == 1 else 1], most, since, bits, counts, flags[which]
            )
        some |= flags[which, n] != 0
    return some


@numba.njit(numba.boolean(_WORDS, _WORDS, numba.float64, _FLAGS), nogil=True, cache=True)
def flag_pauses(words, pauses, now, flags):  # type: ignore[no-untyped-def]
    """Flag, pause by pause, the outcomes whose key is paused; in the last column, that all of the pause's scope is."""
    times, spans = words.view(np.float64), pauses.view(np.float64)
    n, some = words.shape[0] // 6, False
    until = _gap(words, times, _OUTCOMES)
    for which in range(pauses.shape[0] // 5):
        rule = 5 * which
        needed, within, pause, key, bits = (
            spans[rule],
            spans[rule + 1],
            spans[rule + 2],
            pauses[rule + 3],
            pauses[rule + 4],
        )
        scope, what = (bits >> np.uint64(32)) & np.uint64(0xFF), bits & np.uint64(0xFFFF_FFFF)
        column = 1 if scope == 1 else 3
        if until + within + pause > now:
            flags[which, n] = 1
            some = True
            continue
        for last in range(n):
            if (
                _kind(words, last) != OUTCOME
                or words[6 * last + 4] >> np.uint64(32) != what
                or now >= times[6 * last] + pause
            ):
                continue
            own = words[6 * last + column]
            if scope != 0 and key != 0 and own != key:
                continue
            found = 0
            for at in range(n):
                if _kind(words, at) == OUTCOME and words[6 * at + 4] >> np.uint64(32) == what:
                    ours = scope == 0 or words[6 * at + column] == own
                    found += ours and times[6 * at] <= times[6 * last] and times[6 * last] - times[6 * at] <= within
            if found >= needed:
                flags[which, n if scope == 0 or key != 0 else last] = 1
                some = True
    return some


@numba.njit(nogil=True)
def _there(words, ways, offer, decision):  # type: ignore[no-untyped-def]
    """Return whether a decision's contact with an offer is in a history."""
    there = False
    for at in range(ways.shape[0]):
        there |= words[6 * at + 2] == decision and words[6 * at + 1] == offer and ways[at] != 0
    return there


@numba.njit(nogil=True)
def _refused(words, times, ways, asked, c, fell, chosen, limits, spans, now, until):  # type: ignore[no-untyped-def]
    """Return the first of its limits that contact `c` would exceed after those before it, or -1."""
    for position in chosen:
        most, since, key, bits = (
            spans[4 * position],
            now - spans[4 * position + 1],
            limits[4 * position + 2],
            limits[4 * position + 3],
        )
        scope, channel = (bits >> np.uint64(32)) & np.uint64(0xFF), bits & np.uint64(0xFFFF_FFFF)
        column = 1 if scope == 1 else 3
        if key == 0:
            key = asked[6 * c + column]
        found = _tally(words, times, ways, most, since, bits, key)
        for before in range(c):
            if fell[before] == -1 and (scope == 0 or asked[6 * before + column] == key):
                found += channel == 0 or asked[6 * before + 4] & np.uint64(0xFFFF_FFFF) == channel
        if until > since or found >= most:
            return position
    return -1


@numba.njit(numba.int64(*[_WORDS] * 2, _CHOICES, _WORDS, *[numba.float64] * 2, _FELL), nogil=True, cache=True)
def fits(words, asked, choices, limits, now, hold, fell):  # type: ignore[no-untyped-def]
    """Try contacts one after the other: `fell` gets -1 for one that is new, -2 for one that is there, or the limit
    that it would exceed.

    Args:
        words: a history.
        asked: the entries of the contacts.
        choices: for each contact the number of its limits, and their positions.

    Returns:
        How many contacts the history has; -1 when one fell.
    """
    times, spans = words.view(np.float64), limits.view(np.float64)
    until, ways, refused, choice = _gap(words, times, _CONTACTS), _ways(words, times, now - hold), False, 0
    for c in range(asked.shape[0] // 6):
        offer = asked[6 * c + 1]
        chosen = choices[choice + 1 : choice + 1 + choices[choice]]
        choice += 1 + choices[choice]
        there = _there(words, ways, offer, asked[6 * c + 2])
        for before in range(c):
            there |= fell[before] < 0 and asked[6 * before + 1] == offer
        if there:
            fell[c] = -2
        else:
            fell[c] = _refused(words, times, ways, asked, c, fell, chosen, limits, spans, now, until)
            refused |= fell[c] >= 0
    return -1 if refused else np.count_nonzero(ways)
