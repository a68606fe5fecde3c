"""The package as a library: what it exports, that it is documented, and floats of either width."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tagseg import refine
from tagseg.errors import ShapeError
from tagseg.refine import (
    CrfParameters,
    HigherOrder,
    boxed,
    dense_crf,
    dense_crf_batch,
    enhanced_mask,
    exact_dense_crf,
    grab,
    levelled,
    object_mask,
    softmax_unary,
    thresholded,
    trimap,
)

EXPORTS = [
    "ComponentCrf",
    "CrfParameters",
    "GrabCutSettings",
    "HigherOrder",
    "boxed",
    "dense_crf",
    "dense_crf_batch",
    "enhanced_mask",
    "exact_dense_crf",
    "grab",
    "levelled",
    "object_mask",
    "refine",
    "softmax_unary",
    "thresholded",
    "trimap",
]
HEIGHT, WIDTH = 40, 48
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
IMAGE[8:30, 10:36] //= 4
UNARY = RNG.gamma(2, 0.5, (3, HEIGHT, WIDTH))
MAPS = RNG.dirichlet(np.ones(3), (HEIGHT, WIDTH)).transpose(2, 0, 1)
REGIONS = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 240).astype(np.int32)
COARSE = np.where(IMAGE[..., 0] < 64, 0.8, 0.1) + 0.1 * RNG.random((HEIGHT, WIDTH))
BOXES = np.array([[6.3, 4.1, 40.2, 33.7]])

Floats = npt.NDArray[np.floating]


def filtered(unary: Floats) -> Floats:
    return dense_crf(IMAGE, unary)


def with_maps(maps: Floats) -> Floats:
    unary = UNARY.astype(np.float32)
    terms = {"regions": REGIONS, "higher_order": HigherOrder(area_weight=0.01)}
    return refine.refine(IMAGE, unary, CrfParameters(), maps=maps, **terms)


def in_a_batch(unary: Floats) -> Floats:
    """Large photos go through the filters, small ones through the exact mean field."""
    large = torch.from_numpy(IMAGE)[None], torch.from_numpy(unary)[None]
    small = large[0][:, :10, :12], large[1][..., :10, :12]
    return np.concatenate(
        [dense_crf_batch(*batch, CrfParameters()).numpy().ravel() for batch in (large, small)]
    )


def exact(unary: Floats) -> Floats:
    images, costs = torch.from_numpy(IMAGE)[None], torch.from_numpy(unary)[None]
    return exact_dense_crf(images, costs, CrfParameters(iterations=2)).numpy()


def test_the_exports_are_these_in_order() -> None:
    assert refine.__all__ == EXPORTS
    assert sorted(refine.__all__) == refine.__all__


@pytest.mark.parametrize("name", EXPORTS)
def test_every_export_is_documented_with_an_example(name: str) -> None:
    value = getattr(refine, name)
    assert value.__name__ == name
    assert ">>>" in inspect.getdoc(value)
    assert value.__module__.startswith("tagseg.refine.")


@pytest.mark.parametrize(
    ("function", "values"),
    [
        (filtered, UNARY),
        (with_maps, MAPS),
        (softmax_unary, MAPS),
        (in_a_batch, UNARY),
        (exact, UNARY),
        (lambda coarse: enhanced_mask(IMAGE, coarse), COARSE),
        (thresholded, COARSE),
        (levelled, COARSE),
        (lambda coarse: trimap(levelled(coarse)), COARSE),
        (trimap, COARSE),
    ],
    ids=[
        "dense_crf",
        "refine",
        "softmax_unary",
        "dense_crf_batch",
        "exact_dense_crf",
        "enhanced_mask",
        "thresholded",
        "levelled",
        "trimap of levelled",
        "trimap",
    ],
)
def test_float64_is_read_as_float32(function: Callable[[Floats], Floats], values: Floats) -> None:
    assert values.dtype == np.float64
    wide, narrow = function(values), function(values.astype(np.float32))
    assert wide.dtype == narrow.dtype != np.float64
    np.testing.assert_array_equal(wide, narrow)


def test_boxes_of_either_width_give_the_same_mask() -> None:
    wide, narrow = (object_mask(IMAGE, BOXES.astype(kind)) for kind in (np.float64, np.float32))
    np.testing.assert_array_equal(wide, narrow)


@pytest.mark.parametrize("function", [filtered, softmax_unary])
def test_float64_beyond_float32_is_refused_as_infinite(function: Callable) -> None:
    with pytest.raises(ShapeError, match="infinity"):
        function(UNARY * 1e300)


def test_masks_are_maps_too() -> None:
    mask = IMAGE[..., 0] < 64
    for function in (levelled, thresholded, trimap):
        np.testing.assert_array_equal(function(mask), function(mask.astype(np.float64)))


@pytest.mark.parametrize("labels", [np.zeros((HEIGHT, WIDTH)), np.zeros((4, 5), np.uint8)])
def test_grab_refuses_labels_that_do_not_fit(labels: npt.NDArray) -> None:
    with pytest.raises(ShapeError, match=r"labels is a .* give a uint8 array of shape \(40, 48\)"):
        grab(IMAGE, labels, 1)


def test_a_box_does_not_change_the_mask_that_it_is_drawn_from() -> None:
    mask = COARSE > 0.5
    before = mask.copy()
    box = boxed(mask)
    assert box is not mask
    np.testing.assert_array_equal(mask, before)
