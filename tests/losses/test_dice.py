from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tagseg.errors import ShapeError
from tagseg.losses.dice import dice_loss


def case(seed: int, shape: tuple[int, int, int] = (2, 5, 3)) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of 5 labels, of which label 3 is nowhere; labels with ignored pixels; weights."""
    generator = torch.Generator().manual_seed(seed)
    batch, height, width = shape
    scores = torch.randn(batch, 5, height, width, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 4, 255])[torch.randint(5, shape, generator=generator)]
    weights = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1
    return 2 * scores, labels.to(torch.uint8), weights


def pixels(scores: Tensor, labels: Tensor, weights: Tensor) -> list[tuple[list[float], int, float]]:
    """Probabilities, label and weight of each labelled pixel."""
    found = []
    for b, y, x in (labels != 255).nonzero().tolist():
        powers = [math.exp(v) for v in scores[b, :, y, x].tolist()]
        probabilities = [power / sum(powers) for power in powers]
        found.append((probabilities, int(labels[b, y, x]), float(weights[b, y, x])))
    return found


def loop_loss(scores: Tensor, labels: Tensor, weights: Tensor) -> float:
    """1 - D of section 3 for each label that is there, pixel by pixel."""
    terms = []
    labelled = pixels(scores, labels, weights)
    for label in sorted({own for _, own, _ in labelled}):
        overlap = squares = 0.0
        for probabilities, own, weight in labelled:
            p, g = probabilities[label], float(own == label)
            overlap += weight * p * g
            squares += weight * (p * p + g * g)
        terms.append(1 - 2 * overlap / squares)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_the_loop(seed: int) -> None:
    scores, labels, weights = case(seed)
    plain = loop_loss(scores, labels, torch.ones_like(weights))
    assert dice_loss(scores, labels).item() == pytest.approx(plain, rel=1e-9)
    weighted = loop_loss(scores, labels, weights)
    assert dice_loss(scores, labels, weights=weights).item() == pytest.approx(weighted, rel=1e-9)
    assert weighted != pytest.approx(plain, rel=1e-3)


def test_sums_run_over_the_batch() -> None:
    scores, labels, _ = case(3)
    each = [dice_loss(scores[i : i + 1], labels[i : i + 1]).item() for i in range(2)]
    wide = dice_loss(torch.cat(list(scores), 1)[None], torch.cat(list(labels))[None])
    assert dice_loss(scores, labels).item() == pytest.approx(wide.item())
    assert wide.item() != pytest.approx(sum(each) / 2, rel=1e-3)


def test_right_and_wrong_answers_are_0_and_1() -> None:
    _, labels, _ = case(4)
    labelled = torch.where(labels == 255, 0, labels).long()
    right = torch.nn.functional.one_hot(labelled, 5).movedim(3, 1).double() * 100
    assert dice_loss(right, labels).item() == pytest.approx(0, abs=1e-9)
    assert dice_loss(right.roll(1, 1), labels).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("given", ["labels", "weights"])
def test_ignored_pixels_take_no_part(given: str) -> None:
    scores, labels, weights = case(5)
    ignored = labels == 255
    assert ignored.any()
    if given == "weights":
        labels, weights = labels.masked_fill(ignored, 3), weights.masked_fill(ignored, 0.0)
    scores.requires_grad_()
    loss = dice_loss(scores, labels, weights=weights)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert not gradient.movedim(1, 3)[ignored].any()
    assert gradient.movedim(1, 3)[~ignored].abs().sum(1).min() > 0
    changed = torch.where(ignored[:, None], 7 * scores.detach() + 1, scores.detach())
    assert dice_loss(changed, labels, weights=weights).item() == pytest.approx(loss.item())


def test_the_gradient_is_that_of_differences() -> None:
    scores, labels, weights = case(6, (2, 3, 3))
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: dice_loss(s, labels, weights=weights), scores)


def test_nothing_labelled_is_0_without_gradient() -> None:
    scores = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = dice_loss(scores, torch.full((1, 2, 2), 255, dtype=torch.uint8))
    (gradient,) = torch.autograd.grad(loss, scores)
    assert loss.item() == 0
    assert not gradient.any()


def test_half_scores_are_computed_in_float32() -> None:
    scores, labels, _ = case(7)
    loss = dice_loss(scores.bfloat16(), labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(dice_loss(scores, labels).item(), rel=2e-2)


def test_wrong_shapes_are_named() -> None:
    scores, labels, weights = case(8)
    with pytest.raises(ShapeError, match="labels has shape"):
        dice_loss(scores, labels[:, 1:])
    with pytest.raises(ShapeError, match=r"weights has shape \(2, 5, 2\), labels \(2, 5, 3\)"):
        dice_loss(scores, labels, weights=weights[..., 1:])
