"""The small transformer of ``tools/pretrain_vit.py``, in ``tests/data/vit_scenes``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tagseg.data.scenes import OBJECTS, Scene, draw_scene
from tagseg.nets.backbone import Backbone, Preprocessing
from tagseg.nets.catalog import build_backbone
from tagseg.nets.weights import resolve

pytest.importorskip("transformers", reason="pip install tagseg[foundation]")

FOLDER = Path(__file__).parents[1] / "data" / "vit_scenes"
NAME = f"hf:{FOLDER}"
SEED, FIRST = 8, 1000  # the tool draws pictures 0 to 599 of this set, and of no other but set 7
COUNT = 100  # pictures to learn from, and as many to ask


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return build_backbone(NAME, resolve("imagenet", NAME), output_stride=8).eval()


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(OBJECTS, SEED, FIRST + index) for index in range(2 * COUNT)]


@pytest.fixture(scope="module")
def patches(backbone: Backbone, scenes: list[Scene]) -> np.ndarray:
    """What the backbone says of each patch (N, h, w, C); each channel of mean 0, deviation 1."""
    pictures = torch.from_numpy(np.stack([scene.image for scene in scenes]))
    with torch.inference_mode():
        parts = pictures.permute(0, 3, 1, 2).float().div(255).split(20)
        maps = torch.cat([backbone(part) for part in parts]).permute(0, 2, 3, 1).numpy()
    return (maps - maps[:COUNT].mean((0, 1, 2))) / maps[:COUNT].std((0, 1, 2))


def test_the_folder_is_small_and_whole(backbone: Backbone) -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 4e6
    assert backbone.preprocessing == Preprocessing()
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}


def test_it_tells_the_classes_of_objects(patches: np.ndarray, scenes: list[Scene]) -> None:
    """By the nearest of the classes' means. Chance is 0.06; random weights reach 0.05."""
    classes = np.array([scene.tags.argmax() for scene in scenes])
    pictures = patches.mean((1, 2))
    pictures = (pictures - pictures[:COUNT].mean(0)) / pictures[:COUNT].std(0)
    learned = classes[:COUNT]
    means = np.stack([pictures[:COUNT][learned == c].mean(0) for c in np.unique(learned)])
    distances = np.linalg.norm(pictures[COUNT:, None] - means, axis=2)
    guesses = np.unique(learned)[distances.argmin(1)]
    assert (guesses == classes[COUNT:]).mean() > 0.25


def test_its_patches_tell_objects_from_surroundings(
    patches: np.ndarray, scenes: list[Scene]
) -> None:
    """Along the difference of the two means: how often an object's patch is ahead of another's.

    Random weights reach 0.65.
    """
    inside = np.stack([scene.labels[4::8, 4::8] > 0 for scene in scenes])
    learned, known = patches[:COUNT], inside[:COUNT]
    ahead = patches[COUNT:] @ (learned[known].mean(0) - learned[~known].mean(0))
    objects, others = ahead[inside[COUNT:]], ahead[~inside[COUNT:]]
    assert np.searchsorted(np.sort(others), objects).mean() / len(others) > 0.88
