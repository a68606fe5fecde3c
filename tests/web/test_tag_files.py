"""Tag files as tagging reads and writes them: tagseg's readers have the last word."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import TagError
from tagseg.formats.loading import load_dataset
from tagseg.web.photo_folder import open_folder
from tagseg.web.tag_files import (
    ClassFile,
    check_class,
    check_classes,
    other_source,
    read_tags,
    tags_csv,
)
from web_pages import write_photos


@pytest.fixture
def photos(tmp_path):
    return open_folder(write_photos(tmp_path, "a.jpg", "b.jpg", "c.jpg"))


def test_a_tag_file_is_read_as_train_reads_it(photos):
    file = photos.home / "tags.csv"
    file.write_text("image,tags\na.jpg,dog;traffic light\nb,\ngone.jpg,dog\n")
    found = read_tags(photos, file, ours=True)
    assert found.classes == ("dog", "traffic light")
    assert found.tags == {"a": ("dog", "traffic light"), "b": (), "gone": ("dog",)}


def test_a_file_of_another_tool_can_be_begun_with(photos):
    file = photos.home / "labels.json"
    file.write_text('[{"image": "a.jpg", "label": "cat"}, {"image": "b.jpg", "label": "dog"}]')
    assert read_tags(photos, file, ours=False).tags == {"a": ("cat",), "b": ("dog",)}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("image,tags,width\na.jpg,dog,3\n", "has columns beside image and tags (width)"),
        ("file;label\na.jpg;dog\n", "does not begin with image,tags"),
        ("a.jpg,dog\nb.jpg,cat\n", "does not begin with image,tags"),
    ],
)
def test_what_cannot_be_written_again_is_not_taken_over(photos, text, why):
    file = photos.home / "tags.csv"
    file.write_text(text)
    with pytest.raises(TagError) as found:
        read_tags(photos, file, ours=True)
    assert why in str(found.value)
    assert "--tags FILE" in str(found.value)


@pytest.mark.parametrize("content", [b"\xff\x00\x01", b"image,tags\na.jpg,dog,cat,x\n", b""])
def test_a_broken_tag_file_is_told_in_one_line(photos, content):
    file = photos.home / "tags.csv"
    file.write_bytes(content)
    with pytest.raises(TagError) as found:
        read_tags(photos, file, ours=True)
    assert "\n" not in str(found.value)


def test_other_files_that_tell_the_tags_are_found(photos):
    assert other_source(photos) is None
    (photos.home / "metadata.jsonl").write_text('{"file_name": "a.jpg", "tags": ["cat"]}\n')
    assert other_source(photos) == photos.home / "metadata.jsonl"


def test_folders_that_nobody_can_make_out_are_no_tags(tmp_path):
    write_photos(tmp_path, "train/dog/a.jpg", "test/x/b.jpg", "holidays/c.jpg")
    assert other_source(open_folder(tmp_path)) is None


@pytest.mark.parametrize(
    "name", ["a;b", "[x]", '"q"', "#x", "{x}", "background", "void", "", " ", "a\tb\x07", "x" * 101]
)
def test_a_class_that_would_be_read_otherwise_is_refused(name):
    with pytest.raises(TagError):
        check_class(name, ["cat"])


def test_a_class_is_tidied_and_there_once():
    assert check_class("  traffic\u00a0 light ", ["cat"]) == "traffic light"
    assert check_class("<script>alert(1)</script>", []) == "<script>alert(1)</script>"
    with pytest.raises(TagError, match="there is a class 'Cat'"):
        check_class("cat", ["Cat"])
    with pytest.raises(TagError, match="would not be read as one class"):
        check_classes(["1 cat", "2 dog"], "1 cat")  # a list of numbered names


names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(wanted=st.lists(names, min_size=1, max_size=4), data=st.data())
def test_whatever_is_accepted_comes_back_from_the_files(tmp_path_factory, wanted, data):
    classes: list[str] = []
    for name in wanted:
        try:
            classes.append(check_class(name, classes))
        except TagError:
            continue
    if not classes:
        return
    folder = write_photos(tmp_path_factory.mktemp("p"), "a;b.jpg", 'c"d,e.jpg', "image.jpg")
    photos = open_folder(folder)
    some = st.lists(st.sampled_from(classes), unique=True)
    tags = [sorted(data.draw(some), key=classes.index) for _ in range(3)]
    tags[0] = tags[0] or classes[:1]
    rows = [(photos.written[i], tags[i]) for i in range(3)]
    (folder / "tags.csv").write_bytes(tags_csv(rows))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    read = load_dataset(folder, untagged="negative")
    assert read.classes == tuple(classes)
    found = dict(zip(read.names, read.tags.tolist(), strict=True))
    assert found == {name: [c in tags[i] for c in classes] for i, name in enumerate(photos.names)}


def test_a_class_list_is_written_only_when_it_changes(photos):
    file = ClassFile(photos)
    file.write(())
    assert not file.path.exists()
    file.write(("dog", "cat"))
    assert file.path.read_text() == "dog\ncat\n"
    assert ClassFile(photos).names == ("dog", "cat")


def test_background_stays_where_it_stood(photos):
    path = photos.home / "classes.txt"
    path.write_text("background\ndog\n")
    file = ClassFile(photos)
    file.check_takes(("dog", "cat"))
    file.write(("dog", "cat"))
    assert path.read_text() == "background\ndog\ncat\n"


def test_a_list_in_another_form_is_read_and_not_written(photos):
    path = photos.home / "classes.txt"
    path.write_text("dog,255,0,0\ncat,0,255,0\n")
    file = ClassFile(photos)
    file.check_takes(("dog", "cat"))
    file.write(("dog", "cat"))
    with pytest.raises(TagError, match="is not one name a line"):
        file.check_takes(("dog", "cat", "bird"))
    assert path.read_text() == "dog,255,0,0\ncat,0,255,0\n"
