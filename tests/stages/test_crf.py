"""The dense CRF as configured: what it is given, and what a model file keeps of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from small_runs import QUICK, QUICK_CRISP
from tagseg.data.scenes import SCENES, draw_scene
from tagseg.errors import ConfigError
from tagseg.priors import crisp
from tagseg.recipes.builtin_priors.config import Config
from tagseg.refine.dense_crf import CrfParameters, refine
from tagseg.refine.higher_order import HigherOrder
from tagseg.segment.predict import Known
from tagseg.session.train import make_config
from tagseg.stages import crf as smoothing
from tagseg.stages.crf import (
    CrfRefiner,
    RegionFinder,
    Smoothing,
    crf_settings,
    from_json,
    smoothed_scores,
)


def config_of(**changed: Any) -> Any:
    return make_config(Config, {**QUICK, **changed})


def probs_of(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.ones(3), (height, width)).astype(np.float32).transpose(2, 0, 1).copy()
    probs[:, 0, 0] = (1, 0, 0)
    return probs


def stored(config: Any, seed: int = 0) -> dict[str, Any]:
    """The settings as they come out of a model file."""
    return json.loads(json.dumps(crf_settings(config, seed)))


@pytest.fixture
def given(monkeypatch) -> list[tuple[Any, ...]]:
    """What the CRF was given, and no CRF."""
    calls: list[tuple[Any, ...]] = []

    def remember(image, unary, parameters, **terms):
        calls.append((image, unary, parameters, terms))
        return np.zeros_like(unary)

    monkeypatch.setattr(smoothing, "refine", remember)
    return calls


@pytest.mark.parametrize("unary", ["softmax", "log"])
def test_refinement_is_the_dense_crf_of_equation_7_or_of_minus_log_p(unary):
    image = np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8)
    probs = probs_of(12, 16)
    config = config_of(segmenter_unary=unary)
    smooth = CrfRefiner(stored(config)).refine(image, probs)
    exact = probs.astype(np.float64)
    costs = -np.log(np.maximum(exact, 1e-8))
    if unary == "softmax":
        costs = -np.log(np.exp(exact) / np.exp(exact).sum(0))
    expected = refine(image, costs.astype(np.float32), Smoothing.of(config).parameters)
    assert np.allclose(smooth, expected, atol=1e-4)
    assert np.isfinite(smooth).all()


def test_no_regions_unless_asked_for(given):
    settings = stored(config_of())
    assert settings["regions"] is None
    CrfRefiner(settings).refine(np.zeros((4, 5, 3), np.uint8), probs_of(4, 5))
    assert given[0][3]["regions"] is None


def test_regions_after_the_segmenter_cost_what_its_probabilities_say(given):
    image, probs = draw_scene(SCENES, 0, 1).image, probs_of(96, 128)
    config = config_of(
        segmenter_regions="crisp",
        crisp_threshold=0.2,
        crisp_weight=2.0,
        crisp_gamma_max=4.0,
        crisp_area_weight=0.001,
        crf_reference_side=None,
    )
    CrfRefiner(stored(config, seed=7)).refine(image, probs)
    ((_, _, parameters, terms),) = given
    assert parameters == Smoothing.of(config).parameters
    expected = crisp.regions(image, 0.2, settings=QUICK_CRISP, seed=7)
    assert np.array_equal(terms["regions"], expected)
    assert terms["higher_order"] == HigherOrder(2.0, 4.0, 0.001)
    assert terms["maps"] is probs


def test_a_model_file_keeps_what_decides_on_regions(given, monkeypatch):
    """Later defaults of the package do not change the predictions of a trained segmenter."""
    image = draw_scene(SCENES, 0, 1).image
    refiner = CrfRefiner(stored(config_of(segmenter_regions="crisp")))
    monkeypatch.setattr(smoothing, "CRISP", crisp.CrispSettings(n_vectors=2))
    refiner.refine(image, probs_of(96, 128))
    expected = crisp.regions(image, 0.1, settings=QUICK_CRISP, seed=0)
    assert np.array_equal(given[0][3]["regions"], expected)


def test_regions_that_are_known_are_not_looked_for(given, monkeypatch):
    monkeypatch.setattr(crisp, "regions", None)
    known = np.zeros((4, 5), np.int32)
    refiner = CrfRefiner(stored(config_of(segmenter_regions="crisp")))
    refiner.refine(np.zeros((4, 5, 3), np.uint8), probs_of(4, 5), Known(regions=known))
    assert given[0][3]["regions"] is known


@pytest.mark.parametrize(("reference", "factor"), [(500, 25.0), (100, 1.0), (None, 1.0)])
def test_areas_are_for_photos_of_the_reference_side(given, reference, factor):
    """A region that is a tenth of its photo costs the same in a smaller copy of the photo."""
    smooth = Smoothing(CrfParameters(reference_side=reference), HigherOrder(area_weight=0.002))
    maps = np.zeros((2, 60, 100), np.float32)
    smooth(np.zeros((60, 100, 3), np.uint8), maps, maps, np.zeros((60, 100), np.int32))
    assert given[0][3]["higher_order"].area_weight == pytest.approx(0.002 * factor)


@pytest.mark.parametrize("seed", [0, (1 << 32) - 1, (1 << 63) - 1])
def test_every_seed_of_a_run_finds_regions(seed):
    image = draw_scene(SCENES, 0, 2).image[:20, :30]
    regions = RegionFinder.of(config_of(), seed)(image)
    assert regions.shape == (20, 30)
    assert np.array_equal(regions, RegionFinder.of(config_of(), seed)(image))


def test_regions_reach_the_result():
    """Not a stand-in: a region of one mind brings its odd pixel along."""
    image = np.zeros((8, 10, 3), np.uint8)
    probs = np.full((2, 8, 10), 0.1, np.float32)
    probs[1, :, :5] = probs[0, :, 5:] = 0.9
    probs[:, 3, 7] = (0.45, 0.55)
    config = config_of(segmenter_regions="crisp", crf_bilateral=(0, 1, 1), crf_smoothness=(0, 1))
    regions = np.repeat(np.int32([[0, 1]]), 5, axis=1).repeat(8, axis=0)
    with_regions = CrfRefiner(stored(config))
    without = CrfRefiner(stored(replace(config, segmenter_regions="none")))
    assert with_regions.refine(image, probs, Known(regions=regions)).argmax(0)[3, 7] == 0
    assert without.refine(image, probs).argmax(0)[3, 7] == 1


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"crisp_threshold": 1.5}, "crisp_threshold is 1.5; use 0 to 1"),
        ({"crisp_threshold": float("nan")}, "crisp_threshold is nan; "),
        ({"crisp_weight": -1.0}, "crisp_weight is -1.0; use 0 or more"),
        ({"crisp_weight": float("inf")}, "crisp_weight is inf; use 0 or more"),
        ({"crisp_gamma_max": -1.0}, "crisp_gamma_max is -1.0; use 0 or more"),
        ({"crisp_area_weight": -0.1}, "crisp_area_weight is -0.1; use 0 or more"),
        ({"segmenter_regions": "slic"}, "segmenter_regions is 'slic'; use none or crisp"),
        ({"mask_regions": "slic"}, "mask_regions is 'slic'; use crisp or none"),
    ],
)
def test_numbers_that_make_no_sense(changed, line):
    with pytest.raises(ConfigError) as caught:
        Config(**changed)
    assert str(caught.value).startswith(line)


# Seeds


def seeds_of(*classes: int, n: int = 4) -> np.ndarray:
    """Score maps whose maxima are 1, of some classes."""
    maps = np.zeros((n, 12, 16), np.float32)
    for c in classes:
        maps[c] = np.random.default_rng(c).random((12, 16), np.float32) ** 2
        maps[c] /= maps[c].max()
    return maps


def test_smoothed_seeds_are_the_crf_over_the_present_classes():
    """Shimoda & Yanai, Eq. 6 and 7, of tanh(contrast M); then each class over its maximum."""
    image = np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8)
    maps = seeds_of(1, 3)
    parameters = CrfParameters((4.0, 30.0, 20.0), (3.0, 3.0), 3)
    found = smoothed_scores(image, maps, parameters, contrast=2.0)
    costs = np.zeros((3, 12, 16))
    for y in range(12):
        for x in range(16):
            scores = [np.tanh(2.0 * float(maps[c, y, x])) for c in (1, 3)]
            for k, score in enumerate([1 - max(scores), *scores]):
                costs[k, y, x] = -np.log(max(score, 1e-3))
    expected = refine(image, costs.astype(np.float32), parameters)[1:]
    assert not found[[0, 2]].any()
    for c, own in zip((1, 3), expected, strict=True):
        np.testing.assert_allclose(found[c], own / own.max(), atol=1e-4)
        assert found[c].max() == 1
    assert found.dtype == np.float32
    assert np.abs(found - maps).max() > 0.05


def test_certain_seeds_can_still_move():
    """A pixel of score 0 or 1 that all its neighbours of the same colour contradict."""
    image = np.zeros((12, 16, 3), np.uint8)
    image[:, 8:] = 255
    maps = np.zeros((1, 12, 16), np.float32)
    maps[0, :, :8] = 1
    maps[0, 5, 4], maps[0, 5, 12] = 0, 1
    found = smoothed_scores(image, maps, CrfParameters((8.0, 30.0, 20.0), None, 5), contrast=3.0)
    assert found[0, 5, 4] > 0.5
    assert found[0, 5, 12] < 0.5


def test_seeds_of_no_class_stay_as_they_are(given):
    nothing = np.zeros((3, 12, 16), np.float32)
    image = np.zeros((12, 16, 3), np.uint8)
    assert smoothed_scores(image, nothing, CrfParameters(), contrast=3.0) is nothing
    assert given == []


def test_seeds_that_the_crf_leaves_nothing_of(given):
    """The stand-in gives 0 everywhere, which no maximum divides."""
    image = np.zeros((12, 16, 3), np.uint8)
    assert not smoothed_scores(image, seeds_of(0, 1), CrfParameters(), contrast=3.0).any()
    assert len(given) == 1


def test_values_from_json():
    values = {"a": (1.0, 2.0), "b": None, "c": 3}
    assert from_json(json.loads(json.dumps(values))) == values


# Labels


def two_colours(height: int = 10, width: int = 16) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    return image


LABELS = Smoothing(CrfParameters((8.0, 30.0, 20.0), (3.0, 3.0), 5), HigherOrder())


def test_labels_are_the_crf_over_the_labels_that_are_there(given):
    """The energy of a label is -1 where it stands and 0 elsewhere: the authors' -p."""
    image, labels = two_colours(), np.zeros((10, 16), np.uint8)
    labels[2:5, 3:6], labels[6:8, 9:12] = 3, 7
    LABELS.labels(image, labels)
    ((seen, unary, parameters, terms),) = given
    assert seen is image
    assert (parameters, terms) == (LABELS.parameters, {})
    expected = np.zeros((3, 10, 16), np.float32)
    for k, label in enumerate((0, 3, 7)):
        for y in range(10):
            for x in range(16):
                expected[k, y, x] = -1.0 if labels[y, x] == label else 0.0
    assert unary.dtype == np.float32
    np.testing.assert_array_equal(unary, expected)


