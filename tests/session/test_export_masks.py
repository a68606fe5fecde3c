"""Exports as a whole: photos, masks, classes and what is said of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from photo_trees import photo
from small_runs import contents, tagseg
from tagseg.data.masks import read_mask, write_mask
from tagseg.errors import ConfigError, DataError, WorkspaceError
from tagseg.formats.export.catalog import FORMATS
from tagseg.formats.loading import load_dataset
from tagseg.session.export_folder import EXPORT_MARKER
from tagseg.session.export_masks import ExportWishes, export_masks
from tars import jpeg, write_tar

SHAPE = (24, 32)


def write(folder: Path, name: str, labels: np.ndarray) -> None:
    path = folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(path, labels)


@pytest.fixture
def data(tmp_path) -> Path:
    """Three photos, one in a folder with a space, and their masks; one mask is of another size."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:9, 4:20] = 1
    labels[5:7, 6:10] = 2
    labels[20:, :16] = 255
    for name in ("a", "zwei ö/b.v2", "empty"):
        photo(tmp_path / "photos" / f"{name}.jpg")
        write(tmp_path / "masks", name, labels * np.uint8(name != "empty"))
    (tmp_path / "masks" / "classes.txt").write_text("cat\ndog\n")
    return tmp_path


def run(data: Path, to: str, **wishes: object):
    threads = wishes.pop("threads", 1)
    out = data / f"out-{to}"
    return out, export_masks(
        data / "masks", out, ExportWishes(to, **wishes), photos=data / "photos", threads=threads
    )


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("by", ["copy", "link", "name"])
def test_every_format_and_what_becomes_of_the_photos(data, to, by):
    if by not in FORMATS[to].photos_by:
        with pytest.raises(ConfigError, match="datasets has no --photos-by name; use copy or link"):
            run(data, to, photos_by=by)
        return
    before = contents(data / "photos")
    out, done = run(data, to, photos_by=by)
    assert (done.photos, done.left_out) == (3, ())
    photos = list(out.rglob("*.jpg"))
    assert len(photos) == (0 if by == "name" or to == "hf" else 3)
    for path in photos:
        assert path.is_symlink() == (by == "link")
        own = data / "photos" / path.relative_to(out / FORMATS[to].photos_in)
        assert path.read_bytes() == own.read_bytes()
    assert contents(data / "photos") == before
    told = json.loads((out / EXPORT_MARKER).read_text(encoding="utf-8"))
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert told["files"].keys() == files - {EXPORT_MARKER}


def test_what_is_said(data):
    _, done = run(data, "coco")
    assert done.lines() == [
        "COCO: 3 photos, 2 classes, 4 annotations (masks, one a region), photos only named",
        "unknown pixels (255), 5.6 % on average, in 2 photos: count as background there",
    ]
    _, done = run(data, "voc")
    assert done.lines()[0] == "Pascal VOC: 3 photos, 2 classes, masks, photos copied"
    assert done.lines()[1].endswith("in 2 photos: stay 255")


def test_threads_change_nothing(data):
    out, _ = run(data, "coco", threads=3)
    several = contents(out)
    out, _ = run(data, "coco")
    assert [n for n, c in contents(out).items() if several[n] != c] == [EXPORT_MARKER]


def test_masks_that_cannot_be_used_are_left_out_and_named(data):
    write(data / "masks", "empty", np.zeros((5, 5), np.uint8))
    (data / "photos" / "a.jpg").write_bytes(b"no photo")
    out, done = run(data, "voc")
    assert [name for name, _ in done.left_out] == ["a", "empty"]
    assert done.lines()[-2:] == [
        f"left out: {data / 'photos' / 'a.jpg'}: is no photo that can be read",
        f"left out: {data / 'masks' / 'empty.png'}: the mask is 5 x 5, its photo 24 x 32; "
        "give a mask of the photo's height and width",
    ]
    assert [p.name for p in (out / "SegmentationClass").rglob("*.png")] == ["b.v2.png"]


def test_nothing_is_written_if_no_mask_can_be_used(data):
    for name in ("a", "zwei ö/b.v2", "empty"):
        write(data / "masks", name, np.full(SHAPE, 9, np.uint8))
    with pytest.raises(DataError, match=r"no mask can be used: .*holds class id 9, but there"):
        run(data, "png")
    assert sorted(p.name for p in data.iterdir()) == ["masks", "photos"]


@pytest.mark.parametrize(
    ("to", "wishes", "line"),
    [
        ("yolo", {"per": "class"}, "YOLO has no --per class; use region"),
        ("yolo", {"shapes": "masks"}, "YOLO has no --shapes masks; use polygons"),
        ("png", {"shapes": "masks"}, "PNG has no --shapes masks; leave --shapes out"),
        ("label-studio", {"shapes": "polygons", "per": "class"}, "Label Studio has no --per class"),
        ("labelbox", {}, "format 'labelbox' does not exist; did you mean labelme"),
    ],
)
def test_what_a_format_cannot_do(data, to, wishes, line):
    with pytest.raises(ConfigError, match=line):
        run(data, to, **wishes)
    assert not (data / f"out-{to}").exists()


