"""Which pictures of a folder are photos: masks, results and what the user excludes are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from photo_trees import mask, masks, photo, photos
from tagseg.data.finding import OUTPUT_MARKER, list_pictures
from tagseg.errors import ConfigError, DataError
from tagseg.formats.folders.exclusion import parse_patterns
from tagseg.formats.folders.photo_files import PhotoFiles, choose_photos, find_photo_files

# Photos, masks and the kind of the masks, of data sets that are laid out so.
TREES = {
    "ultrasound": (
        ["benign/benign (1).png", "benign/benign (2).png", "malignant/malignant (1).png"],
        [
            "benign/benign (1)_mask.png",
            "benign/benign (1)_mask_1.png",
            "benign/benign (2)_mask.png",
            "malignant/malignant (1)_mask.png",
        ],
        "bits",
    ),
    "carvana": (["train/0cd_01.jpg", "train/0cd_02.jpg"], ["train_masks/0cd_01_mask.gif"], "grey"),
    "drive": (
        ["training/images/21_training.tif", "training/images/22_training.tif"],
        ["training/1st_manual/21_manual1.gif", "training/mask/21_training_mask.gif"],
        "grey",
    ),
    "cityscapes": (
        ["leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"],
        [
            "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png",
            "gtFine/train/aachen/aachen_000000_000019_gtFine_color.png",
        ],
        "colours",
    ),
    "roboflow": (["train/p_jpg.rf.0a1.jpg"], ["train/p_jpg.rf.0a1_mask.png"], "ids"),
    "pets": (
        ["images/Abyssinian_1.jpg", "images/beagle_7.jpg"],
        ["annotations/trimaps/Abyssinian_1.png", "annotations/trimaps/beagle_7.png"],
        "ids",
    ),
    "radiography": (
        ["COVID/images/COVID-1.png", "Normal/images/Normal-1.png"],
        ["COVID/masks/COVID-1.png", "Normal/masks/Normal-1.png"],
        "grey",
    ),
    "anomalies": (
        ["bottle/test/good/000.png", "bottle/test/broken/000.png", "bottle/train/good/000.png"],
        ["bottle/ground_truth/broken/000_mask.png"],
        "grey",
    ),
    "camvid": (["train/0001TP_1.png"], ["trainannot/0001TP_1.png"], "ids"),
    "camvid, raw": (["raw/0001TP_1.png"], ["LabeledApproved_full/0001TP_1_L.png"], "colours"),
    "msrc": (["Images/1_1_s.bmp"], ["GroundTruth/1_1_s_GT.bmp"], "colours"),
    "salient objects": (["Imgs/1.jpg", "Imgs/2.jpg"], ["Imgs/1.png", "Imgs/2.png"], "grey"),
    "flowers": (["jpg/image_01.jpg"], ["segmim/segmim_01.png"], "colours"),
    "medical decathlon": (["imagesTr/a.png"], ["labelsTr/a.png"], "ids"),
    "skin": (["x/ISIC_01.jpg"], ["Training_GroundTruth/ISIC_01_segmentation.png"], "grey"),
    "prefix": (["cat/img_1.jpg", "cat/img_2.jpg"], ["cat/mask_1.png", "cat/mask_2.png"], "grey"),
    "whole name": (["cat/a.jpg"], ["cat/a.jpg.png"], "ids"),
    "camel": (["cat/a.jpg"], ["cat/aMask.png"], "grey"),
    "brackets": (["cat/a.jpg"], ["cat/a (mask).png"], "grey"),
    "predicted": (["cat/a.jpg", "b.jpg"], ["out/cat/a.png", "out/b.png"], "voc"),
    "predicted beside": (["cat/a.jpg"], ["cat/a.png"], "voc"),
}


def names_of(paths: list[str]) -> list[str]:
    return sorted(path.rpartition(".")[0] for path in paths)


@pytest.mark.parametrize("tree", TREES)
def test_masks_are_no_photos(tmp_path, tree):
    true, others, kind = TREES[tree]
    photos(tmp_path, *true)
    masks(tmp_path, *others, kind=kind)
    found = find_photo_files(tmp_path)
    assert list(found.photos) == names_of(true)
    assert found.left_out == {"masks": len(others)}
    (note,) = found.notes
    assert note.startswith(f"left out: {len(others)} picture")
    assert "as masks, such as " in note
    assert " beside " in note


def test_jpeg_masks_and_masks_of_another_scale(tmp_path):
    for i in range(3):
        photo(tmp_path / "images" / f"{i}.jpg", (96, 64))
        mask(tmp_path / "masks" / f"{i}.jpg", (96, 64))
        photo(tmp_path / "more" / "images" / f"n{i}.png", (96, 64))
        mask(tmp_path / "more" / "masks" / f"n{i}.png", (48, 32))
    assert find_photo_files(tmp_path).left_out == {"masks": 6}


PHOTOS = {
    "classes of face masks": ["with_mask/0.jpg", "with_mask/1.jpg", "without_mask/0.jpg"],
    "a class called masks": ["masks/a.jpg", "hats/b.jpg"],
    "the same numbers": ["masks/1.png", "masks/2.png", "hats/1.png", "hats/2.png"],
    "photos called so": ["cat/cat_mask.jpg", "cat/seg_1.jpg", "dog/label.jpg", "manual/a.jpg"],
    "frames": ["a/1.png", "a/2.png", "b/1.png", "b/2.png"],
}


@pytest.mark.parametrize("tree", PHOTOS)
def test_photos_that_are_called_as_masks_stay(tmp_path, tree):
    photos(tmp_path, *PHOTOS[tree])
    found = find_photo_files(tmp_path)
    assert list(found.photos) == names_of(PHOTOS[tree])
    assert (found.left_out, found.notes) == ({}, ())


def test_drawings_are_photos_where_all_are_drawings(tmp_path):
    masks(tmp_path, "hats/a.png", "shoes/b.png", "masks/c.png", kind="colours")
    assert len(find_photo_files(tmp_path).photos) == 3


def test_a_photo_beside_another_is_named(tmp_path):
    photos(tmp_path, "cat/a.jpg", "cat/a_mask.jpg")
    found = find_photo_files(tmp_path)
    assert len(found.photos) == 2
    (note,) = found.notes
    assert note == (
        "taken as photos, though called as masks of others: 1 picture, such as cat/a_mask.jpg "
        "beside cat/a.jpg; --exclude '*_mask*' leaves them out"
    )
    assert choose(tmp_path, "*_mask*").left_out == {"excluded by a flag": 1}


def choose(folder: Path, *patterns: str) -> PhotoFiles:
    return choose_photos(list_pictures(folder), parse_patterns(patterns))


UNCLEAR = {
    "no partner": (["images/a.jpg"], ["masks/1.png"], "grey", "masks"),
    "soft": (["a.jpg"], ["a_mask.png"], "soft", "*_mask*"),
    "another shape": (["a.jpg"], ["a_seg.png"], "square", "*_seg*"),
    "grey, by its place alone": (["cat/a.jpg"], ["new/cat/a.png"], "grey", "new/cat/*.png"),
}


@pytest.mark.parametrize("tree", UNCLEAR)
def test_both_readings_and_the_flag(tmp_path, tree):
    true, others, kind, pattern = UNCLEAR[tree]
    photos(tmp_path, *true)
    for other in others:
        mask(tmp_path / other, (20, 20) if kind == "square" else (32, 24), kind=kind)
    with pytest.raises(DataError, match="may be masks or photos, such as") as caught:
        find_photo_files(tmp_path)
    assert f"--exclude '{pattern}', or keep them with --exclude '!{pattern}'" in str(caught.value)
    assert list(choose(tmp_path, pattern).photos) == names_of(true)
    kept = choose(tmp_path, f"!{pattern}")
    assert list(kept.photos) == names_of(true + others)
    assert kept.doubt is None


@pytest.mark.parametrize("other", ["overlays/cat/a.jpg", "cat/a_overlay.jpg", "new/cat/a.jpg"])
def test_photos_with_masks_over_them_are_unclear(tmp_path, other):
    photos(tmp_path, "cat/a.jpg", "cat/b.jpg", other, other.replace("/a", "/b"))
    with pytest.raises(DataError, match="may be"):
        find_photo_files(tmp_path)


def test_damaged_pictures_do_not_count(tmp_path):
    photos(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    masks(tmp_path, "a_mask.png", "b_mask.png", "c_mask.png")
    (tmp_path / "b_mask.png").write_bytes(b"no")
    assert find_photo_files(tmp_path).left_out == {"masks": 3}


def test_a_mixed_group_is_looked_at_one_by_one(tmp_path):
    for i in range(30):
        photo(tmp_path / f"{i}.jpg")
        mask(tmp_path / f"{i}_mask.png") if i % 5 else photo(tmp_path / f"{i}_mask.png")
    found = find_photo_files(tmp_path)
    assert found.left_out == {"masks": 24}
    assert "6 pictures, such as 0_mask.png" in found.notes[1]


def test_two_photos_of_one_name_are_an_error(tmp_path):
    photos(tmp_path, "cat/a.jpg", "cat/a.png")
    with pytest.raises(DataError, match=r"a\.jpg and a\.png have the same name; rename one"):
        find_photo_files(tmp_path)


class TestOutput:
    def test_runs_and_predictions_are_left_out(self, tmp_path):
        photos(tmp_path, "cat/a.jpg", "out/cat/a.png", "run/stages/07-masks/masks/cat/a.png")
        (tmp_path / "out" / OUTPUT_MARKER).write_text("{}")
        (tmp_path / "run" / "workspace.json").write_text("{}")
        found = find_photo_files(tmp_path)
        assert list(found.photos) == ["cat/a"]
        assert found.notes == (
            "left out: 1 picture in out, which tagseg wrote",
            "left out: 1 picture in run, which tagseg wrote",
        )

    def test_a_folder_that_tagseg_wrote(self, tmp_path):
        photos(tmp_path, "a.jpg")
        (tmp_path / OUTPUT_MARKER).touch()
        with pytest.raises(DataError, match="its pictures are results, no photos; give the folder"):
            find_photo_files(tmp_path)

    def test_files_of_such_names_alone_do_not_count(self, tmp_path):
        photos(tmp_path, "cat/a.jpg", "dog/stages/a.jpg")
        (tmp_path / "cat" / "workspace.json").touch()
        assert len(find_photo_files(tmp_path).photos) == 2


def test_folders_of_the_system(tmp_path):
    others = ["__MACOSX/cat/a.jpg", "cat/@eaDir/a.jpg/thumb.jpg", "cat/.ipynb_checkpoints/a.jpg"]
    photos(tmp_path, "cat/a.jpg", "cat/._a.jpg", ".git/objects/a.jpg", *others)
    found = find_photo_files(tmp_path)
    assert list(found.photos) == ["cat/a"]
    assert found.left_out == {"hidden or of the system": 4}


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "left"),
        [
            ("*_bad.jpg", ["dog/a", "dog/old/a", "top"]),
            ("old", ["cat/a_bad", "dog/a", "top"]),
            ("dog/old/", ["cat/a_bad", "dog/a", "top"]),
            ("dog/*", ["cat/a_bad", "top"]),
            ("./dog", ["cat/a_bad", "top"]),
            ("?og", ["cat/a_bad", "top"]),
            ("top.jpg", ["cat/a_bad", "dog/a", "dog/old/a"]),
        ],
    )
    def test_what_they_match(self, tmp_path, pattern, left):
        photos(tmp_path, "cat/a_bad.jpg", "dog/a.jpg", "dog/old/a.jpg", "top.jpg")
        found = choose(tmp_path, pattern)
        assert list(found.photos) == left
        assert found.notes[0].endswith("excluded by a flag")

    def test_one_that_matches_nothing_is_named(self, tmp_path):
        photos(tmp_path, "a.jpg")
        assert choose(tmp_path, "x", "!y").notes == (
            "--exclude 'x' matches no picture",
            "--exclude '!y' matches no picture",
        )

    def test_an_empty_one(self):
        with pytest.raises(ConfigError, match="a pattern of exclude has 20000 letters; give some"):
            parse_patterns(["masks", "[" * 20_000])
        with pytest.raises(ConfigError, match="a pattern of exclude is empty"):
            parse_patterns(["!"])
