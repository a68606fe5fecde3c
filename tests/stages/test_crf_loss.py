"""The dense CRF on the segmenter's grid: its numbers, and the losses that hold it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from guided_runs import few_photos, open_run
from tagseg.maps import IGNORE
from tagseg.recipes.guided.config import Config as GuidedConfig
from tagseg.recipes.sec.config import Config as SecConfig
from tagseg.refine.dense_crf import CrfParameters
from tagseg.run.plan import Plan
from tagseg.segment.fit import GridBatch
from tagseg.stages import crf_loss
from tagseg.stages.crf_loss import constrain_to_boundaries, grid_crf, guide_objective
from tagseg.stages.stage import Declared, opened


def batch(photos: int = 2, height: int = 6, width: int = 8, classes: int = 3) -> GridBatch:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes + 1, (photos, height, width)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.4] = IGNORE
    inside = np.ones(labels.shape, bool)
    inside[0, -2:] = inside[0, :, -1:] = False
    labels[~inside] = IGNORE
    images = rng.integers(0, 256, (photos, height, width, 3), np.uint8)
    tags = rng.random((photos, classes)) < 0.5
    return GridBatch(*map(torch.from_numpy, (tags, labels, images, inside)))


def scores(photos: int = 2, height: int = 6, width: int = 8, labels: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(photos, labels, height, width, generator=generator)


# Numbers


@pytest.mark.parametrize(
    ("config", "weight", "pixels", "levels"),
    [(SecConfig(), 10, 80 / 12, 13), (GuidedConfig(), 4, 121 / 12, 5)],
)
def test_the_papers_crf_on_a_grid_of_41(config, weight, pixels, levels):
    """SEC's program: sigmas of photos over 12 on 41 x 41 positions; colours as they are."""
    crf = grid_crf(config)
    at_41 = crf.at(41, 41)
    assert at_41.bilateral == pytest.approx((weight, pixels, levels))
    assert at_41.smoothness == pytest.approx((3, 3 / 12))
    assert (at_41.iterations, at_41.filter) == (10, "lattice")


@pytest.mark.parametrize("grid", [(16, 12), (12, 16), (8, 16), (82, 60)])
def test_sigmas_scale_with_the_grid(grid):
    at_size = grid_crf(SecConfig()).at(*grid)
    factor = max(grid) / 41
    assert at_size.bilateral == pytest.approx((10, 80 / 12 * factor, 13))
    assert at_size.smoothness == pytest.approx((3, 3 / 12 * factor))


def test_the_configured_crf_and_not_the_photos_reference():
    """The sides of the grid are in positions: ``crf_reference_side`` is of photos."""
    config = SecConfig(
        crf_bilateral=(2.0, 24.0, 7.0),
        crf_smoothness=(5.0, 6.0),
        crf_iterations=4,
        crf_reference_side=None,
    )
    expected = CrfParameters((2.0, 2.0, 7.0), (5.0, 0.5), 4, 41, "lattice")
    assert grid_crf(config) == expected


# Losses


def brute_force_crf(image: Any, unary: Any, crf: CrfParameters) -> Any:
    """Mean field over all pairs of positions with symmetric normalisation, in float64 loops."""
    labels, height, width = unary.shape
    crf = crf.at(height, width)
    (w1, s_xy, s_rgb), (w2, s_smooth) = crf.bilateral, crf.smoothness  # type: ignore[misc]
    places = [(y, x) for y in range(height) for x in range(width)]
    n = len(places)
    colour, near = np.zeros((n, n)), np.zeros((n, n))
    for i, (y, x) in enumerate(places):
        for j, (v, u) in enumerate(places):
            d2 = (y - v) ** 2 + (x - u) ** 2
            c2 = ((image[y, x].astype(float) - image[v, u].astype(float)) ** 2).sum()
            colour[i, j] = np.exp(-d2 / (2 * s_xy**2) - c2 / (2 * s_rgb**2))
            near[i, j] = np.exp(-d2 / (2 * s_smooth**2))
    kernel = np.zeros((n, n))
    for weight, k in ((w1, colour), (w2, near)):
        root = np.sqrt(k.sum(1))
        kernel += weight * k / root[:, None] / root
    theta = unary.reshape(labels, n).astype(float)
    q = np.exp(-theta) / np.exp(-theta).sum(0)
    for _ in range(crf.iterations):
        e = -theta + q @ kernel
        q = np.exp(e - e.max(0))
        q /= q.sum(0)
    return q.reshape(labels, height, width)


def slow_boundaries(values: Any, on_grid: GridBatch, crf: CrfParameters) -> float:
    """Eq. 5: mean over the positions inside of sum Q log(Q / p); the CRF sees the scores."""
    total, count = 0.0, 0
    for score, p, image, inside in zip(
        values,
        slow_probabilities(values),
        on_grid.images.numpy(),
        on_grid.inside.numpy(),
        strict=True,
    ):
        q = np.maximum(brute_force_crf(image, -score, crf), 1e-4)
        q /= q.sum(0)
        for y, x in zip(*np.nonzero(inside), strict=True):
            total += sum(q[c, y, x] * np.log(q[c, y, x] / p[c, y, x]) for c in range(len(p)))
            count += 1
    return total / count


