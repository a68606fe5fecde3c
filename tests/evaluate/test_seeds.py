from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import ConfigError, MaskError, ShapeError
from tagseg.evaluate.confusion import ConfusionMatrix
from tagseg.evaluate.seeds import CentreMeanShape, PrecisionRecall, SeedCurves
from tagseg.fuse.seed_labels import cam_labels

SEEDS = settings(derandomize=True, max_examples=20, deadline=None)
SOME = (1, 2, 199, 200, 201, 500, 998, 999, 1000)  # thresholds in thousandths


def random_photo(seed: int, n_classes: int, shape: tuple[int, int] = (6, 7)):
    """Scores of which many stand on a threshold, just below it, or at 0, and labels with 255."""
    rng = np.random.default_rng(seed)
    size = (n_classes, *shape)
    grid = (rng.choice([0, *SOME], size) / 1000).astype(np.float32)
    below = np.maximum(np.nextafter(grid, np.float32(-1)), np.float32(0))
    free = rng.random(size, np.float32)
    score_map = np.choose(rng.integers(0, 3, size), [grid, below, free])
    truth = rng.choice(np.append(np.arange(n_classes + 1), 255), shape).astype(np.uint8)
    return score_map, truth


def counted(n_classes: int, *photos) -> SeedCurves:
    curves = SeedCurves(n_classes)
    for score_map, truth in photos:
        curves.update(score_map, truth)
    return curves


def seed_label(scores: list[float], threshold: float) -> int:
    """Background if all scores are below the threshold, else the first of the highest classes."""
    if all(score < threshold for score in scores):
        return 0
    return scores.index(max(scores)) + 1


def counts_by_loops(photos, n_classes: int, threshold: float):
    """Pixels (predicted, true, both) of each label, pixel by pixel."""
    predicted, true, both = np.zeros((3, n_classes + 1))
    for score_map, truth in photos:
        for y in range(truth.shape[0]):
            for x in range(truth.shape[1]):
                if truth[y, x] == 255:
                    continue
                label = seed_label(score_map[:, y, x].tolist(), threshold)
                predicted[label] += 1
                true[truth[y, x]] += 1
                both[label] += label == truth[y, x]
    return predicted, true, both


def mean(values) -> float:
    return sum(values) / len(values) if values else float("nan")


@SEEDS
@given(st.integers(0, 10_000), st.integers(1, 5), st.sampled_from(SOME))
def test_every_quantity_is_that_of_the_loops(seed: int, n_classes: int, step: int) -> None:
    photos = [random_photo(seed, n_classes), random_photo(seed + 1, n_classes, (3, 2))]
    curves = counted(n_classes, *photos)
    threshold = float(np.float32(step / 1000))
    predicted, true, both = counts_by_loops(photos, n_classes, threshold)
    labels = range(n_classes + 1)
    precision = [both[k] / predicted[k] if predicted[k] else math.nan for k in labels]
    recall = [both[k] / true[k] if true[k] else math.nan for k in labels]
    union = predicted + true - both
    present = [k for k in labels if k and true[k]]

    found = curves.per_label()
    np.testing.assert_allclose(found.precision[:, step - 1], precision, rtol=1e-12)
    np.testing.assert_allclose(found.recall[:, step - 1], recall, rtol=1e-12)
    foreground, background = curves.foreground(), curves.background()
    np.testing.assert_allclose(
        [foreground.precision[step - 1], foreground.recall[step - 1]],
        [mean([precision[k] for k in present if predicted[k]]), mean([recall[k] for k in present])],
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        [background.precision[step - 1], background.recall[step - 1]], [precision[0], recall[0]]
    )
    expected = mean([both[k] / union[k] for k in labels if union[k]])
    assert curves.miou(step / 1000) == pytest.approx(expected, rel=1e-12, nan_ok=True)
    assert curves.thresholds[step - 1] == step / 1000


def test_a_score_on_a_threshold_is_foreground_and_one_just_below_is_not() -> None:
    on = (np.arange(1, 1001) / 1000).astype(np.float32)[None, None]
    truth = np.ones((1, 1000), np.uint8)
    levels = np.arange(1001)
    assert counted(1, (on, truth)).counts[0, 0].tolist() == (levels > 0).tolist()
    below = np.nextafter(on, np.float32(0))
    assert counted(1, (below, truth)).counts[0, 0].tolist() == (levels < 1000).tolist()


def test_miou_is_that_of_the_labels_that_training_would_use() -> None:
    rng = np.random.default_rng(0)
    score_map = rng.random((3, 60, 80), np.float32)
    score_map /= score_map.max((1, 2), keepdims=True)
    truth = rng.choice([0, 1, 2, 3, 255], (60, 80)).astype(np.uint8)
    curves = counted(3, (score_map, truth))
    for threshold in (0.2, 0.35, 0.9, 1.0):
        confusion = ConfusionMatrix(4)
        labels = cam_labels(score_map, np.ones(3, bool), threshold=threshold)
        confusion.update(labels, truth)
        assert curves.miou(threshold) == pytest.approx(confusion.mean_iou(), rel=1e-12)


