from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.data.transforms import (
    Augmentation,
    augment,
    augment_apart,
    colour_change,
    crop_size,
    letterbox,
    recoloured,
    resize_batch,
    unletterbox,
)
from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import IGNORE, Image, Labels
from tagseg.nets.backbone import Preprocessing
from tagseg.nets.tiny import Tiny

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


@pytest.mark.parametrize("flip", [False, True])
def test_a_sample_of_no_size_is_the_photo_whole(flip: bool) -> None:
    image, columns, rows = ramp(7, 12)
    seen = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        cut, maps = augment(image, [columns, rows], Augmentation(None, flip=flip), rng)
        mirrored = bool(maps[0][0, 0])
        seen.add(mirrored)
        back = slice(None, None, -1) if mirrored else slice(None)
        np.testing.assert_array_equal(cut[:, back], image)
        np.testing.assert_array_equal(maps[0][:, back], columns)
        np.testing.assert_array_equal(maps[1], rows)
    assert seen == ({False, True} if flip else {False})
    scaled, _ = augment(image, [], Augmentation(None, scale=(2.0, 2.0)), np.random.default_rng(0))
    assert scaled.shape == (14, 24, 3)
    for form in ({"stretch": True}, {"letterbox": "reflect"}):
        with pytest.raises(ConfigError, match="of no size; give size"):
            Augmentation(None, **form)


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


# Letterbox

FILL = (124, 116, 104)


@settings(derandomize=True, max_examples=80, deadline=None)
@given(height=SIDES, width=SIDES, side=SIDES)
def test_a_letterboxed_photo_is_as_large_as_fits_and_centred(
    height: int, width: int, side: int
) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    kept = image.copy()
    canvas, (top, left, h, w) = letterbox(image, side, FILL)
    assert canvas.shape == (side, side, 3)
    assert canvas.dtype == np.uint8
    assert max(h, w) == side
    assert abs(h - height * side / max(height, width)) <= 0.5 or h == 1
    assert abs(w - width * side / max(height, width)) <= 0.5 or w == 1
    assert side - h - top - top in (0, 1)
    assert side - w - left - left in (0, 1)
    inside = np.zeros((side, side), bool)
    inside[top : top + h, left : left + w] = True
    assert (canvas[~inside] == FILL).all()
    assert not canvas[inside].any()
    canvas[:] = 9  # not a view of the photo
    np.testing.assert_array_equal(image, kept)


def test_a_photo_that_fits_is_copied_pixel_by_pixel() -> None:
    image, *_ = ramp(30, 40)
    canvas, box = letterbox(image, 40, FILL)
    assert box == (5, 0, 30, 40)
    np.testing.assert_array_equal(canvas[5:35], image)


def test_photos_shrink_by_area_and_grow_bilinearly() -> None:
    chessboard = np.indices((40, 20)).sum(0)[..., None].repeat(3, 2) % 2 * 200
    canvas, (_, left, _, width) = letterbox(chessboard.astype(np.uint8), 20, (0, 0, 0))
    assert (left, width) == (5, 10)
    assert (canvas[:, 5:15] == 100).all()
    pair = np.array([[[0] * 3, [100] * 3]], np.uint8)
    canvas, (top, _, height, _) = letterbox(pair, 4, (0, 0, 0))
    assert (top, height) == (1, 2)
    np.testing.assert_allclose(canvas[1, :, 0], [0, 25, 75, 100], atol=1)


def test_the_mean_colour_is_zero_for_the_network_up_to_rounding() -> None:
    backbone = Tiny()
    for preprocessing in (Preprocessing(), Preprocessing((0.5, 0.1, 0.9), (0.5, 0.5, 0.5))):
        backbone.set_preprocessing(preprocessing)
        canvas, _ = letterbox(np.zeros((1, 8, 3), np.uint8), 8, preprocessing.mean_colour)
        x = torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255
        border = backbone.normalise(x)[..., 5:, :]
        assert border.abs().max() <= 0.5 / 255 / min(preprocessing.std) + 1e-6
    assert Preprocessing().mean_colour == FILL
    assert Preprocessing((-0.1, 1.0, 1.7)).mean_colour == (0, 255, 255)


