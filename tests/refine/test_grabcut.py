from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import hypot, inf

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.data.scenes import OBJECTS, draw_scene
from tagseg.errors import ConfigError, ShapeError
from tagseg.refine import grabcut
from tagseg.refine.grabcut import (
    FEWEST,
    GrabCutSettings,
    enhanced_mask,
    grab,
    levelled,
    thresholded,
    trimap,
)
from tagseg.run.engine import map_photos

BACKGROUND, FOREGROUND, PERHAPS_BACKGROUND, PERHAPS_FOREGROUND = range(4)  # OpenCV's

Mask = npt.NDArray[np.bool_]


def disc(radius: float, height: int = 100, width: int = 120, x: float = 60.0) -> Mask:
    rows, columns = np.mgrid[:height, :width]
    return np.hypot(rows - height / 2, columns - x) < radius


def painted(inside: Mask, noise: float = 8) -> npt.NDArray[np.uint8]:
    """Red on green, both a little noisy."""
    image = np.where(inside[:, :, None], (200, 40, 40), (40, 160, 60))
    image = image + np.random.default_rng(0).normal(0, noise, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def soft(mask: Mask, sigma: float = 6) -> npt.NDArray[np.float32]:
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma)


def iou(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / (a | b).sum())


# Levels


def slow_levels(coarse: npt.NDArray) -> npt.NDArray:
    """Otsu: of all cuts into two classes, the one with the greatest variance between them."""
    values = [float(v) for v in np.unique(coarse)]
    pixels = [float(v) for v in coarse.ravel()]
    best = (-1.0, 0.0, 0.0)
    for cut in values[:-1]:
        dark = [v for v in pixels if v <= cut]
        bright = [v for v in pixels if v > cut]
        means = sum(dark) / len(dark), sum(bright) / len(bright)
        best = max(best, (len(dark) * len(bright) * (means[1] - means[0]) ** 2, *means))
    return (coarse.astype(float) - best[1]) / (best[2] - best[1])


@pytest.mark.parametrize("seed", range(4))
def test_levels_are_otsus(seed: int) -> None:
    """Values in 256 steps from lowest to highest, which is as fine as the threshold is sought."""
    rng = np.random.default_rng(seed)
    steps = np.clip(rng.normal(70, 30, (9, 11)) + 90 * (rng.random((9, 11)) < 0.4), 0, 255)
    steps[0, :2] = 0, 255
    coarse = (0.1 + steps.round() / 700).astype(np.float32)
    np.testing.assert_allclose(levelled(coarse), slow_levels(coarse), atol=1e-4)


def test_hard_masks_stay_as_they_are() -> None:
    mask = disc(20)
    np.testing.assert_array_equal(levelled(mask.astype(np.float32)), mask.astype(np.float32))
    np.testing.assert_array_equal(thresholded(mask), mask)


def test_constant_maps_are_all_or_nothing() -> None:
    for value in (0.0, -1.0, 1e-40, 0.4, 1e30):
        assert (levelled(np.full((3, 4), value, np.float32)) == (value > 0)).all()


def test_peaks_do_not_hide_the_rest_of_the_object() -> None:
    """A map with one bright spot: half of its maximum is far above most of the object."""
    coarse = 0.05 + 0.3 * disc(25) + 0.6 * disc(5)
    assert iou(thresholded(coarse.astype(np.float32)), disc(25)) == 1
    assert iou(coarse >= 0.5 * coarse.max(), disc(25)) < 0.1


# Trimap


def slow_trimap(coarse: npt.NDArray, s: GrabCutSettings) -> npt.NDArray:
    """From the words of the docstring, pixel by pixel."""
    height, width = coarse.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    inside = [p for p in pixels if coarse[p] >= s.half]
    outside = [p for p in pixels if coarse[p] < s.half]
    unit = len(inside) ** 0.5
    labels = np.zeros((height, width), np.uint8)
    for p in pixels:
        others = outside if coarse[p] >= s.half else inside
        edge = min((hypot(p[0] - q[0], p[1] - q[1]) for q in others), default=inf)
        if coarse[p] >= s.half:
            sure = coarse[p] >= s.high and edge > s.depth * unit
            labels[p] = FOREGROUND if sure else PERHAPS_FOREGROUND
        else:
            sure = coarse[p] <= s.low and edge > s.reach * unit
            labels[p] = BACKGROUND if sure else PERHAPS_BACKGROUND
    return labels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("hard", [False, True])
