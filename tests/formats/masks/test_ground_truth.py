from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.data.legends import Legend
from tagseg.data.masks import write_mask
from tagseg.errors import MaskError
from tagseg.formats.masks.ground_truth import GroundTruth

LABELS = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)


def test_folder(tmp_path):
    (tmp_path / "x").mkdir()
    write_mask(tmp_path / "x" / "a.png", LABELS)
    truth = GroundTruth(tmp_path, ["cat", "dog"])
    assert truth.names() == ("x/a",)
    assert truth.has("x/a")
    assert not truth.has("a")
    assert np.array_equal(truth.labels("x/a", (2, 3)), LABELS)


def test_mapping():
    truth = GroundTruth({"a": LABELS}, ["cat", "dog"])
    assert np.array_equal(truth.labels("a", (2, 3)), LABELS)
    with pytest.raises(MaskError, match="mask of 'a': the mask is 2 x 3"):
        truth.labels("a", (3, 2))
    with pytest.raises(MaskError, match="holds class id 2, but there are 1 classes"):
        GroundTruth({"a": LABELS}, ["cat"]).labels("a", (2, 3))
    with pytest.raises(MaskError, match="int64"):
        GroundTruth({"a": LABELS.astype(int)}, ["cat", "dog"]).labels("a", (2, 3))


def test_photo_without_annotation():
    with pytest.raises(MaskError, match="no ground truth for photo 'b'"):
        GroundTruth({"a": LABELS}, ["cat"]).labels("b", (2, 3))


def test_the_numbers_of_a_class_list(tmp_path):
    PilImage.fromarray(np.array([[0, 7, 9]], np.uint8)).save(tmp_path / "a.png")
    legend = Legend(2, {0: 0, 7: 1, 9: 2, 255: 255}, source="classes.txt")
    truth = GroundTruth(tmp_path, ["cat", "dog"], legend=legend)
    assert truth.labels("a", (1, 3)).tolist() == [[0, 1, 2]]
    assert dict(truth.states()) != dict(GroundTruth(tmp_path, ["cat", "dog"]).states())
    target = GroundTruth({}, ["dog"]).with_target(truth)
    assert target.labels("target/a", (1, 3)).tolist() == [[0, 0, 1]]


def test_photos_name_their_masks(tmp_path):
    write_mask(tmp_path / "a_mask.png", LABELS)
    truth = GroundTruth(tmp_path, ["cat", "dog"]).for_photos({"x/a": None, "x/b": None})
    assert (truth.has("x/a"), truth.has("x/b")) == (True, False)
    (note,) = truth.notes
    assert note == "1 masks are named x_mask for photo x, in other folders than their photos"
    assert truth.for_photos({"x/a": None}) is truth


def test_turned_as_photos_are():
    truth = GroundTruth({"a": LABELS, "b": LABELS}, ["cat", "dog"]).turned({"a": 6}, ["turned"])
    assert truth.labels("a", (3, 2)).tolist() == [[255, 0], [2, 1], [0, 2]]
    assert np.array_equal(truth.labels("b", (2, 3)), LABELS)
    assert truth.notes == ("turned",)
    with pytest.raises(MaskError, match="the mask is 3 x 2"):
        truth.labels("a", (2, 3))
