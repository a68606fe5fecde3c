"""Acts on columns: what each does, and that all of it can be undone and done again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import TagError
from tagseg.web.columns import Columns, State
from tagseg.web.journal import Journal, entries_in

PHOTOS = ("a", "b", "c")


def after(*acts, photos=PHOTOS):
    columns = Columns(photos)
    for n, act in enumerate(acts, 1):
        columns.apply({"n": n, **act})
    return columns


def known(columns):
    """All that matters of columns: state and tags of each photo, and the classes."""
    photos = {
        name: (State(columns.state[i]).name, [columns.classes[c] for c in columns.tags_of(i)])
        for i, name in enumerate(columns.names)
    }
    return columns.class_names(), photos


def new(name):
    return {"act": "class", "name": name}


def tag(name, *photos, on=True):
    return {"act": "tag", "class": name, "on": on, "photos": list(photos)}


def test_tags_come_and_go():
    columns = after(new("dog"), new("cat"), tag("dog", "a", "b"), tag("cat", "a"))
    assert known(columns)[1]["a"] == ("decided", ["dog", "cat"])
    columns.apply({"n": 5, **tag("dog", "a", "b", on=False)})
    assert known(columns)[1] == {
        "a": ("decided", ["cat"]),
        "b": ("unseen", []),
        "c": ("unseen", []),
    }


def test_none_and_not_sure_and_not_looked_at():
    columns = after(
        new("dog"),
        tag("dog", "a", "b"),
        {"act": "none", "photos": ["a", "c"]},
        {"act": "unsure", "on": True, "photos": ["b", "c"]},
    )
    assert known(columns)[1] == {
        "a": ("decided", []),
        "b": ("unsure", ["dog"]),  # kept for later
        "c": ("unsure", []),
    }
    columns.apply({"n": 5, "act": "unsure", "on": False, "photos": ["b", "c"]})
    assert known(columns)[1]["b"] == ("decided", ["dog"])
    assert known(columns)[1]["c"] == ("unseen", [])
    columns.apply({"n": 6, "act": "clear", "photos": ["a", "b"]})
    assert known(columns)[1] == dict.fromkeys(PHOTOS, ("unseen", []))


def test_a_tag_decides_on_a_photo_that_was_not_sure():
    columns = after(new("dog"), {"act": "unsure", "on": True, "photos": ["a"]}, tag("dog", "a"))
    assert known(columns)[1]["a"] == ("decided", ["dog"])


def test_set_takes_the_place_of_all_tags():
    columns = after(new("dog"), new("cat"), tag("dog", "a"))
    columns.apply({"n": 4, "act": "set", "tags": {"a": ["cat"], "b": []}})
    assert known(columns)[1]["a"] == ("decided", ["cat"])
    assert known(columns)[1]["b"] == ("decided", [])


def test_classes_go_only_unused_and_leave_their_number():
    columns = after(new("dog"), new("cat"), tag("dog", "a"), {"act": "unclass", "name": "cat"})
    columns.apply({"n": 5, **new("bird")})
    assert columns.class_names() == ("dog", "bird")
    assert columns.class_number("bird") == 2
    with pytest.raises(TagError, match="entry 6 cannot be understood"):
        columns.apply({"n": 6, "act": "unclass", "name": "dog"})


def test_more_classes_than_were_foreseen():
    names = [f"class {i}" for i in range(30)]
    columns = after(*map(new, names), *(tag(name, "a") for name in names))
    assert known(columns)[1]["a"] == ("decided", names)
    columns.apply({"n": 61, "act": "undo", "of": 60})
    assert known(columns)[1]["a"] == ("decided", names[:-1])


def test_photos_that_are_gone_keep_what_was_said():
    columns = after(new("dog"), tag("dog", "a", "gone"))
    assert columns.here == 3
    assert known(columns)[1]["gone"] == ("decided", ["dog"])
    assert not columns.from_file.any()


def test_a_file_is_taken_over_and_cannot_be_undone():
    read = {"act": "read", "classes": ["dog"], "tags": {"a": ["dog"], "gone": []}, "gone": ["b"]}
    columns = after(new("cat"), tag("cat", "b"), read)
    assert known(columns)[1]["a"] == ("decided", ["dog"])
    assert known(columns)[1]["b"] == ("unseen", [])
    assert columns.from_file.tolist() == [True, False, False, True]
    assert not columns.undoable


@pytest.mark.parametrize(
    "entry",
    [
        {"act": "fly"},
        {"act": "tag", "class": "cow", "on": True, "photos": ["a"]},
        {"act": "tag", "class": "dog", "on": True},
        {"act": "tag", "class": "dog", "on": True, "photos": 3},
        {"act": "class", "name": "dog"},
        {"act": "class", "name": 5},
        {"act": "undo", "of": 7},
        {"act": "set", "tags": ["a"]},
        {},
    ],
)
def test_what_nobody_can_have_meant_is_refused(entry):
    with pytest.raises(TagError, match="entry 2 cannot be understood"):
        after(new("dog"), entry)


def test_labels_have_no_more_numbers():
    with pytest.raises(TagError, match="there are 254 classes"):
        after(*(new(str(i)) for i in range(255)))


photos = st.lists(st.sampled_from(PHOTOS), min_size=1, max_size=3)
acts = st.one_of(
    st.builds(lambda p, c, on: tag(c, *p, on=on), photos, st.sampled_from("xy"), st.booleans()),
    st.builds(lambda p: {"act": "none", "photos": p}, photos),
    st.builds(lambda p: {"act": "clear", "photos": p}, photos),
    st.builds(lambda p, on: {"act": "unsure", "on": on, "photos": p}, photos, st.booleans()),
    st.builds(lambda p: {"act": "set", "tags": {name: ["y"] for name in p}}, photos),
    st.just(new("z")),
    st.just({"act": "unclass", "name": "z"}),
    st.just({"act": "undo"}),
)


def legal(columns, act):
    """The act as it can be done now, or None."""
    if act["act"] == "undo":
        return {"act": "undo", "of": columns.undoable[-1].n} if columns.undoable else None
    has_z = "z" in columns.class_names()
    if act.get("name") == "z" and has_z == (act["act"] == "class"):
        return None
    used = {act.get("class")} | {c for names in act.get("tags", {}).values() for c in names}
    return act if used - {None} <= {*columns.class_names()} else None


@settings(max_examples=40, deadline=None)
@given(wanted=st.lists(acts, max_size=12), data=st.data())
def test_any_prefix_of_a_journal_is_an_earlier_state(tmp_path_factory, wanted, data):
    path = tmp_path_factory.mktemp("journal") / "tags.journal"
    journal, columns = Journal(path), Columns(PHOTOS)
    states = [known(columns)]
    for act in [new("x"), new("y"), *wanted]:
        act = legal(columns, act)
        if act is not None:
            columns.apply(journal.append(act))
            states.append(known(columns))
    journal.close()
    whole = path.read_bytes()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    path.write_bytes(cut)
    again, reopened = Columns(PHOTOS), Journal(path)
    for entry in reopened.entries():
        again.apply(entry)
    reopened.close()
    assert known(again) == states[max(0, cut.count(b"\n") - 1)]
    assert len(entries_in(path.read_bytes(), path)) == max(1, cut.count(b"\n"))


@settings(max_examples=60, deadline=None)
@given(wanted=st.lists(acts, max_size=12))
def test_everything_can_be_undone_step_by_step(wanted):
    columns = Columns(PHOTOS)
    states = [known(columns)]
    n = 0
    for act in [new("x"), new("y"), *wanted]:
        act = legal(columns, act)
        if act is None:
            continue
        n += 1
        columns.apply({"n": n, **json.loads(json.dumps(act))})
        if act["act"] == "undo":
            states.pop()
            assert known(columns) == states[-1]
        else:
            states.append(known(columns))
    while columns.undoable:
        n += 1
        columns.apply({"n": n, "act": "undo", "of": columns.undoable[-1].n})
        states.pop()
        assert known(columns) == states[-1]
    assert not columns.tags.any()
    assert not columns.state.any()
    assert len(states) == 1


def test_what_an_act_touches_is_known():
    columns = after(new("dog"), tag("dog", "b"))
    assert columns.touched.tolist() == [0, 2, 0]
    assert columns.looked.tolist() == [0, 2, 0]
    columns.apply({"n": 3, "act": "undo", "of": 2})
    assert columns.touched.tolist() == [0, 3, 0]  # pages have to hear of it
    assert columns.looked.tolist() == [0, 0, 0]  # and nobody has looked
    assert np.array_equal(columns.has_tag(), [False] * 3)
