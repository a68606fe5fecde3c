"""What the page for reviewing asks for, from a server that runs; and what it does not get."""

from __future__ import annotations

import base64
import io
import json
import zlib
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image as PilImage

from review_runs import SHAPE, TAGS, labels_for, make_run, opened, reviewing_of
from tagseg.data.masks import encode_mask
from tagseg.web.review_app import review_app
from tagseg.web.serve import Address, listen, serving
from tagseg.web.thumbnails import Thumbnails
from web_pages import Pages

EVIL = "<img src=x onerror=alert(1)>"
A, B, C, D, LINK = range(5)
SCRIPTS = (
    "review",
    "candidates",
    "items",
    "dom",
    "mask_view",
    "painting",
    "correction",
    "png",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("app")
    tags = {**{k: TAGS[k] for k in "abcd"}, "link": ("cat",), EVIL: ("dog",), "val": ("cat",)}
    made = make_run(home, tags, regions=True)
    (home / "secret.txt").write_text("secret")
    (made.photos / "link.png").rename(home / "elsewhere.png")
    (made.photos / "link.png").symlink_to(home / "elsewhere.png")
    return made


@pytest.fixture(scope="module")
def pages(made, tmp_path_factory):
    kept = Thumbnails(tmp_path_factory.mktemp("kept"))
    with (
        reviewing_of(made) as reviewing,
        listen(Address(port=0)) as sock,
        serving(review_app(reviewing, kept), sock, "127.0.0.1") as url,
    ):
        yield Pages(url)


def unpacked(answer, kind):
    assert answer.headers["content-encoding"] == "deflate"
    content = zlib.decompress(answer.body)
    width, height = np.frombuffer(content[:8], "<u4").tolist()
    return np.frombuffer(content[8:], kind).reshape(height, width)


def test_the_page_and_its_files(pages):
    page = pages.get()
    assert page.status == 200
    names = [f"{name}.js" for name in (*SCRIPTS, "server", "grid")]
    for name in (*names, "review.css", "page.css"):
        assert pages.get(f"static/{name}").status == 200


def test_no_script_or_style_stands_in_the_page(pages):
    page = pages.get().body.decode()
    assert page.count("<script") == 1
    assert '<script type="module" src="static/review.js"></script>' in page
    assert "<style" not in page
    assert not any(word in page for word in (" style=", "onclick", "onload", "http://", "https://"))
    assert "unsafe" not in pages.get().headers["content-security-policy"]


def test_no_script_makes_html_of_text(pages):
    for name in SCRIPTS:
        code = pages.get(f"static/{name}.js").body.decode()
        words = ("innerHTML", "outerHTML", "insertAdjacent", "eval(", "document.write")
        assert not any(word in code for word in words)
        assert "://" not in code


def test_what_the_page_begins_with(pages):
    start = pages.get("api/start").json()
    assert start["run"] == "run"
    assert start["candidates"] == ["final masks", "again", "first labels"]
    assert start["crisp"]
    assert start["byClass"]
    assert [each["name"] for each in start["classes"]] == ["cat", "dog"]
    assert str(1) not in start["order"]


def test_labels_are_at_the_photos_size(pages):
    assert unpacked(pages.get(f"labels/{C}/now"), np.uint8).tolist() == (
        labels_for(("cat", "dog")).tolist()
    )
    assert unpacked(pages.get(f"labels/{C}/2"), np.uint8).shape == SHAPE


def test_pictures_of_masks(pages):
    for kind in ("fill", "outline"):
        found = pages.get(f"over/{kind}/{A}/now?v=0")
        assert found.status == 200
        assert found.headers["content-type"] == "image/png"
        assert PilImage.open(io.BytesIO(found.body)).size == (SHAPE[1], SHAPE[0])


def test_candidates_and_which_are_the_same(pages):
    found = pages.get(f"api/candidates/{A}").json()
    assert found == {"height": SHAPE[0], "width": SHAPE[1], "same": [0, 1, 2]}


def test_regions_by_superpixels_and_as_the_run_keeps_them(pages):
    for level in "012":
        assert unpacked(pages.get(f"regions/{A}/{level}"), "<i4").max() >= 1
    assert unpacked(pages.get(f"regions/{A}/crisp"), "<i4").max() == 1


@pytest.mark.parametrize(
    "path",
    [
        "labels/99/now",
        "labels/0/9",
        "labels/0/-1",
        "labels/0/later",
        "labels/0/%2e%2e",
        "over/fill/99/now",
        "over/sketch/0/now",
        "regions/0/9",
        "regions/0/../crisp",
        "regions/99/0",
        "api/candidates/99",
    ],
)
def test_what_is_not_there_is_one_line(pages, path):
    found = pages.get(path)
    assert found.status in (400, 404)
    assert b"\n" not in found.body
    assert b"/" not in found.json()["error"].encode() if found.status == 400 else True


@pytest.mark.parametrize(
    "path",
    [
        "static/../review_app.py",
        "static/%2e%2e/review_app.py",
        "labels/0/..%2f..%2fsecret.txt",
        "review.jsonl",
        "review/a-1.png",
        "run/review.jsonl",
        "workspace.json",
        "stages/masks/a.png",
        "photos/a.png",
        "a.png",
        "picture/small/../../secret.txt",
        "over/fill/0/..%2f..%2f..%2fsecret.txt",
    ],
)
def test_no_file_is_served_by_its_path(pages, path):
    found = pages.get(path)
    assert found.status in (400, 404)
    assert b"secret" not in found.body.replace(b"it holds a secret", b"")


def test_a_photo_that_leads_out_is_not_shown_nor_are_its_regions(pages):
    refused = pages.get(f"picture/small/{LINK}")
    assert refused.status == 403
    assert b"elsewhere" not in refused.body
    refused = pages.get(f"regions/{LINK}/0")
    assert refused.status == 400
    assert b"elsewhere" not in refused.body


def test_names_are_data_and_never_markup(pages):
    found = pages.get(f"api/view?show=all&search={quote(EVIL)}")
    (photo,) = np.frombuffer(found.body, "<u4").tolist()
    item = pages.get(f"api/photos?ids={photo}")
    assert item.headers["content-type"] == "application/json"
    assert item.json()["photos"][0]["name"] == EVIL
    done = pages.post({"act": "right", "photo": photo, "since": -1})
    assert done.status == 200


def test_an_act_is_on_disk_before_it_is_answered(pages, made):
    labels = labels_for(("dog",))
    sent = base64.b64encode(encode_mask(labels)).decode()
    done = pages.post({"act": "corrected", "photo": B, "png": sent, "since": 0})
    assert done.json()["did"] == "corrected (b)"
    line = json.loads((made.run / "review.jsonl").read_bytes().splitlines()[-1])
    assert line["photo"] == "b"
    assert (made.run / line["mask"]).read_bytes() == encode_mask(labels)
    assert B in [item["id"] for item in done.json()["photos"]]
    assert unpacked(pages.get(f"labels/{B}/now?v=9"), np.uint8).tolist() == labels.tolist()


@pytest.mark.parametrize(
    "wanted",
    [
        {"act": "corrected", "photo": A, "png": "AAAA"},
        {"act": "corrected", "photo": A, "png": base64.b64encode(bytes(5000)).decode()},
        {"act": "right", "photo": "../../etc/passwd"},
        {"act": "pick", "photo": A, "candidate": "../../x"},
        {"act": "tag", "photo": A, "class": {"x": 1}},
    ],
)
def test_what_is_no_act_is_refused_and_writes_nothing(pages, made, wanted):
    before = (made.run / "review.jsonl").read_bytes()
    masks = set((made.run / "review").iterdir())
    found = pages.post(wanted)
    assert found.status == 400
    assert "\n" not in found.json()["error"]
    assert (made.run / "review.jsonl").read_bytes() == before
    assert set((made.run / "review").iterdir()) == masks


def test_too_much_is_refused_before_it_is_read(pages):
    assert pages.post(b"", Content_Length=str(9 << 20)).status == 413
    big = json.dumps({"act": "corrected", "photo": A, "png": "A" * (7 << 20)}).encode()
    assert pages.post(big).status == 400  # this much is read, and is no mask


def test_other_pages_and_other_names_are_refused(pages, made):
    before = (made.run / "review.jsonl").read_bytes()
    act = {"act": "wrong", "photo": A}
    assert pages.post(act, Origin="http://evil.example").status == 403
    assert pages.post(act, Origin="").status == 403
    assert pages.get(Host="evil.example").status == 421
    for path in ("/", "/api/start", f"/labels/{A}/now"):
        assert pages.ask("GET", path, None, {}).status == 403
    assert pages.get("api/act").status == 405
    assert (made.run / "review.jsonl").read_bytes() == before


def test_a_photo_that_has_gone_is_told(tmp_path):
    own = make_run(tmp_path)
    with (
        reviewing_of(own) as reviewing,
        listen(Address(port=0)) as sock,
        serving(review_app(reviewing, Thumbnails(tmp_path / "k")), sock, "127.0.0.1") as url,
    ):
        (own.photos / "a.png").unlink()
        found = Pages(url).get(f"regions/{A}/0")
        assert found.json()["error"].startswith("a: the file is gone")
        assert Pages(url).post({"act": "right", "photo": A}).status == 200
    run = opened(own)  # which can be opened without it
    assert run.photos.names == ("b", "c", "d", "e")
    assert "left out: 1 photos that are not there any more" in run.notes
