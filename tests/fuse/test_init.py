"""The package as a library: names, docstrings with examples, floats of any width, light imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tagseg.fuse as fuse
from tagseg.errors import ShapeError

Make = Callable[..., np.ndarray]

RNG = np.random.default_rng(3)
IDS = np.repeat(np.repeat(np.arange(6).reshape(2, 3), 3, 0), 3, 1).astype(np.int32)
SCORES = RNG.random((3, *IDS.shape), np.float32)
SALIENCY = RNG.random(IDS.shape, np.float32)
OF_REGIONS = RNG.random((6, 4), np.float32)
PAIRS = np.array([[0, 1], [1, 2], [3, 4], [4, 5], [0, 3], [1, 4], [2, 5]])
TAGS = np.array([True, False, True])
OBJECTS = np.array([True, False, False, True, False, False])

WITH_FLOATS: dict[str, Callable[[Make], Any]] = {
    "agreed_labels": lambda made: fuse.agreed_labels(made(SCORES), least=0.7),
    "binary_maps": lambda made: fuse.binary_maps(made(SCORES)),
    "cam_labels": lambda made: fuse.cam_labels(made(SCORES), TAGS, ignore_band=(0.1, 0.6)),
    "component_guide": lambda made: fuse.component_guide(IDS, made(OF_REGIONS[1:, :3]) - 1, TAGS),
    "foreground_maps": lambda made: fuse.foreground_maps(made(SALIENCY)),
    "fused_probabilities": lambda made: fuse.fused_probabilities(
        made(SCORES), made(SALIENCY), threshold=0.4
    ),
    "labels_from_maps": lambda made: fuse.labels_from_maps(made(SCORES), np.arange(3)),
    "localization_cues": lambda made: fuse.localization_cues(made(SCORES), IDS > 3, TAGS),
    "multiclass_maps": lambda made: fuse.multiclass_maps(made(SCORES), made(SALIENCY), TAGS),
    "object_probability": lambda made: fuse.object_probability(
        made(OF_REGIONS[:, 0]), made(OF_REGIONS), OBJECTS, np.full(6, 9)
    ),
    "joined_maps": lambda made: fuse.joined_maps([made(SCORES), made(SCORES) ** 2]),
    "object_regions": lambda made: fuse.object_regions(made(OF_REGIONS), TAGS),
    "refined_regions": lambda made: fuse.refined_regions(
        made(SALIENCY), 3, lambda probs: probs.astype(made(probs).dtype)
    ),
    "region_means": lambda made: fuse.region_means(made(SCORES), IDS),
    "region_votes": lambda made: fuse.region_votes(made(SCORES), IDS),
    "region_seeds": lambda made: fuse.region_seeds(made(SCORES), IDS, PAIRS, TAGS),
    "without_doubtful": lambda made: fuse.without_doubtful(
        (IDS % 3).astype(np.uint8), made(SALIENCY), threshold=0.4, wrong=[2]
    ),
}
# ``paint`` gives back the type that it is given; the others take labels, masks and numbers.
WITHOUT_FLOATS = {
    "PresentMaps",
    "colour_histograms",
    "has_usable_foreground",
    "of_category",
    "one_label",
    "oracle_guide",
    "oracle_mask",
    "paint",
    "random_guide",
    "region_areas",
    "region_labels",
    "salient_components",
    "seed_guide",
}


def single(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)


def double(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64)


def test_the_names_are_sorted_and_each_is_looked_at() -> None:
    assert sorted(fuse.__all__) == fuse.__all__
    assert WITH_FLOATS.keys() | WITHOUT_FLOATS == set(fuse.__all__)


@pytest.mark.parametrize("name", fuse.__all__)
def test_every_name_is_there_with_an_example(name: str) -> None:
    value = getattr(fuse, name)
    assert value.__name__ == name
    assert value.__module__.startswith("tagseg.fuse.")
    assert ">>> from tagseg.fuse import" in value.__doc__


@pytest.mark.parametrize("name", WITH_FLOATS)
def test_float64_gives_what_float32_gives(name: str) -> None:
    expected, found = WITH_FLOATS[name](single), WITH_FLOATS[name](double)
    if not isinstance(expected, tuple):
        expected, found = (expected,), (found,)
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype != np.float64
        np.testing.assert_array_equal(one, other)
    assert len(np.unique(expected[0])) > 1, "else it says nothing"


@pytest.mark.filterwarnings("error")
def test_what_is_too_large_for_float32_is_refused_without_a_warning() -> None:
    with pytest.raises(ShapeError, match="score_map holds NaN or infinity"):
        fuse.cam_labels(double(SCORES) * 1e300, TAGS)


def test_importing_it_leaves_torch_alone() -> None:
    code = "import sys, tagseg.fuse; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
