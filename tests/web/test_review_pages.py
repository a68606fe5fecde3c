"""The page for reviewing in a browser, by keys alone but where a pointer is what is tested."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from browser_pages import IN_BROWSER, faults, keys, saved
from review_runs import TAGS, labels_for, make_run, reviewing_of
from tagseg.formats.review import read_review, read_reviewed_mask, standing_acts
from tagseg.maps import IGNORE
from tagseg.web.review_app import review_app
from tagseg.web.serve import Address, listen, serving
from tagseg.web.thumbnails import Thumbnails

pytestmark = IN_BROWSER
SHAPE = (60, 80)
EVIL = "<img src=x onerror=document.title=1>"


@pytest.fixture
def made(tmp_path):
    """A run that keeps crisp regions, columns of 16 pixels."""
    return make_run(tmp_path, shape=SHAPE, regions=True)


@contextmanager
def pages_of(made):
    """The pages of a run from this process, which is quicker."""
    kept = Thumbnails(made.run.parent / "kept")
    with (
        reviewing_of(made) as reviewing,
        listen(Address(port=0)) as sock,
        serving(review_app(reviewing, kept), sock, "127.0.0.1") as url,
    ):
        yield url


@contextmanager
def served(run, port):
    """The command as a process."""
    command = [sys.executable, "-m", "tagseg", "review", str(run), "--no-browser"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(run.parent / "cache")}
    with subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        try:
            for line in process.stdout:
                found = re.search(r"http://\S+", line)
                if found:
                    yield process, found[0]
                    return
        finally:
            process.send_signal(signal.SIGTERM)  # SIGINT may be ignored where the tests run
            process.stdout.read()


def opened(page, url):
    page.goto(url)
    page.wait_for_selector(".cell.current")
    shown(page)
    return page


def shown(page):
    """Wait until the mask is over its photo."""
    page.wait_for_function("() => document.getElementById('mask').width > 0")
    page.wait_for_function("() => document.getElementById('large').naturalWidth > 0")


def at(page, name):
    page.wait_for_function("name => document.getElementById('name').textContent === name", arg=name)


def standing(made):
    review = read_review(made.run / "review.jsonl")
    return review, standing_acts(review.acts)


def mask_of(made, name):
    review, found = standing(made)
    return read_reviewed_mask(review, found[name].mask, SHAPE)


def test_a_run_is_looked_through_by_keys_with_a_kill_in_the_middle(page, made):
    with served(made.run, 0) as (process, url):
        opened(page, url)
        at(page, "c")  # the least trusted
        keys(page, "2")
        saved(page, "saved: picked again/labels (c)")
        at(page, "b")
        keys(page, "Enter")
        saved(page, "saved: right (b)")
        keys(page, "x")
        saved(page, "saved: wrong (a)")
        process.kill()
        process.wait()
        keys(page, "u")
        page.wait_for_selector("#banner:not([hidden])")
        assert "1 not saved yet" in page.inner_text("#banner")
        assert page.locator("#photo-4 .tag.unsure").count() == 0  # only what is on disk is shown
    with served(made.run, 0) as (_, url):
        opened(page, url)
        assert page.inner_text("#progress-text") == "3 of 5 looked at"
        at(page, "e")
        keys(page, "t")
        page.keyboard.type("dog")
        keys(page, "Enter")
        saved(page, "saved: tags: with dog (e)")
        keys(page, "u")
        saved(page, "saved: not sure (e)")
        keys(page, "z")
        saved(page, "undone")
        at(page, "e")  # which was undone
        assert page.inner_text("#state") == "not looked at"
    _, found = standing(made)
    acts = {
        name: getattr(said.mask, "how", type(said.mask).__name__) for name, said in found.items()
    }
    assert acts == {"c": "pick", "b": "right", "a": "Rejected", "e": "NoneType"}
    assert found["e"].tags.add == ("dog",)


def test_regions_and_brush_by_keys(page, made):
    before = labels_for(("dog",), SHAPE)
    with pages_of(made) as url:
        opened(page, url)
        keys(page, "ArrowRight")
        at(page, "b")
        shown(page)
        keys(page, "e")
        page.wait_for_selector("#correcting:not([hidden])")
        keys(page, "]", "]", "]", "Shift+ArrowRight", " ")
        assert page.inner_text("#size-text") == "regions: crisp, of the run"
        keys(page, "b", "[", *["ArrowLeft"] * 14, "n", " ")
        assert "brush" in page.inner_text("#size-text")
        keys(page, "0", *["ArrowDown"] * 6, " ", "z")  # and the last one back
        keys(page, "Enter")
        saved(page, "saved: corrected (b)")
        at(page, "a")
    after = mask_of(made, "b")
    assert (after[:, 32:48] == 2).all()  # the region in the middle
    changed = after != before
    changed[:, 32:48] = False
    assert set(np.unique(after[changed])) == {IGNORE}
    rows, columns = np.nonzero(changed)
    assert 0 < len(rows) < 60  # a disc, around the cross
    assert abs(rows.mean() - SHAPE[0] / 2) < 2
    assert np.ptp(columns) <= 6


def test_a_pointer_paints_and_clicks_and_shift_takes_out(page, made):
    with pages_of(made) as url:
        opened(page, url)
        keys(page, "ArrowRight")
        at(page, "b")
        shown(page)
        keys(page, "e", "]", "]", "]")
        page.wait_for_selector("#correcting:not([hidden])")
        box = page.locator("#mask").bounding_box()

        def spot(x, y):
            return box["x"] + x * box["width"] / SHAPE[1], box["y"] + y * box["height"] / SHAPE[0]

        page.mouse.move(*spot(60, 30))
        page.wait_for_timeout(200)
        page.mouse.move(*spot(40, 30))
        page.mouse.down()  # over two regions, and the first again, which is what it became
        page.mouse.move(*spot(60, 30), steps=4)
        page.mouse.move(*spot(40, 40), steps=4)
        page.mouse.up()
        page.mouse.click(*spot(40, 30))  # and out
        keys(page, "b")
        page.keyboard.down("Shift")
        page.mouse.move(*spot(50, 20))
        page.mouse.down()
        page.mouse.move(*spot(70, 20), steps=4)
        page.mouse.up()
        page.keyboard.up("Shift")
        keys(page, "Enter")
        saved(page, "saved: corrected (b)")
    after = mask_of(made, "b")
    assert (after[25:, 48:64] == 2).all()  # the region that was clicked
    assert (after[20, 50:71] == 0).all()
    assert (after[:, 32:48] == 0).all()
    assert (after[:, 64:] == 0).all()


def test_what_is_corrected_can_be_left_as_it_was(page, made):
    with pages_of(made) as url:
        opened(page, url)
        keys(page, "e")
        page.wait_for_selector("#correcting:not([hidden])")
        keys(page, "b", " ", "Escape")
        saved(page, "left as it was")
        assert page.locator("#correcting").is_hidden()
        keys(page, "e")
        page.wait_for_selector("#correcting:not([hidden])")
        keys(page, "Enter")  # nothing was changed
        saved(page, "left as it was")
    assert standing(made)[1] == {}


def test_candidates_are_looked_at_and_picked(page, made):
    with pages_of(made) as url:
        opened(page, url)
        page.wait_for_selector(".candidate")
        words = [each.inner_text() for each in page.locator(".candidate .what").all()]
        assert words == ["1 final masks", "2 again", "3 first labels"]
        keys(page, "]", "]", "]")
        assert page.inner_text("#seen-as") == "candidate 3: first labels"
        keys(page, "Enter")
        saved(page, "saved: picked first-labels/labels (c)")
        keys(page, "9")
        saved(page, "there is no candidate 9")
        keys(page, "End")
        at(page, "d")  # of which all candidates are empty
        page.wait_for_function(
            "() => document.querySelectorAll('.what')[1].textContent.includes('as 1')"
        )


def test_the_mask_can_be_seen_through_outlined_and_hidden(page, made):
    drawn = """() => {
        const canvas = document.getElementById('mask');
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        let sum = 0;
        for (let i = 3; i < data.length; i += 4) sum += data[i];
        return sum;
    }"""
    with pages_of(made) as url:
        opened(page, url)
        half = page.evaluate(drawn)
        keys(page, "o")
        assert page.evaluate(drawn) > half
        keys(page, "l")
        assert 0 < page.evaluate(drawn) < half
        page.wait_for_function(
            "() => document.querySelector('.cell .over').src.includes('outline')"
        )
        keys(page, "h")
        assert page.evaluate(drawn) == 0


def test_filters_search_and_many_photos(page, made):
    with pages_of(made) as url:
        opened(page, url)
        keys(page, "x", "v")
        page.wait_for_function("() => document.body.classList.contains('many')")
        keys(page, "r")
        page.wait_for_function("() => document.getElementById('listed').textContent === '4 shown'")
        page.select_option("#show", "wrong")
        page.wait_for_function("() => document.getElementById('listed').textContent === '1 shown'")
        page.select_option("#show", "class-0")
        page.wait_for_function("() => document.getElementById('listed').textContent === '3 shown'")
        page.select_option("#order", "name")
        page.wait_for_function("() => document.querySelector('.label').textContent === 'a'")
        keys(page, "Escape", "/")
        page.keyboard.type("nobody")
        page.wait_for_selector("#empty:not([hidden])")
        assert page.inner_text("#empty") == "No photo is called so."


def test_two_tabs_see_what_the_other_does(page, browser, made):
    with pages_of(made) as url:
        opened(page, url)
        other = opened(browser.new_page(), url)
        keys(other, "Enter")
        page.wait_for_function("() => document.getElementById('progress').value === 1")
        at(page, "c")
        assert page.inner_text("#state") == "right"
        keys(page, "z")
        saved(page, "undone")
        other.wait_for_function("() => document.getElementById('progress').value === 0")
        other.close()


def test_names_are_text(page, tmp_path):
    made = make_run(tmp_path, {EVIL: ("cat",), **TAGS}, shape=SHAPE)
    with pages_of(made) as url:
        opened(page, url)
        page.select_option("#order", "name")
        at(page, EVIL)
        keys(page, "Escape")
        page.locator("#stage").focus()
        keys(page, "Enter")
        saved(page, f"saved: right ({EVIL})")
        assert page.locator("img[src=x]").count() == 0
        assert page.title() == "Review run"


def test_axe_finds_no_fault(page, made):
    with pages_of(made) as url:
        opened(page, url)
        keys(page, "t")
        page.keyboard.type("cat")
        keys(page, "Enter")
        saved(page, "saved: tags: without cat (c)")
        assert faults(page) == []
        keys(page, "x", "v")
        assert faults(page) == []
        keys(page, "v", "e")
        page.wait_for_selector("#correcting:not([hidden])")
        assert faults(page) == []
        keys(page, "?")
        assert faults(page) == []


def test_a_class_that_is_taken_off_is_seen_to_be(page, made):
    with pages_of(made) as url:
        opened(page, url)
        page.wait_for_selector(".candidate .over[src*='v=0']")
        keys(page, "t")
        page.keyboard.type("Dog")
        keys(page, "Enter")
        saved(page, "saved: tags: without dog (c)")
        assert page.locator("#tags .gone").inner_text().startswith("dog")
        page.wait_for_selector(".candidate .over[src*='v=1']")
        page.get_by_label("Bring back dog").click()
        saved(page, "saved: tags: as they were (c)")
        keys(page, "t")
        page.keyboard.type("horse")
        keys(page, "Enter")
        saved(page, "not done: the run knows no class 'horse'")
        page.wait_for_timeout(100)
        assert page.evaluate("document.activeElement.id") == "stage"


def test_what_cannot_be_shown_is_told(page, made):
    (made.photos / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n no photo")
    with pages_of(made) as url:
        page.goto(url)
        page.wait_for_selector("#problem:not([hidden])")
        assert page.inner_text("#problem") == "the photo cannot be shown"
        keys(page, "ArrowRight", "Enter")
        saved(page, "saved: right (b)")
        next((made.run / "review").glob("b-*.png")).write_bytes(b"junk")
        page.reload()
        page.select_option("#show", "all")
        page.wait_for_function("() => document.getElementById('listed').textContent === '5 shown'")
        page.locator("#stage").focus()
        keys(page, "Home", "ArrowRight")
        page.locator("#problem", has_text="not the mask that was accepted").wait_for()
