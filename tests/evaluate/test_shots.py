"""IoU of frames, shots and classes against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tagseg.errors import ShapeError
from tagseg.evaluate.shots import ShotScores


def iou_by_loops(prediction, truth, label: int) -> float:
    inside = union = 0
    for found, true in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if true == 255:
            continue
        inside += found == label == true
        union += label in (found, true)
    return inside / union if union else 1.0


def test_means_of_means():
    rng = np.random.default_rng(0)
    scores, kept = ShotScores(3), {}
    for tag, shot, frames in [(0, "a", 2), (0, "b", 5), (2, "c", 1)]:
        for _ in range(frames):
            truth = rng.choice([0, 1, 3, 255], (5, 7)).astype(np.uint8)
            prediction = rng.choice([0, 1, 2, 3], (5, 7)).astype(np.uint8)
            scores.update(shot, tag, prediction, truth)
            kept.setdefault((tag, shot), []).append(iou_by_loops(prediction, truth, tag + 1))
    mean = {key: math.fsum(values) / len(values) for key, values in kept.items()}
    found = scores.mean()
    assert found[0] == pytest.approx((mean[0, "a"] + mean[0, "b"]) / 2)
    assert found[2] == pytest.approx(mean[2, "c"])
    assert math.isnan(found[1])
    assert scores.counts() == [2, 0, 1]


def test_nothing_there_and_nothing_found_is_right():
    scores, nothing = ShotScores(1), np.zeros((3, 3), np.uint8)
    scores.update("a", 0, nothing, nothing)
    scores.update("b", 0, np.ones((3, 3), np.uint8), nothing)
    assert scores.mean().tolist() == [0.5]


def test_two_sizes():
    with pytest.raises(ShapeError, match=r"prediction is \(3, 3\), truth \(2, 3\)"):
        ShotScores(1).update("a", 0, np.zeros((3, 3), np.uint8), np.zeros((2, 3), np.uint8))
