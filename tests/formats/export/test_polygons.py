"""Outlines: what rasterisers of tools make of them are the region's own pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from PIL import Image as PilImage
from PIL import ImageDraw
from pycocotools import mask as coco_mask
from skimage.draw import polygon2mask

from exported import CHECKED, MASKS, labels_of
from tagseg.formats.export.polygons import polygons_of
from tagseg.formats.export.regions import regions_of

# pycocotools 2.0.11 decodes with an __array__ that NumPy 2 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def as_ultralytics(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    canvas = np.zeros(shape, np.uint8)
    for polygon in polygons:
        cv2.fillPoly(canvas, [polygon.astype(np.int32)], 1)
    return canvas > 0


def as_pycocotools(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    parts = coco_mask.frPyObjects([p.ravel().tolist() for p in polygons], *shape)
    return coco_mask.decode(coco_mask.merge(parts)) > 0


def as_labelme(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    canvas = PilImage.fromarray(np.zeros(shape, np.uint8))
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon(list(map(tuple, polygon.tolist())), fill=1, outline=1)
    return np.asarray(canvas) > 0


def by_middles(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    canvas = np.zeros(shape, bool)
    for polygon in polygons:
        canvas |= polygon2mask(shape, polygon[:, ::-1] - 0.5)
    return canvas


DRAW = [as_ultralytics, as_pycocotools, as_labelme, by_middles]


def outlines(mask: np.ndarray, per: str) -> list[np.ndarray]:
    return [p for region in regions_of(mask.astype(np.uint8), per) for p in polygons_of(region)]


@pytest.mark.parametrize("draw", DRAW)
@given(mask=MASKS)
@example(mask=np.ones((1, 1), bool))
@CHECKED
def test_mask_to_polygons_to_mask(draw, mask):
    for per in ("region", "class"):
        found = outlines(mask, per)
        back = draw(found, mask.shape) if found else np.zeros_like(mask)
        assert np.array_equal(back, mask)


@pytest.mark.parametrize("draw", DRAW)
def test_thousands_of_holes_and_rings_in_rings(draw):
    rng = np.random.default_rng(3)
    noise = rng.random((120, 150)) < 0.8
    rings = np.zeros((60, 60), bool)
    for inset in range(0, 30, 2):
        rings[inset : 60 - inset, inset : 60 - inset] ^= True
    for mask in (noise, rings):
        assert np.array_equal(draw(outlines(mask, "region"), mask.shape), mask)


def test_one_polygon_a_region_of_quarters():
    mask = labels_of("one") == 1
    (ring,) = outlines(mask, "region")
    assert set(np.unique(ring % 1)) == {0.25, 0.75}
    assert ring.min(axis=0).tolist() == [3.25, 2.25]
    assert ring.max(axis=0).tolist() == [24.75, 19.75]
    assert len(ring) < 16  # corners alone


def test_a_pixel_is_a_square():
    (square,) = outlines(np.ones((1, 1), bool), "region")
    assert sorted(square.tolist()) == [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]]
