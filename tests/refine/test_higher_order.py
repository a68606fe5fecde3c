from __future__ import annotations

import numpy as np
import pytest

from tagseg.errors import ConfigError, ShapeError
from tagseg.refine.dense_crf import CrfParameters, dense_crf, refine, softmax_unary
from tagseg.refine.higher_order import HigherOrder, check_regions, number_regions, region_costs


def softmax(energies):
    exponentials = np.exp(energies - energies.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def region_energy(probs, prior, layer, strengths):
    """Energy (L, H, W): for each pixel the product over all others of its region, one by one."""
    energy = np.zeros_like(probs)
    for region in np.unique(layer[layer >= 0]):
        inside = list(zip(*np.nonzero(layer == region), strict=True))
        for label in range(len(probs)):
            mean = np.mean([prior[label, y, x] for y, x in inside])
            gamma = min(-np.log(mean), strengths.gamma_max) if mean > 0 else strengths.gamma_max
            gamma = max(gamma, 0.0)
            for pixel in inside:
                rest = np.prod([probs[label, y, x] for y, x in inside if (y, x) != pixel])
                term = gamma * rest + strengths.gamma_max * (1 - rest)
                energy[label][pixel] += strengths.weight * term
                energy[label][pixel] += strengths.area_weight * len(inside) * gamma
    return energy


def mean_field(unary, layers, strengths, iterations, prior=None):
    """Float64 mean field of the unary and of regions alone."""
    theta = unary.astype(np.float64)
    prior = softmax(-theta) if prior is None else prior.astype(np.float64)
    probs = softmax(-theta)
    for _ in range(iterations):
        energy = -theta
        for layer in layers:
            energy = energy - region_energy(probs, prior, layer, strengths)
        probs = softmax(energy)
    return probs


def case(height, width, n_labels, n_regions, seed=0, sure=1.0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    unary = (sure * rng.gamma(1, 1, (n_labels, height, width))).astype(np.float32)
    blocks = rng.integers(-1, n_regions, (-(-height // 3), -(-width // 3)))
    regions = np.kron(blocks, np.ones((3, 3), int))[:height, :width].astype(np.int32)
    return image, unary, regions


@pytest.mark.parametrize("sure", [0.3, 1.0, 12.0])
@pytest.mark.parametrize(
    "strengths",
    [HigherOrder(), HigherOrder(2.0, 3.0, 0.02), HigherOrder(0, 5, 0.1), HigherOrder(4, 6, 0)],
)
@pytest.mark.parametrize("n_labels", [1, 2, 3, 5, 9, 21])
def test_terms_are_products_over_the_other_pixels(n_labels, strengths, sure):
    image, unary, regions = case(7, 9, n_labels, 5, sure=sure)
    got = dense_crf(
        image,
        unary,
        bilateral=None,
        smoothness=None,
        iterations=4,
        regions=regions,
        higher_order=strengths,
    )
    np.testing.assert_allclose(got, mean_field(unary, [regions], strengths, 4), atol=2e-5)


def test_regions_of_one_and_two_pixels():
    image, unary, _ = case(4, 6, 3, 1)
    regions = (np.arange(24).reshape(4, 6) // 2).astype(np.int32)
    regions[3] = np.arange(6) + 100
    strengths = HigherOrder(3.0, 4.0, 0.1)
    got = dense_crf(
        image,
        unary,
        bilateral=None,
        smoothness=None,
        iterations=5,
        regions=regions,
        higher_order=strengths,
    )
    np.testing.assert_allclose(got, mean_field(unary, [regions], strengths, 5), atol=2e-5)


def test_layers_add_up():
    image, unary, first = case(8, 6, 4, 3)
    second = case(8, 6, 4, 4, seed=5)[2]
    strengths = HigherOrder(1.5, 3.0, 0.05)
    for layers in ([first, second], [first]):
        got = dense_crf(
            image,
            unary,
            bilateral=None,
            smoothness=None,
            iterations=3,
            regions=layers,
            higher_order=strengths,
        )
        np.testing.assert_allclose(got, mean_field(unary, layers, strengths, 3), atol=2e-5)


def test_costs_come_from_the_maps_where_they_are_given():
    image, _, regions = case(9, 9, 3, 4)
    maps = np.random.default_rng(1).random((3, 9, 9), dtype=np.float32)
    maps[2] = 0  # no pixel has it: gamma_max, not infinity
    unary = softmax_unary(maps)
    strengths = HigherOrder(1.0, 4.0, 0.1)
    parameters = CrfParameters(None, None, 3)
    got = refine(image, unary, parameters, regions=regions, higher_order=strengths, maps=maps)
    np.testing.assert_allclose(got, mean_field(unary, [regions], strengths, 3, maps), atol=2e-5)
    other = refine(image, unary, parameters, regions=regions, higher_order=strengths)
    assert np.abs(got - other).max() > 1e-3


def test_negative_ids_are_no_region_and_ids_need_no_order():
    image, unary, regions = case(10, 10, 3, 4)
    none = dense_crf(image, unary)
    np.testing.assert_allclose(
        dense_crf(image, unary, regions=np.full((10, 10), -1)), none, atol=1e-6
    )
    renamed = np.where(regions >= 0, 1000 - 7 * regions, -3)
    strengths = HigherOrder(area_weight=0.01)
    np.testing.assert_array_equal(
        dense_crf(image, unary, regions=regions, higher_order=strengths),
        dense_crf(image, unary, regions=renamed, higher_order=strengths),
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_large_regions_are_sound(threads):
    """100,000 pixels: an outlier joins a region that agrees, a region in doubt stays finite."""
    height, width = 320, 320
    unary = np.zeros((2, height, width), np.float32)
    unary[1] = 16  # Q = 1e-7 a pixel, 0.01 over the region
    unary[:, 100, 100] = (4, 0)
    image = np.zeros((height, width, 3), np.uint8)
    regions = np.zeros((height, width), np.int32)
    strengths = HigherOrder(weight=2.0, gamma_max=5.0, area_weight=0)
    got = dense_crf(
        image,
        unary,
        bilateral=None,
        smoothness=None,
        iterations=2,
        threads=threads,
        regions=regions,
        higher_order=strengths,
    )
    assert np.isfinite(got).all()
    # All others agree on label 0: for the outlier it gets nearly weight * gamma_max cheaper.
    share = np.exp(-(320 * 320 - 1) * np.log1p(np.exp(-16.0)))
    gain = 2 * share * 5.0
    assert got[0, 100, 100] == pytest.approx(1 / (1 + np.exp(4 - gain)), rel=2e-3)
    doubt = np.random.default_rng(0).gamma(1, 1, (2, height, width)).astype(np.float32)
    got = dense_crf(image, doubt, regions=regions, threads=threads)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("far", [0, 10**9])
def test_costs_are_equation_8(far):
    _, unary, regions = case(8, 11, 4, 6)
    regions[regions == 2] += far
    probs = softmax(-unary.astype(np.float64)).astype(np.float32)
    ids, sizes = number_regions(regions)
    costs = region_costs(ids, sizes, probs, gamma_max=1.3)
    known = [region for region in np.unique(regions) if region >= 0]
    assert len(sizes) == len(known)
    for row, region in enumerate(known):
        inside = regions == region
        assert sizes[row] == inside.sum()
        assert (ids[inside] == row).all()
        for label in range(4):
            gamma = min(-np.log(probs[label][inside].astype(float).sum() / inside.sum()), 1.3)
            assert costs[row, label] == pytest.approx(gamma, rel=1e-5)
    assert (ids[regions < 0] == len(known)).all()


@pytest.mark.parametrize(
    "regions",
    [np.zeros((4, 4), int), np.zeros((4, 5), float), "x", [np.zeros((3, 5), int)], 3, [None]],
)
def test_wrong_regions_are_refused(regions):
    with pytest.raises(ShapeError, match="regions"):
        check_regions(regions, (4, 5))


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "1", True, None])
@pytest.mark.parametrize("name", ["weight", "gamma_max", "area_weight"])
def test_wrong_strengths_are_refused(name, wrong):
    with pytest.raises(ConfigError, match=name):
        HigherOrder(**{name: wrong})


def test_maps_must_have_the_labels():
    image, unary, regions = case(4, 5, 3, 2)
    with pytest.raises(ShapeError, match="labels"):
        refine(image, unary, CrfParameters(), regions=regions, maps=unary[:2])
