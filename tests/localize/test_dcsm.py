from __future__ import annotations

import dataclasses
import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import ConfigError, ShapeError
from tagseg.localize import dcsm
from tagseg.localize.dcsm import (
    CandidateClasses,
    DcsmSettings,
    aggregate,
    at_photo_size,
    candidate_classes,
    distinct_maps,
    layer_saliency,
    score_map,
    unary,
    with_background,
)
from tagseg.maps import labels_of_tags
from tagseg.nets.backbone import upsample_grid

torch.set_num_threads(1)

PAPER = DcsmSettings()
LITERAL = DcsmSettings(normalise="none")
CODE = DcsmSettings(variant="code")
few = settings(derandomize=True, deadline=None, max_examples=25)
seeds = st.integers(0, 10**6)


def bool_array(*values):
    return np.array(values, bool)


def choice(targets, candidates, n_scales=1, detected=None):
    """Classes of a photo where gradients were asked of all of them: row = class."""
    targets = np.asarray(targets, bool)
    if detected is None:
        detected = np.tile(targets, (n_scales, 1))
    return CandidateClasses(targets, np.asarray(candidates, np.intp), np.asarray(detected, bool))


def random_maps(seed, *shape):
    """Not negative, of any magnitude, with equal values and zeros among them."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, 6, shape) * rng.random(shape) * 10.0 ** rng.integers(-6, 4)
    return torch.from_numpy(maps.astype(np.float32))


def some_classes(seed, n=4, n_scales=1):
    """At least one target; every target is a candidate, as candidate_classes has it."""
    rng = np.random.default_rng(seed)
    targets = rng.random(n) < 0.5
    targets[rng.integers(n)] = True
    candidates = np.flatnonzero(targets | (rng.random(n) < 0.5))
    unasked = ~targets
    unasked[candidates] = False
    detected = (rng.random((n_scales, n)) < 0.5) & targets
    return choice(targets, candidates, detected=detected), np.flatnonzero(~unasked)


# Slow versions in float64, written from the paper and the description of the authors' code.


def loop_equation_4(raw, targets, candidates):
    raw = np.asarray(raw, float)
    out = np.zeros((len(targets), *raw.shape[1:]))
    for t, c in enumerate(targets):
        others = [other for other in set(candidates) if other != c]
        for y in range(raw.shape[1]):
            for x in range(raw.shape[2]):
                if others:
                    out[t, y, x] = sum(max(raw[c, y, x] - raw[o, y, x], 0) for o in others)
                else:
                    out[t, y, x] = raw[c, y, x]
    return out


def loop_equation_5(steps, targets, candidates, alpha, normalise):
    total = 0
    for raw in steps:
        maps = loop_equation_4(raw, targets, candidates)
        for one in maps:
            if normalise and one.max() > 0:
                one /= one.max()
        total = total + np.tanh(alpha * maps)
    return total / len(steps)


def loop_code(steps, targets, candidates, detected, crop):
    """``steps``: (scale, maps); ``detected``: (S, C)."""
    out = []
    for c in targets:
        total = np.zeros(np.asarray(steps[0][1]).shape[1:])
        for scale, raw in steps:
            raw = np.asarray(raw, float)
            if not detected[scale][c] and any(at[c] for at in detected):
                continue
            others = [o for o in candidates if o != c]
            for difference in [raw[c] - raw[o] for o in others] if others else [raw[c]]:
                if difference.max() <= 0:
                    continue
                part = np.tanh(3 * difference / difference.max())
                part[part <= 0] = 1e-20
                total += part
        total = total[crop]
        out.append(np.tanh(3 * total / total.max()) if total.max() > 0 else total)
    return np.array(out)


# Settings


def test_the_defaults_are_the_papers():
    assert (PAPER.alpha, PAPER.min_candidates, PAPER.threshold) == (3, 3, 0.5)
    assert PAPER.scales == (0.8, 1.0, 1.2)
    assert (PAPER.variant, PAPER.normalise) == ("paper", "map")


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0},
        {"alpha": math.nan},
        {"scales": ()},
        {"scales": (1.0, 0.0)},
        {"scales": (1.0, math.inf)},
        {"min_candidates": -1},
        {"min_candidates": 2.5},
        {"min_candidates": True},
        {"threshold": 1.5},
        {"threshold": math.nan},
        {"normalise": "max"},
        {"variant": "matlab"},
        {"variant": "code", "normalise": "none"},
    ],
)
def test_settings_that_do_not_fit(wrong):
    with pytest.raises(ConfigError, match=f"DCSM: {list(wrong)[-1]} is "):
        DcsmSettings(**wrong)


# Which classes


ONE_SCALE = DcsmSettings(scales=(1.0,))


def test_detected_at_any_scale_and_the_most_likely_up_to_the_minimum():
    p = [[0.6, 0.1, 0.2, 0.4, 0.0], [0.4, 0.2, 0.2, 0.0, 0.1], [0.1, 0.1, 0.2, 0.1, 0.0]]
    classes = candidate_classes(p, PAPER)
    assert classes.targets.tolist() == [True, False, False, False, False]
    assert classes.candidates.tolist() == [0, 2, 3]  # sums of 1 to 4: 0.4, 0.6, 0.5, 0.1
    assert classes.detected.tolist() == [[True] + [False] * 4, [False] * 5, [False] * 5]


def test_the_first_of_equals_fills_in():
    classes = candidate_classes([[0.9, 0.2, 0.2, 0.2]], ONE_SCALE)
    assert classes.candidates.tolist() == [0, 1, 2]


def test_more_detected_classes_than_the_minimum_all_take_part():
    classes = candidate_classes([[0.9, 0.8, 0.7, 0.6, 0.1]], ONE_SCALE)
    assert classes.candidates.tolist() == [0, 1, 2, 3]
    assert classes.targets.sum() == 4


def test_the_threshold_itself_is_not_over_it():
    classes = candidate_classes([[0.5, 0.1]], ONE_SCALE)
    assert not classes.targets.any()
    assert not classes.detected.any()


def test_no_detected_class_is_no_target():
    classes = candidate_classes([[0.1, 0.3, 0.2, 0.0]], ONE_SCALE)
    assert not classes.targets.any()
    assert classes.candidates.tolist() == [0, 1, 2]
    assert classes.target_rows.tolist() == []


def test_known_tags_are_the_targets_and_false_detections_are_subtracted():
    tags = bool_array(0, 1, 0, 0, 1, 0)
    classes = candidate_classes([[0.1, 0.2, 0.9, 0.3, 0.8, 0.4]], ONE_SCALE, tags)
    assert classes.targets.tolist() == tags.tolist()
    assert classes.candidates.tolist() == [1, 2, 4]
    assert classes.classes[classes.target_rows].tolist() == [1, 4]
    more = dataclasses.replace(ONE_SCALE, min_candidates=4)
    filled = candidate_classes([[0.1, 0.2, 0.9, 0.3, 0.8, 0.4]], more, tags)
    assert filled.candidates.tolist() == [1, 2, 4, 5]
    less = dataclasses.replace(ONE_SCALE, min_candidates=1)
    assert candidate_classes([[0.1, 0.2, 0.9, 0.3, 0.8, 0.4]], less, tags).candidates.size == 3


def test_a_minimum_of_0_subtracts_nothing():
    none = dataclasses.replace(ONE_SCALE, min_candidates=0)
    classes = candidate_classes([[0.9, 0.8, 0.1]], none)
    assert classes.candidates.size == 0
    assert classes.classes.tolist() == [0, 1]
    raw = random_maps(0, 2, 3, 4)
    assert torch.equal(distinct_maps(raw, classes.target_rows, classes.candidate_rows), raw)


@few
@given(seeds, st.integers(1, 6), st.integers(0, 8), st.booleans())
def test_candidates_hold_targets_and_detected_and_are_as_many_as_asked(seed, n, least, tagged):
    rng = np.random.default_rng(seed)
    p = rng.random((2, n))
    tags = rng.random(n) < 0.3 if tagged else None
    chosen = DcsmSettings(scales=(1.0, 2.0), min_candidates=least, threshold=0.7)
    classes = candidate_classes(p, chosen, tags)
    surely = (p > 0.7).any(0) | (tags if tagged else False)
    if least == 0:
        assert classes.candidates.size == 0
        return
    assert set(np.flatnonzero(surely)) <= set(classes.candidates)
    assert len(classes.candidates) == min(n, max(least, surely.sum()))
    extra = [c for c in classes.candidates if not surely[c]]
    left = [c for c in range(n) if c not in classes.candidates]
    assert all(p[:, a].sum() >= p[:, b].sum() for a in extra for b in left)
    assert classes.classes[classes.candidate_rows].tolist() == classes.candidates.tolist()


@pytest.mark.parametrize(
    "p", [[0.5], [[0.5], [0.5]], [[math.nan, 0.1]], [[1.2, 0.1]], [[-0.2, 0.1]]]
)
def test_probabilities_that_do_not_fit(p):
    with pytest.raises(ShapeError, match="probabilities"):
        candidate_classes(p, ONE_SCALE)


@pytest.mark.parametrize("tags", [bool_array(1), np.array([1, 0])])
def test_tags_that_do_not_fit(tags):
    with pytest.raises(ShapeError, match="tags"):
        candidate_classes([[0.5, 0.5]], ONE_SCALE, tags)


# Equation 3


def test_equation_3_at_the_positions_of_the_layer():
    gradient = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    maps = layer_saliency(gradient, (9, 13), stride=4)
    assert maps.shape == (2, 9, 13)
    for k in range(2):
        for y in range(3):
            for x in range(4):
                expected = max(abs(float(v)) for v in gradient[k, :, y, x])
                assert float(maps[k, 4 * y, 4 * x]) == pytest.approx(expected, rel=1e-6)


def test_between_positions_it_is_bilinear_and_float32():
    gradient = torch.randn(1, 2, 4, 5, generator=torch.Generator().manual_seed(1))
    strongest = gradient.abs().amax(1)
    for stride in (8, None):
        maps = layer_saliency(gradient.bfloat16(), (25, 30), stride=stride)
        expected = upsample_grid(strongest.bfloat16().float()[None], (25, 30), stride)[0]
        assert maps.dtype == torch.float32
        torch.testing.assert_close(maps, expected)


def smooth_gradient():
    """Waves of one to two periods over the layer, with a phase per channel: (1, 32, 32, 32)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] / 32
    channels = [
        rng.normal() * np.sin(2 * np.pi * (a * y + b * x) + phase)
        for a, b, phase in zip(
            *rng.uniform(0, 1.4, (2, 32)), 2 * np.pi * rng.random(32), strict=True
        )
    ]
    return torch.from_numpy(np.array(channels, np.float32))[None]


