from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage
from PIL import ImageFile

from tagseg.data.finding import find_masks, find_photos, without_suffix
from tagseg.data.images import decode_photo, decode_reduced, look_at_photo, may_be_reduced
from tagseg.data.masks import decode_mask
from tagseg.data.working import working_image
from tagseg.errors import DataError, ImageError

RNG = np.random.default_rng(0)
COARSE = PilImage.fromarray(RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8))
RGB = np.asarray(COARSE.resize((34, 26), PilImage.Resampling.BICUBIC))


def encode(picture: PilImage.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def rgb() -> PilImage.Image:
    return PilImage.fromarray(RGB)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(width: int, height: int, compression: int, strip: bytes) -> bytes:
    """A grey TIFF with its directory first, so that a cut hits the pixels."""
    entries = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, compression),
        (262, 3, 1),
        (273, 4, 8 + 2 + 9 * 12 + 4),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, len(strip)),
    ]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, v) for tag, kind, v in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + strip


class TestModes:
    @pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
    def test_lossless_rgb_is_exact(self, form, tmp_path):
        path = tmp_path / "a.png"  # the content counts, not the suffix
        path.write_bytes(encode(rgb(), form))
        photo = decode_photo(path)
        assert photo.dtype == np.uint8
        assert photo.flags.writeable
        assert np.array_equal(photo, RGB)

    def test_webp_and_gif(self):
        assert np.array_equal(decode_photo(encode(rgb(), "WEBP", lossless=True)), RGB)
        few = rgb().quantize(16)
        assert np.array_equal(decode_photo(encode(few, "GIF")), np.asarray(few.convert("RGB")))

    def test_grey(self):
        grey = RGB[..., 0]
        photo = decode_photo(encode(PilImage.fromarray(grey), "PNG"))
        assert np.array_equal(photo, np.stack([grey] * 3, -1))

    def test_one_bit(self):
        bits = RGB[..., 0] > 100
        photo = decode_photo(encode(PilImage.fromarray(bits), "PNG"))
        assert np.array_equal(photo[..., 1], bits * 255)

    def test_palette(self):
        few = rgb().quantize(9)
        photo = decode_photo(encode(few, "PNG"))
        assert np.array_equal(photo, np.asarray(few.convert("RGB")))

    @pytest.mark.parametrize("transparency", [2, bytes([255, 255, 0])])
    @pytest.mark.parametrize("form", ["PNG", "GIF"])
    def test_transparent_palette_entries_become_white(self, form, transparency):
        if form == "GIF" and isinstance(transparency, bytes):
            pytest.skip("GIF has one transparent entry")
        ids = np.array([[0, 1, 2, 2]], np.uint8)
        picture = PilImage.fromarray(ids)
        picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
        photo = decode_photo(encode(picture, form, transparency=transparency))
        expected = [[10, 20, 30], [40, 50, 60], [255] * 3, [255] * 3]
        assert photo[0].tolist() == expected

    def test_alpha_is_composited_on_white(self):
        rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
        photo = decode_photo(encode(PilImage.fromarray(rgba), "PNG"))
        assert photo[0].tolist() == [[200, 100, 0], [255, 255, 255], [244, 224, 204]]

    def test_grey_with_alpha(self):
        picture = PilImage.merge("LA", (PilImage.new("L", (3, 2), 40), PilImage.new("L", (3, 2))))
        assert (decode_photo(encode(picture, "PNG")) == 255).all()

    def test_transparent_colour_of_an_rgb_png(self):
        picture = PilImage.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8))
        photo = decode_photo(encode(picture, "PNG", transparency=(9, 8, 7)))
        assert photo[0].tolist() == [[255] * 3, [1, 2, 3]]

    @pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
    def test_16_bit_grey_is_scaled_by_257(self, form):
        values = np.array([[0, 128, 129, 257, 1000, 65535]], np.uint16)
        photo = decode_photo(encode(PilImage.fromarray(values), form))
        assert photo[0, :, 0].tolist() == [0, 0, 1, 1, 4, 255]

    def test_big_endian_16_bit_tiff(self):
        picture = PilImage.frombytes("I;16B", (2, 1), b"\x80\x80\xff\xff")
        assert decode_photo(encode(picture, "TIFF"))[0, :, 0].tolist() == [128, 255]

    def test_16_bit_rgb_png(self):
        rows = b"\0" + struct.pack(">6H", 0, 257, 65535, 257 * 9, 257 * 200, 0)
        header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        data += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        assert decode_photo(data)[0].tolist() == [[0, 1, 255], [9, 200, 0]]

    def test_cmyk_jpeg_with_adobe_inversion(self):
        flat = PilImage.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
        data = encode(flat, "JPEG", quality=100)
        assert b"Adobe" in data
        assert np.abs(decode_photo(data).astype(int) - [255, 0, 0]).max() <= 3

    def test_cmyk_tiff_is_not_inverted(self):
        flat = PilImage.new("CMYK", (4, 4), (0, 255, 255, 0))
        assert decode_photo(encode(flat, "TIFF"))[0, 0].tolist() == [255, 0, 0]

    def test_first_frame_of_an_animation(self):
        frames = [PilImage.new("RGB", (5, 4), c) for c in ("red", "green", "blue")]
        for form in ("GIF", "WEBP", "PNG", "TIFF"):
            options = {"lossless": True} if form == "WEBP" else {}
            data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
            assert decode_photo(data)[0, 0].tolist() == [255, 0, 0], form

    def test_phone_photo_with_a_second_picture(self):
        first, second = rgb(), PilImage.new("RGB", (10, 10))
        data = encode(first, "MPO", save_all=True, append_images=[second])
        assert data.count(b"\xff\xd9") == 2
        plain = np.asarray(PilImage.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(decode_photo(data), plain)
        cut_in_second = data[: data.rindex(b"\xff\xd8") + 30]
        assert np.array_equal(decode_photo(cut_in_second), plain)


class TestOrientation:
    @pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_display_orientation(self, form, orientation):
        exif = PilImage.Exif()
        exif[0x0112] = orientation
        options = {"quality": 95} if form == "JPEG" else {"lossless": True}
        if form in ("PNG", "TIFF"):
            options = {}
        stored = decode_photo(encode(rgb(), form, **options))
        turned = {
            1: stored,
            2: stored[:, ::-1],
            3: stored[::-1, ::-1],
            4: stored[::-1],
            5: stored.transpose(1, 0, 2),
            6: np.rot90(stored, -1),
            7: stored[::-1, ::-1].transpose(1, 0, 2),
            8: np.rot90(stored),
        }
        photo = decode_photo(encode(rgb(), form, exif=exif, **options))
        assert np.array_equal(photo, turned[orientation])

    @pytest.mark.parametrize("exif", [b"Exif\0\0II*\0", b"Exif\0\0" + b"\xff" * 40, b"Exif\0\0"])
    def test_broken_exif_costs_nothing(self, exif):
        expected = decode_photo(encode(rgb(), "JPEG"))
        assert np.array_equal(decode_photo(encode(rgb(), "JPEG", exif=exif)), expected)

    def test_an_orientation_that_does_not_exist_is_ignored(self):
        exif = PilImage.Exif()
        exif[0x0112] = 77
        assert np.array_equal(decode_photo(encode(rgb(), "PNG", exif=exif)), RGB)


GREY = np.ascontiguousarray(RGB[..., 1])
FILES = {
    "png": encode(rgb(), "PNG"),
    "png, EXIF behind the pixels": encode(rgb(), "PNG")[:-12]
    + chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0")
    + chunk(b"IEND", b""),
    "gif": encode(rgb().quantize(64), "GIF"),
    "bmp": encode(rgb(), "BMP"),
    "webp": encode(rgb(), "WEBP"),
    "webp lossless": encode(rgb(), "WEBP", lossless=True),
    "ppm": encode(rgb(), "PPM"),
    "pgm": encode(PilImage.fromarray(GREY), "PPM"),
    "tiff": encode(rgb(), "TIFF"),
    "tiff lzw": encode(rgb(), "TIFF", compression="tiff_lzw"),
    "tiff deflate": tiff(34, 26, 8, zlib.compress(GREY.tobytes())),
    "tiff raw": tiff(34, 26, 1, GREY.tobytes()),
    "tiff jpeg": tiff(34, 26, 7, encode(PilImage.fromarray(GREY), "JPEG")),
}


class TestCuts:
    @pytest.mark.parametrize("kind", FILES)
    def test_every_cut_is_refused_or_lost_nothing(self, kind):
        data = FILES[kind]
        whole = decode_photo(data)
        for length in {*range(1, len(data), 13), *range(max(1, len(data) - 24), len(data))}:
            try:
                cut = decode_photo(data[:length])
            except ImageError:
                continue
            assert len(data) - length <= 4, f"cut at {length} of {len(data)} passed"
            assert np.array_equal(cut, whole)

    def test_also_if_somebody_told_pillow_to_accept_cut_files(self, monkeypatch):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        for data in (FILES["png"], encode(rgb(), "JPEG")):
            with pytest.raises(ImageError):
                decode_photo(data[: len(data) * 2 // 3])

    def test_a_png_with_a_flipped_bit_is_refused(self):
        data = bytearray(FILES["png"])
        data[len(data) // 2] ^= 4
        with pytest.raises(ImageError, match="cut short or damaged"):
            decode_photo(bytes(data))

    @given(st.binary(max_size=200), st.sampled_from(["", *FILES]))
    @settings(max_examples=120, derandomize=True, deadline=None)
    def test_no_bytes_raise_anything_else(self, junk, kind):
        start = FILES[kind][:60] if kind else b""
        try:
            lines = ["fine" for _ in decode_photo(start + junk, max_pixels=10_000)][:1]
        except ImageError as problem:
            lines = str(problem).splitlines()
        assert len(lines) == 1


class TestLimit:
    def test_is_checked_on_the_header_before_decoding(self):
        header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") * 2
        with pytest.raises(ImageError, match="60000 x 60000 pixels are more than the limit"):
            decode_photo(bomb)

    def test_of_ones_own(self):
        data = encode(rgb(), "PNG")
        assert decode_photo(data, max_pixels=34 * 26).shape == (26, 34, 3)
        with pytest.raises(ImageError, match="34 x 26 pixels are more than the limit of 883"):
            decode_photo(data, max_pixels=34 * 26 - 1)

    def test_between_pillows_limit_and_ours_there_is_no_warning(self):
        picture = PilImage.new("1", (9600, 9600))  # 92 million pixels
        data = encode(picture, "PNG")
        with pytest.raises(ImageError, match="are more than the limit"):
            decode_photo(data, max_pixels=92_000_000)
        assert decode_mask(data).shape == (9600, 9600)


class TestFind:
    def touch(self, folder: Path, *names: str) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()

    def test_names_are_sorted_and_relative_without_suffix(self, tmp_path):
        self.touch(tmp_path, "b.JPG", "a.b.png", "cat/c.WebP", "cat/x/d.tiff", "notes.txt", "noext")
        found = find_photos(tmp_path)
        assert list(found.items()) == [
            ("a.b", tmp_path / "a.b.png"),
            ("b", tmp_path / "b.JPG"),
            ("cat/c", tmp_path / "cat" / "c.WebP"),
            ("cat/x/d", tmp_path / "cat" / "x" / "d.tiff"),
        ]

    def test_hidden_files_and_folders_are_left_out(self, tmp_path):
        self.touch(tmp_path, ".a.jpg", "._b.jpg", ".thumbs/c.jpg", "d.jpg")
        assert list(find_photos(tmp_path)) == ["d"]

    def test_same_name_with_two_suffixes(self, tmp_path):
        self.touch(tmp_path, "cat/a.png", "cat/a.jpg")
        with pytest.raises(DataError, match=r"a\.jpg and a\.png have the same name"):
            find_photos(tmp_path)

    def test_links_are_followed_but_not_in_circles(self, tmp_path):
        self.touch(tmp_path / "real", "a.jpg")
        photos = tmp_path / "photos"
        photos.mkdir()
        (photos / "linked").symlink_to(tmp_path / "real")
        (photos / "b.jpg").symlink_to(tmp_path / "real" / "a.jpg")
        (tmp_path / "real" / "circle").symlink_to(photos)
        assert list(find_photos(photos)) == ["b", "linked/a"]

    @pytest.mark.parametrize("above", [1, 2, None])
    def test_a_link_to_a_folder_above_is_refused(self, tmp_path, above):
        """From "/" the whole machine would be searched for photos."""
        photos = tmp_path / "photos"
        self.touch(photos, "a.jpg")
        target = Path("/") if above is None else photos.parents[above - 1]
        (photos / "inner").mkdir()
        (photos / "inner" / "link").symlink_to(target)
        with pytest.raises(DataError, match=f"link: is a link to {target}, in which the photos"):
            find_photos(photos)

    def test_masks_have_their_own_suffixes(self, tmp_path):
        self.touch(tmp_path, "a.png", "a.jpg", "b.tif")
        assert list(find_masks(tmp_path)) == ["a", "b"]

    def test_no_folder(self, tmp_path):
        with pytest.raises(DataError, match="this folder does not exist"):
            find_photos(tmp_path / "none")

    def test_only_photo_suffixes_are_suffixes(self):
        assert without_suffix("cat/a.v2.JPG") == "cat/a.v2"
        assert without_suffix("a.v2") == "a.v2"


def large(width: int, height: int, **options: object) -> bytes:
    """A JPEG of smooth content."""
    picture = COARSE.resize((width, height), PilImage.Resampling.BICUBIC)
    return encode(picture, "JPEG", quality=95, **options)


class TestReducedScale:
    @pytest.mark.parametrize(
        ("side", "shape"),
        [
            (101, (121, 203)),
            (51, (121, 203)),
            (50, (60, 102)),
            (26, (60, 102)),
            (25, (30, 51)),
            (12, (15, 25)),
        ],
    )
    def test_twice_as_many_pixels_where_sides_are_rounded(self, side, shape):
        photo = decode_reduced(large(203, 121), side)
        assert photo.image.shape == (*shape, 3)
        assert photo.shape == (121, 203)

    @pytest.mark.parametrize(
        ("side", "shape"), [(101, (128, 200)), (100, (64, 100)), (50, (32, 50)), (25, (16, 25))]
    )
    def test_the_least_scale_that_leaves_enough_pixels(self, side, shape):
        assert decode_reduced(large(200, 128), side).image.shape == (*shape, 3)

    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
    @pytest.mark.parametrize(
        ("width", "height", "moved"), [(400, 304, 0), (411, 305, 0.25), (404, 300, 0.25)]
    )
    def test_pixels_are_nearly_those_of_the_whole_photo(self, width, height, moved, options):
        """Edges move by a quarter of a pixel at most where sides are no multiples of 8."""
        data = large(width, height, **options)
        whole = decode_photo(data)
        for side in (50, 75, 150):
            photo = decode_reduced(data, side)
            expected = working_image(whole, side).astype(int)
            found = working_image(photo.image, side, photo.shape)
            assert found.shape == expected.shape
            step = np.abs(np.diff(expected, axis=1)).mean()
            assert np.abs(found - expected).mean() < 0.6 + moved * step

    def test_who_needs_it_whole_has_it_to_the_bit(self):
        data = large(100, 80)
        for side in (None, 51, 1000):
            assert np.array_equal(decode_reduced(data, side).image, decode_photo(data))

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_display_orientation(self, orientation):
        exif = PilImage.Exif()
        exif[0x0112] = orientation
        photo = decode_reduced(large(205, 120, exif=exif), 25)
        whole = decode_photo(large(205, 120, exif=exif))
        assert photo.shape == whole.shape[:2]
        assert max(photo.image.shape) < 60
        expected = working_image(whole, 25).astype(int)
        found = working_image(photo.image, 25, photo.shape)
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean() < 3

    @pytest.mark.parametrize("mode", ["L", "CMYK"])
    def test_other_modes(self, mode):
        picture = COARSE.resize((160, 120)).convert(mode)
        data = encode(picture, "JPEG", quality=95)
        photo = decode_reduced(data, 20)
        assert photo.image.shape == (15, 20, 3)
        assert np.abs(photo.image - working_image(decode_photo(data), 20).astype(int)).mean() < 2

    def test_other_formats_come_whole(self):
        assert np.array_equal(decode_reduced(encode(rgb(), "PNG"), 2).image, RGB)

    def test_damage_is_found_at_any_scale(self):
        data = large(400, 300)
        half = len(data) // 2
        for broken in (data[:half], data[:half] + bytes(512) + data[half + 512 :]):
            for side in (50, 100, 200, None):
                with pytest.raises(ImageError, match="cut short or damaged"):
                    decode_reduced(broken, side)

    def test_a_photo_of_a_few_pixels(self):
        for width, height in ((1, 1), (9, 1), (1, 40)):
            photo = decode_reduced(encode(PilImage.new("RGB", (width, height)), "JPEG"), 1)
            assert photo.shape == (height, width)
            assert min(photo.image.shape) >= 1

    def test_a_look_tells_the_whole_size(self):
        exif = PilImage.Exif()
        exif[0x0112] = 6
        assert look_at_photo(large(203, 121))[:2] == (121, 203)
        assert look_at_photo(large(203, 121, exif=exif))[:2] == (203, 121)

    def test_it_is_told_by_name_and_size(self):
        assert may_be_reduced(Path("a.JPG"), (100, 40), 50)
        assert not may_be_reduced(Path("a.jpg"), (99, 40), 50)
        assert not may_be_reduced(Path("a.png"), (100, 40), 50)
        assert not may_be_reduced(RGB, (100, 40), 50)
