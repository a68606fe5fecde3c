from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from skimage.measure import label

from tagseg.errors import ConfigError, ShapeError
from tagseg.priors import crisp
from tagseg.priors.crisp import CrispSettings, crisp_boundaries, crisp_contour_map, crisp_regions

RNG = np.random.default_rng


def two_colours(noise=3.0, edge=70, seed=0):
    photo = np.full((96, 128, 3), (200.0, 30.0, 30.0))
    photo[:, edge:] = (30, 60, 200)
    return np.clip(photo + RNG(seed).normal(0, noise, photo.shape), 0, 255).astype(np.uint8)


def disc(noise=8.0):
    y, x = np.mgrid[:100, :120]
    inside = (y - 48) ** 2 + (x - 60) ** 2 < 30**2
    photo = np.where(inside[..., None], (200.0, 180.0, 40.0), (60.0, 120.0, 60.0))
    photo += RNG(0).normal(0, noise, photo.shape)
    return np.clip(photo, 0, 255).astype(np.uint8), inside


def check_regions(found, shape):
    assert found.dtype == np.int32
    assert found.shape == shape
    assert np.unique(found).tolist() == list(range(found.max() + 1))
    assert label(found + 1, connectivity=1).max() == found.max() + 1


def test_two_colours_are_two_regions():
    whole = crisp_contour_map(two_colours())
    assert whole.boundaries.dtype == np.float32
    assert whole.boundaries.min() >= 0
    assert whole.boundaries.max() <= 1
    profile = whole.boundaries.mean(0)
    assert abs(int(profile.argmax()) - 69.5) <= 1.5
    assert profile[:60].max() < 0.3 * profile.max()
    found = whole.regions(0.6)
    assert found.max() == 1
    assert (found[:, :68] == 0).all()
    assert (found[:, 72:] == 1).all()


def test_a_disc_is_found():
    photo, inside = disc()
    found = crisp_regions(photo, 0.3)
    check_regions(found, inside.shape)
    # Each region takes the side that most of it is on.
    share = np.bincount(found.ravel(), inside.ravel()) / np.bincount(found.ravel())
    assert ((share[found] > 0.5) == inside).mean() > 0.98
    assert found.max() < 20


def test_a_texture_of_the_same_mean_is_found():
    noise = RNG(0).normal(size=(100, 140, 3)) * np.where(np.arange(140) < 70, 6, 50)[:, None]
    photo = np.clip(128 + noise, 0, 255).astype(np.uint8)
    assert abs(int(crisp_boundaries(photo)[10:-10].mean(0).argmax()) - 70) <= 5


def test_the_same_seed_gives_the_same_and_threads_change_nothing():
    photo, _ = disc()
    one, two, other = (
        crisp_contour_map(photo),
        crisp_contour_map(photo, threads=3),
        crisp_contour_map(photo, seed=1),
    )
    np.testing.assert_array_equal(one.boundaries, two.boundaries)
    np.testing.assert_array_equal(one.regions(0.1), two.regions(0.1))
    assert (one.boundaries != other.boundaries).any()
    assert np.corrcoef(one.boundaries.ravel(), other.boundaries.ravel())[0, 1] > 0.8


def test_the_mirrored_photo_has_nearly_mirrored_boundaries():
    photo, _ = disc()
    there = crisp_boundaries(photo)
    back = crisp_boundaries(np.ascontiguousarray(photo[:, ::-1]))[:, ::-1]
    assert np.corrcoef(there.ravel(), back.ravel())[0, 1] > 0.8


def test_convenience_functions_are_the_contour_map():
    photo, _ = disc()
    whole = crisp_contour_map(photo)
    np.testing.assert_array_equal(crisp_boundaries(photo), whole.boundaries)
    np.testing.assert_array_equal(crisp_regions(photo), whole.regions(0.1))
    assert crisp_regions(photo, 0.4).max() < crisp_regions(photo, 0.1).max()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 1), (20, 30), (64, 64)])