def test_the_maximum_before_enlarging_is_never_smaller_and_close_where_gradients_are_smooth():
    gradient, shape = smooth_gradient(), (125, 125)
    ours = layer_saliency(gradient, shape, stride=4)[0]
    papers = upsample_grid(gradient, shape, 4)[0].abs().amax(0)
    assert (ours - papers).min() >= -1e-5
    apart = (ours - papers) / papers.max()
    assert 0 < apart.max() < 0.08
    assert apart.mean() < 0.005


@pytest.mark.parametrize("scaled", [(48, 80), (72, 120), (61, 97)])
def test_maps_of_a_scaled_photo_lie_where_they_were_seen(scaled):
    """A layer that holds its own place in the photo gives each pixel its place."""
    shape, stride = (60, 100), 4
    positions = [-(-side // stride) for side in scaled]
    y, x = (
        (stride * torch.arange(n) + 0.5) * (size / side) - 0.5
        for n, size, side in zip(positions, shape, scaled, strict=True)
    )
    place = torch.stack((y[:, None].expand(*positions), x.expand(*positions)))
    maps = layer_saliency(place[:, None] + 2, shape, stride=stride, input_shape=scaled) - 2
    inside = 6  # beyond the last position there is nothing to interpolate
    expected = torch.stack(torch.meshgrid(torch.arange(60.0), torch.arange(100.0), indexing="ij"))
    cut = (slice(None), slice(inside, -inside), slice(inside, -inside))
    torch.testing.assert_close(maps[cut], expected[cut], rtol=0, atol=1e-3)


def test_a_photo_at_its_own_size_is_the_same_by_either_way():
    maps = random_maps(3, 2, 7, 9)
    direct = dcsm._from_scaled(maps, (49, 66), 8, 0, (49, 66))
    torch.testing.assert_close(
        direct, upsample_grid(maps[None], (49, 66), 8)[0], rtol=1e-4, atol=1e-3
    )


def test_a_grid_may_begin_at_another_pixel():
    place = torch.arange(9.0)[None, None].expand(1, 7, 9) * 8 - 8  # the pixel of each position
    maps = dcsm.at_photo_size(place, (40, 60), stride=8, first=-8)[0]
    torch.testing.assert_close(maps[20, :57], torch.arange(57.0), rtol=0, atol=1e-4)
    scaled = dcsm.at_photo_size(place, (20, 30), stride=8, first=-8, input_shape=(40, 60))[0]
    expected = torch.arange(28.0) * 2 + 0.5  # the middle of two pixels
    torch.testing.assert_close(scaled[10, :28], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("bad", [torch.ones(2, 3, 4), torch.ones(2, 0, 3, 4)])
def test_gradients_of_another_shape(bad):
    with pytest.raises(ShapeError, match="gradient has shape"):
        layer_saliency(bad, (8, 8), stride=4)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_gradients_that_are_no_numbers(value):
    gradient = torch.ones(1, 2, 3, 3)
    gradient[0, 1, 2, 2] = value
    with pytest.raises(ShapeError, match="NaN or infinity"):
        layer_saliency(gradient, (8, 8), stride=4)


def test_maxima_over_channels_may_be_taken_before():
    gradient = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(2))
    place = {"stride": 8, "input_shape": (48, 56)}
    maps = at_photo_size(gradient.abs().amax(1), (60, 70), **place)
    assert torch.equal(maps, layer_saliency(gradient, (60, 70), **place))
    with pytest.raises(ShapeError, match="maps have shape"):
        at_photo_size(gradient, (60, 70), **place)


# Equation 4


@few
@given(seeds)
def test_equation_4(seed):
    classes, asked = some_classes(seed)
    raw = random_maps(seed, len(asked), 3, 5)
    rows = classes.target_rows, classes.candidate_rows
    np.testing.assert_allclose(
        distinct_maps(raw, *rows), loop_equation_4(raw, *rows), rtol=1e-5, atol=0
    )


@few
@given(seeds)
def test_torch_and_numba_agree(seed):
    classes, asked = some_classes(seed)
    raw = random_maps(seed, len(asked), 40, 60)
    rows = classes.target_rows, classes.candidate_rows
    maps, peaks = dcsm._subtracted(raw, *rows)
    torch.testing.assert_close(maps, dcsm._subtracted_by_torch(raw, *rows), rtol=1e-5, atol=0)
    assert torch.equal(peaks, dcsm._peaks(maps))
    total = torch.zeros_like(maps)
    dcsm._add_saturated(total, maps, peaks, 3.0, 0.5)
    expected = 0.5 * dcsm._saturated(maps, peaks, 3.0)
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-7)


def test_more_pixels_than_a_block_and_no_multiple_of_it():
    raw = random_maps(1, 3, 71, 97)
    assert raw[0].numel() > 2 * dcsm._BLOCK
    maps, peaks = dcsm._subtracted(raw, np.arange(3), np.arange(3))
    torch.testing.assert_close(maps, dcsm._subtracted_by_torch(raw, np.arange(3), np.arange(3)))
    assert torch.equal(peaks, maps.amax((1, 2)))


@few
@given(seeds, st.permutations([0, 1, 2, 3]))
def test_the_order_of_candidates_does_not_matter_nor_naming_one_twice(seed, order):
    raw = random_maps(seed, 4, 5, 6)
    maps = distinct_maps(raw, [0, 2], order)
    assert torch.equal(maps, distinct_maps(raw, [0, 2], [0, 1, 2, 3]))
    assert torch.equal(maps, distinct_maps(raw, [0, 2], [*order, 1]))


@few
@given(seeds, st.integers(2, 5))
def test_a_map_stays_between_0_and_the_raw_one_for_each_other_candidate(seed, n):
    raw = random_maps(seed, n, 5, 6)
    maps = distinct_maps(raw, np.arange(n), np.arange(n))
    assert (maps >= 0).all()
    assert (maps <= (n - 1) * raw * (1 + 1e-6)).all()
    # Where a class is strongest it keeps what it has over the others; the weakest keeps nothing.
    assert (maps[raw == raw.amin(0)] == 0).all()


def test_equal_maps_leave_nothing_and_a_class_alone_keeps_its_map():
    one = random_maps(5, 1, 4, 6)
    assert not distinct_maps(one.expand(3, -1, -1), [0, 1], [0, 1, 2]).any()
    assert torch.equal(distinct_maps(one, [0], [0]), one)
    assert torch.equal(distinct_maps(one, [0], []), one)


@pytest.mark.parametrize(("targets", "candidates"), [([3], [0]), ([0], [3]), ([-1], [0])])
def test_rows_that_do_not_exist(targets, candidates):
    with pytest.raises(ShapeError, match=r"not all in 0\.\.2"):
        distinct_maps(torch.ones(3, 4, 5), targets, candidates)


@pytest.mark.parametrize("shape", [(4, 5), (2, 0, 5), (1, 2, 4, 5)])
def test_raw_maps_of_another_shape(shape):
    with pytest.raises(ShapeError, match="raw has shape"):
        distinct_maps(torch.ones(shape), [0], [0])


# Equation 5


@few
@given(seeds, st.sampled_from([PAPER, LITERAL, DcsmSettings(alpha=8)]))
def test_equation_5(seed, chosen):
    classes, asked = some_classes(seed)
    steps = [random_maps(seed + i, len(asked), 4, 5) for i in range(3)]
    maps = aggregate([(0, raw) for raw in steps], classes, chosen)
    rows = classes.target_rows, classes.candidate_rows
    expected = loop_equation_5(steps, *rows, chosen.alpha, chosen.normalise == "map")
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-7)


