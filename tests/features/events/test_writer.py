"""The writer of the event log: batches that wait share a transaction, and those that wait are bounded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from features.events.log import counts
from features.events.log_errors import LogUnavailable
from features.events.rows import EventCounts
from features.events.sqlite_file import LogLimits
from features.events.writer import EventWriter, LogBusy
from tests.features.event_child import happened, item
from tests.features.events.log_cases import outcomes


def test_writer_shares_transactions_and_is_bounded(tmp_path: Path) -> None:
    """Batches that wait are written together, each gets its own results, and beyond the bound they are refused at
    once.
    """

    async def scenario() -> None:
        writer = EventWriter(tmp_path, LogLimits(free_bytes_min=0, waiting_rows_max=300))
        batches = [[item(happened(f"{at}-{row}")) for row in range(3)] for at in range(100)]
        answers = await asyncio.gather(*(writer.append(batch) for batch in batches))
        assert {outcome for answer in answers for outcome in outcomes(answer)} == {"stored"}
        assert [len(answer) for answer in answers] == [3] * 100
        places = [result.seq for answer in answers for result in answer]
        assert places == sorted(set(places))
        with pytest.raises(LogBusy):
            await writer.append([item(happened(f"x{at}")) for at in range(301)])
        writer.close()
        with pytest.raises(LogUnavailable):
            await writer.append([item(happened("y"))])

    asyncio.run(scenario())
    assert counts(tmp_path) == EventCounts(300, 300, 0, 0, 0)
