from __future__ import annotations

import numpy as np
import pytest

from tagseg.data.textures import (
    PATTERNS,
    Material,
    background,
    random_material,
    smooth_noise,
)

RED, BLUE = np.array([200, 10, 10], np.float32), np.array([10, 10, 200], np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_surface_mixes_its_two_colours(pattern: str) -> None:
    surface = Material(RED, BLUE, pattern, 12.0, 0.7).paint(rng(), 120, 150)
    assert surface.shape == (120, 150, 3)
    assert surface.dtype == np.float32
    share_of_blue = ((surface[..., 2] - surface[..., 0]) / 190 + 1) / 2
    if pattern == "plain":
        np.testing.assert_allclose(share_of_blue, 0, atol=1e-5)
    else:
        assert share_of_blue.min() < 0.2
        assert share_of_blue.max() > 0.8
    assert surface[..., 1].std() == pytest.approx(9, rel=0.2)  # grain, on all alike


@pytest.mark.parametrize("period", [8.0, 16.0])
@pytest.mark.parametrize(("angle", "axis"), [(0.0, 1), (np.pi / 2, 0)])
def test_stripes_repeat_after_their_period_across_their_angle(
    period: float, angle: float, axis: int
) -> None:
    blue = Material(RED, BLUE, "stripes", period, angle).paint(rng(), 96, 96)[..., 2]
    shifted = np.roll(blue, int(period), axis)
    halfway = np.roll(blue, int(period / 2), axis)
    assert np.corrcoef(blue.ravel(), shifted.ravel())[0, 1] > 0.9
    assert np.corrcoef(blue.ravel(), halfway.ravel())[0, 1] < -0.5
    assert np.abs(np.diff(blue, axis=1 - axis)).mean() < 12  # nothing but grain along them


@pytest.mark.parametrize("period", [2.0, 8.0, 40.0])
def test_noise_has_unit_variance_and_features_of_its_period(period: float) -> None:
    noise = np.stack([smooth_noise(rng(i), 200, 240, period) for i in range(6)])
    assert noise.shape == (6, 200, 240)
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(1, rel=0.25)
    assert abs(noise.mean()) < 0.4

    def alike(shift: int) -> float:
        return float(np.corrcoef(noise[..., shift:].ravel(), noise[..., :-shift].ravel())[0, 1])

    assert alike(max(1, round(period / 8))) > 0.5
    assert alike(round(3 * period)) < 0.2


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (700, 3), (600, 900)])
def test_noise_has_any_size(size: tuple[int, int]) -> None:
    """Also more than its bank of 512 x 512 values."""
    for period in (2.0, 30.0):
        assert np.isfinite(smooth_noise(rng(), *size, period)).all()
        assert smooth_noise(rng(), *size, period).shape == size


def test_random_materials_vary_within_what_was_asked_for() -> None:
    generator = rng()
    made = [random_material(generator, patterns=("fur", "dots")) for _ in range(60)]
    assert {material.pattern for material in made} == {"fur", "dots"}
    colours = np.stack([material.first for material in made])
    assert colours.min() >= 0
    assert colours.max() <= 255
    assert (colours.std(0) > 30).all()


@pytest.mark.parametrize("surroundings", ["land", "water", "sky", "wall"])
def test_backgrounds_are_pictures_and_repeat(surroundings: str) -> None:
    assert all(background(rng(i), 60, 80, surroundings).dtype == np.float32 for i in range(9))
    first, again = (background(rng(3), 60, 80, surroundings) for _ in range(2))
    assert first.shape == (60, 80, 3)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, background(rng(4), 60, 80, surroundings))


def blueness(part: np.ndarray) -> float:
    return float((part[..., 2] - part[..., 0]).mean())


def test_water_is_below_and_sky_above() -> None:
    below = [blueness(background(rng(i), 60, 80, "water")[-12:]) for i in range(20)]
    above = [blueness(background(rng(i), 60, 80, "sky")[:30]) for i in range(20)]
    assert min(below) > 10
    assert np.median(above) > 10