@few
@given(seeds, st.sampled_from([PAPER, LITERAL]))
def test_blocks_are_averaged_then_their_mean_is_taken(seed, chosen):
    """4.4, at each scale: here of a block of three layers and one of one."""
    classes, asked = some_classes(seed)
    rows = classes.target_rows, classes.candidate_rows
    blocks = [[random_maps(seed + i, len(asked), 4, 5) for i in own] for own in ((0, 1, 2), (3,))]
    maps = aggregate(
        [(0, raw) for block in blocks for raw in block] * 2,
        classes,
        chosen,
        weights=(1 / 3, 1 / 3, 1 / 3, 1),
    )
    means = [
        loop_equation_5(block, *rows, chosen.alpha, chosen.normalise == "map") for block in blocks
    ]
    np.testing.assert_allclose(maps, (means[0] + means[1]) / 2, rtol=1e-5, atol=1e-7)


def test_equal_weights_are_none():
    """To the bit, so that results of blocks with equally many layers stay."""
    classes, asked = some_classes(3)
    steps = [(0, random_maps(i, len(asked), 4, 5)) for i in range(3)]
    assert torch.equal(
        aggregate(steps, classes, PAPER, weights=(1.0,) * 3), aggregate(steps, classes, PAPER)
    )


def test_the_kernels_tanh():
    x = np.concatenate((np.geomspace(1e-30, 1, 5000), np.linspace(0, 40, 50001)))
    x = x.astype(np.float32)[None]
    out = np.zeros_like(x)
    dcsm._add_tanh(x, np.ones(1, np.float32), np.float32(1), np.float32(1), out)
    np.testing.assert_allclose(out, np.tanh(x.astype(float)), rtol=4e-7, atol=0)
    assert out.max() == 1


