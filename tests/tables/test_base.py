from __future__ import annotations

import json

import numpy as np

from tagseg.tables.base import Printed, Table, percent

TABLE = Table(
    "9",
    "Table 9: a | b",
    ("Methods", "paper", "ours"),
    (("a | b", 60.08, None), ("much longer", 5.0, 100 / 3)),
    ("a note",),
)


def test_markdown():
    assert TABLE.markdown() == (
        "## Table 9: a | b\n"
        "\n"
        "| Methods     | paper | ours |\n"
        "|-------------|------:|-----:|\n"
        "| a \\| b      |  60.1 |    - |\n"
        "| much longer |   5.0 | 33.3 |\n"
        "\n"
        "- a note\n"
    )


def test_figures_of_a_paper_keep_its_decimals():
    table = Table("1", "T", ("m", "p"), (("x", Printed("50.20")), ("y", Printed("60.08"))))
    assert table.markdown().splitlines()[4:6] == ["| x | 50.20 |", "| y | 60.08 |"]
    assert json.loads(json.dumps(table.to_dict()))["rows"] == [["x", 50.2], ["y", 60.08]]


def test_markdown_without_notes_and_of_short_labels():
    table = Table("1", "T", ("m", "a"), (("x", 1.0),))
    assert table.markdown() == "## T\n\n| m |   a |\n|---|----:|\n| x | 1.0 |\n"


def test_json_keeps_all_digits():
    read = json.loads(json.dumps(TABLE.to_dict()))
    assert read["rows"] == [["a | b", 60.08, None], ["much longer", 5.0, 100 / 3]]
    assert set(read) == {"name", "title", "columns", "rows", "notes"}


def test_a_picture_is_told_by_its_file():
    table = Table("f", "T", ("m",), (("x",),), picture=np.zeros((2, 2, 3), np.uint8))
    assert table.markdown().endswith("\n- picture: [f.png](f.png)\n")
    assert json.loads(json.dumps(table.to_dict()))["picture"] == "f.png"


def test_percent():
    assert [percent(x) for x in (0.5, None, np.nan)] == [50.0, None, None]