def test_the_oracle_is_the_best_threshold() -> None:
    score_map = np.array([[[0.1, 0.3, 0.6, 0.9]]], np.float32)
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    threshold, miou = counted(1, (score_map, truth)).oracle_miou()
    assert (threshold, miou) == (0.301, 1.0), "of equal ones the lowest"


@SEEDS
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_photos_add_up(seed: int, n_classes: int) -> None:
    photos = [random_photo(seed + i, n_classes) for i in range(3)]
    whole, first = counted(n_classes, *photos), counted(n_classes, photos[0])
    before = first.counts.copy()
    total = first + counted(n_classes, *photos[1:])
    side_by_side = tuple(
        np.concatenate(parts, axis=-1) for parts in zip(*photos, strict=True)
    )  # all photos as one
    for other in (total, counted(n_classes, side_by_side)):
        np.testing.assert_array_equal(other.counts, whole.counts)
        np.testing.assert_array_equal(other.truth_pixels, whole.truth_pixels)
    np.testing.assert_array_equal(first.counts, before)


@SEEDS
@given(st.integers(0, 10_000), st.permutations(range(4)))
def test_the_order_of_the_classes_does_not_matter(seed: int, order: list[int]) -> None:
    rng = np.random.default_rng(seed)
    score_map = rng.random((4, 9, 8), np.float32)  # without ties, which go to the lowest class
    truth = rng.choice([0, 1, 2, 3, 4, 255], (9, 8)).astype(np.uint8)
    renamed = np.arange(256, dtype=np.uint8)
    renamed[np.asarray(order) + 1] = np.arange(1, 5)
    one, other = counted(4, (score_map, truth)), counted(4, (score_map[order], renamed[truth]))
    for name in ("foreground", "background"):
        for a, b in zip(getattr(one, name)(), getattr(other, name)(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
    np.testing.assert_array_equal(
        one.per_label().recall[np.asarray(order) + 1], other.per_label().recall[1:]
    )


@SEEDS
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_recall_falls_for_classes_and_rises_for_background(seed: int, n_classes: int) -> None:
    curves = counted(n_classes, random_photo(seed, n_classes, (12, 12)))
    assert (np.diff(curves.foreground().recall) <= 0).all()
    assert (np.diff(curves.background().recall) >= 0).all()


def test_perfect_maps_are_perfect_everywhere() -> None:
    truth = np.array([[0, 1, 2, 255], [0, 1, 2, 3]], np.uint8)
    score_map = np.stack([truth == label for label in (1, 2, 3)]).astype(np.float32)
    curves = counted(3, (score_map, truth))
    for curve in (curves.foreground(), curves.background()):
        assert (curve.precision == 1).all()
        assert (curve.recall == 1).all()
    assert curves.mean_precision() == 1
    assert curves.miou(0.2) == curves.oracle_miou()[1] == 1


def test_of_equal_scores_the_lowest_class_wins() -> None:
    curves = counted(2, (np.full((2, 1, 1), 0.5, np.float32), np.ones((1, 1), np.uint8)))
    assert curves.foreground().recall[0] == 1


def test_a_pixel_without_any_score_is_background_at_every_threshold() -> None:
    curves = counted(2, (np.zeros((2, 3, 3), np.float32), np.zeros((3, 3), np.uint8)))
    assert (curves.background().recall == 1).all()
    assert np.isnan(curves.foreground().precision).all()
    assert np.isnan(curves.foreground().recall).all()


def test_classes_without_ground_truth_do_not_count_and_silent_ones_lose_recall_only() -> None:
    score_map = np.zeros((3, 1, 4), np.float32)
    score_map[0, 0, :2] = 1  # class 0: two pixels, one right; class 1: never predicted
    score_map[2, 0, 3] = 1  # class 2: predicted, but not in the ground truth
    truth = np.array([[1, 0, 2, 0]], np.uint8)
    curves = counted(3, (score_map, truth))
    assert (curves.foreground().precision == 0.5).all()
    assert (curves.foreground().recall == 0.5).all()
    assert np.isnan(curves.per_label().precision[2]).all()
    assert (curves.per_label().precision[3] == 0).all()
    assert np.isnan(curves.per_label().recall[3]).all()


def precision_at_by_loops(points: list[tuple[float, float]], recall: float) -> float:
    """Walk from the lowest recall up; ``points`` are (recall, precision)."""
    best: dict[float, float] = {}
    for r, p in points:
        best[r] = max(best.get(r, 0), p)
    steps = sorted(best.items())
    if not steps or steps[-1][0] < recall:
        return math.nan
    if recall <= steps[0][0]:
        return steps[0][1]
    for (r0, p0), (r1, p1) in pairwise(steps):
        if r0 <= recall <= r1:
            return p0 + (p1 - p0) * (recall - r0) / (r1 - r0)
    raise AssertionError


@SEEDS
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), max_size=9), st.floats(0, 1))
def test_interpolation_is_that_of_the_loops(tenths, recall: float) -> None:
    points = [(r / 10, p / 10) for r, p in tenths]
    values = np.array(points).reshape(-1, 2)
    curve = PrecisionRecall(values[:, 1], values[:, 0])
    expected = precision_at_by_loops(points, recall)
    assert curve.precision_at(recall) == pytest.approx(expected, nan_ok=True)


