from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.data.finding import PHOTO_SUFFIXES, without_suffix
from tagseg.errors import TagError
from tagseg.formats.lists.name_lookup import NameLookup
from tagseg.formats.lists.photo_lists import PhotoList, no_list, read_list, read_names


class TestWithoutPhotos:
    """What is read of a list if nobody says which photos there are."""

    def read(self, tmp_path: Path, text: str) -> tuple[str, ...]:
        (tmp_path / "list.txt").write_text(text)
        return read_names(tmp_path / "list.txt")

    def test_plain(self, tmp_path):
        text = "# mine\na.jpg\n\nx/b.v2\r\na\n  c d.PNG \n.\\e.jpg\n"
        assert self.read(tmp_path, text) == ("a", "x/b.v2", "c d", "e")

    def test_class_list_of_voc(self, tmp_path):
        text = "2007_000032 -1\n2007_000033  1\n2007_000039  0\n"
        assert self.read(tmp_path, text) == ("2007_000032", "2007_000033", "2007_000039")

    def test_names_that_end_in_a_number_keep_it(self, tmp_path):
        assert self.read(tmp_path, "cat 1\ncat 0\n") == ("cat 1", "cat 0")
        assert self.read(tmp_path, "cat 1\ndog\n") == ("cat 1", "dog")

    def test_pairs_of_paths(self, tmp_path):
        text = "/JPEGImages/2007_1.jpg /SegmentationClassAug/2007_1.png\n/JPEGImages/2.jpg\n"
        assert self.read(tmp_path, text) == ("2007_1", "2")
        assert self.read(tmp_path, "/JPEGImages/my photo.jpg /SegmentationClass/my photo.png") == (
            "my photo",
        )


NAMES = (
    *("a0", "a1", "a2", "IMG_1", "IMG_1 1", "IMG_2", "IMG_2 1", "beach 0", "beach 1", "my photo"),
    *("cat/c", "dog/d", "dog/e", "cat/e", "#5", "[1]", "x, y", "image"),
)


def listed(tmp_path: Path, content: str | bytes, names: tuple[str, ...] = NAMES) -> PhotoList:
    (tmp_path / "photos").mkdir(exist_ok=True)
    path = tmp_path / "list.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_list(path, NameLookup(names, (tmp_path / "photos",)))


