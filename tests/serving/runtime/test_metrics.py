"""Counters and histograms: exact over several processes and their restarts, and readable by Prometheus' own parser."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serving.runtime.metric_families import OTHER, ROW_NAME_BYTES, Counter, Gauge, Histogram, LabelTable
from serving.runtime.metrics import Metrics
from serving.runtime.slots_folder import memory_directory
from tests.waiting import LIMIT_S

ROUNDS = 2_000


def declared() -> tuple[Metrics, Counter, Histogram, Gauge]:
    metrics = Metrics()
    counter = metrics.counter("test_total", "Things.", route=("a", "b"), status=("200", "400"))
    histogram = metrics.histogram("test_seconds", "Time.", (0.001, 0.01), stage=("read", "score"))
    gauge = metrics.gauge("test_in_flight", "Now.")
    metrics.info("test_bundle_info", "What is served.", "name", "bundle")
    return metrics, counter, histogram, gauge


def samples(metrics: Metrics) -> dict[str, float]:
    """All samples, parsed by Prometheus' own parser, as `name{label=value,…}`."""
    found = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def work(directory: Path, hang: bool) -> None:
    metrics, counter, histogram, gauge = declared()
    metrics.attach(directory)
    metrics.set_info("model", str(os.getpid()))
    slot = histogram.slot("read")
    gauge.set(3)
    for _ in range(ROUNDS):
        counter.add("a", "200")
        histogram.observe(500_000, slot)
    (directory / f"done-{os.getpid()}").touch()
    while hang:
        time.sleep(0.05)


def started(directory: Path, hang: bool = True) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=work, args=(directory, hang), daemon=True)
    process.start()
    deadline = time.monotonic() + LIMIT_S
    while not (directory / f"done-{process.pid}").exists():
        assert time.monotonic() < deadline, "the worker did not finish"
        time.sleep(0.01)
    return process


def test_several_workers_and_restarts(tmp_path: Path) -> None:
    """Any worker answers with the sums of all, living and killed; a restarted worker counts on; gauges are of the
    living only.
    """
    metrics, _, _, _ = declared()
    metrics.attach(tmp_path)
    first, second = started(tmp_path), started(tmp_path)
    name, seconds = "test_total{route=a,status=200}", "test_seconds_count{stage=read}"
    found = samples(metrics)
    assert (found[name], found[seconds], found["test_in_flight{}"]) == (2 * ROUNDS, 2 * ROUNDS, 6)
    assert {f"test_bundle_info{{bundle={one.pid},name=model}}" for one in (first, second)} <= set(found)
    assert first.pid
    os.kill(first.pid, signal.SIGKILL)
    first.join(10)
    found = samples(metrics)
    assert (found[name], found["test_in_flight{}"]) == (2 * ROUNDS, 3)
    assert f"test_bundle_info{{bundle={first.pid},name=model}}" not in found
    third = started(tmp_path)
    assert samples(metrics)[name] == 3 * ROUNDS
    assert len(list(tmp_path.glob("*.slots"))) == 3, "the dead worker's file was not taken over"
    for process in (second, third):
        process.kill()
        process.join(10)
    assert samples(metrics)[name] == 3 * ROUNDS


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20_000_000), max_size=30))
def test_histogram_against_counting(durations: list[int]) -> None:
    """Buckets, sum and count are what counting by hand gives, bounds included."""
    metrics, _, histogram, _ = declared()
    for duration in durations:
        histogram.observe(duration, histogram.slot("score"))
    found = samples(metrics)
    for label, bound in (("0.001", 1_000_000), ("0.01", 10_000_000), ("+Inf", 10**12)):
        assert found[f"test_seconds_bucket{{le={label},stage=score}}"] == sum(
            duration <= bound for duration in durations
        )
    assert found["test_seconds_count{stage=score}"] == len(durations)
    assert found["test_seconds_sum{stage=score}"] == pytest.approx(sum(durations) / 1e9)


