"""review.jsonl while it grows: whole deeds count, and any reader understands what is left."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tagseg.errors import ConfigError, DataError
from tagseg.formats.review import (
    Accepted,
    Cleared,
    Rejected,
    Retagged,
    head_line,
    read_review,
)
from tagseg.web.review_log import Deed, ReviewLog

CLASSES = ("cat", "dog")
AT = datetime(2026, 11, 30, 10, tzinfo=UTC)
WRONG = Deed((Rejected(photo="a", at=AT),))
BOTH = Deed((Cleared(photo="b", at=AT), Retagged(photo="b", at=AT, add=("dog",))), unsure=True)
UNDO = Deed((Cleared(photo="a", at=AT),), undo=True)


def log_of(path, classes=CLASSES):
    return ReviewLog(path, "run", classes)


def deeds_in(path):
    log = log_of(path)
    log.close()
    return log.deeds


def written(path, *deeds):
    log = log_of(path)
    for deed in deeds:
        log.append(deed)
    log.close()
    return path


def test_deeds_come_back(tmp_path):
    path = written(tmp_path / "r.jsonl", WRONG, BOTH, UNDO)
    again = log_of(path)
    assert again.deeds == (WRONG, BOTH, UNDO)
    assert again.dropped == 0
    again.append(WRONG)
    again.close()
    assert deeds_in(path) == (WRONG, BOTH, UNDO, WRONG)


def test_any_reader_sees_acts(tmp_path):
    path = written(tmp_path / "r.jsonl", WRONG, BOTH, UNDO)
    found = read_review(path)
    assert (found.run, found.classes, found.notes) == ("run", CLASSES, ())
    assert found.acts == (*WRONG.acts, *BOTH.acts, *UNDO.acts)


def test_at_every_byte_of_a_kill_whole_deeds_are_left(tmp_path):
    path = written(tmp_path / "r.jsonl", WRONG, BOTH, UNDO)
    content, every = path.read_bytes(), (WRONG, BOTH, UNDO)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        log = log_of(path)
        assert log.deeds == every[: len(log.deeds)]
        log.append(WRONG)
        log.close()
        again = log_of(path)
        again.close()
        assert again.deeds == (*log.deeds, WRONG)
        assert again.dropped == 0


def test_lines_without_what_belongs_to_them_do_not_count(tmp_path):
    path = written(tmp_path / "r.jsonl", WRONG, BOTH)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"\n", 0, -1) + 1])  # the first line of BOTH is there
    log = log_of(path)
    log.close()
    assert log.deeds == (WRONG,)
    assert log.dropped > 0


def test_a_review_that_somebody_else_wrote_is_taken_up(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(
        '{"tagseg_review": 1, "run": "x", "classes": ["cat", "dog"]}\n\n'
        '{"photo": "a", "at": "2026-11-30T10:00:00Z", "act": "wrong", "by": "me"}\n'
    )
    assert deeds_in(path) == (WRONG,)


def test_a_first_line_without_an_end_is_written_again(tmp_path):
    path = tmp_path / "review.jsonl"
    path.write_bytes(b'{"classes":["cat","dog"],"tagseg_review":1,"run":"pets"}')
    log = ReviewLog(path, "pets", ("cat", "dog"))
    log.close()
    assert (log.deeds, log.dropped) == ((), 56)
    assert path.read_bytes() == head_line("pets", ("cat", "dog"))


def test_damage_and_other_classes_are_one_line(tmp_path):
    path = written(tmp_path / "r.jsonl", WRONG, BOTH)
    with pytest.raises(ConfigError, match=r"of other classes .* --out"):
        log_of(path, ("cat",))
    path.write_bytes(path.read_bytes().replace(b'"wrong"', b'"wrnog"'))
    with pytest.raises(DataError, match="line 2"):
        log_of(path)
    path.write_text("photo,mask\n")
    with pytest.raises(DataError, match="no review"):
        log_of(path)


names = st.sampled_from(["a", "b", "ä/x"])
acts = st.one_of(
    st.builds(Rejected, photo=names, at=st.just(AT)),
    st.builds(Cleared, photo=names, at=st.just(AT)),
    st.builds(Retagged, photo=names, at=st.just(AT), add=st.just(("cat",))),
    st.builds(
        Accepted,
        photo=names,
        at=st.just(AT),
        how=st.just("right"),
        mask=st.just("r/a-1.png"),
        sha256=st.just("0" * 64),
    ),
)
deeds = st.builds(
    Deed,
    st.lists(acts, min_size=1, max_size=3).map(tuple),
    undo=st.booleans(),
    unsure=st.booleans(),
)


@given(wanted=st.lists(deeds, max_size=6))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_written_comes_back(tmp_path, wanted):
    path = tmp_path / "r.jsonl"
    path.unlink(missing_ok=True)
    written(path, *wanted)
    log = log_of(path)
    log.close()
    assert log.deeds == tuple(wanted)