@pytest.mark.parametrize("level", [0, 127, 255])
def test_constant_photos_are_one_region(shape, level):
    whole = crisp_contour_map(np.full((*shape, 3), level, np.uint8))
    assert whole.boundaries.shape == shape
    assert not whole.boundaries.any()
    np.testing.assert_array_equal(whole.regions(0.0), np.zeros(shape, np.int32))


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 60), (50, 1), (3, 3), (5, 200), (31, 33)])
def test_tiny_and_narrow_photos(shape):
    photo = RNG(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    whole = crisp_contour_map(photo)
    assert np.isfinite(whole.boundaries).all()
    for threshold in (0.0, 0.1, 0.5):
        check_regions(whole.regions(threshold), shape)


def test_a_narrow_photo_with_an_edge():
    steps = np.where(np.arange(200) < 90, 40, 200)[None, :, None]
    photo = (steps + RNG(0).integers(0, 9, (6, 200, 3))).astype(np.uint8)
    assert abs(int(crisp_boundaries(photo).mean(0).argmax()) - 90) <= 4


@pytest.mark.parametrize("channels", [(1, 1, 1), (1, 0, 0), (0, 1, 1)])
def test_photos_of_one_colour_axis(channels):
    photo, inside = disc(noise=4.0)
    flat = photo[..., 1:2] * np.array(channels, np.uint8)
    found = crisp_regions(flat.astype(np.uint8), 0.3)
    share = np.bincount(found.ravel(), inside.ravel()) / np.bincount(found.ravel())
    assert ((share[found] > 0.5) == inside).mean() > 0.97


def test_extreme_values():
    photo = RNG(0).choice(np.array([0, 255], np.uint8), (60, 70, 3))
    photo[:, 35:] = 0
    whole = crisp_contour_map(photo)
    assert np.isfinite(whole.boundaries).all()
    assert abs(int(whole.boundaries.mean(0).argmax()) - 35) <= 8


def test_large_photos_are_worked_on_smaller():
    small = two_colours(edge=70)
    large = np.kron(small, np.ones((8, 8, 1), np.uint8))
    whole = crisp_contour_map(large, settings=CrispSettings(max_side=128))
    assert whole.boundaries.shape == (768, 1024)
    assert abs(int(whole.boundaries.mean(0).argmax()) - 560) <= 16
    check_regions(whole.regions(0.3), (768, 1024))
    # What is seen does not depend on the size that is given.
    np.testing.assert_allclose(
        whole.boundaries[4::8, 4::8], crisp_contour_map(small).boundaries, atol=0.25
    )


def test_the_preset():
    speedy = dataclasses.asdict(CrispSettings())
    told = {"n_kernels": 5000, "bandwidth": 0.05, "rho": 1.25, "regulariser": 100, "sigma": 0.25}
    told |= {"n_forest_pairs": 10_000, "n_trees": 4, "radius": 5, "n_vectors": 100}
    told |= {"n_coarsenings": 2, "n_orientations": 8, "reduction": 2, "border": 0.03}
    assert speedy | told == speedy


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(CrispSettings)])
@pytest.mark.parametrize("value", [-1, float("nan"), "2", None, True])
def test_settings_out_of_range(field, value):
    with pytest.raises(ConfigError, match=field):
        CrispSettings(**{field: value})


@pytest.mark.parametrize(
    "wrong", [{"n_vectors": 0}, {"radius": 2.5}, {"border": 0.5}, {"n_coarsenings": 4}]
)
def test_other_settings_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CrispSettings(**wrong)


def test_other_settings_work():
    photo, _ = disc()
    for settings in (
        CrispSettings(n_coarsenings=1, n_vectors=7, n_orientations=3, radius=3),
        CrispSettings(n_coarsenings=3, reduction=1, n_trees=3, border=0),
    ):
        check_regions(crisp_regions(photo, 0.2, settings=settings), photo.shape[:2])


def test_wrong_arguments(monkeypatch):
    photo = np.zeros((8, 8, 3), np.uint8)
    for image in (photo[..., 0], photo.astype(float), photo[:0], None):
        with pytest.raises(ShapeError, match="image"):
            crisp_contour_map(image)
    for seed in (-1, 1.5, 2**32, None):
        with pytest.raises(ConfigError, match="seed"):
            crisp_contour_map(photo, seed=seed)
    with pytest.raises(ConfigError, match="threads"):
        crisp_boundaries(photo, threads=0)
    monkeypatch.setattr(
        crisp, "crisp_contour_map", None
    )  # the threshold is looked at before the work
    with pytest.raises(ConfigError, match="threshold"):
        crisp_regions(photo, 2)


def test_no_warnings_where_nothing_varies_in_part():
    photo = np.zeros((40, 50, 3), np.uint8)
    photo[10:20, 10:20, 0] = 255
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert crisp_contour_map(photo).boundaries.max() > 0
