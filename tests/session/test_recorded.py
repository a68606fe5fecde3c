"""Where a run's photos are, and how it is continued, from the command that it keeps."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from review_runs import make_run, opened
from tagseg.cli import _parsed_train
from tagseg.data.scenes import SCENES, scene_dataset
from tagseg.errors import DataError
from tagseg.formats.loading import load_dataset
from tagseg.run.workspace import Workspace
from tagseg.session.recorded import files_of, origin_of, recorded_command, remember


def command_of(made, photos=None):
    return recorded_command(Workspace.read(made.run), made.run, photos, _parsed_train)


def test_files_are_found_where_the_command_was_given(tmp_path):
    made = make_run(tmp_path)
    found = command_of(made)
    assert found.photos == made.photos
    source = found.source()
    assert source.untagged == "negative"
    assert source.val == str(made.photos / "val.txt")


def test_from_the_folder_of_the_command_itself(tmp_path, monkeypatch):
    make_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = recorded_command(Workspace.read(Path("run")), Path("run"), None, _parsed_train)
    assert found.photos.resolve() == tmp_path / "photos"


def test_photos_that_are_elsewhere_are_one_line_until_they_are_named(tmp_path):
    made = make_run(tmp_path)
    moved = made.photos.rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"not found \(they were .*photos\); say where .* --photos"):
        command_of(made)
    found = command_of(made, moved)
    assert found.source().val == str(moved / "val.txt")
    assert opened(made, moved).photos.names == ("a", "b", "c", "d", "e")


def test_photos_that_were_named_before_are_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = make_run(tmp_path)
    moved = made.photos.rename(tmp_path / "moved")
    remember(made.run, moved)
    assert command_of(made).photos == moved
    gone = moved.rename(tmp_path / "again")
    with pytest.raises(DataError, match="--photos"):
        command_of(made)
    for content in ("", "[]", '{"photos": 3}', "junk"):
        next((tmp_path / "cache").rglob("*.json")).write_text(content)
        with pytest.raises(DataError, match="--photos"):
            command_of(made)
    assert command_of(made, gone).photos == gone


def test_a_run_of_no_command_needs_photos(tmp_path):
    made = make_run(tmp_path, command="")
    with pytest.raises(DataError, match="not found; say where"):
        command_of(made)
    found = command_of(made, made.photos)
    assert found.source().val is None
    assert found.again(Path("r.jsonl")) == ""


@pytest.mark.parametrize("words", ["demo --out run", "train 'x", "train --no"])
def test_other_commands_are_none(tmp_path, words):
    made = make_run(tmp_path, command=f"tagseg {words}")
    assert command_of(made, made.photos).given == {}


def test_the_command_that_goes_on_has_all_that_was_given(tmp_path):
    words = "tagseg train photos --untagged negative --out run --set rounds=1 --set a=b"
    made = make_run(tmp_path, command=f"{words} --fast --review old.jsonl --exclude '*_m.png'")
    again = command_of(made).again(Path("my review.jsonl"))
    assert shlex.split(again) == [
        *("tagseg", "train", str(made.photos), "--untagged", "negative"),
        *("--exclude", "*_m.png", "--fast", "--set", "rounds=1", "--set", "a=b"),
        *("--out", str(made.run), "--review", "my review.jsonl"),
    ]


def test_frames_of_videos_are_chosen_as_for_the_run(tmp_path):
    words = "tagseg train photos --layout youtube_objects --frames-per-class 7 --out run"
    found = command_of(make_run(tmp_path, command=words))
    assert found.source().how.frames_per_class == 7
    assert "--frames-per-class 7" in found.again(Path("r.jsonl"))


def test_what_a_run_kept_is_found_though_its_command_says_the_last_part_only(tmp_path):
    kept = {"photos": tmp_path / "photos", "tags": tmp_path / "more" / "tags.csv"}
    command = "tagseg train photos --tags tags.csv --untagged negative --out run"
    files = {name: str(path) for name, path in kept.items()}
    made = make_run(tmp_path / "deep", command=command, files=files)
    made.photos.rename(kept["photos"])
    kept["tags"].parent.mkdir()
    (kept["photos"] / "tags.csv").rename(kept["tags"])
    found = command_of(made)
    assert found.photos == kept["photos"]
    assert found.source().tags == kept["tags"]
    assert opened(made).photos.names == ("a", "b", "c", "d", "e")  # f has no mask
    assert str(kept["tags"]) in found.again(Path("r.jsonl"))


def test_a_run_of_no_command_finds_photos_and_tags(tmp_path):
    tags = tmp_path / "tags.csv"
    files = {"photos": str(tmp_path / "photos"), "tags": str(tags)}
    made = make_run(tmp_path, command="", files=files)
    (made.photos / "tags.csv").rename(tags)
    assert command_of(made).source()[:2] == (made.photos, tags)
    assert opened(made).photos.tags[:3].tolist() == [[True, False], [False, True], [True, True]]


def test_a_folder_that_moved_is_named_once(tmp_path):
    made = make_run(tmp_path, command="", files={"photos": str(tmp_path / "photos")})
    moved = made.photos.rename(tmp_path / "moved")
    with pytest.raises(
        DataError, match=rf"not found \(they were {tmp_path}/photos\); say .* --photos"
    ):
        command_of(made)
    assert command_of(made, moved).photos == moved


@pytest.mark.parametrize("files", [[], {"photos": 3}, {"photos": None}])
def test_a_strange_record_is_none(tmp_path, files):
    made = make_run(tmp_path)
    work = Workspace.read(made.run)
    work.settings["files"] = files
    assert recorded_command(work, made.run, None, _parsed_train).photos == made.photos


def test_files_of_a_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = make_run(tmp_path)
    (tmp_path / "link").symlink_to(made.photos)
    words = "link --tags gone.csv --classes link/classes.txt --train train --val photos/val.txt"
    found = files_of(_parsed_train([*words.split(), "--out", "run", "--weights", "imagenet"]))
    assert found == {
        "photos": str(made.photos),
        "classes": str(made.photos / "classes.txt"),
        "val": str(made.photos / "val.txt"),
    }


def test_origin_of_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = make_run(tmp_path)
    photos = load_dataset("photos", untagged="negative")
    assert origin_of(photos) == {"photos": str(made.photos)}
    named = load_dataset("photos", tags="photos/tags.csv", untagged="negative").subset([0, 2])
    assert origin_of(named) == {
        "photos": str(made.photos),
        "tags": str(made.photos / "tags.csv"),
    }
    assert origin_of(scene_dataset(SCENES, 2, height=32, width=32)[0]) == {}
