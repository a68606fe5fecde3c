"""Where masks lie, and which mask is whose photo's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.errors import MaskError
from tagseg.formats.masks.mask_folders import find_truth, list_beside, match_names


class TestNames:
    @pytest.mark.parametrize(
        ("masks", "photos", "said"),
        [
            (["a_mask", "b_mask"], ["a", "b"], "named x_mask for photo x"),
            (["t/a_MASK", "t/b_mask"], ["t/a", "t/b"], "named x_mask for photo x"),
            (["a-label", "b-label"], ["a", "b"], "named x-label for photo x"),
            (["a_gtFine_labelIds"], ["a"], "named x_gtfine_labelids for photo x"),
            (["a_L", "b_L"], ["a", "b"], "named x_l for photo x"),
            (["a.jpg", "b.jpg"], ["a", "b"], "named x.jpg for photo x"),
            (["x/mask_a", "x/mask_b"], ["x/a", "x/b"], "named mask_x for photo x"),
            (["a", "b"], ["train/a", "valid/b"], "in other folders than their photos"),
            (
                ["masks/a", "masks/b"],
                ["images/a", "images/b"],
                "in other folders than their photos",
            ),
            (
                ["labels/a_seg", "labels/b_seg"],
                ["images/a", "images/b"],
                "named x_seg for photo x, in other folders than their photos",
            ),
        ],
    )
    def test_rules(self, masks, photos, said):
        found, how = match_names(masks, photos)
        assert (found, how) == (dict(zip(photos, masks, strict=True)), said)

    def test_plain_names_need_no_word(self):
        assert match_names(["a", "b_mask"], ["a", "b_mask"]) == ({"a": "a", "b_mask": "b_mask"}, "")
        assert match_names(["a", "c"], ["a", "b"]) == ({"a": "a"}, "")
        assert match_names(["a"], ["b"]) == ({}, "")

    def test_photos_and_masks_in_one_folder(self):
        found, said = match_names(["a", "a_mask", "b", "b_mask"], ["a", "b"])
        assert found == {"a": "a_mask", "b": "b_mask"}
        assert said == "named x_mask for photo x"

    def test_a_name_in_two_folders_is_nobodys(self):
        assert match_names(["x/a", "y/a"], ["z/a"]) == ({}, "")
        assert match_names(["a"], ["x/a", "y/a"]) == ({}, "")


class TestFind:
    def save(self, path, values, **how):
        path.parent.mkdir(parents=True, exist_ok=True)
        PilImage.fromarray(values).save(path, **how)

    def test_an_export_in_vocs_layout(self, tmp_path):
        mask = np.zeros((3, 4), np.uint8)
        self.save(tmp_path / "SegmentationClass" / "a.png", mask)
        self.save(tmp_path / "SegmentationObject" / "a.png", mask)
        home, found = find_truth(tmp_path)
        assert (home, list(found)) == (tmp_path / "SegmentationClass", ["a"])

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_jpeg_masks(self, tmp_path, mode):
        drawn = np.zeros((60, 80), np.uint8)
        drawn[10:40, 20:60] = 200
        for i in range(3):
            picture = PilImage.fromarray(drawn).convert(mode)
            picture.save(tmp_path / f"{i}.jpg", quality=90)
        with pytest.raises(MaskError, match="but 3 JPEG files, and JPEG changes class ids; save"):
            find_truth(tmp_path)

    def test_jpeg_photos_are_no_masks(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        self.save(tmp_path / "a.jpg", noise)
        (tmp_path / "b.jpg").write_bytes(b"nothing")
        with pytest.raises(MaskError, match="no masks in this folder; give the folder of masks"):
            find_truth(tmp_path)

    def test_lists(self, tmp_path):
        home = tmp_path / "SegmentationClass"
        (home / "train").mkdir(parents=True)
        (home / "valid").mkdir()
        assert list_beside(home) is None
        for split in ("train", "valid"):
            (home / split / "_classes.csv").write_text("Pixel Value, Class\n1, cat\n")
        assert list_beside(home) == home / "train" / "_classes.csv"
        (home / "valid" / "_classes.csv").write_text("Pixel Value, Class\n1, dog\n")
        with pytest.raises(MaskError, match=r"the files _classes\.csv in its folders differ; give"):
            list_beside(home)
        (tmp_path / "labelmap.txt").write_text("cat:1,2,3::\n")
        assert list_beside(home) == tmp_path / "labelmap.txt"