@few
@given(seeds, st.sampled_from([1e-30, 1e-12, 0.37, 1e12]), st.sampled_from([PAPER, CODE]))
def test_the_scale_of_gradients_does_not_matter(seed, factor, chosen):
    classes, asked = some_classes(seed)
    steps = [torch.rand(len(asked), 5, 6) for _ in range(2)]
    maps = aggregate([(0, raw) for raw in steps], classes, chosen)
    scaled = aggregate([(0, raw * factor) for raw in steps], classes, chosen)
    torch.testing.assert_close(maps, scaled, rtol=1e-4, atol=1e-5)
    literal = [aggregate([(0, raw * f) for raw in steps], classes, LITERAL) for f in (1, 1e-12)]
    assert not torch.allclose(*literal)


@few
@given(seeds, st.sampled_from([PAPER, LITERAL, CODE]))
def test_values_are_in_0_1_and_other_classes_are_zero(seed, chosen):
    classes, asked = some_classes(seed, n_scales=2)
    steps = [(i % 2, random_maps(seed + i, len(asked), 4, 5)) for i in range(4)]
    scores = score_map(aggregate(steps, classes, chosen), classes.targets)
    assert scores.shape == (4, 4, 5)
    assert scores.dtype == torch.float32
    assert 0 <= scores.min() <= scores.max() <= 1
    assert not scores[torch.from_numpy(~classes.targets)].any()


