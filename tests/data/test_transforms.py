from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.data.transforms import Augmentation, augment, crop_size
from tagseg.maps import IGNORE, Image, Labels

SIDES = st.integers(1, 60)


def ramp(height: int, width: int) -> tuple[Image, Labels, Labels]:
    """A photo whose red is the column and whose green is the row, and both as label maps."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    image = np.stack([columns, rows, np.full_like(rows, 77)], 2)
    return image, columns, rows


@st.composite
def augmentations(draw: st.DrawFn) -> Augmentation:
    low = draw(st.floats(0.3, 1.5))
    return Augmentation(
        size=(draw(SIDES), draw(SIDES)),
        stretch=draw(st.booleans()),
        scale=(low, low * draw(st.floats(1.0, 1.6))),
        flip=draw(st.booleans()),
    )


@settings(derandomize=True, max_examples=150, deadline=None)
@given(height=SIDES, width=SIDES, how=augmentations(), seed=st.integers(0, 99))
def test_photo_and_labels_stay_together(
    height: int, width: int, how: Augmentation, seed: int
) -> None:
    image, columns, rows = ramp(height, width)
    cut, maps = augment(image, [columns, rows], how, np.random.default_rng(seed))
    assert cut.shape == (*how.size, 3)
    assert cut.dtype == np.uint8
    padded = maps[0] == IGNORE
    np.testing.assert_array_equal(maps[1] == IGNORE, padded)
    assert (cut[padded] == 118).all()
    assert (cut[~padded][:, 2] == 77).all()
    if padded.all():
        return
    # One pixel of the sample spans ``step`` pixels of the photo; a label comes from its middle.
    whole = how.size if how.stretch else (height, width)
    sizes = [max(1, round(side * how.scale[0])) for side in whole]
    step = max(1.0, height / sizes[0], width / sizes[1])
    for channel, labels in enumerate(maps):
        difference = cut[~padded][:, channel].astype(int) - labels[~padded]
        assert np.abs(difference).max() <= step / 2 + 1.01


@pytest.mark.parametrize("factor", [0.5, 0.8, 0.9, 1.15, 1.25, 2.0])
@pytest.mark.parametrize("flip", [False, True])
def test_labels_are_not_shifted_against_the_photo(factor: float, flip: bool) -> None:
    """Rounding down would move labels by up to half a pixel, and always to the same side."""
    image, columns, rows = ramp(120, 120)
    how = Augmentation((60, 60), scale=(factor, factor), flip=flip)
    shifts = []
    for seed in range(20):
        cut, maps = augment(image, [columns, rows], how, np.random.default_rng(seed))
        for channel, labels in enumerate(maps):
            inside = labels != IGNORE
            shifts.append((cut[inside][:, channel].astype(float) - labels[inside]).mean())
    assert abs(np.mean(shifts)) < 0.3


@settings(derandomize=True, max_examples=60, deadline=None)
@given(height=SIDES, width=SIDES, size=st.tuples(SIDES, SIDES), seed=st.integers(0, 99))
def test_without_scaling_a_sample_is_a_window_of_the_photo(
    height: int, width: int, size: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 21, (height, width), np.uint8)
    image = np.stack([labels, 255 - labels, labels], 2)
    cut, (cut_labels,) = augment(image, [labels], Augmentation(size), rng)
    inside = cut_labels != IGNORE
    np.testing.assert_array_equal(cut[inside][:, 0], cut_labels[inside])
    np.testing.assert_array_equal(cut[inside][:, 1], 255 - cut_labels[inside])
    assert inside.sum() == min(height, size[0]) * min(width, size[1])


@settings(derandomize=True, max_examples=30, deadline=None)
@given(how=augmentations(), seed=st.integers(0, 99), jitter=st.sampled_from([0.0, 0.3]))
def test_a_draw_repeats_and_changes_nothing_that_it_was_given(
    how: Augmentation, seed: int, jitter: float
) -> None:
    image, columns, _ = ramp(30, 40)
    kept = image.copy(), columns.copy()
    how = Augmentation(how.size, how.stretch, how.scale, how.flip, jitter)
    first, again = (augment(image, [columns], how, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    first[0][:], first[1][0][:] = 0, 0  # a sample is not a view of the photo
    np.testing.assert_array_equal(image, kept[0])
    np.testing.assert_array_equal(columns, kept[1])


def test_half_of_the_samples_are_mirrored_and_none_unless_asked() -> None:
    image, columns, _ = ramp(20, 30)
    rng = np.random.default_rng(0)
    for flip, least, most in ((True, 150, 250), (False, 0, 0)):
        how = Augmentation((20, 30), flip=flip)
        cuts = [augment(image, [columns], how, rng) for _ in range(400)]
        mirrored = [int(labels[0, 0]) == 29 for _, (labels,) in cuts]
        assert least <= sum(mirrored) <= most
        for (cut, (labels,)), flipped in zip(cuts, mirrored, strict=True):
            np.testing.assert_array_equal(labels, columns[:, ::-1] if flipped else columns)
            np.testing.assert_array_equal(cut, image[:, ::-1] if flipped else image)


@pytest.mark.parametrize("photo", [(24, 31), (6, 5)])
def test_windows_lie_everywhere_in_the_photo_and_photos_everywhere_in_the_window(
    photo: tuple[int, int],
) -> None:
    image, columns, rows = ramp(*photo)
    rng, how = np.random.default_rng(0), Augmentation((10, 10), flip=False)
    seen = set()
    for _ in range(500):
        _, maps = augment(image, [columns, rows], how, rng)
        top, left = np.argwhere(maps[0] != IGNORE)[0]
        seen.add((int(maps[1][top, left] - top), int(maps[0][top, left] - left)))
    for axis, side in enumerate(photo):
        free = side - 10
        assert {offset[axis] for offset in seen} == set(range(min(0, free), max(0, free) + 1))


def test_stretched_photos_are_seen_whole() -> None:
    image, columns, rows = ramp(100, 50)
    cut, maps = augment(
        image, [columns, rows], Augmentation((40, 40), stretch=True, flip=False),
        np.random.default_rng(0),
    )  # fmt: skip
    assert not (maps[0] == IGNORE).any()
    assert maps[0][0, 0] <= 1
    assert maps[0][0, -1] >= 48
    assert maps[1][-1, 0] >= 97
    assert cut[-1, -1, 1] >= 97


def test_scales_cover_their_range() -> None:
    image, columns, _ = ramp(50, 100)
    rng, how = np.random.default_rng(0), Augmentation((1, 200), scale=(0.5, 1.5), flip=False)
    widths = [(augment(image, [columns], how, rng)[1][0] != IGNORE).sum() for _ in range(200)]
    assert min(widths) in range(50, 55)
    assert max(widths) in range(146, 151)


def test_jitter_changes_light_and_contrast_within_its_range() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(60, 190, (40, 40, 3), np.uint8)
    how = Augmentation((40, 40), flip=False, jitter=0.2)
    cuts = [augment(image, [image[:, :, 0].copy()], how, rng) for _ in range(300)]
    assert all((labels == image[:, :, 0]).all() for _, (labels,) in cuts)
    light = np.array([cut.mean() for cut, _ in cuts]) / image.mean()
    contrast = np.array([cut.std() for cut, _ in cuts]) / image.std()
    for ratio in (light, contrast):
        assert 0.78 < ratio.min() < 0.85
        assert 1.15 < ratio.max() < 1.22
    assert abs(np.corrcoef(light, contrast)[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("shapes", "limit", "expected"),
    [
        ([(96, 128)], 321, (96, 128)),
        ([(333, 500)] * 3, 321, (320, 320)),
        ([(100, 200), (300, 400), (110, 210)], 321, (104, 208)),
        ([(5, 3)], 321, (8, 8)),
        ([(96, 128)], 100, (96, 96)),
    ],
)
def test_crops_are_as_large_as_most_photos(
    shapes: list[tuple[int, int]], limit: int, expected: tuple[int, int]
) -> None:
    assert crop_size(shapes, limit) == expected


def test_crops_are_multiples_of_what_is_asked_for() -> None:
    assert crop_size([(100, 200)], 321, multiple=16) == (96, 192)
