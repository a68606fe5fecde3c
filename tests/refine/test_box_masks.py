from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.data.scenes import OBJECTS, annotated_boxes, draw_scene
from tagseg.errors import ConfigError, ShapeError
from tagseg.refine.box_masks import OBJECT, boxed, object_mask


def disc(size: int = 100, radius: int = 25) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """A red disc on green, both a little noisy, and its exact mask."""
    y, x = np.mgrid[:size, :size]
    inside = np.hypot(x - size // 2, y - size // 2) < radius
    image = np.where(inside[:, :, None], (200, 40, 40), (40, 160, 60))
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), inside


BOX = np.array([[20.0, 20.0, 80.0, 80.0]])


def iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


# GrabCut


def test_the_object_is_cut_out_of_its_box() -> None:
    image, inside = disc()
    mask = object_mask(image, BOX)
    assert mask.dtype == np.uint8
    assert mask.shape == image.shape[:2]
    assert set(np.unique(mask)) == {0, OBJECT}
    assert iou(mask == OBJECT, inside) > 0.95
    assert not mask[:20].any()
    assert not mask[:, 80:].any()


def test_boxes_beat_filled_boxes_on_scenes() -> None:
    cut, filled = [], []
    for i in range(15):
        scene = draw_scene(OBJECTS, 100, i)
        box = annotated_boxes(scene, 100, i).mean(0)
        mask = object_mask(scene.image, box[None])
        left, top, right, bottom = np.rint(box).astype(int)
        whole = np.zeros(mask.shape, bool)
        whole[top:bottom, left:right] = True
        truth = scene.labels > 0
        cut.append(iou(mask == OBJECT, truth))
        filled.append(iou(whole, truth))
    assert np.mean(cut) > 0.8 > 0.65 > np.mean(filled)


def test_nothing_that_ran_before_and_no_thread_matters() -> None:
    scene = draw_scene(OBJECTS, 100, 3)
    box = annotated_boxes(scene, 100, 3).mean(0)[None]
    first = object_mask(scene.image, box)
    threads = cv2.getNumThreads()
    try:
        for state in range(4):
            cv2.setRNGSeed(state)
            cv2.randu(np.zeros((state + 1, 3), np.uint8), 0, 255)
            cv2.setNumThreads(1 + state)
            np.testing.assert_array_equal(object_mask(scene.image, box), first)
        with ThreadPoolExecutor(3) as pool:
            for other in pool.map(lambda _: object_mask(scene.image, box), range(6)):
                np.testing.assert_array_equal(other, first)
    finally:
        cv2.setNumThreads(threads)


def test_arguments_are_not_written_to() -> None:
    image, _ = disc()
    before, boxes = image.copy(), BOX.copy()
    object_mask(image, boxes)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(boxes, BOX)


def test_several_objects_are_united() -> None:
    image, inside = disc()
    double = np.concatenate([image, image], axis=1)
    boxes = np.concatenate([BOX, BOX + (100, 0, 100, 0)])
    mask = object_mask(double, boxes)
    assert iou(mask == OBJECT, np.concatenate([inside, inside], axis=1)) > 0.95
    single = object_mask(double, boxes[1:])
    assert not single[:, :100].any()
    assert not object_mask(double, np.zeros((0, 4))).any()


def test_a_large_photo_is_cut_small_and_brought_back() -> None:
    image, inside = disc(600, 150)
    mask = object_mask(image, BOX * 6, side=100)
    assert mask.shape == (600, 600)
    assert iou(mask == OBJECT, inside) > 0.95
    blocks = mask.reshape(100, 6, 100, 6)
    assert (blocks == blocks[:, :1, :, :1]).all()  # nearest neighbour of 100 x 100


# Where GrabCut fails


def core_of(box: tuple[int, int, int, int], shape: tuple[int, int], share: float) -> npt.NDArray:
    """Box^i by its words: the middle of the box is object, its area a share of the box's."""
    left, top, right, bottom = box
    expected = np.zeros(shape, np.uint8)
    expected[top:bottom, left:right] = 255
    for y in range(shape[0]):
        for x in range(shape[1]):
            dx = abs(x + 0.5 - (left + right) / 2) / (right - left)
            dy = abs(y + 0.5 - (top + bottom) / 2) / (bottom - top)
            if max(dx, dy) < share**0.5 / 2:
                expected[y, x] = 1
    return expected


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_an_object_that_vanishes_leaves_the_core_of_its_box(share: float) -> None:
    flat = np.full((60, 80, 3), 90, np.uint8)
    mask = object_mask(flat, np.array([[10.0, 10.0, 50.0, 50.0]]), core=share)
    np.testing.assert_array_equal(mask, core_of((10, 10, 50, 50), (60, 80), share))


def test_a_box_around_everything_leaves_its_core() -> None:
    image, _ = disc()
    mask = object_mask(image, np.array([[0.0, 0.0, 100.0, 100.0]]))
    np.testing.assert_array_equal(mask, core_of((0, 0, 100, 100), (100, 100), 0.2))


