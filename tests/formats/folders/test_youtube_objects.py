"""Frames of videos by class, the evaluation's among them, and which are trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.errors import ConfigError, DataError, MaskError, TagError
from tagseg.evaluate.truth_audit import audit_truth
from tagseg.formats.folders.youtube_objects import (
    frame_name,
    is_youtube_objects,
    shot_of_frame,
)
from tagseg.formats.loading import Reading, load_dataset, load_target
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.session.inputs import Source, load_photos

SIZE = (8, 6)  # width and height
ALL = Reading(frames_per_class=0)


def shot(tree: Path, of_class: str, video: int, number: int) -> Path:
    return tree / of_class / "data" / f"{video:04d}" / "shots" / f"{number:03d}"


def write_frames(folder: Path, numbers: range, name: str = "frame{:04d}.jpg") -> None:
    folder.mkdir(parents=True)
    for i in numbers:
        PilImage.new("RGB", SIZE, (20 * i % 256, 90, 30)).save(folder / name.format(i))


def write_label(path: Path, size: tuple[int, int] = SIZE, value: int = 255) -> None:
    """An object in the right half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size[::-1], np.uint8)
    mask[:, size[0] // 2 :] = value
    PilImage.fromarray(mask).save(path, quality=95)


@pytest.fixture
def data(tmp_path) -> Path:
    """Two classes with two videos of two shots each; the second video's first shot has masks."""
    for of_class in ("cat", "train"):
        for video in (1, 2):
            for number in (1, 2):
                write_frames(shot(tmp_path / "v1", of_class, video, number), range(1, 6))
        labels = shot(tmp_path / "youtube_masks", of_class, 2, 1) / "labels"
        for i in (1, 4):
            write_label(labels / f"{i:05d}.jpg")
    (tmp_path / "v1" / "cat" / "sets").mkdir()
    (tmp_path / "v1" / "cat" / "sets" / "train.txt").write_text("0001\n")
    box = shot(tmp_path / "v1", "cat", 1, 1) / "frame0001.jpg_sticks.mat"
    box.write_bytes(b"MATLAB 5.0")
    return tmp_path


class TestFrames:
    def test_classes_are_those_of_the_videos(self, data):
        photos = load_dataset(data, how=ALL)
        assert photos.classes == ("cat", "train")
        assert photos.names[0] == "cat/data/0001/shots/001/frame0001"
        assert photos.known.all()
        by_class = {name.split("/")[0] for name in photos.names}
        assert by_class == {"cat", "train"}
        for name, tags in zip(photos.names, photos.tags, strict=True):
            assert [photos.classes[i] for i in np.flatnonzero(tags)] == [name.split("/")[0]]
        assert len(photos) == 2 * (15 + 2)

    @pytest.mark.parametrize("where", ["", "v1"])
    def test_frames_with_masks_validate_and_their_shots_teach_nothing(self, data, where):
        source = Source(data / where, masks=data / "youtube_masks", how=ALL)
        loaded = load_photos(source)
        masked = {f"{c}/data/0002/shots/001" for c in ("cat", "train")}
        assert {shot_of_frame(name) for name in loaded.val} == masked
        assert [name[-4:] for name in loaded.val] == ["0001", "0004"] * 2
        learned = loaded.photos.without(loaded.val).names
        assert not {shot_of_frame(name) for name in learned} & masked
        assert len(learned) == 2 * 15

    def test_without_masks_all_is_to_be_trained_on(self, data):
        loaded = load_photos(Source(data / "v1", how=ALL))
        assert (len(loaded.photos), loaded.val) == (40, ())

    @pytest.mark.parametrize("per_class", [1, 4, 7, 14, 15, 16, 0, None])
    def test_as_many_as_wanted_evenly(self, data, per_class):
        how = Reading(frames_per_class=per_class)
        loaded = load_photos(Source(data, how=how))
        names = loaded.photos.without(loaded.val).names
        cats = [name for name in names if name.startswith("cat")]
        every = [f"cat/data/{v}/frame{i:04d}" for v in ("0001/shots/001", "0001/shots/002",
                 "0002/shots/002") for i in range(1, 6)]  # fmt: skip
        count = min(per_class or 15, 15)
        assert cats == [every[int((i + 0.5) * 15 / count)] for i in range(count)]
        assert len(names) == 2 * count

    def test_what_is_said(self, data):
        shutil.rmtree(data / "v1" / "train" / "data")
        (shot(data / "v1", "train", 1, 1)).mkdir(parents=True)
        (shot(data / "v1", "cat", 2, 1) / "frame0004.jpg").unlink()
        notes = "\n".join(load_dataset(data, how=Reading(frames_per_class=3)).notes)
        assert "read as youtube_objects: 4 photos in v1, the class is that of the video" in notes
        assert "19 frames in 4 shots of 2 videos of 1 classes" in notes
        assert "1 shots hold no frames: train/0001/001" in notes
        assert "no frames of train: left out of the classes" in notes
        assert "3 masks are of frames that are not here: cat/data/0002/shots/001/frame0004" in notes
        assert "left out: 12 pictures beyond 3 training frames a class" in notes
        assert "left out: 3 pictures without a mask in shots with masks" in notes

    def test_a_tree_of_masks_with_its_frames(self, data):
        """The frames of masks beside them, in ``images``: nothing to train on, but a target."""
        tree = data / "youtube_masks"
        for of_class in ("cat", "train"):
            write_frames(shot(tree, of_class, 2, 1) / "images", range(1, 6))
        with pytest.raises(DataError, match="all shots have masks, and none is left to train on"):
            load_photos(Source(tree))
        target = load_target(tree, classes=["cat", "train"])
        assert [name[-4:] for name in target.names] == ["0001", "0004"] * 2
        assert len(load_photos(Source(data, how=ALL)).photos) == 34, "v1 is taken"
        truth = audit_truth(GroundTruth(tree, ("cat", "train")), target)
        assert (truth.masks, truth.errors) == (4, ())

    def test_one_class_is_not_unwrapped(self, data):
        shutil.rmtree(data / "v1" / "train")
        assert load_dataset(data / "v1", how=ALL).classes == ("cat",)

    def test_other_folders_are_none(self, data, tmp_path):
        assert is_youtube_objects(data)
        assert is_youtube_objects(data / "v1")
        assert not is_youtube_objects(data / "v1" / "cat")
        assert not is_youtube_objects(tmp_path / "nowhere")
        assert shot_of_frame(frame_name(("a b", "0001", "7"), 12)) == "a b/data/0001/shots/7"
        assert [shot_of_frame(n) for n in ("cat/a", "a/data/1/shots/2/x", "frame1")] == [""] * 3


class TestRefused:
    def test_two_files_of_one_number(self, data):
        write_label(shot(data / "v1", "cat", 1, 1) / "frame_1.png")
        with pytest.raises(DataError, match=r"frame0001\.jpg and frame_1\.png are both frame 1"):
            load_dataset(data)

    def test_a_frame_without_number(self, data):
        write_label(shot(data / "v1", "cat", 1, 1) / "cover.png")
        with pytest.raises(DataError, match=r"'cover\.png' has no number of a frame at its end"):
            load_dataset(data)

    def test_no_frames(self, data):
        with pytest.raises(DataError, match="no frames in folders CLASS/data/VIDEO/shots/SHOT"):
            load_dataset(data / "youtube_masks", layout="youtube_objects")
        with pytest.raises(DataError, match="no frames in folders"):
            load_dataset(data / "v1" / "cat" / "sets", layout="youtube_objects")

    def test_two_sets_of_frames(self, data):
        shutil.copytree(data / "v1", data / "v2")
        with pytest.raises(DataError, match="several folders hold frames: v1, v2;"):
            load_dataset(data)

    def test_flags_that_do_not_go_together(self, data):
        with pytest.raises(ConfigError, match="tags and the layout 'youtube_objects' exclude"):
            load_dataset(data, tags=data / "t.csv", layout="youtube_objects")
        (data / "tags.csv").write_text("image,tags\nv1/cat/data/0001/shots/001/frame0001,cat\n")
        with pytest.raises(ConfigError, match="--frames-per-class is for the layout youtube_obj"):
            load_dataset(data, how=Reading(frames_per_class=3))

    def test_a_list_names_frames(self, data):
        chosen = data / "mine.txt"
        chosen.write_text("cat/data/0001/shots/002/frame0003\n")
        assert len(load_dataset(data, split=chosen)) == 1
        chosen.write_text("cat/data/0001/shots/002/frame0099\n")
        with pytest.raises(TagError):
            load_dataset(data, split=chosen)


class TestMasks:
    def truth(self, data: Path, classes=("cat", "train")) -> GroundTruth:
        return GroundTruth(data / "youtube_masks", classes)

    def test_the_object_is_the_class_of_its_video(self, data):
        truth = self.truth(data)
        assert len(truth.names()) == 4
        labels = truth.labels("train/data/0002/shots/001/frame0004", (6, 8))
        assert labels.tolist() == [[0] * 4 + [2] * 4] * 6

    @pytest.mark.parametrize("size", [(4, 3), (16, 12), (24, 18)])
    def test_masks_of_other_sizes_are_fitted(self, data, size):
        file = shot(data / "youtube_masks", "cat", 2, 1) / "labels" / "00001.png"
        file.with_suffix(".jpg").unlink()
        write_label(file, size)
        truth, photos = self.truth(data), load_dataset(data)
        audit_truth(truth, photos).raise_errors()
        labels = truth.labels("cat/data/0002/shots/001/frame0001", (6, 8))
        assert labels.tolist() == [[0] * 4 + [1] * 4] * 6

    def test_masks_of_other_proportions_are_refused(self, data):
        file = shot(data / "youtube_masks", "cat", 2, 1) / "labels" / "00001.jpg"
        write_label(file, (8, 5))
        with pytest.raises(MaskError, match=r"the mask is 5 x 8 .*, the photo 6 x 8"):
            audit_truth(self.truth(data), load_dataset(data)).raise_errors()
        with pytest.raises(MaskError, match="the mask is 5 x 8"):
            self.truth(data).labels("cat/data/0002/shots/001/frame0001", (6, 8))

    def test_black_is_empty_and_grey_is_no_mask(self, data):
        file = shot(data / "youtube_masks", "cat", 2, 1) / "labels" / "00001.jpg"
        name = "cat/data/0002/shots/001/frame0001"
        write_label(file, value=4)  # what JPEG may leave of black
        assert not self.truth(data).labels(name, (6, 8)).any()
        write_label(file, value=90)
        with pytest.raises(MaskError, match="not a binary mask"):
            self.truth(data).labels(name, (6, 8))
        file.write_bytes(b"no picture")
        with pytest.raises(MaskError):
            audit_truth(self.truth(data), load_dataset(data)).raise_errors()

    def test_classes_that_are_not_learned(self, data):
        assert len(self.truth(data, ("cat",)).names()) == 2
        with pytest.raises(MaskError, match="these are masks of cat, train, which are none"):
            self.truth(data, ("dog",))

    def test_a_tree_without_masks(self, data):
        with pytest.raises(MaskError, match=r"no masks in its folders; .* folder labels"):
            GroundTruth(data / "v1", ("cat", "train"))


def write_picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.new("RGB", (40, 40)).save(path)


def test_version_2_2_is_read_as_folders_of_classes(tmp_path):
    """``CLASS/00000001.jpg``."""
    for number, of_class in enumerate(("aeroplane", "cat", "aeroplane"), start=1):
        write_picture(tmp_path / of_class / f"{number:08d}.jpg")
    data = load_dataset(tmp_path)
    assert data.names == ("aeroplane/00000001", "aeroplane/00000003", "cat/00000002")
    assert data.classes == ("aeroplane", "cat")
    assert data.tags.argmax(1).tolist() == [0, 0, 1]


def test_version_2_3_is_read_as_voc(tmp_path):
    """``YTO/JPEGImages/aeroplane_00001139.jpg``, boxes in ``Annotations``, lists in ``Main``."""
    home = tmp_path / "YTO"
    for number, of_class in ((1139, "aeroplane"), (7, "cat")):
        write_picture(home / "JPEGImages" / f"{of_class}_{number:08d}.jpg")
        (home / "Annotations").mkdir(exist_ok=True)
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        entry = f"<annotation><object><name>{of_class}</name>{box}</object></annotation>"
        (home / "Annotations" / f"{of_class}_{number:08d}.xml").write_text(entry)
    trainval = home / "ImageSets" / "Main" / "trainval.txt"
    trainval.parent.mkdir(parents=True)
    trainval.write_text("cat_00000007\n")
    data = load_dataset(home)
    assert data.names == ("aeroplane_00001139", "cat_00000007")
    assert [data.classes[k] for k in data.tags.argmax(1)] == ["aeroplane", "cat"]
    assert load_dataset(home, split=str(trainval)).names == ("cat_00000007",)
