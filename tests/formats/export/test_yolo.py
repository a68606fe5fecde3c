"""YOLO's segments, read as ultralytics documents and draws them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from exported import CLASSES, exported, without_unknown
from tagseg.formats.export.yolo import label_file
from tagseg.formats.tags.yolo import read_names_of_yaml


def test_pixels(tmp_path):
    _, photos = exported(tmp_path / "out", "yolo")
    for photo in photos:
        back = np.zeros_like(photo.labels)
        text = (tmp_path / "out" / label_file(f"images/train/{photo.file}")).read_text("utf-8")
        for line in text.splitlines():
            number, *values = line.split()
            points = np.array(values, np.float32).reshape(-1, 2)
            assert len(points) >= 3
            assert (points >= 0).all()
            assert (points <= 1).all()
            assert (np.ptp(points, axis=0) > 0).all()  # boxes without area are dropped
            scaled = points * np.float32((photo.width, photo.height))
            cv2.fillPoly(back, [scaled.astype(np.int32)], int(number) + 1)
        # Later things are drawn over earlier ones, holes are cut.
        assert np.array_equal(back, without_unknown(photo.labels))


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("images/train/x/b.v2.png", "labels/train/x/b.v2.txt"),
        ("images/train/images/c.jpg", "images/train/labels/c.txt"),
        ("images/train/images", "labels/train/images.txt"),
    ],
)
def test_where_ultralytics_looks_for_labels(image, labels):
    assert label_file(image) == labels


def test_names_and_tags(tmp_path):
    exported(tmp_path / "out", "yolo")
    assert read_names_of_yaml(tmp_path / "out" / "data.yaml") == CLASSES.names
    text = (tmp_path / "out" / "data.yaml").read_text(encoding="utf-8")
    assert "train: images/train\nval: images/train" in text
    assert '0: "#c81e5a"' in text