def smooth(height: int, width: int) -> npt.NDArray[np.float32]:
    """Three smooth, lopsided maps in [0, 1] that are flat at the borders."""
    y, x = ((np.arange(n) + 0.5) / n for n in (height, width))
    down, right = (0.5 + 0.5 * np.cos(np.pi * place) for place in (y, x))
    maps = [np.tile(down[:, None], width), np.tile(right, (height, 1)), np.outer(down, right**2)]
    return np.stack(maps).astype(np.float32)


@pytest.mark.parametrize("shape", [(96, 128), (128, 96), (50, 50), (333, 200), (90, 41)])
@pytest.mark.parametrize("side", [128, 121])
def test_unletterbox_undoes_letterbox(shape: tuple[int, int], side: int) -> None:
    maps = smooth(*shape)
    photo = np.round(maps.transpose(1, 2, 0) * 255).astype(np.uint8)
    for scale in (0.8, 1.0, 1.2):
        canvas, _ = letterbox(photo, side, (0, 255, 0))
        x = torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255
        size = round(side * scale)
        seen = torch.nn.functional.interpolate(
            x, (size, size), mode="bilinear", align_corners=False
        )
        back = unletterbox(seen[0], shape, side)
        assert back.shape == (3, *shape)
        # At another scale the resized canvas mixes its colour into the photo's outermost pixels.
        rim = 0 if scale == 1 else math.ceil(2.5 * max(shape) / size)
        inner = (slice(None), *(slice(rim, length - rim) for length in shape))
        np.testing.assert_allclose(back.numpy()[inner], maps[inner], atol=1e-2)


@pytest.mark.parametrize("shape", [(96, 128), (129, 96), (61, 47)])
@pytest.mark.parametrize("scale", [0.8, 1.0, 1.2])
def test_the_way_there_and_back_is_the_same_for_a_mirrored_photo(
    shape: tuple[int, int], scale: float
) -> None:
    photo = np.round(smooth(*shape).transpose(1, 2, 0) * 255).astype(np.uint8)

    def there_and_back(image: Image) -> torch.Tensor:
        canvas, _ = letterbox(np.ascontiguousarray(image), 100, FILL)
        x = torch.from_numpy(canvas).permute(2, 0, 1)[None].float()
        return unletterbox(resize_batch(x, scale)[0], shape, 100)

    straight = there_and_back(photo)
    for axis in (0, 1):
        mirrored = there_and_back(np.flip(photo, axis)).flip(axis + 1)
        inner = (slice(None), slice(3, -3), slice(3, -3)) if scale != 1 else slice(None)
        difference = (mirrored - straight)[inner].abs().max()
        assert difference <= 1 + 1e-3  # in 255: OpenCV rounds a half to one side


def test_places_on_a_canvas_are_the_same_for_a_mirrored_canvas() -> None:
    """Where both borders are alike, mirroring the maps mirrors the result."""
    maps = torch.rand(2, 60, 60)
    for shape in ((60, 40), (30, 50), (60, 60), (12, 60)):
        straight = unletterbox(maps, shape)
        for axis in (1, 2):
            torch.testing.assert_close(
                unletterbox(maps.flip(axis), shape).flip(axis), straight, atol=1e-5, rtol=0
            )


