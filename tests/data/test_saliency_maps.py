from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tagseg.data.masks import write_mask
from tagseg.data.saliency_maps import SaliencyFolder
from tagseg.errors import DataError

RNG = np.random.default_rng
GREY = RNG(0).integers(0, 256, (6, 9), np.uint8)
DEEP = RNG(1).integers(0, 65536, (6, 9), np.uint16)


def save(folder, name, values, **how):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path, **how)
    return path


def only(folder, name, shape=(6, 9)):
    return SaliencyFolder(folder).map(name, shape)


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_pictures_are_divided_by_what_their_type_can_hold(tmp_path):
    save(tmp_path, "grey.png", GREY)
    save(tmp_path, "in/deep.PNG", DEEP)
    save(tmp_path, "three.png", np.repeat(GREY[..., None], 3, 2))
    save(tmp_path, "photo.jpg", np.full((6, 9), 128, np.uint8))
    save(tmp_path, "bits.png", GREY > 100)
    save(tmp_path, "notes.npy.txt.png", GREY)
    maps = SaliencyFolder(tmp_path)
    assert maps.names() == ("bits", "grey", "in/deep", "notes.npy.txt", "photo", "three")
    assert maps.has("in/deep")
    assert not maps.has("deep")
    expected = {"grey": GREY / 255, "three": GREY / 255, "in/deep": DEEP / 65535}
    for name, values in (
        expected | {"photo": np.full((6, 9), 128 / 255), "bits": GREY > 100}
    ).items():
        found = maps.map(name, (6, 9))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, values, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_are_divided_by_their_maximum_where_it_is_over_1(tmp_path, dtype):
    values = RNG(2).random((6, 9)).astype(dtype)
    save(tmp_path, "a.npy", values)
    save(tmp_path, "b.npy", values * 40)
    save(tmp_path, "c.npy", np.asfortranarray(values))
    save(tmp_path, "zeros.npy", values * 0)
    maps = SaliencyFolder(tmp_path)
    assert maps.map("a", (6, 9)).dtype == np.float32
    np.testing.assert_array_equal(maps.map("a", (6, 9)), values.astype(np.float32))
    np.testing.assert_array_equal(maps.map("c", (6, 9)), values.astype(np.float32))
    np.testing.assert_allclose(maps.map("b", (6, 9)), values / values.max(), atol=1e-3)
    assert maps.map("b", (6, 9)).max() == 1
    assert not maps.map("zeros", (6, 9)).any()


def test_huge_values(tmp_path):
    save(tmp_path, "a.npy", np.full((6, 9), 1e300))
    np.testing.assert_array_equal(only(tmp_path, "a"), 1)


def test_maps_of_another_size_are_resized_bilinearly(tmp_path):
    save(tmp_path, "a.png", GREY)
    found = only(tmp_path, "a", (12, 18))
    assert found.shape == (12, 18)
    expected = cv2.resize(GREY / 255, (18, 12), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # Pixel centres at odd positions of the fine grid: 3/4 of the nearest row, 1/4 of the next.
    rows = 0.75 * GREY[2] + 0.25 * GREY[3]
    columns = 0.75 * rows[4] + 0.25 * rows[5]
    assert found[5, 9] == pytest.approx(columns / 255, abs=1e-6)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.integers(1, 4000), st.integers(1, 4000), st.floats(0.02, 4))
def test_every_way_to_round_a_scaled_size_fits(tmp_path_factory, height, width, scale):
    folder = tmp_path_factory.mktemp("maps")
    for turn in (np.floor, np.ceil, np.round):
        size = tuple(max(1, int(turn(scale * side))) for side in (height, width))
        if size[0] * size[1] > 10_000:
            continue
        save(folder, "a.npy", np.zeros(size))
        try:
            only(folder, "a", (height, width))
        finally:
            shutil.rmtree(folder)
            folder.mkdir()


@pytest.mark.parametrize("shape", [(90, 60), (120, 240), (375, 500), (60, 93)])
def test_other_aspect_ratios_are_refused(tmp_path, shape):
    save(tmp_path, "a.png", np.zeros((60, 90), np.uint8))
    with pytest.raises(DataError, match=f"60 x 90, the photo {shape[0]} x {shape[1]}; ") as error:
        only(tmp_path, "a", shape)
    assert "a.png" in one_line(error)


def test_a_mask_of_class_ids_is_salient_where_there_is_a_class(tmp_path):
    ids = np.array([[0, 1, 7], [255, 254, 0]], np.uint8)
    write_mask(tmp_path / "a.png", ids)  # with the palette of VOC
    assert only(tmp_path, "a", ids.shape).tolist() == [[0, 1, 1], [0, 1, 0]]


def rgba(alpha):
    return np.dstack([GREY, GREY, GREY, np.full_like(GREY, alpha)])


