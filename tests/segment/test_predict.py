from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from small_runs import Refines
from tagseg.data.working import working_image
from tagseg.errors import ShapeError
from tagseg.maps import Image, Probs
from tagseg.nets.deeplab import SegmentationNet
from tagseg.nets.tiny import Tiny
from tagseg.segment.predict import Segmenter
from tagseg.training import Execution

SIZES = [(1, 1), (1, 70), (40, 56), (64, 64), (130, 70), (65, 300)]


def segmenter(**changes: Any) -> Segmenter:
    torch.manual_seed(0)
    net = SegmentationNet(Tiny(), 4, width=8, view_scale=0.1)
    torch.nn.init.normal_(net.score.weight, std=1.0)
    settings = {"side": 64, "execution": Execution(), **changes}
    return Segmenter(net, ("cat", "cow", "car"), **settings)


def photo(height: int, width: int) -> Image:
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_a_photo_of_any_size_gets_labels_of_its_size(size: tuple[int, int]) -> None:
    image = photo(*size)
    kept = image.copy()
    labels = segmenter().predict(image)
    assert labels.shape == size
    assert labels.dtype == np.uint8
    assert labels.max() <= 3
    np.testing.assert_array_equal(image, kept)
    np.testing.assert_array_equal(labels, segmenter().predict(image))


@pytest.mark.parametrize("size", SIZES)
def test_probabilities_are_at_working_size_and_sum_to_one(size: tuple[int, int]) -> None:
    probs = segmenter().probabilities(photo(*size))
    assert probs.dtype == np.float32
    assert probs.shape == (4, *working_image(photo(*size), 64).shape[:2])
    assert probs.min() >= 0
    np.testing.assert_allclose(probs.sum(0), 1, atol=1e-5)


def test_labels_are_the_most_likely_ones() -> None:
    image = photo(40, 56)
    ours = segmenter()
    np.testing.assert_array_equal(ours.predict(image), ours.probabilities(image).argmax(0))
    assert len(np.unique(ours.predict(image))) > 1


def test_company_in_a_batch_does_not_matter() -> None:
    images = np.stack([photo(40, 56), photo(40, 56)[::-1], photo(40, 56)[:, ::-1]])
    ours = segmenter()
    together = ours.forward(images)
    for image, probs in zip(images, together, strict=True):
        np.testing.assert_allclose(ours.probabilities(image), probs, atol=1e-5)


def test_refinement_comes_last_at_working_size_and_can_be_left_out() -> None:
    seen: list[tuple[Image, Probs]] = []

    def refine(image: Image, probs: Probs) -> Probs:
        seen.append((image, probs))
        return np.roll(probs, 1, axis=0)

    image = photo(130, 70)
    plain, refined = segmenter(), segmenter(refiner=Refines(refine))
    rolled = np.roll(plain.probabilities(image), 1, axis=0)
    np.testing.assert_array_equal(refined.probabilities(image), rolled)
    np.testing.assert_array_equal(seen[0][0], working_image(image, 64))
    np.testing.assert_array_equal(refined.predict(image, refine=False), plain.predict(image))
    assert len(seen) == 1
    assert (refined.predict(image) != plain.predict(image)).mean() > 0.5


def test_what_refinement_was_made_from_is_kept() -> None:
    assert segmenter().refinement is None
    stored = {"iterations": 3}
    ours = segmenter(refiner=Refines(lambda image, probs: probs), refinement=stored)
    assert ours.refinement is stored


def test_dropout_is_off_and_nothing_is_recorded() -> None:
    ours = segmenter()
    assert not ours.net.training
    ours.forward(photo(16, 16)[None])
    assert all(p.grad is None for p in ours.net.parameters())


def test_low_precision_gives_float32_probabilities() -> None:
    image = photo(40, 56)
    low = segmenter(execution=Execution(precision=torch.bfloat16)).probabilities(image)
    assert low.dtype == np.float32
    np.testing.assert_allclose(low.sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(low, segmenter().probabilities(image), atol=0.1)


@pytest.mark.parametrize(
    "value", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8), "a"]
)
def test_what_is_no_photo_is_refused(value: Any) -> None:
    with pytest.raises(ShapeError, match="image "):
        segmenter().predict(value)
    with pytest.raises(ShapeError, match="image "):
        segmenter().probabilities(value)