def loop_unletterboxed(
    plane: npt.NDArray[Any], shape: tuple[int, int], side: int
) -> npt.NDArray[np.float64]:
    """The middle of each pixel of the photo, taken to the canvas; bilinear inside the box.

    Only canvas pixels that hold nothing but the photo count, if there are any.
    """
    size = len(plane)
    box = [max(1, round(length * side / max(shape))) for length in shape]
    out = np.zeros(shape)
    for row in range(shape[0]):
        for column in range(shape[1]):
            place = []
            for at, length, extent in zip((row, column), shape, box, strict=True):
                first = (side - extent) // 2
                on_canvas = (first + (at + 0.5) / length * extent) * size / side - 0.5
                inside = [
                    pixel
                    for pixel in range(size)
                    if first * size <= pixel * side
                    and (pixel + 1) * side <= (first + extent) * size
                ]
                low, high = (inside[0], inside[-1]) if inside else (0, size - 1)
                place.append(min(max(on_canvas, low), high))
            (y, x), total = place, 0.0
            for corner_y in (math.floor(y), math.floor(y) + 1):
                for corner_x in (math.floor(x), math.floor(x) + 1):
                    weight = (1 - abs(y - corner_y)) * (1 - abs(x - corner_x))
                    if weight > 0:
                        total += weight * plane[corner_y, corner_x]
            out[row, column] = total
    return out


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 25), st.integers(1, 25)),
    side=st.integers(1, 30),
    scale=st.sampled_from([0.8, 1.0, 1.2]),
)
def test_unletterbox_equals_the_loop(shape: tuple[int, int], side: int, scale: float) -> None:
    size = max(1, round(side * scale))
    maps = np.random.default_rng(0).random((2, size, size), np.float32)
    back = unletterbox(maps, shape, side)
    for plane, ours in zip(maps, back, strict=True):
        np.testing.assert_allclose(ours, loop_unletterboxed(plane, shape, side), atol=1e-4)


def test_maps_stay_what_they_are_arrays_or_tensors() -> None:
    maps = np.random.default_rng(0).random((2, 20, 20), np.float32)
    array, tensor = unletterbox(maps, (9, 12)), unletterbox(torch.from_numpy(maps), (9, 12))
    assert array.dtype == np.float32
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(array, tensor.numpy())
    maps.flags.writeable = False
    np.testing.assert_array_equal(unletterbox(maps[:, ::-1], (12, 9))[:, ::-1].shape, (2, 12, 9))
    np.testing.assert_array_equal(unletterbox(maps, (9, 12)), array)
    half = unletterbox(torch.from_numpy(maps.copy()).half(), (9, 12))
    assert half.dtype == torch.float32


def test_on_its_own_canvas_the_side_need_not_be_told() -> None:
    maps = torch.rand(1, 50, 50)
    assert torch.equal(unletterbox(maps, (31, 77)), unletterbox(maps, (31, 77), 50))


@pytest.mark.parametrize(
    ("shape", "photo"),
    [((3, 4, 5), (3, 4)), ((4, 4), (3, 4)), ((1, 0, 0), (3, 4)), ((1, 4, 4), (0, 4))],
)
def test_maps_and_photos_that_cannot_be_are_refused(
    shape: tuple[int, ...], photo: tuple[int, int]
) -> None:
    with pytest.raises(ShapeError):
        unletterbox(np.zeros(shape, np.float32), photo)
    with pytest.raises(ShapeError):
        unletterbox(torch.zeros(shape), photo)


def test_letterboxes_that_cannot_be_are_refused() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ConfigError, match="a canvas of 0 pixels"):
        letterbox(image, 0, FILL)
    with pytest.raises(ShapeError, match="image"):
        letterbox(image.astype(np.float32), 4, FILL)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a letterbox of 4 x 5 pixels; use a square size"):
        Augmentation((4, 5), letterbox=FILL)
    for change in ({"stretch": True}, {"scale": (0.5, 1.0)}):
        with pytest.raises(ConfigError, match="together with stretch or scale"):
            Augmentation((4, 4), letterbox=FILL, **change)  # type: ignore[arg-type]


