"""``tagseg review`` as a process: how it begins and ends, and what it says of what cannot work."""

from __future__ import annotations

import json
import shlex
import shutil
import signal

import pytest

from review_runs import make_run, reviewing_of
from small_runs import tagseg
from tagseg.cli import _parsed_train
from tagseg.formats.review import read_review, standing_acts
from tagseg.web import serve_review
from tagseg.web.serve import Address
from tagseg.web.serve_review import ToReview, review_run
from web_pages import page_command


@pytest.fixture
def made(tmp_path):
    return make_run(tmp_path)


def reviewing(run, *words):
    """The command as a process, its pages, and what it said before."""
    return page_command("review", run, "--port", "0", *words)


def test_it_ends_with_what_was_done_and_how_to_go_on(made):
    with reviewing(made.run) as (process, pages, said):
        assert said[:2] == [
            "left out: 1 photos for validation, as no run is trained on them\n",
            f"5 photos of {made.run}; which come first is told by the run's judge (each photo's "
            "worst class)\n",
        ]
        pages.post({"act": "right", "photo": 0})
        pages.post({"act": "pick", "photo": 2, "candidate": 1})
        pages.post({"act": "tag", "photo": 1, "class": 0})
        process.send_signal(signal.SIGINT)
        *rest, stopped = process.stdout.read().splitlines()
        assert process.wait(20) == 130
    review = made.run / "review.jsonl"
    assert stopped == "stopped; every act is on disk; the same command goes on"
    assert rest[:2] == [
        "3 acts now; 2 of 5 photos looked at in all",
        f"in {review}: 1 right, 1 picked, 1 with other tags",
    ]
    words = shlex.split(rest[2].removeprefix("learn from it: "))
    assert words[:3] == ["tagseg", "train", str(made.photos)]
    assert words[-4:] == ["--out", str(made.run), "--review", str(review)]
    assert "review" in _parsed_train(words[2:])  # train takes it as it is


def test_after_a_kill_every_act_that_was_answered_is_there(made):
    with reviewing(made.run, "--out", str(made.run / "mine.jsonl")) as (process, pages, _):
        for photo in range(3):
            assert pages.post({"act": "right", "photo": photo}).status == 200
        process.kill()
    found = standing_acts(read_review(made.run / "mine.jsonl").acts)
    assert list(found) == ["a", "b", "c"]
    with reviewing_of(made, made.run / "mine.jsonl") as again:  # the lock has fallen
        assert again.counts()["right"] == 3


def test_what_cannot_work_gets_one_line(made, tmp_path):
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken.jsonl"
    broken.write_text("image,tags\n")
    unmade = tmp_path / "unmade"
    shutil.copytree(made.run, unmade)
    shutil.rmtree(next(unmade.glob("stages/*-masks")))
    cases = {
        (tmp_path / "nowhere",): "holds no run",
        (tmp_path / "empty",): "holds no run",
        (made.photos,): "no workspace.json",
        (unmade,): "stage masks is not finished",
        (made.run, "--photos", tmp_path / "no"): "does not exist",
        (made.run, "--out", tmp_path / "no" / "r.jsonl"): "there is no such folder",
        (made.run, "--out", tmp_path / "review"): "give a file such as review.jsonl",
        (made.run, "--out", made.photos / "r.jsonl"): "lies among the photos",
        (made.run, "--out", broken): "no review that this tagseg can read",
        (made.run, "--port", "70000"): "less than or equal to 65535",
        (made.run, "--host", "203.0.113.1"): "cannot listen on 203.0.113.1",
    }
    for words, line in cases.items():
        said = tagseg("review", "--no-browser", *words)
        assert said.status == 2
        assert line in said.err
        assert said.err.count("\n") == 1
    made.photos.rename(tmp_path / "moved")
    said = tagseg("review", "--no-browser", made.run)
    assert said.status == 2
    assert "say where they are with --photos DIR" in said.err


def test_a_run_of_no_command_is_told_in_words(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = make_run(tmp_path, command="")
    said = []

    def stop(*arguments):
        raise KeyboardInterrupt

    def served(photos=None):
        with pytest.raises(KeyboardInterrupt):
            review_run(
                ToReview(made.run, photos=photos),
                Address(port=0),
                parse=_parsed_train,
                say=said.append,
            )

    monkeypatch.setattr(serve_review, "serve_page", stop)
    served(made.photos)
    assert said == ["0 acts now; 0 of 5 photos looked at in all"]
    line = {"photo": "a", "at": "2026-11-30T10:00:00Z", "act": "wrong"}
    review = made.run / "review.jsonl"
    review.write_text(f"{review.read_text()}{json.dumps(line)}\n")
    served()
    assert said[-1] == f"learn from it: train as before, with --review {review}"
