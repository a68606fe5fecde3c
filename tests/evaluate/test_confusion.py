from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import JaccardIndex

from tagseg.errors import ShapeError
from tagseg.evaluate.confusion import ConfusionMatrix


def random_pair(seed: int, n_labels: int, shape: tuple[int, int] = (13, 17)):
    rng = np.random.default_rng(seed)
    values = np.append(np.arange(n_labels), 255).astype(np.uint8)
    return rng.choice(values, shape), rng.choice(values, shape)


def counted(n_labels: int, *pairs) -> ConfusionMatrix:
    confusion = ConfusionMatrix(n_labels)
    for prediction, truth in pairs:
        confusion.update(prediction, truth)
    return confusion


def iou_by_loops(prediction, truth, n_labels: int) -> list[float]:
    """Per label: pixels where both sides have it over pixels where either has it."""
    scores = []
    for label in range(n_labels):
        both = either = 0.0
        for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
            if t == 255:
                continue
            both += p == label and t == label
            either += p == label or t == label
        scores.append(both / either if either else float("nan"))
    return scores


@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7))
def test_iou_is_that_of_the_loops(seed: int, n_labels: int) -> None:
    prediction, truth = random_pair(seed, n_labels, (5, 7))
    confusion = counted(n_labels, (prediction, truth))
    expected = iou_by_loops(prediction, truth, n_labels)
    np.testing.assert_allclose(confusion.iou(), expected, rtol=1e-12)
    known = [score for score in expected if not np.isnan(score)]
    assert confusion.mean_iou() == pytest.approx(sum(known) / len(known))


def test_iou_is_that_of_torchmetrics() -> None:
    pairs = [random_pair(seed, 5, (40, 50)) for seed in range(3)]
    oracle = JaccardIndex("multiclass", num_classes=5, ignore_index=255, average="none")
    for prediction, truth in pairs:
        prediction[prediction == 255] = 0  # torchmetrics knows no unlabelled prediction
        oracle.update(torch.from_numpy(prediction).long(), torch.from_numpy(truth).long())
    np.testing.assert_allclose(counted(5, *pairs).iou(), oracle.compute().numpy(), rtol=1e-6)


def test_rows_are_truth_and_columns_prediction() -> None:
    truth = np.array([[0, 0, 1, 1, 255]], np.uint8)
    prediction = np.array([[0, 1, 1, 255, 1]], np.uint8)
    confusion = counted(2, (prediction, truth))
    assert confusion.counts.dtype == np.int64
    assert confusion.matrix.tolist() == [[1, 1], [0, 1]]
    assert confusion.unlabelled.tolist() == [0, 1]
    assert confusion.iou().tolist() == [0.5, pytest.approx(1 / 3)]
    assert confusion.class_accuracy().tolist() == [0.5, 0.5]
    assert confusion.pixel_accuracy() == 0.5


def test_unlabelled_pixels_lower_the_score_of_their_class_only() -> None:
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    confusion = counted(2, (np.array([[0, 0, 1, 255]], np.uint8), truth))
    assert confusion.iou().tolist() == [1.0, 0.5]


def test_a_class_on_neither_side_is_nan_and_left_out_of_the_mean() -> None:
    truth = np.zeros((2, 2), np.uint8)
    confusion = counted(3, (np.array([[0, 0], [0, 1]], np.uint8), truth))
    np.testing.assert_array_equal(confusion.iou(), [0.75, 0.0, np.nan])
    assert confusion.mean_iou() == 0.375
    np.testing.assert_array_equal(confusion.class_accuracy(), [0.75, np.nan, np.nan])


def test_nothing_counted_is_nan_without_a_warning() -> None:
    ignored = counted(2, (np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)))
    for confusion in (ConfusionMatrix(2), ignored):
        assert np.isnan(confusion.mean_iou())
        assert np.isnan(confusion.pixel_accuracy())
        assert np.isnan(confusion.class_accuracy()).all()


def test_255_labels_have_room() -> None:
    truth = np.arange(255, dtype=np.uint8).reshape(15, 17)
    confusion = counted(255, (truth, truth))
    assert confusion.mean_iou() == 1.0
    assert confusion.unlabelled.sum() == 0


def test_sum_of_parts_is_the_whole() -> None:
    pairs = [random_pair(seed, 4) for seed in range(3)]
    whole, first = counted(4, *pairs), counted(4, pairs[0])
    before = first.counts.copy()
    np.testing.assert_array_equal((first + counted(4, *pairs[1:])).counts, whole.counts)
    np.testing.assert_array_equal(first.counts, before)
    with pytest.raises(ShapeError, match="4 and 3 labels"):
        first + ConfusionMatrix(3)


def test_json_round_trip() -> None:
    confusion = counted(4, random_pair(0, 4))
    again = ConfusionMatrix.from_dict(json.loads(json.dumps(confusion.to_dict())))
    np.testing.assert_array_equal(again.counts, confusion.counts)
    assert again.counts.dtype == np.int64


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"matrix": [[1]], "unlabelled": [0, 0]},
        {"matrix": [[1, 2]], "unlabelled": [0]},
        {"matrix": [[-1]], "unlabelled": [0]},
        {"matrix": [["x"]], "unlabelled": [0]},
        {"matrix": [], "unlabelled": []},
    ],
)
def test_damaged_counts_are_one_error(data: dict) -> None:
    with pytest.raises(ShapeError, match="confusion counts"):
        ConfusionMatrix.from_dict(data)


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.full((2, 2), 3, np.uint8), np.zeros((2, 2), np.uint8), "prediction holds label 3"),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 254, np.uint8), "truth holds label 254"),
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), r"\(2, 3\).*\(3, 2\)"),
        (np.zeros((2, 2)), np.zeros((2, 2), np.uint8), "prediction is no uint8"),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2, 1), np.uint8), "truth is no uint8"),
    ],
)
def test_labels_that_do_not_fit_are_refused_and_not_counted(prediction, truth, message) -> None:
    confusion = ConfusionMatrix(3)
    with pytest.raises(ShapeError, match=message):
        confusion.update(prediction, truth)
    assert confusion.counts.sum() == 0


@pytest.mark.parametrize("n_labels", [0, -1, 256])
def test_impossible_numbers_of_labels(n_labels: int) -> None:
    with pytest.raises(ShapeError, match="n_labels"):
        ConfusionMatrix(n_labels)
