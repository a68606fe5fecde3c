"""Class lists in the forms that tools write; names of background in any place and case."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.data.legends import Legend
from tagseg.errors import TagError
from tagseg.formats.lists.class_lists import (
    ClassList,
    class_list,
    class_names,
    read_class_list,
    read_classes,
)

CAT_DOG = ("cat", "dog")


def read(folder: Path, text: str, name: str = "classes.txt") -> ClassList:
    (folder / name).write_text(text, encoding="utf-8")
    return read_class_list(folder / name)


class TestBackground:
    @pytest.mark.parametrize(
        "text",
        [
            "Background\ncat\ndog\n",
            "BACKGROUND\ncat\ndog\n",
            "__background__\ncat\ndog\n",
            "<background>\ncat\ndog\n",
            "[Background]\ncat\ndog\n",
            "BG\ncat\ndog\n",
            "__ignore__\n_background_\ncat\ndog\n",
            "__ignore__\n__background__\ncat\ndog\n",
            "__IGNORE__\ncat\ndog\n",
            "void\ncat\ndog\n",
            "Unlabelled\ncat\ndog\n",
            "# labels\r\n Background \r\n\r\ncat \r\ndog\t\r\n",
            "\ufeffbackground\ncat\ndog",
        ],
    )
    def test_before_the_classes_leaves_their_numbers(self, tmp_path, text):
        found = read(tmp_path, text)
        assert found.names == CAT_DOG
        assert found.numbers is None
        is_documented = "background" in text.strip("\ufeff").split("\n")[0].split()
        assert is_documented == (not found.notes)
        for note in found.notes:
            assert "no class" in note
            assert "in masks 0 background, 1 cat, 2 dog" in note

    @pytest.mark.parametrize("text", ["cat\nBackground\ndog\n", "cat\ndog\n_background_\n"])
    def test_elsewhere_both_readings_are_told(self, tmp_path, text):
        found = read(tmp_path, text)
        assert (found.names, found.numbers) == (CAT_DOG, None)
        lines = ", ".join(f"{i} {line}" for i, line in enumerate(text.split()))
        assert f"if masks count all lines ({lines}), write these numbers" in found.notes[0]

    def test_what_does_not_count_keeps_its_number(self, tmp_path):
        found = read(tmp_path, "background\ncat\nvoid\ndog\n")
        assert found.names == CAT_DOG
        assert found.numbers == {0: 0, 1: 1, 2: 255, 3: 2, 255: 255}
        assert "2 ignore, 3 dog" in found.notes[0]

    def test_classes_that_begin_like_background(self, tmp_path):
        names = ("background noise", "voided", "ignorant", "cat_background")
        assert read(tmp_path, "\n".join(names)).names == names

    def test_a_list_of_names(self):
        assert class_names(["__background__", "b", "a"]) == ("b", "a")
        assert class_list(["Background", "a"]).notes
        assert not class_list(["a", "b"]).notes

    def test_nothing_else(self, tmp_path):
        with pytest.raises(TagError, match="this class list is empty"):
            read(tmp_path, "__ignore__\n_background_\n")


class TestNumbers:
    @pytest.mark.parametrize(
        "text",
        [
            "0 cat\n1 dog\n",
            "0: cat\n1: dog\n",
            "0,cat\n1,dog\n",
            "cat: 0\ndog: 1\n",
            "0\tcat\n1\tdog",
        ],
    )
    def test_from_zero_without_background_only_the_order_counts(self, tmp_path, text):
        found = read(tmp_path, text)
        assert (found.names, found.numbers, found.numbered) == (CAT_DOG, None, False)
        assert "only the order counts" in found.notes[0]

    @pytest.mark.parametrize(
        ("text", "numbers"),
        [
            ("0: background\n1: cat\n2: dog\n", None),
            ("1 cat\n2 dog\n", None),
            ("0 background\n1 cat\n3 dog\n", {0: 0, 1: 1, 3: 2, 255: 255}),
            ("0 cat\n1 dog\n2 Background\n", {0: 1, 1: 2, 2: 0, 255: 255}),
            ("-1 __ignore__\n0 _background_\n1 cat\n2 dog\n", None),
            ("0: void\n7: cat\n8: dog\n", {0: 0, 7: 1, 8: 2, 255: 255}),
            ("127: cat\n254: dog\n", {0: 0, 127: 1, 254: 2, 255: 255}),
            ("2: dog\n1: cat\n", None),  # its numbers, not its lines, are the order
            ("cat,85\ndog,170\nvoid,255\n", {0: 0, 85: 1, 170: 2, 255: 255}),
        ],
    )
    def test_of_masks(self, tmp_path, text, numbers):
        found = read(tmp_path, text)
        assert (found.names, found.numbers, found.numbered) == (CAT_DOG, numbers, True)

    def test_255_may_be_a_class_if_the_list_says_so(self, tmp_path):
        found = read(tmp_path, "255: cat\n")
        assert found.numbers == {0: 0, 255: 1}
        assert found.notes[0].endswith("in masks 0 background, 255 cat")

    @pytest.mark.parametrize(
        "text", ["1 euro\n2 euro\n", "3 wheeler\ncar\n", "7 segment\n", "2\n1\n"]
    )
    def test_names_with_numbers_are_names(self, tmp_path, text):
        assert read(tmp_path, text).names == tuple(text.strip().split("\n"))

    def test_wrong(self, tmp_path):
        with pytest.raises(TagError, match="number 1 is listed twice"):
            read(tmp_path, "id,name\n1,cat\n1,dog\n")
        with pytest.raises(TagError, match=r"line 2: 'x' is not a number"):
            read(tmp_path, "id,name\nx,cat\n")
        with pytest.raises(TagError, match=r"line 3: 1 cells, but the first line has 2"):
            read(tmp_path, "id,name\n1,cat\n2\n")

    def test_large_numbers_only_count(self, tmp_path):
        ids = '[{"id": 1201, "name": "cat"}, {"id": 1203, "name": "dog"}]'
        found = read(tmp_path, ids, "a.json")
        assert (found.names, found.numbers) == (CAT_DOG, None)


FORMS: dict[str, tuple[str, str]] = {
    "JSON list": ("a.json", '["cat", "dog"]'),
    "JSON mapping": ("a.json", '{"background": 0, "cat": 1, "dog": 2}'),
    "JSON mapping of numbers": ("a.json", '{"0": "background", "1": "cat", "2": "dog"}'),
    "COCO": ("a.json", '{"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}'),
    "Supervisely": ("m.json", '{"classes": [{"title": "cat"}, {"title": "dog"}]}'),
    "Python": ("classes.txt", "['background', 'cat', 'dog']"),
    "Python, several lines": ("classes.txt", "[\n 'cat',\n 'dog',\n]\n"),
    "data.yaml": ("data.yaml", "train: a\nnc: 2\nnames: ['cat', 'dog']  # two\n"),
    "data.yaml, unquoted": ("data.yaml", "names: [cat,\n  dog]\nnc: 2\n"),
    "data.yaml, mapping": ("data.yml", "names:\n  0: cat\n  1: dog\n\nnc: 2\n"),
    "data.yaml, items": ("data.yaml", "names:\n- cat\n- 'dog'\nnc: 2\n"),
    "pbtxt": ("a.pbtxt", "item {\n id: 1\n name: 'cat'\n}\nitem { id: 2 name: \"dog\" }\n"),
    "Roboflow": ("_classes.csv", "Pixel Value, Class\n0, background\n1, cat\n2, dog\n"),
    "heading": ("classes.txt", "class\ncat\ndog\n"),
    "one line": ("classes.txt", "cat, dog\n"),
    "quoted": ("classes.txt", '"cat",\n"dog",\n'),
    "obj.names": ("obj.names", "cat\ndog\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(tmp_path, form):
    name, text = FORMS[form]
    found = read(tmp_path, text, name)
    assert found.names == read_classes(tmp_path / name) == CAT_DOG
    assert found.legend() == Legend(2, source=name)


COLOURED: dict[str, tuple[str, str]] = {
    "CVAT": ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\n"),
    "CSV": ("class_dict.csv", "name,r,g,b\nbackground,0,0,0\n"),
    "hex": ("colours.csv", "class;color\nbackground;#000000\n"),
    "no heading": ("colours.txt", "background,0,0,0\n"),
    "CamVid": ("label_colors.txt", "0 0 0 background\n"),
}
LINES = {
    "CVAT": "{name}:{r},{g},{b}::\n",
    "CSV": "{name},{r},{g},{b}\n",
    "hex": "{name};#{r:02x}{g:02X}{b:02x}\n",
    "no heading": "{name}, {r}, {g}, {b}\n",
    "CamVid": "{r} {g} {b}\t{name}\n",
}


@pytest.mark.parametrize("form", COLOURED)
def test_colours(tmp_path, form):
    name, head = COLOURED[form]
    line = LINES[form]
    text = line.format(name="cat", r=48, g=112, b=32) + line.format(name="dog", r=9, g=0, b=255)
    for whole in (head + text, text) if form in ("CVAT", "CamVid") else (head + text,):
        found = read(tmp_path, whole, name)
        assert found.names == CAT_DOG
        assert found.colours == {(0, 0, 0): 0, (48, 112, 32): 1, (9, 0, 255): 2}


def test_cvat_without_a_colour_and_with_the_background_between(tmp_path):
    found = read(tmp_path, "cat:1,2,3::\nbackground:0,0,0::\ndog:::\n")
    assert found.names == CAT_DOG
    assert found.colours == {(1, 2, 3): 1, (0, 0, 0): 0}


def test_black_void_without_a_background_is_background(tmp_path):
    """As in CamVid: else nothing that is found beside the classes would count."""
    found = read(tmp_path, "64 128 64\tcat\n0 0 0\tVoid\n128 0 0 dog\n", "label_colors.txt")
    assert found.names == CAT_DOG
    assert found.colours == {(64, 128, 64): 1, (0, 0, 0): 0, (128, 0, 0): 2}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("cat:1,2,300::\n", "'1,2,300' is not a colour"),
        ("cat:1,2,3::\ndog:1,2,3::\n", "colour (1, 2, 3) is of two classes, one of them 'dog'"),
    ],
)
def test_wrong_colours(tmp_path, text, line):
    with pytest.raises(TagError) as caught:
        read(tmp_path, text, "labelmap.txt")
    assert line in str(caught.value)


def test_a_number_of_thousands_of_digits(tmp_path):
    """Python refuses to convert it."""
    with pytest.raises(TagError, match="an item has no id or no name"):
        read(tmp_path, f"item {{ id: {'1' * 5000} name: 'cat' }}\n", "a.pbtxt")


def test_one_unicode_form(tmp_path):
    assert read(tmp_path, "cafe\u0301\n").names == ("caf\u00e9",)
    with pytest.raises(TagError, match="is listed twice"):
        read(tmp_path, "cafe\u0301\ncaf\u00e9\n")


class TestLegendOf:
    """The list beside masks, for classes of another list."""

    def test_by_name(self, tmp_path):
        found = read(tmp_path, "0: background\n1: dog\n2: Cat\n3: cow\n")
        legend, others = found.legend_of(Legend(2), CAT_DOG)
        assert others == ("cow",)
        assert legend.numbers == {0: 0, 1: 2, 2: 1, 3: 0, 255: 255}

    def test_colours_leave_numbers_alone(self, tmp_path):
        found = read(tmp_path, "dog:1,2,3::\ncat:4,5,6::\n")
        legend, _ = found.legend_of(Legend(2), CAT_DOG)
        assert legend.numbers is None
        assert legend.colours == {(1, 2, 3): 2, (4, 5, 6): 1, (0, 0, 0): 0}

    def test_no_class_in_both(self, tmp_path):
        with pytest.raises(TagError, match="has none of the classes cat, dog, but cow"):
            read(tmp_path, "cow\n").legend_of(Legend(2), CAT_DOG)


names = st.lists(
    st.text(
        st.characters(categories=["L", "N"], include_characters=" _-."), min_size=1, max_size=12
    )
    .map(lambda name: " ".join(f"c{name}".split()))
    .filter(lambda name: name.isprintable()),
    min_size=2,
    max_size=8,
    unique_by=lambda name: normalize("NFC", name),
)
colours = st.tuples(*[st.integers(1, 255)] * 3)
WRITERS: dict[str, Callable[[list[str]], str]] = {
    "classes.txt": "\n".join,
    "numbered.txt": lambda own: "\n".join(f"{i + 1}: {name}" for i, name in enumerate(own)),
    "_classes.csv": lambda own: (
        "Pixel Value, Class\n0, background\n"
        + "\n".join(f"{i + 1}, {name}" for i, name in enumerate(own))
    ),
    "a.json": json.dumps,
    "ids.json": lambda own: json.dumps([{"id": i + 1, "name": n} for i, n in enumerate(own)]),
    "data.yaml": lambda own: "names:\n" + "\n".join(f"- '{name}'" for name in own),
}


@pytest.mark.parametrize("form", WRITERS)
@given(own=names)
@settings(max_examples=40, derandomize=True, deadline=None)
def test_round_trip(tmp_path_factory, form, own):
    folder = tmp_path_factory.mktemp("lists")
    nfc = tuple(normalize("NFC", name) for name in own)
    assert read(folder, WRITERS[form](own), form).names == nfc


@pytest.mark.parametrize("form", LINES)
@given(own=names, shades=st.lists(colours, min_size=8, max_size=8, unique=True))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_colours_round_trip(tmp_path_factory, form, own, shades):
    file, head = COLOURED[form]
    pairs = list(zip(own, shades, strict=False))
    lines = [LINES[form].format(name=n, r=r, g=g, b=b) for n, (r, g, b) in pairs]
    found = read(tmp_path_factory.mktemp("lists"), head + "".join(lines), file)
    assert len(found.names) == len(own)
    assert found.colours == {(0, 0, 0): 0, **{c: i + 1 for i, (_, c) in enumerate(pairs)}}


WHOLE = [text for _, text in FORMS.values()]
WHOLE += [
    head + LINES[form].format(name="cat", r=1, g=2, b=3) for form, (_, head) in COLOURED.items()
]


@given(
    text=st.sampled_from(WHOLE),
    suffix=st.sampled_from([".txt", ".json", ".yaml", ".csv", ".pbtxt"]),
    place=st.integers(0, 60),
    junk=st.binary(max_size=6),
    cut=st.integers(0, 10),
)
@settings(max_examples=300, derandomize=True, deadline=None)
def test_mutated_files_raise_nothing_but_one_line(tmp_path_factory, text, suffix, place, junk, cut):
    data = text.encode()
    path = tmp_path_factory.mktemp("junk") / f"classes{suffix}"
    path.write_bytes(data[:place] + junk + data[place + cut :])
    try:
        found, said = read_class_list(path).names, "fine"
    except TagError as problem:
        found, said = ("some",), str(problem)
    assert len(said.splitlines()) == 1
    assert len(set(found)) == len(found) > 0