def test_score_maps_hold_each_target_in_its_place():
    maps = random_maps(0, 2, 3, 4)
    scores = score_map(maps, bool_array(0, 1, 0, 1))
    assert torch.equal(scores[[1, 3]], maps)


@pytest.mark.parametrize("chosen", [PAPER, CODE])
def test_maps_without_any_saliency_stay_zero(chosen):
    raw = torch.zeros(3, 4, 5)
    raw[0] = 1
    maps = aggregate([(0, raw)], choice([1, 1, 0], [0, 1, 2]), chosen)
    assert not maps[1].any()
    assert maps[0] == pytest.approx(math.tanh(3))
    least = aggregate([(0, raw * 1e-44)], choice([1, 1, 0], [0, 1, 2]), chosen)
    assert least.isfinite().all()


@pytest.mark.parametrize("chosen", [PAPER, CODE])
def test_steps_are_taken_one_by_one(chosen):
    """A generator gives what a list gives, and no more than the last two steps are alive."""
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    def stream():
        nonlocal most
        for i in range(6):
            raw = random_maps(i, 3, 8, 9)
            alive.add(raw)
            most = max(most, len(alive))
            yield i % 3, raw
            del raw

    classes = choice([1, 0, 1], [0, 1, 2], n_scales=3)
    streamed = aggregate(stream(), classes, chosen)
    at_once = aggregate([(i % 3, random_maps(i, 3, 8, 9)) for i in range(6)], classes, chosen)
    assert torch.equal(streamed, at_once)
    assert most <= 2


