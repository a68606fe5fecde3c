from __future__ import annotations

import math

import pytest
import torch

from contracts import LabelLossContract
from tagseg.errors import ConfigError, ShapeError
from tagseg.losses.pixel import cross_entropy, pixel_loss

torch.set_num_threads(1)


def loop_loss(scores, labels, balanced):
    parts = {"foreground": [], "background": []}
    for b in range(labels.shape[0]):
        for i in range(labels.shape[1]):
            for j in range(labels.shape[2]):
                label = int(labels[b, i, j])
                if label != 255:
                    s = [float(v) for v in scores[b, :, i, j]]
                    cost = math.log(sum(math.exp(v) for v in s)) - s[label]
                    parts["foreground" if label else "background"].append(cost)
    if balanced:
        means = [sum(p) / len(p) for p in parts.values() if p]
        return sum(means) / len(means)
    both = parts["foreground"] + parts["background"]
    return sum(both) / len(both)


def case(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, 4, 5, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 5, 3), generator=generator).to(torch.uint8)
    labels[torch.rand(2, 5, 3, generator=generator) < 0.3] = 255
    return scores, labels


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_loop(seed, balanced):
    scores, labels = case(seed)
    expected = loop_loss(scores, labels, balanced)
    assert pixel_loss(scores, labels, balanced=balanced).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("only", [0, 2])
def test_balanced_with_one_side_is_its_mean(only):
    scores, labels = case(2)
    labels[labels != 255] = only
    balanced = pixel_loss(scores, labels, balanced=True)
    assert balanced.item() == pytest.approx(pixel_loss(scores, labels).item(), rel=1e-12)


def test_balanced_does_not_depend_on_the_share_of_background():
    scores = torch.zeros(1, 2, 10, 10, dtype=torch.float64)
    scores[:, 0] = 2.0  # background is right, foreground is wrong
    labels = torch.zeros(1, 10, 10, dtype=torch.uint8)
    labels[0, 0, 0] = 1
    few = pixel_loss(scores, labels, balanced=True)
    labels[0, :5] = 1
    many = pixel_loss(scores, labels, balanced=True)
    assert few.item() == pytest.approx(many.item(), rel=1e-12)


@pytest.mark.parametrize("balanced", [False, True])
def test_nothing_labelled_is_zero_with_zero_gradients(balanced):
    scores = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = pixel_loss(scores, torch.full((1, 4, 4), 255, dtype=torch.uint8), balanced=balanced)
    loss.backward()
    assert loss == 0
    assert not scores.grad.any()


def test_ignored_pixels_get_no_gradient():
    scores, labels = case(3)
    scores.requires_grad_()
    pixel_loss(scores, labels).backward()
    touched = scores.grad.abs().sum(1) > 0
    assert torch.equal(touched, labels != 255)


def test_half_precision_computes_in_float32():
    scores, labels = case(4)
    loss = pixel_loss(scores.bfloat16(), labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(pixel_loss(scores, labels).item(), rel=1e-2)


def test_wrong_labels_are_named():
    scores = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ShapeError, match="labels has shape"):
        pixel_loss(scores, torch.zeros(1, 5, 4, dtype=torch.uint8))
    with pytest.raises(ShapeError, match=r"labels is torch\.int64"):
        pixel_loss(scores, torch.zeros(1, 4, 4, dtype=torch.int64))


def test_the_objective_is_the_loss_whatever_the_tags():
    scores = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([0, 1, 3, 255, 2], dtype=torch.uint8).expand(2, 3, 5)
    for tags in (torch.zeros(2, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)):
        assert torch.equal(cross_entropy(scores, tags, labels), pixel_loss(scores, labels))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("balanced", [False, True])
def test_weights_and_smoothed_labels_equal_the_loop(smoothing, balanced):
    scores, labels = case(4)
    weights = torch.rand(labels.shape, generator=torch.Generator().manual_seed(4)).double()
    weights[0, 0] = 0
    sums = {"foreground": [0.0, 0.0], "background": [0.0, 0.0]}
    for b, y, x in (labels != 255).nonzero().tolist():
        s, label, weight = scores[b, :, y, x].tolist(), int(labels[b, y, x]), weights[b, y, x]
        log_sum = math.log(sum(math.exp(v) for v in s))
        targets = [smoothing / len(s) + (1 - smoothing) * (i == label) for i in range(len(s))]
        cost = sum(t * (log_sum - v) for t, v in zip(targets, s, strict=True))
        part = sums["foreground" if label else "background"]
        part[0] += float(weight) * cost
        part[1] += float(weight)
    if balanced:
        expected = sum(total / weight for total, weight in sums.values()) / 2
    else:
        totals, counts = zip(*sums.values(), strict=True)
        expected = sum(totals) / sum(counts)
    options = {"weights": weights, "label_smoothing": smoothing, "balanced": balanced}
    assert pixel_loss(scores, labels, **options).item() == pytest.approx(expected, rel=1e-9)


def test_pixels_of_weight_0_may_have_any_score():
    scores, labels = case(5)
    weights = (labels != 255).double()
    expected = pixel_loss(scores, labels).item()
    scores.permute(0, 2, 3, 1)[labels == 255] = math.inf
    labels[labels == 255] = 1
    assert pixel_loss(scores, labels, weights=weights).item() == pytest.approx(expected)
    assert pixel_loss(scores, labels, weights=0 * weights).item() == 0


def test_smoothed_labels_ignore_the_same_pixels():
    scores, labels = case(6)
    scores.requires_grad_()
    (gradient,) = torch.autograd.grad(pixel_loss(scores, labels, label_smoothing=0.2), scores)
    assert not gradient.movedim(1, 3)[labels == 255].any()
    assert gradient.movedim(1, 3)[labels != 255].abs().sum(1).min() > 0
    assert torch.autograd.gradcheck(
        lambda s: pixel_loss(s, labels, label_smoothing=0.2, balanced=True), scores
    )


def test_wrong_weights_and_smoothing_are_named():
    scores, labels = case(7)
    with pytest.raises(ShapeError, match="weights has shape"):
        pixel_loss(scores, labels, weights=torch.ones(2, 5))
    for smoothing in (-0.1, 1.0):
        with pytest.raises(ConfigError, match=f"label smoothing of {smoothing}"):
            pixel_loss(scores, labels, label_smoothing=smoothing)


class TestPixelLoss(LabelLossContract):
    @pytest.fixture
    def loss(self):
        return pixel_loss
