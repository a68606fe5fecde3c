"""The page in a browser: Debian's chromium, driven by playwright; by keys alone.

Skipped where there is no chromium. What these tests need: ``apt-get install chromium`` and the
extra ``dev``.
"""

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
from tagseg.web.app import tagging_app
from tagseg.web.serve import Address, listen, serving
from tagseg.web.tagging import Begin
from tagseg.web.thumbnails import Thumbnails
from web_pages import Pages, tagging_of, write_photos

pytestmark = IN_BROWSER
EVIL = "<img src=x onerror=document.title=1>"


@contextmanager
def served(folder, *words):
    command = [sys.executable, "-m", "tagseg", "tag", str(folder), "--no-browser", "--port", "0"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder.parent / "cache")}
    with subprocess.Popen(
        [*command, *map(str, words)], stdout=subprocess.PIPE, text=True, env=env
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


@contextmanager
def pages_of(folder, suggested=None):
    """The pages of a folder from this process, which is quicker."""
    kept = Thumbnails(folder.parent / "kept")
    with (
        tagging_of(folder, Begin(suggested=suggested)) as tagging,
        listen(Address(port=0)) as sock,
        serving(tagging_app(tagging, kept), sock, "127.0.0.1") as url,
    ):
        yield url


@pytest.fixture
def folder(tmp_path):
    return write_photos(tmp_path / "photos", *(f"p{i:02d}.jpg" for i in range(30)), side=60)


def opened(page, url):
    page.goto(url)
    page.wait_for_selector(".cell.current")
    return page


def type_class(page, name):
    page.keyboard.press("t")
    page.keyboard.type(name)
    page.keyboard.press("Enter")


def test_thirty_photos_by_keys_with_a_kill_in_the_middle(page, folder):
    with served(folder) as (process, url):
        opened(page, url)
        type_class(page, "dog")
        saved(page, "saved: dog on 1 photo")
        keys(page, "ArrowRight")
        type_class(page, "cat")
        saved(page, "saved: cat on 1 photo")
        keys(page, "a")  # on to the next after each tag
        keys(page, "ArrowRight", *("1" if i % 2 else "2" for i in range(10)))
        keys(page, "n", "u")  # photos 12 and 13
        saved(page, "saved: not sure of 1 photo")
        process.kill()
        process.wait()
        keys(page, "1")
        page.wait_for_selector("#banner:not([hidden])")
        assert "1 not saved yet" in page.inner_text("#banner")
        assert page.locator("#photo-14 .tag").count() == 0  # nothing is shown that is not on disk
    with served(folder) as (_, url):
        opened(page, url)
        assert page.inner_text("#progress-text") == "14 of 30 looked at"
        assert page.locator(".cell").first.get_attribute("id") == "photo-14"
        keys(page, "Shift+ArrowRight", "Shift+ArrowDown", "2")  # several at once
        number = int(re.search(r"\d+", page.inner_text("#chosen"))[0])
        assert number > 2
        saved(page, f"saved: cat on {number} photos")
        keys(page, "z")
        saved(page, "undone")
        keys(page, "Escape", "Control+a", "1")
        saved(page, "saved: dog on 16 photos")
        assert page.inner_text("#progress-text") == "30 of 30 looked at"
    rows = (folder / "tags.csv").read_text().splitlines()[1:]
    assert len(rows) == 29  # but the one that is not sure
    assert rows[:3] == ["p00.jpg,dog", "p01.jpg,cat", "p02.jpg,cat"]
    assert rows[12] == "p12.jpg,"
    assert "p13.jpg" not in "".join(rows)
    assert all(row.endswith(",dog") for row in rows[13:])


def test_two_tabs_see_what_the_other_does(page, browser, folder):
    with pages_of(folder) as url:
        opened(page, url)
        type_class(page, "dog")
        other = opened(browser.new_page(), url)
        assert (
            other.inner_text("#photo-0 .tags") == "dog" if other.locator("#photo-0").count() else 1
        )
        keys(other, "1")
        page.wait_for_function("() => document.getElementById('progress').value === 2")
        assert page.inner_text("#photo-1 .tags") == "dog"
        keys(page, "z")  # of what the other did, as the page says
        saved(page, "undone")
        other.wait_for_function("() => document.getElementById('progress').value === 1")
        other.close()


def test_filters_search_one_photo_and_help(page, folder):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    with pages_of(folder) as url:
        opened(page, url)
        page.wait_for_selector(".cell .gone")
        assert "cannot be shown" in page.inner_text("#photo-0")
        type_class(page, "dog")  # it can be tagged all the same
        saved(page, "saved: dog on 1 photo")
        keys(page, "/")
        page.keyboard.type("p2")
        page.wait_for_function("() => document.getElementById('chosen').textContent === '10 shown'")
        keys(page, "Enter", "v")
        page.wait_for_function("() => document.getElementById('large').naturalWidth > 0")
        assert page.inner_text("#large-place") == "1 of 10"
        keys(page, "ArrowRight", "1")
        page.wait_for_selector("#large-tags .tag")
        assert page.inner_text("#large-name") == "p21"
        keys(page, "v", "?")
        assert page.locator("#help[open]").count() == 1
        keys(page, "Escape")
        assert page.evaluate("document.activeElement.id") == "grid"
        page.select_option("#show", "class-0")
        page.wait_for_function("() => document.getElementById('chosen').textContent === '1 shown'")


def test_keys_are_not_lost_while_the_disk_is_slow(page, folder):
    def slowly(route):
        page.wait_for_timeout(150)
        route.continue_()

    with pages_of(folder) as url:
        opened(page, url)
        page.route("**/api/act", slowly)
        type_class(page, "dog")  # the class is on its way when its key is pressed
        keys(page, "ArrowRight", "1", "ArrowRight", "1", "7")
        saved(page, "no class is on key 7")
        page.unroute("**/api/act")
        shown = [page.inner_text(f"#photo-{i} .tags") for i in range(4)]
        assert shown == ["dog", "dog", "dog", "nobody looked"]


class Sure:
    """A classifier that is unsure of photo 2 most, sees a dog in it and nothing in photo 1."""

    classes = ("dog",)
    about = "a run"
    version = 30

    def scores(self):
        found = np.full((30, 1), 0.99, np.float32)
        found[1], found[2] = 0.3, 0.6
        return found

    def close(self):
        pass


def test_suggestions_come_least_sure_first_and_one_key_confirms(page, folder):
    with pages_of(folder, Sure()) as url:
        opened(page, url)
        first = page.locator(".cell")
        assert [first.nth(i).get_attribute("id") for i in range(2)] == ["photo-2", "photo-1"]
        page.wait_for_selector("#photo-2 .maybe")
        assert page.inner_text("#photo-2 .tags") == "dog? 0.60"
        keys(page, "Enter", "Enter")
        page.wait_for_function("() => document.getElementById('progress').value === 2")
        assert page.inner_text("#photo-2 .tags") == "dog"
        assert page.inner_text("#photo-1 .tags") == "none"


def test_names_are_text(page, tmp_path):
    folder = write_photos(tmp_path / "photos", f"{EVIL}.jpg", "b.jpg")
    with pages_of(folder) as url:
        opened(page, url)
        type_class(page, "<b>dog</b>")
        saved(page, "saved: <b>dog</b> on 1 photo")
        page.wait_for_selector("#photo-0 .tag")
        assert page.inner_text("#photo-0 .label") == EVIL
        assert page.inner_text("#photo-0 .tag") == "<b>dog</b>"
        assert page.locator("b, img[src=x]").count() == 0
        assert page.title() == "Tag photos"


def test_a_script_that_gets_into_the_page_does_not_run(page, folder):
    with pages_of(folder) as url:
        opened(page, url)
        page.evaluate(
            """() => {
                const script = document.createElement("script");
                try { script.textContent = "document.title = 'mine'"; } catch { return; }
                document.body.append(script);
            }"""
        )
        page.wait_for_timeout(100)
        assert page.title() == "Tag photos"


def test_a_page_of_somebody_else_reaches_nothing(page, folder):
    with pages_of(folder) as url:
        page.goto(url.rsplit("/", 2)[0] + "/")
        assert "it holds a secret" in page.inner_text("body")
        pages = Pages(url)
        assert pages.post({"act": "class", "name": "x"}, Origin="http://evil.example").status == 403
        page.goto("data:text/html,<p>somebody else</p>")
        found = page.evaluate(
            """url => fetch(url + "api/start", {mode: "no-cors"}).then(() => "read", () => "no")""",
            url,
        )
        assert found == "no"


def test_axe_finds_no_serious_fault(page, folder):
    with pages_of(folder) as url:
        opened(page, url)
        type_class(page, "dog")
        saved(page, "saved: dog on 1 photo")
        for key in ("Control+a", "v", "?"):
            keys(page, key)
            assert faults(page) == []
