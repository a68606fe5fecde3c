"""The maps behind SEC's background cues, and how they come to the photo's pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from guided_runs import few_photos, open_run
from small_runs import options
from tagseg.data.transforms import resize_batch
from tagseg.localize.background_cues import background_saliency
from tagseg.nets.gap import GapClassifier
from tagseg.nets.tiny import Tiny
from tagseg.recipes.sec import background_maps as module
from tagseg.recipes.sec.background_maps import background_maps, sure_pixels
from tagseg.stages.stage import Trained


@pytest.fixture
def run(photos, tmp_path: Path):
    with open_run(few_photos(photos), tmp_path / "run") as run:
        yield run


def classifier(n_classes: int) -> GapClassifier:
    torch.manual_seed(0)
    net = GapClassifier(Tiny(), n_classes, hidden=8, hidden_layers=1).eval()
    nn.init.normal_(net.scores.weight)
    return net


def trained(run) -> Trained[GapClassifier]:
    """A classifier, and a finished stage that stands for its training."""
    with run.stage("seeder", {}, [run.photos_key]) as stage:
        pass
    return Trained(classifier(len(run.photos.classes)), stage)


@pytest.mark.parametrize("side", [64, 100])
def test_maps_are_the_gradients_of_all_photos_on_the_classifiers_grid(run, side):
    """Of the one without tags, the unknown one and the one of a single row, too."""
    seeder = trained(run)
    net, maps = seeder.model, background_maps(run, seeder, side=side)
    assert maps.stage.name == "background-maps"
    for index in range(len(run.photos)):
        image = torch.from_numpy(run.photos.image(index)).permute(2, 0, 1)[None].float() / 255
        image = resize_batch(image, side / max(image.shape[2:]))
        assert max(image.shape[2:]) == side
        expected = background_saliency(net, image)[0].numpy()
        found = maps(index)
        assert found.dtype == np.float32
        assert found.shape == tuple(-(-length // 8) for length in image.shape[2:])
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_finished_maps_are_read_and_not_made_again(run, monkeypatch):
    seeder = trained(run)
    first = background_maps(run, seeder, side=64)(1)
    monkeypatch.setattr(module, "background_saliency", None)
    np.testing.assert_array_equal(background_maps(run, seeder, side=64)(1), first)


def test_low_precision(photos, tmp_path):
    """bfloat16 is asked for inside; the loop's own autocast must be off."""
    with open_run(few_photos(photos), tmp_path / "low", options=options(precision="bf16")) as run:
        low = background_maps(run, trained(run), side=64)(1)
    with open_run(few_photos(photos), tmp_path / "full") as run:
        full = background_maps(run, trained(run), side=64)(1)
    assert low.dtype == np.float32
    assert np.abs(low - full).max() < 0.2 * full.max()
    assert not np.array_equal(low, full)


# Pixels


def slow_sure(positions, shape, stride):
    """Bilinear interpolation between the positions stride * i, pixel by pixel."""
    height, width = positions.shape
    out = np.zeros(shape, bool)
    for y in range(shape[0]):
        for x in range(shape[1]):
            v, u = min(y / stride, height - 1), min(x / stride, width - 1)
            i, j = int(v), int(u)
            a, b = v - i, u - j
            k, m = min(i + 1, height - 1), min(j + 1, width - 1)
            value = (
                (1 - a) * (1 - b) * positions[i, j]
                + (1 - a) * b * positions[i, m]
                + a * (1 - b) * positions[k, j]
                + a * b * positions[k, m]
            )
            out[y, x] = value > 0.5
    return out


@pytest.mark.parametrize("shape", [(41, 57), (40, 56), (1, 40), (33, 1), (1, 1)])
@pytest.mark.parametrize("stride", [8, 16])
def test_sure_pixels_equal_the_loop(shape, stride):
    grid = tuple(-(-side // stride) for side in shape)
    for seed in range(3):
        positions = np.random.default_rng(seed).random(grid) < 0.4
        found = sure_pixels(positions, shape, stride, side=max(shape))
        assert (found.dtype, found.shape) == (np.bool_, shape)
        np.testing.assert_array_equal(found, slow_sure(positions, shape, stride))
        # The segmenter learns at these pixels: there the cues are those of the grid.
        np.testing.assert_array_equal(found[::stride, ::stride], positions)


def test_positions_in_the_middles_of_cells():
    """Without a grid stride: each cell of 8 x 8 pixels surrounds its position."""
    positions = np.array([[True, False, False], [True, True, False]])
    found = sure_pixels(positions, (16, 24), None, side=24)
    np.testing.assert_array_equal(found[4::8, 4::8], positions)
    assert found[:, :8].all()
    assert not found[:, 16:].any()


@pytest.mark.parametrize("sure", [False, True])
def test_all_or_nothing(sure):
    assert (sure_pixels(np.full((5, 7), sure), (40, 56), 8, side=56) == sure).all()


def test_pixels_in_a_row_go_to_the_nearer_position():
    positions = np.array([[True, False, True, True]])
    found = sure_pixels(positions, (1, 32), 8, side=32)[0]
    expected = [(x + 4) // 8 != 1 for x in range(32)]
    # Half way between two positions, neither is nearer: such pixels are not sure.
    expected[4] = expected[12] = False
    assert found.tolist() == expected


@pytest.mark.parametrize(("shape", "side"), [((30, 40), 80), ((96, 64), 48), ((1, 40), 80)])
def test_a_grid_of_a_larger_or_smaller_photo(shape, side):
    """A photo that the classifier saw at another size: a border in it stays where it was."""
    seen = [max(1, round(length * side / max(shape))) for length in shape]
    for axis in (0, 1):
        if shape[axis] == 1:
            continue
        grid = [-(-length // 8) for length in seen]
        half = np.arange(grid[axis]) * 8 < seen[axis] / 2
        positions = np.broadcast_to(half if axis else half[:, None], grid).copy()
        found = sure_pixels(positions, shape, 8, side=side)
        assert found.shape == shape
        wide = found.mean() * shape[axis]
        # The border lies between two positions, half way; in pixels of the photo:
        expected = (8 * (half.sum() - 1) + 4) * shape[axis] / seen[axis]
        assert abs(wide - expected) <= 1.01
