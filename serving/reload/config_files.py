"""The files of a workspace, and the record of its ramps, as a running server sees them change: read again, checked
whole, and taken or refused.

What may change while a server runs is what decides: policies, offers, placements, treatments, and columns that only
rules use. What the server was built on (where data lies, the views of the store) takes a restart, and a bundle for
other columns takes a training.
"""

from __future__ import annotations

from dataclasses import replace

from features.common.errors import Failure
from features.config.faults import BadWorkspace
from features.validation.load import FILES, load
from features.workspace.ramps import RECORD
from features.workspace.workspace import Workspace

Stamp = tuple[tuple[int, int, int], ...]
"""When each file was written, in nanoseconds since 1970, its size and its number on the disk; zeros for one that is not
there.
"""


def stamp_of(workspace: Workspace) -> Stamp:
    """Return what tells that a file has changed; some microseconds."""
    found = []
    for file in (*(workspace.folder / name for name in FILES), workspace.data / RECORD):
        try:
            status = file.stat()
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


def ramps_again(last: Workspace) -> Workspace:
    """Return the workspace as it was last taken, with its ramps as they are now: rolling back must not wait until
    somebody mends a file.
    """
    found = replace(last)
    try:
        return last if found.ramps == last.ramps else found
    except OSError:
        return last


def read_again(serving: Workspace) -> Workspace | str:
    """Return the workspace as its files are now, or why it is not taken; `serving` is what the server was built on."""
    try:
        found = load(serving.folder, sources=False)
        found.ramps  # noqa: B018 (read now, with the files: what is written later makes another stamp)
    except BadWorkspace as bad:
        return str(bad)
    except (Failure, OSError, UnicodeDecodeError) as error:
        return f"{type(error).__name__}: {error}"
    except Exception as fault:  # noqa: BLE001 (a file may hold anything: whatever it breaks is why it is refused, and the watch goes on)
        return f"the files cannot be read: {type(fault).__name__}: {fault}"
    before, after = serving.settings, found.settings
    for what, one, other in (
        ("name", before.name, after.name),
        ("data", before.data, after.data),
        ("stores", before.stores, after.stores),
        ("the columns that are kept of a customer", serving.views, found.views),
    ):
        if one != other:
            return (
                f"{what} changed: restart the server to take it, after `opportune up` where data must be computed again"
            )
    return found
