"""Eq. 10 to 16 of Saleh et al. against loops written from the paper, in float64."""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import ConfigError, ShapeError
from tagseg.losses.lse import class_mask_loss, foreground_loss, tag_loss

torch.set_num_threads(1)
N_CLASSES = 4


# --- the paper, pixel by pixel; scores hold float64 tensors or Decimals ------------------------


def log(x):
    return x.log() if isinstance(x, torch.Tensor) else x.ln()


def softmax_at(scores, i, j):
    """Eq. 9."""
    exps = [s.exp() for s in scores[:, i, j]]
    return [e / sum(exps) for e in exps]


def smooth_max(values, r):
    """Eq. 11, 13, 14, 16 over a list of probabilities."""
    return log(sum((r * v).exp() for v in values) / len(values)) / r


def pixels(scores, counted):
    height, width = scores.shape[1:]
    return [
        ((i, j), softmax_at(scores, i, j))
        for i in range(height)
        for j in range(width)
        if counted[i, j]
    ]


def split(tags):
    present = [0] + [k + 1 for k, tag in enumerate(tags) if tag]
    return present, [k for k in range(len(tags) + 1) if k not in present]


def absent_pixel_term(probs, absent):
    if not absent or not probs:
        return 0
    return -sum(log(1 - p[k]) for _, p in probs for k in absent) / (len(absent) * len(probs))


def loop_tag_loss(scores, tags, counted, r):
    """Eq. 10, 11."""
    present, absent = split(tags)
    probs = pixels(scores, counted)
    big = {k: smooth_max([p[k] for _, p in probs], r) for k in range(len(scores))}
    loss = -sum(log(big[k]) for k in present) / len(present)
    if absent:
        loss = loss - sum(log(1 - big[k]) for k in absent) / len(absent)
    return loss


def loop_foreground_loss(scores, tags, counted, r, foreground):
    """Eq. 12 to 14."""
    present, absent = split(tags)
    probs = pixels(scores, counted)
    inside = [p for at, p in probs if foreground[at]]
    outside = [p for at, p in probs if not foreground[at]]
    loss = absent_pixel_term(probs, absent)
    if inside and len(present) > 1:
        terms = [log(smooth_max([p[k] for p in inside], r)) for k in present if k != 0]
        loss = loss - sum(terms) / (len(present) - 1)
    if outside:
        loss = loss - log(smooth_max([p[0] for p in outside], r))
    return loss


def loop_class_mask_loss(scores, tags, counted, r, masks):
    """Eq. 15, 16."""
    present, absent = split(tags)
    probs = pixels(scores, counted)
    loss = absent_pixel_term(probs, absent)
    for k in present:
        inside = [p[k] for at, p in probs if masks[at] == k]
        if inside:
            loss = loss - log(smooth_max(inside, r)) / len(present)
    return loss


# --- cases -----------------------------------------------------------------------------------


def batch(seed, size=(4, 5), spread=3.0, n=3, dtype=torch.float64):
    """Scores, tags (photo 0 has none, photo 1 all), masks over tagged labels, and a valid mask."""
    generator = torch.Generator().manual_seed(seed)
    scores = spread * torch.randn(n, N_CLASSES + 1, *size, generator=generator, dtype=dtype)
    tags = torch.rand(n, N_CLASSES, generator=generator) < 0.5
    tags[0], tags[1 % n] = False, True
    masks = torch.randint(0, N_CLASSES + 1, (n, *size), generator=generator).to(torch.uint8)
    valid = torch.rand(n, *size, generator=generator) < 0.8
    return scores, tags, masks, valid


def compute(name, scores, tags, masks, valid, r=5.0):
    """The loss ``name``, with the same masks in the form that it takes."""
    if name == "tag":
        return tag_loss(scores, tags, valid=valid, r=r)
    if name == "foreground":
        return foreground_loss(scores, tags, masks > 0, valid=valid, r=r)
    return class_mask_loss(scores, tags, masks.masked_fill(~valid, 255), r=r)


