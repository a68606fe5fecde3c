"""Crops around classes: what is drawn, where it lies, and what it holds."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagseg.data.transforms import recoloured
from tagseg.errors import ConfigError, TrainingError
from tagseg.segment.crops import ClassCrops, CropForm, class_weights, random_crop


class Photos:
    """Photos in memory whose red and green are the pixel's row and column."""

    classes = ("dot", "bar")

    def __init__(self, *shapes: tuple[int, int]) -> None:
        self.images = []
        for height, width in shapes:
            rows, columns = np.mgrid[:height, :width]
            self.images.append(
                np.stack([rows, columns, np.full_like(rows, 7)], -1).astype(np.uint8)
            )

    def image(self, index: int) -> np.ndarray:
        return self.images[index]


def crops(photos: Photos, labels: list[np.ndarray], form: CropForm) -> ClassCrops:
    known = np.arange(len(labels))
    return ClassCrops(photos, known, labels.__getitem__, form)  # type: ignore[arg-type]


PLAIN = {"scale": (1.0, 1.0), "jitter": 0.0}


def test_weights_are_roots_of_photos() -> None:
    assert class_weights(np.array([0, 1, 4, 9])).tolist() == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6])
    assert class_weights(np.zeros(3, np.intp)).tolist() == [0, 0, 0]


def test_small_things_are_in_crops_drawn_around_them() -> None:
    labels = np.zeros((100, 120), np.uint8)
    labels[70:72, 5:7] = 1
    form = CropForm((32, 32), around=1.0, **PLAIN)
    draw = crops(Photos((100, 120)), [labels], form)
    for i in range(50):
        assert (draw(0, np.random.default_rng(i))["labels"] == 1).any()


def test_without_classes_photos_are_drawn_evenly() -> None:
    shapes = [(40, 40), (40, 60)]
    labels = [np.zeros(shape, np.uint8) for shape in shapes]
    draw = crops(Photos(*shapes), labels, CropForm((40, 40), around=1.0, **PLAIN))
    widths = {
        int(draw(i, np.random.default_rng(s))["image"][1].max()) for i in (0, 1) for s in range(9)
    }
    assert max(widths) > 39  # the second photo, when it is asked for


def test_classes_are_drawn_by_the_roots_of_their_photos() -> None:
    one, other = np.full((20, 20), 1, np.uint8), np.full((20, 20), 2, np.uint8)
    labels = [one] * 9 + [other]
    draw = crops(Photos(*[(20, 20)] * 10), labels, CropForm((16, 16), around=1.0, **PLAIN))
    drawn = [int(draw(0, np.random.default_rng(i))["labels"].max()) for i in range(400)]
    assert 0.18 < np.mean(np.array(drawn) == 2) < 0.33  # 1 of 4


def test_photos_of_which_nothing_is_known_are_not_drawn() -> None:
    shapes = [(40, 40), (40, 60), (40, 80)]
    labels = [
        np.full(shape, value, np.uint8) for shape, value in zip(shapes, (255, 0, 255), strict=True)
    ]
    draw = crops(Photos(*shapes), labels, CropForm((40, 60), **PLAIN))
    for i in range(3):
        assert (draw(i, np.random.default_rng(0))["labels"] == 0).all()
    with pytest.raises(TrainingError, match="no training label is known"):
        crops(Photos(*shapes), [labels[0], labels[2]], CropForm((40, 60)))


