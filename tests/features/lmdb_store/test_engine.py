"""What only the embedded engine has to bear: damaged, cut and swapped files, a map that is too small, other processes'
words.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from feast import FeatureStore

from features.columns.rows import StoreUnavailable
from features.lmdb_store.environment import CURRENT, DATA, attach, current, new_generation, publish
from tests.features.feast_fixtures import feast_store, view
from tests.features.store_cases import Arena, moment, same_as_sdk, sdk, write

SHOP = view("shop", {"age": "number", "city": "category"}, {"by_group": ["spend"]})


def row(i: int, city: str = "") -> dict[str, object]:
    keys = [f"g{k}" for k in range(i % 50)]
    return {
        "age": float(i),
        "city": city or f"city {i % 9}",
        "by_group__keys": keys,
        "by_group__spend": [float(i)] * len(keys),
    }


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    found = Arena("embedded", tmp_path, None)
    yield found
    found.close()


@pytest.fixture
def store(arena: Arena) -> FeatureStore:
    """A store of 2,000 customers."""
    made = arena.store(SHOP)
    write(made, SHOP, [(str(i), row(i), 1.0) for i in range(2_000)])
    return made


def data_file(arena: Arena) -> Path:
    root = arena.folder / "online"
    return root / current(root) / DATA


def test_later_created_wins(arena: Arena) -> None:
    """Of two rows with the same event time the later created one is kept, in either order; on Redis Feast keeps the
    first.
    """
    store = arena.store(SHOP, created=True)
    engine = arena.engine(SHOP)
    write(store, SHOP, [("1", row(1), 1.0), ("2", row(2), 1.0), ("3", row(3), 1.0)], created=[5.0, 5.0, 5.0])
    write(store, SHOP, [("1", row(10), 1.0), ("2", row(20), 1.0), ("3", row(30), 1.0)], created=[6.0, 4.0, 5.0])
    assert [arena.read(engine, str(i)).numbers[0] for i in (1, 2, 3)] == [10.0, 2.0, 3.0]
    write(store, SHOP, [("4", row(4), 1.0), ("4", row(40), 1.0), ("4", row(41), 0.5)], created=[5.0, 6.0, 7.0])
    assert arena.read(engine, "4").numbers[0] == 40.0


def test_changed_view_is_computed_again(arena: Arena) -> None:
    """Rows of a view that has changed its fields are taken again for the same event time."""
    write(arena.store(SHOP), SHOP, [("1", row(1), 1.0)])
    wider = view("shop", {"age": "number", "city": "category", "new": "number"}, {"by_group": ["spend"]})
    store = arena.store(wider)
    write(store, wider, [("1", {**row(1), "new": 5.0}, 1.0)])
    engine = arena.engine(wider)
    same_as_sdk(engine, arena.read(engine, "1"), store, (wider,), "1")
    assert arena.read(engine, "1").numbers[2] == 5.0


def test_words_of_other_writers(arena: Arena, store: FeatureStore) -> None:
    """Two stores that do not know of each other's words, and an engine that was there first, agree on them."""
    engine = arena.engine(SHOP)
    arena.read(engine, "1")
    other = feast_store(arena.folder, arena.online, project=arena.project)
    for number, writing in enumerate((store, other, store, other)):
        write(writing, SHOP, [(f"w{number}", row(3, f"new city {number}"), 1.0)])
    for number in range(4):
        same_as_sdk(engine, arena.read(engine, f"w{number}"), other, (SHOP,), f"w{number}")


def test_rebuild_is_swapped_in(arena: Arena, store: FeatureStore) -> None:
    """A new generation is filled beside the old one and swapped in whole; word ids that were given stay what they
    were.
    """
    root = arena.folder / "online"
    engine = arena.engine(SHOP)
    before = arena.read(engine, "5")
    known = list(engine.words.texts)
    for turn in range(3):
        name = new_generation(root)
        rebuilt = feast_store(
            arena.folder / f"rebuild{turn}", {**arena.online, "generation": name}, (SHOP,), project=arena.project
        )
        write(rebuilt, SHOP, [(str(i), row(i, f"{turn}: {i % 7}"), 2.0 + turn) for i in range(50)])
        assert arena.read(engine, "5").numbers[0] == before.numbers[0]
        publish(root, name)
        write(
            store, SHOP, [("after", row(turn, "after"), 10.0 + turn)]
        )  # a writer that was there before writes to the new one
        arena.recovers(engine, "5", lambda row, turn=turn: engine.words.texts[int(row.numbers[1])] == f"{turn}: 5")  # type: ignore[misc]
        assert engine.words.texts[: len(known)] == known
        assert not arena.read(engine, "1999").known
        assert arena.read(engine, "after").numbers[0] == float(turn)
        same_as_sdk(engine, arena.read(engine, "5"), store, (SHOP,), "5")
    assert len(list(root.glob("g-*"))) == 2
    assert engine.damaged == 0