def test_the_trimap_is_what_its_words_say(seed: int, hard: bool) -> None:
    rng = np.random.default_rng(seed)
    mask = disc(6 + seed, 25, 31, x=12) | (rng.random((25, 31)) < 0.01)
    coarse = mask.astype(np.float32) if hard else soft(mask, 1.5)
    s = GrabCutSettings(half=0.45, high=0.8, low=0.15, depth=0.13, reach=0.31)
    found = trimap(coarse, s)
    np.testing.assert_array_equal(found, slow_trimap(coarse, s))
    assert len(np.unique(found)) == 4


def test_a_soft_map_is_sure_only_where_its_values_are() -> None:
    """Far from the edge on either side, but neither high nor low."""
    coarse = np.where(disc(30), np.float32(0.6), np.float32(0.3))
    s = GrabCutSettings(half=0.5, high=0.7, low=0.2)
    assert set(np.unique(trimap(coarse, s))) == {PERHAPS_BACKGROUND, PERHAPS_FOREGROUND}
    both = set(np.unique(trimap(coarse, replace(s, high=0.6, low=0.3))))
    assert both == {BACKGROUND, FOREGROUND, PERHAPS_BACKGROUND, PERHAPS_FOREGROUND}


def test_a_trimap_scales_with_the_photo() -> None:
    mask = disc(12, 50, 60, x=25)
    double = np.kron(mask, np.ones((2, 2), bool))
    small, large = (trimap(m.astype(np.float32)) for m in (mask, double))
    assert (large[::2, ::2] == small).mean() > 0.97


# Enhancement


@pytest.mark.parametrize("amount", [-6, -3, 0, 3, 6])
@pytest.mark.parametrize("hard", [False, True])
def test_masks_grow_and_shrink_to_the_object(amount: int, hard: bool) -> None:
    truth = disc(25)
    given_mask = disc(25 + amount)
    coarse = given_mask.astype(np.float32) if hard else soft(given_mask, 3)
    found = enhanced_mask(painted(truth), coarse)
    assert found.dtype == np.bool_
    assert found.shape == truth.shape
    assert iou(found, truth) > 0.97
    assert amount == 0 or iou(given_mask, truth) < 0.8 + 0.03 * (6 - abs(amount))


def test_an_object_that_the_photo_cuts_off_stays_whole() -> None:
    truth = disc(30, x=0)
    found = enhanced_mask(painted(truth), disc(26, x=0).astype(np.float32))
    assert iou(found, truth) > 0.97
    assert found[50, 0]


def test_the_scale_of_the_map_and_its_type_do_not_matter() -> None:
    image, coarse = painted(disc(25)), disc(20).astype(np.float32)
    expected = enhanced_mask(image, coarse)
    for factor, offset in ((0.25, 0.0), (0.5, 0.25), (1e-30, 0.0), (1e30, 0.0)):
        other = coarse * np.float32(factor) + np.float32(offset)
        np.testing.assert_array_equal(enhanced_mask(image, other), expected)
    np.testing.assert_array_equal(enhanced_mask(image, coarse > 0), expected)


def test_scenes_gain() -> None:
    before, after = [], []
    for i in range(20):
        scene = draw_scene(OBJECTS, 100, i)
        truth = scene.labels > 0
        blurred = soft(truth, 0.15 * np.sqrt(truth.sum()))
        shifted = np.roll(blurred, 4, axis=1)
        before.append(iou(shifted >= 0.5 * shifted.max(), truth))
        after.append(iou(enhanced_mask(scene.image, shifted), truth))
    assert np.mean(after) > np.mean(before) + 0.08


def watch(patch: pytest.MonkeyPatch) -> list[tuple]:
    """What OpenCV is called with: width, height, rounds and mode of each call."""
    calls = []
    real = cv2.grabCut

    def watched(image, labels, box, background, foreground, iterations, mode):
        calls.append((*image.shape[1::-1], iterations, mode))
        return real(image, labels, box, background, foreground, iterations, mode)

    patch.setattr(cv2, "grabCut", watched)
    return calls


