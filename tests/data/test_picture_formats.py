"""Which files are photos, which are named as what they are, and what is counted as left out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from tagseg.data import finding, picture_formats, pictures
from tagseg.data.finding import (
    advice_without_photos,
    find_photos,
    notes_on_unread,
    without_suffix,
)
from tagseg.data.images import decode_photo, look_at_photo
from tagseg.data.picture_formats import (
    NAME_SUFFIXES,
    PHOTO_SUFFIXES,
    READ,
    format_of,
    unread_suffix,
)
from tagseg.errors import ImageError
from tagseg.formats.loading import load_dataset

RNG = np.random.default_rng(5)
COARSE = PilImage.fromarray(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8))
PHOTO = COARSE.resize((64, 48), PilImage.Resampling.BICUBIC)
HEIC_STUB = b"\0\0\0\x18ftypheic" + b"\0" * 500


def encode(form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    PHOTO.save(buffer, form, **options)
    return buffer.getvalue()


def readers(*names: str) -> dict[str, object]:
    return {one.name: one.reader for one in READ if one.name in names}


has_avif = pytest.mark.skipif(readers("AVIF") == {"AVIF": None}, reason="Pillow without AVIF")
has_jp2 = pytest.mark.skipif(readers("JPEG 2000") == {"JPEG 2000": None}, reason="no OpenJPEG")
FORMS = {
    "a.JFIF": ("JPEG", {"quality": 95}),
    "b.mpo": ("MPO", {"save_all": True, "append_images": [PilImage.new("RGB", (9, 9))]}),
    "c.Jpe": ("JPEG", {"progressive": True, "quality": 95}),
    "d.apng": ("PNG", {"save_all": True, "append_images": [PilImage.new("RGB", (64, 48))]}),
    "e.DIB": ("BMP", {}),
    "f.pnm": ("PPM", {}),
    "g.TIF": ("TIFF", {"compression": "tiff_lzw"}),
    "h.pjpeg": ("JPEG", {"quality": 95}),
}
EXTRAS = [
    pytest.param("i.AVIF", "AVIF", {"quality": 95}, marks=has_avif),
    pytest.param("j.jp2", "JPEG2000", {}, marks=has_jp2),
    pytest.param("k.J2K", "JPEG2000", {"no_jp2": True}, marks=has_jp2),
]
ALL = [pytest.param(name, form, options) for name, (form, options) in FORMS.items()] + EXTRAS


@pytest.mark.parametrize(("name", "form", "options"), ALL)
def test_photos_of_every_form_are_found_and_read(tmp_path, name, form, options):
    (tmp_path / name).write_bytes(encode(form, **options))
    assert find_photos(tmp_path) == {name[0]: tmp_path / name}
    assert notes_on_unread(tmp_path) == ()
    assert without_suffix(f"x/{name}") == f"x/{name[0]}"
    photo = decode_photo(tmp_path / name)
    assert photo.shape == (48, 64, 3)
    assert np.abs(photo.astype(int) - np.asarray(PHOTO)).mean() < 6


@pytest.mark.parametrize(("name", "form", "options"), EXTRAS)
def test_every_cut_is_refused(name, form, options):
    data = encode(form, **options)
    whole = decode_photo(data)
    for length in range(1, len(data), max(1, len(data) // 60)):
        try:
            cut = decode_photo(data[:length])
        except ImageError:
            continue
        assert len(data) - length <= 4
        assert np.array_equal(cut, whole)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_files_with_more_pictures_are_told_and_the_first_counts(form):
    options = {"lossless": True} if form == "WEBP" else {}
    one = encode(form, **options)
    rest = [PilImage.new("RGB", PHOTO.size, "red"), PilImage.new("RGB", PHOTO.size, "blue")]
    many = encode(form, save_all=True, append_images=rest, **options)
    assert not look_at_photo(one).more
    assert look_at_photo(many).more
    distance = np.abs(decode_photo(many).astype(int) - decode_photo(one)).mean()
    assert distance < 6  # a GIF's colours are chosen anew


def test_a_broken_second_picture_costs_nothing():
    many = encode("GIF", save_all=True, append_images=[PilImage.new("RGB", PHOTO.size, "red")])
    assert look_at_photo(many[:-40])[:2] == (48, 64)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"8BPS\0\x01" + bytes(90), "this is a Photoshop file, which is not read: save as PNG"),
        (bytes(128) + b"DICM" + bytes(9), "this is a DICOM file, which is not read: save as PNG"),
        (b"\x76\x2f\x31\x01" + bytes(9), "this is a floating-point file, which is not read: save"),
        (b"II*\0\x10\0\0\0CR\x02\0", "this is a camera raw file, which is not read: export as"),
        (b"\0\0\0\x18ftypcrx " + bytes(9), "this is a camera raw file, which is not read: export"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "this is a JPEG XL file, which is not read: save as PNG"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "this is a drawing file, which is not read"),
        (b"%PDF-1.7", "this is a PDF file, which is not read: save as PNG or JPEG"),
    ],
)
def test_other_files_are_named_whatever_their_suffix(tmp_path, data, message):
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ImageError) as caught:
        decode_photo(tmp_path / "a.jpg")
    assert str(caught.value).startswith(f"{tmp_path / 'a.jpg'}: {message}")


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1", b"msf1"])
def test_heic_without_a_decoder_names_the_extra(tmp_path, monkeypatch, brand):
    without = tuple(one._replace(reader=None) if one.name == "HEIC" else one for one in READ)
    monkeypatch.setattr(picture_formats, "READ", without)
    monkeypatch.setattr(pictures, "READ", without)
    path = tmp_path / "IMG_1.jpg"
    path.write_bytes(b"\0\0\0\x1cftyp" + brand + b"\0\0\0\0mif1heic" + bytes(200))
    with pytest.raises(ImageError) as caught:
        decode_photo(path)
    assert str(caught.value) == (
        f"{path}: this is a HEIC picture, which needs a decoder: pip install 'tagseg[formats]'"
    )


def test_an_avif_file_that_only_lists_its_brand_is_no_heic():
    data = b"\0\0\0\x20ftypmif1\0\0\0\0mif1miafavif" + bytes(40)
    assert format_of(data).name == "AVIF"
    assert format_of(b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic").name == "HEIC"


def test_heic_with_the_decoder(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(PHOTO).save(tmp_path / "IMG.HEIC", quality=95)
    assert list(find_photos(tmp_path)) == ["IMG"]
    photo = decode_photo(tmp_path / "IMG.HEIC")
    assert np.abs(photo.astype(int) - np.asarray(PHOTO)).mean() < 6
    data = (tmp_path / "IMG.HEIC").read_bytes()
    for length in range(10, len(data), len(data) // 20):
        with pytest.raises(ImageError):
            decode_photo(data[:length])


class TestLeftOut:
    def touch(self, folder: Path, *names: str) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()

    @pytest.fixture(autouse=True)
    def without_heic(self, monkeypatch):
        """As where the extra is not installed."""
        heic = {".heic", ".heif", ".hif"}
        monkeypatch.setattr(picture_formats, "PHOTO_SUFFIXES", PHOTO_SUFFIXES - heic)
        monkeypatch.setattr(finding, "PHOTO_SUFFIXES", PHOTO_SUFFIXES - heic)

    def test_counts_by_suffix_with_what_to_do(self, tmp_path):
        self.touch(tmp_path, "a.jpg", "b.NEF", "c.nef", "x/d.dng", "x/e.HEIC", "f.dcm", "g.nii.gz")
        self.touch(tmp_path, "notes.txt", "model.gz", ".hidden.psd", "clip.mov", "noext")
        assert sorted(notes_on_unread(tmp_path)) == [
            "left out: 1 .dcm, 1 .nii.gz files; save as PNG or JPEG",
            "left out: 1 .dng, 2 .nef files; export as JPEG or TIFF",
            "left out: 1 .heic file; pip install 'tagseg[formats]'",
        ]

    def test_nothing_else_lies_there(self, tmp_path):
        self.touch(tmp_path, "a.heic", "b.heic")
        assert find_photos(tmp_path) == {}
        expected = "left out: 2 .heic files; pip install 'tagseg[formats]'"
        assert advice_without_photos(tmp_path) == expected
        (tmp_path / "empty").mkdir()
        assert advice_without_photos(tmp_path / "empty") == "check the path"

    def test_tags_find_a_photo_that_needs_a_decoder(self, tmp_path):
        PHOTO.save(tmp_path / "b.jpg")
        (tmp_path / "a.heic").write_bytes(HEIC_STUB)
        (tmp_path / "tags.csv").write_text("image,tags\na.heic,cat\nb.jpg,dog\n")
        data = load_dataset(tmp_path)
        assert data.names == ("a", "b")
        assert data.sources[0] == tmp_path / "a.heic"
        assert data.notes[1:] == ("left out: 1 .heic file; pip install 'tagseg[formats]'",)


class TestSpareForms:
    """A phone's or camera's second file of a photo, where the common one lies beside."""

    @pytest.mark.parametrize("spare", ["a.AVIF", "a.mpo", "a.jfif", "a.jp2"])
    def test_the_common_form_counts(self, tmp_path, spare):
        if Path(spare).suffix.lower() not in PHOTO_SUFFIXES:
            pytest.skip("no decoder")
        for name in (spare, "a.jpg", f"x/{spare}"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        assert find_photos(tmp_path) == {"a": tmp_path / "a.jpg", "x/a": tmp_path / "x" / spare}
        suffix = Path(spare).suffix.lower()
        note = f"left out: 1 {suffix} file; a photo of the same name lies beside"
        assert notes_on_unread(tmp_path) == (note,)


def test_suffixes_are_of_one_format_each():
    every = [suffix for one in READ for suffix in one.suffixes]
    assert len(every) == len(set(every))
    assert PHOTO_SUFFIXES <= NAME_SUFFIXES
    assert all(unread_suffix(f"a{suffix}") is None for suffix in PHOTO_SUFFIXES)


@given(st.binary(max_size=80), st.sampled_from([b"", b"\0\0\0\x18ftypheic", b"\xff\x4f\xff\x51"]))
@settings(max_examples=80, derandomize=True, deadline=None)
def test_no_bytes_raise_anything_else(junk, start):
    try:
        lines = ["fine" for _ in decode_photo(start + junk, max_pixels=10_000)][:1]
    except ImageError as problem:
        lines = str(problem).splitlines()
    assert len(lines) == 1
