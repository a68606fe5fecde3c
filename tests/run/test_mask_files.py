from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest

from tagseg.data.finding import find_masks
from tagseg.errors import ConfigError
from tagseg.run.mask_files import MaskFiles, MaskShards, are_sharded, check_masks_in, tars_in
from tagseg.tar_members import members_of, read_file

NAMES = ["a", "cat/b", "cat/in/c.v2", "d", "e.mask"]
CONTENT = {name: name.encode() * 3 for name in NAMES}


def sink(folder: Path) -> MaskShards:
    return MaskShards(folder, NAMES, shard=2)


def put(shards: MaskShards, *names: str) -> None:
    for name in names:
        shards.put_bytes(name, CONTENT[name])
        shards.commit()


def digests(folder: Path) -> list[tuple[str, str]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        (p.relative_to(folder).as_posix(), hashlib.md5(p.read_bytes()).hexdigest()) for p in files
    ]


def check_whole(folder: Path) -> None:
    assert [path.name for path in sorted(folder.iterdir())] == [
        f"masks-{i:06d}.tar" for i in range(3)
    ]
    files = MaskFiles(folder)
    assert {name: read_file(files.path(name)) for name in NAMES} == CONTENT
    assert all(name in files for name in NAMES)
    assert "cat" not in files


def test_masks_are_packed_as_tars_become_whole(tmp_path):
    shards = sink(tmp_path)
    put(shards, "a")
    assert tars_in(tmp_path) == []
    assert "a" in shards
    assert "d" not in shards
    put(shards, "cat/b")
    assert [tar.name for tar in tars_in(tmp_path)] == ["masks-000000.tar"]
    assert list(members_of(tars_in(tmp_path)[0])) == ["a.png", "cat/b.png"]
    assert not (tmp_path / "a.png").exists()
    put(shards, *NAMES[2:])
    shards.pack(every=True)
    check_whole(tmp_path)


def test_bytes_do_not_depend_on_who_wrote_when(tmp_path):
    for folder, order in (("one", NAMES), ("two", NAMES[::-1])):
        put(shards := sink(tmp_path / folder), *order)
        shards.pack(every=True)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_a_kill_at_any_moment_is_mended_by_the_next(tmp_path):
    put(shards := sink(tmp_path / "one"), *NAMES)
    shards.pack(every=True)
    put(sink(tmp_path / "two"), *NAMES[:3])  # killed: one tar, one file
    (tmp_path / "two" / "cat").mkdir(exist_ok=True)
    (tmp_path / "two" / "cat" / "b.png").write_bytes(CONTENT["cat/b"])  # packed, not yet removed
    later = sink(tmp_path / "two")
    assert [name in later for name in NAMES] == [True, True, True, False, False]
    put(later, *NAMES)  # a batch that is done again as a whole
    later.pack(every=True)
    assert digests(tmp_path / "two") == digests(tmp_path / "one")
    check_whole(tmp_path / "two")


def test_masks_that_are_never_made_leave_gaps(tmp_path):
    put(shards := sink(tmp_path), "a", "d")
    shards.pack(every=True)
    assert [list(members_of(tar)) for tar in tars_in(tmp_path)] == [["a.png"], ["d.png"]]
    with pytest.raises(FileNotFoundError):
        read_file(MaskFiles(tmp_path).path("cat/b"))


def test_readers_take_files_and_tars_and_go_to_other_processes(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "b.png").write_bytes(b"1")
    files = pickle.loads(pickle.dumps(MaskFiles(tmp_path)))
    assert files.path("cat/b") == tmp_path / "cat" / "b.png"
    assert "cat/b" in files
    put(shards := sink(tmp_path / "tars"), *NAMES)
    shards.pack(every=True)
    files = MaskFiles(tmp_path / "tars")
    assert "a" in files
    assert read_file(pickle.loads(pickle.dumps(files)).path("a")) == CONTENT["a"]


def test_whoever_looks_for_masks_finds_those_in_tars_by_their_whole_names(tmp_path):
    put(shards := sink(tmp_path), *NAMES)
    shards.pack(every=True)
    assert {name: read_file(path) for name, path in find_masks(tmp_path).items()} == CONTENT


def test_which_photos_have_their_masks_in_tars():
    assert are_sharded("shards", 1)
    assert not are_sharded("files", 10**7)
    assert not are_sharded("auto", 100_000)
    assert are_sharded("auto", 100_001)
    check_masks_in("auto")
    with pytest.raises(ConfigError, match="masks_in 'tar' does not exist; use auto, files, shards"):
        check_masks_in("tar")