def test_large_photos_are_cut_at_two_sizes_and_brought_back(monkeypatch) -> None:
    truth = disc(150, 500, 600, x=300)
    coarse = soft(disc(130, 500, 600, x=310), 20)
    calls = watch(monkeypatch)
    s = GrabCutSettings(side=240, iterations=3, start_side=120, start_iterations=4)
    found = enhanced_mask(painted(truth), coarse, s)
    assert calls == [(120, 100, 4, cv2.GC_INIT_WITH_MASK), (240, 200, 3, cv2.GC_EVAL)]
    assert found.shape == truth.shape
    assert iou(found, truth) > 0.98


def test_small_photos_are_cut_once(monkeypatch) -> None:
    truth, coarse = disc(25), soft(disc(22), 3)
    calls = watch(monkeypatch)
    s = GrabCutSettings(side=300, iterations=3, start_side=120, start_iterations=4)
    found = enhanced_mask(painted(truth), coarse, s)
    assert calls == [(120, 100, 4, cv2.GC_INIT_WITH_MASK)]
    labels = trimap(levelled(coarse), s)
    np.testing.assert_array_equal(found, grab(painted(truth), labels, 4))


@pytest.mark.parametrize("scene", range(3))
def test_until_it_converges(monkeypatch: pytest.MonkeyPatch, scene: int) -> None:
    """OpenCV's own rounds at one size, until one changes no pixel; more change next to nothing."""
    drawn = draw_scene(OBJECTS, 300, scene)
    coarse = soft(drawn.labels > 0, 5)
    s = GrabCutSettings(side=100, start_side=50, iterations=None)
    calls = watch(monkeypatch)
    found = enhanced_mask(drawn.image, coarse, s)
    assert {call[:3] for call in calls} == {(100, 75, 1)}
    assert [call[3] for call in calls] == [cv2.GC_INIT_WITH_MASK] + [cv2.GC_EVAL] * (len(calls) - 1)
    assert 1 < len(calls) < grabcut.MOST_ITERATIONS
    rounds = len(calls)
    of_rounds = [
        enhanced_mask(
            drawn.image, coarse, replace(s, iterations=1, start_side=100, start_iterations=count)
        )
        for count in (rounds - 1, rounds, rounds + 20)
    ]
    np.testing.assert_array_equal(of_rounds[0], found)
    np.testing.assert_array_equal(of_rounds[1], found)
    assert iou(of_rounds[2], found) > 0.99


def test_what_does_not_converge_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels = painted(disc(25)), trimap(disc(25))
    calls = []

    def to_and_fro(image, labels, box, background, foreground, iterations, mode):
        calls.append(mode)
        labels[0, 0] = PERHAPS_BACKGROUND + len(calls) % 2

    monkeypatch.setattr(cv2, "grabCut", to_and_fro)
    grab(image, labels, None)
    assert len(calls) == grabcut.MOST_ITERATIONS


def test_a_side_without_colours_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def nothing(image, labels, box, background, foreground, iterations, mode):
        calls.append(mode)
        labels[:] = PERHAPS_BACKGROUND

    monkeypatch.setattr(cv2, "grabCut", nothing)
    found = grab(painted(disc(25)), trimap(disc(25)), None)
    assert calls == [cv2.GC_INIT_WITH_MASK]
    assert not found.any()


@pytest.mark.parametrize("hard", [False, True])
def test_a_start_on_a_small_photo_changes_little(hard: bool) -> None:
    for i in range(6):
        scene = draw_scene(OBJECTS, 400, i, height=192, width=256)
        coarse = soft(scene.labels > 0, 8)
        coarse = (coarse > 0.3).astype(np.float32) if hard else coarse
        small, none = GrabCutSettings(start_side=128), GrabCutSettings(start_side=256)
        masks = [enhanced_mask(scene.image, coarse, s) for s in (small, none)]
        assert iou(*masks) > 0.95


def test_what_vanishes_at_the_start_is_not_learned_from(monkeypatch) -> None:
    image, coarse = painted(disc(25)), soft(disc(30))
    calls = []

    def nothing(small, labels, box, background, foreground, iterations, mode):
        calls.append(small.shape)
        labels[:] = BACKGROUND

    monkeypatch.setattr(cv2, "grabCut", nothing)
    found = enhanced_mask(image, coarse, GrabCutSettings(start_side=60))
    assert calls == [(50, 60, 3)]
    np.testing.assert_array_equal(found, thresholded(coarse))