def test_exposition_is_prometheus_text(tmp_path: Path) -> None:
    """Every family has its help and type, label values are escaped, and all series stand there from the start at
    zero.
    """
    metrics, _, _, _ = declared()
    awkward = 'quote " backslash \\ newline \n'
    metrics.set_info(awkward, "sha256:0")
    metrics.attach(tmp_path / "deep" / "er")
    families = {family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())}
    assert {name: family.type for name, family in families.items()} == {
        "test": "counter",
        "test_seconds": "histogram",
        "test_in_flight": "gauge",
        "test_bundle_info": "gauge",
    }
    assert [sample.labels["name"] for sample in families["test_bundle_info"].samples] == [awkward]
    assert len(families["test"].samples) == 4
    assert all(sample.value == 0 for sample in families["test_seconds"].samples)


def test_labels_are_closed_sets() -> None:
    """A label value that was not declared is an error at the place that uses it, never a new series."""
    _, counter, histogram, _ = declared()
    with pytest.raises(KeyError):
        counter.add("a", "500")
    with pytest.raises(KeyError):
        histogram.slot("unknown")


def test_slots_known_before_attaching_stay_right(tmp_path: Path) -> None:
    """A slot looked up and counted in before `attach` is the same slot afterwards, and what was counted is kept."""
    metrics, counter, _, gauge = declared()
    slot = counter.slot("b", "400")
    counter.add_at(slot)
    gauge.set(5)
    metrics.attach(tmp_path)
    counter.add_at(slot)
    found = samples(metrics)
    assert (found["test_total{route=b,status=400}"], found["test_in_flight{}"]) == (2, 5)


def test_files_of_another_version_are_left_out(tmp_path: Path) -> None:
    """Slots of another layout are not added up, a foreign or damaged file is replaced, and late declarations are
    refused.
    """
    other = Metrics()
    other.counter("other_total", "Other.")
    other.attach(tmp_path)
    (tmp_path / "1.slots").write_bytes(b"damaged")
    metrics, counter, _, _ = declared()
    metrics.attach(tmp_path)
    counter.add("a", "200")
    found = samples(metrics)
    assert found["test_total{route=a,status=200}"] == 1
    assert "other_total{}" not in found
    assert (tmp_path / "1.slots").stat().st_size > 4096
    with pytest.raises(RuntimeError, match="before `attach`"):
        metrics.counter("late_total", "Late.")
    with pytest.raises(RuntimeError, match="attached already"):
        metrics.attach(tmp_path)


def test_memory_directory(tmp_path: Path) -> None:
    """The slots lie on a memory file system where there is one, private, at one place for one data directory."""
    place = memory_directory(tmp_path)
    try:
        assert place == memory_directory(tmp_path)
        assert place != memory_directory(tmp_path / "other")
        if Path("/dev/shm").exists():
            assert place.parent == Path("/dev/shm")
            assert place.stat().st_mode & 0o777 == 0o700
    finally:
        for made in (place, memory_directory(tmp_path / "other")):
            if made.exists():
                made.rmdir()


def tabled(directory: Path | None, rows: int = 4) -> tuple[Metrics, LabelTable]:
    """Metrics with a table between two counters, as one process has them."""
    metrics = Metrics()
    metrics.counter("test_before_total", "Before.").add(count=7)
    table = metrics.table("test_arm", ("experiment", "arm"), {"shown_total": "Shown.", "kept_total": "Kept."}, rows)
    metrics.counter("test_after_total", "After.").add(count=8)
    if directory is not None:
        metrics.attach(directory)
    return metrics, table


