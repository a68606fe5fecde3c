from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import ConfigError, ShapeError
from tagseg.losses.seed_expand_constrain import (
    constrain_loss,
    decay_at,
    expand_loss,
    sec_probabilities,
    seed_loss,
)

torch.set_num_threads(1)

LABELS, HEIGHT, WIDTH = 5, 4, 3
POSITIONS = [(i, j) for i in range(HEIGHT) for j in range(WIDTH)]
DECAYS = {"foreground_decay": 0.9, "background_decay": 0.97}


def case(seed, photos=3):
    """Photos of every kind: no tags, all tags, some; the first has no cue, the last no padding."""
    rng = np.random.default_rng(seed)
    shape = (photos, HEIGHT, WIDTH)
    scores = torch.from_numpy(rng.normal(0, 2, (photos, LABELS, HEIGHT, WIDTH)))
    tags = torch.from_numpy(rng.random((photos, LABELS - 1)) < 0.5)
    tags[0], tags[1] = False, True
    cues = rng.integers(0, LABELS, shape).astype(np.uint8)
    cues[rng.random(shape) < 0.4] = 255
    cues[0] = 255
    valid = rng.random(shape) < 0.7
    valid[-1] = True
    refined = rng.dirichlet(np.full(LABELS, 0.4), shape).transpose(0, 3, 1, 2).copy()
    refined[-1, 1:, 0, 0], refined[-1, 0, 0, 0] = 0, 1  # sure to the last bit
    return scores, tags, torch.from_numpy(cues), torch.from_numpy(valid), torch.from_numpy(refined)


def loop_probabilities(scores):
    """Softmax plus 1e-4, scaled to sum 1."""
    result = np.empty(scores.shape)
    for b in range(scores.shape[0]):
        for i, j in POSITIONS:
            powers = [math.exp(s) for s in scores[b, :, i, j].tolist()]
            raised = [power / sum(powers) + 1e-4 for power in powers]
            result[b, :, i, j] = [value / sum(raised) for value in raised]
    return torch.from_numpy(result)


def loop_seed(probs, cues):
    total = 0.0
    for b in range(len(probs)):
        logs = [
            math.log(float(probs[b, int(cues[b, i, j]), i, j]))
            for i, j in POSITIONS
            if cues[b, i, j] != 255
        ]
        total -= sum(logs) / len(logs) if logs else 0.0
    return total / len(probs)


def loop_pooled(values, decay):
    """G: the mean of the values, from the largest on, with the weights decay^0, decay^1, ..."""
    total = weights = 0.0
    for rank, value in enumerate(sorted(values, reverse=True)):
        total += decay**rank * value
        weights += decay**rank
    return total / weights


def loop_expand(probs, tags, valid, foreground_decay, background_decay):
    total = 0.0
    for b in range(len(probs)):
        values = {
            label: [float(probs[b, label, i, j]) for i, j in POSITIONS if valid[b, i, j]]
            for label in range(LABELS)
        }
        if not values[0]:
            continue
        present = [c + 1 for c in range(LABELS - 1) if tags[b, c]]
        absent = [c + 1 for c in range(LABELS - 1) if not tags[b, c]]
        for label in present:
            total -= math.log(loop_pooled(values[label], foreground_decay)) / len(present)
        for label in absent:
            total -= math.log(1 - max(values[label])) / len(absent)
        total -= math.log(loop_pooled(values[0], background_decay))
    return total / len(probs)


def loop_constrain(probs, refined, valid):
    total, count = 0.0, 0
    for b in range(len(probs)):
        for i, j in POSITIONS:
            if not valid[b, i, j]:
                continue
            raised = [max(1e-4, q) for q in refined[b, :, i, j].tolist()]
            for label, value in enumerate(raised):
                q = value / sum(raised)
                total += q * math.log(q / float(probs[b, label, i, j]))
            count += 1
    return total / count if count else 0.0


def losses(seed):
    """Each loss as a function of the probabilities, and its loop."""
    _, tags, cues, valid, refined = case(seed)
    return {
        "seed": (lambda p: seed_loss(p, cues), lambda p: loop_seed(p, cues)),
        "expand": (
            lambda p: expand_loss(p, tags, valid=valid, **DECAYS),
            lambda p: loop_expand(p, tags, valid, **DECAYS),
        ),
        "constrain": (
            lambda p: constrain_loss(p, refined, valid=valid),
            lambda p: loop_constrain(p, refined, valid),
        ),
    }


