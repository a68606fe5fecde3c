"""A cut JPEG is found wherever it is cut, also if somebody put an end marker behind the cut."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.data.images import decode_photo
from tagseg.data.jpeg import NotWholeError, padded_copy
from tagseg.errors import ImageError

END = b"\xff\xd9"
ENCODINGS = {
    "baseline": {"quality": 90},
    "no subsampling": {"quality": 100, "subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "progressive restarts": {"progressive": True, "restart_marker_rows": 1},
}


def photo(height: int = 45, width: int = 61) -> PilImage.Image:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return PilImage.fromarray(coarse).resize((width, height), PilImage.Resampling.BICUBIC)


def encode(picture: PilImage.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(PilImage.open(io.BytesIO(data)))


@pytest.fixture(params=ENCODINGS)
def options(request: pytest.FixtureRequest) -> dict[str, object]:
    return ENCODINGS[request.param]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_whole_file_passes_and_its_padded_copy_has_the_same_pixels(options, mode):
    data = encode(photo().convert(mode), **options)
    copy = padded_copy(data)
    assert copy is not None
    assert len(copy) > len(data)
    assert np.array_equal(pixels(copy), pixels(data))


def test_every_cut_is_refused(options):
    data = encode(photo(), **options)
    for length in range(1, len(data), 7):
        with pytest.raises(ImageError):
            decode_photo(data[:length])


def test_every_cut_closed_with_an_end_marker_is_refused_or_lost_nothing(options):
    data = encode(photo(), **options)
    whole = decode_photo(data)
    lengths = [*range(1, len(data) - 40, 11), *range(len(data) - 40, len(data))]
    same = 0
    for length in lengths:
        try:
            cut = decode_photo(data[:length] + END)
        except ImageError:
            continue
        assert np.array_equal(cut, whole), f"cut at {length} of {len(data)}"
        same += 1
    assert same <= 6  # only cuts in the last bits, the padding and the end marker


def test_a_hole_in_the_middle_is_refused():
    data = encode(photo(120, 160), quality=95)
    middle = len(data) // 2
    with pytest.raises(ImageError):
        decode_photo(data[:middle] + data[middle + 300 :])


def test_a_tail_of_zeros_is_refused():
    data = encode(photo())
    half = len(data) * 2 // 3
    with pytest.raises(ImageError):
        decode_photo(data[:half] + bytes(len(data) - half))


def test_the_end_marker_of_an_embedded_thumbnail_does_not_count():
    thumbnail = encode(photo(12, 16))
    exif = b"Exif\0\0" + thumbnail
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    data = encode(photo())
    data = data[:2] + segment + data[2:]
    assert np.array_equal(decode_photo(data), decode_photo(encode(photo())))
    with pytest.raises(NotWholeError, match="ends before the picture does"):
        padded_copy(data[: len(data) // 2 + len(segment) // 2])


def test_what_follows_the_end_marker_does_not_matter():
    data = encode(photo())
    for tail in (b"\0" * 50, b"junk", encode(photo(12, 16)), encode(photo())[:300]):
        assert np.array_equal(decode_photo(data + tail), decode_photo(data))


def test_a_progressive_file_without_its_last_scan_is_refused():
    data = encode(photo(), progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(NotWholeError, match="its last scans are missing"):
        padded_copy(data[:last] + END)


def test_missing_restart_intervals_are_counted():
    data = encode(photo(), restart_marker_blocks=1)
    cut = data.index(b"\xff\xd3")
    with pytest.raises(NotWholeError, match="part of the picture is missing"):
        padded_copy(data[:cut] + END)


def test_a_damaged_header_is_refused():
    data = encode(photo())
    scan = data.index(b"\xff\xda")
    broken = data[: scan + 5] + b"\x77" + data[scan + 6 :]  # a component that does not exist
    with pytest.raises(NotWholeError, match="its header is damaged"):
        padded_copy(broken)