@pytest.mark.parametrize(
    "loss", ["file", "folder", "pointer", "empty", "cut", "header", "meta", "garbage", "pointing nowhere"]
)
def test_lost_and_damaged_files(arena: Arena, store: FeatureStore, loss: str) -> None:
    """A file that is deleted, cut or overwritten is unavailable, now and to who comes after; a rebuild mends it for
    all.
    """
    engine = arena.engine(SHOP)
    assert arena.read(engine, "7").known
    file, root = data_file(arena), arena.folder / "online"
    size = file.stat().st_size
    if loss == "file":
        file.unlink()
    elif loss == "folder":
        file.rename(arena.folder / "away")
        (file.parent / "lock.mdb").unlink()
        file.parent.rmdir()
    elif loss == "pointer":
        (root / CURRENT).unlink()
    elif loss == "pointing nowhere":
        (root / CURRENT).write_text("../../etc")
    elif loss in ("empty", "cut", "header"):
        os.truncate(file, {"empty": 0, "cut": size // 2, "header": 100}[loss])
    else:
        replaced = arena.folder / "replaced"  # as a restored backup would: another file under the same name
        whole = file.read_bytes()
        replaced.write_bytes(bytes(8_192) + whole[8_192:] if loss == "meta" else random.Random(1).randbytes(size))
        replaced.replace(file)
    assert arena.unavailable(engine) < 1.0
    late = arena.engine(SHOP)
    with pytest.raises(StoreUnavailable):
        late.read_now("7")
    with pytest.raises(StoreUnavailable):
        late.everyone()
    name = new_generation(root)
    rebuilt = feast_store(
        arena.folder / "rebuild", {**arena.online, "generation": name}, (SHOP,), project=arena.project
    )
    write(rebuilt, SHOP, [("7", row(7), 1.0)])
    publish(root, name)
    for found in (engine, late):
        arena.recovers(found, "7")
        same_as_sdk(found, arena.read(found, "7"), rebuilt, (SHOP,), "7")


def test_damaged_record(arena: Arena, store: FeatureStore) -> None:
    """A record that does not decode is an unknown customer, counted; its neighbours are read, and it can be written
    again.
    """
    environment = attach(arena.folder / "online")
    with environment.write() as transaction:
        whole = transaction.get(b"rshop") or transaction.get(b"rcustomer_id\x0011") or b""
        for number, record in enumerate(
            (whole[:-1], whole[:50], b"", b"x", whole[:60] + b"!" + whole[61:], whole + whole)
        ):
            transaction.put(b"rcustomer_id\x0010%d" % number, record)
    environment.release()
    engine = arena.engine(SHOP)
    for number in range(6):
        assert not arena.read(engine, f"10{number}").known
        assert sdk(store, (SHOP,), f"10{number}")["shop__age"] is None
    assert engine.damaged == 6
    assert arena.read(engine, "11").known
    write(store, SHOP, [("100", row(1), 0.5)])
    assert arena.read(engine, "100").known


def test_flipped_bytes_in_rows(arena: Arena, store: FeatureStore) -> None:
    """A file with bytes changed in stored values is read but for the records they lie in."""
    file = data_file(arena)
    whole = bytearray(file.read_bytes())
    engine = arena.engine(SHOP)
    arena.read(engine, "1")
    environment = attach(arena.folder / "online")
    with environment.begin() as transaction:
        records = [transaction.get(f"rcustomer_id\0{i}".encode()) or b"" for i in range(10, 20)]
    environment.release()
    for record in records:
        at = -1
        while (at := whole.find(record, at + 1)) >= 0:  # pages that are free now still have it
            whole[at + 20] ^= 0xFF
    (arena.folder / "changed").write_bytes(whole)
    (arena.folder / "changed").replace(file)
    arena.recovers(engine, "10", lambda row: not row.known)
    assert sum(arena.read(engine, str(i)).known for i in range(2_000)) == 1_990
    assert engine.damaged >= 10


def test_map_grows(arena: Arena) -> None:
    """A map that is too small grows under writers and under readers, also those of other processes; its bound says its
    name.
    """
    online = {**arena.online, "map_bytes": 1 << 18, "map_bytes_max": 1 << 22}
    store = feast_store(arena.folder, online, (SHOP,), project=arena.project)
    write(store, SHOP, [("0", row(0), 1.0)])
    code = (
        "import sys, msgspec\n"
        "from features.lmdb_store.engine import EmbeddedEngine\n"
        "from features.columns.views import View\n"
        "engine = EmbeddedEngine(sys.argv[1], (msgspec.json.decode(sys.argv[2], type=View),))\n"
        "assert engine.read_now('0').known\nprint('open', flush=True)\nsys.stdin.readline()\n"
        "print(sum(engine.read_now(str(i)).known for i in range(3000)), engine.damaged)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(arena.folder / "online"), msgspec.json.encode(SHOP).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "open\n"
    engine = arena.engine(SHOP)
    assert arena.read(engine, "0").known
    write(store, SHOP, [(str(i), row(i), 1.0) for i in range(3_000)])
    assert attach(arena.folder / "online").env.info()["map_size"] > 1 << 18
    answer, _ = other.communicate("\n")
    assert answer == "3000 0\n"
    assert all(arena.read(engine, str(i)).known for i in range(3_000))
    with pytest.raises(StoreUnavailable, match="map_bytes_max is 4194304 bytes"):
        write(store, SHOP, [(f"more{i}", row(49), 1.0) for i in range(20_000)])
    assert arena.read(engine, "1").known
    attach(arena.folder / "online").release()


def test_everyone_from_another_thread(arena: Arena, store: FeatureStore) -> None:
    """The catalogue's thread reads everyone's row while the event loop reads customers and words are added."""
    everyone = view("everyone_shop", {}, {"by_group": ["spend"]}, entity="everyone")
    store = arena.store(SHOP, everyone)
    write(store, everyone, [("*", {"by_group__keys": ["g1"], "by_group__spend": [1.0]}, 1.0)])
    engine = arena.engine(SHOP, everyone)
    wrong: list[Exception] = []

    def catalogue() -> None:
        try:
            for _ in range(300):
                found = engine.everyone().families[0]
                assert found is not None
                assert engine.words.texts[int(found.keys[0])] == "g1"
        except (AssertionError, IndexError, StoreUnavailable) as error:
            wrong.append(error)

    thread = threading.Thread(target=catalogue)
    thread.start()
    for i in range(30):
        write(store, SHOP, [("1", row(1, f"city of thread {i}"), 2.0 + i)])
        assert engine.words.texts[int(arena.read(engine, "1").numbers[1])] == f"city of thread {i}"
    thread.join()
    assert wrong == []


def test_refusals(arena: Arena, store: FeatureStore) -> None:
    """What cannot be stored is refused with a word about what to do."""
    with pytest.raises(ValueError, match="at most 511 bytes"):
        write(store, SHOP, [("x" * 499, row(1), 1.0)])
    with pytest.raises(ValueError, match="belongs to the Feast project"):
        feast_store(arena.folder / "other", arena.online, (SHOP,), project="other")
    online = {**arena.online, "words_max": 50}
    with pytest.raises(ValueError, match="is one of the fields an identifier"):
        write(
            feast_store(arena.folder, online, project=arena.project),
            SHOP,
            [(str(i), row(1, f"id {i}"), 9.0) for i in range(60)],
        )
    engine = arena.engine(SHOP)
    assert arena.read(engine, "1").event_times[0] == moment(1.0).timestamp()


def test_closed_engine(arena: Arena, store: FeatureStore) -> None:
    """A closed engine reads no more; closing leaves other holders their store."""
    first, second = arena.engine(SHOP), arena.engine(SHOP)
    assert arena.read(first, "1").known
    assert arena.read(second, "1").known
    first.close()
    first.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        first.read_now("1")
    assert arena.read(second, "1").known
    assert np.isnan(arena.read(second, "nobody").event_times).all()