def test_labels_follow_the_photos_edges():
    """Most of the left half is 3; the CRF fills it, clears what bled out, and keeps the types."""
    image, labels = two_colours(), np.zeros((10, 16), np.uint8)
    labels[:, :7] = 3
    labels[4, 3], labels[5, 12] = 0, 3
    kept = labels.copy()
    found = LABELS.labels(image, labels)
    assert (found.dtype, found.shape) == (np.uint8, (10, 16))
    assert set(found[:, :8].ravel()) == {3}
    assert set(found[:, 8:].ravel()) == {0}
    np.testing.assert_array_equal(labels, kept)


@pytest.mark.parametrize("label", [0, 5])
@pytest.mark.parametrize("shape", [(10, 16), (1, 1), (1, 40)])
def test_labels_of_one_kind_stay_as_they_are(given, label, shape):
    labels = np.full(shape, label, np.uint8)
    np.testing.assert_array_equal(LABELS.labels(np.zeros((*shape, 3), np.uint8), labels), labels)
    assert given == []


@pytest.mark.parametrize("shape", [(1, 2), (1, 40), (2, 1)])
def test_labels_of_photos_that_are_hardly_there(shape):
    labels = np.zeros(shape, np.uint8)
    labels[0, 0] = 2
    found = LABELS.labels(np.zeros((*shape, 3), np.uint8), labels)
    assert found.shape == shape
    assert set(found.ravel()) <= {0, 2}
