from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import ShapeError
from tagseg.evaluate.saliency import SaliencyScores

RNG = np.random.default_rng


def photos(seed, n=5, height=6, width=8):
    """Maps with many values on thresholds, and truths: some without objects, some all ignored."""
    rng = RNG(seed)
    for kind in range(n):
        raw = rng.random((height, width), np.float32) * rng.choice([0.2, 0.6, 1.0])
        on_level = rng.random((height, width)) < 0.5
        levels = rng.integers(0, 256, (height, width)).astype(np.float32) / np.float32(255)
        values = np.where(on_level, levels, raw).astype(np.float32)
        truth = rng.choice([0, 0, 3, 20, 255], (height, width)).astype(np.uint8)
        if kind % 4 == 2:
            truth[truth != 255] = 0
        if kind % 4 == 3:
            values[:] = 0
        yield values, truth
    yield values, np.full_like(truth, 255)


def slow_summary(pairs):
    errors, ious, precisions, recalls = [], [], [], []
    for values, truth in pairs:
        pixels = [
            (float(v), t != 0)
            for v, t in zip(values.ravel(), truth.ravel().tolist(), strict=True)
            if t != 255
        ]
        if not pixels:
            continue
        errors.append(sum(abs(v - t) for v, t in pixels) / len(pixels))
        n_objects = sum(t for _, t in pixels)
        if not n_objects:
            continue
        precision, recall = [], []
        for k in range(256):
            limit = float(np.float32(k / 255))
            marked = [t for v, t in pixels if v >= limit]
            precision.append(sum(marked) / len(marked) if marked else 0.0)
            recall.append(sum(marked) / n_objects)
        precisions.append(precision)
        recalls.append(recall)
        top = float(values.max())
        both = sum(t and v >= top / 2 and top > 0 for v, t in pixels)
        either = sum(t or (v >= top / 2 and top > 0) for v, t in pixels)
        ious.append(both / either)
    curve = []
    for p, r in zip(np.mean(precisions, 0), np.mean(recalls, 0), strict=True):
        curve.append(1.3 * p * r / (0.3 * p + r) if p + r else 0.0)
    return {
        "photos": len(errors),
        "photos_with_objects": len(ious),
        "mae": sum(errors) / len(errors),
        "max_f": max(curve),
        "mean_f": sum(curve) / 256,
        "mean_iou": sum(ious) / len(ious),
        "share_iou_over_0.6": sum(iou > 0.6 for iou in ious) / len(ious),
    }, (np.mean(precisions, 0), np.mean(recalls, 0), curve)


@settings(derandomize=True, deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_scores_are_those_of_slow_loops(seed):
    pairs = list(photos(seed))
    scores = SaliencyScores()
    for values, truth in pairs:
        before = values.copy(), truth.copy()
        scores.update(values, truth)
        np.testing.assert_array_equal(values, before[0])
        np.testing.assert_array_equal(truth, before[1])
    expected, (precision, recall, curve) = slow_summary(pairs)
    assert scores.summary() == pytest.approx(expected, abs=1e-12)
    assert list(scores.summary()) == list(expected)
    np.testing.assert_allclose(scores.precision(), precision, atol=1e-12)
    np.testing.assert_allclose(scores.recall(), recall, atol=1e-12)
    np.testing.assert_allclose(scores.f_measure(), curve, atol=1e-12)


def test_a_map_that_is_the_truth():
    truth = np.zeros((4, 5), np.uint8)
    truth[1:3, 1:3], truth[0, 0] = 7, 255
    values = (truth == 7).astype(np.float32)
    values[0, 0] = 0.9  # where nobody knows
    scores = SaliencyScores()
    scores.update(values, truth)
    found = scores.summary()
    assert (found["mae"], found["max_f"], found["mean_iou"]) == (0, 1, 1)
    assert found["share_iou_over_0.6"] == 1
    assert scores.recall()[255] == 1
    assert scores.precision()[0] == pytest.approx(4 / 19)
    assert scores.thresholds[[0, 255]].tolist() == [0, 1]


def test_half_of_the_maximum_is_salient():
    truth = np.array([[1, 1, 0, 0]], np.uint8)
    scores = SaliencyScores()
    scores.update(np.array([[0.2, 0.1, 0.0999, 0]], np.float32), truth)
    assert scores.summary()["mean_iou"] == 1
    assert scores.summary()["max_f"] < 1.0 + 1e-12


def test_exactly_over_six_tenths_is_good():
    truth = np.array([[1, 1, 1, 1, 1]], np.uint8)
    scores = SaliencyScores()
    scores.update(np.array([[1, 1, 1, 0, 0]], np.float32), truth)  # 0.6
    scores.update(np.array([[1, 1, 1, 1, 0]], np.float32), truth)  # 0.8
    assert scores.summary()["share_iou_over_0.6"] == 0.5


def test_a_map_of_zeros_finds_nothing():
    scores = SaliencyScores()
    scores.update(np.zeros((2, 2), np.float32), np.array([[1, 1], [0, 0]], np.uint8))
    found = scores.summary()
    assert (found["mean_iou"], found["mae"]) == (0, 0.5)
    # At threshold 0 every pixel is marked; no other threshold marks any.
    assert scores.precision()[:2].tolist() == [0.5, 0]
    assert scores.recall()[:2].tolist() == [1, 0]


def test_photos_without_objects_count_for_the_error_alone():
    scores = SaliencyScores()
    scores.update(np.full((2, 2), 0.25, np.float32), np.zeros((2, 2), np.uint8))
    found = scores.summary()
    assert (found["photos"], found["photos_with_objects"], found["mae"]) == (1, 0, 0.25)
    assert np.isnan([found[name] for name in ("max_f", "mean_f", "mean_iou")]).all()
    scores.update(np.full((2, 2), 0.25, np.float32), np.full((2, 2), 255, np.uint8))
    assert scores.summary()["photos"] == 1


def test_nothing_scored():
    found = SaliencyScores().summary()
    assert found.pop("photos") == found.pop("photos_with_objects") == 0
    assert np.isnan(list(found.values())).all()


TRUTH = np.ones((2, 3), np.uint8)
GOOD = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("values", "truth", "what"),
    [
        (GOOD.astype(np.int64), TRUTH, "saliency_map is of type int64"),
        (None, TRUTH, "saliency_map is of type NoneType"),
        (GOOD[None], TRUTH, r"saliency_map has shape \(1, 2, 3\)"),
        (GOOD[:, :2], TRUTH, r"saliency_map has shape \(2, 2\), ground truth \(2, 3\)"),
        (GOOD * np.nan, TRUTH, "NaN or values outside"),
        (GOOD * 1.5, TRUTH, "values outside"),
        (-GOOD, TRUTH, "values outside"),
        (GOOD, TRUTH.astype(int), "truth is a int64 array"),
        (GOOD, TRUTH[0], "truth is a uint8 array of shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_and_not_counted(values, truth, what):
    scores = SaliencyScores()
    with pytest.raises(ShapeError, match=what):
        scores.update(values, truth)
    assert scores.summary()["photos"] == 0
