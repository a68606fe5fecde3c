"""Masks beside a review: written whole, read as they were; drawn ones are checked to the pixel."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.data.finding import is_output
from tagseg.data.masks import encode_mask, open_mask
from tagseg.errors import ConfigError, MaskError
from tagseg.formats.review import Accepted
from tagseg.web.review_masks import MaskFolder, drawn_mask

AT = datetime(2026, 11, 30, 10, tzinfo=UTC)
SHAPE = (5, 7)
CLASSES = ("cat", "dog")
LABELS = np.arange(35, dtype=np.uint8).reshape(SHAPE) % 3


@pytest.fixture
def folder(tmp_path):
    return MaskFolder(tmp_path / "mine.jsonl", "run", CLASSES)


def act_of(written):
    return Accepted(photo="a", at=AT, how="right", **written._asdict())


def test_a_mask_is_written_and_read(folder, tmp_path):
    written = folder.write("a", 3, LABELS)
    assert written.mask == "mine/a-3.png"
    assert folder.read(act_of(written), SHAPE).tolist() == LABELS.tolist()
    assert open_mask(tmp_path / written.mask).numbered
    assert is_output(tmp_path / "mine")  # no mask is taken for a photo


@pytest.mark.parametrize(
    ("photo", "name"),
    [
        ("deep/er/a b", "deep_er_a_b-1.png"),
        ("../../etc/passwd", "_.._etc_passwd-1.png"),
        ("ä", "_-1.png"),
        ("...", "photo-1.png"),
        ("x" * 300, f"{'x' * 80}-1.png"),
        ("<img src=x>", "_img_src_x_-1.png"),
    ],
)
def test_names_are_safe(folder, tmp_path, photo, name):
    assert folder.write(photo, 1, LABELS).mask == f"mine/{name}"
    assert (tmp_path / "mine" / name).is_file()


def test_a_mask_that_was_changed_is_not_what_was_accepted(folder, tmp_path):
    written = folder.write("a", 1, LABELS)
    (tmp_path / written.mask).write_bytes(encode_mask(LABELS * 0))
    with pytest.raises(MaskError, match="not the mask that was accepted"):
        folder.read(act_of(written), SHAPE)


@pytest.mark.parametrize("name", ["review", ".jsonl"])
def test_a_review_needs_an_end_to_its_name(tmp_path, name):
    with pytest.raises(ConfigError, match=r"review\.jsonl"):
        MaskFolder(tmp_path / name, "run", CLASSES)


# --- what a page draws ----------------------------------------------------------------------------


def sent(data):
    return base64.b64encode(data).decode()


def png_of(picture, **more):
    content = io.BytesIO()
    picture.save(content, "PNG", **more)
    return content.getvalue()


def grey(values):
    return png_of(PilImage.fromarray(np.asarray(values, np.uint8)))


def claiming(width, height):
    """A PNG that says it is of this size, and of which nothing else is there."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + head
    size = struct.pack(">I", len(head)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + size


def test_grey_and_palette_are_labels():
    for data in (grey(LABELS), encode_mask(LABELS)):
        assert drawn_mask(sent(data), SHAPE, 2).tolist() == LABELS.tolist()
    unsure = np.full(SHAPE, 255)
    assert drawn_mask(sent(grey(unsure)), SHAPE, 2).tolist() == unsure.tolist()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "no mask was sent"),
        (7, "no mask was sent"),
        ("", "no PNG"),
        ("%%%", "no base64"),
        ("é", "no base64"),
        (sent(b"GIF89a" + bytes(50)), "no PNG"),
        (sent(claiming(7, 5)[:20]), "no PNG"),
        (sent(grey(LABELS.T)), "5 x 7 pixels, its photo 7 x 5"),
        (sent(claiming(60000, 60000)), "60000 x 60000 pixels"),
        (sent(claiming(7, 5)), "."),
        (sent(grey(LABELS)[:-30]), "."),
        (sent(grey(LABELS + 1)), "label 3 of 2 classes"),
        (sent(png_of(PilImage.new("RGBA", (7, 5), (1, 2, 3, 4)))), "not class ids"),
        (sent(png_of(PilImage.new("RGB", (7, 5), (1, 2, 3)))), "not of the VOC palette"),
    ],
)
def test_all_else_is_refused_in_one_line(text, what):
    with pytest.raises(MaskError, match=what) as problem:
        drawn_mask(text, SHAPE, 2)
    assert "\n" not in str(problem.value)
