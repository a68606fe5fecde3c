from __future__ import annotations

import multiprocessing
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tagseg.errors import DamagedError, ShapeError, WorkspaceError
from tagseg.run.map_store import MapStore, pack, unpack

ARRAYS = st.dictionaries(
    st.text(max_size=5),
    hnp.arrays(
        st.one_of(
            hnp.boolean_dtypes(),
            hnp.integer_dtypes(endianness="?"),
            hnp.unsigned_integer_dtypes(endianness="?"),
            hnp.floating_dtypes(endianness="?"),
        ),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
    ),
    max_size=4,
)


@given(ARRAYS)
@settings(derandomize=True, deadline=None, max_examples=150)
def test_arrays_come_back_bit_for_bit(arrays: dict[str, np.ndarray]) -> None:
    back = unpack(pack(arrays))
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()
        assert back[name].flags.writeable


def test_layout_in_memory_does_not_matter() -> None:
    array = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    turned = array.transpose(2, 0, 1)
    assert np.array_equal(unpack(pack({"a": turned}))["a"], turned)
    assert pack({"a": turned, "b": array}) == pack({"b": array, "a": turned.copy()})


def test_compressible_arrays_get_small_and_others_do_not_grow() -> None:
    assert len(pack({"a": np.zeros((100, 100), np.float32)})) < 400
    noise = np.random.default_rng(0).integers(0, 256, 10_000, dtype=np.uint8)
    assert len(pack({"a": noise})) < 10_000 + 40


@pytest.mark.parametrize("bad", [np.array([None]), np.array(["x"]), np.zeros(2, "i4,f4")])
def test_only_numbers_are_stored(bad: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="dtype"):
        pack({"a": bad})


@given(st.binary(max_size=60))
@settings(derandomize=True, deadline=None, max_examples=150)
def test_damaged_bytes_are_a_value_error(content: bytes) -> None:
    for damaged in (content, b"\0" + content, b"\0\5\0\0\0[[1,2" + content):
        with pytest.raises(ValueError):  # noqa: PT011
            unpack(damaged)


@pytest.mark.parametrize("cut", range(0, 29, 2))
def test_a_truncated_row_is_a_value_error(cut: int) -> None:
    packed = pack({"a": np.arange(7, dtype=np.uint8)})
    assert cut < len(packed)
    with pytest.raises(ValueError):  # noqa: PT011
        unpack(packed[:cut])


def fill(path: Path, names: list[str]) -> MapStore:
    store = MapStore(path, writable=True)
    for name in names:
        store.put(name, a=np.full(3, len(name), np.float16), b=np.array(name == "x"))
    return store


def test_it_behaves_like_a_mapping(tmp_path: Path) -> None:
    with fill(tmp_path / "m.sqlite", ["x", "a/b.jpg", "ä"]) as store:
        assert len(store) == 3
        assert "x" in store
        assert "y" not in store
        assert 1 not in store
        assert store.names() == sorted(["x", "a/b.jpg", "ä"])
        assert store.missing(["q", "ä", "c", "x"]) == ["q", "c"]
        assert store.get("ä")["a"].tolist() == [1, 1, 1]
        with pytest.raises(KeyError, match="q"):
            store.get("q")


def test_names_need_not_be_valid_text(tmp_path: Path) -> None:
    name = b"photo\xff.jpg".decode("utf-8", "surrogateescape")
    with fill(tmp_path / "m.sqlite", [name]) as store:
        assert store.names() == [name]
        assert name in store


def test_bytes_come_back(tmp_path: Path) -> None:
    with MapStore(tmp_path / "m.sqlite", writable=True) as store:
        store.put_bytes("x", b"\x89PNG\0\1")
        store.put_bytes("empty", b"")
        assert (store.get_bytes("x"), store.get_bytes("empty")) == (b"\x89PNG\0\1", b"")


def test_digest_depends_on_content_and_not_on_history(tmp_path: Path) -> None:
    one = fill(tmp_path / "1.sqlite", ["x", "yy", "zzz"])
    two = fill(tmp_path / "2.sqlite", ["zzz", "x"])
    two.put("yy", a=np.zeros(1))
    assert one.digest() != two.digest()
    two.put_many([("yy", {"a": np.full(3, 2, np.float16), "b": np.array(False)})])
    assert one.digest() == two.digest()
    two.put("yy", a=np.full(3, 2, np.float32), b=np.array(False))
    assert one.digest() != two.digest()
    one.close()
    two.close()


def test_puts_are_committed_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fill(tmp_path / "m.sqlite", [str(i) for i in range(199)])
    other = MapStore(tmp_path / "m.sqlite")
    assert len(other) == 0
    store.put("last", a=np.zeros(1))
    assert len(other) == 200
    monkeypatch.setattr("tagseg.run.map_store._COMMIT_SECONDS", -1.0)
    store.put("late", a=np.zeros(1))
    assert len(other) == 201
    other.close()
    store.close()


def test_after_closing_it_reads_and_does_not_write(tmp_path: Path) -> None:
    store = fill(tmp_path / "m.sqlite", ["x"])
    store.close()
    assert [p.name for p in tmp_path.iterdir()] == ["m.sqlite"]
    assert store.get("x")["b"].item() is True
    with pytest.raises(WorkspaceError, match="closed to writing"):
        store.put("y", a=np.zeros(1))
    store.close()


