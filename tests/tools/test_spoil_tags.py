"""Tags that are spoiled on purpose: how many, which, and that it is written down."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import ConfigError, TagError
from tagseg.formats.tags.tag_files import read_tag_file
from tool_modules import load_tool

CLASSES = ("cat", "cow", "dog", "sheep")
TAGS = {f"{i}.jpg": (CLASSES[i % 4], CLASSES[(i + 1) % 4]) for i in range(20)}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("spoil_tags")


def test_a_fraction_is_removed(tool):
    found, changes = tool.spoiled(TAGS, CLASSES, tool.Noise(remove=0.25))
    assert sum(map(len, found.values())) == 30
    assert len(changes) == 10
    assert all(set(own) < set(TAGS[name]) or own == TAGS[name] for name, own in found.items())
    assert {change.now for change in changes} == {""}


def test_symmetric_noise_takes_classes_that_the_photo_does_not_have(tool):
    found, changes = tool.spoiled(TAGS, CLASSES, tool.Noise(wrong=0.5))
    assert len(changes) == 20
    assert sum(map(len, found.values())) == 40
    assert all(len(set(own)) == len(own) for own in found.values())
    assert all(change.was != change.now for change in changes)
    assert len({(change.was, change.now) for change in changes}) > 4


def test_near_noise_takes_the_next_class(tool):
    near = tool.next_in_list(CLASSES)
    tags = {name: own[:1] for name, own in TAGS.items()}
    _, changes = tool.spoiled(tags, CLASSES, tool.Noise(wrong=1.0, near=near))
    assert len(changes) == 20
    assert {(c.was, c.now) for c in changes} == set(zip(CLASSES, (*CLASSES[1:], "cat")))  # noqa: B905


@given(st.integers(0, 2**31), st.floats(0, 0.5), st.floats(0, 0.5))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_the_record_tells_every_change(seed, remove, wrong):
    tool = load_tool("spoil_tags")
    found, changes = tool.spoiled(TAGS, CLASSES, tool.Noise(remove, wrong), seed=seed)
    assert (found, changes) == tool.spoiled(TAGS, CLASSES, tool.Noise(remove, wrong), seed=seed)
    count = sum(map(len, found.values()))
    assert count == 40 - sum(not change.now for change in changes)
    untouched = TAGS.keys() - {change.image for change in changes}
    assert all(found[name] == TAGS[name] for name in untouched)


def test_only_listed_photos_change(tool):
    only = ["1.jpg", "2.jpg"]
    _, changes = tool.spoiled(TAGS, CLASSES, tool.Noise(remove=0.5), only=only)
    assert len(changes) == 2
    assert {change.image for change in changes} <= set(only)


def test_more_than_all_is_refused(tool):
    with pytest.raises(ConfigError):
        tool.spoiled(TAGS, CLASSES, tool.Noise(0.7, 0.7))


def test_the_program_writes_files_that_are_read(tool, tmp_path: Path, monkeypatch, capsys):
    rows = "".join(f"{name},{';'.join(own)}\n" for name, own in TAGS.items())
    (tmp_path / "tags.csv").write_text(f"image,tags\n{rows}", encoding="utf-8")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    (tmp_path / "train.txt").write_text("\n".join(map(str, range(10))), encoding="utf-8")
    (tmp_path / "near.txt").write_text("cat,dog\ncow,sheep\n", encoding="utf-8")
    words = ["spoil_tags", str(tmp_path / "tags.csv"), str(tmp_path / "out.csv"), "--wrong", "0.5"]
    words += ["--kind", "near", "--near", str(tmp_path / "near.txt")]
    words += ["--only", str(tmp_path / "train.txt")]
    monkeypatch.setattr(sys, "argv", words)
    tool.main()
    found = {row.image: row.tags for row in read_tag_file(tmp_path / "out.csv").rows}
    with (tmp_path / "out.csv.record.csv").open(newline="", encoding="utf-8") as file:
        record = list(csv.DictReader(file))
    assert f"{len(record)} tags changed" in capsys.readouterr().out
    assert record
    assert {(row["was"], row["now"]) for row in record} <= {("cat", "dog"), ("cow", "sheep")}
    for row in record:
        assert row["now"] in found[row["image"]]
        assert row["was"] not in found[row["image"]]
    assert all(found[f"{i}.jpg"] == TAGS[f"{i}.jpg"] for i in range(10, 20))


def test_pairs_of_unknown_classes_are_refused(tool, tmp_path: Path):
    (tmp_path / "near.txt").write_text("cat,unicorn\n", encoding="utf-8")
    with pytest.raises(TagError, match="'cat,unicorn' is no pair of classes"):
        tool.read_near(tmp_path / "near.txt", CLASSES)
