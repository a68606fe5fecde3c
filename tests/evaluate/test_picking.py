"""The pick of a simulated person: against a slow mean IoU in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import ShapeError
from tagseg.evaluate import best_mask
from tagseg.maps import IGNORE


def slow_iou(mask: np.ndarray, truth: np.ndarray) -> np.float64:
    pairs = [(m, t) for m, t in zip(mask.ravel(), truth.ravel(), strict=True) if t != IGNORE]
    scores = []
    for label in {int(v) for pair in pairs for v in pair} - {IGNORE}:
        both = sum(m == label and t == label for m, t in pairs)
        either = sum(m == label or t == label for m, t in pairs)
        scores.append(np.float64(both) / np.float64(either))
    return np.float64(np.mean(scores)) if scores else np.float64(-1)


@settings(max_examples=80, derandomize=True, deadline=None)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 5),
    height=st.integers(1, 5),
    width=st.integers(1, 6),
)
def test_the_best_by_the_slow_way(seed, count, height, width):
    rng = np.random.default_rng(seed)
    values = np.array([0, 1, 2, 3, IGNORE], np.uint8)
    truth = rng.choice(values, (height, width))
    masks = [rng.choice(values, (height, width)) for _ in range(count)]
    scores = [slow_iou(mask, truth) for mask in masks]
    found = best_mask(masks, truth, 3)
    assert scores[found] == pytest.approx(max(scores), abs=1e-12)
    near = [i for i, score in enumerate(scores) if abs(score - max(scores)) < 1e-12]
    assert found in near


def test_of_equal_ones_the_first():
    truth = np.array([[0, 1]], np.uint8)
    assert best_mask([truth[:, ::-1].copy(), truth, truth.copy()], truth, 1) == 1


def test_a_class_that_is_not_there_gains_nothing():
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    shows_more = np.array([[2, 0, 1, 1]], np.uint8)
    shows_less = np.array([[0, 0, 0, 1]], np.uint8)
    assert best_mask([shows_more, shows_less], truth, 2) == 1


def test_nothing_to_compare():
    nothing = np.full((2, 2), IGNORE, np.uint8)
    assert best_mask([np.zeros((2, 2), np.uint8)], nothing, 1) == 0
    with pytest.raises(ShapeError, match="no mask to pick"):
        best_mask([], nothing, 1)
    with pytest.raises(ShapeError):
        best_mask([np.zeros((3, 2), np.uint8)], nothing, 1)
