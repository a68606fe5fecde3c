from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import BrokenBarrierError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import ConfigError, ShapeError
from tagseg.refine import mean_field
from tagseg.refine.dense_crf import CrfParameters, dense_crf, refine, softmax_unary


def exact_mean_field(image, unary, bilateral, smoothness, iterations):
    """Float64 mean field over all pairs of pixels, self included."""
    n_labels, height, width = unary.shape
    y, x = np.mgrid[:height, :width]
    position = np.stack([y, x], axis=-1).reshape(-1, 2).astype(np.float64)
    colour = image.reshape(-1, 3).astype(np.float64)
    coupling = np.zeros((height * width, height * width))
    if bilateral is not None:
        weight, sigma_pixels, sigma_levels = bilateral
        features = np.concatenate([position / sigma_pixels, colour / sigma_levels], axis=1)
        coupling += weight * normalised_gaussian(features)
    if smoothness is not None:
        coupling += smoothness[0] * normalised_gaussian(position / smoothness[1])
    theta = unary.reshape(n_labels, -1).astype(np.float64)
    probs = softmax(-theta)
    for _ in range(iterations):
        probs = softmax(-theta + probs @ coupling)
    return probs.reshape(unary.shape)


def normalised_gaussian(features):
    kernel = np.exp(-0.5 * ((features[:, None] - features[None]) ** 2).sum(axis=-1))
    n = kernel.sum(axis=1)
    return kernel / np.sqrt(np.outer(n, n))


