from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from tagseg.errors import ShapeError
from tagseg.evaluate.scores import average_precision, mean_average_precision


def precision_steps(scores: list[float], tags: list[bool]) -> float:
    """Sum of recall gained times precision, at every distinct score taken as the threshold."""
    total, area, recall_before = float(sum(tags)), 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [tag for score, tag in zip(scores, tags, strict=True) if score >= threshold]
        recall, precision = sum(chosen) / total, sum(chosen) / len(chosen)
        area, recall_before = area + (recall - recall_before) * precision, recall
    return area


@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_each_class_against_the_loop_with_and_without_ties(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    scores, tags = rng.normal(size=(14, 3)), rng.random((14, 3)) < 0.4
    tags[0] = True
    scores = scores.round(0) if ties else scores
    expected = [precision_steps(scores[:, c].tolist(), tags[:, c].tolist()) for c in range(3)]
    np.testing.assert_allclose(average_precision(scores, tags), expected, rtol=1e-12)


def test_mean_against_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    scores, tags = rng.normal(size=(50, 6)), rng.random((50, 6)) < 0.3
    expected = average_precision_score(tags, scores, average="macro")
    assert mean_average_precision(scores, tags) == pytest.approx(expected)


def test_classes_without_photos_are_nan_and_left_out() -> None:
    scores = np.array([[0.9, 0.1], [0.1, 0.2]])
    tags = np.array([[True, False], [False, False]])
    np.testing.assert_array_equal(average_precision(scores, tags), [1.0, np.nan])
    assert mean_average_precision(scores, tags) == 1.0
    assert np.isnan(mean_average_precision(scores, np.zeros((2, 2), bool)))


def test_what_does_not_fit_is_refused() -> None:
    tags = np.ones((2, 2), bool)
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        average_precision(np.zeros((2, 3)), tags)
    with pytest.raises(ShapeError, match="int64 tags"):
        average_precision(np.zeros((2, 2)), tags.astype(np.int64))
    with pytest.raises(ShapeError, match="NaN"):
        average_precision(np.full((2, 2), np.nan), tags)