PLAIN = {
    "with and without suffix": ("a0.jpg\na1\na2.PNG\n", "a0 a1 a2"),
    "in folders": ("cat/c.jpg\n./dog/d\ndog\\e.jpg", "cat/c dog/d dog/e"),
    "old macs end lines with a return": ("a0.jpg\ra1.jpg\r", "a0 a1"),
    "byte order mark and windows lines": (b"\xef\xbb\xbfa0\r\n\r\na1\r\n", "a0 a1"),
    "the folder of photos before": ("photos/a0.jpg\n./photos/a1.jpg", "a0 a1"),
    "one column with a header": ("filename\na0\na1.jpg\n", "a0 a1"),
    "a header in capitals": ("\n\nFile Name\na0\n", "a0"),
    "quotes": ("\"a0.jpg\"\n'a1.jpg'\na2", "a0 a1 a2"),
    "json": ('["a0", "a1.jpg"]\n', "a0 a1"),
    "python": ("['a0',\n 'a1.jpg']", "a0 a1"),
    "json objects": ('[{"file_name": "a0.jpg"}, {"Image": "a1"}]', "a0 a1"),
    "coco": ('{"images": [{"id": 1, "file_name": "a0.jpg"}], "annotations": []}', "a0"),
    "json of one list": ('{"val": ["a0"]}', "a0"),
    "a photo twice": ("a0\na0.jpg\n", "a0"),
    "a photo that looks like a comment": ("# mine\n#5\na0\n", "#5 a0"),
    "a photo that looks like a header": ("image\na0\n", "image a0"),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_forms_are_read_without_a_word(tmp_path, kind):
    content, names = PLAIN[kind]
    found = listed(tmp_path, content)
    assert found.names == tuple(names.split())
    assert found.absent == ()
    assert found.notes == ()


TOLD = {
    "csv": (
        "a0.jpg,cat\na1.jpg,dog",
        ("a0", "a1"),
        "the names are read from column 1: 'a0.jpg,cat' is photo 'a0'",
    ),
    "csv with a header": (
        'id,Path,tags\n1,a0.jpg,cat\n2,"x, y.jpg",dog',
        ("a0", "x, y"),
        "the names are read from column 2",
    ),
    "semicolons": ("a0;1;cat\na1;0;dog\n", ("a0", "a1"), "from column 1"),
    "tabs": ("1\ta0.jpg\n2\tmy photo.jpg\n", ("a0", "my photo"), "from column 2"),
    "json lines": (
        '{"file_name": "a0.jpg", "tags": ["cat"]}\n{"file_name": "a1.jpg"}',
        ("a0", "a1"),
        "each line is read as JSON",
    ),
    "photos and masks": (
        "images/a0.jpg masks/a0.png\nimages/my photo.jpg masks/my photo.png\n",
        ("a0", "my photo"),
        "'images/a0.jpg' is photo 'a0'",
    ),
    "photos and masks called otherwise": (
        "a0.jpg a0_mask.png\nmy photo.jpg  my photo_mask.png\n",
        ("a0", "my photo"),
        "what ends in a photo's suffix is the name: 'a0.jpg a0_mask.png' is photo 'a0'",
    ),
    "pairs without suffixes": (
        "images/a0 masks/a0\nimages/a1 masks/a1",
        ("a0", "a1"),
        "'images/a0 masks/a0' is photo 'a0'",
    ),
    "photos and classes": ("cat/c.jpg 0\ndog/d.jpg 12", ("cat/c", "dog/d"), "is photo 'cat/c'"),
    "a class list": (
        "a0 -1\na1  1\nmy photo 0\n",
        ("a0", "a1", "my photo"),
        "the 1, 0 or -1 that ends each line is read as the column of a class list, and not looked "
        "at: 'a0 -1' is photo 'a0'",
    ),
    "numbers": ("a0 17\na1 4.5\n", ("a0", "a1"), "the number that ends each line is"),
    "other capitals": ("A0.JPG\na1\n", ("a0", "a1"), "1 name is found in other capitals: 'A0.JPG'"),
    "file names alone": ("c.jpg\nd.jpg\n", ("cat/c", "dog/d"), "2 names are found by the file na"),
    "paths of another machine": (
        "/mnt/old/a0.jpg\n/mnt/old/cat/c.jpg\n",
        ("a0", "cat/c"),
        "2 names are found without the first folders: '/mnt/old/a0.jpg' is photo 'a0'",
    ),
    "names that end in a number": (
        "IMG_1 1\nIMG_2 1\n",
        ("IMG_1 1", "IMG_2 1"),
        "'IMG_1 1' is the photo of that whole name, not 'IMG_1' with a class column",
    ),
}


@pytest.mark.parametrize("kind", TOLD)
def test_other_forms_are_read_and_told(tmp_path, kind):
    content, names, note = TOLD[kind]
    found = listed(tmp_path, content)
    assert found.names == names
    assert found.absent == ()
    assert any(note in told and told.startswith("list.txt: ") for told in found.notes), found.notes


REFUSED = {
    "a file name of two folders": ("a0\ne.jpg\n", ", line 2: 'e.jpg' may mean photo 'dog/e' or"),
    "a pair of two photos": ("a0.jpg,a1.jpg\n", ", line 1: 'a0.jpg,a1.jpg' may mean photo 'a0' or"),
    "all names in one line": ("a0, a1, a2", ", line 1: 'a0, a1, a2' may mean photo 'a0' or 'a1'"),
    "one name that may have a class column": (
        "IMG_1 1\na0 1\n",
        ", line 1: 'IMG_1 1' may mean photo 'IMG_1 1' or 'IMG_1'",
    ),
    "two folders of one photo": (
        "train/a0.jpg\nval/a0.jpg",
        ", line 2: 'train/a0.jpg' and 'val/a0.jpg' would both be photo 'a0'; write the path from",
    ),
    "several lists": (
        '{"train": ["a0"], "val": ["a1"]}',
        ": holds several lists: train, val; give",
    ),
    "json of numbers": ("[1, 2]", ', entry 1: names no photo; write a name, such as "a.jpg"'),
    "nothing": ("# a0\n \n", ": this list names no photos; write one name a line"),
    "a header alone": ("image,tags\n", ": this list names no photos; write one name a line"),
    "not text": (b"\xff\xfe\x00\xd8", ""),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_two_meanings_are_refused(tmp_path, kind):
    content, line = REFUSED[kind]
    with pytest.raises(TagError) as caught:
        listed(tmp_path, content)
    assert str(caught.value).startswith(f"{tmp_path / 'list.txt'}{line}")
    assert "\n" not in str(caught.value)


def test_two_files_that_differ_in_their_suffix(tmp_path):
    with pytest.raises(TagError, match=r"line 1: 'x\.png' may mean photo 'x\.png' or 'x'; write"):
        listed(tmp_path, "x.png", ("x", "x.png"))


ABSENT = {
    "never cut at a space": ("IMG_3 1\na0\n", ("IMG_3 1", "a0"), ("IMG_3 1",)),
    "nor where the photo before the space is there": ("a0 1\na1\n", ("a0 1", "a1"), ("a0 1",)),
    "unknown": ("a0\nzz.jpg\n", ("a0", "zz"), ("zz",)),
    "another folder": ("dog/c.jpg\n", ("dog/c",), ("dog/c",)),
    "in csv": ("image,tags\na0,x\nzz,y\na1,x\n", ("a0", "zz", "a1"), ("zz",)),
    "all of a csv": ("image,tags\nyy.jpg,x\nzz.jpg,y\n", ("yy", "zz"), ("yy", "zz")),
    "of a class list": ("a0 1\na1 -1\nzz 1\n", ("a0", "a1", "zz"), ("zz",)),
    "a photo with brackets": ("[1]\n", ("[1]",), ()),
    "json that is none": ("[a0]\n[a1", ("[a0]", "[a1"), ("[a0]", "[a1")),
}


@pytest.mark.parametrize("kind", ABSENT)
def test_names_of_no_photo_are_kept_and_told(tmp_path, kind):
    content, names, absent = ABSENT[kind]
    found = listed(tmp_path, content)
    assert found.names == names
    assert found.absent == absent
    assert set(found.where) == set(names)
    if absent:
        assert found.where[absent[0]].startswith(f"{tmp_path / 'list.txt'}, line ")


def test_spaces_around_belong_to_a_photo_of_such_a_name(tmp_path):
    assert listed(tmp_path, " a.jpg\n b \n", (" a", "a", "b")).names == (" a", "b")


def test_lists_together():
    one = PhotoList(("a", "b"), {"a": "1", "b": "1"}, ("b",), ("x",))
    other = PhotoList(("b", "c"), {"b": "2", "c": "2"}, (), ("x", "y"))
    both = one.and_also(other)
    assert both == PhotoList(("a", "b", "c"), {"a": "1", "b": "1", "c": "2"}, ("b",), ("x", "y"))


def test_lists_that_are_not_there(tmp_path, monkeypatch):
    (tmp_path / "photos" / "val").mkdir(parents=True)
    (tmp_path / "photos" / "validation.txt").write_text("a\n")
    monkeypatch.chdir(tmp_path)
    folder = Path("photos")
    line = "photos: there is no list 'x/y.txt'; give a list file"
    assert str(no_list("x/y.txt", folder)) == line
    line = "photos: there is no list 'validaton'; give a list file; did you mean photos/validation"
    assert str(no_list("validaton", folder)) == f"{line}.txt?"
    for written in ("photos/val", "val"):
        line = f"photos: '{written}' is a folder, no list; give a file with one name a line"
        assert str(no_list(written, folder)) == line


LETTERS = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])
PART = (
    st.one_of(
        st.text(LETTERS, min_size=1, max_size=6),
        st.from_regex(r"(IMG_|beach |a)\d{1,2}( [01])?", fullmatch=True),
    )
    .map(lambda s: s.replace("/", "").replace("\\", "").strip())
    .filter(lambda s: s and not s.startswith(".") and without_suffix(s) == s)
)
NAME = st.one_of(PART, st.tuples(PART, PART).map("/".join))
FOLDER_OF_NAMES = st.lists(NAME, min_size=1, max_size=8, unique=True)


