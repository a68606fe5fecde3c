from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from tagseg.errors import ConfigError, DataError, TagError
from tagseg.formats.folders.synsets import (
    check_classes_are_there,
    count_unlisted,
    folder_of_synsets,
    read_synsets,
    rows_of_synset_folders,
)
from tagseg.formats.loading import load_dataset
from tagseg.formats.tags.voc import VOC_CLASSES

SHIPPED = Path(__file__).parents[3] / "docs" / "voc-synsets.txt"
WORDNET = Path(os.environ.get("WNSEARCHDIR", "/usr/share/wordnet")) / "data.noun"
CHOSEN = {"n03201208", "n03782006", "n03791053", "n03991062", "n04152593", "n04404412"}
"""Folders of ILSVRC that mean a class by themselves, beside what WordNet has below the others."""


def read(tmp_path: Path, text: str | bytes) -> dict[str, str]:
    path = tmp_path / "synsets.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_synsets(path)


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.new("RGB", (4, 3)).save(path, "JPEG")


class TestList:
    def test_spaces_tabs_comments_and_names_with_spaces(self, tmp_path):
        text = (
            "\ufeff# mine\r\n\r\nn02691156 aeroplane  # airplane, aeroplane\n"
            "\tn04405907\ttv  monitor\nn02690373   aeroplane#1\nn00000001 C#\n"
        )
        assert list(read(tmp_path, text).items()) == [
            ("n02691156", "aeroplane"),
            ("n04405907", "tv monitor"),
            ("n02690373", "aeroplane#1"),
            ("n00000001", "C#"),
        ]

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("", "synsets.txt: this list names no synsets; write lines such as n02691156 aero"),
            ("# n02691156 aeroplane\n", "synsets.txt: this list names no synsets"),
            ("n02691156 a\naeroplane n02691156\n", "line 2: 'aeroplane' is not the id of a noun"),
            ("N02691156 aeroplane", "line 1: 'N02691156' is not the id of a noun synset; write n"),
            ("n2691156 aeroplane", "line 1: 'n2691156' is not the id"),
            ("n0269115\u0663 aeroplane", "line 1: 'n0269115\u0663' is not the id"),
            ("n02691156", "line 1: synset n02691156 has no class; write it after the id"),
            ("\nn02691156 # cat", "line 2: synset n02691156 has no class"),
            ("n02691156 a\nn02691156 b", r"line 2: synset n02691156 is listed twice \(class 'a' b"),
            ("n02691156 a\nn02691156 a", "line 2: synset n02691156 is listed twice"),
            ("n02691156 background", "line 1: a class cannot be called 'background'; name"),
            ("n02691156 cat;dog", "line 1: a class cannot be called 'cat;dog'"),
            (b"n02691156 a\nn02691157 \xff", "line 2: not UTF-8 text; save as UTF-8"),
        ],
    )
    def test_bad_lines(self, tmp_path, text, line):
        with pytest.raises(TagError, match=line) as caught:
            read(tmp_path, text)
        assert "\n" not in str(caught.value)

    def test_missing_file(self, tmp_path):
        with pytest.raises(TagError, match=r"no\.txt: cannot be read: No such file"):
            read_synsets(tmp_path / "no.txt")

    WORD = st.text(
        st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="#;"),
        min_size=1,
        max_size=6,
    )
    NAME = st.lists(WORD, min_size=1, max_size=3).map(" ".join).filter(lambda n: n != "background")

    @given(
        st.dictionaries(st.integers(0, 99_999_999).map("n{:08d}".format), NAME, min_size=1),
        st.sampled_from([" ", "\t", "  \t"]),
        st.sampled_from(["\n", "\r\n", "  # note\n", "\n\n#\n"]),
    )
    @settings(max_examples=60, derandomize=True, deadline=None)
    def test_what_is_written_is_read_back(self, tmp_path_factory, entries, gap, end):
        text = "".join(f"{wnid}{gap}{name}{end}" for wnid, name in entries.items())
        found = read(tmp_path_factory.mktemp("list"), text)
        assert list(found.items()) == list(entries.items())

    @given(st.binary(max_size=60), st.booleans())
    @settings(max_examples=100, derandomize=True, deadline=None)
    def test_no_bytes_raise_anything_else(self, tmp_path_factory, junk, after_a_line):
        try:
            found = read(tmp_path_factory.mktemp("junk"), b"n02691156 a\n" * after_a_line + junk)
        except TagError as problem:
            lines = str(problem).splitlines()
        else:
            lines = [name for wnid, name in found.items() if re.fullmatch(r"n\d{8}", wnid)][:1]
        assert len(lines) == 1