def test_letterboxed_samples_are_the_letterboxed_photo_or_its_mirror_image() -> None:
    image, columns, rows = ramp(23, 31)
    how = Augmentation((40, 40), letterbox=FILL)
    expected = [letterbox(i, 40, FILL)[0] for i in (image, np.ascontiguousarray(image[:, ::-1]))]
    rng, mirrored = np.random.default_rng(0), 0
    for _ in range(200):
        cut, maps = augment(image, [columns, rows], how, rng)
        flipped = int(maps[0][20, 0]) > 15
        mirrored += flipped
        np.testing.assert_array_equal(cut, expected[flipped])
        padded = maps[0] == IGNORE
        np.testing.assert_array_equal(padded, maps[1] == IGNORE)
        np.testing.assert_array_equal(padded, (cut == FILL).all(2))
        for channel, labels in enumerate(maps):
            assert np.abs(cut[~padded][:, channel].astype(int) - labels[~padded]).max() <= 1
    assert 70 <= mirrored <= 130
    still = Augmentation((40, 40), letterbox=FILL, flip=False)
    for _ in range(20):
        np.testing.assert_array_equal(augment(image, [], still, rng)[0], expected[0])


def test_jitter_leaves_the_letterboxs_border_as_it_is() -> None:
    image, *_ = ramp(20, 40)
    how = Augmentation((40, 40), letterbox=FILL, flip=False, jitter=0.3)
    cut, _ = augment(image, [], how, np.random.default_rng(0))
    assert (cut[:10] == FILL).all()
    assert (cut[30:] == FILL).all()
    assert not np.array_equal(cut[10:30], image)


# Batches


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.4, 0.001])
def test_batches_change_size_and_keep_their_mean(factor: float) -> None:
    x = torch.rand(2, 3, 20, 31)
    y = resize_batch(x, factor)
    assert y.shape == (2, 3, max(1, round(20 * factor)), max(1, round(31 * factor)))
    torch.testing.assert_close(y.mean((2, 3)), x.mean((2, 3)), atol=0.05, rtol=0)
    torch.testing.assert_close(resize_batch(x.flip(3), factor).flip(3), y)


def test_batches_shrink_smoothly() -> None:
    stripes = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    assert (resize_batch(stripes, 0.5) - 0.5).abs().max() < 0.2
    torch.testing.assert_close(resize_batch(stripes, 1.0), stripes)


# Edges cut off, and mirrored borders


class Told:
    """A generator that draws what it is told."""

    def __init__(self, *draws: Any) -> None:
        self.draws = list(draws)

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:
        drawn = self.draws.pop(0)
        assert np.all(np.less_equal(low, drawn))
        assert np.all(np.less_equal(drawn, high))
        return np.array(drawn) if size is not None else drawn

    def random(self) -> float:
        return float(self.draws.pop(0))

    def integers(self, low: int, high: int) -> int:
        return int(self.draws.pop(0))


def slow_letterbox_of_mirrors(photo: Image, side: int) -> Image:
    """Pixel by pixel: the photo in the middle, and where it ends its mirror image about its edge.

    The photo's longer side is ``side`` already.
    """
    height, width = photo.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    canvas = np.zeros((side, side, 3), np.uint8)

    def folded(place: int, count: int) -> int:
        while not 0 <= place < count:
            if count == 1:
                return 0
            place = -place if place < 0 else 2 * (count - 1) - place
        return place

    for y in range(side):
        for x in range(side):
            canvas[y, x] = photo[folded(y - top, height), folded(x - left, width)]
    return canvas


