from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tagseg.data.masks import write_mask
from tagseg.errors import DataError, MaskError
from tagseg.evaluate.masks import MaskScores, evaluate_masks
from tagseg.formats.masks.ground_truth import GroundTruth

CLASSES = ("cat", "dog")


def truth_of(labels: dict[str, np.ndarray], classes=CLASSES) -> GroundTruth:
    return GroundTruth(labels, classes)


def plane(*values: int) -> np.ndarray:
    return np.array([values], np.uint8)


@pytest.fixture
def truth() -> GroundTruth:
    return truth_of(
        {
            "a": plane(0, 0, 1, 1),
            "b": plane(0, 2, 2, 2),
            "c": plane(0, 0, 255, 1),
            "d": plane(255, 255, 255, 255),
        }
    )


@pytest.fixture
def predictions() -> dict[str, np.ndarray]:
    return {
        "a": plane(0, 0, 1, 1),
        "b": plane(0, 0, 0, 2),
        "c": plane(0, 0, 2, 255),
        "d": plane(0, 1, 2, 0),
    }


def test_scores_of_the_set_and_of_each_photo(truth, predictions) -> None:
    scores = evaluate_masks(predictions, truth, CLASSES)
    assert scores.miou == pytest.approx((5 / 7 + 2 / 3 + 1 / 3) / 3)
    assert scores.photos["a"] == 1.0
    assert scores.photos["b"] == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert scores.photos["c"] == pytest.approx((1 + 0) / 2)
    assert np.isnan(scores.photos["d"])
    assert scores.missing == scores.extra == ()


def test_table_has_a_row_per_label_with_the_unlabelled_pixels(predictions) -> None:
    classes = (*CLASSES, "cow")
    truth = truth_of(
        {"a": plane(0, 0, 1, 1), "b": plane(0, 2, 2, 2), "c": plane(0, 0, 255, 1)}, classes
    )
    rows = evaluate_masks(predictions, truth, classes).table()
    assert [row["class"] for row in rows] == ["background", "cat", "dog", "cow"]
    assert rows[1] == {
        "class": "cat",
        "iou": pytest.approx(2 / 3),
        "accuracy": pytest.approx(2 / 3),
        "truth_pixels": 3,
        "predicted_pixels": 2,
        "unlabelled_pixels": 1,
    }
    assert rows[3]["iou"] is None


def test_the_dict_is_strict_json(truth, predictions) -> None:
    scores = evaluate_masks(predictions, truth, CLASSES)
    data = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert data["photos_compared"] == 4
    assert data["photo_miou"]["d"] is None
    assert data["miou"] == scores.miou
    assert data["confusion"]["unlabelled"] == [0, 1, 0]


def test_a_folder_scores_like_its_arrays(tmp_path: Path, truth, predictions) -> None:
    for name, labels in predictions.items():
        write_mask(tmp_path / f"{name}.png", labels)
    from_folder = evaluate_masks(tmp_path, truth, CLASSES)
    from_arrays = evaluate_masks(predictions, truth, CLASSES)
    assert from_folder.to_dict() == from_arrays.to_dict()


def test_ground_truth_is_a_mapping_as_well(predictions) -> None:
    truths = {"a": plane(0, 0, 1, 1), "b": plane(0, 2, 2, 2), "c": plane(0, 0, 255, 1)}
    del predictions["d"]
    found = evaluate_masks(predictions, truths, CLASSES)
    assert found.to_dict() == evaluate_masks(predictions, truth_of(truths), CLASSES).to_dict()
    predictions["b"] = plane(0, 0, 0, 1)
    with pytest.raises(MaskError, match="holds class id 2, but there are 1 classes"):
        evaluate_masks(predictions, truths, CLASSES[:1])


