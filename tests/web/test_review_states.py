"""What counts of a photo, and undo: the page and any reader of the file agree at every step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.formats.review import Accepted, Cleared, Rejected, Retagged, standing_acts
from tagseg.web.review_log import Deed
from tagseg.web.review_states import NOTHING, STATES, Said, States, undoing

AT = datetime(2026, 11, 30, 10, tzinfo=UTC)
TAGS = np.array([[True, False], [False, False]])


def states():
    return States(("a", "b"), ("cat", "dog"), TAGS)


def accepted(how="right", photo="a", at=AT):
    return Accepted(
        photo=photo,
        at=at,
        how=how,
        mask="r/x.png",
        sha256="0" * 64,
        candidate="x" if how == "pick" else None,
    )


def retagged(photo="a", at=AT, **changed):
    return Retagged(photo=photo, at=at, **changed)


@pytest.mark.parametrize(
    ("deed", "state"),
    [
        (Deed((accepted(),)), "right"),
        (Deed((accepted("pick"),)), "pick"),
        (Deed((accepted("corrected"),)), "corrected"),
        (Deed((Rejected(photo="a", at=AT),)), "wrong"),
        (Deed((Cleared(photo="a", at=AT),), unsure=True), "unsure"),
        (Deed((Cleared(photo="a", at=AT),)), "todo"),
        (Deed((retagged(add=("dog",)),)), "todo"),
    ],
)
def test_states(deed, state):
    now = states()
    now.apply(deed)
    assert STATES[now.state[0]] == state
    assert now.touched.tolist() == [1, 0]


def test_tags_state_the_whole_difference():
    now = states()
    now.apply(Deed((retagged(add=("dog",), remove=("cat",)),)))
    assert now.tags.tolist() == [[False, True], [False, False]]
    assert now.has_other_tags().tolist() == [True, False]
    now.apply(Deed((retagged(add=("dog",)),)))
    assert now.tags[0].tolist() == [True, True]
    now.apply(Deed((retagged(),)))
    assert not now.has_other_tags().any()
    assert now.said(0).tags is None


def test_a_mask_ends_being_unsure():
    now = states()
    now.apply(Deed((Cleared(photo="a", at=AT), retagged(add=("dog",))), unsure=True))
    assert now.said(0) == Said(None, retagged(add=("dog",)), True)
    now.apply(Deed((accepted(),)))
    assert now.said(0) == Said(accepted(), retagged(add=("dog",)), False)


def test_undo_goes_back_step_by_step():
    now = states()
    steps = [
        Deed((accepted(),)),
        Deed((retagged(add=("dog",)),)),
        Deed((Rejected(photo="a", at=AT),)),
        Deed((Cleared(photo="a", at=AT),), unsure=True),
    ]
    seen = [now.said(0)]
    for step in steps:
        now.apply(step)
        seen.append(now.said(0))
    for before in reversed(seen[:-1]):
        now.apply(undoing(now, AT))
        assert now.said(0) == before
    assert now.said(0) == NOTHING
    assert not now.undoable


def test_photos_that_are_not_here_are_passed_over():
    now = states()
    now.apply(Deed((accepted(photo="gone"),)))
    assert now.n == 1
    assert not now.state.any()
    assert not now.undoable


kinds = st.sampled_from(["right", "pick", "wrong", "tags", "none", "clear", "unsure", "undo"])


@given(wanted=st.lists(st.tuples(kinds, st.sampled_from("ab")), max_size=14))
@settings(max_examples=150, deadline=None)
def test_a_reader_of_the_file_sees_what_the_page_does(wanted):
    now, lines = states(), []
    for number, (kind, photo) in enumerate(wanted):
        at = AT + timedelta(seconds=number)
        if kind == "undo":
            if not now.undoable:
                continue
            deed = undoing(now, at)
        else:
            acts = {
                "right": (accepted("right", photo, at),),
                "pick": (accepted("pick", photo, at),),
                "wrong": (Rejected(photo=photo, at=at),),
                "tags": (retagged(photo, at, add=("dog",)),),
                "none": (retagged(photo, at),),
                "clear": (Cleared(photo=photo, at=at),),
                "unsure": (Cleared(photo=photo, at=at),),
            }
            deed = Deed(acts[kind], unsure=kind == "unsure")
        now.apply(deed)
        lines += deed.acts
        _check_alike(now, lines)


def _check_alike(now, lines):
    found = standing_acts(lines)
    for photo, name in enumerate(now.names):
        said, read = now.said(photo), found.get(name)
        kinds = [type(said.mask), getattr(said.mask, "how", None)]
        mask = read.mask if read is not None else None
        assert kinds == [type(mask), getattr(mask, "how", None)]
        tags = read.tags if read is not None else None
        assert said.tags is None or tags is not None
        if tags is not None:
            assert (said.tags is not None) == bool(tags.add or tags.remove)
