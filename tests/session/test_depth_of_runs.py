"""Photos of 8 significant bits in 16-bit files: through check, a run and its segmenter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage
from safetensors import safe_open

from small_runs import quick_flags, tagseg
from tagseg.session.export import load_segmenter

RNG = np.random.default_rng(8)


def write_photos(folder: Path, greatest: int, n: int = 8) -> None:
    """Grey photos with a bright (cat) or a dark (dog) square, and their tags."""
    folder.mkdir()
    rows = ["image,tags"]
    for i in range(n):
        grey = RNG.integers(greatest // 4, greatest // 2, (36, 48)).astype(np.uint16)
        grey[8:24, 8:24] = (greatest, 0)[i % 2]
        PilImage.fromarray(grey).save(folder / f"a{i}.png")
        rows.append(f"a{i}.png,{('cat', 'dog')[i % 2]}")
    (folder / "tags.csv").write_text("\n".join(rows))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("depth")
    write_photos(folder / "photos", 250)
    flags = quick_flags("cam_baseline")
    said = tagseg(
        "train", folder / "photos", "--recipe", "cam_baseline", "--out", folder / "run", *flags
    )
    assert said.status == 0
    assert NOTE in said.err.splitlines()
    return folder


NOTE = (
    "note: all photos have 16 bits, of which 8 are used (values up to 250): 255 is shown as white"
)


def test_check_says_the_rule(place):
    told = tagseg("check", place / "photos", "--threads", "1")
    assert told.status == 0
    assert NOTE in told.out.splitlines()


def test_the_segmenter_keeps_the_rule(place):
    assert load_segmenter(place / "run", device="cpu").white == 255
    (file,) = place.glob("run/stages/*-export/segmenter.safetensors")
    with safe_open(file, framework="pt") as stored:
        assert stored.metadata()["white_of_16_bits"] == "255"


def test_new_photos_are_read_by_it_and_others_are_named(place, tmp_path):
    words = ("predict", place / "run", place / "photos", "--threads", "1", "--out")
    said = tagseg(*words, tmp_path / "m", "--overlays", tmp_path / "o")
    assert said.status == 0
    assert "note:" not in said.err
    with PilImage.open(tmp_path / "o" / "a0.jpg") as overlay:
        assert np.asarray(overlay).mean() > 40  # not black
    write_photos(tmp_path / "new", 4095, 2)
    said = tagseg("predict", place / "run", tmp_path / "new", "--out", tmp_path / "n")
    (note,) = [line for line in said.err.splitlines() if line.startswith("note:")]
    assert note.startswith("note: 2 photos (a0, a1) have brighter values, which are shown as white")


def test_pictures_that_are_left_out_are_counted(place, tmp_path):
    write_photos(tmp_path / "new", 250, 2)
    (tmp_path / "new" / "b.NEF").touch()
    said = tagseg("predict", place / "run", tmp_path / "new", "--out", tmp_path / "n")
    assert said.status == 0
    assert "left out: 1 .nef file; export as JPEG or TIFF" in said.err.splitlines()
    said = tagseg("predict", place / "run", tmp_path / "new" / "b.NEF", "--out", tmp_path / "n")
    assert said.err.endswith("b.NEF: .nef is not read here; export as JPEG or TIFF\n")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "b.NEF").touch()
    said = tagseg("predict", place / "run", tmp_path / "raw", "--out", tmp_path / "n")
    expected = "no photos in this folder; left out: 1 .nef file; export as JPEG or TIFF\n"
    assert said.err.endswith(expected)
    said = tagseg("check", tmp_path / "raw")
    assert said.err.endswith(expected)


def test_photos_of_8_bits_leave_no_trace(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(4):
        pixels = RNG.integers(0, 256, (36, 48, 3), dtype=np.uint8)
        PilImage.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    rows = [f"{i}.png,{('cat', 'dog')[i % 2]}" for i in range(4)]
    (tmp_path / "photos" / "tags.csv").write_text("image,tags\n" + "\n".join(rows))
    words = ("--recipe", "cam_baseline", "--out", tmp_path / "run", *quick_flags("cam_baseline"))
    assert tagseg("train", tmp_path / "photos", *words).status == 0
    (file,) = tmp_path.glob("run/stages/*-export/segmenter.safetensors")
    with safe_open(file, framework="pt") as stored:
        assert "white_of_16_bits" not in stored.metadata()
