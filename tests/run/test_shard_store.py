from __future__ import annotations

import pickle
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from tagseg.errors import DamagedError, WorkspaceError
from tagseg.run import shard_store
from tagseg.run.map_store import MapStore
from tagseg.run.shard_store import NewShard, ShardStore, drop_parts, into_shards

NAMES = [f"photo-{i:02d}" for i in range(12)]


def put(store, names: list[str]) -> None:
    for name in names:
        store.put(name, map=np.full((2, 3), int(name[-2:]), np.uint8))


def write(folder: Path, first: int, names: list[str]) -> str:
    folder.mkdir(exist_ok=True)
    with NewShard(folder, first) as shard:
        put(shard.store, names)
        return shard.publish()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three shards, whose photos do not stand in the order of their names."""
    for first in (0, 4, 8):
        write(tmp_path / "maps.shards", first, NAMES[first : first + 4][::-1])
    return tmp_path / "maps.shards"


@pytest.fixture
def one_file(tmp_path: Path) -> MapStore:
    with MapStore(tmp_path / "maps.sqlite", writable=True) as store:
        put(store, NAMES)
    return store


def test_shards_read_as_one_file_does(folder: Path, one_file: MapStore) -> None:
    store = ShardStore(folder, complete=True)
    assert store.names() == one_file.names() == NAMES
    assert len(store) == 12
    assert store.digest() == one_file.digest()
    assert all((store.get(name)["map"] == i).all() for i, name in enumerate(NAMES))
    assert store.missing(["photo-03", "other"]) == ["other"]
    with pytest.raises(DamagedError, match="other is missing"):
        store.get("other")
    with pytest.raises(KeyError):
        ShardStore(folder).get("other")


def test_few_files_are_open_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_store, "_MOST_OPEN", 1)
    store = ShardStore(folder)
    for _ in range(2):
        assert [int(store.get(name)["map"][0, 0]) for name in NAMES] == list(range(12))
        assert sum(file._connected is not None for file in store._index().files) == 1


def test_names_that_share_a_hash_are_told_apart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_store, "_hash", lambda name: len(name))
    store = ShardStore(folder)
    assert [int(store.get(name)["map"][0, 0]) for name in NAMES] == list(range(12))
    assert "photo-99" not in store


def test_it_pickles_as_its_folder(folder: Path) -> None:
    store = ShardStore(folder, complete=True)
    assert store.get("photo-05")["map"][0, 0] == 5
    copy = pickle.loads(pickle.dumps(store))
    assert copy.get("photo-07")["map"][0, 0] == 7
    with pytest.raises(DamagedError):
        copy.get("other")


def test_one_process_goes_on_with_shards(folder: Path, one_file: MapStore) -> None:
    (folder / "000000004.sqlite").unlink()
    store = ShardStore(folder, writable=True)
    missing = store.missing(NAMES)
    assert missing == NAMES[4:8]
    put(store, missing)
    assert store.missing(NAMES) == []
    assert (store.get("photo-06")["map"] == 6).all()
    store.close()
    assert store.digest() == one_file.digest()
    with pytest.raises(WorkspaceError, match="closed to writing"):
        put(store, ["photo-00"])
    assert {path.name for path in folder.iterdir()} == {
        "000000000.sqlite",
        "000000008.sqlite",
        "local.sqlite",
    }


def test_shards_go_on_with_what_one_process_has_begun(tmp_path: Path, one_file: MapStore) -> None:
    one_file.close()
    with sqlite3.connect(one_file.path) as connection:
        connection.execute("DELETE FROM maps WHERE name > ?", (NAMES[3].encode(),))
    connection.close()
    folder = into_shards(one_file.path)
    assert not one_file.path.exists()
    assert ShardStore(folder).missing(NAMES) == NAMES[4:]
    assert into_shards(one_file.path) == folder  # and once more
    write(folder, 4, NAMES[4:])
    assert ShardStore(folder).names() == NAMES


def test_what_a_photo_has_twice_counts_once(folder: Path, one_file: MapStore) -> None:
    write(folder, 2, NAMES[2:6])
    store = ShardStore(folder)
    assert len(store) == 12
    assert store.digest() == one_file.digest()


def test_a_shard_is_whole_or_absent(folder: Path) -> None:
    before = sorted(folder.iterdir())

    def fail() -> None:
        with NewShard(folder, 20) as shard:
            put(shard.store, ["photo-20"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert sorted(folder.iterdir()) == before


def test_shards_that_not_all_stores_have_are_dropped(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.shards"
    for first in (0, 8, 12):
        write(other, first, NAMES[:1])
    (other / ".tmp-1-000000004.sqlite").write_bytes(b"half")
    drop_parts([folder, other])
    for each in (folder, other):
        assert sorted(p.name for p in each.iterdir()) == ["000000000.sqlite", "000000008.sqlite"]
    drop_parts([])


def test_damage_is_found(folder: Path) -> None:
    with sqlite3.connect(folder / "000000004.sqlite") as connection:
        connection.execute(
            "UPDATE maps SET content = (SELECT content FROM maps WHERE name = ?) WHERE name = ?",
            (b"photo-04", b"photo-05"),
        )
    connection.close()
    with pytest.raises(DamagedError):
        ShardStore(folder, complete=True).digest()
