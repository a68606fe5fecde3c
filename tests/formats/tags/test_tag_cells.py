from __future__ import annotations

from pathlib import Path

import pytest

from tagseg.errors import TagError
from tagseg.formats.tags.tag_cells import Cells, names_in, read_cells, separator_from
from tagseg.formats.tags.tag_rows import Hints


def read(*cells: str, classes: tuple[str, ...] | None = None, separator=None) -> Cells:
    places = [f"t.csv, line {i}" for i in range(len(cells))]
    return read_cells(cells, places, Hints(classes, separator), Path("t.csv"))


BOTH = ("cat", "dog")


@pytest.mark.parametrize("separator", [", ", ",", ";", "; ", "|", " | ", "\n", "，", "、"])
def test_what_is_in_no_name_separates(separator):
    found = read("cat", "dog", f"cat{separator}dog")
    assert found.tags[2] == BOTH
    assert (found.notes == ()) == (";" in separator)


@pytest.mark.parametrize("separator", ["/", "+", " & ", " "])
def test_what_may_be_in_a_name_separates_with_evidence(separator):
    alone = read("cat", "dog", f"cat{separator}dog")
    assert alone.tags[2] == BOTH
    assert "tags are separated by" in alone.notes[0]
    orders = read(f"cat{separator}dog", f"dog{separator}cat")
    assert orders.tags == (BOTH, ("dog", "cat"))
    kept = read("cat", f"tv{separator}monitor")
    assert kept.tags[1] == (" ".join(f"tv{separator}monitor".split()),)
    assert "warning" in kept.notes[0]
    assert "--tag-separator" in kept.notes[0]


@pytest.mark.parametrize(
    "cells",
    [
        ("traffic light", "stop sign", "cat"),
        ("polar bear", "brown bear", "bear"),
        ("traffic light", "traffic sign", "car"),
        ("red apple", "green apple", "red pear", "green pear"),
    ],
)
def test_names_of_two_words_stay_and_a_warning_says_so(cells):
    found = read(*cells)
    assert found.tags == tuple((cell,) for cell in cells)
    assert len(found.notes) == 1


def test_spaces_within_lists_are_part_of_names():
    assert read("traffic light;cat", "tv monitor").tags == (
        ("traffic light", "cat"),
        ("tv monitor",),
    )
    assert read("traffic light;cat", "tv monitor").notes == ()


def test_tags_that_recombine():
    cells = ("haze primary", "agriculture clear primary water", "clear primary", "clear water")
    assert read(*cells, "agriculture clear road primary").tags[2] == ("clear", "primary")
    assert read("16 0", "3", "25 16").tags[0] == ("16", "0")


def test_a_class_list_decides():
    assert read("cat dog", "cat rabbit", classes=(*BOTH, "rabbit")).tags[1] == ("cat", "rabbit")
    assert read("cat dog", classes=("cat dog", "x")).tags == (("cat dog",),)
    assert read("dog, wild", classes=("dog, wild", "x")).tags == (("dog, wild",),)
    assert read("a/b, c", classes=("a/b", "c")).tags == (("a/b", "c"),)


def test_the_user_decides():
    assert read("cat dog", separator=" ").tags == (BOTH,)
    assert read("cat dog", "cat", "dog", separator=";").tags[0] == ("cat dog",)
    assert [separator_from(text) for text in ("space", "\\t", "::", None)] == [
        " ",
        "\t",
        "::",
        None,
    ]
    with pytest.raises(TagError, match="separator is empty"):
        separator_from("")


def test_two_separators():
    assert read("cat, dog", "cat;dog", "cat", "dog").tags[0] == BOTH
    kept = read("dog, wild;cat", "cat")
    assert kept.tags[0] == ("dog, wild", "cat")
    assert "warning" in kept.notes[0]


@pytest.mark.parametrize(
    "cell",
    [
        '["cat", "dog"]',
        "['cat', 'dog']",
        "['cat' 'dog']",
        "[cat, dog]",
        "('cat', 'dog')",
        "{'cat', 'dog'}",
        '{"choices": ["cat", "dog"]}',
        '[{"x": 1, "rectanglelabels": ["cat"]}, {"x": 2, "rectanglelabels": ["dog"]}]',
    ],
)
def test_lists(cell):
    assert read(cell).tags == (BOTH,)


def test_names_in_lists_may_hold_separators():
    assert read('["tv, set"]', "['it\\'s']", "[]").tags == (("tv, set",), ("it's",), ())
    with pytest.raises(TagError, match="line 1: '\\['cat]' is not a list"):
        read("x", "['cat]")


def test_words_for_nothing():
    found = read("nan", "NULL", "None", "N/A", "-", "", "cat")
    assert found.tags == ((),) * 6 + (("cat",),)
    assert found.notes == ("t.csv: 'nan', 'null', 'none', 'n/a', '-' means no tags (5 cells)",)
    assert read("none", "cat", classes=("cat", "none")).tags[0] == ("none",)


def test_forms_of_one_name():
    found = read("Ka\u0308fer", "Käfer", " Käfer\u200b", "tv\u00a0set;tv  set")
    assert {*found.tags[:3]} == {("Käfer",)}
    assert found.tags[3] == ("tv set",)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, ()),
        ("cat", ("cat",)),
        (["cat", "dog"], BOTH),
        (1, ("1",)),
        ([0, 2.0], ("0", "2")),
        ({"cat": True, "dog": False}, ("cat",)),
        ({"cat": 1, "dog": 0}, ("cat",)),
        ({"bbox": [[1, 2]], "categories": ["cat"]}, ("cat",)),
        ([{"label": "cat"}, {"name": "dog"}], BOTH),
    ],
)
def test_json_values(value, names):
    assert names_in(value, "x") == names


@pytest.mark.parametrize("value", [1.5, True, [False], {"bbox": [1, 2]}])
def test_json_values_that_are_no_names(value):
    with pytest.raises(TagError, match=r"^x: "):
        names_in(value, "x")
