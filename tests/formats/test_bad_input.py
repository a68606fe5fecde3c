"""Broken photos, tag files, class lists, name lists, masks, each with the line the user reads."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.data.audit import audit
from tagseg.data.finding import find_photos
from tagseg.data.images import decode_photo
from tagseg.data.masks import read_mask
from tagseg.errors import ConfigError, DataError, ImageError, MaskError, TagError
from tagseg.formats.lists.class_lists import read_classes
from tagseg.formats.lists.photo_lists import read_names
from tagseg.formats.loading import load_dataset
from tagseg.formats.masks.ground_truth import GroundTruth

PHOTO = np.random.default_rng(5).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def encode(form: str, array: np.ndarray = PHOTO, **options: object) -> bytes:
    buffer = io.BytesIO()
    PilImage.fromarray(array).save(buffer, form, **options)
    return buffer.getvalue()


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


REPLACE = "; replace or remove it"
PHOTOS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", f"the file is empty{REPLACE}"),
    "text": (
        b"<html>404 Not Found</html>",
        "not a picture of a known format (JPEG, PNG, GIF, BMP, TIFF, WebP, PPM",
    ),
    "half a jpeg": (
        half(encode("JPEG")),
        f"the JPEG file is cut short or damaged (it ends before the picture does){REPLACE}",
    ),
    "half a jpeg, closed again": (
        half(encode("JPEG", quality=95)) + b"\xff\xd9",
        "the JPEG file is cut short or damaged "
        f"(Corrupt JPEG data: premature end of data segment){REPLACE}",
    ),
    "half a jpeg, filled with zeros": (
        half(encode("JPEG")) + bytes(900),
        f"the JPEG file is cut short or damaged (it ends before the picture does){REPLACE}",
    ),
    "progressive jpeg without its end": (
        half(encode("JPEG", progressive=True)) + b"\xff\xd9",
        f"the JPEG file is cut short or damaged (its last scans are missing){REPLACE}",
    ),
    "half a png": (half(encode("PNG")), "the PNG file is cut short or damaged ("),
    "half a gif": (half(encode("GIF")), "the GIF file is cut short or damaged ("),
    "half a webp": (half(encode("WEBP")), "the WebP file is cut short or damaged ("),
    "half a bmp": (half(encode("BMP")), "the BMP file is cut short or damaged ("),
    "half a tiff": (half(encode("TIFF")), "the TIFF file is cut short or damaged ("),
    "floating-point tiff": (
        encode("TIFF", PHOTO[..., 0].astype(np.float32)),
        "it has floating-point pixels, which have no fixed range: convert it to 8 or 16 bits",
    ),
    "too many pixels": (
        encode("PNG", np.zeros((120, 100), np.uint8)),
        "100 x 120 pixels are more than the limit of 10000; shrink or remove it",
    ),
}


@pytest.mark.parametrize("kind", PHOTOS)
def test_photo(tmp_path, kind):
    data, message = PHOTOS[kind]
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    expect(ImageError, f"{path}: {message}", lambda: decode_photo(path, max_pixels=10_000))


def test_photos_that_are_no_files(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, message in (
        ("folder.jpg", "this is a folder, not a picture; remove or rename it"),
        ("link.jpg", "the file does not exist; check the name"),
        ("pipe.jpg", "this is not a file; remove it"),
    ):
        path = tmp_path / name
        expect(ImageError, f"{path}: {message}", lambda path=path: decode_photo(path))
    # A link to nowhere is listed, so that the audit can name it.
    assert "link" in find_photos(tmp_path)


CSV = "image,tags\na.png,cat\n"
TAGS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", ": the first line has no column 'image'; begin with the line image,tags"),
    "no header": (
        "a.png,cat,3\n",
        ": the first line has no column 'image'; begin with the line image,tags and put ; "
        "between tags",
    ),
    "no tags column": (
        "image,width\na.png,640\n",
        ": the first line has no column 'tags'; begin with the line image,tags and put ; between "
        "tags; it has 'image', 'width'",
    ),
    "header only": ("image,tags\n", ": this tag file names no photos; add one line per photo"),
    "commas between tags": (
        f"{CSV}b.png,cat,dog\n",
        ", line 3: 3 cells, but the first line has 2; put ; between tags and quotes around names "
        "with a comma",
    ),
    "open quote": (f'{CSV}"b.png,cat\n', ", line 3: not CSV: unexpected end of data; check quotes"),
    "no image": (f"{CSV},cat\n", ", line 3: no image is named; name the photo or remove the line"),
    "other tags for the same photo": (
        f"{CSV}b.png,dog;cat\na,dog\n",
        ", line 4: photo 'a' is listed again with other tags; keep one of the lines",
    ),
    "misspelt tag": (
        f"{CSV}b.png,Dgo\n",
        ", line 3: tag 'Dgo' is not in the class list; did you mean 'dog'?",
    ),
    "unknown tag": (
        f"{CSV}b.png,zebra\n",
        ", line 3: tag 'zebra' is not in the class list; add it to the class list",
    ),
    "not utf-8": (
        CSV.encode() + "b.png,Käse\n".encode("latin-1"),
        ", line 3: not UTF-8 text; save as UTF-8",
    ),
    "photos without tags": (
        f"{CSV}b.png,\n",
        ": 1 of 2 photos have no tags; say what that means: --untagged negative (none of the "
        "classes) or unknown",
    ),
}


@pytest.mark.parametrize("kind", TAGS)
def test_tags_csv(tmp_path, kind):
    text, message = TAGS[kind]
    photos(tmp_path)
    path = tmp_path / "tags.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    expect(TagError, f"{path}{message}", lambda: load_dataset(tmp_path, classes=["cat", "dog"]))


JSONL: dict[str, tuple[str, str]] = {
    "not json": ("{'file_name': 'a.png'}", ", line 1: not JSON; write one object per line"),
    "no name": ('\n{"tags": ["cat"]}', ", line 2: has no file_name; name the photo there"),
    "a list": ('["a.png", "cat"]', ", line 1: has no file_name; name the photo there"),
    "a number": (
        '{"file_name": "a.png", "tags": [1.5]}',
        ", line 1: 1.5 is no name of a class; write names",
    ),
}


@pytest.mark.parametrize("kind", JSONL)
def test_metadata_jsonl(tmp_path, kind):
    text, message = JSONL[kind]
    photos(tmp_path)
    path = tmp_path / "metadata.jsonl"
    path.write_text(text)
    expect(TagError, f"{path}{message}", lambda: load_dataset(tmp_path))


CLASSES: dict[str, tuple[str, str]] = {
    "empty": ("\n\n", ": this class list is empty; write one name a line"),
    "background only": ("background\n", ": this class list is empty; write one name a line"),
    "twice": ("cat\ndog\ncat\n", ": class 'cat' is listed twice; remove one"),
    "on one line": ("cat;dog\n", ": class 'cat;dog' contains ;; write one name a line"),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_class_list(tmp_path, kind):
    text, message = CLASSES[kind]
    path = tmp_path / "classes.txt"
    path.write_text(text)
    expect(TagError, f"{path}{message}", lambda: read_classes(path))


def test_too_many_classes(tmp_path):
    photos(tmp_path)
    (tmp_path / "tags.csv").write_text("image,tags\na.png,1\n")
    (tmp_path / "classes.txt").write_text("\n".join(map(str, range(255))))
    expect(TagError, "there are 255 classes; use at most 254", lambda: load_dataset(tmp_path))


def test_name_list(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("# nothing\n")
    expect(
        TagError,
        f"{path}: this list names no photos; write one name a line",
        lambda: read_names(path),
    )
    message = f"{tmp_path}: there is no list 'tset'; give a list file"
    (tmp_path / "tags.csv").write_text(CSV)
    photos(tmp_path)
    expect(TagError, message, lambda: load_dataset(tmp_path, split="tset"))
    path.write_text("a\nb\nx\n")
    message = (
        "tags.csv: 2 of 3 listed photos have no entry: b, x; add them, or take them off the list"
    )
    expect(TagError, f"{tmp_path}/{message}", lambda: load_dataset(tmp_path, split=path))


def test_folders(tmp_path):
    gone = tmp_path / "gone"
    message = "this folder does not exist; check the path"
    expect(DataError, f"{gone}: {message}", lambda: load_dataset(gone))
    message = "no photos in this folder; check the path"
    expect(DataError, f"{tmp_path}: {message}", lambda: load_dataset(tmp_path))
    photos(tmp_path)
    message = "no tags: neither tags.csv nor metadata.jsonl nor class folders; add one of them"
    expect(TagError, f"{tmp_path}: {message}", lambda: load_dataset(tmp_path))
    missing = tmp_path / "no.csv"
    message = f"{missing}: cannot be read: No such file or directory; check the path"
    expect(TagError, message, lambda: load_dataset(tmp_path, tags=missing))
    expect(
        ConfigError,
        "layout 'pascal' does not exist; use one of auto, csv, jsonl, folders, voc",
        lambda: load_dataset(tmp_path, layout="pascal"),
    )
    expect(
        ConfigError,
        "untagged 'maybe' does not exist; use one of negative, unknown",
        lambda: load_dataset(tmp_path, untagged="maybe"),
    )
    (tmp_path / "tags.csv").write_text("image,tags\nc.png,cat\n../up.png,cat\n")
    message = "2 of 2 tagged photos are not here: c, ../up; check the folder and the names"
    expect(DataError, f"{tmp_path}: {message}", lambda: load_dataset(tmp_path))
    PilImage.fromarray(PHOTO).save(tmp_path.parent / "up.png")
    (tmp_path / "tags.csv").write_text("image,tags\n../up.png,cat\n")
    message = "'../up' cannot be a photo's name; give paths inside the photo folder"
    expect(DataError, message, lambda: load_dataset(tmp_path))


def test_two_photos_of_one_name(tmp_path):
    photos(tmp_path)
    PilImage.fromarray(PHOTO).save(tmp_path / "a.bmp")
    message = f"{tmp_path}: a.bmp and a.png have the same name; rename one"
    expect(DataError, message, lambda: load_dataset(tmp_path))


def test_annotations(tmp_path):
    photos(tmp_path / "JPEGImages")
    (tmp_path / "ImageSets").mkdir()
    message = f"{tmp_path}: there are no Annotations; give tags with --tags"
    expect(TagError, message, lambda: load_dataset(tmp_path))
    (tmp_path / "Annotations").mkdir()
    path = tmp_path / "Annotations" / "a.xml"
    path.write_text("<annotation><object>")
    expect(TagError, f"{path}: not plain XML: no element found", lambda: load_dataset(tmp_path))


def test_too_many_broken_photos(tmp_path):
    photos(tmp_path)
    (tmp_path / "tags.csv").write_text("image,tags\na.png,cat\nb.png,cat\n")
    (tmp_path / "b.png").write_bytes(b"")
    message = (
        "1 of 2 photos cannot be used: b (the file is empty); mend or remove them, or go on "
        "without them: --allow-skipped 0.50"
    )
    expect(DataError, message, lambda: audit(load_dataset(tmp_path)))


ID_300 = np.full((3, 4), 300, np.uint16)
MASKS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty; replace or remove it"),
    "half": (half(encode("PNG", PHOTO[..., 0])), "the PNG file is cut short or damaged ("),
    "a photo": (encode("PNG"), "colour "),
    "a jpeg": (encode("JPEG", PHOTO[..., 0]), "JPEG changes class ids; save masks as PNG"),
    "an id over 255": (encode("PNG", ID_300), "holds class id 300; use ids from 0 to 255"),
    "see-through": (
        encode("PNG", np.zeros((3, 4, 4), np.uint8)),
        "pixels of kind RGBA are not class ids; save the mask as a palette or grey PNG",
    ),
}


@pytest.mark.parametrize("kind", MASKS)
def test_mask(tmp_path, kind):
    data, message = MASKS[kind]
    path = tmp_path / "a.png"
    path.write_bytes(data)
    expect(MaskError, f"{path}: {message}", lambda: read_mask(path))


def test_ground_truth(tmp_path):
    gone = tmp_path / "gone"
    message = f"{gone}: this folder does not exist; check the path"
    expect(MaskError, message, lambda: GroundTruth(gone, ["cat"]))
    message = f"{tmp_path}: no masks in this folder; give the folder of masks"
    expect(MaskError, message, lambda: GroundTruth(tmp_path, ["cat"]))
    path = tmp_path / "a.png"
    PilImage.fromarray(np.array([[0, 1, 2, 255]], np.uint8)).save(path)
    truth = GroundTruth(tmp_path, ["cat"])
    message = "the mask is 1 x 4 (uint8), the photo 4 x 1; give a uint8 mask of the photo's"
    expect(MaskError, f"{path}: {message}", lambda: truth.labels("a", (4, 1)))
    message = "holds class id 2, but there are 1 classes; check the class list"
    expect(MaskError, f"{path}: {message}", lambda: truth.labels("a", (1, 4)))


def photos(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        PilImage.fromarray(PHOTO).save(folder / name)


def expect(error: type[Exception], start: str, call: Callable[[], object]) -> None:
    """``call`` raises exactly ``error``, in one line that begins with ``start``."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)
