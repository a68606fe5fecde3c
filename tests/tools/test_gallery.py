"""Pictures of a run's best, median and worst photos: which, how small, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg.report.page import GalleryItem
from tool_modules import load_tool


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("gallery")


def item(name: str, rank: str, score: float | None, split: str = "val", truth: bool = True):
    shape = (48, 64, 3)
    parts = [
        ("pyramid", np.full(shape, 80, np.uint8)),
        ("pyramid + CRF", np.full(shape, 160, np.uint8)),
    ]
    parts += [("ground truth", np.full(shape, 240, np.uint8))] if truth else []
    return GalleryItem(name, split, rank, score, np.zeros(shape, np.uint8), tuple(parts))


ITEMS = [
    item("a", "best", 0.9),
    item("b", "best", 0.8),
    item("c", "median", 0.5),
    item("d/e f", "worst", 0.125),
    item("t", "best", 0.99, split="train"),
]


def test_validation_photos_come_first_and_ranks_in_order(tool):
    assert [found.name for found in tool.chosen(ITEMS, 1)] == ["a", "c", "d/e f"]
    assert [found.name for found in tool.chosen(ITEMS, 2)] == ["a", "b", "c", "d/e f"]
    assert [found.name for found in tool.chosen(ITEMS[-1:], 1)] == ["t"]
    sample = item("s", "sample", None, split="train", truth=False)
    assert tool.chosen([sample], 1) == [sample]
    assert tool.caption(sample) == "sample"


def test_the_last_prediction_and_the_truth_stand_beside_the_photo(tool):
    shown = tool.panels(ITEMS[0])
    assert [title for title, _ in shown] == ["photo", "pyramid + CRF", "ground truth"]
    whole = tool.strip([picture for _, picture in shown])
    assert whole.shape == (48, 3 * 64 + 2 * tool.GAP, 3)
    assert whole[0, [0, 64, 64 + tool.GAP, -1], 0].tolist() == [0, 255, 160, 240]
    assert len(tool.panels(item("s", "sample", None, truth=False))) == 2


def test_a_jpeg_is_as_good_as_its_size_allows(tool):
    noise = np.random.default_rng(0).integers(0, 256, (120, 240, 3), np.uint8)
    large, small = tool.jpeg(noise, 10**6), tool.jpeg(noise, 30_000)
    assert len(small) <= 30_000 < len(large)
    with pytest.raises(SystemExit, match="over 100 bytes"):
        tool.jpeg(noise, 100)


def test_names_of_files_are_plain(tool):
    assert tool.file_name("leaves", ITEMS[3]) == "leaves-worst-d-e-f.jpg"
    assert tool.file_name("x", item("é", "best", 1.0)) == "x-best-photo.jpg"


def test_a_run_becomes_pictures_and_a_page(tool, tmp_path: Path, monkeypatch, capsys):
    run = SimpleNamespace(finished=lambda stage: stage)
    monkeypatch.setattr(tool.Workspace, "read", lambda path: run)
    monkeypatch.setattr(tool, "Findings", lambda stage: SimpleNamespace(gallery=lambda: ITEMS))
    page = tmp_path / "docs" / "gallery.md"
    page.parent.mkdir()
    page.write_text("a\n<!-- gallery: leaves -->\nold\n<!-- /gallery -->\nb\n")
    out = tmp_path / "docs" / "images"
    words = [str(tmp_path / "runs" / "leaves"), str(out)]
    tool.main([*words, "--page", str(page)])
    files = sorted(path.name for path in out.iterdir())
    assert files == ["leaves-best-a.jpg", "leaves-median-c.jpg", "leaves-worst-d-e-f.jpg"]
    with PilImage.open(out / files[0]) as picture:
        assert picture.size == (3 * 64 + 2 * tool.GAP, 48)
    text = page.read_text()
    assert "old" not in text
    assert "](images/leaves-best-a.jpg)" in text
    assert "Worst, mIoU 12 %: photo, pyramid + CRF, ground truth." in text
    assert text.startswith("a\n<!-- gallery: leaves -->\n")
    assert text.endswith("<!-- /gallery -->\nb\n")
    tool.main([*words, "--page", str(page)])
    assert page.read_text() == text
    tool.main(words)
    assert "leaves-median-c.jpg" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="gallery: other"):
        tool.main([*words, "--page", str(page), "--name", "other"])