def test_rows_leave_other_folders_and_loose_photos_out():
    rows = rows_of_synset_folders(
        ["n00000001/a", "n00000002/x/b", "n00000003/c", "loose", "n00000001"],
        {"n00000001": "cat", "n00000002": "dog"},
    )
    assert [(row.image, row.tags) for row in rows] == [
        ("n00000001/a", ("cat",)),
        ("n00000002/x/b", ("dog",)),
    ]


def test_a_class_needs_one_of_its_synsets(tmp_path):
    synsets = {"n00000001": "cat", "n00000002": "dog", "n00000003": "dog"}
    rows = rows_of_synset_folders(["n00000001/a", "n00000003/a"], synsets)
    check_classes_are_there(rows, synsets, tmp_path)
    with pytest.raises(
        TagError, match="no photos of class 'dog': its synsets n00000002, n00000003"
    ):
        check_classes_are_there(rows[:1], synsets, tmp_path)


class TestFolder:
    """An ImageNet as people have it: two classes of three synsets, and a synset of no class."""

    @pytest.fixture(params=["", "train"])
    def imagenet(self, request, tmp_path) -> Path:
        for name in ("1/n1_1.JPEG", "1/n1_2.JPEG", "2/n2_1.JPEG", "3/deep/n3_1.jpg"):
            photo(tmp_path / "in" / request.param / f"n0000000{name}")
        for i in range(3):
            photo(tmp_path / "in" / request.param / "n00000009" / f"{i}.JPEG")
        (tmp_path / "in" / request.param / "n00000009" / "about.txt").write_text("")
        (tmp_path / "in" / "classes.txt").write_text("of another layout\n")
        (tmp_path / "list").write_text("n00000002 zebra\nn00000001 ant\nn00000003 zebra\n")
        return tmp_path / "in"

    def load(self, imagenet: Path, **given):
        return load_dataset(imagenet, synsets=imagenet.parent / "list", **given)

    def test_photos_tags_and_order(self, imagenet):
        data = self.load(imagenet)
        assert data.classes == ("zebra", "ant")
        assert dict(zip(data.names, data.tags.tolist(), strict=True)) == {
            "n00000002/n2_1": [True, False],
            "n00000001/n1_1": [False, True],
            "n00000001/n1_2": [False, True],
            "n00000003/deep/n3_1": [True, False],
        }
        assert data.known.all()
        assert data.unlisted == 3
        assert data.image(0).shape == (3, 4, 3)

    def test_classes_in_another_order(self, imagenet):
        data = self.load(imagenet, classes=["ant", "zebra"], layout="imagenet")
        assert data.classes == ("ant", "zebra")
        assert data.tags[data.names.index("n00000002/n2_1")].tolist() == [False, True]

    def test_lists(self, imagenet):
        (imagenet / "val.txt").write_text("n00000001/n1_2.JPEG\ntrain/n00000002/n2_1\n")
        if not (imagenet / "train").is_dir():
            (imagenet / "val.txt").write_text("n00000001/n1_2.JPEG\nn00000002/n2_1\n")
        assert self.load(imagenet, split="val").names == ("n00000001/n1_2", "n00000002/n2_1")

    def test_synsets_without_a_folder_are_passed_over(self, imagenet):
        with (imagenet.parent / "list").open("a") as file:
            file.write("n00000004 zebra\n")
        assert len(self.load(imagenet)) == 4
        with (imagenet.parent / "list").open("a") as file:
            file.write("n00000005 lion\n")
        with pytest.raises(TagError, match="no photos of class 'lion': its synsets n00000005 have"):
            self.load(imagenet)

    def test_bad_calls(self, imagenet):
        path = imagenet.parent / "list"
        for given_, error, line in (
            (
                {"layout": "imagenet"},
                ConfigError,
                "layout 'imagenet' needs a list of synsets; give",
            ),
            ({"synsets": path, "layout": "voc"}, ConfigError, "synsets and the layout 'voc' excl"),
            ({"synsets": path, "tags": path}, ConfigError, "synsets and tags exclude each other"),
            ({"synsets": path, "classes": ["zebra", "ants"]}, TagError, "list: tag 'ant' is not"),
        ):
            with pytest.raises(error, match=line):
                load_dataset(imagenet, **given_)
        with pytest.raises(DataError, match="no photos in folders of the list's synsets"):
            load_dataset(imagenet.parent, synsets=path)
        with pytest.raises(DataError, match="this folder does not exist"):
            load_dataset(imagenet / "no", synsets=path)

    def test_home_and_count(self, imagenet):
        synsets = {"n00000001": "a"}
        home = folder_of_synsets(imagenet, synsets)
        assert (home / "n00000001").is_dir()
        assert count_unlisted(home, synsets) == 5


