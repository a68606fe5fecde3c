"""All masks are looked at before anything long: what cannot be used, what looks odd, the fix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.data.dataset import Dataset
from tagseg.data.masks import voc_palette, write_mask
from tagseg.data.orientation import turned
from tagseg.errors import MaskError
from tagseg.evaluate import truth_audit
from tagseg.evaluate.masks import evaluate_masks
from tagseg.evaluate.truth_audit import TruthAudit, audit_truth, truth_for, truth_of_masks
from tagseg.formats.lists.class_lists import read_class_list
from tagseg.formats.masks.ground_truth import GroundTruth, MaskRules

SHAPE = (24, 36)
CLASSES = ("cat", "dog")
EIGHT = [f"a{i}" for i in range(8)]


def drawn(label: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """A mask of one object, in no way symmetric."""
    mask = np.zeros(shape, np.uint8)
    mask[3:9, 4:20] = label
    mask[9:14, 4:7] = label
    return mask


def save(path: Path, values: np.ndarray, palette: list | None = None, **how: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = PilImage.fromarray(values)
    if palette is not None:
        picture.putpalette([int(v) for colour in palette for v in colour])
    picture.save(path, **how)
    return path


def dataset(
    names: list[str] = EIGHT, classes: tuple[str, ...] = CLASSES, known: bool = True
) -> Dataset:
    """Photos in memory; every other one is tagged with the second class."""
    tags = np.zeros((len(names), len(classes)), bool)
    for i in range(len(names)):
        tags[i, i % len(classes)] = True
    images = tuple(np.zeros((*SHAPE, 3), np.uint8) for _ in names)
    return Dataset(classes, tuple(names), tags, np.full(len(names), known), images)


def labels_of(photos: Dataset) -> list[int]:
    return [int(row.argmax()) + 1 for row in photos.tags]


def write(folder: Path, photos: Dataset, paint=lambda mask: mask, palette=None) -> Path:
    for name, label in zip(photos.names, labels_of(photos), strict=True):
        save(folder / f"{name}.png", paint(drawn(label)), palette)
    return folder


def look(folder: Path, photos: Dataset, **rules: object) -> TruthAudit:
    return audit_truth(GroundTruth(folder, photos.classes, rules=MaskRules(**rules)), photos)


def is_right(found: TruthAudit, photos: Dataset) -> bool:
    masks = (found.truth.labels(name, SHAPE) for name in photos.names)
    pairs = zip(masks, labels_of(photos), strict=True)
    return not found.errors and all(np.array_equal(mask, drawn(label)) for mask, label in pairs)


def line(found: TruthAudit) -> str:
    with pytest.raises(MaskError) as caught:
        found.raise_errors()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_nothing_to_say(tmp_path):
    photos = dataset()
    found = look(write(tmp_path, photos), photos)
    assert is_right(found, photos)
    assert (found.notes, found.warnings) == ((), ())
    assert (found.photos, found.masks, found.unused) == (8, 8, 0)
    assert found.per_class == {"cat": 4, "dog": 4}
    assert found.lines()[0].startswith("ground truth: 8 of 8 photos have a mask")
    assert found.to_dict()["masks_per_class"] == {"cat": 4, "dog": 4}


def test_masks_without_photos_and_photos_without_masks(tmp_path):
    write(tmp_path, dataset())
    found = look(tmp_path, dataset(["a0", "a1", "b"]))
    assert (found.photos, found.masks, found.unused) == (3, 2, 6)


def test_no_photo_at_all(tmp_path):
    write(tmp_path, dataset())
    with pytest.raises(MaskError, match="no photo has ground truth; name the masks as the photos"):
        look(tmp_path, dataset(["x", "y"]))


class TestValues:
    def test_numbers_of_no_class_are_counted_over_all_masks(self, tmp_path):
        photos = dataset()
        write(tmp_path, photos)
        save(tmp_path / "a3.png", drawn(7))
        save(tmp_path / "a5.png", drawn(7) + np.uint8(90) * (drawn(1) == 0))
        found = line(look(tmp_path, photos))
        start = f"{tmp_path / 'a3.png'}: holds class id 7, but there are 2 classes; check the class"
        assert found.startswith(start)
        assert "such values are in 2 masks: 7 in 2, 90 in 1" in found

    @pytest.mark.parametrize(
        ("scale", "said"), [(127, "127, 254"), (100, "100, 200"), (85, "85, 170")]
    )
    def test_scaled_numbers(self, tmp_path, scale, said):
        photos = dataset()
        found = line(look(write(tmp_path / "m", photos, lambda m: m * np.uint8(scale)), photos))
        assert f"if {said} are the classes in their order, write '{scale}: NAME'" in found
        (tmp_path / "c.txt").write_text(f"{scale}: cat\n{2 * scale}: dog\n")
        legend = read_class_list(tmp_path / "c.txt").legend()
        truth = GroundTruth(tmp_path / "m", CLASSES, legend=legend)
        assert is_right(audit_truth(truth, photos), photos)

    def test_smoothed(self, tmp_path):
        photos = dataset(classes=("cat", "dog", "cow"))
        paint = lambda m: np.asarray(  # noqa: E731
            PilImage.fromarray(m * np.uint8(80))
            .resize((9, 7), PilImage.Resampling.BILINEAR)
            .resize(SHAPE[::-1], PilImage.Resampling.BICUBIC)
        )
        assert "smoothing: resize masks with the nearest pixel" in line(
            look(write(tmp_path, photos, paint), photos)
        )

    @pytest.mark.parametrize(
        "kind", ["cut", "empty", "no picture", "JPEG", "16 bit", "see-through"]
    )
    def test_files_that_cannot_be_used(self, tmp_path, kind):
        photos = dataset()
        path = write(tmp_path, photos) / "a6.png"
        if kind in ("cut", "empty", "no picture"):
            data = path.read_bytes()
            path.write_bytes({"cut": data[:-9], "empty": b"", "no picture": b"mask"}[kind])
        elif kind == "JPEG":
            save(path, drawn(1), format="JPEG")
        elif kind == "16 bit":
            save(path, drawn(1).astype(np.uint16) * 300)
        else:
            save(path, np.zeros((*SHAPE, 4), np.uint8))
        found = look(tmp_path, photos)
        assert len(found.errors) == 1
        assert line(found).startswith(f"{path}: ")

    def test_several_errors_are_told_of(self, tmp_path):
        photos = dataset()
        write(tmp_path, photos)
        (tmp_path / "a1.png").write_bytes(b"")
        save(tmp_path / "a2.png", drawn(3))
        found = look(tmp_path, photos)
        assert len([text for text in found.lines() if text.startswith("error: ")]) == 2
        assert line(found).endswith("(1 more: tagseg check --ground-truth lists all)")

    def test_vocs_numbers_for_some_of_its_classes(self, tmp_path):
        photos = dataset()
        for values in (np.array([0, 8, 12], np.uint8), voc_palette()[[0, 8, 12]]):
            found = line(look(write(tmp_path, photos, values.__getitem__), photos))
            assert "holds class id 8, but there are 2 classes" in found
            assert "write lines '8: cat' and '12: dog' into the class list" in found


PAINTS = {
    "grey": lambda m: (m > 0) * np.uint8(255),
    "RGB": lambda m: np.repeat((m > 0)[..., None] * np.uint8(255), 3, axis=2),
    "RGBA": lambda m: np.where(np.arange(4) == 3, 255, (m > 0)[..., None] * 255).astype(np.uint8),
}


class TestBlackAndWhite:
    """255 does not count: in masks of 0 and 255 alone it surely is the object."""

    @pytest.mark.parametrize("kind", PAINTS)
    def test_one_class(self, tmp_path, kind):
        photos = dataset(classes=("cat",))
        folder = write(tmp_path / "m", photos, PAINTS[kind])
        found = line(look(folder, photos))
        assert found.startswith(f"{folder}: its 8 masks hold nothing but 0 and 255")
        assert "write the line '255: cat' into the class list (--classes FILE)" in found
        (tmp_path / "classes.txt").write_text("255: cat\n")
        legend = read_class_list(tmp_path / "classes.txt").legend()
        assert is_right(audit_truth(GroundTruth(folder, ("cat",), legend=legend), photos), photos)

    @pytest.mark.parametrize("kind", PAINTS)
    def test_several_classes(self, tmp_path, kind):
        photos = dataset()
        found = line(look(write(tmp_path, photos, PAINTS[kind]), photos))
        assert "no class of 2 can be told; save masks of class numbers" in found

    def test_arrays(self):
        photos = dataset(classes=("cat",))
        truth = GroundTruth({n: PAINTS["grey"](drawn(1)) for n in EIGHT}, ("cat",))
        assert "its 8 masks hold nothing but 0 and 255" in line(audit_truth(truth, photos))

    def test_unknown_tags(self, tmp_path):
        photos = dataset(classes=("cat",), known=False)
        assert line(look(write(tmp_path, photos, PAINTS["grey"]), photos))

    def test_what_255_may_well_mean(self, tmp_path):
        photos = dataset()
        void = np.where(drawn(1) > 0, 255, 0).astype(np.uint8)
        (tmp_path / "c").mkdir()
        for name in EIGHT:  # negatives, with pixels that do not count
            save(tmp_path / "a" / f"{name}.png", void)
            save(tmp_path / "b" / f"{name}.png", np.full(SHAPE, 255, np.uint8))
            write_mask(tmp_path / "c" / f"{name}.png", void)
        nothing = Dataset(CLASSES, photos.names, photos.tags & False, photos.known, photos.sources)
        assert not look(tmp_path / "a", nothing).errors
        assert not look(tmp_path / "b", photos).errors
        assert not look(tmp_path / "c", photos).errors  # VOC's own colour of 255, not white

    def test_one_bit_is_a_class(self, tmp_path):
        photos = dataset(classes=("cat",))
        assert is_right(look(write(tmp_path, photos, lambda m: m > 0), photos), photos)


class TestPalettes:
    VOC = voc_palette().tolist()

    def test_in_another_order(self, tmp_path):
        photos = dataset()
        order = np.array([0, 2, 1], np.uint8)
        folder = write(tmp_path, photos, order.__getitem__, [self.VOC[i] for i in order])
        found = look(folder, photos)
        assert is_right(found, photos)
        assert found.notes[0].startswith("8 masks are read by the colours of their palette")
        assert "(128, 0, 0) of cat" in found.notes[0]

    def test_each_file_in_an_order_of_its_own(self, tmp_path):
        photos = dataset()
        for name, label in zip(photos.names, labels_of(photos), strict=True):
            rgb = voc_palette()[drawn(label)]
            picture = PilImage.fromarray(rgb).quantize(2 + int(name[1]))
            picture.save(tmp_path / f"{name}.png")
        assert is_right(look(tmp_path, photos), photos)

    def test_tags_speak_for_the_numbers(self, tmp_path):
        """A tool's palette with VOC's green and red the other way round: two readings."""
        photos = dataset()
        folder = write(tmp_path, photos, palette=[self.VOC[i] for i in (0, 2, 1)])
        assert (
            "the tags speak for the numbers (so it is in 8 masks); say what counts: --masks-by"
            in (line(look(folder, photos)))
        )
        assert is_right(look(folder, photos, by="number"), photos)

    def test_own_colours_beside_them(self, tmp_path):
        photos = dataset()
        folder = write(tmp_path, photos, palette=[self.VOC[i] for i in (0, 2, 1)])
        save(folder / "a0.png", drawn(1), [(0, 0, 0), (255, 0, 255)])
        assert "the palette has colours of its own, while" in line(look(folder, photos))

    def test_own_colours_in_changing_order(self, tmp_path):
        photos = dataset()
        own = [(0, 0, 0), (48, 112, 32), (176, 112, 32)]
        write(tmp_path / "m", photos, palette=own)
        save(
            tmp_path / "m" / "a1.png",
            np.array([0, 0, 1])[drawn(2)].astype(np.uint8),
            [own[0], own[2]],
        )
        said = line(look(tmp_path / "m", photos))
        assert "a2" not in said
        assert "colour (176, 112, 32) has number 2, and number 1 in" in said
        (tmp_path / "colours.csv").write_text("name,r,g,b\ncat,48,112,32\ndog,176,112,32\n")
        assert is_right(look(tmp_path / "m", photos, colours=tmp_path / "colours.csv"), photos)

    def test_nearly_vocs_colours(self, tmp_path):
        photos = dataset()
        near = [(0, 1, 0), (1, 127, 0), (127, 0, 2)]
        assert "nearly those of other classes than its numbers (so it is in 8 masks)" in line(
            look(write(tmp_path, photos, palette=near), photos)
        )

    @pytest.mark.parametrize(
        "palette",
        [
            [(i, i, i) for i in range(256)],
            [(120, 120, 120), (180, 120, 120), (6, 230, 230)],
            np.random.default_rng(3).integers(0, 256, (256, 3)).tolist(),
        ],
    )
    def test_palettes_that_say_nothing(self, tmp_path, palette):
        photos = dataset()
        found = look(write(tmp_path, photos, palette=palette), photos)
        assert is_right(found, photos)
        assert not found.notes


LISTS = {
    "labelmap.txt": "# label:color_rgb:parts:actions\ncat:48,112,32::\nbackground:0,0,0::\n"
    "dog:176,112,32::\nbird:1,2,3::\n",
    "class_dict.csv": "name,r,g,b\ndog,176,112,32\ncat,48,112,32\nbird,1,2,3\n",
    "label_colors.txt": "0 0 0 Void\n176 112 32 Dog\n48 112 32 Cat\n1 2 3 bird\n",
}


class TestColours:
    OWN = np.array([(0, 0, 0), (48, 112, 32), (176, 112, 32)], np.uint8)

    @pytest.mark.parametrize("name", LISTS)
    @pytest.mark.parametrize("inside", [True, False])
    def test_a_list_beside_the_masks(self, tmp_path, name, inside):
        photos = dataset()
        folder = write(tmp_path / "SegmentationClass", photos, self.OWN.__getitem__)
        ((folder if inside else tmp_path) / name).write_text(LISTS[name])
        found = look(folder if inside else tmp_path, photos)
        assert is_right(found, photos)
        assert (
            f"{name}: says which colour is which class; bird count as background" in found.notes[0]
        )

    def test_given(self, tmp_path):
        photos = dataset()
        folder = write(tmp_path / "m", photos, self.OWN.__getitem__)
        assert "colour (48, 112, 32) is not of the VOC palette" in line(look(folder, photos))
        for name, text in LISTS.items():
            (tmp_path / name).write_text(text)
            assert is_right(look(folder, photos, colours=tmp_path / name), photos)
        (tmp_path / "names.txt").write_text("cat\ndog\n")
        with pytest.raises(MaskError, match=r"names\.txt: has no colours; write lines such as"):
            look(folder, photos, colours=tmp_path / "names.txt")
        (tmp_path / "cows.csv").write_text("cow,1,2,3\n")
        with pytest.raises(MaskError, match=r"cows\.csv: has none of the classes cat, dog"):
            look(folder, photos, colours=tmp_path / "cows.csv")

    def test_a_list_of_other_classes_merely_lies_there(self, tmp_path):
        photos = dataset()
        write(tmp_path, photos)
        (tmp_path / "labelmap.txt").write_text("cow:1,2,3::\n")
        found = look(tmp_path, photos)
        assert is_right(found, photos)
        assert "labelmap.txt is not used: has none of the classes cat, dog" in found.notes[0]

    def test_roboflow(self, tmp_path):
        photos = dataset(["train/a", "train/b", "valid/c"])
        for name, label in zip(photos.names, labels_of(photos), strict=True):
            save(tmp_path / f"{name}_mask.png", drawn(3 - label))
            list_file = (tmp_path / name).parent / "_classes.csv"
            list_file.write_text("Pixel Value, Class\n0, background\n1, dog\n2, cat\n")
        found = look(tmp_path, photos)
        assert is_right(found, photos)
        assert "in masks 0 background, 1 dog, 2 cat" in found.notes[0]
        assert "3 masks are named x_mask for photo x" in found.notes


class TestExif:
    def photos(self, folder: Path, orientations: list[int], square: bool = False) -> Dataset:
        """Photos on disk that EXIF turns to SHAPE."""
        shape = (30, 30) if square else SHAPE
        sources = []
        for name, orientation in zip(EIGHT, orientations, strict=False):
            exif = PilImage.Exif()
            exif[0x112] = orientation
            stored = shape[::-1] if orientation >= 5 else shape
            values = np.zeros((*stored, 3), np.uint8)
            sources.append(save(folder / f"{name}.jpg", values, exif=exif))
        names = tuple(EIGHT[: len(sources)])
        tags = np.zeros((len(names), 2), bool)
        tags[:, 0] = True
        return Dataset(CLASSES, names, tags, np.ones(len(names), bool), tuple(sources))

    def masks(self, folder: Path, orientations: list[int], stored: bool, shape=SHAPE) -> Path:
        back = {6: 8, 8: 6}
        for name, orientation in zip(EIGHT, orientations, strict=False):
            undo = back.get(orientation, orientation) if stored else 1
            save(folder / f"{name}.png", np.ascontiguousarray(turned(drawn(1, shape), undo)))
        return folder

    @pytest.mark.parametrize("orientations", [[6], [5, 6, 7, 8], [1, 6, 3, 2], [8, 4]])
    def test_sizes_prove_masks_of_stored_pixels(self, tmp_path, orientations):
        photos = self.photos(tmp_path / "p", orientations)
        found = look(self.masks(tmp_path / "m", orientations, stored=True), photos)
        assert is_right(found, photos)
        assert (
            "lie on the stored pixels of photos that EXIF turns, and are turned" in found.notes[0]
        )
        assert not found.warnings
        before = dict(GroundTruth(tmp_path / "m", CLASSES).states())
        after = dict(found.truth.states())
        assert [before[n] == after[n] for n in photos.names] == [o == 1 for o in orientations]

    @pytest.mark.parametrize("orientations", [[6, 8], [5, 1], [7, 3, 2]])
    def test_sizes_prove_masks_of_displayed_photos(self, tmp_path, orientations):
        photos = self.photos(tmp_path / "p", orientations)
        found = look(self.masks(tmp_path / "m", orientations, stored=False), photos)
        assert is_right(found, photos)
        assert (found.notes, found.warnings) == ((), ())

    @pytest.mark.parametrize("orientations", [[3, 3], [2, 1], [4]])
    def test_sizes_do_not_tell(self, tmp_path, orientations):
        photos = self.photos(tmp_path / "p", orientations)
        shown = self.masks(tmp_path / "shown", orientations, stored=False)
        stored = self.masks(tmp_path / "stored", orientations, stored=True)
        count = sum(o != 1 for o in orientations)
        for folder in (shown, stored):
            (warning,) = look(folder, photos).warnings
            assert warning.startswith(
                f"{count} masks are of photos that EXIF turns or mirrors (a0: "
            )
            assert "use --masks-as stored" in warning
        assert is_right(look(shown, photos, lie_on="displayed"), photos)
        assert is_right(look(stored, photos, lie_on="stored"), photos)
        assert not look(stored, photos, lie_on="stored").warnings

    def test_square_photos(self, tmp_path):
        photos = self.photos(tmp_path / "p", [6, 8], square=True)
        folder = self.masks(tmp_path / "m", [6, 8], stored=True, shape=(30, 30))
        assert look(folder, photos).warnings
        truth = look(folder, photos, lie_on="stored").truth
        assert np.array_equal(truth.labels("a0", (30, 30)), drawn(1, (30, 30)))

    def test_the_masks_own_exif(self, tmp_path):
        photos = self.photos(tmp_path / "p", [3])
        exif = PilImage.Exif()
        exif[0x112] = 3
        save(tmp_path / "m" / "a0.png", np.ascontiguousarray(turned(drawn(1), 3)), exif=exif)
        found = look(tmp_path / "m", photos)
        assert is_right(found, photos)
        assert found.notes

    def test_other_sizes(self, tmp_path):
        photos = self.photos(tmp_path / "p", [1, 6, 1])
        folder = self.masks(tmp_path / "m", [1, 6, 1], stored=False)
        save(folder / "a1.png", drawn(1, (30, 30)))
        save(folder / "a2.png", drawn(1, SHAPE[::-1]))
        said = line(look(folder, photos))
        assert said.startswith(
            f"{folder / 'a1.png'}: the mask is 30 x 30 (uint8), the photo 24 x 36"
        )
        assert "2 masks have another size than their photo" in said


class TestTags:
    def test_classes_in_another_order(self, tmp_path):
        photos = dataset()
        (warning,) = look(
            write(tmp_path, photos, np.array([0, 2, 1], np.uint8).__getitem__), photos
        ).warnings
        assert warning.startswith(
            "in 8 of 8 photos the mask holds none of the tags (a0: mask dog, tags"
        )
        assert "4 of 4 photos with 'dog' in the mask are tagged 'cat'" in warning
        assert warning.endswith("are the classes in the order of the masks' numbers?")

    def test_numbers_off_by_one(self, tmp_path):
        photos = dataset(classes=("cat", "dog", "cow"))
        found = look(write(tmp_path, photos, np.array([0, 2, 3, 3], np.uint8).__getitem__), photos)
        assert (
            "class 'cat' is tagged in 3 photos with masks, and no mask holds it" in found.warnings
        )
        assert found.warnings[-1].endswith("are the classes in the order of the masks' numbers?")

    def test_masks_that_count_all_lines(self, tmp_path):
        """cat 0, dog 1, background 2, read as background 0, cat 1, dog 2."""
        photos = dataset()
        found = look(write(tmp_path, photos, np.array([2, 0, 1], np.uint8).__getitem__), photos)
        assert "are the classes in the order of the masks' numbers?" in found.warnings[-1]

    def test_two_of_many_swapped(self, tmp_path):
        photos = dataset([f"a{i}" for i in range(40)], tuple("abcdefgh"))
        swapped = np.array([0, 1, 2, 3, 4, 5, 6, 8, 7], np.uint8)
        (warning,) = look(write(tmp_path, photos, swapped.__getitem__), photos).warnings
        assert "5 of 5 photos with 'g' in the mask are tagged 'h'" in warning

    def test_no_mask_holds_anything(self, tmp_path):
        photos = dataset()
        (warning,) = look(write(tmp_path, photos, lambda m: m * np.uint8(0)), photos).warnings
        assert warning == "no mask holds any class, though 8 of their photos have tags"

    def test_tags_that_are_not_known_say_nothing(self, tmp_path):
        photos = dataset(known=False)
        folder = write(tmp_path, photos, np.array([0, 2, 1], np.uint8).__getitem__)
        assert look(folder, photos).warnings == ()

    def test_more_in_the_mask_than_is_tagged_is_usual(self, tmp_path):
        photos = dataset()
        folder = write(tmp_path, photos)
        both = drawn(1)
        both[18:, 20:] = 2
        save(folder / "a0.png", both)
        assert look(folder, photos).warnings == ()


def test_object_discovery(tmp_path):
    for i in range(3):
        save(tmp_path / "Car" / f"{i}.jpg", np.zeros((*SHAPE, 3), np.uint8))
        save(tmp_path / "Car" / "GroundTruth" / f"{i}.png", (drawn(1) > 0) * np.uint8(255))
    names = [f"Car/{i}" for i in range(3)]
    photos = dataset(names, ("Car",))
    found = look(tmp_path, photos)
    assert (found.errors, found.warnings) == ((), ())
    assert found.per_class == {"Car": 3}


def test_a_target(tmp_path):
    mine, theirs = dataset(["x0", "x1", "x2", "x3"]), dataset(["y0", "y1"], ("dog", "cow"))
    write(tmp_path / "x", mine)
    write(tmp_path / "y", theirs)
    save(tmp_path / "y" / "y0.png", drawn(2))
    truth = GroundTruth(tmp_path / "x", CLASSES).with_target(
        GroundTruth(tmp_path / "y", theirs.classes)
    )
    tags = np.concatenate([mine.tags, [[False, True], [False, False]]])
    names = (*mine.names, "target/y0", "target/y1")
    photos = Dataset(CLASSES, names, tags, np.ones(6, bool), mine.sources + theirs.sources)
    found = audit_truth(truth, photos)
    assert (found.masks, found.errors) == (6, ())
    assert found.per_class == {"cat": 2, "dog": 2}
    save(tmp_path / "y" / "y1.png", drawn(3))
    assert "y1.png: holds class id 3, but there are 2 classes" in line(audit_truth(truth, photos))


def test_a_photo_is_no_mask_of_itself(tmp_path):
    for i in range(2):
        save(
            tmp_path / f"{i}.png",
            np.random.default_rng(i).integers(0, 256, (*SHAPE, 3), dtype=np.uint8),
        )
    save(tmp_path / "0_mask.png", drawn(1))
    names = ("0", "1")
    sources = tuple(tmp_path / f"{name}.png" for name in names)
    photos = Dataset(CLASSES, names, np.eye(2, dtype=bool), np.ones(2, bool), sources)
    found = look(tmp_path, photos)
    assert (found.masks, found.errors) == (1, ())
    assert np.array_equal(found.truth.labels("0", SHAPE), drawn(1))
    truth = truth_for(GroundTruth(tmp_path, CLASSES), photos)
    assert (truth.has("0"), truth.has("1")) == (True, False)


def test_of_predicted_masks(tmp_path):
    photos = dataset()
    write(tmp_path / "m", photos, lambda m: (m > 0) * np.uint8(255))
    write(tmp_path / "p", photos)
    with pytest.raises(MaskError, match="hold nothing but 0 and 255"):
        truth_of_masks(GroundTruth(tmp_path / "m", CLASSES), tmp_path / "p")
    truth, notes = truth_of_masks(GroundTruth(tmp_path / "p", CLASSES), tmp_path / "p", ["a0", "b"])
    assert (truth.has("a0"), notes) == (True, ())
    other = GroundTruth({"z": drawn(1)}, CLASSES)
    assert truth_of_masks(other, tmp_path / "p") == (other, ())


def test_predictions_that_cannot_be_meant_so(tmp_path):
    photos = dataset()
    truth = GroundTruth(write(tmp_path / "t", photos), CLASSES)
    white = write(tmp_path / "w", photos, PAINTS["grey"])
    with pytest.raises(MaskError, match="hold nothing but 0 and 255"):
        truth_of_masks(truth, white)
    near = write(tmp_path / "n", photos, palette=[(0, 1, 0), (1, 127, 0), (127, 0, 2)])
    with pytest.raises(MaskError, match="nearly those of other classes"):
        truth_of_masks(truth, near)
    order, voc = np.array([0, 2, 1], np.uint8), voc_palette()
    swapped = write(tmp_path / "s", photos, order.__getitem__, voc[order].tolist())
    assert truth_of_masks(truth, swapped)[1] == ()
    assert evaluate_masks(swapped, truth, CLASSES).miou == 1


def test_what_was_read_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photos = dataset()
    folder = write(tmp_path / "m", photos)
    assert not look(folder, photos).errors
    assert not (tmp_path / "cache").exists()  # so few are read again
    monkeypatch.setattr(truth_audit, "_WORTH_KEEPING", 0.0)
    before = look(folder, photos)
    with monkeypatch.context() as patch:
        patch.setattr(
            "tagseg.formats.masks.ground_truth.open_mask", lambda path: pytest.fail("read")
        )
        again = look(folder, photos)
    assert again.lines() == before.lines()
    save(folder / "a0.png", drawn(99))
    assert "holds class id 99" in line(look(folder, photos))
