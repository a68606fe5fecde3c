from __future__ import annotations

from pathlib import Path

import pytest

from tagseg.data.finding import find_photos
from tagseg.errors import TagError
from tagseg.formats.tags.samples import read_sample_tags
from tagseg.formats.tags.tag_rows import TagFile
from tars import write_tar


def read(folder: Path, members: dict[str, str], **more: tuple[str, ...]) -> TagFile:
    for name in list(members):
        members.setdefault(name.split(".")[0] + ".jpg", "")
    write_tar(folder / "a.tar", {name: text.encode() for name, text in members.items()})
    return read_sample_tags(find_photos(folder), **more)


def tags(said: TagFile) -> dict[str, tuple[str, ...]]:
    return {row.image: row.tags for row in said.rows}


def test_json_tells_names(tmp_path):
    said = read(tmp_path, {"0.json": '{"label": "cat", "url": "x"}', "1.json": '{"label": "dog"}'})
    assert tags(said) == {"0": ("cat",), "1": ("dog",)}
    assert said.notes == ("tags are read from KEY.json of 2 samples, key 'label'",)


def test_json_may_be_the_list_itself_and_hold_several(tmp_path):
    said = read(tmp_path, {"0.json": '["cat", "dog"]', "1.json": '{"tags": ["cow"], "label": 3}'})
    assert tags(said) == {"0": ("cat", "dog"), "1": ("cow",)}


def test_numbers_count_the_class_list(tmp_path):
    members = {"0.cls": "0\n", "1.cls": "1", "0.json": '{"width": 3}'}
    said = read(tmp_path, dict(members), classes=("cat", "dog"))
    assert tags(said) == {"0": ("cat",), "1": ("dog",)}
    with pytest.raises(
        TagError, match=r"tags are numbers \(0, 1\), and nothing says which classes"
    ):
        read(tmp_path, members)


@pytest.mark.parametrize("between", ["\n", ", ", ";"])
def test_text_tells_names_a_line_or_between_commas(tmp_path, between):
    said = read(tmp_path, {"0.txt": f"cat{between}dog\n", "1.txt": f"traffic light{between}cat"})
    assert tags(said) == {"0": ("cat", "dog"), "1": ("traffic light", "cat")}


def test_photos_of_which_nothing_is_said_have_no_tags(tmp_path):
    said = read(tmp_path, {"0.cls": "cat", "1.jpg": ""})
    assert tags(said) == {"0": ("cat",), "1": ()}


def test_tags_without_a_photo_are_counted(tmp_path):
    write_tar(
        tmp_path / "a.tar", {"0.jpg": b"", "0.cls": b"cat", "1.cls": b"dog", "in/0.cls": b"x"}
    )
    said = read_sample_tags(find_photos(tmp_path))
    assert tags(said) == {"0": ("cat",)}
    assert said.notes[1] == ("left out: 2 members KEY.cls of tars, beside which there is no photo")


def test_captions_are_no_tags(tmp_path):
    members = {"0.json": '{"caption": "a cat", "url": "x"}', "0.txt": "a cat"}
    with pytest.raises(
        TagError, match=r"no sample tells tags \(their json has caption, url\), and"
    ):
        read(tmp_path, members)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("0.json", b"{", r"a\.tar, 0\.json: is not JSON; write"),
        ("0.txt", b"\xff\xfe\xff", r"a\.tar, 0\.txt: is not UTF-8 text; save as UTF-8"),
        ("0.cls", b"x" * (1 << 21), r"a\.tar, 0\.cls: has 2097152 bytes; a sample's tags take at"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_member(tmp_path, name, content, line):
    write_tar(tmp_path / "a.tar", {"0.jpg": b"", name: content})
    with pytest.raises(TagError, match=line):
        read_sample_tags(find_photos(tmp_path))
