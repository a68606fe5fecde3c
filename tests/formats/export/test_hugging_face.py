"""Parquet files for Hugging Face's datasets."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image as PilImage

from exported import CLASSES, NAMES, exported
from tagseg.data.masks import decode_mask
from tagseg.errors import ConfigError
from tagseg.formats.export import hugging_face

FILE = "data/train-00000-of-00001.parquet"


def test_pixels_and_photos(tmp_path):
    _, photos = exported(tmp_path / "out", "hf")
    rows = pyarrow.parquet.read_table(tmp_path / "out" / FILE).to_pylist()
    assert [row["name"] for row in rows] == list(NAMES)
    for row, photo in zip(rows, photos, strict=True):
        assert np.array_equal(decode_mask(row["mask"]["bytes"]), photo.labels)
        assert row["image"]["bytes"] == photo.source.read_bytes()
        with PilImage.open(io.BytesIO(row["image"]["bytes"])) as picture:
            assert picture.size == (photo.width, photo.height)
        assert row["classes"] == ([0, 1, 2] if photo.name != "empty" else [])


def test_what_datasets_is_told(tmp_path):
    exported(tmp_path / "out", "hf")
    about = pyarrow.parquet.read_schema(tmp_path / "out" / FILE).metadata[b"huggingface"]
    features = json.loads(about)["info"]["features"]
    assert features["image"] == features["mask"] == {"_type": "Image"}
    assert features["classes"]["feature"]["names"] == list(CLASSES.names)


def test_linked_photos(tmp_path):
    _, photos = exported(tmp_path / "out", "hf", photos="link")
    rows = pyarrow.parquet.read_table(tmp_path / "out" / FILE).to_pylist()
    assert {row["image"]["bytes"] for row in rows} == {None}
    assert [row["image"]["path"] for row in rows] == [str(photo.source) for photo in photos]


def test_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(hugging_face, "_SHARD", 1000)
    monkeypatch.setattr(hugging_face, "_MOST_ROWS", 1)
    exported(tmp_path / "out", "hf", photo_bytes=2500)
    files = sorted((tmp_path / "out" / "data").iterdir())
    assert [f.name for f in files] == [f"train-{i:05d}-of-00003.parquet" for i in range(3)]
    rows = [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]
    assert [row["name"] for row in rows] == list(NAMES)


def test_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setattr(hugging_face, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"need pyarrow; pip install 'tagseg\[formats\]'"):
        exported(tmp_path / "out", "hf")