def test_masks_without_photos(data):
    wishes = ExportWishes("png")
    (data / "photos").rename(data / "elsewhere")
    done = export_masks(data / "masks", data / "out", wishes)
    assert done.photos == 3
    with pytest.raises(ConfigError, match="--photos-by copy needs photos; give --photos DIR"):
        export_masks(data / "masks", data / "x", ExportWishes("png", photos_by="copy"))
    with pytest.raises(DataError, match="of which photos are these the masks"):
        export_masks(data / "masks", data / "x", ExportWishes("coco"))


def test_an_export_as_source_and_as_data_set(data):
    out, _ = run(data, "voc")
    again = export_masks(out / "SegmentationClass", data / "png", ExportWishes("png"))
    assert (again.photos, again.classes) == (3, ("cat", "dog"))
    for path in (data / "masks").rglob("*.png"):
        name = path.relative_to(data / "masks")
        assert np.array_equal(read_mask(data / "png" / "masks" / name), read_mask(path))
    dataset = load_dataset(out, untagged="negative")
    assert dict(zip(dataset.names, dataset.tags.sum(axis=1).tolist(), strict=True)) == {
        "a": 2,
        "zwei ö/b.v2": 2,
        "empty": 0,
    }


def test_photos_that_a_tool_may_not_open(data):
    with PilImage.open(data / "photos" / "a.jpg") as picture:
        picture.save(data / "photos" / "a.tif")
    (data / "photos" / "a.jpg").unlink()
    _, done = run(data, "voc")
    assert done.lines()[-1] == "note: Pascal VOC may not open photos that end in .tif"


def test_photos_in_tars_are_copied_and_cannot_be_linked(tmp_path):
    photo = jpeg(90, (8, 6))
    write_tar(tmp_path / "photos" / "0.tar", {"a.jpg": photo})
    write(tmp_path / "masks", "a", np.ones((6, 8), np.uint8))
    (tmp_path / "classes.txt").write_text("cat\n")
    places = tmp_path / "masks", tmp_path / "out"
    done = export_masks(*places, ExportWishes("voc"), photos=tmp_path / "photos")
    assert done.photos == 1
    assert (tmp_path / "out" / "JPEGImages" / "a.jpg").read_bytes() == photo
    with pytest.raises(ConfigError, match="photos in tars cannot be linked; give --photos-by copy"):
        export_masks(*places, ExportWishes("voc", "link"), photos=tmp_path / "photos")


def test_places_and_failures(data, monkeypatch):
    wishes = ExportWishes("png")
    with pytest.raises(DataError, match="lies in the folder of the photos"):
        export_masks(data / "masks", data / "photos" / "o", wishes, photos=data / "photos")
    with pytest.raises(DataError, match="lies in the folder of the masks"):
        export_masks(data / "masks", data / "masks" / "o", wishes)
    monkeypatch.setattr("shutil.copyfileobj", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(WorkspaceError, match="cannot be used: full; free some space"):
        run(data, "voc")
    assert sorted(p.name for p in data.iterdir()) == ["masks", "photos"]


def test_names_that_are_not_utf8(data):
    content = (data / "photos" / "a.jpg").read_bytes()
    Path(os.fsdecode(os.fsencode(data / "photos") + b"/caf\xe9.jpg")).write_bytes(content)
    write(data / "masks", "caf%E9", np.zeros(SHAPE, np.uint8))
    for to in FORMATS:
        out, done = run(data, to)
        assert done.photos == 4
        told = json.loads((out / EXPORT_MARKER).read_text(encoding="utf-8"))["files"]
        assert to in ("coco", "cvat", "label-studio", "hf") or any("caf%E9" in n for n in told)


def test_the_command(data):
    source = ("export", data / "masks", "--photos", data / "photos", "--to", "coco")
    told = tagseg(*source, "--out", data / "o", "--per", "class", "--photos-by", "link")
    assert told.status == 0
    assert "COCO: 3 photos, 2 classes, 4 annotations (masks, one a class)" in told.out
    assert told.out.splitlines()[-1] == f"written: {data / 'o'}"
    bad = tagseg("export", data / "masks", "--to", "png", "--out", data / "p", "--int8")
    assert (bad.status, bad.err) == (
        2,
        "tagseg: error: --int8 does nothing with --to png; leave it out\n",
    )
    bad = tagseg("export", data, "--to", "onnx", "--out", data / "x.onnx", "--photos", data)
    assert "--photos does nothing with --to onnx; leave it out" in bad.err