def test_a_mirrored_photo_has_the_mirrored_mask() -> None:
    scores = []
    for i in range(10):
        scene = draw_scene(OBJECTS, 200, i)
        coarse = soft(scene.labels > 0, 4)
        for axis in (0, 1):
            image = np.ascontiguousarray(np.flip(scene.image, axis))
            mirrored = enhanced_mask(image, np.ascontiguousarray(np.flip(coarse, axis)))
            scores.append(iou(np.flip(mirrored, axis), enhanced_mask(scene.image, coarse)))
    assert np.mean(scores) > 0.97
    assert min(scores) > 0.85


def test_arguments_are_not_written_to() -> None:
    image, coarse = painted(disc(25)), soft(disc(20))
    kept = image.copy(), coarse.copy()
    enhanced_mask(image, coarse)
    labels = trimap(coarse)
    kept_labels = labels.copy()
    grab(image, labels, 1)
    np.testing.assert_array_equal(image, kept[0])
    np.testing.assert_array_equal(coarse, kept[1])
    np.testing.assert_array_equal(labels, kept_labels)


# Degenerate masks


def test_an_empty_map_has_no_foreground() -> None:
    for empty in (np.zeros((100, 120), np.float32), np.zeros((100, 120), bool)):
        assert not enhanced_mask(painted(disc(25)), empty).any()


@pytest.mark.parametrize("value", [1e-30, 0.3, 1.0, 1e30])
def test_a_constant_map_is_all_foreground(value: float) -> None:
    assert enhanced_mask(painted(disc(25)), np.full((100, 120), value, np.float32)).all()


def cut_off(monkeypatch: pytest.MonkeyPatch, found: Mask | None) -> list[int]:
    """GrabCut replaced: gives ``found``; the list holds an item for each call."""
    calls = []

    def instead(image, labels, iterations):
        calls.append(iterations)
        return found

    monkeypatch.setattr(grabcut, "grab", instead)
    return calls


def test_a_mask_that_covers_almost_everything_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    image, calls = painted(disc(25)), cut_off(monkeypatch, disc(25))
    s = GrabCutSettings(max_fraction=0.8)
    for share, works in ((0.78, True), (0.82, False)):
        coarse = np.zeros((100, 120), np.float32)
        coarse[:, : round(120 * share)] = 1
        found = enhanced_mask(image, coarse, s)
        assert (len(calls) == 1) is works
        np.testing.assert_array_equal(found, disc(25) if works else coarse > 0)
        calls.clear()


@pytest.mark.parametrize("few", ["foreground", "background"])
def test_a_side_with_too_few_colours_stands(monkeypatch: pytest.MonkeyPatch, few: str) -> None:
    calls = cut_off(monkeypatch, np.ones((100, 120), bool))
    s = GrabCutSettings(max_fraction=1.0)
    for count in (FEWEST - 1, FEWEST):
        mask = np.arange(100 * 120).reshape(100, 120) < count
        mask = mask if few == "foreground" else ~mask
        found = enhanced_mask(painted(disc(25)), mask.astype(np.float32), s)
        assert len(calls) == count - FEWEST + 1
        if count < FEWEST:
            np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize("share", [0.0, 0.19, 0.21])
