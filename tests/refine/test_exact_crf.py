from __future__ import annotations

import numpy as np
import pytest
import torch

from tagseg.errors import ConfigError, ShapeError
from tagseg.refine import exact_crf
from tagseg.refine.dense_crf import CrfParameters, dense_crf
from tagseg.refine.exact_crf import dense_crf_batch, exact_dense_crf
from tagseg.refine.higher_order import HigherOrder


def softmax(energies):
    exponentials = np.exp(energies - energies.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def normalised_gaussian(features):
    """k_ij / sqrt(n_i n_j), one pixel after the other."""
    kernel = np.array([np.exp(-0.5 * ((f - features) ** 2).sum(axis=1)) for f in features])
    n = kernel.sum(axis=1)
    return kernel / np.sqrt(np.outer(n, n))


def region_energy(unary, probs, layer, strengths):
    """Energy (L, N) of the regions ``layer`` (N,), a product over pixels for each pixel."""
    weight, gamma_max = strengths.weight, strengths.gamma_max
    energy = np.zeros_like(probs)
    prior = softmax(-unary)
    for region in set(layer[layer >= 0].tolist()):
        inside = np.flatnonzero(layer == region)
        for label in range(len(probs)):
            gamma = min(-np.log(prior[label, inside].mean()), gamma_max)
            for pixel in inside:
                others = np.prod([probs[label, j] for j in inside if j != pixel])
                energy[label, pixel] += weight * (gamma * others + gamma_max * (1 - others))
                energy[label, pixel] += strengths.area_weight * len(inside) * gamma
    return energy


def mean_field(image, unary, parameters, layers=(), strengths=None):
    """Float64 mean field over all pairs of pixels, self included, as the papers write it."""
    n_labels, height, width = unary.shape
    y, x = np.mgrid[:height, :width]
    position = np.stack([y, x], axis=-1).reshape(-1, 2).astype(np.float64)
    colour = image.reshape(-1, 3).astype(np.float64)
    coupling = np.zeros((height * width, height * width))
    if parameters.bilateral is not None:
        weight, sigma_pixels, sigma_levels = parameters.bilateral
        features = np.concatenate([position / sigma_pixels, colour / sigma_levels], axis=1)
        coupling += weight * normalised_gaussian(features)
    if parameters.smoothness is not None:
        weight, sigma_pixels = parameters.smoothness
        coupling += weight * normalised_gaussian(position / sigma_pixels)
    theta = unary.reshape(n_labels, -1).astype(np.float64)
    probs = softmax(-theta)
    for _ in range(parameters.iterations):
        energy = -theta + probs @ coupling
        for layer in layers:
            energy = energy - region_energy(theta, probs, layer.numpy().reshape(-1), strengths)
        probs = softmax(energy)
    return probs.reshape(unary.shape)


def scene(height=24, width=32, n_labels=4, photos=1, seed=0):
    """Noisy photos of two colours, and random unaries with smooth parts."""
    rng = np.random.default_rng(seed)
    side = np.arange(width) * 3 // width % 2
    colours = np.array([[60, 90, 120], [170, 120, 60]])[side]
    noise = rng.normal(0, 15, (photos, height, width, 3))
    images = np.clip(colours + noise, 0, 255).astype(np.uint8)
    unary = rng.gamma(1, 1, (photos, n_labels, height, width)) + rng.gamma(1, 1, (n_labels, 1, 1))
    return torch.from_numpy(images), torch.from_numpy(unary.astype(np.float32))


def expected(images, unary, parameters, layers=(), strengths=None):
    return np.stack(
        [
            mean_field(
                image.numpy(), costs.numpy(), parameters, [part[k] for part in layers], strengths
            )
            for k, (image, costs) in enumerate(zip(images, unary, strict=True))
        ]
    )


DEFAULT = CrfParameters()
SHARP = CrfParameters((4, 121, 5), (3, 3))


@pytest.mark.parametrize(
    "parameters",
    [
        DEFAULT,
        SHARP,
        CrfParameters((5, 0.3, 0.01), None),  # every pixel alone
        CrfParameters(None, (3, 2.2)),
        CrfParameters((5, 10, 40), (0, 3), iterations=3),
        CrfParameters((5, 100, 40), (2, 6), reference_side=200),
    ],
)
def test_mean_field_is_that_over_all_pairs(parameters):
    images, unary = scene(photos=2)
    at_size = parameters.at(24, 32)
    got = exact_dense_crf(images, unary, parameters)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got, expected(images, unary, at_size), atol=1e-5)