NAMES = ["seed", "expand", "constrain"]


@pytest.mark.parametrize("seed", [0, 1])
def test_probabilities_equal_the_loop(seed):
    scores = case(seed)[0]
    torch.testing.assert_close(
        sec_probabilities(scores), loop_probabilities(scores), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_loop(name, seed):
    probs = loop_probabilities(case(seed)[0])
    loss, loop = losses(seed)[name]
    assert loss(probs).item() == pytest.approx(loop(probs), rel=1e-12)
    assert loss(probs.float()).dtype == torch.float32
    assert loss(probs.float()).item() == pytest.approx(loop(probs), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_equals_the_numeric_one_of_the_loop(name):
    scores = case(3)[0].requires_grad_()
    loss, loop = losses(3)[name]
    loss(sec_probabilities(scores)).backward()
    step, numeric = 1e-6, torch.zeros_like(scores)
    for index in np.ndindex(*scores.shape):
        values = []
        for sign in (1, -1):
            moved = scores.detach().clone()
            moved[index] += sign * step
            values.append(loop(loop_probabilities(moved)))
        numeric[index] = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close(scores.grad, numeric, rtol=1e-5, atol=1e-8)
    assert scores.grad.abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name):
    scores = case(4)[0].requires_grad_()
    loss = losses(4)[name][0]
    assert torch.autograd.gradcheck(lambda s: loss(sec_probabilities(s)), (scores,))


def test_the_numbers_of_the_paper_by_hand():
    """Two positions, one class: everything can be written down."""
    probs = torch.tensor([[[[0.25, 0.5]], [[0.75, 0.5]]]], dtype=torch.float64)
    tags = torch.tensor([[True]])
    present = (0.75 + 0.996 * 0.5) / 1.996
    background = (0.5 + 0.999 * 0.25) / 1.999
    assert expand_loss(probs, tags).item() == pytest.approx(
        -math.log(present) - math.log(background), rel=1e-12
    )
    assert expand_loss(probs, ~tags).item() == pytest.approx(
        -math.log(1 - 0.75) - math.log(background), rel=1e-12
    )
    cues = torch.tensor([[[1, 0]]], dtype=torch.uint8)
    assert seed_loss(probs, cues).item() == pytest.approx(
        -(math.log(0.75) + math.log(0.5)) / 2, rel=1e-12
    )


def flipped(tensor):
    return tensor.flip(-1, -2)


def mixed(tensor, order):
    """The same positions in another order."""
    return tensor.flatten(-2)[..., order].reshape(tensor.shape)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_no_loss_knows_where_a_position_is(seed):
    scores, tags, cues, valid, refined = case(seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(POSITIONS)))
    probs = sec_probabilities(scores)
    for move in (flipped, lambda tensor: mixed(tensor, order)):
        moved = move(probs)
        for plain, other in (
            (seed_loss(probs, cues), seed_loss(moved, move(cues))),
            (expand_loss(probs, tags, valid=valid), expand_loss(moved, tags, valid=move(valid))),
            (
                constrain_loss(probs, refined, valid=valid),
                constrain_loss(moved, move(refined), valid=move(valid)),
            ),
        ):
            assert other.item() == pytest.approx(plain.item(), rel=1e-12)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_no_loss_knows_which_class_or_photo_comes_first(seed):
    scores, tags, cues, valid, refined = case(seed)
    rng = np.random.default_rng(seed)
    photos = torch.from_numpy(rng.permutation(3))
    labels = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.from_numpy(rng.permutation(4))])
    probs = sec_probabilities(scores)
    name = torch.full((256,), 255, dtype=torch.uint8)
    name[labels] = torch.arange(LABELS, dtype=torch.uint8)
    moved, kept = probs[photos][:, labels], valid[photos]
    for plain, other in (
        (seed_loss(probs, cues), seed_loss(moved, name[cues[photos].long()])),
        (
            expand_loss(probs, tags, valid=valid),
            expand_loss(moved, tags[photos][:, labels[1:] - 1], valid=kept),
        ),
        (
            constrain_loss(probs, refined, valid=valid),
            constrain_loss(moved, refined[photos][:, labels], valid=kept),
        ),
    ):
        assert other.item() == pytest.approx(plain.item(), rel=1e-12)


