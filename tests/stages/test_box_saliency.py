"""Saliency that a network learns from boxes in other photos."""

from __future__ import annotations

import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from rich.console import Console

from guided_runs import FEW, open_run
from small_runs import finished_stages
from tagseg.data.masks import decode_mask
from tagseg.errors import ConfigError, DataError, TagsegError
from tagseg.formats.boxes import read_boxes
from tagseg.nets.aspp import AsppNet
from tagseg.recipes.guided.config import Config
from tagseg.refine.box_masks import object_mask
from tagseg.run.progress import Progress
from tagseg.session.train import make_config
from tagseg.stages.box_saliency import BoxSaliency
from tagseg.stages.saliency import PhotoSaliency

LEVEL = 0.5 / 255 + 1e-6  # what stored maps may be off by


def config_of(**changed: Any) -> Any:
    return make_config(Config, {**FEW, "saliency_iterations": 3, **changed})


@pytest.fixture
def run(few, photos, tmp_path):
    with open_run(few, tmp_path / "run", val=photos.val[:2]) as run:
        yield run


def test_a_network_learns_from_boxes(run, boxes):
    """GrabCut masks of the average boxes; the maps are the softmax of the network that is kept."""
    config = config_of(boxes=str(boxes))
    saliency = PhotoSaliency(run, config)
    read = saliency.maps()
    work = run.workspace
    masks, trained = (work.finished(name) for name in ("box-masks", "saliency-net"))
    assert saliency.curves == [trained]
    assert [line["iteration"] for line in trained.read_log()] == [3]
    assert {"box-masks", "saliency-net", "saliency"} <= set(run.worked)
    assert len(set(run.worked)) == len(run.worked)
    everything = read_boxes(boxes)
    for photo in everything.photos:
        image = np.asarray(PilImage.open(photo.path).convert("RGB"))
        small = np.asarray(PilImage.open(photo.path).resize((64, 48), PilImage.Resampling.BOX))
        assert image.shape[:2] == photo.shape == (96, 128)
        mask = decode_mask(masks.maps("labels").get_bytes(photo.name))
        expected = object_mask(small, photo.boxes_at((48, 64)))
        assert mask.shape == (48, 64)
        assert (mask == expected).mean() > 0.97  # the photo is brought down by another filter
    net = AsppNet(run.setup.build_backbone(config), 2, view_scale=0.128).eval()
    net.load_state_dict(trained.load_tensors("saliency")[0])
    for index in range(len(run.photos)):
        image = torch.from_numpy(run.photos.image(index)).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            expected = net(image).softmax(1)[0, 1].numpy()
        assert read(index).shape == expected.shape
        np.testing.assert_allclose(read(index), expected, atol=LEVEL + 1e-3)
    again = saliency.maps("val")
    assert again(0).shape == run.split("val").photos.image(0).shape[:2]
    assert saliency.curves == [trained]


def renamed(boxes: Path, folder: Path, rows: int | None, label: str) -> Path:
    """A copy of the boxes, the first ``rows`` boxes of which are of the class ``label``."""
    shutil.copytree(boxes.parent, folder)
    lines = (folder / "boxes.csv").read_text().splitlines()
    for i in range(1, len(lines) if rows is None else rows + 1):
        lines[i] = ",".join([*lines[i].split(",")[:-1], label])
    (folder / "boxes.csv").write_text("\n".join(lines))
    return folder / "boxes.csv"


def test_pictures_of_the_target_classes_are_left_out(run, boxes, tmp_path):
    """Three annotators a picture: the first picture's class becomes one of the photos'."""
    file = renamed(boxes, tmp_path / "boxes", 3, run.photos.classes[0].upper())
    saliency = PhotoSaliency(run, config_of(boxes=str(file)))
    assert saliency.learned is not None
    left = [f"box_{i:05d}" for i in (1, 2, 3)]
    assert [photo.name for photo in saliency.learned.boxes.photos] == left
    saliency.maps()
    assert run.workspace.finished("box-masks").maps("labels").names() == left


def test_boxes_of_nothing_but_target_classes(run, boxes, tmp_path):
    file = renamed(boxes, tmp_path / "boxes", None, run.photos.classes[0])
    with pytest.raises(DataError, match=r"boxes.csv: none of the 4 photos is left; "):
        PhotoSaliency(run, config_of(boxes=str(file)))


@pytest.mark.parametrize(("name", "noted"), [("boxes.txt", True), ("boxes.csv", False)])
def test_a_note_where_classes_are_not_named(few, boxes, tmp_path, name, noted):
    said = StringIO()
    progress = Progress(Console(file=said, width=500))
    with open_run(few, tmp_path / "run", progress=progress) as run:
        PhotoSaliency(run, config_of(boxes=str(boxes.parent / name)))
    assert ("names no classes" in said.getvalue()) == noted


