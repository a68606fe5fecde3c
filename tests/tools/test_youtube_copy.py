"""A generated copy of YouTube-Objects: the folders, the masks, and that it is read."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tagseg.data.clips import draw_clip
from tagseg.errors import ConfigError
from tagseg.formats.folders.youtube_objects import is_youtube_objects
from tool_modules import load_tool


def test_folders_and_masks(tmp_path):
    tool = load_tool("youtube_copy")
    plan = tool.Plan(videos=2, masked=1, shots=2, frames=4, every=2, height=40, width=60)
    tool.write_copy(tmp_path / "out", ("cat",), plan)
    files = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.jpg")
    }
    assert len(files) == 2 * 2 * 4 + 2
    inner = "cat/data/0002/shots/001"
    masks = {f"youtube_masks/{inner}/labels/{i:05d}.jpg" for i in (1, 3)}
    assert {name for name in files if "masks" in name} == masks
    assert f"v1/{inner}/frame0004.jpg" in files
    assert is_youtube_objects(tmp_path / "out")
    with Image.open(tmp_path / "out" / min(masks)) as mask:
        assert (mask.mode, mask.size) == ("L", (30, 20))
        values = np.asarray(mask)
    assert values.max() > 200
    assert values.min() < 16
    kind = tool.kind_of("cat")
    clip = draw_clip(kind, 0, 2 * 2 + 1, frames=4, height=40, width=60)
    half = clip.labels[0].reshape(20, 2, 30, 2).mean((1, 3)) > 0.5
    assert np.mean((values > 127) == half) > 0.97, "of the frame itself"


def test_refused(tmp_path):
    tool = load_tool("youtube_copy")
    with pytest.raises(ConfigError, match="no class 'unicorn' can be drawn"):
        tool.write_copy(tmp_path / "out", ("cat", "unicorn"), tool.Plan())
    with pytest.raises(ConfigError, match="this folder exists"):
        tool.write_copy(tmp_path, ("cat",), tool.Plan())
