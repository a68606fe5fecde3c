"""Which way is up: told where photos show it, not where they do not."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tagseg.segment.orientation import Orientation, movements_of, photo_features, told_apart
from tagseg.training import Execution


class Corners(nn.Module):
    """Mean colours of the quarters of a photo as a map (B, 3, 2, 2)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)[..., None, None]


def features(images: list[np.ndarray]) -> list[np.ndarray]:
    squares = [movements_of(image) for image in images]
    kinds = zip(*squares, strict=True)
    return [photo_features(Corners(), list(kind), Execution()) for kind in kinds]


def photos(sky: float, count: int = 120) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        image = rng.normal(100, 30, (1, 1, 3)) + rng.normal(0, 20, (32, 40, 3))
        image += rng.normal(0, 15, (2, 2, 3)).repeat(16, 0).repeat(20, 1)
        image[:16] += sky
        made.append(image.clip(0, 255).astype(np.uint8))
    return made


def test_photos_with_a_sky_are_told_from_moved_ones() -> None:
    upright, down, turned = features(photos(60))
    assert told_apart(upright, down) > 0.9
    assert told_apart(upright, turned) > 0.8


def test_photos_without_up_are_not() -> None:
    upright, down, turned = features(photos(0))
    assert told_apart(upright, down) < 0.65
    assert told_apart(upright, turned) < 0.65


def test_few_photos_say_nothing() -> None:
    upright, down, _ = features(photos(60, count=10))
    assert told_apart(upright, down) is None
    assert Orientation(None, None).allowed() == (False, False)


def test_turns_need_both() -> None:
    assert Orientation(0.5, 0.55).allowed() == (True, True)
    assert Orientation(0.5, 0.9).allowed() == (True, False)
    assert Orientation(0.9, 0.5).allowed() == (False, False)


def test_movements_are_of_the_middle_square() -> None:
    image = np.zeros((224, 300, 3), np.uint8)
    image[0, 38] = 255
    same, down, turned = movements_of(image)
    assert same.shape == down.shape == turned.shape == (224, 224, 3)
    assert same[0, 0].all()
    assert down[-1, 0].all()
    assert turned[-1, 0].all()