def compute_by_loop(name, scores, tags, masks, valid, r=5.0):
    losses = []
    for s, t, m, v in zip(scores, tags, masks, valid, strict=True):
        if name == "tag":
            losses.append(loop_tag_loss(s, t, v, r))
        elif name == "foreground":
            losses.append(loop_foreground_loss(s, t, v, r, m > 0))
        else:
            losses.append(loop_class_mask_loss(s, t, v, r, m))
    return sum(losses) / len(losses)


every_loss = pytest.mark.parametrize("name", ["tag", "foreground", "class_mask"])


@every_loss
@pytest.mark.parametrize(("seed", "spread", "r"), [(0, 0.1, 5.0), (1, 3.0, 5.0), (2, 2.0, 1.5)])
def test_value_and_gradient_are_the_papers(name, seed, spread, r):
    scores, tags, masks, valid = batch(seed, spread=spread)
    ours, loops = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    loss = compute(name, ours, tags, masks, valid, r)
    expected = compute_by_loop(name, loops, tags, masks, valid, r)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9, rel=1e-9)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, loops.grad, atol=1e-9, rtol=1e-7)


@every_loss
def test_float32_is_within_1e6_of_the_papers(name):
    scores, tags, masks, valid = batch(3)
    loss = compute(name, scores.float(), tags, masks, valid)
    expected = compute_by_loop(name, scores.float().double(), tags, masks, valid)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


@every_loss
def test_gradient_by_finite_differences(name):
    scores, tags, masks, valid = batch(4, size=(2, 3))
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: compute(name, s, tags, masks, valid), scores)


@every_loss
def test_all_pixels_are_valid_by_default(name):
    scores, tags, masks, _ = batch(5)
    everything = torch.ones_like(masks, dtype=torch.bool)
    plain = {
        "tag": partial(tag_loss, scores, tags),
        "foreground": partial(foreground_loss, scores, tags, masks > 0),
        "class_mask": partial(class_mask_loss, scores, tags, masks),
    }[name]
    assert plain() == compute(name, scores, tags, masks, everything)


@every_loss
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_order_of_pixels_does_not_matter(name, seed):
    scores, tags, masks, valid = batch(seed)
    order = torch.randperm(masks[0].numel(), generator=torch.Generator().manual_seed(seed))

    def shuffled(x):
        return x.flatten(-2)[..., order].unflatten(-1, x.shape[-2:])

    first = compute(name, scores, tags, masks, valid)
    second = compute(name, shuffled(scores), tags, shuffled(masks), shuffled(valid))
    assert second.item() == pytest.approx(first.item(), rel=1e-12)


@every_loss
def test_batch_is_the_mean_of_its_photos(name):
    args = batch(6, n=4)
    singles = [compute(name, *(x[i : i + 1] for x in args)) for i in range(4)]
    assert compute(name, *args).item() == pytest.approx(sum(singles).item() / 4, rel=1e-12)


@every_loss
def test_padding_changes_nothing_and_gets_no_gradient(name):
    scores, tags, masks, _ = batch(7)
    everything = torch.ones_like(masks, dtype=torch.bool)
    bare = compute(name, scores, tags, masks, everything)
    pad = torch.nn.functional.pad
    wide = pad(scores, (0, 3, 0, 2), value=50.0).requires_grad_()
    padded = compute(name, wide, tags, pad(masks, (0, 3, 0, 2)), pad(everything, (0, 3, 0, 2)))
    assert padded.item() == pytest.approx(bare.item(), rel=1e-12)
    padded.backward()
    assert not wide.grad[..., 4:, :].any()
    assert not wide.grad[..., 5:].any()
    assert wide.grad[..., :4, :5].any()