def as_lines(names: list[str]) -> str:
    return "\n".join(names)


def as_csv(names: list[str]) -> str:
    text = io.StringIO()
    comments = any(name.startswith("#") for name in names)  # as which such lines count
    writer = csv.writer(text, quoting=csv.QUOTE_ALL if comments else csv.QUOTE_MINIMAL)
    writer.writerow(["image", "tags"])
    writer.writerows([f"{name}.jpg", "cat;dog"] for name in names)
    return text.getvalue()


WRITERS = {
    "names": as_lines,
    "files": lambda names: as_lines([f"{name}.JPEG" for name in names]),
    "windows": lambda names: "\ufeff" + "\r\n".join(f".\\{n}.png" for n in names),
    "with their folder": lambda names: as_lines([f"photos/{name}.jpg" for name in names]),
    "absolute": lambda names: as_lines([f"{{here}}/photos/{name}.jpg" for name in names]),
    "csv": as_csv,
    "json": lambda names: json.dumps([f"{name}.jpg" for name in names]),
    "json lines": lambda names: as_lines([json.dumps({"file_name": f"{n}.jpg"}) for n in names]),
    "pairs": lambda names: as_lines([f"images/{n}.jpg masks/{n}.png" for n in names]),
}


@pytest.mark.parametrize("form", WRITERS)
@given(st.data())
@settings(max_examples=30, derandomize=True, deadline=None)
def test_what_is_written_is_read_back(tmp_path_factory, form, data):
    """Any photos, any of them in the list: these are found, or two meanings are told."""
    names = data.draw(FOLDER_OF_NAMES)
    wanted = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    here = tmp_path_factory.mktemp("lists")
    content = WRITERS[form](wanted).replace("{here}", str(here))
    try:
        found = listed(here, content, tuple(names))
    except TagError as refused:
        said, result = str(refused), ()
    else:
        said, result = "", found.names
    assert result == tuple(wanted) or "may mean photo" in said or "would both be" in said


@given(st.binary(max_size=60), st.sampled_from(["", "image,tags\n", '["a0",', "a0 1\n", "(1,"]))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_no_bytes_raise_anything_else(tmp_path_factory, junk, start):
    try:
        names = listed(tmp_path_factory.mktemp("junk"), start.encode() + junk).names
    except TagError as problem:
        names = str(problem).splitlines()[:2]
        names = names if len(names) == 1 else ()
    assert names


def test_photos_have_known_suffixes():
    assert all(without_suffix(f"a{suffix}") == "a" for suffix in PHOTO_SUFFIXES)
