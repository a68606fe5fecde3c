"""Filters, counts, and of what a classifier is unsure."""

from __future__ import annotations

import numpy as np
import pytest

from tagseg.errors import TagError
from tagseg.web.columns import Columns
from tagseg.web.views import classes, counts, described, doubt, shown


@pytest.fixture
def columns():
    """Photo a is a dog, b none, c unsure, d and e unseen; the class cat came last."""
    made = Columns("abcde")
    acts = [
        {"act": "class", "name": "dog"},
        {"act": "tag", "class": "dog", "on": True, "photos": ["a"]},
        {"act": "none", "photos": ["b"]},
        {"act": "unsure", "on": True, "photos": ["c"]},
        {"act": "class", "name": "cat"},
    ]
    for n, act in enumerate(acts, 1):
        made.apply({"n": n, **act})
    return made


def names(columns, show):
    return "".join(columns.names[i] for i in np.flatnonzero(shown(columns, show)))


def test_filters(columns):
    found = {show: names(columns, show) for show in ("all", "todo", "tagged", "none", "unsure")}
    assert found == {"all": "abcde", "todo": "de", "tagged": "a", "none": "b", "unsure": "c"}
    assert names(columns, "class-0") == "a"


def test_who_was_not_asked_for_a_class_that_came_later(columns):
    assert names(columns, "before-1") == "ab"
    assert names(columns, "before-0") == ""
    columns.apply({"n": 6, "act": "set", "tags": {"a": ["dog"]}})
    assert names(columns, "before-1") == "b"


@pytest.mark.parametrize("show", ["", "class-7", "class-", "before-x", "../etc", "class-0 "])
def test_there_is_no_other_filter(columns, show):
    with pytest.raises(TagError, match="no such filter"):
        shown(columns, show)


def test_counts(columns):
    assert counts(columns) == {"all": 5, "todo": 2, "tagged": 1, "none": 1, "unsure": 1}
    assert classes(columns) == [
        {"id": 0, "name": "dog", "photos": 1, "before": 0},
        {"id": 1, "name": "cat", "photos": 0, "before": 2},
    ]


def test_suggestions_are_for_photos_that_nobody_looked_at(columns):
    scores = np.full((5, 2), np.nan, np.float32)
    scores[0] = scores[3] = (0.2, 0.9)
    found = described(columns, [0, 3, 4], scores)
    assert [photo["suggested"] for photo in found] == [None, [(1, 0.9)], None]
    assert found[0]["tags"] == (0,)
    assert [photo["suggested"] for photo in described(columns, [3], None)] == [None]


def test_doubt_is_the_largest_entropy():
    scores = np.array([[0.5, 0.01], [0.9, 0.1], [0.001, 0.999], [np.nan, np.nan]], np.float32)
    found = doubt(scores)
    assert found[0] == pytest.approx(1.0)
    assert found[1] == pytest.approx(-(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1)), abs=1e-5)
    assert found.argsort().tolist() == [3, 2, 1, 0]
