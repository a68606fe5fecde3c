"""What is exported: masks, classes and photos that are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from photo_trees import photo
from tagseg.data.masks import write_mask
from tagseg.data.orientation import Geometry
from tagseg.errors import DataError, MaskError, WorkspaceError
from tagseg.run.workspace import Workspace
from tagseg.session.export_sources import find_mask_files, labels_of, pair_with_photos

LABELS = np.array([[0, 1, 2], [2, 2, 0]], np.uint8)


def masks_of(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_mask(folder / f"{name}.png", LABELS)
    return folder


def finished_run(folder: Path, *names: str) -> Path:
    with (
        Workspace.open(folder, recipe="any", settings={}, classes=["cat", "dog"]) as work,
        work.stage("masks", config={}, inputs=[]) as stage,
    ):
        masks_of(stage.path("masks"), *names)
    return folder


def test_a_run_knows_its_classes(tmp_path):
    run = finished_run(tmp_path / "run", "a", "x/b")
    found = find_mask_files(run, None)
    assert (found.classes.names, list(found.files)) == (("cat", "dog"), ["a", "x/b"])
    assert found.keep_out == {"the stages of the run": run / "stages"}
    with pytest.raises(DataError, match="a run knows its classes; leave --classes out"):
        find_mask_files(run, tmp_path / "classes.txt")


def test_a_run_that_is_not_finished(tmp_path):
    with Workspace.open(tmp_path / "run", recipe="any", settings={}, classes=["a"]) as work:
        work.stage("maps", config={}, inputs=[])
    with pytest.raises(WorkspaceError, match="stage masks is not finished; run the training comma"):
        find_mask_files(tmp_path / "run", None)


def test_lists_of_classes(tmp_path):
    home = masks_of(tmp_path / "set" / "masks", "a")
    with pytest.raises(DataError, match="nothing says what the masks' classes are; give --classes"):
        find_mask_files(home, None)
    (tmp_path / "set" / "classes.txt").write_text("cat\ndog\n")
    found = find_mask_files(home, None)
    assert found.classes.names == ("cat", "dog")
    assert found.classes.colours == ((128, 0, 0), (0, 128, 0))  # of the mask's own palette
    (home / "labelmap.txt").write_text("background:0,0,0::\ndog:1,2,3::\ncat:4,5,6::\n")
    found = find_mask_files(home, None)
    assert found.classes.names == ("dog", "cat")
    assert found.classes.colours == ((1, 2, 3), (4, 5, 6))
    (tmp_path / "own.txt").write_text("a\nb\nc\n")
    assert find_mask_files(home, tmp_path / "own.txt").classes.names == ("a", "b", "c")
    with pytest.raises(DataError, match=r"no such folder; .*did you mean .*masks\?"):
        find_mask_files(tmp_path / "set" / "mask", None)


def test_grey_masks_get_vocs_colours(tmp_path):
    home = tmp_path / "masks"
    home.mkdir()
    PilImage.fromarray(LABELS).save(home / "a.png")
    (home / "classes.txt").write_text("cat\ndog\n")
    found = find_mask_files(home, None)
    assert found.classes.colours == ()
    assert found.classes.hex_colours() == ("#800000", "#008000")


def test_photos_and_masks_by_name(tmp_path):
    home = masks_of(tmp_path / "masks", "a", "x/b", "lonely")
    (home / "classes.txt").write_text("cat\ndog\n")
    for name in ("a.jpg", "x/b.png", "unknown.jpg"):
        photo(tmp_path / "photos" / name)
    found = find_mask_files(home, None)
    pairs = pair_with_photos(found, tmp_path / "photos", needed=True)
    assert list(pairs.photos) == list(pairs.masks) == ["a", "x/b"]
    assert pairs.photos["x/b"] == tmp_path / "photos" / "x" / "b.png"
    assert pairs.left_out == (
        "left out: 1 photos without a mask, such as unknown",
        "left out: 1 masks without a photo, such as lonely",
    )
    assert pair_with_photos(found, None, needed=True) == pairs  # photos lies beside
    (tmp_path / "photos").rename(tmp_path / "pictures")
    with pytest.raises(DataError, match=r"of which photos are these the masks\?; give --ph"):
        pair_with_photos(found, None, needed=True)
    alone = pair_with_photos(found, None, needed=False)
    assert list(alone.masks) == ["a", "lonely", "x/b"]
    assert set(alone.photos.values()) == {None}


def test_names_that_do_not_meet_or_clash(tmp_path):
    home = masks_of(tmp_path / "masks", "a")
    (home / "classes.txt").write_text("cat\ndog\n")
    found = find_mask_files(home, None)
    photo(tmp_path / "photos" / "b.jpg")
    with pytest.raises(DataError, match=r"none of the 1 photos has one of the 1 masks \(photos b;"):
        pair_with_photos(found, tmp_path / "photos", needed=True)
    photo(tmp_path / "photos" / "b.png")
    with pytest.raises(DataError, match=r"b\.jpg and b\.png have the same name; rename one"):
        pair_with_photos(found, tmp_path / "photos", needed=True)


def test_labels_lie_on_the_photo_as_it_is_displayed(tmp_path):
    home = masks_of(tmp_path, "a")
    (home / "classes.txt").write_text("cat\ndog\n")
    found = find_mask_files(home, None)
    path, legend = found.files["a"], found.legend
    assert np.array_equal(labels_of(path, legend, None), LABELS)
    assert np.array_equal(labels_of(path, legend, Geometry((2, 3), 3)), LABELS)
    turned = labels_of(path, legend, Geometry((3, 2), 6))
    assert np.array_equal(turned, np.rot90(LABELS, -1))
    with pytest.raises(MaskError, match=r"a.png: the mask is 2 x 3, its photo 4 x 3; give a mask"):
        labels_of(path, legend, Geometry((4, 3)))
    (home / "classes.txt").write_text("cat\n")
    with pytest.raises(MaskError, match="holds class id 2, but there are 1 classes"):
        labels_of(path, find_mask_files(home, None).legend, None)
