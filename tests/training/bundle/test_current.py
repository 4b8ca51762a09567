"""The bundle that serves: which one `current` names, which stay beside it, and what its readers see."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.training.bundle.bundle_cases import contents_of, manifest_of, refusal, written
from training.bundle import bundle
from training.bundle.bundle import BadBundle


def several(folder: Path, count: int) -> list[Path]:
    contents, contract = contents_of(1, folder)
    return [
        bundle.write(folder / "bundles", contents, manifest_of(contract, version=str(number)))
        for number in range(count)
    ]


def test_one_serves_and_the_latest_are_kept(tmp_path: Path) -> None:
    """`switch` names the one that serves; of older ones so many stay, in the order in which they served last."""
    folder = tmp_path / "bundles"
    assert bundle.current(folder) is None
    places = several(tmp_path, bundle.KEPT + 3)
    for place in places:
        bundle.switch(folder, place)
        assert bundle.current(folder) == place
    assert [place.exists() for place in places] == [False] * 3 + [True] * bundle.KEPT
    oldest = places[3]
    bundle.switch(folder, oldest)
    assert bundle.current(folder) == oldest and bundle.read(oldest)
    newer = several(tmp_path, bundle.KEPT + 4)[-1]
    bundle.switch(folder, newer)
    assert oldest.exists() and not places[4].exists()  # what served a moment ago is not the oldest
    assert (folder / bundle.HISTORY).read_text().split()[-2:] == [oldest.name, newer.name]
    assert len((folder / bundle.HISTORY).read_text().split()) == bundle.KEPT


def test_readers_see_the_old_or_the_new_one(tmp_path: Path) -> None:
    """While one process switches, another that reads `current` always finds a whole bundle."""
    folder, places = tmp_path / "bundles", several(tmp_path, 2)
    bundle.switch(folder, places[0])
    stop, seen, wrong = threading.Event(), set(), []

    def reader() -> None:
        while not stop.is_set():
            place = bundle.current(folder)
            seen.add(place)
            try:
                assert place is not None
                bundle.read(place)
            except (BadBundle, AssertionError) as error:
                wrong.append(error)

    thread = threading.Thread(target=reader)
    thread.start()
    for number in range(60):
        bundle.switch(folder, places[number % 2])
    stop.set()
    thread.join()
    assert not wrong and seen <= set(places) and seen


def test_a_damaged_pointer_is_refused_and_does_not_crash(tmp_path: Path) -> None:
    """Whatever stands in `current`, reading what it leads to says that there is no bundle, and switching mends it."""
    place = written(tmp_path)
    folder = place.parent
    for content in (b"", b"\xff\xfe\0", b"../..", b"none\n", b"a" * 5_000):
        (folder / bundle.CURRENT).write_bytes(content)
        found = bundle.current(folder)
        assert found is not None
        refusal(found)
    bundle.switch(folder, place)
    assert bundle.current(folder) == place
