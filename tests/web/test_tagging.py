"""Tagging a folder: what is kept through kills, edits by others, and two pages at once."""

from __future__ import annotations

import errno
import os
import threading
import time

import numpy as np
import pytest

from tagseg.errors import ConfigError, DataError, TagError, WorkspaceError
from tagseg.formats.loading import load_dataset
from tagseg.web.photo_folder import open_folder
from tagseg.web.tagging import Begin, Tagging
from web_pages import killed, tagging_of, write_photos


@pytest.fixture
def folder(tmp_path):
    return write_photos(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg", "d.jpg")


def tag(tagging, number, *photos, **more):
    return tagging.act({"act": "tag", "class": number, "photos": list(photos), **more})


def with_dogs(tagging):
    """a is a dog, b holds none, c is not sure; d is not looked at."""
    tagging.act({"act": "class", "name": "dog"})
    assert tag(tagging, 0, 0) == "dog on 1 photo"
    tagging.act({"act": "none", "photos": [1]})
    tagging.act({"act": "unsure", "photos": [2]})


def states(tagging):
    return [(photo["state"], photo["tags"]) for photo in tagging.described(range(4))]


DOGS = [("decided", (0,)), ("decided", ()), ("unsure", ()), ("unseen", ())]


def test_the_files_are_what_train_reads(folder):
    with tagging_of(folder) as tagging:
        with_dogs(tagging)
    assert (folder / "tags.csv").read_text() == "image,tags\na.jpg,dog\nb.jpg,\n"
    assert (folder / "classes.txt").read_text() == "dog\n"
    found = load_dataset(folder, untagged="negative")
    assert found.names == ("a", "b")
    assert found.tags.tolist() == [[True], [False]]
    assert found.known.all()
    assert found.unlisted == 2  # not sure, and not looked at


def test_nothing_is_written_before_anything_is_said(folder):
    with tagging_of(folder):
        pass
    assert {path.name for path in folder.iterdir()} - {".lock", "tags.journal"} == {
        "a.jpg",
        "b.jpg",
        "c.jpg",
        "d.jpg",
    }


def test_a_kill_loses_nothing(folder):
    tagging = Tagging(open_folder(folder))
    with_dogs(tagging)
    killed(tagging)
    assert not (folder / "tags.csv").exists()
    with tagging_of(folder) as again:
        assert states(again) == DOGS
        assert (folder / "tags.csv").read_text() == "image,tags\na.jpg,dog\nb.jpg,\n"
        again.act({"act": "undo", "of": again.news(0)["undo"]["n"]})  # of before the kill
        assert states(again)[2] == ("unseen", ())


def test_a_half_written_act_is_dropped_and_said(folder):
    tagging = Tagging(open_folder(folder))
    with_dogs(tagging)
    killed(tagging)
    with (folder / "tags.journal").open("ab") as file:
        file.write(b'{"n":5,"act":"no')
    with tagging_of(folder) as again:
        assert any("the last act was only half written" in note for note in again.notes)
        assert states(again) == DOGS


def test_the_tag_file_follows_by_itself(folder):
    with tagging_of(folder) as tagging:
        with_dogs(tagging)
        until = time.monotonic() + 10
        while not (folder / "tags.csv").exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert "a.jpg,dog" in (folder / "tags.csv").read_text()


def test_what_others_change_in_the_tag_file_is_taken_over(folder):
    with tagging_of(folder) as tagging:
        with_dogs(tagging)
    (folder / "tags.csv").write_text("image,tags\na.jpg,dog;cat\nd.jpg,cat\n")
    with pytest.raises(TagError, match="'cat' is not in the class list"):
        Tagging(open_folder(folder))  # as train says
    (folder / "classes.txt").write_text("dog\ncat\n")
    with tagging_of(folder) as again:
        assert any("changed by others: 3 photos" in note for note in again.notes)
        assert states(again) == [
            ("decided", (0, 1)),
            ("unseen", ()),
            ("unsure", ()),
            ("decided", (1,)),
        ]
    assert (folder / "classes.txt").read_text() == "dog\ncat\n"


def test_acts_that_came_after_the_tag_file_outlive_a_change_by_others(folder):
    with tagging_of(folder) as tagging:
        with_dogs(tagging)
    tagging = Tagging(open_folder(folder))
    tag(tagging, 0, 3)
    killed(tagging)  # before the tag file had it
    (folder / "tags.csv").write_text("image,tags\na.jpg,\nb.jpg,\n")
    with tagging_of(folder) as again:
        assert states(again) == [
            ("decided", ()),
            ("decided", ()),
            ("unsure", ()),
            ("decided", (0,)),
        ]


def test_a_tag_file_that_is_there_is_begun_with_and_kept(folder):
    (folder / "tags.csv").write_text("image,tags\nb,cow\ngone.jpg,cow;owl\na.jpg,\n")
    with tagging_of(folder) as tagging:
        assert [c["name"] for c in tagging.news(0)["classes"]] == ["cow", "owl"]
        assert states(tagging)[:2] == [("decided", ()), ("decided", (0,))]
        assert tagging.news(0)["undo"] is None
        tag(tagging, 1, 2)
    text = (folder / "tags.csv").read_text()
    assert text == "image,tags\na.jpg,\nb.jpg,cow\nc.jpg,owl\ngone,cow;owl\n"


def test_a_tagged_photo_that_goes_leaves_the_tag_file_and_comes_back(folder):
    with tagging_of(folder) as tagging:
        with_dogs(tagging)
    (folder / "a.jpg").rename(folder.parent / "a.jpg")
    with tagging_of(folder) as again:
        assert any("1 tagged photos are not here any more: a" in note for note in again.notes)
    assert (folder / "tags.csv").read_text() == "image,tags\nb.jpg,\n"
    (folder.parent / "a.jpg").rename(folder / "a.jpg")
    with tagging_of(folder) as again:
        assert states(again) == DOGS


def test_a_tag_file_that_is_removed_is_written_again(folder):
    with tagging_of(folder) as tagging:
        with_dogs(tagging)
    (folder / "tags.csv").unlink()
    with tagging_of(folder) as again:
        assert any("was gone" in note for note in again.notes)
    assert "a.jpg,dog" in (folder / "tags.csv").read_text()


def test_tags_of_another_file_are_begun_with_if_asked_for(folder):
    file = folder / "metadata.jsonl"
    file.write_text('{"file_name": "a.jpg", "tags": ["cat"]}\n')
    with pytest.raises(TagError, match=r"are in metadata.jsonl.*--tags"):
        Tagging(open_folder(folder))
    with tagging_of(folder, Begin(tags=file)) as tagging:
        assert states(tagging)[0] == ("decided", (0,))
    assert (folder / "tags.csv").read_text() == "image,tags\na.jpg,cat\n"
    with pytest.raises(ConfigError, match="comes too late"):
        Tagging(open_folder(folder), Begin(tags=file))


def test_classes_of_a_list_come_in_its_order_and_are_no_acts(folder):
    file = folder.parent / "list.txt"
    file.write_text("zebra\ncow\n")
    with tagging_of(folder, Begin(classes=file)) as tagging:
        news = tagging.news(0)
        assert [each["name"] for each in news["classes"]] == ["zebra", "cow"]
        assert news["undo"] is None


def test_one_process_at_a_time(folder):
    with tagging_of(folder), pytest.raises(WorkspaceError, match="in use by process") as found:
        Tagging(open_folder(folder))
    assert "wait for it, or end it" in str(found.value)
    with tagging_of(folder):
        pass  # it is free again


def test_a_folder_that_cannot_be_written_is_told_at_once(folder, monkeypatch):
    def refuse(*args, **more):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    with pytest.raises(WorkspaceError, match=r"Read-only file system; choose a place"):
        Tagging(open_folder(folder))


def test_an_act_that_cannot_be_written_is_not_done(folder, monkeypatch):
    with tagging_of(folder) as tagging:
        with_dogs(tagging)

        def full(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("tagseg.web.append_only.os.fsync", full)
            with pytest.raises(WorkspaceError, match="No space left"):
                tag(tagging, 0, 3)
        assert states(tagging) == DOGS
        assert tag(tagging, 0, 3)
    assert "d.jpg,dog" in (folder / "tags.csv").read_text()


def test_a_wish_that_is_sent_again_is_granted_once(folder):
    with tagging_of(folder) as tagging:
        with_dogs(tagging)
        for _ in range(2):
            tag(tagging, 0, 3, wish="tab-1")
        assert states(tagging)[3] == ("decided", (0,))


def test_another_page_hears_what_was_done(folder):
    with tagging_of(folder) as tagging:
        with_dogs(tagging)
        since = tagging.news(0)["n"]
        tag(tagging, 0, 1, 3)
        news = tagging.news(since)
        assert [photo["id"] for photo in news["photos"]] == [1, 3]
        assert news["counts"] == {"all": 4, "todo": 0, "tagged": 3, "none": 0, "unsure": 1}
        assert news["undo"]["what"] == "dog on 2 photos"
        assert not news["many"]
        with pytest.raises(TagError, match="another page"):
            tagging.act({"act": "undo", "of": since})


def test_many_pages_at_once_have_one_order(folder):
    with tagging_of(folder) as tagging:
        tagging.act({"act": "class", "name": "dog"})

        def page(photo):
            for on in [True, False] * 10 + [True]:
                tag(tagging, 0, photo, on=on)

        pages = [threading.Thread(target=page, args=(photo,)) for photo in range(4)]
        for one in pages:
            one.start()
        for one in pages:
            one.join()
        seen = states(tagging)
        assert seen == [("decided", (0,))] * 4
    with tagging_of(folder) as again:
        assert states(again) == seen


class Sure:
    """A classifier that knows dog and owl, and d is a dog, c nothing."""

    classes = ("dog", "owl")
    about = "a run"
    version = 2
    closed = False

    def scores(self):
        found = np.full((4, 2), np.nan, np.float32)
        found[3], found[2] = (0.9, 0.3), (0.2, 0.1)
        return found

    def close(self):
        self.closed = True


def test_suggestions_are_shown_and_accepted(folder):
    sure = Sure()
    with tagging_of(folder, Begin(suggested=sure)) as tagging:
        assert [c["name"] for c in tagging.news(0)["classes"]] == ["dog", "owl"]
        found = [photo["suggested"] for photo in tagging.described(range(4))]
        assert found == [None, None, [], [(0, 0.9)]]
        assert tagging.view("todo", order="unsure").tolist() == [3, 2, 0, 1]
        tagging.act({"act": "accept", "photos": [2, 3]})
        assert states(tagging)[2:] == [("decided", ()), ("decided", (0,))]
        tagging.act({"act": "class", "name": "cat"})  # which it knows nothing of
        assert tagging.described([0])[0]["suggested"] is None
    assert sure.closed


def test_the_list_is_filtered_and_searched(folder):
    with tagging_of(folder) as tagging:
        with_dogs(tagging)
        assert tagging.view("all").tolist() == [0, 1, 2, 3]
        assert tagging.view("todo").tolist() == [3]
        assert tagging.view("all", "B").tolist() == [1]
        assert tagging.view("class-0").dtype == np.int32
        with pytest.raises(TagError):
            tagging.view("nothing")
        assert tagging.described([-1, 99]) == []


def test_a_class_list_that_cannot_be_written_has_the_last_word(folder):
    (folder / "classes.txt").write_text("dog,255,0,0\n")
    with tagging_of(folder) as tagging:
        assert tag(tagging, 0, 0)
        with pytest.raises(TagError, match="is not one name a line"):
            tagging.act({"act": "class", "name": "cat"})
    assert (folder / "tags.csv").read_text() == "image,tags\na.jpg,dog\n"


def test_no_photos_is_told(tmp_path):
    with pytest.raises(DataError):
        Tagging(open_folder(tmp_path))


def test_marks_of_a_tag_file_stay_as_they_are(folder):
    table = "image,tags\na.jpg,dog;?cat\nb.jpg,cat;-dog\nc.jpg,cat;dog\n"
    (folder / "tags.csv").write_text(table)
    with tagging_of(folder) as tagging:
        numbers = {name: i for i, name in enumerate(tagging.columns.classes)}
        tag(tagging, numbers["dog"], 3)
    assert (folder / "tags.csv").read_text() == f"{table}d.jpg,dog\n"
    with tagging_of(folder) as tagging:  # from the journal alone
        tag(tagging, numbers["cat"], 0)
        tagging.act({"act": "none", "photos": [1]})
    text = (folder / "tags.csv").read_text()
    assert text == "image,tags\na.jpg,cat;dog\nb.jpg,-dog\nc.jpg,cat;dog\nd.jpg,dog\n"
    found = load_dataset(folder)
    assert found.known.all()
    assert found.absent.sum() == 1


def test_marks_that_others_change_are_taken_over(folder):
    (folder / "tags.csv").write_text("image,tags\na.jpg,dog;?cat\nb.jpg,cat\n")
    with tagging_of(folder):
        pass
    (folder / "tags.csv").write_text("image,tags\na.jpg,dog\nb.jpg,cat;?dog\n")
    with tagging_of(folder) as tagging:
        tag(tagging, 0, 2)
    lines = (folder / "tags.csv").read_text().splitlines()
    assert lines[1:3] == ["a.jpg,dog", "b.jpg,cat;?dog"]
