"""Losses of a tag classifier against slow versions of the papers' formulas, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tagseg.errors import ConfigError, ShapeError
from tagseg.losses.image_tags import (
    hill_loss,
    rejected_share,
    rejection_loss,
    tag_cross_entropy,
)

GENERATOR = torch.Generator().manual_seed(3)
SCORES = 3 * torch.randn(6, 5, generator=GENERATOR, dtype=torch.float64)
TAGS = torch.rand(6, 5, generator=GENERATOR) < 0.3
KNOWN = torch.rand(6, 5, generator=GENERATOR) < 0.7
ABSENT = ~TAGS & (torch.rand(6, 5, generator=GENERATOR) < 0.3)


def sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score))


def entropy(score: float, tagged: bool) -> float:
    return -math.log(sigmoid(score) if tagged else 1 - sigmoid(score))


def hill(score: float, tagged: bool) -> float:
    """Zhang et al. 2021: lambda 1.5, margin 1, gamma 2."""
    p, q = sigmoid(score), sigmoid(score - 1)
    return -((1 - q) ** 2) * math.log(q) if tagged else (1.5 - p) * p**2


def mean_of_photos(values: np.ndarray) -> float:
    return float(values.sum(1).mean())


def pairwise(loss, kept: Tensor, surely_absent: Tensor | None = None) -> float:
    values = np.zeros(SCORES.shape)
    for place in np.ndindex(*SCORES.shape):
        if not kept[place]:
            continue
        of = entropy if surely_absent is not None and surely_absent[place] else loss
        values[place] = of(float(SCORES[place]), bool(TAGS[place]))
    return mean_of_photos(values)


ALL = torch.ones_like(TAGS)


@pytest.mark.parametrize("known", [None, KNOWN])
def test_cross_entropy_is_that_of_what_is_known(known: Tensor | None) -> None:
    expected = pairwise(entropy, ALL if known is None else known)
    assert float(tag_cross_entropy(SCORES, TAGS, known=known)) == pytest.approx(expected)


def test_what_nobody_knows_has_no_gradient() -> None:
    scores = SCORES.clone().requires_grad_()
    for loss in (
        tag_cross_entropy(scores, TAGS, known=KNOWN),
        hill_loss(scores, TAGS, known=KNOWN),
        rejection_loss(scores, TAGS, 0.2, known=KNOWN),
    ):
        (gradient,) = torch.autograd.grad(loss, scores)
        assert not gradient[~KNOWN].any()
        assert gradient[KNOWN & TAGS].all()


@pytest.mark.parametrize("known", [None, KNOWN])
@pytest.mark.parametrize("absent", [None, ABSENT])
def test_hill_is_the_papers(known: Tensor | None, absent: Tensor | None) -> None:
    expected = pairwise(hill, ALL if known is None else known, absent)
    assert float(hill_loss(SCORES, TAGS, known=known, absent=absent)) == pytest.approx(expected)


def test_hills_gradient_has_its_top_at_a_half() -> None:
    scores = torch.linspace(-6, 6, 241, dtype=torch.float64, requires_grad=True)
    loss = hill_loss(scores[None], torch.zeros(1, 241, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss, scores)
    p = scores.detach().sigmoid()
    torch.testing.assert_close(gradient, 3 * p**2 * (1 - p) ** 2)
    assert float(scores.detach()[gradient.argmax()]) == pytest.approx(0)


def test_extreme_scores_stay_finite() -> None:
    scores = torch.tensor([[90.0, -90.0, 90.0, -90.0]], requires_grad=True)
    tags = torch.tensor([[True, True, False, False]])
    for loss in (hill_loss(scores, tags), rejection_loss(scores, tags, 0.5)):
        (gradient,) = torch.autograd.grad(loss, scores)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def rejected(share: float, candidates: Tensor) -> float:
    """Kim et al. 2022, LL-R, by sorting."""
    places = [place for place in np.ndindex(*SCORES.shape) if candidates[place]]
    places.sort(key=lambda place: -float(SCORES[place]))
    kept = KNOWN.clone()
    for place in places[: math.ceil(share * len(places) - 1e-9)]:
        kept[place] = False
    return pairwise(entropy, kept)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("absent", [None, ABSENT])
def test_rejection_drops_the_largest_losses_of_what_is_not_tagged(
    share: float, absent: Tensor | None
) -> None:
    candidates = ~TAGS & KNOWN & (ALL if absent is None else ~absent)
    value = rejection_loss(SCORES, TAGS, share, known=KNOWN, absent=absent)
    assert float(value) == pytest.approx(rejected(share, candidates))


def test_no_tag_is_rejected() -> None:
    scores, tags = torch.tensor([[-9.0, 1.0]]), torch.tensor([[True, False]])
    assert float(rejection_loss(scores, tags, 1.0)) == pytest.approx(entropy(-9, True), rel=1e-5)


def test_the_share_rises_with_the_epoch_alone() -> None:
    assert [rejected_share(epoch, 10) for epoch in range(-1, 4)] == [0, 0, 0.1, 0.2, 0.3]
    assert rejected_share(10_000, 1.0) == 1


@given(st.integers(1, 8), st.integers(1, 8), st.floats(0, 1), st.integers(0, 2**31))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_rejection_never_costs_more(photos: int, classes: int, share: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = 4 * torch.randn(photos, classes, generator=generator)
    tags = torch.rand(photos, classes, generator=generator) < 0.4
    value, whole = rejection_loss(scores, tags, share), tag_cross_entropy(scores, tags)
    assert 0 <= float(value) <= float(whole) + 1e-5


def test_half_precision_is_computed_in_single() -> None:
    scores = SCORES.to(torch.bfloat16)
    for loss in (tag_cross_entropy, hill_loss):
        assert loss(scores, TAGS).dtype == torch.float32


@pytest.mark.parametrize(
    ("scores", "tags", "known"),
    [
        (SCORES, TAGS[:3], None),
        (SCORES, TAGS.float(), None),
        (SCORES[0], TAGS[0], None),
        (SCORES.long(), TAGS, None),
        (SCORES, TAGS, KNOWN[:, :2]),
    ],
)
def test_what_does_not_fit_is_refused(scores: Tensor, tags: Tensor, known: Tensor | None) -> None:
    with pytest.raises(ShapeError):
        tag_cross_entropy(scores, tags, known=known)


def test_a_share_over_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"share is 1\.5"):
        rejection_loss(SCORES, TAGS, 1.5)
