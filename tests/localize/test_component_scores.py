from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tagseg.fuse.guide_labels import component_guide, salient_components
from tagseg.localize.component_scores import score_changes
from tagseg.nets.gap import GapClassifier
from tagseg.nets.tiny import Tiny
from tagseg.training import Execution

EXECUTION = Execution()
FILL = (10, 200, 90)


def classifier(n_classes: int = 3) -> GapClassifier:
    torch.manual_seed(0)
    net = GapClassifier(Tiny(), n_classes, hidden=8, hidden_layers=1).eval()
    nn.init.normal_(net.scores.weight, std=30)  # squares are small, and so are their scores
    return net


def photo(height: int = 40, width: int = 56) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def squares(count: int, height: int = 40, width: int = 56) -> Any:
    """``count`` components of 4 x 4 pixels, numbered in no order of place."""
    components = np.zeros((height, width), np.int32)
    places = [(y, x) for y in range(1, height - 4, 6) for x in range(1, width - 4, 6)]
    order = np.random.default_rng(1).permutation(len(places))[:count]
    for number, place in enumerate(order, start=1):
        y, x = places[place]
        components[y : y + 4, x : x + 4] = number
    return components


def one_by_one(net: nn.Module, image: Any, components: Any, fill: Any) -> Any:
    """Hide by hand, pixel by pixel; one photo a pass, in float64."""
    net = net.double()

    def scores(picture: Any) -> Any:
        x = torch.from_numpy(picture.astype(np.float64)).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            return net(x)[0].numpy()

    whole, rows = scores(image), []
    for number in range(1, components.max() + 1):
        hidden = image.copy()
        for y in range(image.shape[0]):
            for x in range(image.shape[1]):
                if components[y, x] != number:
                    hidden[y, x] = fill
        rows.append(scores(hidden) - whole)
    return np.array(rows)


@pytest.mark.parametrize("count", [1, 3, 15, 16, 17, 33])
def test_equals_hiding_by_hand(count: int) -> None:
    """15 components fill a batch together with the whole photo; 16 need a second one."""
    image, components = photo(), squares(count)
    changes = score_changes(classifier(), image, components, fill=FILL, execution=EXECUTION)
    assert changes.shape == (count, 3)
    assert changes.dtype == np.float32
    expected = one_by_one(classifier(), image, components, FILL)
    np.testing.assert_allclose(changes, expected, atol=1e-4)
    assert count == 1 or np.ptp(expected, axis=0).min() > 3e-3


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (7, 30)])
def test_small_photos(shape: tuple[int, int]) -> None:
    components = np.ones(shape, np.int32)
    changes = score_changes(classifier(), photo(*shape), components, fill=FILL, execution=EXECUTION)
    np.testing.assert_allclose(changes, np.zeros((1, 3)), atol=1e-5)  # nothing is hidden


def test_without_components_there_is_nothing_to_say() -> None:
    nothing = np.zeros((40, 56), np.int32)
    changes = score_changes(classifier(), photo(), nothing, fill=FILL, execution=EXECUTION)
    assert changes.shape == (0, 3)
    guide = component_guide(nothing, changes, np.array([True, False, True]))
    assert not guide.any()


def test_hidden_pixels_are_zero_in_the_networks_input_up_to_rounding() -> None:
    """The paper's product with the mask: with the mean colour for ``fill``."""
    net = classifier()
    seen: list[Tensor] = []
    net.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    fill = net.backbone.preprocessing.mean_colour
    components = squares(2)
    score_changes(net, photo(), components, fill=fill, execution=EXECUTION)
    normalised = net.backbone.normalise(torch.cat(seen))
    for number in (1, 2):
        hidden = torch.from_numpy(components != number)
        assert normalised[number][:, hidden].abs().max() < 0.01
        assert normalised[number][:, ~hidden].abs().max() > 0.5


def test_nothing_is_changed_and_no_graph_is_kept() -> None:
    net, image, components = classifier(), photo(), squares(2)
    kept = image.copy(), components.copy()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    score_changes(net, image, components, fill=FILL, execution=EXECUTION)
    np.testing.assert_array_equal(image, kept[0])
    np.testing.assert_array_equal(components, kept[1])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_low_precision_gives_nearly_the_same() -> None:
    image, components = photo(), squares(5)
    full, low = (
        score_changes(
            classifier(), image, components, fill=FILL, execution=Execution(precision=precision)
        )
        for precision in (torch.float32, torch.bfloat16)
    )
    assert low.dtype == np.float32
    np.testing.assert_allclose(low, full, atol=0.1 * np.abs(full).max())
    assert not np.array_equal(low, full)


class Red(nn.Module):
    """Score 0 is the mean of red, score 1 of blue, at least as seen in [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, [0, 2]].mean((2, 3))


def test_the_class_of_a_component_is_the_one_that_its_pixels_speak_for() -> None:
    """G1 by hand: a red square and a blue one on grey; each takes the class of its colour."""
    image = np.full((30, 40, 3), 128, np.uint8)
    image[5:15, 5:15], image[15:25, 22:32] = (255, 0, 0), (0, 0, 255)
    salient = (image != 128).any(2)
    parts = salient_components(salient, min_fraction=0.01)
    changes = score_changes(Red(), image, parts, fill=(128, 128, 128), execution=EXECUTION)
    guide = component_guide(parts, changes, np.array([True, True]))
    assert set(guide[5:15, 5:15].ravel()) == {1}
    assert set(guide[15:25, 22:32].ravel()) == {2}
    assert guide.astype(bool).sum() == 200
    # Without the red square's neighbour the mean of red can only rise, and blue's only fall.
    assert (np.sign(changes) == [[1, -1], [-1, 1]]).all()