def test_steps_may_use_autograd_and_give_maps_with_a_graph():
    weight = torch.ones(2, 1, 1, requires_grad=True)

    def stream():
        assert torch.is_grad_enabled()
        yield 0, random_maps(0, 2, 3, 4) * weight

    for chosen in (PAPER, CODE):
        assert not aggregate(stream(), choice([1, 1], [0, 1]), chosen).requires_grad
    assert not distinct_maps(torch.ones(2, 3, 4) * weight, [0], [1]).requires_grad


def test_padding_takes_no_part():
    raw = random_maps(0, 3, 6, 8)
    raw[:, 0] = 1e6 * torch.rand(3, 8)
    photo = (slice(1, 5), slice(2, 8))
    classes = choice([1, 1, 0], [0, 1, 2])
    inside = aggregate([(0, raw[:, 1:5, 2:8])], classes, PAPER)
    assert torch.equal(aggregate([(0, raw)], classes, PAPER, photo=photo), inside)
    assert not torch.allclose(aggregate([(0, raw)], classes, PAPER)[:, 1:5, 2:8], inside)


def test_no_target_is_no_map():
    for chosen in (PAPER, CODE):
        maps = aggregate([(0, torch.ones(3, 4, 5))], choice([0, 0, 0], [0, 1, 2]), chosen)
        assert maps.shape == (0, 4, 5)