def test_rows_of_a_table(tmp_path: Path) -> None:
    """Processes that met other arms, in another order, are added up by name; the next process of a file goes on with
    its rows.
    """
    made, spare = tabled(tmp_path), tabled(tmp_path)
    for at, (_, table) in enumerate((made, spare)):
        for arm in ("a", "b") if at else ("b", "a"):
            slot = table.row("e", arm)
            assert slot == table.row("e", arm)
            for column in range(2):
                table.slots[slot + column] += 1 + at
    own = made[1].row("own", 'quote " and \\')
    made[1].slots[own + 1] += 5
    for metrics in (made[0], spare[0]):
        found = samples(metrics)
        assert (
            found["test_arm_shown_total{arm=a,experiment=e}"],
            found["test_arm_kept_total{arm=b,experiment=e}"],
        ) == (3, 3)
        assert found['test_arm_kept_total{arm=quote " and \\,experiment=own}'] == 5
        assert (found["test_before_total{}"], found["test_after_total{}"]) == (14, 16)
    process = multiprocessing.get_context("fork").Process(target=again, args=(tmp_path,))
    process.start()
    process.join(20)
    found = samples(made[0])
    assert (process.exitcode, found["test_arm_shown_total{arm=c,experiment=e}"]) == (0, 1)
    third, table = tabled(tmp_path)  # of the file that the process has left
    slot = table.row("e", "c")
    table.slots[slot] += 1
    assert samples(third)["test_arm_shown_total{arm=c,experiment=e}"] == 2
    assert len(list(tmp_path.glob("*.slots"))) == 3


def test_a_torn_name_costs_its_file(tmp_path: Path) -> None:
    """A file in which a power cut left a length without its text is not added up, and begun anew by the process that
    takes it over.
    """
    process = multiprocessing.get_context("fork").Process(target=again, args=(tmp_path,))
    process.start()
    process.join(120)
    file = tmp_path / "0.slots"
    content = file.read_bytes()
    at = content.index(b'["e","c"]')
    (tmp_path / "7.slots").write_bytes(content[:at] + bytes(9) + content[at + 9 :])
    metrics, _ = tabled(tmp_path)
    assert samples(metrics)["test_arm_shown_total{arm=c,experiment=e}"] == 1
    (tmp_path / "1.slots").write_bytes(content[:at] + bytes(9) + content[at + 9 :])
    second, table = tabled(tmp_path)
    table.slots[table.row("e", "c")] += 1
    assert samples(second)["test_arm_shown_total{arm=c,experiment=e}"] == 2
    assert samples(second)["test_before_total{}"] == 7 * 3


def again(directory: Path) -> None:
    _, table = tabled(directory)
    table.slots[table.row("e", "c")] += 1


@pytest.mark.parametrize("attached", [True, False])
def test_a_full_table(tmp_path: Path, attached: bool) -> None:
    """What finds no row, or has too long a name, shares the first one, and no row is given up."""
    metrics, table = tabled(tmp_path if attached else None, rows=3)
    slots = [table.row("e", arm) for arm in ("a", "b", "c", "d", "a", "x" * ROW_NAME_BYTES)]
    assert slots[2] == slots[3] == slots[5] == table.row(OTHER, OTHER) and slots[4] == slots[0] != slots[1]
    for slot in slots:
        table.slots[slot] += 1
    found = samples(metrics)
    assert {name: value for name, value in found.items() if name.startswith("test_arm_shown")} == {
        "test_arm_shown_total{arm=a,experiment=e}": 2,
        "test_arm_shown_total{arm=b,experiment=e}": 1,
        "test_arm_shown_total{arm=other,experiment=other}": 3,
    }


def test_rows_before_the_file(tmp_path: Path) -> None:
    """What was counted before `attach` is kept, by name, also where the file has other rows."""
    first, table = tabled(tmp_path)
    table.slots[table.row("e", "a")] += 1
    process = multiprocessing.get_context("fork").Process(target=again, args=(tmp_path,))
    process.start()
    process.join(20)
    metrics, early = tabled(None)
    early.slots[early.row("e", "z")] += 1
    early.slots[early.row("e", "c")] += 1
    metrics.attach(tmp_path)
    found = samples(first)
    assert [found[f"test_arm_shown_total{{arm={arm},experiment=e}}"] for arm in "acz"] == [1, 2, 1]