def slow_probabilities(values: Any) -> Any:
    """Softmax plus 1e-4, scaled to sum 1."""
    e = np.exp(values - values.max(1, keepdims=True))
    raised = e / e.sum(1, keepdims=True) + 1e-4
    return raised / raised.sum(1, keepdims=True)


def slow_cross_entropy(values: Any, labels: Any) -> float:
    e = np.exp(values)
    log_p = np.log(e / e.sum(1, keepdims=True))
    terms = [
        -log_p[b, labels[b, y, x], y, x] for b, y, x in zip(*np.nonzero(labels != 255), strict=True)
    ]
    return float(np.mean(terms))


CRF = CrfParameters((4.0, 3.0, 60.0), (3.0, 0.8), 3, None, "lattice")


@pytest.mark.parametrize("reference", [None, 16])
def test_the_divergence_from_the_crf_equals_the_loops(reference):
    on_grid, crf = batch(), replace(CRF, reference_side=reference)
    exact = scores().double().numpy()
    probs = torch.from_numpy(slow_probabilities(exact)).float()
    ours = constrain_to_boundaries(scores(), probs, on_grid, crf)
    assert ours.item() == pytest.approx(slow_boundaries(exact, on_grid, crf), rel=1e-3)
    assert ours.item() > 0.05


@pytest.mark.parametrize("constrained", [False, True])
def test_the_objective_is_cross_entropy_and_the_divergence(constrained, monkeypatch):
    monkeypatch.setattr(crf_loss, "grid_crf", lambda config: CRF)
    objective = guide_objective(GuidedConfig(), constrained=constrained)
    on_grid, values = batch(), scores()
    exact = values.double().numpy()
    expected = slow_cross_entropy(exact, on_grid.labels.numpy())
    if constrained:
        expected += slow_boundaries(exact, on_grid, CRF)
    assert objective(values, on_grid).item() == pytest.approx(expected, rel=1e-3)


def test_the_crfs_output_is_a_constant():
    """The gradient at the probabilities is -Q / p over the positions inside, 0 in padding.

    None flows into the scores by way of the CRF.
    """
    on_grid, values = batch(), scores().requires_grad_()
    exact = slow_probabilities(scores().double().numpy())
    probs = torch.from_numpy(exact).float().requires_grad_()
    constrain_to_boundaries(values, probs, on_grid, CRF).backward()
    assert values.grad is None
    count = int(on_grid.inside.sum())
    for b, p in enumerate(exact):
        score = -scores()[b].double().numpy()
        q = np.maximum(brute_force_crf(on_grid.images[b].numpy(), score, CRF), 1e-4)
        q /= q.sum(0)
        expected = np.where(on_grid.inside[b].numpy(), -q / p / count, 0)
        np.testing.assert_allclose(probs.grad[b].numpy(), expected, rtol=2e-2, atol=1e-4)


def test_keys_tell_the_numbers_apart(photos, tmp_path):
    """The segmenter's stage is keyed by the objective: other numbers must give another one."""
    configs = [
        GuidedConfig(),
        GuidedConfig(crf_bilateral=(10.0, 80.0, 13.0)),
        GuidedConfig(crf_smoothness=(3.0, 1.0)),
        GuidedConfig(crf_iterations=3),
    ]

    def keys(constrained: bool) -> set[str]:
        return {key_of(guide_objective(config, constrained=constrained)) for config in configs}

    def key_of(objective: object) -> str:
        return opened(replace(run, workspace=Plan()), Declared("net"), [objective]).key

    with open_run(few_photos(photos), tmp_path / "run") as run:
        constrained, plain = keys(True), keys(False)
    assert (len(constrained), len(plain)) == (4, 1)
    assert not constrained & plain


def test_nothing_labelled_and_nothing_inside():
    """A batch of nothing but padding costs nothing and has gradients of 0, not NaN."""
    on_grid = batch()
    nothing = on_grid._replace(
        labels=torch.full_like(on_grid.labels, IGNORE), inside=torch.zeros_like(on_grid.inside)
    )
    objective = guide_objective(GuidedConfig(crf_iterations=1), constrained=True)
    values = scores().requires_grad_()
    loss = objective(values, nothing)
    loss.backward()
    assert loss.item() == 0
    assert not values.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores(dtype):
    """Under autocast scores come in half precision; the CRF takes single."""
    objective = guide_objective(GuidedConfig(crf_iterations=2), constrained=True)
    on_grid = batch()
    low = objective(scores().to(dtype), on_grid)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(objective(scores(), on_grid).item(), rel=0.02)


def test_extreme_scores_stay_finite():
    objective = guide_objective(GuidedConfig(crf_iterations=2), constrained=True)
    values = (1e4 * scores().sign()).requires_grad_()
    loss = objective(values, batch())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(values.grad).all()