@pytest.mark.parametrize("shape", [(30, 40), (40, 31), (40, 40), (3, 40), (1, 40), (40, 1), (1, 1)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_reflecting_letterbox_equals_the_loop(shape: tuple[int, int], flip: bool) -> None:
    """Borders wider than the photo mirror it again and again; labels there are not known."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    labels = rng.integers(0, 21, shape).astype(np.uint8)
    kept, side = image.copy(), max(shape)
    how = Augmentation((side, side), letterbox="reflect")
    cut, (found,) = augment(image, [labels], how, Told(0.1 if flip else 0.9))  # type: ignore[arg-type]
    seen, meant = (a[:, ::-1] if flip else a for a in (image, labels))
    np.testing.assert_array_equal(cut, slow_letterbox_of_mirrors(seen, side))
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    expected = np.full((side, side), IGNORE, np.uint8)
    expected[top : top + shape[0], left : left + shape[1]] = meant
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(image, kept)


@pytest.mark.parametrize(("shape", "side"), [((60, 80), 40), ((30, 20), 50)])
def test_a_reflecting_letterbox_of_another_size(shape: tuple[int, int], side: int) -> None:
    """Resized first, then mirrored: the middle is that of a letterbox with a colour."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    cuts = [
        augment(image, [], Augmentation((side, side), flip=False, letterbox=fill), Told())[0]  # type: ignore[arg-type]
        for fill in ("reflect", FILL)
    ]
    _, (top, left, height, width) = letterbox(image, side, FILL)
    photo = cuts[1][top : top + height, left : left + width]
    np.testing.assert_array_equal(cuts[0], slow_letterbox_of_mirrors(photo, side))


@pytest.mark.parametrize("reflect", [False, True])
def test_edges_cut_off_equal_the_loop(reflect: bool) -> None:
    image, columns, rows = ramp(50, 80)
    draws = [(0.0999, 0.02), (0.05, 0.013)]
    top, bottom = 4, 1  # of 50: 4.995 and 1.0, rounded down
    left, right = 4, 1  # of 80: 4.0 and 1.04
    expected = np.array(
        [[image[y, x] for x in range(left, 80 - right)] for y in range(top, 50 - bottom)]
    )
    height, width = expected.shape[:2]
    if reflect:
        how = Augmentation((width, width), flip=False, letterbox="reflect", edges=0.1)
        cut, maps = augment(image, [columns, rows], how, Told(*draws))  # type: ignore[arg-type]
        start = (width - height) // 2
        cut, maps = cut[start : start + height], [m[start : start + height] for m in maps]
    else:
        how = Augmentation((height, width), flip=False, edges=0.1)
        cut, maps = augment(image, [columns, rows], how, Told(*draws, 1.0, 0, 0))  # type: ignore[arg-type]
    np.testing.assert_array_equal(cut, expected)
    for channel in (0, 1):
        np.testing.assert_array_equal(maps[channel], expected[..., channel])


def test_edges_cover_their_range_on_every_side() -> None:
    image, columns, rows = ramp(100, 200)
    rng, how = np.random.default_rng(0), Augmentation((100, 200), flip=False, edges=0.1)
    seen = []
    for _ in range(300):
        _, maps = augment(image, [columns, rows], how, rng)
        inside = [m[m != IGNORE] for m in maps]
        seen.append([f(m) for m in inside for f in (np.min, np.max)])
    low, high = np.min(seen, 0).tolist(), np.max(seen, 0).tolist()
    # 255 is a column too, but no photo here is so wide.
    assert (low[0], high[0]) == (0, 19)
    assert (low[1], high[1]) == (180, 199)
    assert (low[2], high[2]) == (0, 9)
    assert (low[3], high[3]) == (90, 99)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(height=SIDES, width=SIDES, edges=st.floats(0, 0.499), seed=st.integers(0, 99))
def test_edges_leave_something_of_every_photo(
    height: int, width: int, edges: float, seed: int
) -> None:
    image, columns, _ = ramp(height, width)
    kept = image.copy()
    for how in (
        Augmentation((height, width), edges=edges),
        Augmentation((32, 32), edges=edges, letterbox="reflect"),
    ):
        cut, (labels,) = augment(image, [columns], how, np.random.default_rng(seed))
        assert cut.shape[:2] == labels.shape == how.size
        assert (labels != IGNORE).any()
        cut[:] = 0
    np.testing.assert_array_equal(image, kept)


def test_no_edges_draw_nothing() -> None:
    """Runs of other recipes draw as they did before there were edges."""
    image, columns, _ = ramp(30, 40)
    how = Augmentation((20, 20), scale=(0.8, 1.25), jitter=0.1)
    first, again = (
        augment(image, [columns], h, np.random.default_rng(3))
        for h in (how, Augmentation((20, 20), scale=(0.8, 1.25), jitter=0.1, edges=0.0))
    )
    np.testing.assert_array_equal(first[0], again[0])


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ({"edges": 0.5}, "edges is 0.5; use 0 to below 0.5"),
        ({"edges": -0.1}, "edges is -0.1; use 0 to below 0.5"),
        ({"edges": math.nan}, "edges is nan; use 0 to below 0.5"),
        ({"letterbox": "reflect", "size": (20, 30)}, "a letterbox of 20 x 30 pixels; use a square"),
        ({"letterbox": "reflect", "stretch": True}, "a letterbox together with stretch or scale"),
    ],
)
def test_edges_and_mirrors_that_cannot_be(form: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Augmentation(**{"size": (20, 20), **form})
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    "how",
    [
        Augmentation((44, 44)),
        Augmentation((44, 44), scale=(0.6, 0.9)),
        Augmentation((44, 44), scale=(1.2, 1.7), edges=0.2),
        Augmentation((44, 44), letterbox=(9, 9, 9)),
    ],
    ids=["cut", "smaller", "larger", "letterbox"],
)
def test_maps_of_region_ids_keep_their_type(how: Augmentation) -> None:
    """Ids beyond 255 go where labels go."""
    image, columns, _ = ramp(40, 50)
    ids = columns.astype(np.int32) * 100_003 + 300
    for seed in range(6):
        _, (found, labels) = augment(image, [ids, columns], how, np.random.default_rng(seed))
        assert (found.dtype, labels.dtype) == (np.int32, np.uint8)
        expected = np.where(labels == IGNORE, IGNORE, labels.astype(np.int32) * 100_003 + 300)
        np.testing.assert_array_equal(found, expected)


