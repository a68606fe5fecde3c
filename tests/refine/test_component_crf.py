from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tagseg.errors import ConfigError, ShapeError
from tagseg.refine import component_crf
from tagseg.refine.component_crf import DEEPLAB, ComponentCrf
from tagseg.refine.dense_crf import CrfParameters

A, B, C = 3, 7, 9


def two_colours(height, width, border, noise=3.0, seed=0):
    """A photo that is brown left of column ``border`` and blue from it on."""
    rng = np.random.default_rng(seed)
    colours = np.array([[150, 100, 50], [60, 90, 160]])[(np.arange(width) >= border).astype(int)]
    return (colours + rng.normal(0, noise, (height, width, 3))).clip(0, 255).astype(np.uint8)


def disk(height, width):
    y, x = np.mgrid[:height, :width]
    return ((y - height / 2) / (height / 2)) ** 2 + ((x - width / 2) / (width / 2)) ** 2 < 0.95


def place(height, width, seeds):
    """Seeds of 5 x 5 pixels around positions."""
    labels = np.zeros((height, width), np.uint8)
    for label, (y, x) in seeds:
        labels[y - 2 : y + 3, x - 2 : x + 3] = label
    return labels


def whole(component):
    return tuple(slice(0, side) for side in component.shape)


def softmax(energies):
    exponentials = np.exp(energies - energies.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def kernel(features, counted):
    """k_ij / sqrt(n_i n_j) of float64 features, with n_i the sum over the ``counted`` pixels."""
    pairs = np.exp(-0.5 * ((features[:, None] - features[None]) ** 2).sum(-1))
    n = pairs[:, counted].sum(1)
    return pairs / np.sqrt(np.outer(n, n))


def exact(image, component, seeds, classes, crf, normalise):
    """Mean field (k, pixels of the component) over its own pixels; the window is the photo.

    ``normalise`` says which pixels count in the normalisation of the kernels.
    """
    p = [gaussian_filter((seeds == c).astype(float), crf.sigma, mode="nearest") for c in classes]
    theta = -np.clip(p, crf.min_belief, 1 - crf.min_belief)[:, component]
    position = np.argwhere(np.ones(component.shape)).astype(float)
    weight, sigma_pixels, sigma_levels = crf.parameters.bilateral
    colour = image.reshape(-1, 3) / sigma_levels
    counted = normalise.ravel()
    coupling = weight * kernel(np.concatenate((position / sigma_pixels, colour), 1), counted)
    weight, sigma_pixels = crf.parameters.smoothness
    coupling += weight * kernel(position / sigma_pixels, counted)
    coupling = coupling[np.ix_(component.ravel(), component.ravel())]
    probs = softmax(-theta)
    for _ in range(crf.parameters.iterations):
        probs = softmax(-theta + probs @ coupling)
    return probs


# Sigmas in proportion to a photo of 26 x 34; with more reach one class takes it all.
PARAMETERS = CrfParameters(bilateral=(3, 8, 20), smoothness=(2, 1.5))
SPOTS = {A: (13, 6), B: (7, 25), C: (20, 22)}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_classes", [2, 3])
def test_equals_the_exact_mean_field_inside(seed, n_classes):
    """With outside pixels in the kernels' normalisation, as the docstring says."""
    height, width = 26, 34
    rng = np.random.default_rng(seed)
    image = two_colours(height, width, int(rng.integers(14, 21)), noise=12, seed=seed)
    component = disk(height, width)
    classes = np.array([A, B, C][:n_classes], np.uint8)
    spots = [(c, np.add(SPOTS[int(c)], rng.integers(-2, 3, 2))) for c in classes]
    seeds = place(height, width, spots)
    crf = ComponentCrf(PARAMETERS, sigma=3)
    labels = crf(image, component, seeds, classes, whole(component))
    probs = exact(image, component, seeds, classes, crf, normalise=np.ones_like(component))
    ordered = np.sort(probs, axis=0)
    sure = ordered[-1] - ordered[-2] > 0.1
    assert sure.mean() > 0.7
    expected = classes[probs.argmax(0)]
    assert len(set(expected[sure])) == n_classes  # or else anything constant would do
    agree = labels[component] == expected
    assert agree[sure].all()
    assert agree.mean() > 0.995
    assert not labels[~component].any()


@pytest.mark.parametrize("seed", range(4))
def test_is_close_to_a_component_with_nothing_around_it(seed):
    """What differs is the kernels' normalisation, which matters at the rim."""
    height, width = 26, 34
    image = two_colours(height, width, 12 + 3 * seed, noise=12, seed=seed)
    component = disk(height, width)
    classes = np.array([A, B], np.uint8)
    seeds = place(height, width, [(A, (13, 5)), (B, (13, 28))])
    crf = ComponentCrf(PARAMETERS, sigma=3)
    labels = crf(image, component, seeds, classes, whole(component))
    alone = exact(image, component, seeds, classes, crf, normalise=component)
    assert (labels[component] == classes[alone.argmax(0)]).mean() > 0.99


def test_labels_follow_the_colours():
    """The colours change at a third of the way between two seeds as large as each other."""
    height, width, border = 120, 160, 58
    component = disk(height, width)
    seeds = place(height, width, [(A, (60, 30)), (B, (60, 130))])
    truth = np.where(np.arange(width) >= border, B, A)
    truth = np.broadcast_to(truth, component.shape)
    classes, crf = np.array([A, B], np.uint8), ComponentCrf()

    def accuracy(image):
        labels = crf(image, component, seeds, classes, whole(component))
        return (labels == truth)[component].mean()

    assert accuracy(two_colours(height, width, border)) > 0.98
    assert accuracy(two_colours(height, width, 0)) < 0.9


def test_colours_outside_of_the_component_say_nothing():
    """The ground around it has the right half's colours; left of the rim it must not win."""
    height, width = 60, 80
    component = disk(height, width)
    image = two_colours(height, width, 40)
    around = image.copy()
    around[~component] = two_colours(height, width, 0)[~component]
    seeds = place(height, width, [(A, (30, 12)), (B, (30, 66))])
    classes, crf = np.array([A, B], np.uint8), ComponentCrf()
    labels = crf(around, component, seeds, classes, whole(component))
    expected = np.where(np.arange(width) >= 40, B, A) * component
    assert (labels == expected)[component].mean() > 0.98


@pytest.mark.parametrize("factor", [2, 3])
def test_sigmas_follow_the_size_of_the_photo(factor):
    component = disk(60, 80)
    seeds = place(60, 80, [(A, (20, 20)), (B, (40, 60))])
    image, classes = two_colours(60, 80, 35), np.array([A, B], np.uint8)
    small = ComponentCrf()(image, component, seeds, classes, whole(component))
    image, component, seeds, small = (
        m.repeat(factor, 0).repeat(factor, 1) for m in (image, component, seeds, small)
    )
    large = ComponentCrf()(image, component, seeds, classes, whole(component))
    assert (large == small).mean() > 0.98


@pytest.fixture
def asked(monkeypatch):
    """What the CRF is asked for."""
    calls = []

    def refine(image, unary, parameters):
        calls.append((image, unary, parameters))
        return np.zeros_like(unary)

    monkeypatch.setattr(component_crf, "refine", refine)
    return calls


@pytest.mark.parametrize("window", [np.s_[20:50, 30:90], np.s_[0:9, 0:160], np.s_[119:120, 4:5]])
def test_unaries_are_of_the_whole_photos_seeds(asked, window):
    rng = np.random.default_rng(0)
    image = two_colours(120, 160, 60)
    seeds = rng.choice(np.array([0, 0, 0, A, B, C, 255], np.uint8), (12, 16))
    seeds = seeds.repeat(10, 0).repeat(10, 1)
    component = rng.random(image[window].shape[:2]) < 0.7
    classes = np.array([A, C], np.uint8)
    ComponentCrf(sigma=25, min_belief=0.05)(image, component, seeds, classes, window)
    ((seen, unary, parameters),) = asked
    np.testing.assert_array_equal(seen, image[window])
    assert unary.dtype == np.float32
    for costs, label in zip(unary, classes, strict=False):
        p = gaussian_filter((seeds == label).astype(float), 25 * 160 / 500, mode="nearest")
        expected = -np.clip(p, 0.05, 0.95)[window]
        np.testing.assert_allclose(costs[component], expected[component], atol=2e-4)
        assert (costs[~component] == 40).all()
    np.testing.assert_array_equal(unary[2], np.where(component, 40, 0))
    share = 160 / 500  # of the photo, not of the window
    assert parameters.bilateral == pytest.approx((4, 121 * share, 5))
    assert parameters.smoothness == pytest.approx((3, 3 * share))
    assert parameters.reference_side is None
    assert parameters.iterations == 10


def test_without_a_reference_sigmas_are_pixels(asked):
    component = np.ones((30, 40), bool)
    seeds = place(30, 40, [(A, (10, 10)), (B, (20, 30))])
    image, classes = two_colours(30, 40, 20), np.array([A, B], np.uint8)
    crf = ComponentCrf(CrfParameters(), sigma=4)
    crf(image, component, seeds, classes, whole(component))
    ((_, unary, parameters),) = asked
    p = gaussian_filter((seeds == A).astype(float), 4, mode="nearest")
    np.testing.assert_allclose(unary[0], -np.clip(p, 1e-3, 1 - 1e-3), atol=2e-4)
    assert parameters == CrfParameters()


def test_parameters_are_deeplabs():
    assert CrfParameters((4, 121, 5), (3, 3), iterations=10, reference_side=500) == DEEPLAB
    assert ComponentCrf() == ComponentCrf(DEEPLAB, sigma=10, min_belief=1e-3)


def test_component_of_one_pixel():
    seeds = np.array([[A, B]], np.uint8)
    image = np.zeros((1, 2, 3), np.uint8)
    labels = ComponentCrf()(
        image, np.ones((1, 1), bool), seeds, np.array([A, B], np.uint8), np.s_[0:1, 1:2]
    )
    np.testing.assert_array_equal(labels, [[B]])


def test_wrong_arguments_are_refused():
    image, classes = two_colours(30, 40, 20), np.array([A, B], np.uint8)
    seeds, component = np.zeros((30, 40), np.uint8), np.ones((10, 10), bool)
    window = np.s_[5:15, 5:15]
    with pytest.raises(ShapeError, match=r"seeds \(10, 10\)"):
        ComponentCrf()(image, component, seeds[window], classes, window)
    with pytest.raises(ShapeError, match=r"component \(9, 10\)"):
        ComponentCrf()(image, component[1:], seeds, classes, window)
    with pytest.raises(ShapeError, match="image is a float64"):
        ComponentCrf()(image / 255, component, seeds, classes, window)


@pytest.mark.parametrize("settings", [{"sigma": 0}, {"sigma": np.nan}, {"min_belief": 0.6}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ConfigError, match="give sigma > 0"):
        ComponentCrf(**settings)
