from __future__ import annotations

import pytest

from tagseg.errors import TagError
from tagseg.formats.lists.yaml_names import names_of_yaml


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [cat, 'a, b', \"dog\"]  # two\n", [(None, "cat"), (None, "a, b"), (None, "dog")]),
        ("nc: 2\nnames:\n- cat\n- dog\npath: x\n", [(None, "cat"), (None, "dog")]),
        ("names:\n  0: cat\n  1000: dog\n", [(0, "cat"), (1000, "dog")]),
        ("names: {-1: 'it''s',\n  2: cat}\n", [(-1, "it's"), (2, "cat")]),
        ("train: images\n", []),
    ],
)
def test_names(text: str, names: list[tuple[int | None, str]]) -> None:
    assert names_of_yaml(text, "d.yaml")[1] == names


@pytest.mark.parametrize(
    "text",
    [
        "x: 1\nnames: cat\n",
        "x: 1\nnames: [cat\n",
        "x: 1\nnames: [']\n",
        f"x: 1\nnames:\n  {'1' * 5000}: cat\n",
        f"x: 1\nnames: {{{'1' * 5000}: cat}}\n",
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(text: str) -> None:
    with pytest.raises(TagError, match=r"d\.yaml, line 2: "):
        names_of_yaml(text, "d.yaml")