def test_the_least_share_decides_when_grabcut_has_failed() -> None:
    image, inside = disc(radius=12)
    share = object_mask(image, BOX, min_fraction=0.0).mean() / 0.36
    assert share == pytest.approx(inside.sum() / 3600, rel=0.1)
    assert not (object_mask(image, BOX, min_fraction=share * 0.99) == 255).any()
    assert (object_mask(image, BOX, min_fraction=share * 1.01) == 255).any()


def test_objects_win_over_the_doubtful_box_of_another() -> None:
    image = disc()[0]
    boxes = np.concatenate([BOX, [[0.0, 0.0, 100.0, 100.0]]])
    mask = object_mask(image, boxes)
    both = object_mask(image, BOX) == OBJECT
    assert (mask[both] == OBJECT).all()
    assert (mask[~both & ~(core_of((0, 0, 100, 100), (100, 100), 0.2) == 1)] == 255).all()


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.tuples(*[st.floats(0, 1)] * 4),
    st.integers(0, 3),
)
def test_any_box_in_any_photo_gives_a_mask(
    shape: tuple[int, int], edges: tuple[float, ...], colours: int
) -> None:
    """A few colours, tiny photos, boxes of less than a pixel or up to the edges."""
    rng = np.random.default_rng(0)
    image = (rng.integers(0, colours + 1, (*shape, 3)) * 80).astype(np.uint8)
    height, width = shape
    left, right = sorted((edges[0] * width, edges[1] * width))
    top, bottom = sorted((edges[2] * height, edges[3] * height))
    box = np.array([[left * 0.9, top * 0.9, right + 0.01, bottom + 0.01]])
    mask = object_mask(image, box)
    assert mask.shape == shape
    assert set(np.unique(mask)) <= {0, 1, 255}
    assert (mask == OBJECT).any()  # something is there, as the annotators say
    outside = np.ones(shape, bool)
    outside[int(top * 0.9) : int(bottom) + 2, int(left * 0.9) : int(right) + 2] = False
    assert not mask[outside].any()


@pytest.mark.parametrize(
    "boxes",
    [
        np.zeros(4),
        np.zeros((1, 5)),
        np.array([[0, 0, np.nan, 5.0]]),
        np.array([[5.0, 5, 5, 9]]),
        np.array([[100.0, 0, 120, 9]]),
    ],
)
def test_wrong_boxes_are_refused(boxes: npt.NDArray) -> None:
    with pytest.raises(ShapeError, match="box"):
        object_mask(disc()[0], boxes)


def test_a_wrong_photo_is_refused() -> None:
    with pytest.raises(ShapeError, match="image"):
        object_mask(disc()[0][:, :, 0], BOX)


# Boxes of masks


def drawn(*boxes: tuple[int, int, int, int]) -> npt.NDArray[np.bool_]:
    """Filled boxes of left, top, right, bottom."""
    mask = np.zeros((40, 60), bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


def test_the_box_of_a_disc_touches_its_four_sides() -> None:
    inside = disc()[1]
    rows, columns = np.nonzero(inside)
    expected = np.zeros_like(inside)
    expected[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    found = boxed(inside)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(boxed(found), found)


def test_one_box_spans_the_larger_components() -> None:
    mask = drawn((5, 5, 15, 15), (30, 20, 40, 25))  # 100 and 50 pixels
    np.testing.assert_array_equal(boxed(mask), drawn((5, 5, 40, 25)))
    np.testing.assert_array_equal(boxed(mask, min_fraction=0.51), drawn((5, 5, 15, 15)))


def test_specks_do_not_stretch_the_box() -> None:
    mask = drawn((5, 5, 15, 15), (58, 38, 60, 40))
    np.testing.assert_array_equal(boxed(mask), drawn((5, 5, 15, 15)))
    np.testing.assert_array_equal(boxed(mask, min_fraction=0), drawn((5, 5, 60, 40)))


def test_pixels_that_touch_at_a_corner_are_one_component() -> None:
    mask = drawn((5, 5, 15, 15), (15, 15, 17, 17))
    np.testing.assert_array_equal(boxed(mask), drawn((5, 5, 17, 17)))


def test_nothing_has_no_box() -> None:
    for shape in ((40, 60), (1, 1), (0, 5)):
        found = boxed(np.zeros(shape, bool))
        assert found.shape == shape
        assert not found.any()
    assert boxed(np.ones((1, 1), bool)).all()


def test_wrong_masks_and_shares_are_refused() -> None:
    with pytest.raises(ShapeError, match="mask"):
        boxed(np.zeros((4, 5), np.uint8))
    with pytest.raises(ShapeError, match="mask"):
        boxed(np.zeros((4, 5, 1), bool))
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="min_fraction"):
            boxed(np.zeros((4, 5), bool), min_fraction=wrong)