def test_masks_in_subfolders_and_names_with_dots(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    write_mask(tmp_path / "cat" / "a.b.png", plane(0, 1))
    scores = evaluate_masks(tmp_path, truth_of({"cat/a.b": plane(0, 1)}), CLASSES)
    assert dict(scores.photos) == {"cat/a.b": 1.0}


def test_missing_predictions_stop_with_their_names(truth, predictions) -> None:
    del predictions["b"], predictions["c"]
    with pytest.raises(MaskError, match="2 of 4 photos with ground truth have no mask: b, c"):
        evaluate_masks(predictions, truth, CLASSES)
    scores = evaluate_masks(predictions, truth, CLASSES, allow_missing=True)
    assert scores.missing == ("b", "c")
    assert scores.to_dict()["photos_missing"] == 2
    assert set(scores.photos) == {"a", "d"}


def test_only_the_first_missing_names_are_listed() -> None:
    many = truth_of({f"p{i:02}": plane(0) for i in range(20)})
    with pytest.raises(MaskError, match=r"p01, p02, p03, p04, p05, \.\.\.; ") as caught:
        evaluate_masks({"p00": plane(0)}, many, CLASSES)
    assert "p06" not in str(caught.value)


def test_predictions_without_ground_truth_are_named(truth, predictions) -> None:
    scores = evaluate_masks({**predictions, "x": plane(0)}, truth, CLASSES)
    assert scores.extra == ("x",)


def test_a_split_is_compared_alone(truth, predictions) -> None:
    scores = evaluate_masks({"a": predictions["a"]}, truth, CLASSES, names=["a", "no-truth"])
    assert (set(scores.photos), scores.missing, scores.extra) == ({"a"}, (), ())
    with pytest.raises(MaskError, match="1 of 2 photos"):
        evaluate_masks({"a": predictions["a"]}, truth, CLASSES, names=["a", "b"])


@pytest.mark.parametrize("allow_missing", [False, True])
def test_nothing_to_compare_is_an_error(truth, allow_missing: bool) -> None:
    with pytest.raises(MaskError, match="no photo has both"):
        evaluate_masks({}, truth, CLASSES, allow_missing=allow_missing)
    with pytest.raises(MaskError, match="no photo has both"):
        evaluate_masks({"x": plane(0)}, truth_of({}), CLASSES, allow_missing=allow_missing)


def test_a_folder_that_is_none(tmp_path: Path, truth) -> None:
    with pytest.raises(DataError, match="does not exist"):
        evaluate_masks(tmp_path / "nothing", truth, CLASSES)


@pytest.mark.parametrize("labels", [plane(0, 0, 3, 0), np.zeros(4, np.uint8), np.zeros((1, 4))])
def test_a_mask_that_does_not_fit_names_its_photo(truth, predictions, labels) -> None:
    with pytest.raises(MaskError, match=r"^c: prediction "):
        evaluate_masks({**predictions, "c": labels}, truth, CLASSES)


def scored(*scores: float) -> MaskScores:
    photos = {f"p{index}": score for index, score in enumerate(scores)}
    return MaskScores(CLASSES, confusion=None, photos=photos)  # type: ignore[arg-type]


def test_examples_are_the_two_ends_and_the_middle() -> None:
    scores = scored(0.1, 0.9, float("nan"), 0.5, 0.7, 0.3, 0.2, 0.8)
    assert scores.examples(2) == {
        "best": ["p1", "p7"],
        "median": ["p4", "p3"],
        "worst": ["p0", "p6"],
    }


@pytest.mark.parametrize("count", [0, 1, 3, 10])
@pytest.mark.parametrize("photos", [0, 1, 2, 3, 4, 10])
def test_examples_never_repeat_a_photo(count: int, photos: int) -> None:
    examples = scored(*(i / 10 for i in range(photos))).examples(count)
    names = [name for group in examples.values() for name in group]
    assert len(names) == len(set(names)) <= 3 * count
    assert bool(names) == (photos > 0 and count > 0)


def test_another_class_order_is_refused(truth, predictions) -> None:
    with pytest.raises(MaskError, match="not those of the ground truth"):
        evaluate_masks(predictions, truth, CLASSES[::-1])


def test_a_mask_of_another_size_is_refused(truth, predictions) -> None:
    with pytest.raises(MaskError, match="1 x 4"):
        evaluate_masks({**predictions, "c": plane(0, 0)}, truth, CLASSES)


def test_ground_truth_and_masks_from_folders(tmp_path: Path, truth, predictions) -> None:
    for name, labels in predictions.items():
        for folder, mask in (("masks", labels), ("truth", truth.labels(name, labels.shape))):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_mask(tmp_path / folder / f"{name}.png", mask)
    from_folders = evaluate_masks(
        tmp_path / "masks", GroundTruth(tmp_path / "truth", CLASSES), CLASSES
    )
    assert from_folders.to_dict() == evaluate_masks(predictions, truth, CLASSES).to_dict()