@pytest.mark.parametrize("n_labels", [1, 2, 25, 130])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 6)])
def test_any_number_of_labels_and_pixels(shape, n_labels):
    images, unary = scene(*shape, n_labels)
    got = exact_dense_crf(images, unary, DEFAULT)
    np.testing.assert_allclose(got, expected(images, unary, DEFAULT), atol=1e-5)


@pytest.mark.parametrize("level", [0, 130, 255])
def test_constant_photo(level):
    images, unary = scene()
    images[:] = level
    got = exact_dense_crf(images, unary, SHARP)
    np.testing.assert_allclose(got, expected(images, unary, SHARP), atol=1e-5)


def test_no_iterations_or_no_kernels_leave_the_softmax():
    images, unary = scene()
    for parameters in (CrfParameters(iterations=0), CrfParameters(None, None)):
        got = exact_dense_crf(images, unary, parameters)
        torch.testing.assert_close(got, torch.softmax(-unary, dim=1))


def test_huge_unary():
    images, unary = scene()
    unary[:, 1] = 1e30
    unary[:, 2] = -3e38
    got = exact_dense_crf(images, unary, DEFAULT)
    assert got[:, 2].min() == 1
    assert got.sum(dim=1).sub(1).abs().max() == 0


def test_batch_is_its_photos():
    images, unary = scene(photos=3)
    whole = exact_dense_crf(images, unary, DEFAULT)
    for photo in range(3):
        one = exact_dense_crf(images[[photo]], unary[[photo]], DEFAULT)
        torch.testing.assert_close(whole[[photo]], one, atol=1e-6, rtol=0)