class TestShippedList:
    LINE = re.compile(r"(n\d{8}) (\w+)  # (ILSVRC: )?(.+)")

    @pytest.fixture
    def entries(self) -> list[tuple[str, str, bool, list[str]]]:
        lines = [line for line in SHIPPED.read_text("ascii").splitlines() if line[:1] == "n"]
        matches = [self.LINE.fullmatch(line) for line in lines]
        assert all(matches)
        parts = [match.groups() for match in matches if match]
        return [(wnid, name, bool(mark), words.split(", ")) for wnid, name, mark, words in parts]

    def test_it_is_of_the_classes_of_voc(self, entries):
        synsets = read_synsets(SHIPPED)
        assert tuple(dict.fromkeys(synsets.values())) == VOC_CLASSES
        assert [(wnid, name) for wnid, name, _, _ in entries] == list(synsets.items())
        assert len(synsets) > 100

    def test_the_thousand_folders_are_enough_for_all_classes(self, entries):
        assert {name for _, name, of_ilsvrc, _ in entries if of_ilsvrc} == set(VOC_CLASSES)

    def test_every_class_is_justified(self):
        reasons = re.findall(r"^# (\w+): .{10,}$", SHIPPED.read_text(), re.M)
        assert tuple(reasons) == VOC_CLASSES

    @pytest.mark.skipif(not WORDNET.is_file(), reason="WordNet 3.0 is not on this machine")
    def test_wordnet_agrees(self, entries):
        names, above = wordnet()
        for wnid, name, of_ilsvrc, words in entries:
            assert set(words) <= names[wnid], wnid
            others = {w for w, n, _, _ in entries if n == name and w not in (wnid, *CHOSEN)}
            if of_ilsvrc and wnid not in CHOSEN:
                assert ancestors(wnid, above) & others, f"{wnid} is below none of {name}"


def wordnet() -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Names, and synsets right above, of every noun synset, from WordNet's data.noun."""
    names, above = {}, {}
    for line in WORDNET.read_text("utf-8").splitlines():
        if not line.startswith("  "):
            cells = line.split(" | ")[0].split()
            n = int(cells[3], 16)
            wnid, rest = "n" + cells[0], cells[4 + 2 * n :]
            names[wnid] = {word.replace("_", " ") for word in cells[4 : 4 + 2 * n : 2]}
            pointers = zip(rest[1::4], rest[2::4], strict=False)
            above[wnid] = {"n" + offset for kind, offset in pointers if kind == "@"}
    return names, above


def ancestors(wnid: str, above: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = {wnid}
    while todo:
        todo = set().union(*(above[w] for w in todo)) - found
        found |= todo
    return found
