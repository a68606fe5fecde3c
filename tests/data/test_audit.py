from __future__ import annotations

import errno
import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.data.audit import audit
from tagseg.data.dataset import Dataset
from tagseg.errors import DataError

RNG = np.random.default_rng(2)


def make(folder: Path, n: int = 12) -> Dataset:
    """Photos 0..n-1, each with other content; the even ones are cats, the others dogs."""
    paths = tuple(folder / f"{i}.png" for i in range(n))
    for i, path in enumerate(paths):
        pixels = RNG.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)
        PilImage.fromarray(pixels).save(path)
    tags = np.eye(2, dtype=bool)[np.arange(n) % 2]
    return Dataset(("cat", "dog"), tuple(map(str, range(n))), tags, np.ones(n, bool), paths)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:400])


@pytest.mark.parametrize("workers", [1, 2])
def test_all_in_order(tmp_path, workers):
    data = replace(make(tmp_path), unlisted=4)
    seen = []
    found = audit(data, workers=workers, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 12) for i in range(1, 13)]
    assert found.dataset.names == data.names
    assert found.skipped == ()
    assert found.per_class == {"cat": 6, "dog": 6}
    assert found.per_tag_count == {1: 12}
    assert found.sizes == ((40, 50), (46, 50), (51, 50))
    shapes = [list(found.dataset.image(i).shape[:2]) for i in range(len(found.dataset))]
    assert found.dataset.sizes is not None
    assert found.dataset.sizes.tolist() == shapes
    assert (found.negatives, found.unknown, found.unlisted) == (0, 0, 4)
    assert found.duplicates == ()
    assert found.warnings == ("class 'cat' has only 6 photos", "class 'dog' has only 6 photos")


def test_digests_serve_the_fingerprint(tmp_path, monkeypatch):
    data = make(tmp_path)
    before = data.fingerprint()
    found = audit(data)
    monkeypatch.setattr("tagseg.data.dataset.read_bytes", lambda path: pytest.fail("read again"))
    assert data.fingerprint(found.digests) == before


@pytest.mark.parametrize(("code", "skips"), [(errno.EMFILE, False), (errno.EIO, True)])
def test_a_limit_of_the_process_skips_no_photo(tmp_path, monkeypatch, code, skips):
    """Who runs out of open files would else learn from other photos."""
    data, read = make(tmp_path, 120), Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "7.png":
            raise OSError(code, os.strerror(code))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    if skips:
        assert [name for name, _ in audit(data).skipped] == ["7"]
    else:
        with pytest.raises(OSError, match="Too many open files"):
            audit(data)


def test_broken_photos_are_skipped_and_listed(tmp_path):
    data = make(tmp_path)
    cut(tmp_path / "3.png")
    (tmp_path / "5.png").unlink()
    found = audit(data, allow_skipped=0.2)
    assert [name for name, _ in found.skipped] == ["3", "5"]
    assert "cut short or damaged" in found.skipped[0][1]
    assert found.skipped[1][1] == "the file does not exist"
    assert found.dataset.names == tuple(n for n in data.names if n not in "35")
    assert found.per_class == {"cat": 6, "dog": 4}


