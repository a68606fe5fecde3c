from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from contracts import LabelLossContract, labelled_scores
from tagseg.losses.lovasz import lovasz_loss


def case(seed: int, shape: tuple[int, int, int] = (2, 4, 3)) -> tuple[Tensor, Tensor, Tensor]:
    return labelled_scores(seed, shape)


def jaccard_loss(wrong: set[int], own: list[bool], weights: list[float]) -> float:
    """1 - IoU of a label where the pixels of ``wrong`` are: those of its own missed, others shown.

    As sizes of sets (Berman et al., section 2): |wrong| / |own or wrong|.
    """
    joined = {i for i, is_own in enumerate(own) if is_own} | wrong
    return sum(weights[i] for i in wrong) / sum(weights[i] for i in joined)


def extension(errors: list[float], own: list[bool], weights: list[float]) -> float:
    """Definition 2, with a set for every i."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    total, before = 0.0, 0.0
    for count, pixel in enumerate(order, start=1):
        now = jaccard_loss(set(order[:count]), own, weights)
        total += errors[pixel] * (now - before)
        before = now
    return total


def errors_of(
    scores: Tensor, labels: Tensor, weights: Tensor
) -> dict[int, tuple[list[float], list[bool], list[float]]]:
    """For each label that is there: errors m, whether it is the pixel's, weights."""
    found: dict[int, tuple[list[float], list[bool], list[float]]] = {}
    labelled = (labels != 255).nonzero().tolist()
    for label in sorted({int(labels[b, y, x]) for b, y, x in labelled}):
        errors, own = [], []
        for b, y, x in labelled:
            powers = [math.exp(v) for v in scores[b, :, y, x].tolist()]
            probability = powers[label] / sum(powers)
            own.append(int(labels[b, y, x]) == label)
            errors.append(1 - probability if own[-1] else probability)
        found[label] = errors, own, [float(weights[b, y, x]) for b, y, x in labelled]
    return found


def loop_loss(scores: Tensor, labels: Tensor, weights: Tensor) -> float:
    terms = [extension(*given) for given in errors_of(scores, labels, weights).values()]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_the_loop(seed: int) -> None:
    scores, labels, weights = case(seed)
    plain = loop_loss(scores, labels, torch.ones_like(weights))
    assert lovasz_loss(scores, labels).item() == pytest.approx(plain, rel=1e-9)
    weighted = loop_loss(scores, labels, weights)
    assert lovasz_loss(scores, labels, weights=weights).item() == pytest.approx(weighted, rel=1e-9)
    assert weighted != pytest.approx(plain, rel=1e-3)


def test_it_is_the_convex_closure() -> None:
    """The mean of 1 - IoU over thresholds of the errors, as an integral over them."""
    scores, labels, weights = case(3, (1, 3, 2))
    total = []
    for errors, own, sizes in errors_of(scores, labels, weights).values():
        steps = sorted({0.0, *errors})
        integral = sum(
            (high - low)
            * jaccard_loss({i for i, error in enumerate(errors) if error >= high}, own, sizes)
            for low, high in itertools.pairwise(steps)
        )
        total.append(integral)
    loss = lovasz_loss(scores, labels, weights=weights).item()
    assert loss == pytest.approx(sum(total) / len(total), rel=1e-9)


@pytest.mark.parametrize("seed", [4, 5])
def test_of_sure_scores_it_is_1_minus_the_iou(seed: int) -> None:
    _, labels, _ = case(seed)
    shown = torch.randint(5, labels.shape, generator=torch.Generator().manual_seed(seed))
    scores = torch.nn.functional.one_hot(shown, 5).movedim(3, 1).double() * 200
    labelled, losses = labels != 255, []
    for label in labels[labelled].unique().tolist():
        own, found = (labels == label) & labelled, (shown == label) & labelled
        losses.append(1 - ((own & found).sum() / (own | found).sum()).item())
    assert lovasz_loss(scores, labels).item() == pytest.approx(sum(losses) / len(losses))


def test_a_pixel_of_weight_2_is_two_pixels() -> None:
    scores, labels, _ = case(6)
    weights = torch.ones(labels.shape)
    weights[0] = 2
    twice = lovasz_loss(torch.cat([scores[:1], scores]), torch.cat([labels[:1], labels]))
    assert lovasz_loss(scores, labels, weights=weights).item() == pytest.approx(twice.item())


class TestLovasz(LabelLossContract):
    @pytest.fixture
    def loss(self) -> Callable[..., Tensor]:
        return lovasz_loss