def test_threads_and_processes_read_it(tmp_path: Path) -> None:
    names = ["x", *map(str, range(50))]
    with fill(tmp_path / "m.sqlite", names):
        pass
    store = MapStore(tmp_path / "m.sqlite")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda n: store.get(n)["a"][0] == len(n), names)) == [True] * 51
    lengths = joblib.Parallel(2)(joblib.delayed(MapStore.__len__)(store) for _ in range(3))
    assert lengths == [51] * 3
    store.close()


def test_a_fork_does_not_disturb_the_writer(tmp_path: Path) -> None:
    code = """
import gc, os, sys
from pathlib import Path
import numpy as np
from tagseg.errors import WorkspaceError
from tagseg.run.map_store import MapStore
store = MapStore(Path(sys.argv[1]), writable=True)
store.put("committed", a=np.zeros(1))
store._connected.commit()
store.put("not yet", a=np.zeros(1))
if (pid := os.fork()) == 0:
    ok = store.names() == ["committed"]
    try:
        store.put("child", a=np.zeros(1))
        ok = False
    except WorkspaceError:
        pass
    store.close()
    store = None
    gc.collect()
    os._exit(0 if ok else 1)
assert os.waitpid(pid, 0)[1] == 0
store.put("after", a=np.zeros(1))
store.close()
assert store.names() == ["after", "committed", "not yet"]
store.close()
"""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork here")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.sqlite")], timeout=60)
    assert done.returncode == 0


def test_a_missing_or_damaged_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="unable to open"):
        MapStore(tmp_path / "no.sqlite").names()
    assert not (tmp_path / "no.sqlite").exists()
    (tmp_path / "bad.sqlite").write_bytes(b"no database at all" * 100)
    for writable in (False, True):
        with pytest.raises(WorkspaceError, match=r"bad\.sqlite: is damaged"):
            MapStore(tmp_path / "bad.sqlite", writable=writable).names()


def test_a_damaged_row_is_one_line(tmp_path: Path) -> None:
    with fill(tmp_path / "m.sqlite", ["x"]):
        pass
    connection = sqlite3.connect(tmp_path / "m.sqlite")
    connection.execute("UPDATE maps SET content = x'0107'")
    connection.commit()
    connection.close()
    with MapStore(tmp_path / "m.sqlite") as store:
        with pytest.raises(WorkspaceError, match="is damaged: x:"):
            store.get("x")
        with pytest.raises(WorkspaceError, match="is damaged: x:"):
            store.digest()


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    fill(tmp_path / "m.sqlite", ["x"]).close()
    with MapStore(tmp_path / "m.sqlite", writable=True) as store:
        store._connected.execute("PRAGMA max_page_count = 3")  # SQLite's own way to feign one
        noise = np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8)
        with pytest.raises(WorkspaceError, match="full; check the path and the free space"):
            store.put("y", a=noise)
        assert store.names() == ["x"]


def test_a_batch_is_looked_up_without_reading_all_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fill(tmp_path / "m.sqlite", ["x", "y"]) as store:
        monkeypatch.delattr(MapStore, "names")
        assert store.missing(["y", "z"]) == ["z"]


# What is not what was written


def changed(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement, values)
        connection.commit()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    with MapStore(tmp_path / "a.sqlite", writable=True) as maps:
        for i in range(3):
            maps.put(f"photo {i}", scores=np.arange(10.0) + i)
    return tmp_path / "a.sqlite"


def test_rows_of_before_there_were_checks(written: Path) -> None:
    content = pack({"scores": np.arange(4)})
    changed(written, "UPDATE maps SET content = ? WHERE name = ?", content, b"photo 1")
    with MapStore(written) as maps:
        assert maps.get("photo 1")["scores"].tolist() == [0, 1, 2, 3]
        assert maps.get("photo 2")["scores"].tolist() == (np.arange(10.0) + 2).tolist()


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("UPDATE maps SET content = substr(content, 1, 20) WHERE name = ?", [b"photo 1"]),
        ("UPDATE maps SET content = 'text' WHERE name = ?", [b"photo 1"]),
        ("UPDATE maps SET content = 7 WHERE name = ?", [b"photo 1"]),
        ("UPDATE maps SET content = x'' WHERE name = ?", [b"photo 1"]),
        (  # another photo's row
            "UPDATE maps SET content = (SELECT content FROM maps WHERE name = ?) WHERE name = ?",
            [b"photo 0", b"photo 1"],
        ),
        ("DELETE FROM maps WHERE name = ?", [b"photo 1"]),
        ("UPDATE maps SET name = 'photo 1' WHERE name = ?", [b"photo 1"]),  # as text
        ("DROP TABLE maps", []),
    ],
)
def test_rows_that_are_not_what_was_written(
    written: Path, statement: str, values: list[bytes]
) -> None:
    with MapStore(written) as maps:
        digest = maps.digest()
    changed(written, statement, *values)
    with MapStore(written, complete=True) as maps:
        with pytest.raises(DamagedError, match=r"a\.sqlite: is damaged: .*; run the training"):
            maps.get("photo 1")
        if "DROP" not in statement:
            assert maps.get("photo 2")["scores"][0] == 2
        with suppress(DamagedError):
            assert maps.digest() != digest
