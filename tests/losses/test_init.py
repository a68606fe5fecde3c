"""The package as a library: names, docstrings with examples, and losses of float64 scores."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import tagseg.losses as losses

GENERATOR = torch.Generator().manual_seed(5)
SCORES = torch.randn(2, 3, 3, 4, generator=GENERATOR)
REFINED = torch.randn(2, 3, 3, 4, generator=GENERATOR).softmax(1)
LABELS = torch.randint(3, (2, 3, 4), generator=GENERATOR).to(torch.uint8)
LABELS[:, 0, 0] = 255
VALID = LABELS != 255
TAGS = torch.tensor([[True, False], [True, True]])

KNOWN = torch.tensor([[True, True], [False, True]])
MORE_TAGS = torch.tensor([[True, False], [False, False]])


def of_photos(scores: Tensor) -> Tensor:
    """A classifier's scores (B, C)."""
    return scores.mean((2, 3))[:, 1:]


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "class_mask_loss": lambda scores: losses.class_mask_loss(scores, TAGS, LABELS),
    "constrain_loss": lambda scores: losses.constrain_loss(
        losses.sec_probabilities(scores), REFINED, valid=VALID
    ),
    "dice_loss": lambda scores: losses.dice_loss(scores, LABELS),
    "expand_loss": lambda scores: losses.expand_loss(
        losses.sec_probabilities(scores), TAGS, valid=VALID
    ),
    "foreground_loss": lambda scores: losses.foreground_loss(
        scores, TAGS, LABELS == 1, valid=VALID
    ),
    "hill_loss": lambda scores: losses.hill_loss(of_photos(scores), TAGS, absent=~TAGS & KNOWN),
    "lovasz_loss": lambda scores: losses.lovasz_loss(scores, LABELS),
    "pixel_loss": lambda scores: losses.pixel_loss(scores, LABELS, balanced=True),
    "rejection_loss": lambda scores: losses.rejection_loss(of_photos(scores), MORE_TAGS, 0.5),
    "sec_probabilities": lambda scores: losses.sec_probabilities(scores).square().mean(),
    "seed_loss": lambda scores: losses.seed_loss(losses.sec_probabilities(scores), LABELS),
    "tag_cross_entropy": lambda scores: losses.tag_cross_entropy(
        of_photos(scores), TAGS, known=KNOWN
    ),
    "tag_loss": lambda scores: losses.tag_loss(scores, TAGS, valid=VALID),
}


def value_and_gradient(name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    scores = SCORES.to(dtype).requires_grad_()
    value = LOSSES[name](scores)
    (gradient,) = torch.autograd.grad(value, scores)
    return value.detach(), gradient


def test_the_names_are_sorted_and_each_is_looked_at() -> None:
    assert sorted(losses.__all__) == losses.__all__
    assert LOSSES.keys() | {"decay_at", "rejected_share"} == set(losses.__all__)


@pytest.mark.parametrize("name", losses.__all__)
def test_every_name_is_there_with_an_example(name: str) -> None:
    value = getattr(losses, name)
    assert value.__name__ == name
    assert value.__module__.startswith("tagseg.losses.")
    assert f">>> from tagseg.losses import {name}" in value.__doc__


@pytest.mark.parametrize("name", LOSSES)
def test_float64_gives_what_float32_gives_in_its_own_precision(name: str) -> None:
    value, gradient = value_and_gradient(name, torch.float64)
    assert value.dtype == gradient.dtype == torch.float64
    for found, exact in zip(
        value_and_gradient(name, torch.float32), (value, gradient), strict=True
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_differences(name: str) -> None:
    assert torch.autograd.gradcheck(LOSSES[name], SCORES.double().requires_grad_())
