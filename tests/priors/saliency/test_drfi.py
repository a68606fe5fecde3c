from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tagseg.data.scenes import OBJECTS, SCENES, draw_scene
from tagseg.data.working import working_image
from tagseg.errors import ConfigError, ShapeError
from tagseg.evaluate.saliency import SaliencyScores
from tagseg.maps import IGNORE
from tagseg.priors.saliency import drfi
from tagseg.priors.saliency.drfi import (
    DRFI_LEVELS,
    DrfiSettings,
    drfi_saliency,
    drfi_training_rows,
    shipped_forest,
)
from tagseg.priors.saliency.forest import RegionForest
from tagseg.priors.saliency.minimum_barrier import minimum_barrier_saliency
from tagseg.priors.saliency.region_features import (
    N_FEATURES,
    pixel_channels,
    region_features,
)
from tagseg.priors.superpixels import superpixel_levels, superpixel_neighbours

Float32 = npt.NDArray[np.float32]

FEW = DrfiSettings(levels=DRFI_LEVELS[:3])


def scene(index: int = 0, **size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A picture of one object and its mask."""
    drawn = draw_scene(OBJECTS, 5, index, **size)
    return drawn.image, (drawn.labels > 0).astype(np.uint8)


def stretched(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = min(values.flat), max(values.flat)
    return (values - low) / (high - low) if high > low else 0 * values


def slow_saliency(image: Any, forest: RegionForest, settings: DrfiSettings) -> Float32:
    """The fusion, level by level and pixel by pixel, from its description."""
    levels = superpixel_levels(image, settings.levels, reference_side=settings.reference_side)
    channels = pixel_channels(image)
    total = np.zeros(image.shape[:2])
    for superpixels in levels:
        features = region_features(channels, superpixels, superpixel_neighbours(superpixels))
        p = np.array([forest.predict(row[None])[0] for row in features], np.float64)
        values = stretched(np.exp(settings.sharpness * stretched(p)))
        for y in range(image.shape[0]):
            for x in range(image.shape[1]):
                total[y, x] += values[superpixels[y, x]]
    return stretched(total).astype(np.float32)


# The map


def test_levels_are_those_of_the_program() -> None:
    assert len(DRFI_LEVELS) == len(set(DRFI_LEVELS)) == 15
    first, last = DRFI_LEVELS[0], DRFI_LEVELS[-1]
    assert (first.sigma, first.scale, first.min_size) == (0.8, 100, 150)
    assert (last.sigma, last.scale, last.min_size) == (0.8, 400, 150)


def test_it_is_the_fusion_of_its_description() -> None:
    image, _ = scene(height=48, width=64)
    settings = replace(FEW, sharpness=2.0)
    found = drfi_saliency(image, shipped_forest(), settings)
    assert found.dtype == np.float32
    expected = slow_saliency(image, shipped_forest(), settings)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found.min(), found.max()) == (0, 1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 2), (30, 50)])
@pytest.mark.parametrize("value", [0, 120, 255])
def test_photos_of_one_colour(shape: tuple[int, int], value: int) -> None:
    found = drfi_saliency(np.full((*shape, 3), value, np.uint8), shipped_forest(), FEW)
    assert found.shape == shape
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_one_region_says_nothing() -> None:
    grey = np.full((6, 9, 3), 99, np.uint8)
    assert max(s.max() for s in superpixel_levels(grey, FEW.levels, reference_side=400)) == 0
    np.testing.assert_array_equal(drfi_saliency(grey, shipped_forest(), FEW), np.zeros((6, 9)))


def test_a_grey_photo_and_noise() -> None:
    grey = np.repeat(scene()[0].mean(2, keepdims=True), 3, axis=2).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for image in (grey, noise):
        found = drfi_saliency(image, shipped_forest(), FEW)
        assert np.isfinite(found).all()
        assert (found.min(), found.max()) == (0, 1)


def test_threads_do_not_matter() -> None:
    image, _ = scene(2)
    one = drfi_saliency(image, shipped_forest(), FEW)
    np.testing.assert_array_equal(drfi_saliency(image, shipped_forest(), FEW, threads=3), one)


def test_a_large_photo_is_mapped_small_and_brought_back() -> None:
    image, _ = scene(1)
    large = image.repeat(3, axis=0).repeat(3, axis=1)
    settings = replace(FEW, side=128)
    found = drfi_saliency(large, shipped_forest(), settings)
    assert found.shape == large.shape[:2]
    assert (found.min(), found.max()) == (0, 1)
    small = drfi_saliency(working_image(large, 128), shipped_forest(), settings)
    assert np.abs(found[1::3, 1::3] - small).max() < 0.02


def test_the_photo_is_not_written_to() -> None:
    image, mask = scene()
    before = image.copy(), mask.copy()
    drfi_saliency(image, shipped_forest(), FEW)
    drfi_training_rows(image, mask, FEW)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_default_settings_are_the_papers() -> None:
    image, mask = scene(3)
    forest = shipped_forest()
    np.testing.assert_array_equal(
        drfi_saliency(image, forest), drfi_saliency(image, forest, DrfiSettings())
    )
    assert len(drfi_training_rows(image, mask)[0]) > len(drfi_training_rows(image, mask, FEW)[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"levels": ()},
        {"reference_side": 0},
        {"side": 0},
        {"sharpness": 0.0},
        {"sharpness": float("nan")},
        {"agreement": 0.5},
        {"agreement": 1.1},
    ],
    ids=str,
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DrfiSettings(**wrong)


def test_arguments_of_another_form() -> None:
    image, mask = scene()
    calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (drfi_saliency, (image[..., 0], shipped_forest())),
        (drfi_saliency, (image.astype(np.float32), shipped_forest())),
        (drfi_training_rows, (image[:0], mask)),
        (drfi_training_rows, (image, mask[:-1])),
        (drfi_training_rows, (image, mask > 0)),
    ]
    for function, arguments in calls:
        with pytest.raises(ShapeError):
            function(*arguments)


# The shipped forest


def test_the_shipped_forest_is_small_and_says_what_it_is_from() -> None:
    forest = shipped_forest()
    assert forest is shipped_forest()
    assert len(forest.feature) * 6 < 400_000
    assert "generated" in forest.about["trained_on"]
    assert int(forest.about["photos"]) > 100


def test_on_scenes_it_beats_saliency_without_training() -> None:
    """Scenes of other classes than those it is trained on."""
    trained, untrained = SaliencyScores(), SaliencyScores()
    settings = replace(FEW, levels=DRFI_LEVELS[:5])
    for index in range(8):
        drawn = draw_scene(SCENES, 9, index)
        trained.update(drfi_saliency(drawn.image, shipped_forest(), settings), drawn.labels)
        untrained.update(minimum_barrier_saliency(drawn.image), drawn.labels)
    ours, theirs = trained.summary(), untrained.summary()
    assert ours["max_f"] > theirs["max_f"] + 0.05
    assert ours["mae"] < theirs["mae"]
    assert ours["mean_iou"] > theirs["mean_iou"] + 0.05


# Rows to train on


def slow_rows(image: Any, mask: Any, settings: DrfiSettings) -> tuple[Float32, Float32]:
    """Region by region, from the description."""
    features, targets = [], []
    channels = pixel_channels(image)
    for superpixels in superpixel_levels(
        image, settings.levels, reference_side=settings.reference_side
    ):
        rows = region_features(channels, superpixels, superpixel_neighbours(superpixels))
        for region in range(superpixels.max() + 1):
            inside = mask[superpixels == region]
            objects = sum(value not in (0, IGNORE) for value in inside) / len(inside)
            background = sum(value == 0 for value in inside) / len(inside)
            if max(objects, background) >= settings.agreement:
                features.append(rows[region])
                targets.append(float(objects >= settings.agreement))
    return np.array(features), np.array(targets, np.float32)


@pytest.mark.parametrize("agreement", [0.6, 0.75, 1.0])
def test_rows_are_those_that_the_mask_decides_on(agreement: float) -> None:
    image, mask = scene(4)
    mask = mask * 7
    mask[:, 50:70] = IGNORE
    settings = replace(FEW, agreement=agreement)
    features, targets = drfi_training_rows(image, mask, settings)
    expected = slow_rows(image, mask, settings)
    assert features.shape == (len(targets), N_FEATURES)
    assert features.dtype == targets.dtype == np.float32
    np.testing.assert_array_equal(features, expected[0])
    np.testing.assert_array_equal(targets, expected[1])
    assert 0 < targets.mean() < 0.5


def test_exactly_three_quarters_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    superpixels = np.repeat(np.arange(4, dtype=np.int32)[:, None], 8, axis=1)
    monkeypatch.setattr(drfi, "superpixel_levels", lambda *_, **__: [superpixels])
    mask = np.zeros((4, 8), np.uint8)
    mask[0, :6] = 1  # 6 of 8
    mask[1, :5] = 1
    mask[2, :2] = 1
    mask[3, :3] = IGNORE
    image = np.random.default_rng(0).integers(0, 256, (4, 8, 3), np.uint8)
    features, targets = drfi_training_rows(image, mask)
    assert targets.tolist() == [1, 0]
    np.testing.assert_array_equal(
        features,
        region_features(pixel_channels(image), superpixels, superpixel_neighbours(superpixels))[
            [0, 2]
        ],
    )


def test_a_mask_of_nothing_known_gives_no_rows() -> None:
    image, mask = scene()
    features, targets = drfi_training_rows(image, np.full_like(mask, IGNORE), FEW)
    assert features.shape == (0, N_FEATURES)
    assert targets.shape == (0,)


def test_a_forest_learns_what_its_masks_say() -> None:
    """Masks of the left half teach it that what is left is salient, and nothing else."""
    settings = FEW
    rows = []
    for index in range(4):
        image, mask = scene(index)
        left = np.zeros_like(mask)
        left[:, :64] = 1
        rows.append(drfi_training_rows(image, left, settings))
    features, targets = (np.concatenate(part) for part in zip(*rows, strict=True))
    forest = RegionForest.fit(features, targets, trees=20)
    found = drfi_saliency(scene(9)[0], forest, settings)
    assert found[:, :40].mean() > 0.8 > 0.2 > found[:, 88:].mean()