@pytest.mark.parametrize(
    ("name", "values", "what"),
    [
        ("a.png", RNG(3).integers(0, 256, (6, 9, 3), np.uint8), "holds colours"),
        ("a.png", rgba(200), "transparent"),
        ("a.npy", GREY, "uint8 array of shape"),
        ("a.npy", np.zeros((6, 9, 1)), r"shape \(6, 9, 1\)"),
        ("a.npy", np.zeros((0, 9)), r"shape \(0, 9\)"),
        ("a.npy", np.zeros((6, 9), complex), "complex128"),
        ("a.npy", np.full((6, 9), np.nan), "NaN"),
        ("a.npy", np.full((6, 9), np.inf), "NaN, infinity"),
        ("a.npy", np.full((6, 9), -0.5), "below 0"),
        ("a.npy", np.full((6, 9), None), "cannot be read"),
    ],
)
def test_what_is_no_map(tmp_path, name, values, what):
    save(tmp_path, name, values)
    with pytest.raises(DataError, match=what) as error:
        only(tmp_path, "a")
    assert name in one_line(error)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.npy"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9])
def test_files_that_are_cut_short(tmp_path, name, share):
    values = RNG(4).random((60, 90)) if name == "a.npy" else np.repeat(GREY, 10, 0)
    path = save(tmp_path, name, values)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError) as error:
        only(tmp_path, "a", (60, 90))
    assert name in one_line(error)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.binary(max_size=40), st.sampled_from(["a.png", "a.npy", "a.jpg"]), st.booleans())
def test_any_bytes_give_one_line(tmp_path_factory, content, name, begun):
    folder = tmp_path_factory.mktemp("maps")
    start = {"a.png": b"\x89PNG\r\n\x1a\n", "a.npy": b"\x93NUMPY\x01\x00", "a.jpg": b"\xff\xd8\xff"}
    (folder / name).write_bytes((start[name] if begun else b"") + content)
    with pytest.raises(DataError) as error:
        only(folder, "a")
    assert name in one_line(error)


def test_headers_that_are_no_python_are_one_line(tmp_path):
    """numpy goes through their tokens, and reads them as literals."""
    huge = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d, 8)}" % 10**30
    for header in (b"{'descr': '<f8', (", b"[" * 3000, b"  a\n b", b"{'descr': 3}", huge):
        size = len(header).to_bytes(2, "little")
        (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + size + header)
        with pytest.raises(DataError, match="cannot be read"):
            only(tmp_path, "a")


def test_archives_are_no_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", GREY)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(DataError, match="cannot be read"):
        only(tmp_path, "a")


def test_folders_without_maps(tmp_path):
    with pytest.raises(DataError, match="this folder does not exist"):
        SaliencyFolder(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("none")
    save(tmp_path, ".hidden/a.npy", GREY)
    save(tmp_path, ".hidden/a.png", GREY)
    with pytest.raises(DataError, match="no saliency maps in this folder"):
        SaliencyFolder(str(tmp_path))


def test_two_maps_of_one_photo(tmp_path):
    save(tmp_path, "x/a.png", GREY)
    save(tmp_path, "x/a.npy", GREY / 255)
    with pytest.raises(DataError, match=r"a\.npy and a\.png have the same name"):
        SaliencyFolder(tmp_path)


def test_check_tells_how_many_are_missing_and_the_first(tmp_path):
    save(tmp_path, "b.png", GREY)
    maps = SaliencyFolder(tmp_path)
    maps.check(["b"])
    maps.check([])
    with pytest.raises(DataError, match="2 of 3 photos have no saliency map, the first is 'c'"):
        maps.check(iter(["b", "c", "a"]))
    with pytest.raises(DataError, match="1 of 1 photos have no saliency map, the first is 'c'"):
        maps.map("c", (6, 9))
    with pytest.raises(DataError, match="the first is 'c'"):
        maps.digest(["c"])


def test_the_digest_is_of_names_and_contents(tmp_path):
    save(tmp_path, "a.png", GREY)
    save(tmp_path, "b.png", 255 - GREY)
    save(tmp_path, "c.npy", GREY / 255)
    maps = SaliencyFolder(tmp_path)
    whole = maps.digest(["a", "b"])
    assert len(whole) == 64
    assert whole == maps.digest(iter(["b", "a", "b"]))
    assert len({whole, maps.digest(["a"]), maps.digest(["b"]), maps.digest(["a", "c"])}) == 4
    save(tmp_path, "c.npy", GREY / 250)
    assert maps.digest(["a", "b"]) == whole
    (tmp_path / "a.png").rename(tmp_path / "t.png")
    (tmp_path / "b.png").rename(tmp_path / "a.png")
    (tmp_path / "t.png").rename(tmp_path / "b.png")
    assert SaliencyFolder(tmp_path).digest(["a", "b"]) != whole
    alone = SaliencyFolder(tmp_path).digest(["a"])
    (tmp_path / "a.png").rename(tmp_path / "d.png")
    assert SaliencyFolder(tmp_path).digest(["d"]) != alone


def test_a_map_that_went_away(tmp_path):
    path = save(tmp_path, "a.png", GREY)
    maps = SaliencyFolder(tmp_path)
    path.unlink()
    for act in (lambda: maps.map("a", (6, 9)), lambda: maps.digest(["a"])):
        with pytest.raises(DataError) as error:
            act()
        assert "a.png" in one_line(error)