def test_listed_pictures_are_left_out(few, boxes, tmp_path):
    """As for MSRA's file, which names no classes; then nothing need be said about them."""
    listed = tmp_path / "left_out.txt"
    listed.write_text("box_00001.jpg\nbox_00003\n")
    said = StringIO()
    progress = Progress(Console(file=said, width=500))
    with open_run(few, tmp_path / "run", progress=progress) as run:
        file = str(boxes.parent / "boxes.txt")
        saliency = PhotoSaliency(run, config_of(boxes=file, boxes_left_out=str(listed)))
        assert saliency.learned is not None
        names = [photo.name for photo in saliency.learned.boxes.photos]
    assert "names no classes" not in said.getvalue()
    assert [Path(name).name for name in names] == ["box_00000", "box_00002"]


def test_a_list_of_pictures_without_boxes():
    with pytest.raises(ConfigError, match="boxes_left_out is given without --boxes; "):
        config_of(boxes_left_out="list.txt")


def test_photos_of_the_boxes_elsewhere(run, boxes, tmp_path):
    photos = Path(shutil.copytree(boxes.parent, tmp_path / "pictures"))
    file = Path(shutil.copy(boxes, tmp_path / "b.csv"))
    with pytest.raises(DataError, match="4 of 4 annotated photos are not here"):
        PhotoSaliency(run, config_of(boxes=str(file)))
    found = BoxSaliency(run, config_of(boxes=str(file), box_photos=str(photos)), file)
    here = BoxSaliency(run, config_of(boxes=str(boxes)), boxes)
    assert found.boxes.digest == here.boxes.digest


def test_a_backbone_of_its_own(run, boxes):
    """With weights of its own; its name decides on the stage, and the seeder's stays."""
    config = config_of(boxes=str(boxes), saliency_backbone="mobilenet_v2", saliency_weights="none")
    saliency = BoxSaliency(run, config, boxes)
    assert (saliency.setup.backbone, saliency.setup.weights) == ("mobilenet_v2", None)
    assert run.setup.backbone == "tiny"
    assert saliency.setup.build_backbone(config).output_stride == 16
    with pytest.raises(ConfigError, match="there is no backbone 'resnet'"):
        PhotoSaliency(run, replace(config, saliency_backbone="resnet"))
    with pytest.raises(TagsegError, match="no such weights file"):
        PhotoSaliency(run, replace(config, saliency_weights="/no/such.pth"))
    assert BoxSaliency(run, config_of(boxes=str(boxes)), boxes).setup is run.setup


def learned(few: Any, out: Path, file: Path, **changed: Any) -> set[str]:
    """The stages that ran."""
    before = finished_stages(out)
    with open_run(few, out) as run:
        PhotoSaliency(run, config_of(boxes=str(file), **changed)).maps()
    after = finished_stages(out)
    return {name for name in after if after[name] != before.get(name)}


def test_what_the_learned_maps_depend_on(few, boxes, tmp_path):
    file, out = Path(shutil.copytree(boxes.parent, tmp_path / "b")) / "boxes.csv", tmp_path / "run"
    everything = {"box-masks", "saliency-net", "saliency"}
    assert learned(few, out, file) == everything
    moved = Path(shutil.move(file.parent, tmp_path / "c")) / "boxes.csv"
    assert learned(few, out, moved) == set()
    assert learned(few, out, moved, saliency_iterations=2) == {"saliency-net", "saliency"}
    same = {"saliency_iterations": 2, "seeder_side": 48, "classifier_iterations": 9}
    assert learned(few, out, moved, **same) == set()
    lines = moved.read_text().splitlines()
    first = lines[1].split(",")
    first[3] = str(int(first[3]) + 1)
    moved.write_text("\n".join([lines[0], ",".join(first), *lines[2:]]))
    assert learned(few, out, moved) == everything


def test_other_pixels_in_a_boxed_picture(few, boxes, tmp_path):
    """A picture that was replaced, under the same boxes."""
    file, out = Path(shutil.copytree(boxes.parent, tmp_path / "b")) / "boxes.csv", tmp_path / "run"
    learned(few, out, file)
    picture = file.parent / "JPEGImages" / "box_00000.jpg"
    PilImage.open(picture).transpose(PilImage.Transpose.FLIP_TOP_BOTTOM).save(picture)
    assert learned(few, out, file) == {"box-masks", "saliency-net", "saliency"}


def test_a_boxed_picture_that_is_broken_costs_no_training(run, boxes, tmp_path):
    file = Path(shutil.copytree(boxes.parent, tmp_path / "b")) / "boxes.csv"
    (file.parent / "JPEGImages" / "box_00002.jpg").write_bytes(b"\xff\xd8\xff oh")
    with pytest.raises(TagsegError, match=r"box_00002.jpg: the JPEG file is cut short or damaged"):
        PhotoSaliency(run, config_of(boxes=str(file))).maps()
    assert "saliency-net" not in finished_stages(run.workspace.folder)


def test_pictures_of_another_shape_than_annotated(run, boxes, tmp_path):
    file = Path(shutil.copytree(boxes.parent, tmp_path / "b")) / "boxes.csv"
    PilImage.new("RGB", (100, 100)).save(file.parent / "JPEGImages" / "box_00001.jpg")
    with pytest.raises(DataError, match="but was annotated at 128 x 96"):
        PhotoSaliency(run, config_of(boxes=str(file))).maps()
    assert "saliency-net" not in finished_stages(run.workspace.folder)
