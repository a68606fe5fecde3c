"""What is looked at of builtin_priors; the tables that come of it are in test_checkmask."""

from __future__ import annotations

from tagseg.tables.builtin_checkmask import CHECKED
from tagseg.tables.builtin_priors import TABLE_6


def test_it_is_the_papers_best_row_that_is_checked():
    assert {**TABLE_6[-1].changes, "candidates": True} == CHECKED