def test_a_result_that_vanishes_leaves_the_coarse_mask(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    coarse = soft(disc(30))
    s = GrabCutSettings(min_fraction=0.2)
    stands = thresholded(coarse, s)
    small = np.arange(100 * 120).reshape(100, 120) < share * stands.sum()
    cut_off(monkeypatch, small)
    expected = small if share > 0.2 else stands
    np.testing.assert_array_equal(enhanced_mask(painted(disc(25)), coarse, s), expected)


@pytest.mark.parametrize("share", [0.89, 0.91, 1.0])
def test_a_result_that_floods_leaves_the_coarse_mask(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    coarse = soft(disc(30))
    s = GrabCutSettings(max_fraction=0.9)
    large = np.arange(100 * 120).reshape(100, 120) < share * 100 * 120
    cut_off(monkeypatch, large)
    expected = large if share < 0.9 else thresholded(coarse, s)
    np.testing.assert_array_equal(enhanced_mask(painted(disc(25)), coarse, s), expected)


def test_one_colour_says_nothing() -> None:
    """GrabCut sees no difference: what it makes of it is the coarse mask or near it."""
    image, coarse = np.full((100, 120, 3), 90, np.uint8), disc(30).astype(np.float32)
    assert iou(enhanced_mask(image, coarse), disc(30)) > 0.4


# Repeatability


def test_nothing_that_ran_before_and_no_thread_matters() -> None:
    scenes = [draw_scene(OBJECTS, 300, i) for i in range(6)]
    pairs = [(s.image, soft(s.labels > 0, 5)) for s in scenes]
    first = [enhanced_mask(*pair) for pair in pairs]
    threads = cv2.getNumThreads()
    try:
        for state in range(3):
            cv2.setRNGSeed(state)
            cv2.randu(np.zeros((state + 1, 3), np.uint8), 0, 255)
            cv2.setNumThreads(1 + state)
            np.testing.assert_array_equal(enhanced_mask(*pairs[0]), first[0])
        with ThreadPoolExecutor(4) as pool:
            for other, expected in zip(
                pool.map(lambda pair: enhanced_mask(*pair), pairs * 4), first * 4, strict=True
            ):
                np.testing.assert_array_equal(other, expected)
        named = [(f"{i}", pair) for i, pair in enumerate(pairs)]
        mapped = map_photos(lambda item: enhanced_mask(*item[1]), named, workers=2)
        for other, expected in zip(mapped, first, strict=True):
            np.testing.assert_array_equal(other, expected)
    finally:
        cv2.setNumThreads(threads)


# Any input


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.integers(0, 3),
    st.sampled_from(["noise", "hard", "blob", "spike", "full", "empty", "tiny values"]),
    st.sampled_from([3, 12, 200]),
    st.integers(0, 9),
)
def test_any_map_of_any_photo_gives_a_mask(
    shape: tuple[int, int], colours: int, kind: str, side: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = (rng.integers(0, colours + 1, (*shape, 3)) * 80).astype(np.uint8)
    noise = rng.random(shape, np.float32)
    coarse = {
        "noise": noise,
        "hard": (noise > 0.5).astype(np.float32),
        "blob": soft(noise > 0.7, 2),
        "spike": np.where(noise == noise.max(), np.float32(1), np.float32(0)),
        "full": np.ones(shape, np.float32),
        "empty": np.zeros(shape, np.float32),
        "tiny values": noise * np.float32(1e-42),
    }[kind]
    found = enhanced_mask(image, coarse, GrabCutSettings(side=side, start_side=7))
    assert found.dtype == np.bool_
    assert found.shape == shape
    assert found.any() == coarse.any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (2, 3000)])
def test_thin_photos_are_no_trouble(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    coarse = np.zeros(shape, np.float32)
    coarse[: max(1, shape[0] // 2), : max(1, shape[1] // 2)] = 1
    assert enhanced_mask(image, coarse).shape == shape


@pytest.mark.parametrize(
    "coarse",
    [
        np.zeros((100, 121), np.float32),
        np.zeros((1, 100, 120), np.float32),
        np.full((100, 120), np.nan, np.float32),
        np.full((100, 120), np.inf, np.float32),
        np.zeros((100, 120), np.float16),
        np.zeros((100, 120), np.uint8),
        np.zeros((0, 120), np.float32),
        np.zeros((), np.float32),
        [[0.0]],
    ],
    ids=["size", "axes", "nan", "infinite", "float16", "uint8", "empty", "scalar", "list"],
)
def test_wrong_maps_are_refused(coarse: object) -> None:
    with pytest.raises(ShapeError, match="coarse"):
        enhanced_mask(painted(disc(25)), coarse)  # type: ignore[arg-type]
    if np.shape(coarse) != (100, 121):
        with pytest.raises(ShapeError, match="coarse"):
            thresholded(coarse)  # type: ignore[arg-type]


def test_a_wrong_photo_is_refused() -> None:
    with pytest.raises(ShapeError, match="image"):
        enhanced_mask(painted(disc(25))[:, :, 0], soft(disc(25)))


@pytest.mark.parametrize(
    "fields",
    [
        {"iterations": 0},
        {"iterations": 1.5},
        {"side": 0},
        {"start_side": 0},
        {"start_iterations": 0},
        {"half": 0.0, "low": 0.0},
        {"high": 0.2, "low": 0.1, "half": 0.3},
        {"low": 0.6},
        {"high": 1.1},
        {"low": float("nan")},
        {"depth": -0.1},
        {"reach": float("inf")},
        {"min_fraction": 1.1},
        {"max_fraction": -0.1},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        GrabCutSettings(**fields)  # type: ignore[arg-type]
