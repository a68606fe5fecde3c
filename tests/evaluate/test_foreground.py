"""IoU of the foreground by class of photo, against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import MaskError, ShapeError
from tagseg.evaluate.confusion import ConfusionMatrix
from tagseg.evaluate.foreground import ForegroundScores, foreground_scores
from tagseg.formats.masks.ground_truth import GroundTruth

CLASSES = ("Airplane", "Car", "Horse")


def tagged(*labels: int) -> np.ndarray:
    return np.isin([1, 2, 3], labels)


def plane(*values: int) -> np.ndarray:
    return np.array([values], np.uint8)


def slow_table(masks, truths, tags) -> tuple[list[float], list[int], float, dict[str, float]]:
    """Mean Jaccard index per class, numbers of photos, their mean, and the index of each photo."""
    jaccard, members = {}, {}
    for name, truth in truths.items():
        both, either, objects = 0, 0, set()
        for true, found in zip(truth.ravel().tolist(), masks[name].ravel().tolist(), strict=True):
            if true == 255:
                continue
            is_object, is_found = true != 0, found not in (0, 255)
            objects |= {true} if is_object else set()
            both += is_object and is_found
            either += is_object or is_found
        if objects:
            jaccard[name] = both / either
            members[name] = np.flatnonzero(tags[name]) + 1 if name in tags else objects
    of_class = [[jaccard[n] for n in jaccard if k in members[n]] for k in (1, 2, 3)]
    means = [sum(values) / len(values) if values else float("nan") for values in of_class]
    known = [mean for mean in means if mean == mean]
    average = sum(known) / len(known) if known else float("nan")
    return means, [len(values) for values in of_class], average, jaccard


def drawn(seed: int) -> tuple[dict, dict, dict]:
    """Masks, ground truth and tags of photos: noise ones, of several classes, of unknown tags."""
    rng = np.random.default_rng(seed)
    masks, truths, tags = {}, {}, {}
    for index in range(int(rng.integers(1, 9))):
        shape = rng.integers(1, 7, 2)
        allowed = [0, 255, *rng.choice([1, 2, 3], rng.integers(0, 3), replace=False)]
        truths[f"p{index}"] = rng.choice(allowed, shape).astype(np.uint8)
        masks[f"p{index}"] = rng.choice([0, 0, 1, 255], shape).astype(np.uint8)
        if rng.random() < 0.6:
            tags[f"p{index}"] = rng.random(3) < 0.4
    return masks, truths, tags


@settings(derandomize=True, max_examples=80, deadline=None)
@given(st.integers(0, 10_000))
def test_the_scores_are_those_of_the_loops(seed: int) -> None:
    masks, truths, tags = drawn(seed)
    found = foreground_scores(masks, GroundTruth(truths, CLASSES), tags, CLASSES)
    means, counts, average, jaccard = slow_table(masks, truths, tags)
    np.testing.assert_allclose(found.iou(), means, rtol=1e-12)
    assert found.counts().tolist() == counts
    np.testing.assert_allclose(found.average(), average, rtol=1e-12)
    assert {n: v for n, v in found.photos.items() if v == v} == pytest.approx(jaccard)
    assert set(found.photos) == set(truths)


def test_ground_truth_is_a_mapping_as_well() -> None:
    masks, truths, tags = drawn(8)
    found = foreground_scores(masks, truths, tags, CLASSES)
    expected = foreground_scores(masks, GroundTruth(truths, CLASSES), tags, CLASSES)
    np.testing.assert_array_equal(found.iou(), expected.iou())
    assert np.isfinite(found.average())
    assert found.confusion.to_dict() == expected.confusion.to_dict()


def scores_of_four() -> ForegroundScores:
    truths = {
        "plane": plane(0, 1, 1, 1),
        "car": plane(2, 2, 255, 255),
        "other car": plane(0, 0, 2, 2),
        "noise": plane(0, 0, 0, 0),
    }
    masks = {
        "plane": plane(1, 1, 1, 0),
        "car": plane(1, 1, 1, 1),
        "other car": plane(0, 0, 0, 255),
        "noise": plane(1, 1, 1, 1),
    }
    tags = {"plane": tagged(1), "car": tagged(2), "other car": tagged(2), "noise": tagged(1)}
    return foreground_scores(masks, GroundTruth(truths, CLASSES), tags, CLASSES)


def test_the_mean_is_of_photos_and_not_of_pixels() -> None:
    found = scores_of_four()
    assert found.photos["plane"] == 0.5
    assert found.photos["car"] == 1.0, "pixels of 255 do not count"
    assert found.photos["other car"] == 0.0
    assert found.iou()[:2].tolist() == [0.5, 0.5]
    assert np.isnan(found.iou()[2])
    assert found.average() == 0.5, "over the classes that have photos"


def test_photos_without_an_object_are_left_out_but_for_the_pixel_counts() -> None:
    found = scores_of_four()
    assert np.isnan(found.photos["noise"])
    assert found.counts().tolist() == [1, 2, 0]
    assert found.confusion.counts.tolist() == [[2, 5, 0], [2, 4, 1]]


def test_a_photo_of_unknown_tags_counts_for_the_classes_in_its_ground_truth() -> None:
    truth = GroundTruth({"a": plane(1, 3, 0, 255), "b": plane(1, 1, 0, 0)}, CLASSES)
    masks = {"a": plane(1, 1, 0, 0), "b": plane(1, 0, 0, 0)}
    unknown = foreground_scores(masks, truth, {}, CLASSES)
    assert unknown.iou()[[0, 2]].tolist() == [0.75, 1.0]
    known = foreground_scores(masks, truth, {"a": tagged(2), "b": tagged(2, 3)}, CLASSES)
    assert known.counts().tolist() == [0, 2, 1]
    assert known.iou()[1:].tolist() == [0.75, 0.5]


def test_a_photo_known_to_show_no_class_counts_for_none() -> None:
    truth = GroundTruth({"a": plane(1, 0)}, CLASSES)
    found = foreground_scores({"a": plane(1, 0)}, truth, {"a": tagged()}, CLASSES)
    assert found.photos == {"a": 1.0}
    assert not found.counts().any()
    assert np.isnan(found.average())


def test_masks_by_class_are_foreground_all_the_same() -> None:
    truth = GroundTruth({"a": plane(0, 1, 1, 1)}, CLASSES)
    by_class = foreground_scores({"a": plane(0, 2, 3, 1)}, truth, {}, CLASSES)
    assert by_class.photos == {"a": 1.0}


def test_only_the_photos_of_the_split_are_compared() -> None:
    truth = GroundTruth({"a": plane(1, 0), "b": plane(1, 0)}, CLASSES)
    found = foreground_scores({"a": plane(1, 0)}, truth, {}, CLASSES, names=["a", "no truth"])
    assert set(found.photos) == {"a"}
    with pytest.raises(MaskError, match=r"^b: has ground truth and no mask"):
        foreground_scores({"a": plane(1, 0)}, truth, {}, CLASSES)
    with pytest.raises(MaskError, match="no photo has ground truth"):
        foreground_scores({}, truth, {}, CLASSES, names=["no truth"])


def test_what_does_not_fit_is_refused() -> None:
    truth = GroundTruth({"a": plane(1, 0)}, CLASSES)
    good = {"a": plane(1, 0)}
    with pytest.raises(MaskError, match=r"^a: mask is a float64 array"):
        foreground_scores({"a": np.zeros((1, 2))}, truth, {}, CLASSES)  # type: ignore[dict-item]
    with pytest.raises(MaskError, match="1 x 2"):
        foreground_scores({"a": plane(1, 0, 0)}, truth, {}, CLASSES)
    with pytest.raises(MaskError, match="not those of the ground truth"):
        foreground_scores(good, truth, {}, CLASSES[::-1])
    for tags in (np.ones(2, bool), np.ones(3, np.uint8)):
        with pytest.raises(ShapeError, match="the tags of a are"):
            foreground_scores(good, truth, {"a": tags}, CLASSES)


def test_the_share_of_photos_over_an_iou_leaves_out_those_without_objects():
    members = np.ones((4, 1), bool)
    photos = {"a": 0.6, "b": 0.61, "c": float("nan"), "d": 1.0}
    scores = ForegroundScores(("x",), photos, members, ConfusionMatrix(2))
    assert scores.share_over(0.6) == pytest.approx(2 / 3)
    assert scores.share_over(0.0) == 1.0
    empty = ForegroundScores(("x",), {"c": float("nan")}, members[:1], ConfusionMatrix(2))
    assert np.isnan(empty.share_over(0.6))
