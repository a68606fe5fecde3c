"""How labels come to follow a photo's edges: each kind, by what it is made of."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from guided_runs import few_photos, open_run
from small_runs import QUICK_CRISP, finished_stages
from tagseg.fuse.union import region_votes
from tagseg.maps import Probs
from tagseg.priors import crisp
from tagseg.priors.superpixels import superpixels
from tagseg.recipes.union.config import EDGES
from tagseg.recipes.union.edges import cut_out, edges_of
from tagseg.refine.dense_crf import CrfParameters, refine
from tagseg.refine.grabcut import GrabCutSettings, enhanced_mask
from tagseg.stages import crf
from tagseg.stages.context import Run
from union_runs import config_of

INDEX = 1


@pytest.fixture
def run(photos, tmp_path, monkeypatch) -> Iterator[Run]:
    monkeypatch.setattr(crf, "CRISP", QUICK_CRISP)
    with open_run(few_photos(photos), tmp_path / "run", recipe="union") as run:
        yield run


def some_probs(shape: tuple[int, ...], labels: int = 3) -> Probs:
    """Smooth ones, the second label strong in the middle."""
    rng = np.random.default_rng(0)
    values = rng.random((labels, *shape)).astype(np.float32) ** 2
    values = np.stack([cv2.GaussianBlur(one, (0, 0), 4) for one in values])
    height, width = shape
    values[1, height // 4 : -(height // 4), width // 4 : -(width // 4)] += 0.4
    return values / values.sum(0)


def followed(run: Run, kind: str) -> tuple[Probs, Probs]:
    """Probabilities of a photo, and the same along ``kind``."""
    probs = some_probs(run.photos.image(INDEX).shape[:2])
    edges = edges_of(run, config_of(fusion_edges=kind))
    assert list(edges) == [kind]
    return probs, edges[kind].follow(INDEX, run.photos.image(INDEX), probs.copy())


@pytest.mark.parametrize("kind", EDGES)
def test_probabilities_stay_probabilities(run, kind):
    probs, found = followed(run, kind)
    assert found.shape == probs.shape
    assert found.dtype == np.float32
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    assert not np.allclose(found, probs, atol=0.01)


def test_the_crf(run):
    probs, found = followed(run, "crf")
    config = config_of()
    parameters = CrfParameters(
        bilateral=config.crf_bilateral,
        smoothness=config.crf_smoothness,
        iterations=config.crf_iterations,
        reference_side=config.crf_reference_side,
        filter=config.crf_filter,
    )
    expected = refine(run.photos.image(INDEX), -np.log(probs.clip(1e-3, 1)), parameters)
    np.testing.assert_array_equal(found, expected)


def test_votes_of_superpixels(run):
    probs, found = followed(run, "superpixels")
    regions = superpixels(run.photos.image(INDEX), reference_side=500)
    np.testing.assert_array_equal(found, region_votes(probs, regions))


def test_votes_of_crisp_regions(run):
    probs, found = followed(run, "crisp")
    regions = crisp.regions(run.photos.image(INDEX), 0.1, settings=QUICK_CRISP, seed=0)
    np.testing.assert_array_equal(found, region_votes(probs, regions))


def test_what_is_cut_out(run):
    """Of no background; classes have the shares that they had."""
    probs, found = followed(run, "grabcut")
    inside = enhanced_mask(run.photos.image(INDEX), 1 - probs[0], GrabCutSettings())
    assert 0 < inside.mean() < 1
    np.testing.assert_array_equal(found[0], ~inside)
    assert not found[1:, ~inside].any()
    shares = probs[1:] / probs[1:].sum(0)
    np.testing.assert_allclose(found[1:, inside], shares[:, inside], rtol=1e-5)


def test_a_square_becomes_the_disc():
    """As its colours say; classes that have nothing there share it equally."""
    y, x = np.mgrid[:80, :80] - 40
    disc = x**2 + y**2 < 24**2
    image = np.where(disc[..., None], 50, 210).astype(np.uint8).repeat(3, axis=2)
    square = (abs(x) < 20) & (abs(y) < 20)
    probs = np.stack((~square, square, np.zeros_like(square))).astype(np.float32)
    found = cut_out(image, probs, GrabCutSettings())
    np.testing.assert_array_equal(found[0], ~disc)
    np.testing.assert_array_equal(found.argmax(0), disc)
    np.testing.assert_allclose(found[1:, disc & ~square], 0.5)


def test_only_regions_that_are_asked_for_are_found(run):
    edges = edges_of(run, config_of(fusion_edges="crf+grabcut"))
    assert not any(kind.inputs for kind in edges.values())
    assert finished_stages(run.workspace.folder) == {}
    edges = edges_of(run, config_of(fusion_edges="superpixels+crf"))
    assert list(edges) == ["superpixels", "crf"]
    assert [len(kind.inputs) for kind in edges.values()] == [1, 0]
    assert set(finished_stages(run.workspace.folder)) == {"superpixels"}