@every_loss
def test_autocast_to_bf16_stays_finite_and_close(name):
    scores, tags, masks, valid = batch(8, dtype=torch.float32)
    half = scores.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = compute(name, half, tags, masks, valid)
    exact = compute(name, half.detach().double(), tags, masks, valid)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    loss.backward()
    assert half.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize("gap", [10.0, 20.0, 150.0])
@pytest.mark.parametrize("favourite", [0, 1, 2])
def test_saturated_scores_keep_true_values_and_gradients(name, gap, favourite):
    """A net that is surely wrong must still learn: float32 and float64 against 200 digits."""
    tags = torch.tensor([[True, False]])
    scores = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    scores[:, favourite] += gap
    masks = torch.tensor([[[1, 1], [0, 0]]], dtype=torch.uint8)
    valid = torch.ones_like(masks, dtype=torch.bool)

    def exact(values):
        return compute_by_loop(name, values, tags, masks, valid, Decimal(5))

    with localcontext(prec=200):
        values = np.vectorize(Decimal, otypes=[object])(scores.double().numpy())
        expected = exact(values)
        slopes, step = np.zeros(scores.shape), Decimal("1e-30")
        for at in np.ndindex(*scores.shape):
            moved = values.copy()
            moved[at] += step
            slopes[at] = (exact(moved) - expected) / step
    scores.requires_grad_()
    loss = compute(name, scores, tags, masks, valid)
    loss.backward()
    assert loss.item() == pytest.approx(float(expected), rel=1e-6)
    in_double = compute(name, scores.detach().double(), tags, masks, valid)
    assert in_double.item() == pytest.approx(float(expected), rel=1e-11)
    np.testing.assert_allclose(scores.grad, slopes, rtol=1e-4, atol=1e-6)
    assert scores.grad.abs().max() > (0.01 if favourite else 1e-9)


@every_loss
@pytest.mark.parametrize("labels", [(0, 1), (1, 3), (0, 2, 4), (0, 1, 2, 3, 4)])
def test_labels_that_share_the_highest_score(name, labels):
    """No label is the top one there; the tied ones count as all others do."""
    scores, tags, masks, valid = batch(13)
    scores[:, labels, ::2] = scores.amax(1, keepdim=True)[..., ::2, :] + 2
    ours, loops = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    loss = compute(name, ours, tags, masks, valid)
    expected = compute_by_loop(name, loops, tags, masks, valid)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, loops.grad, atol=1e-9, rtol=1e-7)


@every_loss
def test_widely_spread_scores_keep_finite_true_gradients(name):
    """Far below the top, probabilities are outside the range of float32."""
    scores, tags, masks, valid = batch(14, spread=60.0)
    single = scores.float().requires_grad_()
    double = single.detach().double().requires_grad_()
    loss = compute(name, single, tags, masks, valid)
    expected = compute(name, double, tags, masks, valid)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(single.grad.double(), double.grad, atol=1e-6, rtol=1e-4)


@every_loss
def test_memory_layout_does_not_matter(name):
    scores, tags, masks, valid = batch(15)
    plain = scores.clone().requires_grad_()
    last = scores.to(memory_format=torch.channels_last).requires_grad_()
    losses = [compute(name, s, tags, masks, valid) for s in (plain, last)]
    assert losses[0] == losses[1]
    sum(losses).backward()
    assert torch.equal(plain.grad, last.grad)


@every_loss
def test_inputs_are_left_alone_and_gradients_add_up(name):
    scores, tags, masks, valid = batch(16)
    before = scores.clone()
    scores.requires_grad_()
    loss = compute(name, scores, tags, masks, valid)
    assert torch.equal(scores.detach(), before)
    (once,) = torch.autograd.grad(loss, scores, retain_graph=True)
    (thrice,) = torch.autograd.grad(3 * loss, scores)
    torch.testing.assert_close(thrice, 3 * once)
    assert not compute(name, before, tags, masks, valid).requires_grad


