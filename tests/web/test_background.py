"""Numbers of photos that are found in the background, and kept."""

from __future__ import annotations

import numpy as np

from tagseg.errors import ImageError
from tagseg.web.background import PhotoNumbers, mark_of


def numbers_of(paths, asked, keep=None):
    def of_photo(index):
        asked.append(index)
        if index == 1:
            raise ImageError("cannot be decoded")
        return index / 2

    made = PhotoNumbers(len(paths), 1, of_photo, file_of=lambda i: paths[i], name="test", keep=keep)
    made.start()
    assert made.wait(20)
    made.close()
    return made


def test_they_are_found_once_and_again_for_a_file_that_changed(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text(path.name)
    keep, asked = tmp_path / "kept" / "x.npz", []
    first = numbers_of(paths, asked, keep)
    assert first.version == 3
    assert first.rows()[[0, 2], 0].tolist() == [0, 1]
    assert np.isnan(first.rows()[1, 0])
    paths[2].write_text("another")
    asked.clear()
    numbers_of(paths, asked, keep)
    assert asked == [2]


def test_a_file_that_is_gone_has_no_mark(tmp_path):
    assert mark_of(tmp_path / "gone") == -1
