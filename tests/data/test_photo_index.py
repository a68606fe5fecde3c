from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tagseg.data import audit as audits
from tagseg.data.audit import audit
from tagseg.data.dataset import Dataset
from tagseg.data.photo_index import PhotoIndex, read_index, write_index

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

SHAPES = [(20, 30), (41, 30), (20, 31)] * 2


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    paths = [tmp_path / "photos" / f"{i}.png" for i in range(6)]
    paths[0].parent.mkdir()
    for i, (path, shape) in enumerate(zip(paths, SHAPES, strict=True)):
        cv2.imwrite(str(path), np.full((*shape, 3), 10 * i, np.uint8))
    tags = np.array([[True, False], [True, True], [False, False]] * 2)
    names = tuple(path.stem for path in paths)
    return Dataset(("cat", "dog"), names, tags, np.ones(6, bool), paths)


def written(index: PhotoIndex, photos: Dataset, order: list[int] | None = None) -> bytes:
    file = io.BytesIO()
    rows = np.arange(len(index.states)) if order is None else np.array(order)
    write_index(file, index, rows, photos.names, photos.tags, photos.classes)
    return file.getvalue()


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the photos that are decoded."""
    seen: list[str] = []
    look_at = audits._Looks._look_at_file

    def noted(self, i: int, path: Path, max_pixels: int) -> None:
        seen.append(path.stem)
        look_at(self, i, path, max_pixels)

    monkeypatch.setattr(audits._Looks, "_look_at_file", noted)
    return seen


def test_files_that_are_as_they_were_are_not_decoded(photos: Dataset, looked: list[str]) -> None:
    first = audit(photos)
    assert sorted(looked) == list(photos.names)
    looked.clear()
    ticks: list[tuple[int, int]] = []
    again = audit(photos, known=first.index, progress=lambda *at: ticks.append(at))
    assert looked == []
    assert ticks == [(i, 6) for i in range(1, 7)]
    assert again.to_dict() == first.to_dict()
    assert again.dataset.sizes is not None
    assert again.dataset.sizes.tolist() == [list(shape) for shape in SHAPES]
    assert again.dataset.fingerprint(again.digests) == photos.fingerprint()


def test_changed_new_and_lost_files_are_looked_at(photos: Dataset, looked: list[str]) -> None:
    known = audit(photos.subset([0, 1, 2, 3, 4])).index
    looked.clear()
    sources = [Path(path) for path in photos.sources]
    cv2.imwrite(str(sources[1]), np.full((9, 8, 3), 5, np.uint8))
    os.utime(sources[3], ns=(1, 1))
    sources[4].unlink()
    found = audit(photos, known=known, allow_skipped=0.5)
    assert looked == ["1", "3", "4", "5"]
    assert [name for name, _ in found.skipped] == ["4"]
    assert found.dataset.sizes is not None
    assert found.dataset.sizes[1].tolist() == [9, 8]
    assert found.dataset.fingerprint(found.digests) == found.dataset.fingerprint()


def test_another_limit_of_pixels_looks_again(photos: Dataset, looked: list[str]) -> None:
    known = audit(photos).index
    looked.clear()
    with pytest.raises(Exception, match="6 of 6 photos cannot be used"):
        audit(replace(photos, max_pixels=10), known=known)
    assert len(looked) == 6


def test_photos_of_16_bits_are_looked_at_again(photos: Dataset, looked: list[str]) -> None:
    cv2.imwrite(str(photos.sources[2]), np.full((20, 30), 40000, np.uint16))
    first = audit(photos)
    looked.clear()
    again = audit(photos, known=first.index)
    assert looked == ["2"]
    assert again.depth == first.depth is not None


def test_it_comes_back_from_its_file(photos: Dataset, tmp_path: Path) -> None:
    index, path = audit(photos).index, tmp_path / "index.arrow"
    path.write_bytes(written(index, photos))
    found = read_index(path)
    assert found is not None
    assert found.check() == index.check()
    assert found.sizes.tolist() == index.sizes.tolist()
    assert read_index(tmp_path / "none.arrow") is None


def test_names_and_tags_stand_beside(photos: Dataset) -> None:
    index = audit(photos).index
    content = written(index, photos, [3, -1, 2, 1, 0, -1])
    table = pyarrow.ipc.open_file(content).read_all()
    assert table["name"].to_pylist() == ["0", "2", "3", "4"]
    assert table["tags"].to_pylist() == [[0], [], [0], [0, 1]]
    assert table["height"].to_pylist() == index.sizes[[3, 2, 1, 0], 0].tolist()
    assert table["digest"].to_pylist()[0] == index.digests[3].tobytes()
    assert table.schema.metadata[b"classes"] == b"cat\ndog"


def test_what_is_damaged_is_made_again(photos: Dataset, tmp_path: Path) -> None:
    index, path = audit(photos).index, tmp_path / "index.arrow"
    whole = written(index, photos)
    place = whole.index(index.digests[0].tobytes())
    flipped = bytearray(whole)
    flipped[place] ^= 1
    for content in (b"", b"ARROW1", whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(content)
        assert read_index(path) is None


def test_without_pyarrow_there_is_none(
    photos: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.arrow"
    path.write_bytes(written(audit(photos).index, photos))
    monkeypatch.setattr("tagseg.data.photo_index.find_spec", lambda name: None)
    assert read_index(path) is None