def test_mp_by_hand() -> None:
    # one class; ten true pixels with scores 1 .. 0.1 and, on background, 0.95 and 0.05 eight times
    scores = np.array([i / 10 for i in range(10, 0, -1)] + [0.95] + [0.05] * 8, np.float32)
    truth = np.array([1] * 10 + [0] * 9, np.uint8)
    curves = counted(1, (scores[None, None], truth[None]))
    # 20 % recall is reached first at 0.9: two hits of three. Background has 8 of 9 from 0.051 on,
    # precision 1 up to 0.1, and less than 80 % nowhere but at thresholds up to 0.05: recall 0,
    # where nothing is background, so that the curve starts at 8/9 and its precision holds.
    assert curves.foreground_precision() == pytest.approx(2 / 3)
    assert curves.background_precision() == 1
    assert curves.mean_precision() == pytest.approx(5 / 6)


def test_a_recall_that_is_never_reached_is_nan_and_null_in_json() -> None:
    score_map = np.zeros((1, 1, 10), np.float32)
    score_map[0, 0, 0] = 1
    curves = counted(1, (score_map, np.ones((1, 10), np.uint8)))
    assert np.isnan(curves.foreground_precision())
    assert np.isnan(curves.mean_precision())
    summary = json.loads(json.dumps(curves.summary(), allow_nan=False))
    assert summary["mean_precision"] is None
    assert summary["foreground_recall"] == [0.1] * 1000
    assert summary["background_recall"] == [None] * 1000
    assert summary["thresholds"][199] == 0.2


def test_nothing_counted_is_nan_without_a_warning() -> None:
    curves = SeedCurves(2)
    assert np.isnan(curves.mean_precision())
    assert np.isnan(curves.miou(0.2))
    assert np.isnan(curves.oracle_miou()).all()


@pytest.mark.parametrize("n_classes", [1, 20, 254])
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 9000])
def test_all_sizes_and_layouts(n_classes: int, size: int) -> None:
    score_map, truth = random_photo(size, n_classes, (1, size))
    curves = counted(n_classes, (score_map, truth))
    known = truth[0] != 255
    assert (
        curves.truth_pixels.tolist()
        == np.bincount(truth[0, known], minlength=n_classes + 1).tolist()
    )
    predicted = np.bincount(score_map[:, 0, known].argmax(0), minlength=n_classes)
    np.testing.assert_array_equal(curves.counts.sum((0, 2)), predicted)
    turned = np.asfortranarray(score_map)
    turned.flags.writeable = False
    np.testing.assert_array_equal(counted(n_classes, (turned, truth)).counts, curves.counts)


def test_json_round_trip() -> None:
    curves = counted(3, random_photo(0, 3))
    again = SeedCurves.from_dict(json.loads(json.dumps(curves.to_dict())))
    np.testing.assert_array_equal(again.counts, curves.counts)
    np.testing.assert_array_equal(again.truth_pixels, curves.truth_pixels)
    assert again.counts.dtype == np.int64


def damaged(**changes) -> dict:
    return {**counted(2, random_photo(1, 2)).to_dict(), **changes}


@pytest.mark.parametrize(
    "data",
    [
        {},
        damaged(hits=[[1, 2], [3, 4]]),
        damaged(hits="x"),
        damaged(on_background=[[0] * 1001] * 2),
        damaged(truth_pixels=[0, 0, 0]),
        damaged(truth_pixels=[0, 0]),
        damaged(truth_pixels=3),
        damaged(hits=[[-1] * 1001] * 2),
    ],
)
def test_damaged_counts_are_one_error(data: dict) -> None:
    with pytest.raises(ShapeError, match="seed counts"):
        SeedCurves.from_dict(data)


MAPS, TRUTH = np.zeros((2, 3, 4), np.float32), np.zeros((3, 4), np.uint8)


