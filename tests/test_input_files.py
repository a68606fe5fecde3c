from __future__ import annotations

import os
from pathlib import Path

import pytest

from tagseg.errors import TagError, WeightsError
from tagseg.input_files import check_plain


def test_plain_files_pass_and_what_is_missing_is_left_to_the_reader(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10))
    for path in (tmp_path / "a", tmp_path, tmp_path / "missing", Path("nul\0")):
        check_plain(path, TagError, 10)


def test_larger_files(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(3_500_000_000)  # sparse
    with pytest.raises(WeightsError, match=r"a: has 3\.5 GB, over the limit of 1\.0; give a small"):
        check_plain(tmp_path / "a", WeightsError, 10**9)


def test_what_may_never_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(TagError, match="fifo: is a pipe, which may never end; save it into a file"):
        check_plain(tmp_path / "fifo", TagError, 10)
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(TagError, match="link: is a device"):
        check_plain(tmp_path / "link", TagError, 10)