@given(
    seed=st.integers(0, 1000),
    size=st.tuples(st.integers(8, 64), st.integers(8, 64)),
    around=st.sampled_from([0.0, 1.0]),
    turns=st.booleans(),
)
def test_image_and_labels_lie_alike(
    seed: int, size: tuple[int, int], around: float, turns: bool
) -> None:
    photos = Photos((48, 56))
    labels = (np.mgrid[:48, :56][1] // 4).astype(np.uint8)
    form = CropForm(size, around=around, upside_down=turns, turns=turns, **PLAIN)
    drawn = crops(photos, [labels], form)(0, np.random.default_rng(seed))
    image, found = drawn["image"], drawn["labels"]
    assert image.shape == (3, *size)
    assert found.shape == size
    inside = found != 255
    assert inside.any()
    grey = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
    assert (image[2][grey] == 118).all()
    pure = inside & (image[2] == 7)  # the photo's edge is mixed with the padding
    columns = image[1][pure].astype(int)  # rounded, where crops lie between pixels
    between = [np.clip(columns + step, 0, 55) // 4 == found[pure] for step in (-1, 0, 1)]
    assert np.logical_or.reduce(between).all()


def test_a_crop_at_half_size_holds_twice_as_much() -> None:
    photos, labels = Photos((100, 100)), np.zeros((100, 100), np.uint8)
    form = CropForm((50, 50), 0.5, (1.0, 1.0), 0.0, jitter=0.0)
    image = crops(photos, [labels], form)(0, np.random.default_rng(0))["image"]
    assert image[0].max() >= 97
    assert image[0].min() <= 2


def test_a_crop_at_the_photos_size_is_the_photo() -> None:
    photos, labels = Photos((40, 60)), np.arange(2400, dtype=np.int64).reshape(40, 60) % 3
    form = CropForm((40, 60), around=0.0, **PLAIN)
    drawn = [
        crops(photos, [labels.astype(np.uint8)], form)(0, np.random.default_rng(i))
        for i in range(8)
    ]
    assert any((d["image"].transpose(1, 2, 0) == photos.image(0)).all() for d in drawn)
    assert any((d["labels"] == labels).all() for d in drawn)


def test_jitter_keeps_labels_and_changes_colours() -> None:
    photos, labels = Photos((40, 40)), np.ones((40, 40), np.uint8)
    same = CropForm((40, 40), around=0.0, scale=(1.0, 1.0), jitter=0.0)
    other = CropForm((40, 40), around=0.0, scale=(1.0, 1.0), jitter=0.3)
    first, second = (
        crops(photos, [labels], form)(0, np.random.default_rng(3)) for form in (same, other)
    )
    assert (first["labels"] == second["labels"]).all()
    assert (first["image"] != second["image"]).any()


@pytest.mark.parametrize(
    "wrong",
    [{"size": (0, 8)}, {"zoom": 0.0}, {"scale": (2.0, 1.0)}, {"around": 1.5}, {"jitter": 1.0}],
)
def test_numbers_that_cannot_be_meant(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        CropForm(**({"size": (8, 8)} | wrong))  # type: ignore[arg-type]


# Crops from anywhere


@given(
    seed=st.integers(0, 1000),
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    zoom=st.sampled_from([0.5, 1.0, 1.7]),
    jitter=st.sampled_from([0.0, 0.3]),
    turns=st.booleans(),
)
def test_a_random_crop_is_that_of_a_sample_around_nothing(
    seed: int, size: tuple[int, int], zoom: float, jitter: float, turns: bool
) -> None:
    photos, labels = Photos((48, 56)), np.zeros((48, 56), np.uint8)
    form = CropForm(size, zoom, around=0.0, jitter=jitter, upside_down=turns, turns=turns)
    expected = crops(photos, [labels], form)(0, np.random.default_rng(seed))["image"]
    image, rng = photos.image(0), np.random.default_rng(seed)
    rng.random()  # whether to draw around a class
    found = random_crop(image, form, rng)
    assert found.shape == (*size, 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found.transpose(2, 0, 1), expected)
    np.testing.assert_array_equal(image, Photos((48, 56)).image(0))


@given(seed=st.integers(0, 1000), turns=st.booleans())
def test_a_random_crop_inside_a_photo_is_a_window_of_it(seed: int, turns: bool) -> None:
    """Rows count up or down by one and so do columns, whatever the turn."""
    form = CropForm((12, 12), turns=turns, **PLAIN)
    found = random_crop(Photos((48, 56)).image(0), form, np.random.default_rng(seed)).astype(int)
    rows, columns = found[..., 0], found[..., 1]
    if (rows[:, 0] == rows[:, 1]).all():
        rows, columns = rows.T, columns.T
    assert turns or not (found[0, :, 0] != found[0, 0, 0]).any()
    for along, across in ((rows, columns), (columns.T, rows.T)):
        for y in range(12):
            for x in range(11):
                step = (along[y, x + 1] - along[y, x]) * np.sign(along[0, 11] - along[0, 0])
                assert 0 <= step <= 2  # one, between two roundings
                assert across[y, x] == across[y, x + 1]
        assert abs(along[0, 11] - along[0, 0]) in (10, 11, 12)
    assert (found[..., 2] == 7).all()


def test_random_crops_are_from_everywhere_whatever_around_says() -> None:
    image, rng = Photos((48, 56)).image(0), np.random.default_rng(0)
    form = CropForm((16, 16), around=1.0, **PLAIN)
    drawn = [random_crop(image, form, rng) for _ in range(300)]
    for channel, side in ((0, 48), (1, 56)):
        first = np.array([crop[..., channel].min() for crop in drawn])
        assert first.min() <= 1
        assert first.max() >= side - 18
        assert abs(first.mean() - (side - 16) / 2) < 2


def test_a_random_crop_larger_than_the_photo_holds_it_between_grey() -> None:
    image, form = np.full((20, 30, 3), 7, np.uint8), CropForm((40, 50), **PLAIN)
    for seed in range(20):
        found = random_crop(image, form, np.random.default_rng(seed))
        inside = (found == 7).all(2)
        assert 19 * 29 <= inside.sum() <= 20 * 30  # its edges may be mixed with the padding
        rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
        assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert (found == 118).all(2).sum() >= 40 * 50 - 21 * 31


def test_random_crops_repeat_with_their_numbers_and_are_recoloured() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    form = CropForm((16, 16), jitter=0.3)
    first, again, other = (
        random_crop(image, form, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()
    plain = random_crop(image, CropForm((16, 16), jitter=0.0), np.random.default_rng(1))
    assert (first != plain).any()


@pytest.mark.parametrize("seed", range(4))
def test_colours_that_are_left_to_the_device_are_those_of_the_same_draw(seed: int) -> None:
    shown = Photos((60, 70))
    shown.images[0] = np.random.default_rng(seed).integers(0, 256, (60, 70, 3), np.uint8)
    labels = [np.ones((60, 70), np.uint8)]
    form = CropForm((32, 48), jitter=0.3)
    expected = crops(shown, labels, form)(0, np.random.default_rng(seed))
    apart = ClassCrops(shown, np.arange(1), labels.__getitem__, form, apart=True)  # type: ignore[arg-type]
    left = apart(0, np.random.default_rng(seed))
    np.testing.assert_array_equal(left["labels"], expected["labels"])
    batch = {name: torch.from_numpy(left[name])[None] for name in ("image", "colour")}
    found = recoloured(batch["image"], batch["colour"])[0].numpy()
    difference = np.abs(found.astype(int) - expected["image"])
    assert not np.array_equal(left["image"], expected["image"])
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.15  # OpenCV keeps ten bits of the matrix


def test_without_jitter_nothing_is_left_to_the_device() -> None:
    photos, labels = Photos((60, 70)), [np.ones((60, 70), np.uint8)]
    form = CropForm((32, 48), jitter=0.0)
    apart = ClassCrops(photos, np.arange(1), labels.__getitem__, form, apart=True)  # type: ignore[arg-type]
    left, here = (
        draw(0, np.random.default_rng(1)) for draw in (apart, crops(photos, labels, form))
    )
    assert left.keys() == here.keys()
    np.testing.assert_array_equal(left["image"], here["image"])