def test_too_many_broken_photos_stop_the_run(tmp_path):
    data = make(tmp_path)
    for i in (3, 4, 5, 6):
        (tmp_path / f"{i}.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        audit(data)
    assert str(caught.value) == (
        "4 of 12 photos cannot be used: 3 (the file is empty), 4 (the file is empty), "
        "5 (the file is empty); mend or remove them, or go on without them: --allow-skipped 0.34"
    )
    assert len(audit(data, allow_skipped=0.34).dataset) == 8


def test_exactly_one_percent_is_allowed(tmp_path):
    image = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = Dataset.from_arrays([image] * 100, [["cat"]] * 100, ["cat"])
    one = replace(data, sources=(tmp_path / "none.png", *data.sources[1:]))
    assert len(audit(one).dataset) == 99
    two = replace(data, sources=(tmp_path / "none.png",) * 2 + data.sources[2:])
    with pytest.raises(DataError, match="2 of 100 photos cannot be used"):
        audit(two)


def test_nothing_left(tmp_path):
    data = replace(make(tmp_path, 2), max_pixels=10)
    with pytest.raises(DataError, match=r"2 of 2 photos .* mend or remove them$"):
        audit(data, allow_skipped=1)
    with pytest.raises(DataError, match="the dataset has no photos"):
        audit(data.subset([]))


def test_duplicates(tmp_path):
    data = make(tmp_path)
    for copy, original in ((4, 2), (5, 2), (9, 7)):
        (tmp_path / f"{copy}.png").write_bytes((tmp_path / f"{original}.png").read_bytes())
    found = audit(data, val=["7"])
    assert found.duplicates == (("2", "4", "5"), ("7", "9"))
    assert "the same photo 3 times: 2, 4, 5; with different tags" in found.warnings
    text = "the same photo 2 times: 7, 9; both in training and in validation"
    assert text in found.warnings


def test_odd_data_in_plain_words():
    small = np.zeros((31, 40, 3), np.uint8)
    images = [RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(19)]
    tags = [["cat"]] * 17 + [["cat", "Cat"], ["cat"], []]
    data = Dataset.from_arrays([*images, small], tags, ["cat", "Cat", "cow"])
    known = data.known.copy()
    known[19] = False
    found = audit(replace(data, known=known))
    assert found.warnings == (
        "class 'cat' is in 95 % of all photos; little tells it from background",
        "class 'Cat' has only 1 photo",
        "class 'cow' has no photos",
        "classes 'cat' and 'Cat' differ in capitals only",
        "1 photo is (000019) less than 32 pixels high or wide",
    )
    assert found.per_tag_count == {0: 1, 1: 18, 2: 1}
    assert (found.negatives, found.unknown) == (0, 1)


def test_report(tmp_path):
    data = make(tmp_path)
    cut(tmp_path / "3.png")
    found = audit(data, allow_skipped=0.1)
    told = json.loads(json.dumps(found.to_dict()))
    assert told["photos"] == 11
    assert told["skipped"][0]["name"] == "3"
    assert told["sizes"] == {"min": [40, 50], "median": [46, 50], "max": [51, 50]}
    lines = found.lines()
    assert lines[0] == "11 photos, 2 classes"
    assert "photos per class: cat 6, dog 5" in lines
    assert any(line.startswith("  3: the PNG file is cut short") for line in lines)
    assert lines[-1] == "warning: class 'dog' has only 5 photos"


def test_odd_metadata_warn_nobody_not_even_from_threads(tmp_path):
    data = make(tmp_path, 6)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\xff\0\0\0\xff\0\0\0\0\0\0\0"
    picture = PilImage.open(tmp_path / "0.png")
    for path in data.sources:
        picture.save(path, "JPEG", exif=exif)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(audit(data, workers=2).dataset) == 6
    assert caught == []


class TestTrainingAndValidationApart:
    def make(self, tags: list[list[str]]) -> Dataset:
        images = [RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in tags]
        return Dataset.from_arrays(images, tags, ["cat", "dog"], [f"{i}" for i in range(len(tags))])

    def test_a_class_in_validation_photos_only(self):
        found = audit(
            self.make([["cat"]] * 20 + [["dog"]] * 12), val=[str(i) for i in range(18, 32)]
        )
        assert found.train_per_class == {"cat": 18, "dog": 0}
        assert found.val_per_class == {"cat": 2, "dog": 12}
        assert found.warnings == (
            "class 'dog' has no training photos: all 12 are for validation; it cannot be learned",
        )
        assert found.lines()[:4] == [
            "32 photos, 2 classes",
            "photos per class: cat 20, dog 12",
            "train: 18 photos: cat 18, dog 0",
            "val: 14 photos: cat 2, dog 12",
        ]
        told = found.to_dict()
        assert told["training_photos_per_class"] == {"cat": 18, "dog": 0}
        assert told["validation_photos_per_class"] == {"cat": 2, "dog": 12}
        assert found.first_words()[-1].startswith("warning: class 'dog' has no training photos")

    def test_a_class_that_is_never_scored(self):
        found = audit(self.make([["cat"], ["dog"]] * 15), val=["0", "2"])
        assert found.notes == ("no validation photo has dog",)
        assert found.warnings == ()

    def test_few_training_photos(self):
        found = audit(
            self.make([["cat"]] * 20 + [["dog"]] * 12), val=[str(i) for i in range(10, 27)]
        )
        assert found.warnings == ("class 'dog' has only 5 photos to train on",)

    def test_validation_photos_without_tags_say_nothing_of_classes(self):
        data = self.make([["cat"], ["dog"]] * 12 + [[], []])
        known = np.ones(26, bool)
        known[24:] = False
        assert audit(replace(data, known=known), val=["24", "25"]).notes == ()

    def test_skipped_photos_do_not_count(self, tmp_path):
        data = make(tmp_path)
        (tmp_path / "3.png").unlink()
        (tmp_path / "4.png").write_bytes(b"")
        found = audit(data, allow_skipped=0.2, val=["3", "4", "5"])
        assert found.val == 1
        assert found.val_per_class == {"cat": 0, "dog": 1}
        assert found.first_words()[4] == (
            "skipped: 2 photos: 3 (the file does not exist), 4 (the file is empty)"
        )


def test_animations_are_counted(tmp_path):
    data = make(tmp_path)
    frames = [PilImage.new("RGB", (50, 40), colour) for colour in ("red", "blue")]
    for name, form in (("2", "GIF"), ("5", "TIFF")):
        frames[0].save(tmp_path / f"{name}.png", form, save_all=True, append_images=frames[1:])
    found = audit(data)
    note = "2 photos are animated or of several pages: the first picture counts"
    assert found.notes == (note,)
    assert f"note: {note}" in found.lines()
    assert found.to_dict()["photos_with_more_pictures"] == 2


def test_the_record_does_not_grow_with_the_photos() -> None:
    images = [np.full((8, 8, 3), i % 250, np.uint8) for i in range(5000)]
    some = Dataset.from_arrays(images, np.ones((5000, 1), bool), ["a"])
    told = audit(some).to_dict()
    assert len(told["duplicates"]) == 250
    assert {len(group) for group in told["duplicates"]} == {20}
    pairs = [np.full((8, 8, 3), (i // 2 % 250, i // 500, 0), np.uint8) for i in range(2400)]
    many = audit(Dataset.from_arrays(pairs, np.ones((2400, 1), bool), ["a"])).to_dict()
    assert (len(many["duplicates"]), many["duplicates_in_all"]) == (1000, 1200)


def test_many_duplicates_are_summed_up():
    images = [np.full((40, 40, 3), i // 2, np.uint8) for i in range(60)]
    tags = [["cat"] if i != 50 else ["dog"] for i in range(60)]
    data = Dataset.from_arrays(images, tags, ["cat", "dog"])
    found = audit(data, val=["000001"])
    assert len(found.duplicates) == 30
    lines = [text for text in found.warnings if "time" in text]
    assert len(lines) == 11
    assert lines[0].endswith("000000, 000001; both in training and in validation")
    assert lines[1] == "the same photo 2 times: 000050, 000051; with different tags"
    assert lines[-1] == (
        "and 20 more photos several times, 0 of them with different tags or in training and "
        "validation both; 60 files in all"
    )


def test_processes_find_what_threads_find(tmp_path, monkeypatch):
    data = make(tmp_path, 20)
    cut(tmp_path / "17.png")
    PilImage.fromarray(np.full((40, 40), 255, np.uint16)).save(tmp_path / "18.png")
    threads = audit(data, allow_skipped=0.1, workers=2)
    monkeypatch.setattr("tagseg.data.audit._MANY_PHOTOS", 1)
    monkeypatch.setattr("tagseg.data.audit._MANY_WORKERS", 2)
    processes = audit(data, allow_skipped=0.1, workers=2)
    assert processes.to_dict() == threads.to_dict()
    assert processes.dataset.white == 255
    assert processes.dataset.fingerprint(processes.digests) == threads.dataset.fingerprint()


def test_marks_are_counted_where_there_are_any(tmp_path):
    data = make(tmp_path)
    plain = audit(data)
    assert not any("not known" in line for line in (*plain.lines(), *plain.first_words()))
    assert not {"unsure", "absent"} & plain.to_dict().keys()
    unsure, absent = np.zeros_like(data.tags), np.zeros_like(data.tags)
    unsure[:3][~data.tags[:3]] = True
    absent[5][~data.tags[5]] = True
    found = audit(replace(data, unsure=unsure, absent=absent))
    line = "said of classes in photos: 3 not known, 1 surely absent"
    assert line in found.lines()
    assert line in found.first_words()
    assert (found.to_dict()["unsure"], found.to_dict()["absent"]) == (3, 1)
    assert found.dataset.unsure is not None