@every_loss
def test_loss_scale_saves_small_gradients_of_half_precision(name):
    """They must be scaled before they are rounded to float16, whose smallest number is 6e-8."""
    scores, tags, masks, valid = batch(17, size=(40, 50), dtype=torch.float32)
    half = scores.half().requires_grad_()
    (2.0**12 * compute(name, half, tags, masks, valid)).backward()
    exact = half.detach().double().requires_grad_()
    compute(name, exact, tags, masks, valid).backward()
    scaled = half.grad.double() / 2.0**12
    torch.testing.assert_close(scaled, exact.grad, atol=1e-9, rtol=2e-3)


@every_loss
def test_photo_without_pixels_costs_nothing(name):
    scores, tags, masks, valid = batch(9)
    scores.requires_grad_()
    loss = compute(name, scores, tags, masks, torch.zeros_like(valid))
    loss.backward()
    assert loss == 0
    assert not scores.grad.any()


def test_present_class_without_mask_is_left_out_but_counted():
    scores, _, masks, _ = batch(10, n=1)
    tags = torch.tensor([[True, True, False, False]])
    masks = masks % 2  # label 2 has a tag but no pixel
    scores.requires_grad_()
    loss = class_mask_loss(scores, tags, masks)
    log_s = [
        torch.log(smooth_max([softmax_at(scores[0], i, j)[k] for i, j in at], 5.0))
        for k in (0, 1)
        for at in [torch.nonzero(masks[0] == k).tolist()]
    ]
    log_p = scores.log_softmax(1)
    absent = torch.log1p(-log_p[:, 3:].exp()).mean()
    assert loss.item() == pytest.approx((-(log_s[0] + log_s[1]) / 3 - absent).item(), rel=1e-9)
    loss.backward()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("full", [True, False])
def test_foreground_everywhere_or_nowhere(full):
    scores, tags, masks, valid = batch(11)
    foreground = torch.full_like(valid, full)
    scores.requires_grad_()
    loss = foreground_loss(scores, tags, foreground, valid=valid)
    as_masks = foreground.to(masks.dtype)
    expected = compute_by_loop("foreground", scores, tags, as_masks, valid)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    loss.backward()
    assert scores.grad.isfinite().all()


def test_mask_of_an_absent_class_pulls_nothing_up():
    scores, _, masks, _ = batch(12, n=1)
    tags = torch.tensor([[True, False, False, False]])
    with_strays = class_mask_loss(scores, tags, masks)
    height, width = masks.shape[1:]
    expected = loop_class_mask_loss(
        scores[0],
        tags[0],
        torch.ones(height, width),
        5.0,
        masks[0] * (masks[0] <= 1) + 9 * (masks[0] > 1),
    )
    assert with_strays.item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": torch.zeros(2, 5, 4)}, "scores is torch.float32 of shape"),
        ({"tags": torch.zeros(2, 5, dtype=torch.bool)}, "tags is torch.bool of shape"),
        ({"tags": torch.zeros(2, 4)}, "tags is torch.float32"),
        ({"masks": torch.zeros(2, 3, 3, dtype=torch.uint8)}, "masks is torch.uint8 of shape"),
        ({"masks": torch.zeros(2, 4, 4, dtype=torch.int64)}, "masks is torch.int64"),
    ],
)
def test_wrong_shapes_and_types_are_named(change, message):
    good = {
        "scores": torch.zeros(2, 5, 4, 4),
        "tags": torch.zeros(2, 4, dtype=torch.bool),
        "masks": torch.zeros(2, 4, 4, dtype=torch.uint8),
    }
    class_mask_loss(**good)
    with pytest.raises(ShapeError, match=message):
        class_mask_loss(**{**good, **change})


@pytest.mark.parametrize("r", [0.0, -5.0, 50.0, float("nan")])
def test_sharpness_out_of_range_is_refused(r):
    with pytest.raises(ConfigError, match="r is"):
        tag_loss(torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, dtype=torch.bool), r=r)
