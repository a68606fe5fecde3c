from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.errors import ConfigError, DataError, MaskError
from tagseg.formats.folders.object_discovery import class_folders, is_object_discovery
from tagseg.formats.loading import load_dataset
from tagseg.formats.masks.ground_truth import GroundTruth

OBJECT = np.zeros((4, 6), bool)
OBJECT[1:3, 2:5] = True


def write_class(folder: Path, *, masks: bool = True, photos: int = 2) -> None:
    (folder / "GroundTruth").mkdir(parents=True)
    for i in range(photos):
        PilImage.new("RGB", (6, 4), (i, 9, 9)).save(folder / f"{i:04d}.jpg")
        if masks:
            write_binary(folder / "GroundTruth" / f"{i:04d}.png", OBJECT)


def write_binary(path: Path, mask: np.ndarray, object_value: int = 255) -> None:
    PilImage.fromarray(mask.astype(np.uint8) * np.uint8(object_value)).save(path)


@pytest.fixture(params=["", "Data"])
def subset(request, tmp_path) -> Path:
    for name in ("Horse100", "Airplane100", "Car100"):
        write_class(tmp_path / request.param / name)
    return tmp_path


class TestPhotos:
    def test_subset(self, subset):
        data = load_dataset(subset)
        assert data.classes == ("Airplane", "Car", "Horse")
        assert data.names[:3] == ("Airplane100/0000", "Airplane100/0001", "Car100/0000")
        assert np.flatnonzero(data.tags[4]).tolist() == [2]
        assert (len(data), data.tags.sum(), data.known.all()) == (6, 6, True)
        assert data.image(1)[0, 0].tolist() != data.image(0)[0, 0].tolist()

    def test_full_set_with_some_classes(self, tmp_path):
        write_class(tmp_path / "Horse")
        write_class(tmp_path / "Car")
        (tmp_path / "Results").mkdir()
        PilImage.new("RGB", (6, 4)).save(tmp_path / "Results" / "a.png")
        data = load_dataset(tmp_path)
        assert data.classes == ("Car", "Horse")
        assert data.names == ("Car/0000", "Car/0001", "Horse/0000", "Horse/0001")

    def test_both_sets_in_one_folder(self, subset):
        home = next(iter(class_folders(subset))).parent
        write_class(home / "Car", photos=5)
        with pytest.raises(DataError, match="holds the full set and the 100-image subset; choose"):
            load_dataset(subset)
        assert len(load_dataset(subset, layout="object_discovery")) == 5
        assert len(load_dataset(subset, layout="object_discovery_100")) == 6

    def test_lists(self, subset):
        (subset / "some.txt").write_text("Car100/0001.jpg\nHorse100/0000\n")
        assert load_dataset(subset, split="some").names == ("Car100/0001", "Horse100/0000")

    def test_the_set_that_is_not_there(self, subset):
        with pytest.raises(DataError, match="no photos in folders Airplane, Car, Horse; check"):
            load_dataset(subset, layout="object_discovery")

    def test_tags_of_a_file_exclude_it(self, subset):
        with pytest.raises(ConfigError, match="tags and the layout 'object_discovery' exclude"):
            load_dataset(subset, tags=subset / "t.csv", layout="object_discovery")

    def test_what_it_looks_like(self, subset, tmp_path):
        assert is_object_discovery(subset)
        (tmp_path / "mine" / "Car").mkdir(parents=True)
        PilImage.new("RGB", (6, 4)).save(tmp_path / "mine" / "Car" / "a.jpg")
        assert not is_object_discovery(tmp_path / "mine")
        assert load_dataset(tmp_path / "mine").classes == ("Car",)

    def test_a_tag_file_beside_comes_first(self, subset):
        (subset / "tags.csv").write_text("image,tags\n")
        home = next(iter(class_folders(subset))).parent.relative_to(subset)
        (subset / "tags.csv").write_text(f"image,tags\n{home / 'Car100' / '0000'},red;car\n")
        assert load_dataset(subset).classes == ("car", "red")


class TestMasks:
    def test_they_become_the_class_of_their_folder(self, subset):
        data = load_dataset(subset)
        truth = GroundTruth(subset, data.classes)
        assert set(truth.names()) == set(data.names)
        for name, tags in zip(data.names, data.tags, strict=True):
            assert np.array_equal(truth.labels(name, (4, 6)), OBJECT * (1 + np.flatnonzero(tags)))

    @pytest.mark.parametrize(
        "kind", ["bits", "0 and 1", "palette", "colour", "smooth edges", "nothing"]
    )
    def test_kinds_of_files(self, tmp_path, kind):
        write_class(tmp_path / "Car", photos=1)
        path = tmp_path / "Car" / "GroundTruth" / "0000.png"
        white = PilImage.fromarray(OBJECT.astype(np.uint8) * 255)
        smooth = np.where(OBJECT, 200, 90).astype(np.uint8)
        pictures = {
            "bits": white.convert("1"),
            "0 and 1": PilImage.fromarray(OBJECT.astype(np.uint8)),
            "palette": PilImage.fromarray(OBJECT.astype(np.uint8)).convert("P"),
            "colour": white.convert("RGB"),
            "smooth edges": PilImage.fromarray(smooth),
            "nothing": PilImage.new("1", (6, 4)),
        }
        if kind == "palette":
            pictures[kind].putpalette([0, 0, 0, 128, 0, 0])
        pictures[kind].save(path)
        expected = OBJECT * (kind != "nothing") * 2
        truth = GroundTruth(tmp_path, ["Airplane", "Car"])
        assert np.array_equal(truth.labels("Car/0000", (4, 6)), expected)
        assert truth.labels("Car/0000", (4, 6)).dtype == np.uint8

    def test_class_ids_are_refused(self, tmp_path):
        write_class(tmp_path / "Car", photos=1)
        write_binary(tmp_path / "Car" / "GroundTruth" / "0000.png", OBJECT, 3)
        with pytest.raises(MaskError, match=r"0000\.png: holds values up to 3: not a binary mask"):
            GroundTruth(tmp_path, ["Car"]).labels("Car/0000", (4, 6))

    def test_of_another_size_or_broken(self, tmp_path):
        write_class(tmp_path / "Car", photos=1)
        truth = GroundTruth(tmp_path, ["Car"])
        with pytest.raises(MaskError, match="the mask is 4 x 6"):
            truth.labels("Car/0000", (6, 4))
        (tmp_path / "Car" / "GroundTruth" / "0000.png").write_bytes(b"no picture")
        with pytest.raises(MaskError, match=r"0000\.png: not a picture"):
            truth.labels("Car/0000", (4, 6))

    def test_of_no_class(self, subset):
        with pytest.raises(MaskError, match="masks of Airplane, which is none of the classes"):
            GroundTruth(subset, ["dog"])

    def test_without_masks(self, tmp_path):
        write_class(tmp_path / "Car", masks=False)
        with pytest.raises(MaskError, match="no masks in its folders; put them into GroundTruth"):
            GroundTruth(tmp_path, ["Car"])

    def test_the_state_tells_of_the_class(self, tmp_path):
        write_class(tmp_path / "Car", photos=1)
        one = dict(GroundTruth(tmp_path, ["Car"]).states())
        two = dict(GroundTruth(tmp_path, ["Airplane", "Car"]).states())
        assert one.keys() == two.keys() == {"Car/0000"}
        assert one != two
