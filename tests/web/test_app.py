"""What the pages ask for, from a server that runs."""

from __future__ import annotations

import json
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.web.app import tagging_app
from tagseg.web.photo_folder import open_folder
from tagseg.web.serve import Address, listen, serving
from tagseg.web.tagging import Tagging
from tagseg.web.thumbnails import Thumbnails
from web_pages import Pages, write_photos

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("app")
    photos = write_photos(home / "photos", "a.jpg", "b.jpg", "c.jpg", f"{EVIL}.jpg")
    secret = write_photos(home / "other", "secret.jpg") / "secret.jpg"
    (photos / "link.jpg").symlink_to(secret)
    (photos / "cut.jpg").write_bytes((photos / "a.jpg").read_bytes()[:300])
    (home / "secret.txt").write_text("secret")
    return photos


@pytest.fixture(scope="module")
def pages(folder, tmp_path_factory):
    tagging = Tagging(open_folder(folder))
    app = tagging_app(tagging, Thumbnails(tmp_path_factory.mktemp("kept")))
    with listen(Address(port=0)) as sock, serving(app, sock, "127.0.0.1") as url:
        yield Pages(url)
    tagging.close()


@pytest.fixture(scope="module")
def place(folder):
    return {name: i for i, name in enumerate(open_folder(folder).names)}


def test_the_page_and_its_files(pages):
    page = pages.get()
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    for name, kind in {"tag.js": "javascript", "tag.css": "css", "icon.svg": "svg"}.items():
        found = pages.get(f"static/{name}")
        assert found.status == 200
        assert kind in found.headers["content-type"]


def test_no_script_or_style_stands_in_the_page(pages):
    page = pages.get().body.decode()
    assert page.count("<script") == 1
    assert '<script type="module" src="static/tag.js"></script>' in page
    assert "<style" not in page
    assert not any(word in page for word in (" style=", "onclick", "onload", "http://", "https://"))
    policy = pages.get().headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


def test_no_script_makes_html_of_text(pages):
    for name in ("tag.js", "grid.js", "server.js"):
        code = pages.get(f"static/{name}").body.decode()
        assert not any(
            word in code for word in ("innerHTML", "insertAdjacent", "eval(", "document.write")
        )
        assert "://" not in code  # nothing is loaded from elsewhere


@pytest.mark.parametrize(
    "path",
    [
        "static/../app.py",
        "static/%2e%2e/app.py",
        "static/..%2f..%2fcli.py",
        "static//etc/passwd",
        "static/tag.html%00",
        "picture/small/../../secret.txt",
        "picture/small/%2e%2e%2fsecret.txt",
        "picture/../small/0",
        "picture/huge/0",
        "picture/small/99",
        "picture/small/-1",
        "photos/a.jpg",
        "a.jpg",
        "tags.journal",
    ],
)
def test_no_other_file_is_served(pages, path):
    found = pages.get(path)
    assert found.status == 404
    assert b"secret" not in found.body.replace(b"it holds a secret", b"")


def test_a_photo_is_served_small_and_a_link_that_leads_out_is_not(pages, place):
    found = pages.get(f"picture/small/{place['a']}")
    assert found.status == 200
    assert found.headers["content-type"] == "image/jpeg"
    assert found.headers["x-content-type-options"] == "nosniff"
    refused = pages.get(f"picture/small/{place['link']}")
    assert refused.status == 403
    assert refused.json()["error"].startswith("is a link that leads out")
    assert b"other" not in refused.body  # nor is it told where


def test_a_photo_that_is_cut_is_said_to_be_and_can_be_tagged(pages, place, folder):
    found = pages.get(f"picture/small/{place['cut']}")
    assert found.status == 415
    assert "cut short or damaged" in found.json()["error"]
    assert str(folder).encode() not in found.body
    assert pages.post({"act": "class", "name": "cut off"}).status == 200
    done = pages.post({"act": "tag", "class": 0, "photos": [place["cut"]], "on": True})
    assert done.json()["did"] == "cut off on 1 photo"


def test_an_act_is_in_the_journal_before_it_is_answered(pages, place, folder):
    done = pages.post({"act": "unsure", "photos": [place["b"]], "on": True, "since": 0})
    assert done.status == 200
    last = json.loads((folder / "tags.journal").read_bytes().splitlines()[-1])
    mine = [json.loads(line) for line in (folder / "tags.journal").read_bytes().splitlines()]
    assert any(entry.get("act") == "unsure" and entry["photos"] == ["b"] for entry in mine)
    assert last["n"] >= done.json()["n"]
    assert place["b"] in [photo["id"] for photo in done.json()["photos"]]


def test_lists_are_numbers(pages, place):
    found = pages.get("api/view?show=all")
    assert np.frombuffer(found.body, "<u4").tolist() == list(range(len(place)))
    found = pages.get(f"api/view?show=all&search={quote(EVIL)}")
    assert np.frombuffer(found.body, "<u4").tolist() == [place[EVIL]]
    assert pages.get("api/view?show=what").status == 400
    assert pages.get(f"api/view?search={'x' * 5000}").status == 200


def test_names_are_data_and_never_markup(pages, place):
    found = pages.get(f"api/photos?ids={place[EVIL]}")
    assert found.headers["content-type"] == "application/json"
    assert found.json()["photos"][0]["name"] == EVIL


@pytest.mark.parametrize("ids", ["", "x", "-1", "99999999999999999999", "1,1,x,2", "²"])
def test_odd_numbers_are_passed_over(pages, ids):
    found = pages.get(f"api/photos?ids={quote(ids)}")
    assert found.status == 200
    assert len(found.json()["photos"]) <= 3


def test_not_more_than_500_are_described_at_once(pages):
    found = pages.get(f"api/photos?ids={','.join(['0'] * 3000)}")
    assert len(found.json()["photos"]) == 500


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b"3", b"{" * 5000, b'{"act": "fly"}', b"\xff\xfe", b'{"act": {}}']
)
def test_what_is_no_act_is_refused_in_one_line(pages, body):
    found = pages.post(body)
    assert found.status == 400
    assert "\n" not in found.json()["error"]


def test_too_much_is_refused_before_it_is_read(pages):
    told = pages.post(b"", Content_Length=str(9 << 20))
    assert told.status == 413
    assert pages.post(b" " * (1 << 20)).status == 400  # this much is read, and is no act


def test_other_pages_and_other_names_are_refused(pages):
    act = {"act": "class", "name": "evil"}
    assert pages.post(act, Origin="http://evil.example").status == 403
    assert pages.post(act, Origin="").status == 403
    assert pages.get(Host="evil.example").status == 421
    assert pages.ask("GET", "/api/start", None, {}).status == 403
    assert pages.ask("GET", "/", None, {}).status == 403
    assert all(each["name"] != "evil" for each in pages.get("api/start").json()["classes"])


def test_reading_changes_nothing(pages):
    assert pages.get("api/act").status == 405


def test_a_large_photo_is_shown_whole_on_the_screen(pages, folder, place):
    PilImage.new("RGB", (3000, 2000), (9, 99, 9)).save(folder / "c.jpg")
    found = pages.get(f"picture/large/{place['c']}")
    assert found.status == 200
    assert len(found.body) < 200_000
