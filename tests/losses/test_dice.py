from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from contracts import LabelLossContract, labelled_scores
from tagseg.losses.dice import dice_loss


def case(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    return labelled_scores(seed, (2, 5, 3))


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


class TestDice(LabelLossContract):
    @pytest.fixture
    def loss(self) -> Callable[..., Tensor]:
        return dice_loss
