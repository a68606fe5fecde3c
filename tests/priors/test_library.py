"""tagseg.priors as a library: what it exports, that all of it is explained, and what it takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tagseg import priors
from tagseg.errors import ConfigError, ShapeError
from tagseg.priors import saliency
from tagseg.priors.float_arrays import float_array

NAMES = [(package, name) for package in (priors, saliency) for name in package.__all__]
IDS = [f"{package.__name__}.{name}" for package, name in NAMES]
RNG = np.random.default_rng


@pytest.mark.parametrize(("package", "name"), NAMES, ids=IDS)
def test_what_is_exported_is_there_and_shows_its_use(package: Any, name: str) -> None:
    thing = getattr(package, name)
    assert callable(thing)
    assert thing.__name__ == name, "help() shows the name that is imported"
    assert ">>>" in thing.__doc__
    assert thing.__doc__.splitlines()[0].endswith(".")


@pytest.mark.parametrize("package", [priors, saliency], ids=lambda package: package.__name__)
def test_names_are_sorted_and_once(package: Any) -> None:
    assert package.__all__ == sorted(set(package.__all__))
    assert package.__doc__


def test_the_saliency_package_is_a_part() -> None:
    assert set(saliency.__all__) < set(priors.__all__)
    assert all(getattr(priors, name) is getattr(saliency, name) for name in saliency.__all__)


def test_the_package_itself_stays_lazy() -> None:
    code = "import sys, tagseg; print(any(m.startswith('tagseg.priors') for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# Float arrays: each function with one argument that makes sense of random numbers in [0, 1]


def mask(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return np.where(values > 0.4, values, 0)


def rows(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return np.resize(values, (20, 93))


def fitted(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    features = rows(values)
    forest = priors.RegionForest.fit(features, features[:, 3], trees=3, min_leaf=2)
    return forest.predict(features)


FRAME = RNG(1).integers(0, 256, (24, 31, 3), np.uint8)
FUNCTIONS: dict[str, Callable[[npt.NDArray[np.floating]], Any]] = {
    "barrier_distance": priors.barrier_distance,
    "best_frames": lambda x: priors.best_frames(list(mask(x)[:, None]), 0.5),
    "ContourMap": lambda x: priors.ContourMap.of(x).regions(0.5),
    "ContourMap, oriented": lambda x: priors.ContourMap.of(x, np.stack([x, 1 - x])).strengths,
    "foreground_probability": lambda x: priors.foreground_probability(
        x[None], x[:5, :7], (48, 62), scale_each=True, saturate=0.01
    ),
    "lesson": lambda x: priors.lesson(FRAME, mask(x)).mask,
    "mask_quality": lambda x: [priors.mask_quality(mask(half)) for half in np.split(x, 2)],
    "RegionForest": fitted,
    "salient_mask": lambda x: priors.salient_mask(x, fraction=0.3),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_float64_gives_what_float32_gives(function: Callable[..., Any]) -> None:
    values = RNG(0).random((24, 31), np.float32)
    one, other = np.asarray(function(values)), np.asarray(function(values.astype(np.float64)))
    assert one.dtype == other.dtype
    assert len(np.unique(one)) > 1
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_what_is_given_stays_as_it_is(function: Callable[..., Any]) -> None:
    values = RNG(0).random((24, 31))
    before = values.copy()
    function(values)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_tensors_do_as_well(kind: torch.dtype) -> None:
    values = torch.rand(6, 8, generator=torch.Generator().manual_seed(0)).to(kind)
    wanted = values.float().numpy()
    asking = values.requires_grad_()
    np.testing.assert_array_equal(priors.salient_mask(asking), priors.salient_mask(wanted))
    np.testing.assert_array_equal(
        priors.foreground_probability(asking, asking, (12, 16)),
        priors.foreground_probability(wanted, wanted, (12, 16)),
    )


def test_float32_is_not_copied() -> None:
    values = RNG(0).random((3, 4), np.float32)
    assert float_array(values, "values", "(H, W)") is values


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 2), np.uint8), np.zeros((2, 2), bool), torch.zeros(2, 2, dtype=int), None, [[0]]],
    ids=["uint8", "bool", "whole tensor", "nothing", "list"],
)
def test_what_is_no_float_array(wrong: Any) -> None:
    for call in (priors.barrier_distance, priors.salient_mask, priors.mask_quality):
        with pytest.raises(ShapeError, match="give a float array") as caught:
            call(wrong)
        assert "\n" not in str(caught.value)


def test_what_is_too_large_for_float32_is_refused_without_a_warning() -> None:
    for call in (priors.barrier_distance, priors.salient_mask):
        with pytest.raises(ShapeError):
            call(np.array([[0.0, 1e300]]))


# Photos


PHOTOS: dict[str, Callable[[Any], Any]] = {
    "crisp_boundaries": priors.crisp_boundaries,
    "crisp_contour_map": priors.crisp_contour_map,
    "crisp_regions": priors.crisp_regions,
    "drfi_saliency": lambda image: priors.drfi_saliency(image, priors.shipped_forest()),
    "drfi_training_rows": lambda image: priors.drfi_training_rows(
        image, np.zeros(image.shape[:2], np.uint8)
    ),
    "lesson": lambda image: priors.lesson(image, np.zeros(image.shape[:2])),
    "minimum_barrier_saliency": priors.minimum_barrier_saliency,
    "student_saliency": lambda image: priors.student_saliency(priors.shipped_student(), image),
    "superpixel_levels": lambda image: priors.superpixel_levels(image, []),
    "superpixels": priors.superpixels,
    "videopca_masks": lambda image: next(priors.videopca_masks(lambda: iter([image]))),
}


@pytest.mark.parametrize("function", PHOTOS.values(), ids=PHOTOS)
def test_photos_are_bytes(function: Callable[[Any], Any]) -> None:
    for kind in (np.float64, np.float32):
        with pytest.raises(ShapeError, match="give a uint8 array") as caught:
            function(FRAME.astype(kind) / 255)
        assert "\n" not in str(caught.value)


# Numbers out of range


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: priors.barrier_distance(np.zeros((3, 3)), 0), "passes is 0"),
        (lambda: priors.salient_mask(np.zeros((3, 3)), fraction=1.1), "fraction is 1.1"),
        (lambda: priors.salient_mask(np.zeros((3, 3)), fraction=np.nan), "fraction is nan"),
        (lambda: priors.drfi_saliency(FRAME, priors.shipped_forest(), threads=0), "threads is 0"),
        (
            lambda: priors.foreground_probability(np.ones((2, 2)), np.ones((2, 2)), (0, 4)),
            r"shape is \(0, 4\)",
        ),
    ],
    ids=["passes", "fraction", "nan", "threads", "shape"],
)
def test_numbers_out_of_range(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def test_a_channel_with_nothing_in_it() -> None:
    for wrong in (np.zeros((0, 4)), np.zeros(4), np.full((3, 3), np.nan)):
        with pytest.raises(ShapeError, match="channel"):
            priors.barrier_distance(wrong)


# Short names that the modules keep for callers within the project


def test_short_names_are_the_same_functions() -> None:
    from tagseg.priors import crisp
    from tagseg.priors.saliency import drfi
    from tagseg.priors.superpixels import neighbours

    assert crisp.regions is priors.crisp_regions
    assert crisp.boundaries is priors.crisp_boundaries
    assert crisp.contour_map is priors.crisp_contour_map
    assert drfi.training_rows is priors.drfi_training_rows
    assert neighbours is priors.superpixel_neighbours
