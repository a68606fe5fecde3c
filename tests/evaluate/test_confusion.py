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


def pair_counts(prediction, truth, n_labels: int):
    """Counts (L, L + 1) of the pixels with a true label, through numpy."""
    columns = np.where(prediction == 255, n_labels, prediction)[truth != 255].astype(int)
    counts = np.zeros((n_labels, n_labels + 1), np.int64)
    np.add.at(counts, (truth[truth != 255], columns), 1)
    return counts


def patchy_pair(seed: int, n_labels: int, size: int):
    """Two rows of runs of 1 to 200 pixels; where the second has another label is independent."""
    rng = np.random.default_rng(seed)
    values = np.append(np.arange(n_labels), 255).astype(np.uint8)
    runs = rng.choice(values, (2, size + 1)), rng.integers(1, 201, (2, size + 1))
    rows = [np.repeat(labels, lengths)[:size] for labels, lengths in zip(*runs, strict=True)]
    return rows[0][None], rows[1][None]


@pytest.mark.parametrize("n_labels", [1, 2, 21, 254, 255])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 4095, 4096, 4097, 10_000])
def test_counts_are_those_of_numpy_for_all_sizes(n_labels: int, size: int) -> None:
    for prediction, truth in (random_pair(0, n_labels, (1, size)), patchy_pair(0, n_labels, size)):
        counts = counted(n_labels, (prediction, truth)).counts
        np.testing.assert_array_equal(counts, pair_counts(prediction, truth, n_labels))


@pytest.mark.parametrize("n_labels", [1, 21])
def test_equal_pixels_throughout(n_labels: int) -> None:
    for predicted in (0, n_labels - 1, 255):
        for true in (0, n_labels - 1, 255):
            prediction = np.full((90, 70), predicted, np.uint8)
            truth = np.full((90, 70), true, np.uint8)
            counts = counted(n_labels, (prediction, truth)).counts
            np.testing.assert_array_equal(counts, pair_counts(prediction, truth, n_labels))


def test_any_layout_in_memory() -> None:
    prediction, truth = (labels.reshape(100, 100) for labels in patchy_pair(0, 5, 10_000))
    expected = pair_counts(prediction, truth, 5)
    frozen = prediction.copy()
    frozen.flags.writeable = False
    spaced = np.repeat(truth, 3, axis=1)[:, ::3]
    for one in (frozen, np.asfortranarray(prediction), prediction[::-1].copy()[::-1]):
        for other in (truth, np.asfortranarray(truth), spaced):
            np.testing.assert_array_equal(counted(5, (one, other)).counts, expected)


@pytest.mark.parametrize("place", [0, 63, 64, 4095, 4096, 9_999])
@pytest.mark.parametrize("wrong", [5, 6, 100, 254])
@pytest.mark.parametrize("side", ["prediction", "truth"])
def test_one_wrong_label_anywhere_is_found(side: str, wrong: int, place: int) -> None:
    prediction, truth = patchy_pair(1, 5, 10_000)
    {"prediction": prediction, "truth": truth}[side][0, place] = wrong
    confusion = ConfusionMatrix(5)
    with pytest.raises(ShapeError, match=f"{side} holds label {wrong}"):
        confusion.update(prediction, truth)
    assert confusion.counts.sum() == 0


def test_the_least_wrong_label_of_the_prediction_is_named_first() -> None:
    prediction = np.array([[9, 7, 8]], np.uint8)
    with pytest.raises(ShapeError, match="prediction holds label 7"):
        counted(3, (prediction, np.full((1, 3), 4, np.uint8)))
