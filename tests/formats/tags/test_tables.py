from __future__ import annotations

from pathlib import Path

import pytest

from tagseg.errors import TagError
from tagseg.formats.tags.columns import find_columns, rate_header, rate_headless
from tagseg.formats.tags.tables import Table, delimiter_name, read_table

PATH = Path("t.csv")


def read(text: str, path: Path = PATH) -> Table:
    return read_table(text, path, rate_header, lambda table: rate_headless(table, lambda n: False))


def cells(table: Table) -> list[tuple[str, ...]]:
    return [record.cells for record in table.records]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_that_of_the_header(delimiter):
    table = read(f"image{delimiter}tags\na.jpg{delimiter}cat\n")
    assert cells(table) == [("image", "tags"), ("a.jpg", "cat")]
    assert table.delimiter == delimiter
    assert delimiter_name(delimiter) in ("commas", "semicolons", "tabs", "vertical bars")


@pytest.mark.parametrize("line", ["sep=;\n", "SEP=;\r\n", '"sep=;"\n', "sep=;\r"])
def test_excels_first_line_decides(line):
    table = read(f"{line}image;tags\na,b.jpg;cat\n")
    assert cells(table)[1] == ("a,b.jpg", "cat")
    assert table.where(table.records[1]) == "t.csv, line 3"


def test_without_header_the_photos_decide():
    assert read("a.jpg;cat,dog\nb.jpg;cat\n").delimiter == ";"
    assert read("a.jpg,cat;dog\nb.jpg,cat\n").delimiter == ","
    assert read("a.jpg\tcat, dog\n", Path("t.tsv")).delimiter == "\t"


def test_rows_that_are_one_quoted_cell_are_unwrapped():
    assert cells(read('"image,tags"\n"a.jpg,cat"\n')) == [("image", "tags"), ("a.jpg", "cat")]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('image,tags\na.jpg,"cat\nb.jpg,dog\nc.jpg,dog\n', "line 2: not CSV: unexpected end"),
        ('image,tags\na.jpg,"cat\nb.jpg,dog\nc.jpg,"dog"\n', "line 2: not CSV: "),
        ('image,tags\nx,y\na.jpg,"cat\nb.jpg,dog"\n', "line 3: not CSV: a quote that opens here"),
        ('image;tags\na.jpg;"cat\n', "line 2: not CSV: unexpected end of data"),
    ],
)
def test_an_open_quote_is_named_where_it_opens(text, line):
    with pytest.raises(TagError) as caught:
        read(text)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("text", "image", "tags"),
    [
        ("Image,Tags\na,b\n", 0, (1,)),
        ("File Name;Class-Name\na;b\n", 0, (1,)),
        (",image_id,labels,\n0,a,b,\n", 1, (2,)),
        ("id,image,tags,label\n1,a,b,c\n", 1, (2,)),
        ("id,name,label\n", None, None),
        ("label,img\ncat,a\n", 1, (0,)),
        ("photo,label,class_name\na,0,cat\n", 0, (2,)),
        ("image,tag1,tag2\na,b,c\n", 0, (1, 2)),
        ("file,path,label\na,x/b,c\n", None, None),
        ("image,label,class\na,b,c\n", None, None),
        ("a.jpg,cat\nb.jpg,dog\n", 0, (1,)),
        ("cat,a.jpg\ndog,b.jpg\n", 1, (0,)),
        ("a.jpg,cat,dog\nb.jpg,dog,cat\n", None, None),
        ("Pixel Value, Class\n0, cat\n", None, None),
        ("image,tags,tags\na,b,c\n", None, None),
    ],
)
def test_columns(text, image, tags):
    table = read(text)
    if image is None:
        with pytest.raises(TagError):
            find_columns(table, lambda name: False)
    else:
        found = find_columns(table, lambda name: False)
        assert (found.image, found.tags) == (image, tags)


def test_of_two_columns_that_of_photos_which_are_there():
    table = read("image_id,path,label\n1,a,cat\n2,b,dog\n")
    assert find_columns(table, lambda name: name in "ab").image == 1
    with pytest.raises(TagError, match="'image_id' and 'path' may name the photos"):
        find_columns(table, lambda name: False)
