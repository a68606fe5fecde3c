from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tagseg.errors import ShapeError
from tagseg.nets import masked_pooling
from tagseg.nets.masked_pooling import RegionCells, masked_roi_pool, region_cells

Grid = tuple[int, int]


@pytest.fixture(params=["kernel", "tensors"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel for CPUs, and what other devices get, run on a CPU."""
    if request.param == "tensors":
        ways = masked_pooling._tensor_forward, masked_pooling._tensor_backward
        monkeypatch.setattr(masked_pooling, "_ways", lambda device: ways)


# Section 4.2 word by word


def slow_cell(pixel: int, length: int, cells: int, stride: int | None, seen: int) -> int:
    """The cell that a pixel lies in, in exact fractions."""
    if stride is None:
        return floor(Fraction(pixel * cells, length))
    place = Fraction(2 * pixel + 1, 2) * Fraction(seen, length) - Fraction(1, 2)
    return min(range(cells), key=lambda i: (abs(place - stride * i), -i))


def slow_cells(
    regions: Any, grid: Grid, stride: int | None, seen: Grid | None = None
) -> dict[tuple[int, int], set[tuple[int, int]]]:
    """The cells of each (photo, region)."""
    photos, height, width = regions.shape
    seen = seen or (height, width)
    rows = [slow_cell(y, height, grid[0], stride, seen[0]) for y in range(height)]
    columns = [slow_cell(x, width, grid[1], stride, seen[1]) for x in range(width)]
    found: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for b in range(photos):
        for y in range(height):
            for x in range(width):
                if regions[b, y, x] >= 0:
                    region = (b, int(regions[b, y, x]))
                    found.setdefault(region, set()).add((rows[y], columns[x]))
    return dict(sorted(found.items()))


def box_of(cells: set[tuple[int, int]]) -> tuple[int, int, int, int]:
    ys, xs = [y for y, _ in cells], [x for _, x in cells]
    return min(ys), min(xs), max(ys) - min(ys) + 1, max(xs) - min(xs) + 1


def slow_pool(
    features: Any, regions: dict[tuple[int, int], set[tuple[int, int]]], given: Any, size: int
) -> tuple[Any, Any]:
    """Pooled features (R, C, size, size), and the gradient of their sum weighted by ``given``."""
    channels = features.shape[1]
    pooled = np.zeros((len(regions), channels, size, size))
    gradient = np.zeros_like(features)
    for r, ((b, _), cells) in enumerate(regions.items()):
        top, left, height, width = box_of(cells)
        for i in range(size):
            for j in range(size):
                rows = range(floor(i * height / size), ceil((i + 1) * height / size))
                columns = range(floor(j * width / size), ceil((j + 1) * width / size))
                places = [(top + y, left + x) for y in rows for x in columns]
                inside = [place for place in places if place in cells]
                for c in range(channels):
                    best = 0.0 if len(inside) < len(places) else -np.inf
                    winner = None
                    for y, x in inside:
                        if features[b, c, y, x] > best:
                            best, winner = features[b, c, y, x], (y, x)
                    pooled[r, c, i, j] = best
                    if winner is not None:
                        gradient[b, c, winner[0], winner[1]] += given[r, c, i, j]
    return pooled, gradient


def patches(rng: np.random.Generator, shape: tuple[int, int, int], count: int) -> Any:
    """Regions around random points, some of which are taken out."""
    photos, height, width = shape
    y, x = np.mgrid[:height, :width]
    maps = []
    for _ in range(photos):
        centres = rng.random((count, 2)) * (height, width)
        distance = (y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2
        regions = distance.argmin(-1).astype(np.int32)
        regions[np.isin(regions, np.flatnonzero(rng.random(count) < 0.2))] = -1
        maps.append(regions)
    return np.stack(maps)


def whole(shape: tuple[int, int, int]) -> Any:
    return np.zeros(shape, np.int32)


def single_pixels(shape: tuple[int, int, int]) -> Any:
    """Regions of one pixel in every corner and in the middle, nothing else."""
    regions = np.full(shape, -1, np.int32)
    _, height, width = shape
    for n, (y, x) in enumerate([(0, 0), (0, -1), (-1, 0), (-1, -1), (height // 2, width // 2)]):
        regions[:, y, x] = 2 * n
    return regions


def stripes(shape: tuple[int, int, int]) -> Any:
    """A region in parts, whose box holds mostly others, and one pixel that is its own region."""
    regions = np.broadcast_to(np.arange(shape[2]) % 5 // 2, shape).astype(np.int32).copy()
    regions[-1, -1, -1] = 7
    return regions


RNG = np.random.default_rng(0)
CASES: dict[str, tuple[Any, Grid, int | None]] = {
    "stride 8": (patches(RNG, (2, 61, 83), 12), (8, 11), 8),
    "stride 16": (patches(RNG, (2, 125, 90), 30), (8, 6), 16),
    "cells in the middle": (patches(RNG, (2, 61, 83), 12), (8, 11), None),
    "odd, cells in the middle": (patches(RNG, (1, 37, 50), 9), (5, 7), None),
    "one region over all": (whole((2, 90, 130)), (12, 17), 8),
    "one pixel each": (single_pixels((2, 41, 57)), (6, 8), 8),
    "one pixel each, cells in the middle": (single_pixels((1, 41, 57)), (6, 8), None),
    "stripes": (stripes((2, 30, 40)), (4, 5), 8),
    "a grid of one cell": (patches(RNG, (3, 8, 8), 4), (1, 1), 8),
    "a photo of one pixel": (whole((1, 1, 1)), (1, 1), 16),
    "more positions than the photo has room for": (patches(RNG, (1, 20, 20), 5), (5, 6), 8),
    "a cell per pixel": (patches(RNG, (1, 15, 18), 6), (15, 18), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_cells_of_regions(name: str) -> None:
    regions, grid, stride = CASES[name]
    cells = region_cells(regions, grid, stride)
    expected = slow_cells(regions, grid, stride)
    assert cells.ids.tolist() == [list(region) for region in expected]
    assert cells.grid == (len(regions), *grid)
    assert cells.boxes.tolist() == [list(box_of(found)) for found in expected.values()]
    for r, found in enumerate(expected.values()):
        top, left, height, width = box_of(found)
        inside = cells.inside[cells.offsets[r] : cells.offsets[r + 1]].reshape(height, width)
        assert {(top + y, left + x) for y, x in np.argwhere(inside).tolist()} == found


@pytest.mark.parametrize("size", [7, 3, 1])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("way")
def test_pooling_and_its_gradient(name: str, size: int) -> None:
    """Features of both signs: with negative ones zeros from outside win often."""
    regions, grid, stride = CASES[name]
    rng = np.random.default_rng(1)
    features = rng.normal(size=(len(regions), 5, *grid))
    cells = region_cells(regions, grid, stride)
    given = rng.normal(size=(len(cells.ids), 5, size, size))
    pooled, gradient = slow_pool(features, slow_cells(regions, grid, stride), given, size)
    x = torch.from_numpy(features).requires_grad_()
    found = masked_roi_pool(x, cells, size)
    found.backward(torch.from_numpy(given))
    np.testing.assert_array_equal(found.detach().numpy(), pooled)
    np.testing.assert_allclose(x.grad, gradient, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("way")
def test_ties_go_to_the_first_cell_and_to_zeros_from_outside(name: str) -> None:
    """Features after a ReLU in few levels, as many zeros as in real ones."""
    regions, grid, stride = CASES[name]
    rng = np.random.default_rng(2)
    features = rng.integers(-2, 3, (len(regions), 40, *grid)).clip(0).astype(np.float32)
    cells = region_cells(regions, grid, stride)
    given = rng.integers(-3, 4, (len(cells.ids), 40, 7, 7)).astype(np.float32)
    pooled, gradient = slow_pool(features, slow_cells(regions, grid, stride), given, 7)
    x = torch.from_numpy(features).to(memory_format=torch.channels_last).requires_grad_()
    found = masked_roi_pool(x, cells)
    found.backward(torch.from_numpy(given))
    np.testing.assert_array_equal(found.detach().numpy(), pooled)
    np.testing.assert_array_equal(x.grad, gradient)  # sums of small whole numbers are exact


@pytest.mark.usefixtures("way")
def test_it_is_adaptive_pooling_of_what_is_left_in_the_box() -> None:
    """PyTorch's own bins and derivatives, region by region."""
    regions, grid, stride = CASES["stride 8"]
    cells = region_cells(regions, grid, stride)
    torch.manual_seed(0)
    x = torch.randn(len(regions), 6, *grid, dtype=torch.float64, requires_grad=True)
    given = torch.randn(len(cells.ids), 6, 7, 7, dtype=torch.float64)
    (expected,) = torch.autograd.grad((by_region(x, cells) * given).sum(), x)
    found = masked_roi_pool(x, cells)
    assert torch.equal(found, by_region(x, cells))
    (gradient,) = torch.autograd.grad((found * given).sum(), x)
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=0)
    assert torch.autograd.gradcheck(lambda f: masked_roi_pool(f, cells, 2), x)


def by_region(x: Tensor, cells: RegionCells) -> Tensor:
    pooled = []
    for r, (photo, _) in enumerate(cells.ids):
        top, left, height, width = cells.boxes[r]
        box = x[photo, :, top : top + height, left : left + width]
        inside = cells.inside[cells.offsets[r] : cells.offsets[r + 1]].reshape(height, width)
        pooled.append(functional.adaptive_max_pool2d(box * torch.from_numpy(inside), 7))
    return torch.stack(pooled)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seen=st.one_of(st.none(), st.tuples(st.integers(1, 40), st.integers(1, 40))),
    stride=st.sampled_from([None, 1, 5, 8]),
    seed=st.integers(0, 99),
)
def test_any_map_of_any_size(
    height: int, width: int, seen: Grid | None, stride: int | None, seed: int
) -> None:
    """Each region has cells, also where the network saw the photo at another size."""
    rng = np.random.default_rng(seed)
    regions = rng.integers(-1, 6, (2, height, width), np.int32)
    grid = tuple(-(-side // (stride or 8)) for side in seen or (height, width))
    cells = region_cells(regions, grid, stride, seen=seen)  # type: ignore[arg-type]
    expected = slow_cells(regions, grid, stride, seen)  # type: ignore[arg-type]
    assert cells.ids.tolist() == [list(region) for region in expected]
    assert cells.boxes.tolist() == [list(box_of(found)) for found in expected.values()]
    assert (
        [int(n) for n in np.add.reduceat(cells.inside, cells.offsets[:-1])]
        == [len(found) for found in expected.values()]
        if len(expected)
        else not len(cells.inside)
    )


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_changes_no_bit() -> None:
    regions, grid, stride = CASES["stride 8"]
    cells = region_cells(regions, grid, stride)
    torch.manual_seed(0)
    x = torch.randn(2, 200, *grid, requires_grad=True)
    given = torch.randn(len(cells.ids), 200, 7, 7)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        pooled = masked_roi_pool(x, cells)
        results.append((pooled, *torch.autograd.grad((pooled * given).sum(), x)))
    for pooled, gradient in results[1:]:
        assert torch.equal(pooled, results[0][0])
        assert torch.equal(gradient, results[0][1])


@pytest.mark.usefixtures("way")
def test_memory_stays_channels_last() -> None:
    cells = region_cells(whole((2, 40, 48)), (5, 6), 8)
    x = torch.rand(2, 3, 5, 6).to(memory_format=torch.channels_last).requires_grad_()
    pooled = masked_roi_pool(x, cells)
    assert pooled.permute(0, 2, 3, 1).is_contiguous()
    (gradient,) = torch.autograd.grad(pooled.sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("way")
def test_low_precision_is_pooled_as_float32() -> None:
    cells = region_cells(whole((1, 40, 48)), (5, 6), 8)
    x = torch.rand(1, 3, 5, 6).bfloat16().requires_grad_()
    pooled = masked_roi_pool(x, cells)
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, masked_roi_pool(x.detach().float(), cells))
    pooled.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16


@pytest.mark.usefixtures("way")
def test_without_regions_there_is_nothing_to_pool() -> None:
    cells = region_cells(np.full((2, 16, 16), -1), (2, 2), 8)
    x = torch.rand(2, 3, 2, 2, requires_grad=True)
    pooled = masked_roi_pool(x, cells)
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        (np.zeros((4, 4), np.int32), "regions is a int32 array of shape"),
        (np.zeros((1, 4, 4), np.float32), "give integers"),
        (np.zeros((1, 0, 4), np.int32), "give integers"),
        (np.full((1, 4, 4), -2, np.int32), "holds ids from -2 to -2"),
        (np.full((1, 4, 4), 2**31 - 1, np.int32), "number the regions of a photo from 0"),
    ],
    ids=["two dimensions", "floats", "empty", "below -1", "far too high"],
)
def test_what_is_no_region_map(regions: Any, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        region_cells(regions, (1, 1), 8)


@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (2, 3, 2, 3)])
def test_features_of_another_batch(shape: tuple[int, int, int, int]) -> None:
    cells = region_cells(whole((2, 16, 16)), (2, 2), 8)
    with pytest.raises(ShapeError, match="give both for the same batch"):
        masked_roi_pool(torch.rand(shape), cells)
