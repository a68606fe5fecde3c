from __future__ import annotations

import inspect
import json
import pickle
import re

import pytest

from tagseg import errors
from tagseg.errors import DataError, ImageError, ShapeError, TagsegError, one_line, printable

EVERY = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    ancestors: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ((?:[|`]-- |[|] {3}| {4})*)([A-Z]\w+Error)", line)
        if found:
            depth = len(found[1]) // 4
            ancestors[depth:] = [found[2]]
            drawn[found[2]] = ancestors[depth - 1] if depth else "Exception"
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in EVERY}


def test_all_names_every_error_in_order() -> None:
    assert errors.__all__ == sorted(
        ["choose_from", "first_few", "one_line", "printable", *(cls.__name__ for cls in EVERY)]
    )
    assert all(issubclass(cls, TagsegError) for cls in EVERY)


def test_a_wrong_array_is_a_value_error_too() -> None:
    assert issubclass(ShapeError, ValueError)
    assert issubclass(ImageError, DataError)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "is cut off"),
        ({"where": "a.jpg"}, "a.jpg: is cut off"),
        ({"do": "replace it"}, "is cut off; replace it"),
        ({"where": "a.jpg", "do": "replace it"}, "a.jpg: is cut off; replace it"),
        ({"where": "a\nb.jpg", "do": "replace\r\n  it"}, "a b.jpg: is cut off; replace it"),
    ],
)
def test_a_message_is_one_line(fields: dict[str, str], line: str) -> None:
    assert str(TagsegError("is cut\n off", **fields)) == line


@pytest.mark.parametrize("cls", EVERY)
def test_errors_survive_the_way_from_a_worker_process(cls: type[TagsegError]) -> None:
    error = cls("is cut off", where="a.jpg", do="replace it")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert (str(copy), copy.what, copy.where, copy.do) == (
        str(error), "is cut off", "a.jpg", "replace it",
    )  # fmt: skip


def test_a_wrong_name_is_told_the_nearest_or_all() -> None:
    assert errors.choose_from(("guided", "plain"), "gided") == "did you mean guided?"
    assert errors.choose_from(("guided", "plain"), "x") == "choose one of guided, plain"


def test_a_librarys_error_in_one_line() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(KeyError()) == "KeyError"
    assert one_line(ValueError("x" * 300), 200) == "x" * 200


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a photo, 写真 \n\tnext", "a photo, 写真 \n\tnext"),
        ("\x1b[2Jgone", "\\u001b[2Jgone"),
        ("over\rwritten\x07\x00\x9b", "over\\u000dwritten\\u0007\\u0000\\u009b"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("half \ud83d", "half \ud83d"),  # which the console escapes
    ],
)
def test_names_cannot_steer_the_terminal(text, printed):
    assert printable(text) == printed


def test_what_is_printed_of_json_is_json() -> None:
    names = ["\x1b[2J\r\x7f\x9b\u202e", "a\tb\n"]
    said = printable(json.dumps(names, ensure_ascii=False, indent=1))
    assert json.loads(said) == names
