from __future__ import annotations

import numpy as np
import pytest

from tagseg.data.masks import write_mask
from tagseg.errors import MaskError
from tagseg.formats.ground_truth import GroundTruth

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
