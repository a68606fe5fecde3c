from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tagseg.data.audit import audit
from tagseg.data.dataset import Dataset
from tagseg.data.photo_index import INDEX, read_index
from tagseg.session import index as indices
from tagseg.session.index import keep_index

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((8, 9, 3), i, np.uint8))
    return Dataset(("cat",), ("a", "b", "c"), np.eye(3, 1, dtype=bool), np.ones(3, bool), paths)


def test_the_index_is_written_once(photos: Dataset, tmp_path: Path) -> None:
    found = audit(photos)
    keep_index(tmp_path, found, None)
    state = (tmp_path / INDEX).stat()
    before = read_index(tmp_path / INDEX)
    keep_index(tmp_path, audit(photos, known=before), before)
    assert (tmp_path / INDEX).stat() == state, "nothing has changed"
    cv2.imwrite(str(photos.sources[1]), np.zeros((5, 5, 3), np.uint8))
    keep_index(tmp_path, audit(photos, known=found.index), found.index)
    table = pyarrow.ipc.open_file(tmp_path / INDEX).read_all()
    assert table["name"].to_pylist() == ["a", "b", "c"]
    assert table["height"].to_pylist() == [8, 5, 8]
    assert table["tags"].to_pylist() == [[0], [], []]


def test_a_photo_that_is_gone_meanwhile_does_no_harm(photos: Dataset, tmp_path: Path) -> None:
    found = audit(photos)
    Path(photos.sources[1]).unlink()
    keep_index(tmp_path, found, None)
    assert pyarrow.ipc.open_file(tmp_path / INDEX).read_all()["name"].to_pylist() == ["a", "c"]


def test_arrays_and_machines_without_pyarrow_have_none(
    photos: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = [photos.image(i) for i in range(3)]
    keep_index(tmp_path, audit(replace(photos, sources=arrays)), None)
    monkeypatch.setattr(indices, "find_spec", lambda name: None)
    keep_index(tmp_path, audit(photos), None)
    assert not (tmp_path / INDEX).exists()
