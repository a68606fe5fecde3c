"""All tests compute on one thread: results do not depend on the machine, nor timings on company."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch

from tagseg.data.scenes import write_scenes

torch.set_num_threads(1)
cv2.setNumThreads(1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """24 generated scenes to train on and 8 to validate with, in VOC's layout."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(folder, train=24, val=8)
    return folder
