"""Small pictures: right ones, made once, and not too many of them."""

from __future__ import annotations

import io
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.errors import ImageError
from tagseg.web.thumbnails import SIDES, Thumbnails, small_jpeg


def picture_of(content):
    picture = PilImage.open(io.BytesIO(content))
    picture.load()
    return picture


def halves(height, width):
    """Red above, blue below."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, :, 0] = pixels[height // 2 :, :, 2] = 255
    return PilImage.fromarray(pixels)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_a_small_picture_is_the_photo(tmp_path, name):
    halves(1200, 900).save(tmp_path / name)
    small = picture_of(small_jpeg(tmp_path / name, "small"))
    assert small.size == (192, 256)
    assert max(small.size) == SIDES["small"]
    above, below = small.getpixel((90, 20)), small.getpixel((90, 230))
    assert above[0] > 200 > 60 > above[2]
    assert below[2] > 200 > 60 > below[0]


def test_photos_are_upright_and_nothing_beside_the_pixels_is_passed_on(tmp_path):
    exif = PilImage.Exif()
    exif[0x0112] = 6  # to be turned
    exif[0x010F] = "a camera"
    halves(400, 800).save(tmp_path / "a.jpg", exif=exif)
    content = small_jpeg(tmp_path / "a.jpg", "small")
    small = picture_of(content)
    assert small.size == (128, 256)
    assert small.getpixel((110, 100))[0] > 200  # what was above is right
    assert b"camera" not in content
    assert not small.getexif()


def test_small_photos_are_not_blown_up(tmp_path):
    halves(20, 30).save(tmp_path / "a.jpg")
    assert picture_of(small_jpeg(tmp_path / "a.jpg", "large")).size == (30, 20)


def test_grey_16_bits_and_transparency_are_as_train_sees_them(tmp_path):
    PilImage.fromarray(np.full((40, 40), 40000, np.uint16)).save(tmp_path / "deep.png")
    assert abs(picture_of(small_jpeg(tmp_path / "deep.png", "small")).getpixel((9, 9))[0] - 156) < 4
    PilImage.new("LA", (40, 40), (0, 0)).save(tmp_path / "clear.png")
    assert picture_of(small_jpeg(tmp_path / "clear.png", "small")).getpixel((9, 9))[0] > 250


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_a_photo_that_is_cut_is_no_picture(tmp_path, share):
    path = tmp_path / "a.jpg"
    PilImage.effect_noise((300, 300), 90).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ImageError):
        small_jpeg(path, "small")


def test_half_a_photo_that_ends_well_is_no_picture_either(tmp_path):
    path = tmp_path / "a.jpg"
    PilImage.effect_noise((300, 300), 90).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    PilImage.open(path).load()  # grey below, and not a word of it
    with pytest.raises(ImageError, match="cut short or damaged"):
        small_jpeg(path, "small")


def test_they_are_made_once_until_the_photo_changes(tmp_path):
    made = []

    def make(file, size):
        made.append((file.name, size))
        return b"x"

    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"1")
    for _ in range(2):
        assert Thumbnails(tmp_path / "kept", make=make).of(photo, "small") == b"x"
    assert made == [("a.jpg", "small")]
    photo.write_bytes(b"12")
    Thumbnails(tmp_path / "kept", make=make).of(photo, "small")
    Thumbnails(tmp_path / "kept", make=make).of(photo, "large")
    assert len(made) == 3


def test_the_oldest_go_when_there_is_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr("tagseg.web.thumbnails._LOOK", 1)
    kept = tmp_path / "kept"
    thumbnails = Thumbnails(kept, room=1000, make=lambda file, size: b"x" * 100)
    for number in range(30):
        photo = tmp_path / f"{number}.jpg"
        photo.write_bytes(b"1")
        thumbnails.of(photo, "small")
        for path in kept.glob("??/*.jpg"):
            os.utime(path, (path.stat().st_mtime - 1,) * 2)
        assert sum(path.stat().st_size for path in kept.glob("??/*")) <= 1000
    assert list(kept.glob("??/*.jpg"))


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path):
    (tmp_path / "kept").write_text("in the way")
    (tmp_path / "a.jpg").write_bytes(b"1")
    thumbnails = Thumbnails(tmp_path / "kept", make=lambda file, size: b"x")
    assert thumbnails.of(tmp_path / "a.jpg", "small") == b"x"


def test_not_more_at_once_than_there_are_cores(tmp_path, monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    now, most, lock = [0], [0], threading.Lock()

    def make(file, size):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return b"x"

    thumbnails = Thumbnails(tmp_path / "kept", make=make)
    threads = []
    for number in range(8):
        (tmp_path / f"{number}.jpg").write_bytes(b"1")
        work = (tmp_path / f"{number}.jpg", "small")
        threads.append(threading.Thread(target=thumbnails.of, args=work))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 2