@pytest.mark.parametrize("chosen", [PAPER, CODE])
def test_steps_that_do_not_fit(chosen):
    classes, good = choice([1, 0], [0, 1]), torch.ones(2, 4, 5)
    for steps, message in (
        ([], "no maps"),
        ([(0, torch.ones(3, 4, 5))], r"give \(2, 4, 5\)"),
        ([(0, good), (0, torch.ones(2, 5, 4))], r"give \(2, 4, 5\)"),
        ([(0, torch.ones(2, 4))], "raw maps have shape"),
        ([(1, good)], "no scale 1"),
        ([(-1, good)], "no scale -1"),
    ):
        with pytest.raises(ShapeError, match=message):
            aggregate(steps, classes, chosen)


# The authors' program


@few
@given(seeds)
def test_the_authors_program(seed):
    classes, asked = some_classes(seed, n_scales=2)
    steps = [(i % 2, random_maps(seed + i, len(asked), 6, 7)) for i in range(4)]
    crop = (slice(1, 5), slice(0, 6))
    maps = aggregate(steps, classes, CODE, photo=crop)
    rows = classes.target_rows, classes.candidate_rows
    expected = loop_code(steps, *rows, classes.detected[:, asked], crop)
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)


def test_scales_that_did_not_detect_a_class_are_left_out_by_the_program():
    a, b = random_maps(0, 2, 5, 6), random_maps(1, 2, 5, 6)
    detected = [[True, True], [False, True]]
    both = aggregate([(0, a), (1, b)], choice([1, 1], [0, 1], detected=detected), CODE)
    first = aggregate([(0, a)], choice([1, 1], [0, 1]), CODE)
    assert torch.equal(both[0], first[0])
    assert not torch.equal(both[1], first[1])


# Background and unary


@few
@given(seeds, st.integers(0, 3))
def test_equation_7(seed, n):
    maps = torch.from_numpy(np.random.default_rng(seed).random((n, 3, 4), np.float32))
    every = with_background(maps)
    assert torch.equal(every[1:], maps)
    for y in range(3):
        for x in range(4):
            most = max([0.0, *map(float, maps[:, y, x])])
            assert float(every[0, y, x]) == pytest.approx(1 - most, abs=1e-7)
    assert len(every) == len(labels_of_tags(np.ones(n, bool)))


def test_the_unary_of_equation_6_is_finite():
    maps = torch.tensor([0.0, 1e-30, 1e-10, 0.25, 1.0]).view(5, 1, 1)
    before = maps.clone()
    costs = unary(maps).flatten().tolist()
    most = -math.log(1e-20)
    assert costs == pytest.approx([most, most, -math.log(1e-10), math.log(4), 0], abs=1e-5)
    assert torch.equal(maps, before)
