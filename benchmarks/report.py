"""The report: bars beside measured values, by how much the obvious composition is beaten, and the JSON that is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from benchmarks import machine
from benchmarks.bars import Measured
from features.common.files import write_whole


class Report(msgspec.Struct):
    """What `latest.json` holds. `rows` are all measurements; latencies in milliseconds."""

    machine: dict[str, Any]
    rows: list[dict[str, Any]]
    bars: list[Measured]
    scoring: dict[str, Any]
    growth: dict[str, Any]
    quick: bool
    checked: int
    """Answers that were compared with the oracle."""


def write(report: Report, folder: Path) -> Path:
    """Write `latest.json` and the same under its date."""
    folder.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(report), indent=1)
    stamp = "".join(c for c in report.machine["date"][:16] if c.isdigit())
    write_whole(folder / f"{stamp}.json", text)
    write_whole(folder / "latest.json", text)
    return folder / "latest.json"


def table(report: Report) -> str:
    """The table "Must reach" with what was measured."""
    lines = [machine.line(report.machine), "", f"{'figure':88} {'measured':>12} {'bar':>10} {'reach for':>10}"]
    for bar in report.bars:
        sign = "≥" if bar.better == "higher" else "≤"
        value = f"{bar.value:,.2f}" if bar.value is not None else "none"
        mark = "ok" if bar.ok else f"MISSED {bar.reason}".strip()
        lines.append(
            f"{bar.name:88} {value:>12} {sign + format(bar.bar, 'g'):>10} {sign + format(bar.reach, 'g'):>10}"
            f" {bar.unit}  {mark}"
        )
    reached = sum(bar.ok for bar in report.bars)
    lines += [
        "",
        (
            f"{reached} of {len(report.bars)} bars reached; {report.checked:,} answers compared with the oracle, all"
            " equal."
        ),
    ]
    return "\n".join(lines)


def factors(report: Report) -> str:
    """By how much the obvious composition is beaten, for each catalogue: medians of p50 over one connection."""
    lines = []
    for offers in sorted(
        {row["offers"] for row in report.rows if row["kind"] == "latency" and row["rival"].startswith("(c)")}
    ):
        found = {
            rival: [
                row["p50"]
                for row in report.rows
                if row["kind"] == "latency" and row["offers"] == offers and row["rival"].startswith(rival)
            ]
            for rival in ("(c) obvious composition, embedded", "(d) ours, embedded", "(d) ours, redis")
        }
        middle = {rival: sorted(times)[len(times) // 2] for rival, times in found.items() if times}
        slow = middle.pop("(c) obvious composition, embedded", None)
        if slow is None:
            continue
        beaten = ", ".join(
            f"{rival.removeprefix('(d) ours, ')} {time:.3f} ms = {slow / time:.0f} times faster"
            for rival, time in middle.items()
        )
        lines.append(f"{offers:6,} offers: obvious {slow:.2f} ms; ours {beaten}")
    return "\n".join(lines)
