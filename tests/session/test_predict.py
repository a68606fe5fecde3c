"""Masks for folders of new photos."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from small_runs import contents
from tagseg.data.finding import OUTPUT_MARKER, find_masks
from tagseg.data.masks import read_mask
from tagseg.errors import ConfigError, DataError, WorkspaceError
from tagseg.maps import Image, Probs
from tagseg.nets.catalog import build_backbone
from tagseg.nets.deeplab import SegmentationNet
from tagseg.segment.predict import NOTHING, Known, Segmenter
from tagseg.session.predict import predict_folder
from tagseg.tar_members import read_file
from tagseg.training import Execution
from tars import jpeg, write_tar


class AllOfB:
    """Finds nothing but label 2; new photos come without tags."""

    def refine(self, image: Image, probs: Probs, known: Known = NOTHING) -> Probs:
        assert image.shape[:2] == probs.shape[1:]
        assert known == Known()
        ahead = [0.0, 0.0, 9.0, 0.0]
        return np.stack([np.full_like(p, a) for p, a in zip(probs, ahead, strict=True)])


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    net = SegmentationNet(build_backbone("tiny"), 4, width=8)
    return Segmenter(net, ("a", "b", "c"), side=32, execution=Execution(), refiner=AllOfB())


@pytest.fixture
def photos(tmp_path) -> Path:
    rng = np.random.default_rng(2)
    for name, shape in {"one": (50, 40), "x/two.v2": (20, 70), "x/y/three": (8, 8)}.items():
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PilImage.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.mark.parametrize("threads", [1, 3])
def test_each_photo_gets_its_mask(segmenter, photos, tmp_path, threads):
    done = predict_folder(segmenter, photos, tmp_path / "m", refine=False, threads=threads)
    assert done.written == ("one", "x/two.v2", "x/y/three")
    assert done.skipped == ()
    results = [f"{name}.png" for name in done.written]
    assert sorted(contents(tmp_path / "m")) == [OUTPUT_MARKER, *results]
    for name in done.written:
        with PilImage.open(photos / f"{name}.png") as picture:
            expected = segmenter.predict(np.asarray(picture), refine=False)
        assert np.array_equal(read_mask(tmp_path / "m" / f"{name}.png"), expected)


def test_masks_in_tars_are_those_of_files(segmenter, photos, tmp_path):
    predict_folder(segmenter, photos, tmp_path / "files", refine=False)
    (photos / "broken.png").write_bytes(b"")
    done = predict_folder(segmenter, photos, tmp_path / "m", refine=False, masks_in="shards")
    assert (len(done.written), len(done.skipped), done.tars) == (3, 1, 1)
    assert sorted(contents(tmp_path / "m")) == [OUTPUT_MARKER, "masks-000000.tar"]
    in_tars, files = find_masks(tmp_path / "m"), find_masks(tmp_path / "files")
    assert in_tars.keys() == files.keys()
    for name, file in files.items():
        assert read_file(in_tars[name]) == file.read_bytes()
    again = predict_folder(segmenter, photos, tmp_path / "m", refine=False)
    assert again.tars == 0  # or else the old tars would lie beside new files
    assert len(find_masks(tmp_path / "m")) == 3


def test_tars_of_others_and_the_folder_of_photos_in_tars_are_safe(segmenter, photos, tmp_path):
    write_tar(tmp_path / "m" / "masks-000000.tar", {"a.jpg": jpeg(1)})
    with pytest.raises(DataError, match="m: holds tars that no predict wrote; change --out"):
        predict_folder(segmenter, photos, tmp_path / "m")
    with pytest.raises(DataError, match="holds photos, for which the results would be taken"):
        predict_folder(segmenter, tmp_path / "m", tmp_path / "m")
    with pytest.raises(ConfigError, match="masks_in 'zip' does not exist"):
        predict_folder(segmenter, photos, tmp_path / "n", masks_in="zip")


def test_refinement_and_overlays(segmenter, photos, tmp_path):
    done = predict_folder(segmenter, photos, tmp_path / "m", overlays=tmp_path / "o")
    for name in done.written:
        assert (read_mask(tmp_path / "m" / f"{name}.png") == 2).all()
        with PilImage.open(photos / f"{name}.png") as photo:
            size, before = photo.size, np.asarray(photo.convert("RGB")).astype(int)
        with PilImage.open(tmp_path / "o" / f"{name}.jpg") as over:
            assert over.size == size
            assert abs(np.asarray(over).astype(int) - before).mean() > 5


def test_one_photo_and_a_folder_in_voc_layout(segmenter, photos, tmp_path):
    done = predict_folder(segmenter, photos / "x" / "two.v2.png", tmp_path / "m")
    assert done.written == ("two.v2",)
    assert read_mask(tmp_path / "m" / "two.v2.png").shape == (20, 70)
    (tmp_path / "voc").mkdir()
    photos.rename(tmp_path / "voc" / "JPEGImages")
    done = predict_folder(segmenter, tmp_path / "voc", tmp_path / "voc-masks")
    assert done.written == ("one", "x/two.v2", "x/y/three")


def test_broken_photos_are_skipped_and_named(segmenter, photos, tmp_path):
    (photos / "x" / "bad.jpg").write_bytes(b"nothing")
    done = predict_folder(segmenter, photos, tmp_path / "m")
    assert len(done.written) == 3
    ((name, reason),) = done.skipped
    assert name == "x/bad"
    assert reason.startswith(f"{photos / 'x' / 'bad.jpg'}: not a picture of a known format")


def test_photos_are_safe(segmenter, photos, tmp_path):
    before = contents(photos)
    link = tmp_path / "link"
    link.symlink_to(photos, target_is_directory=True)
    for out in (photos, link, photos / "x" / ".."):
        with pytest.raises(DataError, match="a result would replace this photo; change --out"):
            predict_folder(segmenter, photos, out)
    with pytest.raises(DataError, match="a result would replace"):
        predict_folder(segmenter, photos / "one.png", photos)
    assert contents(photos) == before


def test_what_cannot_be_written_is_one_line(segmenter, photos, tmp_path):
    (tmp_path / "file").write_text("")
    for folders in (
        {"out": tmp_path / "file"},
        {"out": tmp_path / "m", "overlays": tmp_path / "file"},
    ):
        with pytest.raises(WorkspaceError, match="file: cannot be used: File exists"):
            predict_folder(segmenter, photos, **folders)
    assert not (tmp_path / "m").exists()  # found before anything is made
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "x").write_text("in the way")
    with pytest.raises(WorkspaceError, match="x: cannot be used: File exists"):
        predict_folder(segmenter, photos, tmp_path / "m")


def small_photo(path: bytes | Path) -> None:
    content = io.BytesIO()
    PilImage.new("RGB", (8, 8), (9, 90, 200)).save(content, "PNG")
    with open(path, "wb") as file:
        file.write(content.getvalue())


def test_names_that_are_long_and_names_that_are_not_utf8(segmenter, tmp_path):
    folder = os.fsencode(tmp_path / "photos")
    os.mkdir(folder)
    os.mkdir(folder + b"/chats \xe9t\xe9")
    for name in (("写" * 83 + "ab").encode(), b"caf\xe9", b"chats \xe9t\xe9/5", b"x" * 251):
        small_photo(folder + b"/" + name + b".png")
    done = predict_folder(segmenter, tmp_path / "photos", tmp_path / "m", overlays=tmp_path / "o")
    assert done.written == ("caf%E9", "chats %E9t%E9/5", "x" * 251, "写" * 83 + "ab")
    marker = {OUTPUT_MARKER}
    assert set(contents(tmp_path / "m")) == {f"{name}.png" for name in done.written} | marker
    assert set(contents(tmp_path / "o")) == {f"{name}.jpg" for name in done.written} | marker
    alone = predict_folder(segmenter, Path(os.fsdecode(folder + b"/caf\xe9.png")), tmp_path / "n")
    assert alone.written == ("caf%E9",)


@pytest.mark.parametrize(
    ("out", "error", "line"),
    [
        ("mask.png", DataError, "mask.png: is named as a picture, but results are written into a"),
        ("new/mask.JPG", DataError, "give a folder, such as .*new/mask; files there are NAME.png"),
        ("photos", DataError, "photos: holds photos, for which the results would be taken the ne"),
        ("photos/x/y", DataError, "y: holds photos, for which the results would be taken"),
        ("file/m", WorkspaceError, "file/m: cannot be used: Not a directory; check the path"),
        ("/dev/null/m", WorkspaceError, "/dev/null/m: cannot be used: Not a directory"),
        ("taken", WorkspaceError, "taken/one.png: cannot be used: Is a directory"),
    ],
)
def test_bad_places_are_found_before_anything_is_decoded(
    segmenter, photos, tmp_path, monkeypatch, out, error, line
):
    monkeypatch.setattr(
        "tagseg.session.predict.decode_reduced", lambda path, side, white: pytest.fail("decoded")
    )
    for path in photos.rglob("*.png"):
        path.rename(path.with_suffix(".bmp"))
    (tmp_path / "file").write_text("")
    for suffix in (".png", ".jpg"):
        (tmp_path / "taken" / f"one{suffix}").mkdir(parents=True)
    before = contents(tmp_path)
    with pytest.raises(error, match=line):
        predict_folder(segmenter, photos, tmp_path / out)
    with pytest.raises(error, match=line.replace("NAME.png", "NAME.jpg").replace("e.png", "e.jpg")):
        predict_folder(segmenter, photos, tmp_path / "m", overlays=tmp_path / out)
    assert contents(tmp_path) == before
    assert not (tmp_path / "m").exists()


def test_a_folder_that_is_called_as_a_picture_is_one(segmenter, photos, tmp_path):
    (tmp_path / "m.png").mkdir()
    assert len(predict_folder(segmenter, photos, tmp_path / "m.png").written) == 3


def test_a_folder_that_is_misspelt(segmenter, photos, tmp_path):
    line = f"a folder of photos; did you mean {photos}?"
    with pytest.raises(DataError, match=line):
        predict_folder(segmenter, tmp_path / "photo", tmp_path / "m")
