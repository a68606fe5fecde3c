from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from tagseg.errors import DataError, ImageError, ShapeError, TagsegError
from tagseg.formats.boxes import BoxedPhoto, BoxSet, average_box, read_boxes

HEADER = "image,left,top,right,bottom"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos a, b (40 x 30) and sub/c (20 x 10)."""
    (tmp_path / "sub").mkdir()
    for name, size in (("a.jpg", (40, 30)), ("b.png", (40, 30)), ("sub/c.jpg", (20, 10))):
        PilImage.new("RGB", size, (90, 120, 60)).save(tmp_path / name)
    return tmp_path


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def boxes_of(found: BoxSet) -> dict[str, list[list[list[float]]]]:
    return {photo.name: [boxes.tolist() for boxes in photo.objects] for photo in found.photos}


def message(file: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_boxes(file, **settings)
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(str(file.parent) + "/", "").replace(str(file.parent), ".")


# MSRA

MSRA = """2
a.jpg
40 30
1 2 11 12; 3 2 11 14;  2 5 14 16;

sub\\c.jpg
20 10
0 0 8 9;
"""


def test_msra_boxes_of_a_photo_are_of_one_object(folder: Path) -> None:
    found = read_boxes(written(folder, "boxes.txt", MSRA))
    first, second = found.photos
    assert boxes_of(found) == {
        "a": [[[1, 2, 11, 12], [3, 2, 11, 14], [2, 5, 14, 16]]],
        "sub/c": [[[0, 0, 8, 9]]],
    }
    assert (first.path, second.path) == (folder / "a.jpg", folder / "sub" / "c.jpg")
    assert (first.shape, second.shape) == ((30, 40), (10, 20))
    assert first.objects[0].dtype == np.float64
    assert first.classes == found.classes == found.skipped == ()
    assert len(found) == 2


@pytest.mark.parametrize(
    "changed",
    [
        MSRA.replace("\n", "\r\n"),
        "\ufeff" + MSRA,
        "\n" + MSRA.replace("\n\n", "\n"),
        MSRA.replace("\n", "\n\n\n"),
        MSRA.replace("14;  2", "14;\n 2"),  # boxes over two lines
        MSRA.replace("40 30", " 40 30 ").replace("20 10", "20 10;"),
        MSRA.replace("8 9;", "8 9; ;"),
        MSRA.replace("8 9;", "8 9").rstrip(),
    ],
    ids=["crlf", "bom", "dense", "sparse", "wrapped", "spaces", "separators", "unfinished"],
)
def test_msra_layouts_that_mean_the_same(folder: Path, changed: str) -> None:
    expected = read_boxes(written(folder, "boxes.txt", MSRA))
    found = read_boxes(written(folder, "changed.txt", changed))
    assert boxes_of(found) == boxes_of(expected)
    assert found.digest == expected.digest


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("2\n", "two\n", "boxes.txt, line 1: the first line is 'two'"),
        ("2\n", "9" * 5000 + "\n", "boxes.txt, line 1: the first line is '9999"),
        ("2\n", "3\n", "boxes.txt: says 3 photos, but holds 2; check that the file is whole"),
        ("40 30\n", "", "boxes.txt, line 3: no size of 'a.jpg'; write: width height"),
        ("20 10\n0 0 8 9;", "", "boxes.txt, line 6: no size of 'sub\\c.jpg'"),
        ("0 0 8 9;", "", "boxes.txt, line 6: no box of 'sub\\c.jpg'"),
        ("40 30", "40 0", "boxes.txt, line 3: a photo of 40 x 0 pixels"),
        ("3 2 11 14", "3 2 11", "boxes.txt, line 4: a box of 3 numbers"),
        ("3 2 11 14", "3 2 1-1 14", "boxes.txt, line 4: '1-1' is not a number"),
        ("3 2 11 14", "11 2 3 14", "boxes.txt, line 4: the box 11 2 3 14 is empty"),
        ("0 0 8 9", "20 0 28 9", "boxes.txt, line 8: the box 20 0 28 9 is outside the photo"),
        ("sub\\c", "..\\c", "boxes.txt, line 8: '..\\c.jpg' is not a place inside"),
        ("sub\\c.jpg", "\\a.jpg", "boxes.txt, line 8: '\\a.jpg' is not a place inside"),
    ],
)
def test_malformed_msra_files_are_refused_with_the_line(
    folder: Path, old: str, new: str, expected: str
) -> None:
    assert old in MSRA
    file = written(folder, "boxes.txt", MSRA.replace(old, new, 1))
    assert expected in message(file)


def test_a_photo_twice_is_refused(folder: Path) -> None:
    """Its boxes would be averaged although their annotators are counted anew."""
    file = written(folder, "boxes.txt", MSRA.replace("sub\\c.jpg\n20 10", "a.jpg\n40 30"))
    assert "line 8: annotator '1' boxed one object of 'a' twice" in message(file)


# COCO


def coco(**changed: Any) -> dict[str, Any]:
    whole = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 40, "height": 30},
            {"id": 8, "file_name": "b.png", "width": 40, "height": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 8, "bbox": [1, 2, 10, 20], "category_id": 3},
            {"id": 2, "image_id": 8, "bbox": [5, 2.5, 10, 20], "category_id": 4},
            {"id": 3, "image_id": 7, "bbox": [0, 0, 4, 6], "category_id": 3},
            {"id": 4, "image_id": 7, "bbox": [0, 0, 40, 6], "category_id": 4, "iscrowd": 1},
        ],
        "categories": [{"id": 3, "name": "cup"}, {"id": 4, "name": "TV monitor"}],
    }
    return whole | changed


def test_coco_boxes_are_of_one_object_each(folder: Path) -> None:
    found = read_boxes(written(folder, "boxes.json", json.dumps(coco())))
    assert boxes_of(found) == {
        "b": [[[1, 2, 11, 22]], [[5, 2.5, 15, 22.5]]],
        "a": [[[0, 0, 4, 6]]],  # the crowd is left out, with its class
    }
    assert [photo.classes for photo in found.photos] == [("cup", "TV monitor"), ("cup",)]
    assert found.classes == ("TV monitor", "cup")


def test_coco_boxes_of_several_annotators(folder: Path) -> None:
    entries = [
        {"image_id": 7, "bbox": [0, 0, 4, 6], "annotator": 1},
        {"image_id": 7, "bbox": [2, 0, 4, 6], "annotator": 2},
        {"image_id": 8, "bbox": [0, 0, 4, 6], "annotator": 1, "object": 0},
        {"image_id": 8, "bbox": [9, 0, 4, 6], "annotator": 1, "object": 1},
        {"image_id": 8, "bbox": [2, 0, 4, 6], "annotator": 2, "object": 0},
    ]
    whole = coco(annotations=entries)
    del whole["categories"]
    found = read_boxes(written(folder, "boxes.json", json.dumps(whole)))
    assert boxes_of(found) == {
        "a": [[[0, 0, 4, 6], [2, 0, 6, 6]]],
        "b": [[[0, 0, 4, 6], [2, 0, 6, 6]], [[9, 0, 13, 6]]],
    }
    assert found.classes == ()


def test_a_size_that_is_not_stated_is_that_of_the_photo(folder: Path) -> None:
    images = [{"id": 7, "file_name": "sub/c.jpg"}]
    entries = [{"image_id": 7, "bbox": [15, 5, 40, 40]}]
    file = written(folder, "b.json", json.dumps(coco(images=images, annotations=entries)))
    photo = read_boxes(file).photos[0]
    assert photo.shape == (10, 20)
    assert photo.objects[0].tolist() == [[15, 5, 20, 10]]
    (folder / "sub" / "c.jpg").write_bytes(b"no photo")
    with pytest.raises(ImageError):
        read_boxes(file)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"images": None}, "boxes.json: has no list 'images'"),
        ({"images": [5]}, "boxes.json, images[0]: not an entry of a COCO file"),
        ({"images": [{"id": [1]}]}, "boxes.json, images[0]: not an entry of a COCO file"),
        ({"images": []}, "boxes.json, annotations[0]: there is no image 8; add it to images"),
        ({"images": [{"id": 8}]}, "boxes.json, images[0]: has no file_name"),
        ({"annotations": []}, "boxes.json: this file holds no boxes"),
        ({"annotations": [{"image_id": 8}]}, "boxes.json, annotations[0]: has no bbox"),
        ({"annotations": [{"image_id": {}}]}, "boxes.json, annotations[0]: there is no image"),
        (
            {"annotations": [{"image_id": 8, "bbox": [1, 2, 3, None]}]},
            "boxes.json, annotations[0]: 'None' is not a number",
        ),
        (
            {"annotations": [{"image_id": 8, "bbox": [1, 2, 3, float("nan")]}]},
            "boxes.json, annotations[0]: 'nan' is not a number",
        ),
        (
            {"annotations": [{"image_id": 8, "bbox": [1, 2, 0, 3]}]},
            "boxes.json, annotations[0]: the box 1 2 1 5 is empty",
        ),
    ],
)
def test_malformed_coco_files_are_refused(folder: Path, changed: Any, expected: str) -> None:
    assert expected in message(written(folder, "boxes.json", json.dumps(coco(**changed))))


def test_what_is_not_json_is_refused(folder: Path) -> None:
    assert "boxes.json, line 2: not JSON" in message(written(folder, "boxes.json", '{\n"a": ]'))
    assert "boxes.json: not a COCO file" in message(written(folder, "boxes.json", "[1]"))
    assert "boxes.json: not JSON" in message(written(folder, "boxes.json", "[" * 200_000))


# CSV


def test_csv_rows_are_of_one_object_each_unless_they_say_more(folder: Path) -> None:
    plain = written(folder, "1.csv", f"{HEADER}\nb.png,1,2,3,4\na.jpg,0,0,5,5\nb.png,5,6,7,8\n")
    assert boxes_of(read_boxes(plain)) == {
        "b": [[[1, 2, 3, 4]], [[5, 6, 7, 8]]],
        "a": [[[0, 0, 5, 5]]],
    }
    annotators = written(folder, "2.csv", f"{HEADER},annotator\nb.png,1,2,3,4,x\nb.png,5,6,7,8,y\n")
    assert boxes_of(read_boxes(annotators)) == {"b": [[[1, 2, 3, 4], [5, 6, 7, 8]]]}
    objects = f"Object, {HEADER} ,CLASS\nl,b.png,1,2,3,4,cup\nr,b.png,5,6,7,8,\nl,b.png,2,2,3,4,cup"
    found = read_boxes(written(folder, "3.csv", objects))
    assert boxes_of(found) == {"b": [[[1, 2, 3, 4], [2, 2, 3, 4]], [[5, 6, 7, 8]]]}
    assert found.photos[0].classes == ("cup",)


def test_csv_boxes_are_clipped_to_the_decoded_or_the_stated_size(folder: Path) -> None:
    decoded = written(folder, "1.csv", f"{HEADER}\nb.png,-3,-0.5,300,4.25\n")
    assert boxes_of(read_boxes(decoded)) == {"b": [[[0, 0, 40, 4.25]]]}
    stated = written(folder, "2.csv", f"{HEADER},width,height\nb.png,-3,-0.5,300,400,80,60\n")
    found = read_boxes(stated).photos[0]
    assert found.objects[0].tolist() == [[0, 0, 80, 60]]
    assert found.shape == (60, 80)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,left,top,right,botom\n", "boxes.csv, line 1: unknown column 'botom'; did you"),
        ("image,left,top,right\n", "boxes.csv: the first line has no columns 'bottom'"),
        (f"{HEADER},left\n", "boxes.csv: the first line has 2 columns 'left'"),
        (f"{HEADER}\n", "boxes.csv: this file holds no boxes"),
        ("", "boxes.csv: this file of boxes is empty"),
        (" \n\n", "boxes.csv: this file of boxes is empty"),
        (f"{HEADER}\nb.png,1,2,3\n", "boxes.csv, line 2: 4 cells, but the first line has 5"),
        (f"{HEADER}\n,1,2,3,4\n", "boxes.csv, line 2: no image is named"),
        (f"{HEADER}\n\nb.png,1,,3,4\n", "boxes.csv, line 3: '' is not a number"),
        (f"{HEADER}\nb.png,1,2,inf,4\n", "boxes.csv, line 2: 'inf' is not a number"),
        (f"{HEADER}\nb.png,3,2,3,4\n", "boxes.csv, line 2: the box 3 2 3 4 is empty"),
        (f"{HEADER}\nb.png,50,2,60,4\n", "line 2: the box 50 2 60 4 is outside the photo, which"),
        (f'{HEADER}\n"b.png,1,2,3,4\n', "boxes.csv, line 2: not CSV"),
        (f"{HEADER}\n/b.png,1,2,3,4\n", "boxes.csv, line 2: '/b.png' is not a place inside"),
        (f"{HEADER}\na\0b.png,1,2,3,4\n", "boxes.csv, line 2:"),
        (f"{HEADER},annotator\nb.png,1,2,3,4,x\nb.png,1,2,3,4,x\n", "line 3: annotator 'x' boxed"),
        (
            f"{HEADER},width,height\nb.png,1,2,3,4,40,30\nb.png,1,2,3,4,40,31\n",
            "boxes.csv, line 3: another size of 'b'",
        ),
        (f"{HEADER},width,height\nb.png,1,2,3,4,40,3.5\n", "line 2: a photo of 40 x 3.5 pixels"),
        (f"{HEADER}\n".encode() + b"\xff.png,1,2,3,4", "boxes.csv, line 2: not UTF-8 text"),
    ],
)
def test_malformed_csv_files_are_refused_with_the_line(
    folder: Path, text: str | bytes, expected: str
) -> None:
    assert expected in message(written(folder, "boxes.csv", text))


# Formats, places, missing photos


@pytest.mark.parametrize(
    "text", [MSRA, json.dumps(coco()), f"{HEADER}\na.jpg,1,2,3,4\n"], ids=["msra", "coco", "csv"]
)
def test_without_a_known_suffix_the_beginning_tells_the_format(folder: Path, text: str) -> None:
    assert "a" in boxes_of(read_boxes(written(folder, "boxes.labels", text)))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "boxes.txt: cannot be read: No such file" in message(tmp_path / "boxes.txt")
    assert "cannot be read" in message(tmp_path)


def test_names_that_no_file_can_have(folder: Path) -> None:
    whole = coco(images=[{"id": 7, "file_name": "\ud800.jpg", "width": 9, "height": 9}])
    whole["annotations"] = [{"image_id": 7, "bbox": [1, 2, 3, 4]}]
    long = written(folder, "b.txt", f"1\n{'x' * 500}\n40 30\n1 2 3 4;\n")
    assert "1 of 1 annotated photos are not here" in message(long)
    half = written(folder, "b.json", json.dumps(whole))
    assert "b.json, annotations[0]: a name that is not Unicode" in message(half)


def test_photos_in_another_folder_or_in_jpegimages(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    (place / "JPEGImages").mkdir(parents=True)
    (folder / "b.png").rename(place / "JPEGImages" / "b.png")
    file = written(folder, "boxes.csv", f"{HEADER}\nb.png,1,2,3,4\n")
    both = written(folder, "both.csv", f"{HEADER}\nJPEGImages\\b.png,1,2,3,4\n")
    found = [read_boxes(path, place).photos[0] for path in (file, both)]
    assert [photo.name for photo in found] == ["b", "b"]
    assert found[0].path == found[1].path == place / "JPEGImages" / "b.png"
    assert "1 of 1 annotated photos are not here: b" in message(file)


def test_a_few_missing_photos_are_left_out_and_named(folder: Path) -> None:
    def rows(count: int) -> str:
        names = [f"a{i}.jpg" for i in range(count)]
        for name in names:
            (folder / name).touch()
        lines = [f"{name},1,2,3,4,40,30" for name in (*names, "gone.jpg")]
        return "\n".join([f"{HEADER},width,height", *lines])

    found = read_boxes(written(folder, "boxes.csv", rows(99)))
    assert found.skipped == ("gone",)
    assert len(found) == 99
    assert "1 of 99 annotated photos are not here: gone" in message(
        written(folder, "boxes.csv", rows(98))
    )


# Sets


@pytest.fixture
def three(folder: Path) -> BoxSet:
    text = f"{HEADER},class\na.jpg,1,2,3,4,TV monitor\nb.png,1,2,3,4,cup\nsub/c.jpg,1,2,3,4,\n"
    return read_boxes(written(folder, "boxes.csv", text))


@pytest.mark.parametrize("name", ["TV monitor", "tvmonitor", "tv-Monitor", "TV_MONITOR"])
def test_photos_of_target_classes_are_left_out(three: BoxSet, name: str) -> None:
    left = three.without_classes(["dog", name])
    assert [photo.name for photo in left.photos] == ["b", "sub/c"]
    assert left.classes == ("cup",)
    assert len({three.digest, left.digest}) == 2


def test_classes_are_compared_whole(three: BoxSet) -> None:
    assert three.without_classes(["monitor", "cups", ""]).digest == three.digest


def test_photos_are_left_out_by_name(three: BoxSet) -> None:
    left = three.without_photos(["a.jpg", "sub\\c", "nowhere"])
    assert [photo.name for photo in left.photos] == ["b"]


def test_nothing_left_is_an_error(three: BoxSet) -> None:
    with pytest.raises(DataError, match="none of the 3 photos is left; leave out fewer"):
        three.without_photos(["a", "b", "sub/c"])


def test_the_digest_tells_annotations_apart_but_not_places(folder: Path, tmp_path: Path) -> None:
    digest = read_boxes(written(folder, "boxes.txt", MSRA)).digest
    for old, new in (("8 9", "8 8"), ("20 10", "20 11"), ("1 2 11 12; ", "")):
        assert read_boxes(written(folder, "boxes.txt", MSRA.replace(old, new))).digest != digest
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/c.jpg"):
        (folder / name).rename(elsewhere / name)
    assert read_boxes(written(elsewhere, "boxes.txt", MSRA)).digest == digest


def test_a_set_is_a_dataset_of_one_class(three: BoxSet) -> None:
    dataset = three.dataset()
    assert dataset.classes == ("object",)
    assert dataset.names == ("a", "b", "sub/c")
    assert dataset.tags.all()
    assert dataset.image(2).shape == (10, 20, 3)


# Averages


def test_the_average_box_is_the_mean_of_each_edge() -> None:
    found = average_box(np.array([[1.0, 2, 11, 12], [3, 2, 11, 14], [2, 5, 14, 16]]))
    np.testing.assert_allclose(found, [2, 3, 12, 14])
    for wrong in (np.zeros((0, 4)), np.zeros(4), np.zeros((2, 5))):
        with pytest.raises(ShapeError, match="boxes has shape"):
            average_box(wrong)


def test_average_boxes_at_another_size_of_the_photo() -> None:
    objects = (np.array([[0.0, 0, 8, 4], [4, 2, 12, 6]]), np.array([[10.0, 10, 40, 30]]))
    photo = BoxedPhoto("a", Path("a.jpg"), (30, 40), objects)
    np.testing.assert_allclose(photo.boxes_at((30, 40)), [[2, 1, 10, 5], [10, 10, 40, 30]])
    np.testing.assert_allclose(photo.boxes_at((15, 20)), [[1, 0.5, 5, 2.5], [5, 5, 20, 15]])
    np.testing.assert_allclose(photo.boxes_at((5, 6))[1], [1.5, 10 / 6, 6, 5])  # 5 x 6.67, rounded
    with pytest.raises(DataError, match=r"a.jpg: the photo is 30 x 40, but was annotated at 40 x"):
        photo.boxes_at((40, 30))


# Any text

PIECES = st.lists(
    st.sampled_from(
        ["1", "2", "a.jpg", "40 30", "1 2 3 4;", "\n", ";", ",", "nan", "-", "{", '"', "\\", "["]
        + [HEADER, "images", "1e999", "\0", "\r", " ", "a.jpg,1,2,3,4"]
    ),
    max_size=14,
).map("".join)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(text=PIECES | st.text(max_size=40), suffix=st.sampled_from(["txt", "csv", "json", "x"]))
def test_any_text_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str, suffix: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    PilImage.new("RGB", (40, 30)).save(folder / "a.jpg")
    file = folder / f"boxes.{suffix}"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    problem, count = "", 0
    try:
        count = len(read_boxes(file))
    except TagsegError as error:
        problem = str(error)
    assert (count > 0) != (problem != "")
    assert "\n" not in problem


@settings(max_examples=30, derandomize=True, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(*[st.integers(0, 19)] * 2, *[st.integers(20, 30)] * 2),
            min_size=1,
            max_size=4,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_three_formats_hold_the_same(
    tmp_path_factory: pytest.TempPathFactory, photos: list[list[tuple[int, ...]]]
) -> None:
    """One object a photo, several annotators: written in each format, read alike."""
    folder = tmp_path_factory.getbasetemp() / "same"
    folder.mkdir(exist_ok=True)
    msra, rows = [str(len(photos))], [f"{HEADER},annotator,width,height"]
    images, entries = [], []
    for i, boxes in enumerate(photos):
        name = f"p{i}.jpg"
        (folder / name).touch()
        msra += [name, "40 30", ";".join(" ".join(map(str, box)) for box in boxes)]
        images.append({"id": i, "file_name": name, "width": 40, "height": 30})
        for who, (left, top, right, bottom) in enumerate(boxes):
            rows.append(f"{name},{left},{top},{right},{bottom},{who},40,30")
            bbox = [left, top, right - left, bottom - top]
            entries.append({"image_id": i, "bbox": bbox, "annotator": who})
    files = [
        written(folder, "boxes.txt", "\n".join(msra)),
        written(folder, "boxes.csv", "\n".join(rows)),
        written(folder, "boxes.json", json.dumps({"images": images, "annotations": entries})),
    ]
    assert len({read_boxes(file).digest for file in files}) == 1
    assert len(read_boxes(files[0])) == len(photos)
