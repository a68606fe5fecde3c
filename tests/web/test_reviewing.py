"""Reviewing a run: every act is on disk before it is told, and comes back."""

from __future__ import annotations

import base64
from itertools import pairwise

import numpy as np
import pytest

from review_runs import CLASSES, labels_for, make_run, opened, reviewing_of
from tagseg.data.masks import encode_mask
from tagseg.errors import MaskError, TagError, TagsegError, WorkspaceError
from tagseg.formats.review import Accepted, Rejected, read_review, read_reviewed_mask, standing_acts
from tagseg.maps import IGNORE
from tagseg.run.workspace import Workspace
from tagseg.web.reviewing import Reviewing

A, B, C, D = range(4)
CAT, DOG = range(2)


@pytest.fixture
def made(tmp_path):
    return make_run(tmp_path)


@pytest.fixture
def reviewing(made):
    with reviewing_of(made) as opened:
        yield opened


def standing(made):
    review = read_review(made.run / "review.jsonl")
    return review, standing_acts(review.acts)


def mask_of(made, name):
    review, found = standing(made)
    return read_reviewed_mask(review, found[name].mask, (24, 32))


def png(labels):
    return base64.b64encode(encode_mask(labels)).decode()


def test_right_copies_the_mask_as_it_is_shown(reviewing, made):
    assert reviewing.act({"act": "right", "photo": A}) == "right (a)"
    assert mask_of(made, "a").tolist() == labels_for(("cat",)).tolist()
    assert reviewing.described([A])[0]["state"] == "right"
    assert reviewing.counts() | {} == {
        **dict.fromkeys(("pick", "corrected", "wrong", "unsure", "tags"), 0),
        "right": 1,
        "todo": 4,
        "all": 5,
    }


def test_a_candidate_that_is_picked_is_named(reviewing, made):
    assert reviewing.act({"act": "pick", "photo": C, "candidate": 2}) == (
        "picked first-labels/labels (c)"
    )
    _, found = standing(made)
    assert found["c"].mask.candidate == "first-labels/labels"
    assert mask_of(made, "c").tolist() == reviewing.shown.candidate(C, 2).tolist()
    assert reviewing.mask(C, "now").tolist() == reviewing.shown.candidate(C, 2).tolist()


def test_a_drawn_mask_is_kept_to_the_pixel(reviewing, made):
    labels = labels_for(("dog",))
    labels[0, 0], labels[1, 1] = 1, IGNORE
    assert reviewing.act({"act": "corrected", "photo": B, "png": png(labels)}) == "corrected (b)"
    assert mask_of(made, "b").tolist() == labels.tolist()


def test_wrong_not_sure_and_clear(reviewing, made):
    reviewing.act({"act": "wrong", "photo": A})
    reviewing.act({"act": "unsure", "photo": B})
    reviewing.act({"act": "wrong", "photo": C})
    reviewing.act({"act": "clear", "photo": C})
    states = [each["state"] for each in reviewing.described([A, B, C])]
    assert states == ["wrong", "unsure", "todo"]
    _, found = standing(made)
    assert list(found) == ["a"]
    assert isinstance(found["a"].mask, Rejected)


def test_tags_state_the_whole_difference(reviewing, made):
    reviewing.act({"act": "tag", "photo": A, "class": DOG})
    reviewing.act({"act": "tag", "photo": A, "class": CAT})
    _, found = standing(made)
    assert (found["a"].tags.add, found["a"].tags.remove) == (("dog",), ("cat",))
    described = reviewing.described([A])[0]
    assert [described[key] for key in ("tags", "added", "removed")] == [[DOG], [DOG], [CAT]]
    assert described["state"] == "todo"  # of the mask nothing was said
    reviewing.act({"act": "tag", "photo": A, "class": CAT})
    reviewing.act({"act": "tag", "photo": A, "class": DOG})
    assert reviewing.counts()["tags"] == 0


