from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.data.images import decode_photo
from tagseg.data.orientation import Geometry, read_geometries, turned

STORED = np.random.default_rng(0).integers(0, 256, (5, 7), dtype=np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_as_photos_are_decoded(tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    exif = PilImage.Exif()
    exif[0x112] = orientation
    PilImage.fromarray(STORED).save(path, exif=exif)
    shown = decode_photo(path)[..., 0]
    (found,) = read_geometries([path])
    assert found == Geometry(shown.shape, orientation)
    assert found.stored == STORED.shape
    assert turned(STORED, orientation).shape == shown.shape
    if suffix in ("png", "tif"):
        assert np.array_equal(turned(STORED, orientation), shown)


def test_what_does_not_tell(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff nothing")
    exif = PilImage.Exif()
    exif[0x112] = 77
    PilImage.fromarray(STORED).save(tmp_path / "b.png", exif=exif)
    sources = [tmp_path / "a.jpg", tmp_path / "none", tmp_path / "b.png", np.zeros((3, 4, 3))]
    assert read_geometries(sources) == [None, None, Geometry((5, 7)), Geometry((3, 4))]


def test_many_pixels_warn_of_nothing(tmp_path):
    PilImage.new("1", (9600, 9600)).save(tmp_path / "a.png")
    assert read_geometries([tmp_path / "a.png"]) == [Geometry((9600, 9600))]
