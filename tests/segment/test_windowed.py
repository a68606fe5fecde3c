"""A segmenter that sees photos at its own size, in windows where they are large."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tagseg.errors import ConfigError
from tagseg.segment.predict import Segmenter
from tagseg.segment.windowed import Sight, WindowedSegmenter
from tagseg.training import Execution


class Local(nn.Module):
    """Scores that depend on a pixel's colour alone; keeps the shapes that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(x.shape))
        return torch.stack([3 * x[:, 0], 2 - x[:, 1], x[:, 2]], 1)


def segmenter(sight: Sight) -> WindowedSegmenter:
    return WindowedSegmenter(Local(), ("a", "b"), sight=sight, side=500, execution=Execution())


def smooth(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    planes = [120 + 100 * np.sin(rows / 20), 120 + 100 * np.cos(columns / 25), rows + columns]
    return np.stack(planes, -1).clip(0, 255).astype(np.uint8)


def test_as_it_is_where_one_window_holds_the_photo() -> None:
    image = smooth(40, 60)
    plain = Segmenter(Local(), ("a", "b"), side=500, execution=Execution())
    np.testing.assert_array_equal(
        segmenter(Sight()).forward(image[None]), plain.forward(image[None])
    )


@pytest.mark.parametrize("sight", [Sight(window=32), Sight(flip=True), Sight(1.0, 40, flip=True)])
def test_windows_and_mirrors_of_a_local_answer_change_nothing(sight: Sight) -> None:
    image = smooth(70, 90)
    whole = segmenter(Sight()).forward(image[None])
    assert np.abs(segmenter(sight).forward(image[None]) - whole).max() < 1e-4


def test_zoomed_photos_are_seen_larger_and_answered_at_their_size() -> None:
    image, zoomed = smooth(40, 60), segmenter(Sight(zoom=2.0, scales=(0.5, 1.0)))
    found = zoomed.forward(image[None])
    assert found.shape == (1, 3, 40, 60)
    assert [shape[2:] for shape in zoomed.net.seen] == [(40, 60), (80, 120)]
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert np.abs(found - segmenter(Sight()).forward(image[None])).max() < 0.03


def test_photos_keep_their_place_in_a_batch() -> None:
    images = np.stack([smooth(40, 60), 255 - smooth(40, 60)])
    answers = segmenter(Sight(1.5)).forward(images)
    for image, answer in zip(images, answers, strict=True):
        np.testing.assert_array_equal(segmenter(Sight(1.5)).forward(image[None])[0], answer)


@pytest.mark.parametrize("wrong", [{"zoom": 0.0}, {"scales": ()}, {"window": 8}])
def test_sights_that_cannot_be_meant(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Sight(**wrong)  # type: ignore[arg-type]