def test_a_class_that_is_taken_off_leaves_the_mask_not_sure(reviewing, made):
    reviewing.act({"act": "tag", "photo": C, "class": DOG})
    reviewing.act({"act": "right", "photo": C})
    both, kept = labels_for(("cat", "dog")), mask_of(made, "c")
    assert np.array_equal(kept == IGNORE, both == 2)
    with pytest.raises(TagError, match="dog, which you took off"):
        reviewing.act({"act": "corrected", "photo": C, "png": png(both)})


def test_and_so_does_one_that_is_taken_off_an_accepted_mask(reviewing, made):
    reviewing.act({"act": "right", "photo": C})
    reviewing.act({"act": "tag", "photo": C, "class": DOG})
    assert not (mask_of(made, "c") == 2).any()
    assert reviewing.described([C])[0]["state"] == "corrected"
    reviewing.act({"act": "undo", "of": reviewing.news(-1)["undo"]["n"]})
    assert mask_of(made, "c").tolist() == labels_for(("cat", "dog")).tolist()
    assert reviewing.described([C])[0]["state"] == "right"
    assert reviewing.counts()["tags"] == 0


def test_not_sure_keeps_what_was_said_of_the_tags(reviewing, made):
    reviewing.act({"act": "tag", "photo": A, "class": DOG})
    reviewing.act({"act": "unsure", "photo": A})
    _, found = standing(made)
    assert found["a"].tags.add == ("dog",)
    assert found["a"].mask is None


def test_undo_across_a_restart(made):
    with reviewing_of(made) as first:
        first.act({"act": "right", "photo": A})
        first.act({"act": "tag", "photo": A, "class": DOG})
        first.act({"act": "wrong", "photo": A})
    with reviewing_of(made) as second:
        seen = []
        while second.news(-1)["undo"]:
            assert second.act({"act": "undo", "of": second.news(-1)["undo"]["n"]}) == "undone"
            item = second.described([A])[0]
            seen.append((item["state"], item["added"]))
        assert seen == [("right", [DOG]), ("right", []), ("todo", [])]
        assert standing(made)[1] == {}
        with pytest.raises(TagError, match="nothing to undo"):
            second.act({"act": "undo", "of": 1})


def test_undo_of_what_another_page_did_is_asked_again(reviewing):
    reviewing.act({"act": "wrong", "photo": A})
    mine = reviewing.news(-1)["undo"]["n"]
    reviewing.act({"act": "wrong", "photo": B})
    with pytest.raises(TagError, match="another page"):
        reviewing.act({"act": "undo", "of": mine})


def test_a_wish_is_granted_once(reviewing, made):
    for _ in range(2):
        reviewing.act({"act": "tag", "photo": A, "class": DOG, "wish": "x-1"})
    assert len(read_review(made.run / "review.jsonl").acts) == 1


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"act": "fly", "photo": A},
        {"act": ["right"], "photo": A},
        {"act": "right"},
        {"act": "right", "photo": 99},
        {"act": "right", "photo": -1},
        {"act": "right", "photo": True},
        {"act": "right", "photo": "0"},
        {"act": "pick", "photo": A},
        {"act": "pick", "photo": A, "candidate": 9},
        {"act": "pick", "photo": A, "candidate": -1},
        {"act": "tag", "photo": A, "class": 2},
        {"act": "tag", "photo": A, "class": "cat"},
        {"act": "corrected", "photo": A},
        {"act": "corrected", "photo": A, "png": png(np.zeros((3, 3), np.uint8))},
        {"act": "undo"},
    ],
)
def test_what_cannot_be_done_leaves_nothing(reviewing, made, wanted):
    before = (made.run / "review.jsonl").read_bytes()
    with pytest.raises(TagsegError):
        reviewing.act(wanted)
    assert (made.run / "review.jsonl").read_bytes() == before
    assert not list((made.run / "review").glob("*.png"))


