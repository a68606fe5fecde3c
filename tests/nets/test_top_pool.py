"""The classifier whose scores are half the mean and half the top of its maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sampled import Sampled
from tagseg.errors import ConfigError
from tagseg.localize import class_activation_maps
from tagseg.nets.top_pool import TopPoolClassifier, pooled


def classifier(n_classes: int = 4, **changed: float) -> TopPoolClassifier:
    torch.manual_seed(0)
    net = TopPoolClassifier(Sampled(), n_classes, **changed)
    nn.init.normal_(net.scores.weight)
    return net


def loop_pooled(maps: np.ndarray, fraction: float) -> np.ndarray:
    """One photo, class and position after another."""
    photos, classes, height, width = maps.shape
    count = max(1, int(fraction * height * width))
    out = np.zeros((photos, classes))
    for photo in range(photos):
        for label in range(classes):
            values = [float(maps[photo, label, y, x]) for y in range(height) for x in range(width)]
            strongest = sorted(values, reverse=True)[:count]
            out[photo, label] = (sum(values) / len(values) + sum(strongest) / count) / 2
    return out


SEEDS = st.integers(0, 10_000)
QUICK = settings(max_examples=40, deadline=None, derandomize=True)
SIDES = st.integers(1, 7)
FRACTIONS = st.floats(0.001, 1.0)


def random_maps(seed: int, height: int, width: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(-1, 2, (2, 3, height, width)).round(1))  # some are equal


# Pooling


@QUICK
@given(seed=SEEDS, height=SIDES, width=SIDES, fraction=FRACTIONS)
def test_pooling_equals_the_loop(seed: int, height: int, width: int, fraction: float) -> None:
    maps = random_maps(seed, height, width)
    found = pooled(maps, fraction)
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found.numpy(), loop_pooled(maps.numpy(), fraction), atol=1e-12)


@QUICK
@given(seed=SEEDS, side=SIDES, fractions=st.tuples(FRACTIONS, FRACTIONS))
def test_a_score_lies_between_mean_and_maximum_and_falls_with_the_fraction(
    seed: int, side: int, fractions: tuple[float, float]
) -> None:
    maps = random_maps(seed, side, side + 1)
    mean, most = maps.mean((2, 3)), maps.amax((2, 3))
    few, many = (pooled(maps, fraction) for fraction in sorted(fractions))
    assert (many <= few + 1e-12).all()
    assert (mean <= many + 1e-12).all()
    assert (few <= (mean + most) / 2 + 1e-12).all()


@QUICK
@given(seed=SEEDS, fraction=FRACTIONS, shift=st.floats(-5, 5), factor=st.floats(0, 3))
def test_places_do_not_matter_and_scores_follow_shift_and_factor(
    seed: int, fraction: float, shift: float, factor: float
) -> None:
    maps = random_maps(seed, 4, 5)
    scores = pooled(maps, fraction)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(20))
    moved = maps.flatten(2)[..., order].unflatten(2, (5, 4))
    torch.testing.assert_close(pooled(moved, fraction), scores)
    torch.testing.assert_close(pooled(factor * maps + shift, fraction), factor * scores + shift)


def test_one_position_at_least_and_all_at_most() -> None:
    maps = torch.tensor([[[[0.0, 4.0], [1.0, 3.0]]]])
    assert pooled(maps, 0.01).item() == (2 + 4) / 2
    assert pooled(maps, 0.5).item() == (2 + 3.5) / 2
    assert pooled(maps, 0.74).item() == (2 + 3.5) / 2
    assert pooled(maps, 1.0).item() == 2


def test_the_gradient_reaches_all_positions_and_the_top_most() -> None:
    maps = random_maps(3, 5, 4).float().requires_grad_()
    with torch.no_grad():
        maps += torch.arange(20).view(5, 4) * 1e-3  # none are equal
    pooled(maps, 0.2).sum().backward()
    assert maps.grad is not None
    gradient, least = maps.grad.flatten(2), 0.5 / 20
    top = maps.detach().flatten(2).topk(4).indices
    expected = torch.full_like(gradient, least).scatter(2, top, least + 0.5 / 4)
    torch.testing.assert_close(gradient, expected)
    assert torch.autograd.gradcheck(
        lambda x: pooled(x, 0.3), maps.detach().double().requires_grad_()
    )


# The network


@pytest.mark.parametrize("fraction", [0.1, 0.2, 1.0])
def test_class_maps_are_a_convolution_and_pool_to_the_scores(fraction: float) -> None:
    net = classifier(fraction=fraction).double().eval()
    x = torch.rand(2, 3, 40, 33, dtype=torch.float64)
    with torch.inference_mode():
        maps, scores, features = net.class_maps(x), net(x), net.backbone(x)
    assert maps.shape == (2, 4, 5, 5)
    for photo in range(2):
        for label in range(4):
            expected = torch.full((5, 5), net.scores.bias[label].item(), dtype=torch.float64)
            for unit in range(6):
                weight = net.scores.weight[label, unit, 0, 0].detach()
                expected += weight * features[photo, unit]
            torch.testing.assert_close(maps[photo, label], expected)
    assert torch.equal(pooled(maps, fraction), scores)
    np.testing.assert_allclose(scores.numpy(), loop_pooled(maps.numpy(), fraction))


def test_every_parameter_and_every_position_learns() -> None:
    net = classifier().eval()
    features: list[Tensor] = []
    net.dropout.register_forward_hook(lambda _, given, __: features.append(given[0]))
    x = torch.rand(2, 3, 40, 40)
    net.backbone.register_forward_hook(lambda _, __, output: output.retain_grad())
    net(x).sum().backward()
    (seen,) = features
    assert seen.grad is not None
    assert seen.grad.abs().amin().item() > 0
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_channels_drop_out_in_training_only() -> None:
    net, x = classifier(dropout=0.5), torch.rand(1, 3, 24, 24)
    with torch.inference_mode():
        assert not torch.equal(net.class_maps(x), net.class_maps(x))
        net.eval()
        assert torch.equal(net.class_maps(x), net.class_maps(x))
        whole = net.class_maps(x)
        net.dropout.p = 0.0
        assert torch.equal(net.train().class_maps(x), whole)


def test_at_first_classes_are_rare() -> None:
    torch.manual_seed(0)
    net = TopPoolClassifier(Sampled(), 5).eval()
    assert net.scores.bias is not None
    with torch.inference_mode():
        told = net(torch.rand(3, 3, 40, 40)).sigmoid()
    assert told.shape == (3, 5)
    assert (told > 0.05).all()
    assert (told < 0.25).all()


def test_activation_maps_are_its_class_maps() -> None:
    net, x = classifier().eval(), torch.rand(2, 3, 40, 33)
    with torch.inference_mode():
        torch.testing.assert_close(class_activation_maps(net, x), net.class_maps(x))


def test_parameter_groups_hold_every_parameter_once() -> None:
    net = classifier()
    groups = {group["name"]: list(map(id, group["params"])) for group in net.parameter_groups()}  # type: ignore[call-overload]
    assert list(groups) == ["backbone", "score"]
    assert groups["backbone"] == list(map(id, net.backbone.parameters()))
    assert sorted(groups["backbone"] + groups["score"]) == sorted(map(id, net.parameters()))
    torch.optim.SGD(net.parameter_groups(), lr=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_classes": 0}, "0 classes"),
        ({"fraction": 0.0}, "fraction is 0.0"),
        ({"fraction": 1.01}, "fraction is 1.01"),
        ({"fraction": float("nan")}, "fraction is nan"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_impossible_numbers_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TopPoolClassifier(**{"backbone": Sampled(), "n_classes": 3, **change})  # type: ignore[arg-type]