def softmax(energies):
    exponentials = np.exp(energies - energies.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def scene(height, width, n_labels, seed=0):
    """Noisy photo with a bright block, and a unary that knows the block, with errors."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((height, width), int)
    truth[height // 4 : height // 4 * 3, width // 4 : width // 4 * 3] = min(1, n_labels - 1)
    colours = np.array([[60, 90, 120], [170, 120, 60]])
    noise = rng.normal(0, 12, (height, width, 3))
    image = np.clip(colours[truth] + noise, 0, 255).astype(np.uint8)
    probs = rng.dirichlet(np.ones(n_labels), (height, width)).transpose(2, 0, 1)
    probs += 0.5 * (np.arange(n_labels)[:, None, None] == truth)
    return image, -np.log(probs / probs.sum(axis=0) + 1e-6).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.9])
@pytest.mark.parametrize("shape", [(12, 16), (7, 5), (1, 9)])
def test_narrow_smoothness_is_exact(shape, sigma):
    image, unary = scene(*shape, n_labels=4)
    got = dense_crf(image, unary, bilateral=None, smoothness=(3, sigma))
    np.testing.assert_allclose(got, exact_mean_field(image, unary, None, (3, sigma), 10), atol=2e-5)


@pytest.mark.parametrize("sigma", [3, 4.4, 6.5, 40])
@pytest.mark.parametrize(("shape", "n_labels"), [((12, 16), 3), ((13, 17), 9), ((1, 9), 21)])
def test_wide_smoothness_is_close_to_exact(shape, n_labels, sigma):
    image, unary = scene(*shape, n_labels)
    got = dense_crf(image, unary, bilateral=None, smoothness=(3, sigma))
    exact = exact_mean_field(image, unary, None, (3, sigma), 10)
    np.testing.assert_allclose(got, exact, atol=1e-3)  # measured: 4e-4


@pytest.mark.parametrize(
    ("bilateral", "agreement", "difference"),
    [  # measured: agreement 1, 0.978 and 1; mean difference 1.6e-5, see below, 3.2e-4
        ((10, 80, 13), 0.995, 1e-3),
        ((4, 121, 5), 0.97, 0.02),  # 12 levels of noise: pixels stand alone, the lattice is coarse
        ((5, 6, 40), 0.995, 1e-3),
    ],
)
@pytest.mark.parametrize("n_labels", [2, 3, 21])
def test_bilateral_is_bounded_by_the_lattice(bilateral, agreement, difference, n_labels):
    image, unary = scene(16, 20, n_labels)
    got = dense_crf(image, unary, bilateral=bilateral, smoothness=(3, 3))
    exact = exact_mean_field(image, unary, bilateral, (3, 3), 10)
    assert (got.argmax(axis=0) == exact.argmax(axis=0)).mean() >= agreement
    assert np.abs(got - exact).mean() <= difference


def test_one_bilateral_message_is_bounded_by_the_lattice():
    image, unary = scene(16, 20, 5)
    got = dense_crf(image, unary, bilateral=(1, 80, 13), smoothness=None, iterations=1)
    exact = exact_mean_field(image, unary, (1, 80, 13), None, 1)
    assert np.abs(got - exact).max() <= 0.03  # measured: 0.026


def test_the_fine_filter_is_closer_to_exact_than_the_lattice():
    rng = np.random.default_rng(3)
    side = np.linspace(0, 4 * np.pi, 48)
    waves = 128 + 70 * np.sin(side)[:, None, None] * np.cos(side[:40])[None, :, None]
    image = (waves + rng.normal(0, 6, (48, 40, 3)) + [0, 20, -20]).clip(0, 255).astype(np.uint8)
    unary = rng.gamma(2, 0.5, (5, 48, 40)).astype(np.float32)
    exact = exact_mean_field(image, unary, (10, 20, 13), (3, 3), 5)
    errors = {}
    for filter_ in ("lattice", "fine"):
        got = dense_crf(image, unary, bilateral=(10, 20, 13), iterations=5, filter=filter_)
        errors[filter_] = np.abs(got - exact).mean()
    assert errors["fine"] < 0.6 * errors["lattice"]


@pytest.mark.parametrize("filter_", ["lattice", "fine"])
@pytest.mark.parametrize("n_labels", [2, 5, 21])
def test_threads_share_a_photo(n_labels, filter_):
    image, unary = scene(120, 151, n_labels)
    alone = dense_crf(image, unary, filter=filter_)
    for threads in (2, 3):
        together = dense_crf(image, unary, filter=filter_, threads=threads)
        np.testing.assert_allclose(together, alone, atol=2e-5)


@pytest.mark.parametrize("regions", [False, True])
def test_labels_without_a_chance_may_be_left_out(regions):
    image, unary = scene(30, 40, 3)
    layer = np.arange(30 * 40).reshape(30, 40) // 200 if regions else None
    more = np.full((21, 30, 40), 1e4, np.float32)
    more[[0, 7, 20]] = unary
    probs = dense_crf(image, more, regions=layer)
    np.testing.assert_allclose(probs[[0, 7, 20]], dense_crf(image, unary, regions=layer), atol=1e-5)
    assert probs[[1, 6, 19]].max() == 0


def test_too_little_memory_is_one_line(monkeypatch):
    image, unary = scene(8, 9, 3)

    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr("tagseg.refine.inference.MeanField", no_memory)
    with pytest.raises(ConfigError, match="no memory for a photo of 9 x 8 pixels") as caught:
        dense_crf(image, unary)
    assert "\n" not in str(caught.value)


def test_failing_thread_does_not_hang(monkeypatch):
    image, unary = scene(120, 151, 3)

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(mean_field, "update", fail)
    with pytest.raises((ZeroDivisionError, BrokenBarrierError)):
        dense_crf(image, unary, threads=2)


@pytest.mark.parametrize("bilateral", [None, (0, 80, 13)])
def test_without_kernels_it_is_the_softmax(bilateral):
    image, unary = scene(9, 11, 3)
    expected = softmax(-unary.astype(np.float64))
    for iterations in (0, 4):
        got = dense_crf(image, unary, bilateral=bilateral, smoothness=None, iterations=iterations)
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_no_iterations_are_the_softmax():
    image, unary = scene(9, 11, 3)
    got = dense_crf(image, unary, iterations=0)
    np.testing.assert_allclose(got, softmax(-unary.astype(np.float64)), atol=1e-6)


def test_it_mends_wrong_pixels():
    image, unary = scene(40, 48, 2)
    truth = np.zeros((40, 48), bool)
    truth[10:30, 12:36] = True
    before = (unary.argmin(axis=0) == truth).mean()
    after = (dense_crf(image, unary).argmax(axis=0) == truth).mean()
    assert before < 0.9
    assert after > 0.99


@settings(derandomize=True, deadline=None, max_examples=15)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 14),
    n_labels=st.integers(1, 10),
    seed=st.integers(0, 1000),
)
def test_sums_to_one_and_follows_a_permutation_of_labels(height, width, n_labels, seed):
    image, unary = scene(height, width, n_labels, seed)
    order = np.random.default_rng(seed).permutation(n_labels)
    probs = dense_crf(image, unary)
    assert probs.dtype == np.float32
    assert probs.shape == unary.shape
    np.testing.assert_allclose(probs.sum(axis=0), 1, atol=1e-5)
    assert (probs >= 0).all()
    np.testing.assert_allclose(dense_crf(image, unary[order]), probs[order], atol=1e-4)


def test_flip_of_the_photo_flips_the_result():
    image, unary = scene(24, 31, 3)
    probs = dense_crf(image, unary)
    flipped = dense_crf(image[:, ::-1], unary[:, :, ::-1])[:, :, ::-1]
    # The lattice lies differently over the flipped photo, so only nearly the same.
    assert np.abs(flipped - probs).mean() < 1e-4  # measured: 6e-6
    assert (flipped.argmax(axis=0) == probs.argmax(axis=0)).mean() > 0.99


def test_constant_photo_with_constant_unary_stays_constant():
    image = np.full((20, 30, 3), 77, np.uint8)
    unary = np.broadcast_to(np.array([0.2, 1.0, 3.0], np.float32)[:, None, None], (3, 20, 30))
    probs = dense_crf(image, unary)
    exact = exact_mean_field(image, np.ascontiguousarray(unary), (10, 80, 13), (3, 3), 10)
    np.testing.assert_allclose(probs, exact, atol=1e-4)


@pytest.mark.parametrize("image_value", [0, 255])
def test_one_pixel(image_value):
    image = np.full((1, 1, 3), image_value, np.uint8)
    unary = np.array([0.5, 0.6], np.float32).reshape(2, 1, 1)
    exact = exact_mean_field(image, unary, (10, 80, 13), (3, 3), 10)
    np.testing.assert_allclose(dense_crf(image, unary), exact, atol=1e-5)


def test_one_label_is_certain():
    image, unary = scene(6, 7, 1)
    np.testing.assert_array_equal(dense_crf(image, unary), 1)


@pytest.mark.parametrize("factor", [0.0, 1e30, -1e3])
def test_extreme_unaries_stay_finite(factor):
    image, unary = scene(8, 9, 3)
    probs = dense_crf(image, unary * np.float32(factor))
    np.testing.assert_allclose(probs.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("bilateral", "smoothness"),
    [((1, 1e9, 1e9), (1, 1e9)), ((3, 0.01, 0.5), (3, 1e-3)), ((1e4, 20, 20), (1e4, 3))],
)
def test_extreme_settings_stay_finite(bilateral, smoothness):
    image, unary = scene(8, 9, 3)
    probs = dense_crf(image, unary, bilateral=bilateral, smoothness=smoothness)
    np.testing.assert_allclose(probs.sum(axis=0), 1, atol=1e-5)


def test_threads_give_the_same_result_and_inputs_are_left_alone():
    image, unary = scene(60, 70, 5)
    image.flags.writeable = unary.flags.writeable = False
    alone = dense_crf(image, unary)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda _: dense_crf(image, unary), range(6)))
    for probs in together:
        np.testing.assert_array_equal(probs, alone)
    assert np.array_equal(unary, scene(60, 70, 5)[1])


def test_memory_order_does_not_matter():
    image, unary = scene(10, 12, 3)
    got = dense_crf(np.asfortranarray(image), np.asfortranarray(unary))
    np.testing.assert_array_equal(got, dense_crf(image, unary))


def test_more_labels_than_one_vector():
    image, unary = scene(10, 12, 255)
    got = dense_crf(image, unary, bilateral=None)
    np.testing.assert_allclose(got, exact_mean_field(image, unary, None, (3, 3), 10), atol=1e-3)


def test_sigmas_follow_the_reference_side():
    parameters = CrfParameters((10, 80, 13), (3, 3), 5, reference_side=500)
    assert parameters.at(100, 250) == CrfParameters((10, 40.0, 13), (3, 1.5), 5)
    assert CrfParameters().at(100, 250) == CrfParameters()
    image, unary = scene(10, 20, 3)
    by_hand = dense_crf(image, unary, bilateral=(10, 3.2, 13), smoothness=(3, 0.12), iterations=5)
    np.testing.assert_allclose(refine(image, unary, parameters), by_hand, atol=1e-6)


def test_softmax_unary_is_equation_7():
    maps = np.random.default_rng(0).normal(0, 30, (4, 5, 6)).astype(np.float32)
    wide = maps.astype(np.float64)
    expected = -np.log(np.exp(wide) / np.exp(wide).sum(axis=0))
    got = softmax_unary(maps)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert np.isfinite(softmax_unary(maps * np.float32(1e4))).all()


GOOD_IMAGE, GOOD_UNARY = scene(4, 5, 2)


@pytest.mark.parametrize(
    ("image", "unary"),
    [
        (GOOD_IMAGE.astype(np.float32), GOOD_UNARY),
        (GOOD_IMAGE[..., 0], GOOD_UNARY),
        (GOOD_IMAGE[:3], GOOD_UNARY),
        (GOOD_IMAGE, GOOD_UNARY.astype(np.float16)),
        (GOOD_IMAGE, GOOD_UNARY[0]),
        (GOOD_IMAGE, GOOD_UNARY[:0]),
        (GOOD_IMAGE, GOOD_UNARY * np.float32("nan")),
        (GOOD_IMAGE, np.zeros((256, 4, 5), np.float32)),
        (GOOD_IMAGE.tolist(), GOOD_UNARY),
    ],
)
def test_wrong_arrays_are_refused(image, unary):
    with pytest.raises(ShapeError):
        dense_crf(image, unary)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bilateral": (-1, 80, 13)},
        {"bilateral": (1, 0, 13)},
        {"bilateral": (1, 80, -2)},
        {"bilateral": (1, 80)},
        {"bilateral": (1, float("nan"), 3)},
        {"bilateral": "ten"},
        {"bilateral": (1, 1e-300, 1e-300)},
        {"smoothness": (-3, 3)},
        {"smoothness": (3, 0)},
        {"smoothness": 3},
        {"iterations": -1},
        {"iterations": 2.5},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError) as caught:
        dense_crf(GOOD_IMAGE, GOOD_UNARY, **wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [0, -5, 2.5])
def test_wrong_reference_side_is_refused(side):
    with pytest.raises(ConfigError, match="reference_side"):
        CrfParameters(reference_side=side)


@pytest.mark.parametrize("maps", [np.zeros((0, 4, 5), np.float32), np.zeros((4, 5)), [1, 2]])
def test_softmax_unary_refuses_wrong_maps(maps):
    with pytest.raises(ShapeError):
        softmax_unary(maps)