def test_padding_takes_no_part():
    """A padded crop has the losses of the photo alone, and no gradient outside of it."""
    scores, tags, _, _, refined = case(5)
    padded = torch.nn.functional.pad(scores, (0, 2, 1, 0), value=50.0).requires_grad_()
    valid = torch.nn.functional.pad(torch.ones(3, HEIGHT, WIDTH, dtype=torch.bool), (0, 2, 1, 0))
    padded_refined = torch.nn.functional.pad(refined, (0, 2, 1, 0), value=0.2)
    for plain, larger in (
        (
            expand_loss(sec_probabilities(scores), tags),
            expand_loss(sec_probabilities(padded), tags, valid=valid),
        ),
        (
            constrain_loss(sec_probabilities(scores), refined),
            constrain_loss(sec_probabilities(padded), padded_refined, valid=valid),
        ),
    ):
        assert larger.item() == pytest.approx(plain.item(), rel=1e-12)
        padded.grad = None
        larger.backward()
        assert torch.equal(padded.grad.abs().sum(1) > 0, valid)


def test_nothing_to_learn_from_is_zero_with_zero_gradients():
    scores = torch.randn(2, 3, 4, 4, requires_grad=True)
    probs = sec_probabilities(scores)
    nowhere = torch.zeros(2, 4, 4, dtype=torch.bool)
    tags = torch.tensor([[True, False], [False, False]])
    total = (
        seed_loss(probs, torch.full((2, 4, 4), 255, dtype=torch.uint8))
        + expand_loss(probs, tags, valid=nowhere)
        + constrain_loss(probs, torch.full_like(probs, 1 / 3), valid=nowhere)
    )
    total.backward()
    assert total == 0
    assert not scores.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("wrong", [False, True])
def test_sure_scores_have_finite_losses_and_useful_gradients(wrong, dtype):
    """Scores of 1e4: the loss is that of the floor, and where it is high something pulls."""
    labels = torch.zeros(1, 4, 4, dtype=torch.uint8)
    labels[:, 2:] = 1
    favoured = 2 if wrong else labels.long()
    scores = torch.full((1, 3, 4, 4), -1e4, dtype=dtype)
    scores.scatter_(1, torch.as_tensor(favoured).expand(1, 4, 4)[:, None], 1e4)
    probs = sec_probabilities(scores).requires_grad_()
    tags = torch.tensor([[True, False]])
    refined = torch.nn.functional.one_hot(labels.long(), 3).movedim(3, 1).to(dtype)
    worst = math.log((1 + 3e-4) / 1e-4)  # of one term: the expansion has three
    for loss, terms in (
        (seed_loss(probs, labels), 1),
        (expand_loss(probs, tags), 3),
        (constrain_loss(probs, refined), 1),
    ):
        (gradient,) = torch.autograd.grad(loss, probs)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0
        if wrong:
            assert 0.9 * terms * worst < loss.item() < 1.001 * terms * worst
        else:
            assert 0 <= loss.item() < 2


def test_probabilities_of_zero_and_one_are_finite_too():
    """Not from sec_probabilities: an exact softmax."""
    probs = torch.zeros(1, 3, 2, 2)
    probs[:, 2] = 1
    probs.requires_grad_()
    cues = torch.zeros(1, 2, 2, dtype=torch.uint8)
    refined = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    total = (
        seed_loss(probs, cues)
        + expand_loss(probs, torch.tensor([[True, False]]))
        + constrain_loss(probs, refined)
    )
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(probs.grad).all()


def test_a_perfect_answer_costs_nothing_but_the_size_of_its_objects():
    refined = case(6)[4].clamp(min=1e-4)
    refined = refined / refined.sum(1, keepdim=True)
    assert constrain_loss(refined, refined).item() == pytest.approx(0, abs=1e-12)


def test_the_gradient_of_constrain_at_the_logits_is_p_minus_q():
    scores, _, _, _, refined = case(7)
    scores = (scores / 4).requires_grad_()  # no probability is near the floor
    refined = refined.clamp(min=0.01)
    refined = refined / refined.sum(1, keepdim=True)
    constrain_loss(sec_probabilities(scores), refined).backward()
    wanted = (torch.softmax(scores, 1) - refined) / (3 * len(POSITIONS))
    torch.testing.assert_close(scores.grad, wanted.detach(), atol=1e-4, rtol=0.02)


