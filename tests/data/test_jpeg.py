"""A cut JPEG is found wherever it is cut, also if somebody put an end marker behind the cut."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.data.images import decode_photo
from tagseg.data.jpeg import NotWholeError, check_coded, check_markers
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


@pytest.fixture(params=ENCODINGS)
def options(request: pytest.FixtureRequest) -> dict[str, object]:
    return ENCODINGS[request.param]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_whole_file_passes(options, mode):
    data = encode(photo().convert(mode), **options)
    check_markers(data)
    check_coded(data)


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
        check_markers(data[: len(data) // 2 + len(segment) // 2])


def test_what_follows_the_end_marker_does_not_matter():
    data = encode(photo())
    for tail in (b"\0" * 50, b"junk", encode(photo(12, 16)), encode(photo())[:300]):
        assert np.array_equal(decode_photo(data + tail), decode_photo(data))


def test_a_progressive_file_without_its_last_scan_is_refused():
    data = encode(photo(), progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(NotWholeError, match="its last scans are missing"):
        check_markers(data[:last] + END)


def test_missing_restart_intervals_are_counted():
    data = encode(photo(), restart_marker_blocks=1)
    cut = data.index(b"\xff\xd3")
    with pytest.raises(NotWholeError, match="Corrupt JPEG data"):
        check_coded(data[:cut] + END)


def test_a_damaged_header_is_refused():
    data = encode(photo())
    scan = data.index(b"\xff\xda")
    broken = data[: scan + 5] + b"\x77" + data[scan + 6 :]  # a component that does not exist
    with pytest.raises(NotWholeError, match="its header is damaged"):
        check_markers(broken)


def scan_data(data: bytes) -> int:
    """Where the coded data of the last scan begin."""
    return data.rindex(b"\xff\xda") + 14


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("end", [b"", encode(photo(12, 16))], ids=["alone", "as in an MPO"])
def test_zeros_inside_are_refused(mode, end):
    """As of a disk's lost block: the decoder goes on behind it, out of step."""
    data = encode(photo(240, 320).convert(mode), quality=95)
    refused = 0
    places = np.random.default_rng(0).integers(scan_data(data), len(data) - 600, 25)
    for place in places:
        try:
            decode_photo(data[:place] + bytes(512) + data[place + 512 :] + end)
        except ImageError:
            refused += 1
    assert refused >= 23


def test_a_tail_of_zeros_with_an_end_marker_is_refused():
    data = encode(photo(120, 160))
    for part in (2, 3, 5):
        half = scan_data(data) + (len(data) - scan_data(data)) // part
        with pytest.raises(ImageError, match="cut short or damaged"):
            decode_photo(data[:half] + bytes(len(data) - half) + END)


def test_so_many_scans_that_decoding_never_ends():
    """A file of a few bytes a scan; each makes the decoder go through the whole picture."""
    data = encode(photo(), progressive=True)
    begin = data.rindex(b"\xff\xda")
    scan = data[begin:-2]
    with pytest.raises(ImageError, match="it has more than 100 scans"):
        decode_photo(data[:begin] + 200 * scan + END)


def test_where_simplejpeg_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    data = encode(photo())
    with pytest.warns(RuntimeWarning, match="simplejpeg is not installed"):
        check_coded(data)
    with pytest.raises(NotWholeError, match="ends before the picture does"):
        check_markers(data[:-9])