# What a device that is not the CPU does


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_colours_that_are_left_to_the_device_are_those_of_the_same_draw(seed: int, flip: bool):
    image = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
    columns = np.tile(np.arange(40, dtype=np.uint8), (30, 1))
    how = Augmentation((24, 44), scale=(0.8, 1.25), flip=flip, jitter=0.3)
    here, there = np.random.default_rng(seed), np.random.default_rng(seed)
    expected, maps = augment(image, [columns], how, here)
    cut, same, change = augment_apart(image, [columns], how, there, apart=True)
    np.testing.assert_array_equal(same, maps)
    assert here.random() == there.random()
    batch = torch.from_numpy(cut.transpose(2, 0, 1))[None]
    found = recoloured(batch, torch.from_numpy(change["colour"])[None])[0].numpy()
    difference = np.abs(found.transpose(1, 2, 0).astype(int) - expected)
    assert not np.array_equal(cut, expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


@pytest.mark.parametrize(
    ("how", "apart"),
    [
        (Augmentation((24, 44), jitter=0.3), False),
        (Augmentation((24, 44)), True),
        (Augmentation(None, jitter=0.3), True),
        (Augmentation((24, 24), jitter=0.3, letterbox=(0, 0, 0)), True),
    ],
)
def test_what_is_coloured_here(how: Augmentation, apart: bool):
    image = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
    expected, _ = augment(image, [], how, np.random.default_rng(5))
    cut, _, change = augment_apart(image, [], how, np.random.default_rng(5), apart=apart)
    np.testing.assert_array_equal(cut, expected)
    assert not change


def test_recoloured_equals_the_loop():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 3, 5, 4), np.uint8)
    matrix, of_mean = rng.uniform(-0.5, 1.5, (2, 3, 3)), rng.uniform(-0.5, 0.5, (2, 3, 3))
    changes = np.stack(
        [colour_change(m, o, 0.5)["colour"] for m, o in zip(matrix, of_mean, strict=True)]
    )
    found = recoloured(torch.from_numpy(images), torch.from_numpy(changes)).numpy()
    for b in range(2):
        mean = images[b].mean((1, 2))
        for y in range(5):
            for x in range(4):
                value = matrix[b] @ images[b, :, y, x] + of_mean[b] @ mean + 0.5
                expected = np.clip(np.floor(value), 0, 255)
                near = np.abs(value - np.rint(value)) < 1e-3
                assert np.all((found[b, :, y, x] == expected) | near)