def test_order_of_labels_does_not_matter():
    images, unary = scene(n_labels=6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    got = exact_dense_crf(images, unary[:, order], DEFAULT)
    torch.testing.assert_close(got, exact_dense_crf(images, unary, DEFAULT)[:, order])


def test_labels_in_chunks(monkeypatch):
    images, unary = scene(n_labels=21)
    whole = exact_dense_crf(images, unary, DEFAULT)
    monkeypatch.setattr(exact_crf, "_LABELS_PER_HEAD", 8)
    torch.testing.assert_close(exact_dense_crf(images, unary, DEFAULT), whole)


def test_autocast_and_gradients_change_nothing():
    images, unary = scene()
    plain = exact_dense_crf(images, unary, DEFAULT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = exact_dense_crf(images, unary.clone().requires_grad_(), DEFAULT)
    assert not again.requires_grad
    torch.testing.assert_close(again, plain, atol=0, rtol=0)


def test_arguments_are_left_alone_and_may_be_views():
    images, unary = scene(photos=2)
    before = images.clone(), unary.clone()
    flipped = exact_dense_crf(images.flip(2), unary.flip(3), DEFAULT).flip(3)
    strided = exact_dense_crf(images.mT.contiguous().mT, unary.mT.contiguous().mT, DEFAULT)
    torch.testing.assert_close(flipped, exact_dense_crf(images, unary, DEFAULT))
    torch.testing.assert_close(strided, flipped)
    assert torch.equal(images, before[0])
    assert torch.equal(unary, before[1])


# Regions


def region_layers(photos, height, width):
    """Blocks, stripes that leave half of the pixels out, and ids without order."""
    y, x = torch.arange(height)[:, None], torch.arange(width)
    blocks = y // 4 * 100 + x // 4 - 3
    stripes = torch.where(y % 4 < 2, y // 4, -1).expand(height, width)
    rng = np.random.default_rng(0)
    scattered = torch.from_numpy(rng.choice([-7, 0, 5, 2**31 - 1], (photos, height, width)))
    wide = [layer.expand(photos, height, width) for layer in (blocks, stripes)]
    return [layer.int() for layer in (*wide, scattered)]


@pytest.mark.parametrize(
    "strengths",
    [
        HigherOrder(),
        HigherOrder(weight=2, gamma_max=3, area_weight=0.01),
        HigherOrder(weight=0, gamma_max=1, area_weight=0.05),
        HigherOrder(weight=4, gamma_max=1.5, area_weight=0),
    ],
)
def test_regions_are_those_of_the_product(strengths):
    images, unary = scene(8, 10, photos=2)
    unary[:, 1] *= 0.1  # a label that most pixels agree on, so that products do not vanish
    weak, layers = CrfParameters((1, 6, 40), (1, 2)), region_layers(2, 8, 10)
    for some in ([layers[0]], layers):
        got = exact_dense_crf(images, unary, weak, regions=some, higher_order=strengths)
        exact = expected(images, unary, weak, some, strengths)
        np.testing.assert_allclose(got, exact, atol=1e-5)
        plain = exact_dense_crf(images, unary, weak)
        assert (got - plain).abs().max() > 1e-3


def test_regions_in_half_precision():
    images, unary = scene(photos=2)
    layers, strengths = region_layers(2, 24, 32), HigherOrder()
    exact, half = (
        exact_crf._exact(images, unary, DEFAULT, layers, strengths, precision)
        for precision in (exact_crf._DOUBLE, exact_crf._HALF)
    )
    assert (half - exact).abs().max() <= 5e-3


def test_regions_of_impossible_labels_are_sound():
    images, unary = scene()
    unary[:, 1, ::2] = 3e38
    unary[:, 2, ::3] = -3e38
    layer, strengths = region_layers(1, 24, 32)[0], HigherOrder()
    for precision in (exact_crf._DOUBLE, exact_crf._HALF):
        got = exact_crf._exact(images, unary, DEFAULT, (layer,), strengths, precision)
        assert got[:, 1, ::2].max() == 0
        assert got[:, 2, ::3].min() == 1
        torch.testing.assert_close(got.sum(dim=1), torch.ones(1, 24, 32))


def test_one_tensor_is_one_layer_and_no_region_is_no_change():
    images, unary = scene(8, 10, photos=2)
    layer, strengths = region_layers(2, 8, 10)[0], HigherOrder()
    plain = exact_dense_crf(images, unary, DEFAULT)
    one = exact_dense_crf(images, unary, DEFAULT, regions=layer, higher_order=strengths)
    many = exact_dense_crf(images, unary, DEFAULT, regions=(layer,), higher_order=strengths)
    assert torch.equal(one, many)
    for empty in ([], torch.full_like(layer, -1)):
        same = exact_dense_crf(images, unary, DEFAULT, regions=empty, higher_order=strengths)
        assert torch.equal(same, plain)


def test_strengths_have_defaults():
    images, unary = scene(8, 10)
    layer = region_layers(1, 8, 10)[0]
    got = exact_dense_crf(images, unary, DEFAULT, regions=layer)
    same = exact_dense_crf(images, unary, DEFAULT, regions=layer, higher_order=HigherOrder())
    assert torch.equal(got, same)


def test_regions_of_one_photo_say_nothing_of_another():
    images, unary = scene(8, 10, photos=2)
    layer, strengths = region_layers(2, 8, 10)[0], HigherOrder(area_weight=0.1)
    both = exact_dense_crf(images, unary, DEFAULT, regions=layer, higher_order=strengths)
    one = exact_dense_crf(images[1:], unary[1:], DEFAULT, regions=layer[1:], higher_order=strengths)
    torch.testing.assert_close(both[1:], one, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sure", [False, True])
def test_a_region_of_the_whole_photo_is_sound(sure):
    images, unary = scene(32, 48)
    if sure:
        unary[:, 1] = -200  # every other probability underflows
    layer = torch.zeros(1, 32, 48, dtype=torch.int32)
    weak, strengths = CrfParameters((1, 121, 5), (1, 3)), HigherOrder(weight=3, area_weight=0)
    for precision in (exact_crf._DOUBLE, exact_crf._HALF):
        plain = exact_crf._exact(images, unary, weak, (), None, precision)
        got = exact_crf._exact(images, unary, weak, (layer,), strengths, precision)
        assert torch.isfinite(got).all()  # a product of 1535 chances: 0, or 1
        torch.testing.assert_close(got, plain, atol=1e-6, rtol=0)


def test_filters_get_the_regions_of_their_photo(monkeypatch):
    images, unary = scene(8, 10, photos=2)
    layers, strengths = region_layers(2, 8, 10), HigherOrder()
    calls = []

    def refine(image, costs, parameters, *, regions, higher_order):
        calls.append((image, parameters, regions, higher_order))
        return costs

    monkeypatch.setattr(exact_crf, "EXACT_PIXELS_CPU", 79)
    monkeypatch.setattr(exact_crf, "refine", refine)
    got = dense_crf_batch(images, unary, DEFAULT, regions=layers, higher_order=strengths)
    assert torch.equal(got, unary)
    calls.sort(key=lambda call: not np.array_equal(call[0], images[0].numpy()))
    for photo, (image, parameters, regions, higher_order) in enumerate(calls):
        np.testing.assert_array_equal(image, images[photo].numpy())
        assert (parameters, higher_order) == (DEFAULT, strengths)
        for region, layer in zip(regions, layers, strict=True):
            np.testing.assert_array_equal(region, layer[photo].numpy())


# Half precision, as on cuda, on the CPU


@pytest.mark.parametrize("sigmas", [(80, 13), (121, 5), (3, 2.5)])
def test_split_operands_hold_the_exponents(sigmas):
    """Products of float16 parts, summed in float32, against the exponents in float64."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (1, 24, 32, 3), np.uint8))
    images[0, 0, :2] = torch.tensor([[0, 0, 0], [255, 255, 255]])
    features = exact_crf._features(images, *sigmas)
    queries, keys = exact_crf._operands(features, torch.float16)
    assert queries.dtype == keys.dtype == torch.float16
    exponents = (queries.float() @ keys.float().mT).double()
    norms = features.square().sum(dim=-1) / 2
    largest = 2 * norms.max()
    between = features @ features.mT - norms[:, None]
    assert (exponents[..., :-1] - between).abs().max() <= 2.0**-20 * largest
    anchor = norms + np.log(2)
    assert (exponents[..., -1] - anchor).abs().max() <= 2.0**-20 * largest


@pytest.mark.parametrize("bilateral", [(10, 80, 13), (4, 121, 5), (5, 3, 3)])
def test_half_precision_is_close_to_exact(bilateral):
    images, unary = scene(photos=2)
    exact, half = (
        exact_crf._bilateral_message(images, bilateral, precision)(
            unary.to(precision.state).log_softmax(dim=1)
        ).double()
        for precision in (exact_crf._DOUBLE, exact_crf._HALF)
    )
    rms = (half - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert rms <= 4e-4  # measured: 2.8e-4, the rounding of a float16 result
    parameters = CrfParameters(bilateral, (3, 3))
    exact, half = (
        exact_crf._exact(images, unary, parameters, (), None, precision)
        for precision in (exact_crf._DOUBLE, exact_crf._HALF)
    )
    assert (half - exact).abs().mean() <= 1e-4
    assert (half.argmax(dim=1) == exact.argmax(dim=1)).double().mean() >= 0.999


def test_half_precision_normalisers():
    images, _ = scene()
    features = exact_crf._features(images, 80, 13)
    n = torch.cdist(features, features).square().div(-2).exp().sum(dim=-1, keepdim=True)
    half = exact_crf._normalisers(*exact_crf._operands(features, torch.float16), torch.float32)
    double = exact_crf._normalisers(*exact_crf._operands(features, torch.float64), torch.float64)
    torch.testing.assert_close(half.double(), n, rtol=1e-3, atol=0)
    torch.testing.assert_close(double, n, rtol=1e-9, atol=0)


def test_sigmas_too_small_for_half_precision(monkeypatch):
    images, unary = scene()
    monkeypatch.setattr(exact_crf, "_precision", lambda images: exact_crf._HALF)
    small = CrfParameters((10, 80, 2))
    with pytest.raises(ConfigError, match="too small for half precision"):
        exact_dense_crf(images, unary, small)
    filtered = dense_crf(images[0].numpy(), unary[0].numpy(), bilateral=(10, 80, 2))
    np.testing.assert_array_equal(dense_crf_batch(images, unary, small)[0], filtered)
    exact_dense_crf(images, unary, CrfParameters((10, 80, 2.5)))


# The rule


@pytest.mark.parametrize("threads", [1, 2])
def test_exact_up_to_a_size_and_filtered_above(monkeypatch, threads):
    images, unary = scene(12, 16, photos=3)
    parameters = CrfParameters((5, 6, 40), iterations=5)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        monkeypatch.setattr(exact_crf, "EXACT_PIXELS_CPU", 12 * 16)
        small = dense_crf_batch(images, unary, parameters)
        monkeypatch.setattr(exact_crf, "EXACT_PIXELS_CPU", 12 * 16 - 1)
        large = dense_crf_batch(images, unary, parameters)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(small, exact_dense_crf(images, unary, parameters))
    assert large.shape == small.shape
    assert large.dtype == torch.float32
    for photo in range(3):
        image, costs = images[photo].numpy(), unary[photo].numpy()
        alone = dense_crf(image, costs, bilateral=(5, 6, 40), iterations=5)
        np.testing.assert_allclose(large[photo], alone, atol=1e-6)
    assert not torch.equal(large, small)


# Bad arguments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((1, 24, 32, 3), np.uint8)}, "images is a ndarray"),
        ({"images": torch.zeros(1, 24, 32, 3)}, "images is a float32 tensor"),
        ({"images": torch.zeros(24, 32, 3, dtype=torch.uint8)}, "images is a uint8 tensor"),
        ({"images": torch.zeros(1, 3, 24, 32, dtype=torch.uint8)}, "images is a uint8"),
        ({"images": torch.zeros(0, 24, 32, 3, dtype=torch.uint8)}, "images is a uint8"),
        ({"images": torch.zeros(1, 0, 32, 3, dtype=torch.uint8)}, "images is a uint8"),
        ({"unary": torch.zeros(1, 4, 24, 32).half()}, "unary is a float16"),
        ({"unary": torch.zeros(4, 24, 32)}, "unary is a float32"),
        ({"unary": torch.zeros(2, 4, 24, 32)}, "same photos"),
        ({"unary": torch.zeros(1, 4, 32, 24)}, "same photos"),
        ({"unary": torch.zeros(1, 4, 24, 32, device="meta")}, "on meta.*same photos"),
        ({"unary": torch.zeros(1, 0, 24, 32)}, "0 labels"),
        ({"unary": torch.zeros(1, 256, 24, 32)}, "256 labels"),
        ({"unary": torch.full((1, 4, 24, 32), torch.nan)}, "NaN or infinity"),
        ({"unary": torch.full((1, 4, 24, 32), torch.inf)}, "NaN or infinity"),
    ],
)
@pytest.mark.parametrize("function", [exact_dense_crf, dense_crf_batch])
def test_tensors_that_do_not_fit(function, change, message):
    images, unary = scene()
    arguments = {"images": images, "unary": unary, "parameters": DEFAULT} | change
    with pytest.raises(ShapeError, match=message) as caught:
        function(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", [exact_dense_crf, dense_crf_batch])
def test_regions_that_do_not_fit(function):
    images, unary = scene()
    good, strengths = torch.zeros(1, 24, 32, dtype=torch.int32), HigherOrder()
    for bad in (good.long(), good[0], good.mT, good.numpy(), good.to("meta")):
        with pytest.raises(ShapeError, match="regions is a"):
            function(images, unary, DEFAULT, regions=[good, bad], higher_order=strengths)