def test_the_refined_labels_are_a_constant():
    scores, _, _, _, refined = case(8)
    refined.requires_grad_()
    probs = sec_probabilities(scores).requires_grad_()
    constrain_loss(probs, refined).backward()
    assert refined.grad is None
    assert probs.grad.any()


@pytest.mark.parametrize("decay", [0.996, 0.999, 1.0])
def test_decay_at_gives_the_same_share_the_same_weight(decay):
    assert decay_at(decay, 41 * 41) == pytest.approx(decay, rel=1e-15)

    def weight_of_the_top_tenth(positions):
        weights = decay_at(decay, positions) ** np.arange(positions)
        return weights[: positions // 10].sum() / weights.sum()

    assert weight_of_the_top_tenth(5000) == pytest.approx(weight_of_the_top_tenth(500), rel=1e-9)


def test_larger_decays_look_at_more_of_the_photo():
    """From global max pooling to global average pooling."""
    probs = sec_probabilities(case(9)[0])
    tags = torch.ones(3, LABELS - 1, dtype=torch.bool)
    values = [
        expand_loss(probs, tags, foreground_decay=decay, background_decay=decay).item()
        for decay in (1e-9, 0.5, 0.9, 1.0)
    ]
    assert values == sorted(values)
    top, mean = probs.amax((2, 3)).log(), probs.mean((2, 3)).log()
    for found, logs in ((values[0], top), (values[-1], mean)):
        assert found == pytest.approx(-(logs[:, 1:].mean(1) + logs[:, 0]).mean().item(), rel=1e-8)


def test_half_precision_computes_in_float32():
    scores, tags, cues, valid, refined = case(10)
    wanted = sec_probabilities(scores)
    low = scores.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        probs = sec_probabilities(low)
        found = [
            seed_loss(probs, cues),
            expand_loss(probs, tags, valid=valid),
            constrain_loss(probs, refined.bfloat16(), valid=valid),
        ]
        exact = sec_probabilities(low.double())
    assert probs.dtype == torch.float32
    torch.testing.assert_close(probs.double(), exact, rtol=1e-5, atol=0)
    plain = [
        seed_loss(wanted, cues),
        expand_loss(wanted, tags, valid=valid),
        constrain_loss(wanted, refined, valid=valid),
    ]
    for got, value in zip(found, plain, strict=True):
        assert got.dtype == torch.float32
        assert got.item() == pytest.approx(value.item(), rel=0.02)


def test_memory_layout_does_not_matter():
    scores, tags, cues, valid, refined = case(11)
    for loss in (
        lambda p: seed_loss(p, cues),
        lambda p: expand_loss(p, tags, valid=valid),
        lambda p: constrain_loss(p, refined, valid=valid),
    ):
        last = sec_probabilities(scores.to(memory_format=torch.channels_last))
        assert loss(last).item() == pytest.approx(loss(sec_probabilities(scores)).item(), rel=1e-12)


def test_wrong_arguments_are_named():
    probs = torch.full((2, 3, 4, 4), 1 / 3)
    tags, cues = torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, 4, 4, dtype=torch.uint8)
    with pytest.raises(ShapeError, match="scores is"):
        sec_probabilities(torch.zeros(2, 1, 4, 4))
    with pytest.raises(ShapeError, match="probs is"):
        seed_loss(probs[0], cues[0])
    with pytest.raises(ShapeError, match=r"cues is torch\.int64"):
        seed_loss(probs, cues.long())
    with pytest.raises(ShapeError, match="cues is"):
        seed_loss(probs, cues[:, :3])
    with pytest.raises(ShapeError, match="tags is"):
        expand_loss(probs, tags[:, :1])
    with pytest.raises(ShapeError, match="valid is"):
        expand_loss(probs, tags, valid=cues)
    with pytest.raises(ShapeError, match="refined is"):
        constrain_loss(probs, probs[:, :2])
    for decay in (0.0, 1.1, math.nan):
        with pytest.raises(ConfigError, match="a decay of"):
            expand_loss(probs, tags, foreground_decay=decay)
        with pytest.raises(ConfigError, match="a decay of"):
            decay_at(decay, 12)
    with pytest.raises(ConfigError, match="0 positions"):
        decay_at(0.9, 0)
