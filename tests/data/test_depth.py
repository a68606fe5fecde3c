"""Photos of 16 bits of which fewer are used: one rule for all of a data set, from all of it."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from tagseg.data.audit import audit
from tagseg.data.dataset import Dataset
from tagseg.data.depth import BITS, WHITE, Depth, Levels, notes_on_new, scaled
from tagseg.data.images import decode_photo, decode_reduced, look_at_photo
from tagseg.errors import DataError, ImageError

RNG = np.random.default_rng(6)


def values(bits: int, shape: tuple[int, ...] = (40, 50)) -> np.ndarray:
    """Whole numbers that use the bits, the greatest among them."""
    array = RNG.integers(0, 1 << bits, shape).astype(np.uint16)
    array[0, 0] = (1 << bits) - 1
    return array


def png_of_colour(rgb: np.ndarray) -> bytes:
    channels = rgb[..., ::-1] if rgb.shape[2] == 3 else rgb[..., [2, 1, 0, 3]]
    return cv2.imencode(".png", channels)[1].tobytes()


def grey_file(array: np.ndarray, form: str) -> bytes:
    buffer = io.BytesIO()
    PilImage.fromarray(array).save(buffer, form)
    return buffer.getvalue()


def data_set(folder: Path, files: dict[str, bytes]) -> Dataset:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    n = len(files)
    paths = tuple(folder / name for name in files)
    return Dataset(("cat",), tuple(files), np.ones((n, 1), bool), np.ones(n, bool), paths)


class TestScaled:
    @pytest.mark.parametrize("bits", BITS)
    def test_white_is_255(self, bits):
        white = (1 << bits) - 1
        assert scaled(np.array([0, white // 2, white, WHITE]), white).tolist()[::2] == [0, 255]
        assert scaled(np.array([WHITE]), white) == 255
        assert np.array_equal(scaled(np.arange(256), 255), np.arange(256))

    @given(st.integers(1, WHITE), st.lists(st.integers(0, WHITE), min_size=1))
    @settings(max_examples=80, derandomize=True, deadline=None)
    def test_is_the_nearest_whole_number(self, white, array):
        exact = np.minimum(np.array(array) * 255 / white, 255)
        assert np.abs(scaled(np.array(array), white) - exact).max() <= 0.5 + 1e-9

    def test_default_is_division_by_257(self):
        every = np.arange(WHITE + 1)
        assert np.array_equal(scaled(every, WHITE), (every + 128) // 257)


class TestRule:
    @pytest.mark.parametrize("bits", BITS)
    def test_fewest_bits(self, bits):
        assert Levels.of(values(bits)).bits == bits
        assert Levels.of(np.array([(1 << bits) - 1], np.uint16)).bits == bits

    def test_a_dead_pixel_in_many_does_not_count(self):
        array = values(12, (200, 200))
        array[5, 5] = WHITE
        levels = Levels.of(array)
        assert (levels.bits, levels.greatest) == (12, WHITE)
        array[6:16, 5] = WHITE
        assert Levels.of(array).bits == 16

    @given(st.lists(st.integers(0, WHITE), min_size=1), st.lists(st.integers(0, WHITE), min_size=1))
    @settings(max_examples=50, derandomize=True, deadline=None)
    def test_of_two_photos_is_that_of_their_values(self, a, b):
        one, other = (Levels.of(np.array(part, np.uint16)) for part in (a, b))
        assert one.joined(other) == Levels.of(np.array(a + b, np.uint16))

    def test_words(self):
        assert Depth.of([]) is None
        depth = Depth.of([("a", Levels.of(values(12))), ("b", Levels.of(values(8)))])
        assert depth.white == 4095
        assert depth.dark == ("b",)
        assert depth.line(5) == (
            "2 of 5 photos have 16 bits, of which 12 are used (values up to 4095): 4095 is shown "
            "as white"
        )

    def test_of_new_photos(self):
        found = [("a", Levels.of(values(12))), ("b", Levels.of(values(8)))]
        assert notes_on_new(found[:1], 4095) == []
        assert [note.split(" where ")[0] for note in notes_on_new(found, 4095)] == [
            "1 photos (b) are nearly black"
        ]
        (note,) = notes_on_new(found, 255)
        assert note.startswith("1 photos (a) have brighter values, which are shown as white, where")


class TestFiles:
    @pytest.mark.parametrize("form", ["PNG", "TIFF"])
    def test_grey(self, form):
        array = values(12)
        data = grey_file(array, form)
        assert look_at_photo(data).levels == Levels.of(array)
        photo = decode_photo(data, white=4095)
        assert np.array_equal(photo[..., 1], scaled(array, 4095))

    def test_big_endian_tiff(self):
        array = values(10)
        buffer = io.BytesIO()
        picture = PilImage.frombytes("I;16B", array.shape[::-1], array.astype(">u2").tobytes())
        picture.save(buffer, "TIFF")
        assert np.array_equal(
            decode_photo(buffer.getvalue(), white=1023)[..., 0], scaled(array, 1023)
        )

    def test_colour_png_keeps_the_lower_byte(self):
        rgb = values(8, (30, 40, 3))
        data = png_of_colour(rgb)
        assert decode_photo(data).max() == 0  # the higher byte alone
        assert look_at_photo(data).levels == Levels.of(rgb)
        assert np.array_equal(decode_photo(data, white=255), rgb)

    def test_colour_tiff(self):
        rgb = values(12, (30, 40, 3))
        data = cv2.imencode(".tiff", rgb[..., ::-1])[1].tobytes()
        assert look_at_photo(data).levels == Levels.of(rgb)
        assert np.array_equal(decode_photo(data, white=4095), scaled(rgb, 4095))

    def test_opacity_is_of_all_16_bits(self):
        rgba = np.dstack([values(8, (6, 7, 3)), np.full((6, 7), WHITE, np.uint16)])
        rgba[0, 0, 3] = 0
        data = png_of_colour(rgba)
        assert look_at_photo(data).levels.greatest == 255
        photo = decode_photo(data, white=255)
        assert photo[0, 0].tolist() == [255] * 3
        assert np.array_equal(photo[1:], rgba[1:, :, :3])

    def test_grey_with_opacity(self):
        rows = b"".join(b"\0" + struct.pack(">4H", v, WHITE, 0, WHITE) for v in (200, 250))
        header = struct.pack(">IIBBBBB", 2, 2, 16, 4, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n"
        for kind, part in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            crc = struct.pack(">I", zlib.crc32(kind + part))
            data += struct.pack(">I", len(part)) + kind + part + crc
        assert decode_photo(data, white=255)[..., 0].tolist() == [[200, 0], [250, 0]]

    def test_photos_of_8_bits_do_not_care(self):
        rgb = RNG.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        data = grey_file(rgb, "PNG")
        assert look_at_photo(data).levels is None
        assert np.array_equal(decode_photo(data, white=255), rgb)

    def test_with_levels(self, tmp_path):
        (tmp_path / "a.png").write_bytes(grey_file(values(8), "PNG"))
        photo = decode_reduced(tmp_path / "a.png", 1, white=255)
        assert photo.image.max() == photo.levels.greatest == 255

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.full((4, 5), 0.5, np.float32), "it has floating-point pixels, which have no fixed"),
            (np.full((4, 5), -1024, np.int32), "it has values from -1024 to -1024, which is no"),
            (np.full((4, 5), 70_000, np.int32), "it has values from 70000 to 70000, which is no"),
        ],
    )
    def test_no_fixed_range(self, tmp_path, array, message):
        path = tmp_path / "a.tif"
        path.write_bytes(grey_file(array, "TIFF"))
        for call in (decode_photo, look_at_photo):
            with pytest.raises(ImageError) as caught:
                call(path)
            assert str(caught.value).startswith(f"{path}: {message}")
            assert ": convert it to 8 or 16 bits" in str(caught.value)

    def test_colour_in_floating_point(self, tmp_path):
        tifffile = pytest.importorskip("tifffile")
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5, 3), np.float32), photometric="rgb")
        with pytest.raises(ImageError, match=r"pixels of a kind that is not read.*convert it to 8"):
            decode_photo(tmp_path / "a.tif")

    def test_signed_values_without_a_sign_are_fine(self):
        array = values(12).astype(np.int32)
        assert np.array_equal(
            decode_photo(grey_file(array, "TIFF"), white=4095)[..., 0],
            scaled(array.astype(np.uint16), 4095),
        )


class TestDataSet:
    @pytest.mark.parametrize("bits", BITS)
    def test_one_rule_from_all_photos(self, tmp_path, bits):
        dim = grey_file(values(max(8, bits - 2)), "PNG")
        files = {"a": dim, "b": grey_file(values(bits), "TIFF"), "c": grey_file(values(8), "PNG")}
        found = audit(data_set(tmp_path, files))
        white = (1 << bits) - 1
        assert found.dataset.white == found.to_dict()["white"] == white
        assert found.dataset.image(1).max() == 255
        assert found.notes[0] == (
            f"all photos have 16 bits, of which {bits} are used (values up to {white}): {white} is "
            "shown as white"
        )
        dark = any("nearly black" in warning for warning in found.warnings)
        assert dark == (bits >= 12)

    def test_mixed_with_photos_of_8_bits(self, tmp_path):
        plain = grey_file(RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8), "PNG")
        found = audit(data_set(tmp_path, {"a": plain, "b": grey_file(values(10), "PNG")}))
        assert found.notes[0].startswith("1 of 2 photos have 16 bits, of which 10 are used")
        assert found.to_dict()["photos_of_16_bits"] == 1

    def test_colour_counts_as_grey(self, tmp_path):
        files = {"a": png_of_colour(values(12, (40, 50, 3))), "b": grey_file(values(8), "PNG")}
        found = audit(data_set(tmp_path, files))
        assert found.dataset.white == 4095
        assert found.dataset.image(0).max() == 255

    def test_photos_of_8_bits_have_no_rule(self, tmp_path):
        plain = grey_file(RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8), "PNG")
        found = audit(data_set(tmp_path, {"a": plain}))
        assert found.depth is None
        assert found.dataset.white == WHITE
        assert found.notes == ()

    def test_the_rule_is_part_of_the_content(self, tmp_path):
        data = data_set(tmp_path, {"a": grey_file(values(8), "PNG")})
        assert replace(data, white=WHITE).fingerprint() == data.fingerprint()
        assert replace(data, white=255).fingerprint() != data.fingerprint()
        assert replace(data, white=255).subset([0]).white == 255
        with pytest.raises(DataError, match="white is 0; use 1 to 65535"):
            replace(data, white=0)
