"""Facts of the doctor from the machine: the disk of the data folder, and the keys."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from features.common.clock import notice, now_s, written_s
from features.common.files import NotPlain, read_plain
from features.common.timestamps import DAY_SECONDS, duration_seconds
from features.lake.files import is_imported
from features.workspace.workspace import Workspace
from pipelines.doctor.facts.facts import MachineFacts
from serving.http.auth import FILE_VARIABLE, TEXT_VARIABLE, BadKeys, KeyEntry, parse_keys

GROWTH_DAYS = 7
KEYS_FILE_BYTES_MAX = 8 << 20


def place_of(workspace: Workspace) -> Path:
    """Return the data folder, or the workspace's own where there is none yet."""
    return workspace.data if workspace.data.is_dir() else workspace.folder


def machine(workspace: Workspace) -> MachineFacts:
    """Return how full the disk is, how the lake grows, and which keys there are."""
    place = place_of(workspace)
    usage, system = shutil.disk_usage(place), os.statvfs(place)
    total, young, since = 0, 0, now_s() - GROWTH_DAYS * DAY_SECONDS
    for file in workspace.lake.rglob("*.parquet"):
        with contextlib.suppress(FileNotFoundError):
            stat = file.stat()
            total += stat.st_size
            young += stat.st_size if written_s(stat) > since and not is_imported(file) else 0
    kept = workspace.settings.retention
    texts = (kept.decisions, kept.impressions, kept.outcomes, kept.recorded)
    days = None if None in texts else max(duration_seconds(text) / DAY_SECONDS for text in texts if text)
    known = (usage.free, usage.total, total, young / GROWTH_DAYS, days)
    free, names = system.f_favail, system.f_files
    try:
        entries = _keys()
    except (BadKeys, OSError) as fault:
        return MachineFacts(*known, 0, 0, 0, str(fault), free, names, notice())
    expired = sum(entry.expires is not None and entry.expires.timestamp() <= now_s() for entry in entries)
    forever = sum(entry.expires is None for entry in entries)
    return MachineFacts(*known, len(entries), forever, expired, "", free, names, notice())


def _keys() -> tuple[KeyEntry, ...]:
    path, text = os.environ.get(FILE_VARIABLE), os.environ.get(TEXT_VARIABLE)
    if path:
        try:
            return parse_keys(read_plain(Path(path), KEYS_FILE_BYTES_MAX).decode(), path)
        except NotPlain as refusal:
            raise BadKeys(f"{path}: {refusal}") from None
        except UnicodeDecodeError:
            raise BadKeys(f"{path}: expected UTF-8 text, got bytes that are none") from None
    return parse_keys(text, TEXT_VARIABLE) if text else ()
