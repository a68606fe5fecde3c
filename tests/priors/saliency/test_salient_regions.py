from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tagseg.errors import ShapeError
from tagseg.priors.saliency.salient_regions import salient_mask


def test_salient_is_what_reaches_half_of_the_maximum() -> None:
    found = salient_mask(np.array([[0.0, 0.3, 0.39], [0.4, 0.41, 0.8]], np.float32))
    assert found.tolist() == [[False, False, False], [True, True, True]]
    found = salient_mask(np.array([[0.1, 0.3, 0.4]], np.float32), fraction=0.75)
    assert found.tolist() == [[False, True, True]]


def test_scale_does_not_matter() -> None:
    saliency = np.random.default_rng(0).random((9, 11), np.float32)
    for factor in (0.5, 1e-6, 1e6):
        found = salient_mask(saliency * np.float32(factor))
        assert (found != salient_mask(saliency)).sum() == 0


def test_nothing_is_salient_in_an_empty_map() -> None:
    for empty in (np.zeros((4, 5), np.float32), -np.ones((4, 5), np.float32)):
        found = salient_mask(empty)
        assert found.shape == (4, 5)
        assert not found.any()


@pytest.mark.parametrize(
    "wrong",
    [
        np.full((2, 2), np.nan, np.float32),
        np.array([[0, np.inf]], np.float32),
        np.zeros((1, 2, 2), np.float32),
        np.zeros((2, 2), np.uint8),
    ],
)
def test_wrong_maps_are_refused(wrong: npt.NDArray) -> None:
    with pytest.raises(ShapeError, match="saliency_map"):
        salient_mask(wrong)
