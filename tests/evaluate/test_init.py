"""The package as a library: names, docstrings with examples, floats of any width, light imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tagseg.evaluate as evaluate

Make = Callable[..., np.ndarray]

RNG = np.random.default_rng(4)
SCORES = RNG.random((3, 6, 7), np.float32)
# On the thresholds themselves float32 and float64 differ the most.
SCORES[0] = RNG.integers(1, 1001, (6, 7)) / 1000
SALIENCY = (RNG.integers(0, 256, (6, 7)) / 255).astype(np.float32)
TRUTH = RNG.choice([0, 1, 2, 3, 255], (6, 7)).astype(np.uint8)
TAGS = SCORES[:, 0].T > 0.6


def seed_curves(made: Make) -> dict[str, Any]:
    curves = evaluate.SeedCurves(3)
    curves.update(made(SCORES), TRUTH)
    return curves.to_dict()


def saliency_scores(made: Make) -> np.ndarray:
    scores = evaluate.SaliencyScores()
    scores.update(made(SALIENCY), TRUTH)
    return np.array([*scores.summary().values(), *scores.f_measure()])


def precision_at(made: Make) -> float:
    curve = evaluate.PrecisionRecall(made(SALIENCY[0]), made(SALIENCY[1]))
    return curve.precision_at(float(np.median(SALIENCY[1])))


def average_maps(made: Make) -> np.ndarray:
    average = evaluate.AverageMaps(3)
    average.update(made(SCORES), np.ones(3, bool))
    return average.mean()


WITH_FLOATS: dict[str, Callable[[Make], Any]] = {
    "AverageMaps": average_maps,
    "PrecisionRecall": precision_at,
    "SaliencyScores": saliency_scores,
    "SeedCurves": seed_curves,
    "average_precision": lambda made: evaluate.average_precision(made(SCORES[:, 1].T), TAGS),
    "mean_average_precision": lambda made: evaluate.mean_average_precision(
        made(SCORES[:, 1].T), TAGS
    ),
}
WITHOUT_FLOATS = {
    "CentreMeanShape",
    "ConfusionMatrix",
    "ForegroundScores",
    "MaskScores",
    "ObjectSizes",
    "ShotScores",
    "TrimapAccuracy",
    "best_mask",
    "evaluate_masks",
    "foreground_scores",
}


def test_the_names_are_sorted_and_each_is_looked_at() -> None:
    assert sorted(evaluate.__all__) == evaluate.__all__
    assert WITH_FLOATS.keys() | WITHOUT_FLOATS == set(evaluate.__all__)


@pytest.mark.parametrize("name", evaluate.__all__)
def test_every_name_is_there_with_an_example(name: str) -> None:
    value = getattr(evaluate, name)
    assert value.__name__ == name
    assert value.__module__.startswith("tagseg.evaluate.")
    assert ">>> from tagseg.evaluate import" in value.__doc__


@pytest.mark.parametrize("name", WITH_FLOATS)
def test_float64_gives_what_float32_gives(name: str) -> None:
    expected = WITH_FLOATS[name](lambda values: values.astype(np.float32))
    found = WITH_FLOATS[name](lambda values: values.astype(np.float64))
    if isinstance(expected, dict):
        assert expected == found
    else:
        np.testing.assert_array_equal(expected, found)
        assert np.isfinite(expected).any(), "else it says nothing"


def test_a_score_of_float64_reaches_the_threshold_that_it_stands_for() -> None:
    """0.7 is above float32's 0.7 or below, but a pixel of 0.7 is to be foreground at 0.7."""
    for threshold in np.arange(1, 1001) / 1000:
        curves = evaluate.SeedCurves(1)
        curves.update(np.array([[[threshold]]]), np.ones((1, 1), np.uint8))
        assert curves.miou(threshold) == 1.0


def test_importing_it_leaves_torch_and_scikit_learn_alone() -> None:
    code = (
        "import sys, tagseg.evaluate;"
        "print(*(name for name in ('torch', 'sklearn') if name in sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
