from __future__ import annotations

from pathlib import Path

import pytest

from tagseg.errors import TagError
from tagseg.formats.tags.tag_rows import Hints, TagFile
from tagseg.formats.tags.tag_tables import read_tag_table


def read(folder: Path, text: str, **hints: object) -> TagFile:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return read_tag_table(path, Hints(**hints))


def tags(said: TagFile) -> list[tuple[str, ...]]:
    return [row.tags for row in said.rows]


@pytest.mark.parametrize(
    ("header", "rows", "meaning"),
    [
        ("filename, cat, dog", ["1, 0", "0, 0", "1, 1"], "1 is present, 0 is not"),
        ("image_id,cat,dog", ["1,-1", "-1,-1", "1,1"], "1 is present, -1 is not"),
        ("image,cat,dog", ["TRUE,False", "False,False", "True,true"], "true is present, false"),
        ("img;split;width;cat;dog", ["train;9;yes;no", "val;3;no;no", "x;3;yes;yes"], "yes is"),
        ("image,cat,dog", ["x,", ",", "X,x"], "x is present, blank is not"),
        (",image,note,cat,dog", None, "1 is present"),
    ],
)
def test_a_column_a_class(tmp_path, header, rows, meaning):
    d = ";" if ";" in header else ","
    if rows is None:
        text = header + "\n0,a.jpg,nice,1,0\n1,b.jpg,blurred one,0,0\n2,c.jpg,,1,1\n"
    else:
        text = "\n".join([header, *(f"{n}.jpg{d}{r}" for n, r in zip("abc", rows, strict=True))])
    said = read(tmp_path, text)
    assert tags(said) == [("cat",), (), ("cat", "dog")]
    assert all(row.complete for row in said.rows)
    assert said.classes == ("cat", "dog")
    assert any(meaning in note and "one column a class: 2 classes" in note for note in said.notes)


def test_numbers_of_other_things_are_no_classes(tmp_path):
    with pytest.raises(TagError, match=r"has no column 'tags'.*'image', 'width', 'height'"):
        read(tmp_path, "image,width,height\na.jpg,1,0\n")
    with pytest.raises(TagError, match="cat, dog hold other numbers than 0 and 1"):
        read(tmp_path, "image,cat,dog\na.jpg,0.3,0.7\n")
    with pytest.raises(TagError, match="has no column 'tags'"):
        read(tmp_path, "image,text\na.jpg,a cat here\nb.jpg,a dog\nc.jpg,no\n")


def test_a_photo_that_nobody_labelled_is_not_empty(tmp_path):
    said = read(tmp_path, "filename, Unlabeled, cat\na, 1, 0\nb, 0, 0\nc, 0, 1\n")
    assert [row.complete for row in said.rows] == [False, True, True]
    assert said.classes == ("cat",)


def test_a_row_a_tag(tmp_path):
    said = read(tmp_path, "filename,class,xmin\na.jpg,cat,1\na.jpg,dog,2\nb.jpg,cat,3\n")
    assert said.merge
    assert tags(said) == [("cat",), ("dog",), ("cat",)]
    assert not read(tmp_path, "image,tags\na.jpg,cat;dog\na.jpg,dog\n").merge


def test_confidences(tmp_path):
    text = "ImageID,Source,LabelName,Confidence\na,v,cat,1\na,v,dog,0\n"
    said = read(tmp_path, text)
    assert [(row.tags, row.absent) for row in said.rows] == [(("cat",), ()), ((), ("dog",))]
    said = read(tmp_path, text + "b,m,dog,0.5\nb,m,cat,0.49\n")
    assert [(row.tags, row.absent) for row in said.rows[2:]] == [(("dog",), ()), ((), ())]
    assert "tags under 0.5 are left out (2 rows)" in said.notes[-1]
    said = read(tmp_path, "image,tags,score\na,cat,17\n")
    assert tags(said) == [("cat",)]
    assert "is not used" in said.notes[-1]


def test_open_images_descriptions(tmp_path):
    text = "ImageID,LabelName,Confidence\na,/m/01yrx,1\nb,/m/0bt9lr,1\n"
    assert "labels without a name: /m/01yrx, /m/0bt9lr" in read(tmp_path, text).notes[-2]
    (tmp_path / "class-descriptions.csv").write_text("/m/01yrx,Cat\n/m/0bt9lr,Dog\n")
    assert tags(read(tmp_path, text)) == [("Cat",), ("Dog",)]


def test_numbers_count_the_class_list(tmp_path):
    text = "id,label\na,0\nb,1\n"
    with pytest.raises(TagError, match=r"tags are numbers \(0, 1\), and nothing says which"):
        read(tmp_path, text)
    assert tags(read(tmp_path, text, classes=("x", "y"))) == [("x",), ("y",)]
    assert tags(read(tmp_path, "id,label\na,2\n", classes=("x", "y"))) == [("y",)]
    with pytest.raises(TagError, match="tag 7 is a number, but the class list has 2 names"):
        read(tmp_path, "id,label\na,7\n", classes=("x", "y"))
    assert tags(read(tmp_path, "image,tags\na,3\n")) == [("3",)]  # as always


def test_the_only_other_column(tmp_path):
    said = read(tmp_path, "id,animal\na,cat\nb,dog\n")
    assert tags(said) == [("cat",), ("dog",)]
    assert "taken from the only other column, 'animal'" in said.notes[0]
