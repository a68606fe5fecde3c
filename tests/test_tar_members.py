from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tagseg.errors import DataError
from tagseg.tar_members import (
    Tars,
    file_state,
    is_there,
    member_at,
    members_of,
    open_file,
    read_file,
    real_path,
)
from tagseg.tar_members import write_tar as write
from tars import write_tar

CONTENT = {"a.jpg": b"one", "sub/b.jpg": b"", "sub/" + "long" * 60 + ".jpg": b"x" * 700}


def test_members_are_read_at_their_place(tmp_path):
    tar = write_tar(tmp_path / "a.tar", CONTENT)
    assert list(members_of(tar)) == list(CONTENT)
    for name, content in CONTENT.items():
        assert read_file(tar / name) == content == open_file(tar / name).read()
        assert is_there(tar / name)
        assert file_state(tar / name) == (len(content), tar.stat().st_mtime_ns)
    assert not is_there(tar / "c.jpg")
    assert member_at(tar / "sub") is None
    with pytest.raises(NotADirectoryError):
        read_file(tar / "c.jpg")


def test_all_other_paths_are_files(tmp_path):
    inside = tmp_path / "photos.tar" / "x.tar"  # folders that are called so
    inside.mkdir(parents=True)
    (inside / "a.jpg").write_bytes(b"plain")
    assert read_file(inside / "a.jpg") == b"plain"
    assert member_at(inside / "a.jpg") is None
    assert is_there(inside / "a.jpg")
    assert file_state(inside / "a.jpg")[0] == 5
    below = write_tar(inside / "in.tar", {"b.jpg": b"two"})
    assert read_file(below / "b.jpg") == b"two"


def test_a_tar_that_has_changed_is_looked_at_again(tmp_path):
    tar = write_tar(tmp_path / "a.tar", {"a": b"1"})
    first = members_of(tar)
    assert members_of(tar) is first
    write_tar(tar, {"b": b"22222", "a": b"3"})
    os.utime(tar, ns=(1, 1))
    assert read_file(tar / "a") == b"3"
    assert member_at(tar / "a").changed == 1


def test_members_keep_to_their_tar_through_links_and_processes(tmp_path):
    write_tar(tmp_path / "a.tar", {"a": b"1"})
    (tmp_path / "link.tar").symlink_to(tmp_path / "a.tar")
    assert real_path(tmp_path / "link.tar" / "a") == tmp_path.resolve() / "a.tar" / "a"
    with pytest.raises(NotADirectoryError):
        real_path(tmp_path / "a.tar" / "b")
    assert pickle.loads(pickle.dumps(member_at(tmp_path / "a.tar" / "a"))).read() == b"1"


def test_many_threads_may_read_one_tar(tmp_path):
    content = {f"{i}.jpg": bytes([i]) * (i + 1) for i in range(200)}
    tar = write_tar(tmp_path / "a.tar", content)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda name: read_file(tar / name), content)) == [*content.values()]


def test_names_begin_without_a_dot_and_folders_are_no_members(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        folder = tarfile.TarInfo("./sub")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        tar.addfile(tarfile.TarInfo("./sub/a.jpg"), io.BytesIO())
    assert list(members_of(tmp_path / "a.tar")) == ["sub/a.jpg"]


def test_links_and_devices_are_counted_and_not_read(tmp_path):
    (tmp_path / "secret").write_text("s")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("a", tarfile.SYMTYPE), ("b", tarfile.LNKTYPE), ("c", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(tmp_path / "secret")
            tar.addfile(info)
    members = members_of(tmp_path / "a.tar")
    assert list(members) == []
    assert members.left_out == {"links": 2, "devices and pipes": 1}
    assert not is_there(tmp_path / "a.tar" / "a")


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "a/../../b.jpg"])
def test_names_that_lead_elsewhere(tmp_path, name):
    write_tar(tmp_path / "a.tar", {name: b"1"})
    with pytest.raises(DataError, match=r"a\.tar: has a member called '.*', which would lie else"):
        members_of(tmp_path / "a.tar")


def test_a_name_twice(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("a", "b", "./a"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(DataError, match=r"a\.tar: has the member 'a' twice; write it again with"):
        members_of(tmp_path / "a.tar")


def test_wherever_a_tar_is_cut_it_is_told(tmp_path):
    tar = write_tar(tmp_path / "a.tar", {"a": b"1" * 600, "b": b"2" * 512})
    whole = tar.read_bytes()
    end = 512 + 1024 + 512 + 512  # of the last member; two blocks of zeros or more follow
    for length in (0, 100, 512, 700, 1535, 1536, 1700, 2048, 2300, end - 1, end, end + 200):
        tar.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.tar: the tar is cut short or damaged \(.+\); cop"):
            members_of(tar)
    tar.write_bytes(whole[: end + 512])
    assert list(members_of(tar)) == ["a", "b"]


def test_damaged_headers_and_what_is_no_tar(tmp_path):
    tar = write_tar(tmp_path / "a.tar", {"a": b"1", "b": b"2"})
    whole = bytearray(tar.read_bytes())
    whole[1024 + 10] ^= 255  # in the header of b
    tar.write_bytes(whole)
    with pytest.raises(DataError, match=r"damaged \(there is no header at byte 1024\)"):
        members_of(tar)
    tar.write_bytes(np.random.default_rng(0).bytes(4000))
    with pytest.raises(DataError, match="the tar is cut short or damaged"):
        members_of(tar)


def test_one_tar_behind_another(tmp_path):
    tar = write_tar(tmp_path / "a.tar", {"a": b"1"})
    tar.write_bytes(tar.read_bytes() * 2)
    with pytest.raises(DataError, match=r"goes on behind its end; write it again as one archive"):
        members_of(tar)


def test_compressed_tars_say_what_to_do(tmp_path):
    tar = write_tar(tmp_path / "a.tar", {"a": b"1"})
    tar.write_bytes(gzip.compress(tar.read_bytes()))
    with pytest.raises(DataError, match=r"a\.tar: is compressed \(gzip\).*; decompress it, and"):
        members_of(tar)


def test_a_tar_that_is_shortened_after_it_was_read(tmp_path):
    tar = write_tar(tmp_path / "a.tar", {"a": b"1" * 600})
    member = member_at(tar / "a")
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(OSError, match="a is cut short"):
        member.read()


def test_several_tars_are_searched_as_one_and_written_alike(tmp_path):
    for name, members in (("a.tar", ["x", "y"]), ("b.tar", ["y", "sub/z"])):
        with (tmp_path / name).open("wb") as file:
            write(file, [(member, (name + member).encode()) for member in members])
    tars = Tars([tmp_path / "a.tar", tmp_path / "b.tar"])
    assert len(tars) == 4
    assert tars.find("y").read() == b"a.tary"
    assert tars.find("sub/z").read() == b"b.tarsub/z"
    assert tars.find("z") is None
    assert Tars([]).find("x") is None
    first = (tmp_path / "a.tar").read_bytes()
    with (tmp_path / "c.tar").open("wb") as file:
        write(file, iter([("x", b"a.tarx"), ("y", b"a.tary")]))
    assert (tmp_path / "c.tar").read_bytes() == first


def test_paths_may_be_relative(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", {"a": b"1"})
    monkeypatch.chdir(tmp_path)
    assert read_file(Path("a.tar/a")) == b"1"