@pytest.mark.parametrize(
    ("score_map", "truth", "message"),
    [
        (MAPS[:1], TRUTH, "2 classes"),
        (MAPS, TRUTH[:2], r"\(2, 4\)"),
        (MAPS.astype(np.int64), TRUTH, "score_map is a int64"),
        (MAPS.tolist(), TRUTH, "score_map is a list"),
        (MAPS, TRUTH.astype(np.int64), "truth is a int64"),
        (MAPS, TRUTH + np.uint8(3), "truth holds label 3"),
        (MAPS + np.float32(1.01), TRUTH, "NaN or values outside"),
        (MAPS - np.float32(0.01), TRUTH, "NaN or values outside"),
        (MAPS * np.float32(np.nan), TRUTH, "NaN or values outside"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_counted(score_map, truth, message: str) -> None:
    curves = SeedCurves(2)
    with pytest.raises(ShapeError, match=message) as error:
        curves.update(score_map, truth)
    assert "\n" not in str(error.value)
    assert curves.counts.sum() == curves.truth_pixels.sum() == 0


@pytest.mark.parametrize("place", [0, 4095, 4096, 8999])
@pytest.mark.parametrize("wrong", [np.nan, -1e-6, 1.000001, np.inf])
def test_one_bad_score_anywhere_is_found(place: int, wrong: float) -> None:
    score_map = np.zeros((3, 1, 9000), np.float32)
    score_map[1, 0, place] = wrong
    curves = SeedCurves(3)
    with pytest.raises(ShapeError, match="NaN or values outside"):
        curves.update(score_map, np.full((1, 9000), 255, np.uint8))


@pytest.mark.parametrize("threshold", [0, -0.2, 1.001, 0.2005, float("nan"), float("inf")])
def test_thresholds_that_were_not_counted(threshold: float) -> None:
    with pytest.raises(ConfigError, match="threshold is"):
        SeedCurves(1).miou(threshold)


def test_curves_of_other_classes_do_not_add_up() -> None:
    with pytest.raises(ShapeError, match="2 and 3 classes"):
        SeedCurves(2) + SeedCurves(3)
    for n_classes in (0, 255):
        with pytest.raises(ShapeError, match="n_classes"):
            SeedCurves(n_classes)


def shape_by_loops(masks) -> np.ndarray:
    """Mean of masks of 128 x 192: each cell of the grid is 2 x 3 pixels."""
    foreground, known = np.zeros((2, 64, 64))
    for mask in masks:
        for y in range(128):
            for x in range(192):
                foreground[y // 2, x // 3] += mask[y, x] not in (0, 255)
                known[y // 2, x // 3] += mask[y, x] != 255
    return foreground / known


def test_the_mean_shape_is_that_of_the_loops() -> None:
    rng = np.random.default_rng(0)
    masks = [rng.choice([0, 1, 7, 255], (128, 192)).astype(np.uint8) for _ in range(3)]
    masks[0][:] = np.where(masks[0] == 255, 0, masks[0])  # every cell is known once
    baseline = CentreMeanShape()
    for mask in masks:
        baseline.update(mask)
    np.testing.assert_allclose(baseline.mean_shape(), shape_by_loops(masks), atol=1e-12)


def test_the_baseline_gives_every_present_class_the_same_map() -> None:
    truth = np.zeros((90, 120), np.uint8)
    truth[30:60, 40:80] = 2
    baseline = CentreMeanShape()
    baseline.update(truth)
    score_map = baseline.score_map(np.array([True, False, True]), (45, 70))
    assert score_map.shape == (3, 45, 70)
    assert score_map.dtype == np.float32
    assert score_map[0].max() == 1
    assert score_map[0, 22, 35] == 1
    assert score_map[0, 0, 0] == 0
    np.testing.assert_array_equal(score_map[0], score_map[2])
    assert not score_map[1].any()
    np.testing.assert_array_equal(score_map[0], baseline.saliency_map((45, 70)))


def test_the_baseline_of_the_photo_itself_is_nearly_right() -> None:
    truth = np.zeros((90, 120), np.uint8)
    truth[20:70, 30:90] = 1
    baseline = CentreMeanShape()
    baseline.update(truth)
    curves = counted(1, (baseline.score_map(np.array([True]), truth.shape), truth))
    assert curves.miou(0.5) > 0.95
    assert curves.mean_precision() > 0.98


def test_a_shape_without_objects_is_zero_and_one_without_photos_an_error() -> None:
    baseline = CentreMeanShape()
    with pytest.raises(MaskError, match="no ground truth"):
        baseline.saliency_map((5, 5))
    baseline.update(np.zeros((8, 8), np.uint8))
    assert not baseline.saliency_map((5, 5)).any()


@pytest.mark.parametrize("truth", [np.zeros((2, 2)), np.zeros((0, 2), np.uint8), [[0]]])
def test_masks_without_a_shape(truth) -> None:
    with pytest.raises(ShapeError, match="truth"):
        CentreMeanShape().update(truth)