def test_an_act_that_cannot_be_written_is_not_done(reviewing, made, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    before = (made.run / "review.jsonl").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("tagseg.web.append_only.os.fsync", full)
        with pytest.raises(WorkspaceError, match="No space left"):
            reviewing.act({"act": "wrong", "photo": A})
    assert reviewing.described([A])[0]["state"] == "todo"
    assert (made.run / "review.jsonl").read_bytes() == before
    reviewing.act({"act": "wrong", "photo": A})


def test_a_run_that_is_trained_meanwhile_is_told(reviewing, made):
    with Workspace.open(made.run, recipe="union", settings={}, classes=CLASSES) as work:
        work.stage("masks", config={"other": 1}, inputs=["photos"])
        with pytest.raises(WorkspaceError, match="trained again meanwhile"):
            reviewing.act({"act": "right", "photo": A})


def test_the_least_trusted_come_first(reviewing):
    assert reviewing.view("all", order="trust").tolist() == [C, B, A, 4, D]
    assert reviewing.view("all").tolist() == [A, B, C, D, 4]
    assert reviewing.view("class-0", order="trust").tolist() == [C, A, 4]
    assert reviewing.view("all", "B").tolist() == [B]
    reviewing.act({"act": "wrong", "photo": B})
    reviewing.act({"act": "tag", "photo": A, "class": DOG})
    shown = {show: reviewing.view(show).tolist() for show in ("todo", "done", "wrong", "tags")}
    assert shown == {"todo": [A, C, D, 4], "done": [B], "wrong": [B], "tags": [A]}
    with pytest.raises(TagError, match="no such filter"):
        reviewing.view("class-2")


def test_trust_is_computed_in_the_background_where_no_judge_says_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = make_run(tmp_path / "x", judge=False)
    with reviewing_of(made) as first:
        assert first._trust.wait(20)
        ordered = first.trust()[first.view("all", order="trust")]
        assert all(a <= b for a, b in pairwise(ordered))
        assert first.news(-1)["scored"] == 5
    assert len(list((tmp_path / "cache" / "tagseg" / "review").glob("*.npz"))) == 1


def test_news_are_of_what_came_after(reviewing):
    reviewing.act({"act": "wrong", "photo": A})
    n = reviewing.news(-1)["n"]
    reviewing.act({"act": "wrong", "photo": B})
    assert [item["id"] for item in reviewing.news(n)["photos"]] == [B]
    assert reviewing.news(n + 1)["photos"] == []
    assert [c["name"] for c in reviewing.news(n)["classes"]] == ["cat", "dog"]


def test_one_server_at_a_time(reviewing, made):
    with pytest.raises(WorkspaceError, match="in use"):
        Reviewing(opened(made), made.run / "review.jsonl")
    with reviewing_of(made, made.run / "other.jsonl") as other:
        assert other.act({"act": "wrong", "photo": A})


def test_half_an_act_is_left_out_and_told(made):
    with reviewing_of(made) as first:
        first.act({"act": "wrong", "photo": A})
    path = made.run / "review.jsonl"
    path.write_bytes(path.read_bytes() + b'{"photo": "b", "at"')
    with reviewing_of(made) as second:
        assert any("half written" in note for note in second.notes)
        assert second.described([A, B])[1]["state"] == "todo"


def test_a_changed_mask_file_is_told_and_not_shown(reviewing, made):
    reviewing.act({"act": "right", "photo": A})
    mask = next((made.run / "review").glob("*.png"))
    mask.write_bytes(encode_mask(labels_for(("dog",))))
    with pytest.raises(MaskError, match="not the mask that was accepted"):
        reviewing.mask(A, "now")


def test_masks_of_objects_have_no_tags_to_change(tmp_path):
    made = make_run(tmp_path, {"a": ("cat",), "b": ("cat",), "c": ("cat",)})
    (made.photos / "tags.csv").write_text("image,tags\na.png,dog\nb.png,dog\nc.png,dog\n")
    with reviewing_of(made) as reviewing:
        with pytest.raises(TagError, match="tell no classes"):
            reviewing.act({"act": "tag", "photo": A, "class": 0})
        reviewing.act({"act": "right", "photo": A})
        assert not reviewing.started()["byClass"]
    review, found = standing(made)
    assert review.classes == ("foreground",)
    assert isinstance(found["a"].mask, Accepted)
