"""Seeds by gradients, against float64 loops that are written from the papers."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts import Localize, LocalizerContract, mirror_symmetric
from tagseg.errors import ConfigError
from tagseg.localize.dcsm import DcsmSettings
from tagseg.localize.seeds import (
    DistinctSeeder,
    GradientSeeder,
    Square,
    feature_layers,
    probabilities,
)
from tagseg.nets.backbone import Activations, Backbone, FeatureBlock, Preprocessing
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier
from tagseg.nets.tiny import Tiny

SIDE = 25


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.ReLU())


class Small(Backbone):
    """Five blocks of few channels, the third of two layers; strides by steps, or by 2 x 2 pools."""

    name, block4_channels, out_channels = "small", 6, 6

    def __init__(self, pools: bool, moved: bool = False) -> None:
        super().__init__(4)
        self.firsts = (0, 1, 3, 3, 3) if moved else (0,) * 5
        step = 1 if pools else 2
        self.one, self.two = block(3, 4), block(4, 5, step)
        self.three, self.again = block(5, 6, step), block(6, 6)
        self.four, self.five = block(6, 6), block(6, 6)
        self.pool = nn.MaxPool2d(2, ceil_mode=True) if pools else nn.Identity()
        self.grid_stride = None if pools else 4
        self.set_preprocessing(Preprocessing((0.4, 0.5, 0.6), (0.25, 0.25, 0.25)))

    def activations(self, x: Tensor) -> Activations:
        x = self.two(self.pool(self.one(self.normalise(x))))
        four = self.four(self.again(self.three(self.pool(x))))
        return Activations(four, self.five(four))

    def feature_blocks(self) -> tuple[FeatureBlock, ...]:
        names = (("one",), ("two",), ("three", "again"), ("four",), ("five",))
        return tuple(map(FeatureBlock, names, (1, 2, 4, 4, 4), self.firsts))


BLOCKS = {1: ["one"], 2: ["two"], 3: ["three", "again"], 4: ["four"], 5: ["five"]}
BLOCK_OF = {name: number for number, names in BLOCKS.items() for name in names}
STRIDES = {"one": 1, "two": 2, "three": 4, "again": 4, "four": 4, "five": 4}


class Classifier(nn.Module):
    """Class maps on the backbone's grid, of both signs."""

    def __init__(self, pools: bool = False, moved: bool = False, n_classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.backbone = Small(pools, moved)
        self.hidden, self.score = block(6, 8), nn.Conv2d(8, n_classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.normal_(layer.bias, std=0.1)
        nn.init.constant_(self.score.bias, -1.4)  # some classes are found
        self.eval()

    def class_maps(self, x: Tensor) -> Tensor:
        return self.score(self.hidden(self.backbone(x)))


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth spots and noise."""
    rng = np.random.default_rng([height, width, seed])
    spots = cv2.resize(rng.random((4, 4, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(255 * (spots + rng.normal(scale=0.1, size=spots.shape)), 0, 255).astype(np.uint8)


def tags_of(*values: int) -> np.ndarray:
    return np.array(values, bool)


# The paper in float64, step by step


class GuidedReLU(torch.autograd.Function):
    """A gradient goes back where the activation and the gradient are over 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * (x > 0) * (g > 0)


class Guided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return GuidedReLU.apply(x)


def in_float64(net: nn.Module, method: str) -> nn.Module:
    exact = copy.deepcopy(net).double()
    if method == "guided":
        for module in exact.modules():
            if isinstance(module, nn.Sequential):
                module[1] = Guided()
    return exact


def autograd(net: nn.Module, x: Tensor, layers: list[str]) -> tuple[Tensor, dict[str, list[Any]]]:
    """Class maps (C, h, w), and by layer the gradients (channels, h, w) of each class's sum."""
    x.requires_grad_(True)
    kept: dict[str, Tensor] = {"input": x}
    hooks = [
        getattr(net.backbone, name).register_forward_hook(
            lambda module, args, output, name=name: kept.__setitem__(name, output)
        )
        for name in layers
        if name != "input"
    ]
    maps = net.class_maps(x)[0]
    for hook in hooks:
        hook.remove()
    gradients: dict[str, list[Any]] = {name: [] for name in layers}
    for one in maps:
        found = torch.autograd.grad(one.sum(), [kept[n] for n in layers], retain_graph=True)
        for name, gradient in zip(layers, found, strict=True):
            gradients[name].append(gradient[0].numpy())
    return maps.detach(), gradients


def layers_of(blocks: tuple[int, ...]) -> list[str]:
    return [name for b in blocks for name in ({0: ["input"], **BLOCKS})[b]]


def first_of(net: nn.Module, layer: str) -> int:
    return net.backbone.firsts[BLOCK_OF[layer] - 1] if layer in BLOCK_OF else 0


def at(grid: np.ndarray, y: float, x: float) -> float:
    """Between the positions of a grid, bilinearly; beyond its edges it goes on as it ends."""
    y, x = (min(max(v, 0.0), n - 1.0) for v, n in zip((y, x), grid.shape, strict=True))
    top, left = int(y), int(x)
    down, right = min(top + 1, grid.shape[0] - 1), min(left + 1, grid.shape[1] - 1)
    upper = (1 - x + left) * grid[top, left] + (x - left) * grid[top, right]
    lower = (1 - x + left) * grid[down, left] + (x - left) * grid[down, right]
    return float((1 - y + top) * upper + (y - top) * lower)


def enlarged(
    grid: np.ndarray, size: int, seen: int, stride: int | None, first: int = 0
) -> np.ndarray:
    """A layer's map at a square of ``size`` that the network saw at ``seen`` pixels."""
    out = np.zeros((size, size))
    for i, j in product(range(size), repeat=2):
        if stride is None:
            place = [(p + 0.5) * n / size - 0.5 for p, n in zip((i, j), grid.shape, strict=True)]
        else:
            place = [((p + 0.5) * seen / size - 0.5 - first) / stride for p in (i, j)]
        out[i, j] = at(grid, *place)
    return out


def resized(grid: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    out = np.zeros(shape)
    for i, j in product(range(shape[0]), range(shape[1])):
        y, x = ((p + 0.5) * n / m - 0.5 for p, n, m in zip((i, j), grid.shape, shape, strict=True))
        out[i, j] = at(grid, y, x)
    return out


def squared(image: np.ndarray, side: int) -> tuple[np.ndarray, slice, slice]:
    """The photo centred on a square of the mean colour."""
    height, width = (round(n * side / max(image.shape[:2])) for n in image.shape[:2])
    if (height, width) != image.shape[:2]:
        smaller = height < image.shape[0]
        way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        image = cv2.resize(image, (width, height), interpolation=way)
    canvas = np.full((side, side, 3), (102, 128, 153), np.uint8)  # 0.4, 0.5, 0.6 of 255
    rows = slice((side - height) // 2, (side - height) // 2 + height)
    columns = slice((side - width) // 2, (side - width) // 2 + width)
    canvas[rows, columns] = image
    return canvas, rows, columns


def chosen_classes(p: np.ndarray, settings: DcsmSettings, tags: Any) -> tuple[list, list]:
    every = range(p.shape[1])
    detected = [c for c in every if any(one[c] > settings.threshold for one in p)]
    targets = detected if tags is None else [c for c in every if tags[c]]
    if settings.min_candidates == 0:
        return targets, []
    candidates = sorted({*targets, *detected})
    by_score = sorted(every, key=lambda c: -sum(p[:, c]))
    for c in by_score:
        if len(candidates) < settings.min_candidates and c not in candidates:
            candidates.append(c)
    return targets, candidates


def reference(
    net: nn.Module,
    image: np.ndarray,
    tags: Any,
    settings: DcsmSettings,
    method: str,
    blocks: tuple[int, ...],
) -> np.ndarray:
    """M^ of every class, (C, H, W), by loops over scales, blocks, layers and classes.

    Layers are averaged in their block, then blocks (4.4).
    """
    exact, on_grid = in_float64(net, method), net.backbone.grid_stride is not None
    layers = layers_of(blocks)
    in_block = {name: len(layers_of((b,))) for b in blocks for name in layers_of((b,))}
    canvas, rows, columns = squared(image, SIDE)
    x = torch.from_numpy(canvas.transpose(2, 0, 1).copy())[None].double() / 255
    seen = [round(SIDE * scale) for scale in settings.scales]
    views = []
    for side, scale in zip(seen, settings.scales, strict=True):
        scaled = functional.interpolate(
            x, (side, side), mode="bilinear", align_corners=False, antialias=scale < 1
        )
        views.append(autograd(exact, scaled if scale != 1 else x.clone(), layers))
    p = np.array([[1 / (1 + np.exp(-float(m.max()))) for m in maps] for maps, _ in views])
    targets, candidates = chosen_classes(p, settings, tags)
    out = np.zeros((p.shape[1], *image.shape[:2]))
    raw = {}
    for (j, side), name, c in product(enumerate(seen), layers, {*targets, *candidates}):
        strongest = np.abs(views[j][1][name][c]).max(0)  # Eq. 3
        stride = STRIDES.get(name, 1) if on_grid else None
        raw[j, name, c] = enlarged(strongest, SIDE, side, stride, first_of(net, name))
    for c in targets:
        others = [o for o in candidates if o != c]
        used = [j for j in range(len(seen)) if p[j, c] > settings.threshold]
        total = np.zeros((SIDE, SIDE))
        for j, name in product(range(len(seen)), layers):
            own = raw[j, name, c]
            differences = [own - raw[j, name, o] for o in others] or [own]
            if settings.variant == "paper":
                distinct = sum(np.maximum(d, 0) for d in differences)  # Eq. 4
                peak = distinct[rows, columns].max() if settings.normalise == "map" else 1
                if peak > 0:
                    of_block = np.tanh(settings.alpha * distinct / peak) / in_block[name]
                    total += of_block / len(seen) / len(blocks)
            elif j in used or not used:
                for d in differences:
                    if d.max() > 0:
                        total += np.where(d > 0, np.tanh(settings.alpha * d / d.max()), 1e-20)
        inside = total[rows, columns]
        if settings.variant == "code" and inside.max() > 0:
            inside = np.tanh(settings.alpha * inside / inside.max())
        out[c] = resized(inside, image.shape[:2])
    return out


PAPER = DcsmSettings(scales=(0.8, 1.0, 1.2))


@pytest.mark.parametrize(
    ("settings", "method", "blocks", "form", "tags"),
    [
        (PAPER, "guided", (3, 4, 5), "steps", None),
        (PAPER, "guided", (3, 4, 5), "pools", None),
        (PAPER, "plain", (1, 2, 3), "steps", tags_of(0, 1, 0, 1)),
        (PAPER, "guided", (0, 3), "moved", tags_of(1, 0, 0, 0)),
        (DcsmSettings(2.0, (1.0, 1.4), 0), "guided", (4,), "steps", None),
        (DcsmSettings(5.0, (1.0,), 4, normalise="none"), "guided", (5,), "pools", None),
        (DcsmSettings(3.0, (0.8, 1.2), variant="code"), "guided", (3, 4, 5), "steps", None),
        (
            DcsmSettings(2.0, (0.8, 1.2), variant="code"),
            "plain",
            (2, 5),
            "moved",
            tags_of(1, 1, 1, 0),
        ),
    ],
)
@pytest.mark.parametrize("shape", [(17, SIDE), (32, 21)])
def test_distinct_maps_are_those_of_the_paper(settings, method, blocks, form, tags, shape) -> None:
    net, image = Classifier(form == "pools", form == "moved"), photo(*shape)
    seeder = DistinctSeeder(net, settings, side=SIDE, blocks=blocks, method=method)
    found = seeder(image, tags)
    expected = reference(net, image, tags, settings, method, blocks)
    assert expected.max() > 0.1
    np.testing.assert_allclose(found.score_map, expected, atol=2e-4)
    assert found.score_map.dtype == np.float32
    wanted = found.classes.targets if tags is None else tags
    assert found.score_map.any((1, 2)).tolist() == wanted.tolist()
    again = seeder(image, tags)
    np.testing.assert_array_equal(again.score_map, found.score_map)


def test_the_reference_detects_some_classes_and_not_all() -> None:
    """So that targets, candidates and the scales of the variant "code" are put to the test."""
    detected = []
    for shape in ((17, SIDE), (32, 21)):
        classes = DistinctSeeder(Classifier(), PAPER, side=SIDE)(photo(*shape)).classes
        assert 1 <= classes.targets.sum() < 4
        assert len(classes.candidates) >= 3
        detected.append(classes.detected)
    assert any((d.any(0) & ~d.all(0)).any() for d in detected)


def test_a_photo_without_a_class_has_no_map_and_no_gradient(monkeypatch) -> None:
    monkeypatch.setattr("tagseg.localize.backprop.Record.saliency", None)
    seeder = DistinctSeeder(Classifier(), DcsmSettings(threshold=1.0), side=SIDE)
    for tags in (None, tags_of(0, 0, 0, 0)):
        found = seeder(photo(9, 20), tags)
        assert found.score_map.shape == (4, 9, 20)
        assert not found.score_map.any()
        assert not found.classes.targets.any()


def test_probabilities_are_the_sigmoid_of_the_maximum() -> None:
    seeder = DistinctSeeder(Classifier(), PAPER, side=SIDE)
    square = Square.of(photo(20, 20), SIDE, seeder._backbone)
    records = [square.record(seeder._saliency, s, torch.device("cpu")) for s in (0.8, 1.2)]
    expected = [[1 / (1 + np.exp(-float(m.max()))) for m in r.class_maps[0]] for r in records]
    np.testing.assert_allclose(probabilities(records), expected, rtol=1e-6)
    assert [r.class_maps.shape[2] for r in records] == [5, 8]  # of 20 and 30 pixels


def test_a_square_is_of_the_mean_colour_and_tells_where_the_photo_is() -> None:
    image = photo(11, 40)
    square = Square.of(image, 40, Small(False))
    assert square.image.shape == (40, 40, 3)
    assert square.shape == (11, 40)
    np.testing.assert_array_equal(square.image[square.photo], image)
    rest = square.image.copy()
    rest[square.photo] = (102, 128, 153)
    assert (rest == (102, 128, 153)).all()


# Gradient seeds


def gaussian(values: np.ndarray, sigma: float) -> np.ndarray:
    """By its definition, mirrored at the edges without repeating them, cut where OpenCV does."""
    radius = round(sigma * 4 * 2 + 1) // 2
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        border = [(radius, radius) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(values, border, "reflect")
        values = np.apply_along_axis(lambda line: np.convolve(line, kernel, "valid"), axis, padded)
    return values


@pytest.mark.parametrize("method", ["plain", "guided"])
@pytest.mark.parametrize("blocks", [(0,), (3, 5), (0, 2)])
@pytest.mark.parametrize(("sigma", "moved"), [(0.0, True), (25.0, False)])
def test_gradient_seeds_are_those_of_oh_et_al(method, blocks, sigma, moved) -> None:
    """Largest absolute gradient over channels, mean over layers, a Gaussian, the maximum is 1.

    Block 3 has two layers; it counts as much as block 5 (Shimoda & Yanai 4.4).
    """
    net, image, tags = Classifier(moved=moved), photo(25, 25, 3), tags_of(0, 1, 1, 0)
    seeder = GradientSeeder(net, method, blocks=blocks, sigma=sigma)
    layers = layers_of(blocks)
    x = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].double() / 255
    _, gradients = autograd(in_float64(net, method), x, layers)
    expected = np.zeros((4, 25, 25))
    for c in np.flatnonzero(tags):
        for block in blocks:
            of_block = layers_of((block,))
            for name in of_block:
                strongest = np.abs(gradients[name][c]).max(0)
                one = enlarged(strongest, 25, 25, STRIDES.get(name, 1), first_of(net, name))
                expected[c] += one / one.max() / len(of_block) / len(blocks)
        if sigma:
            expected[c] = gaussian(expected[c], sigma * 25 / 500)
        expected[c] /= expected[c].max()
    found = seeder(image, tags)
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("pools", [False, True])
@pytest.mark.parametrize("shape", [(40, 30), (9, 24), (16, 16)])
def test_a_network_of_one_size_sees_the_photo_squeezed(pools, shape) -> None:
    """Oh et al., Table 6: gradients at the 16 x 16 input, brought to the photo's size."""
    torch.manual_seed(4)
    net = FullyConvolutionalClassifier(Small(pools), 3, hidden=6, side=16).eval()
    nn.init.normal_(net.score.weight)
    image, tags = photo(*shape), tags_of(1, 0, 1)
    found = GradientSeeder(net, "plain", sigma=0)(image, tags)
    seen = cv2.resize(image, (16, 16), interpolation=area_or_linear(shape[1]))
    x = torch.from_numpy(seen.transpose(2, 0, 1).copy())[None].double() / 255
    x.requires_grad_()
    scores = copy.deepcopy(net).double()(x)[0]
    for c in np.flatnonzero(tags):
        (gradient,) = torch.autograd.grad(scores[c], x, retain_graph=True)
        strongest = gradient[0].abs().amax(0).numpy()
        expected = np.array(
            [
                [
                    at(strongest, (y + 0.5) * 16 / shape[0] - 0.5, (x + 0.5) * 16 / shape[1] - 0.5)
                    for x in range(shape[1])
                ]
                for y in range(shape[0])
            ]
        )
        np.testing.assert_allclose(found[c], expected / expected.max(), atol=2e-4)
    assert not found[1].any()


def area_or_linear(width: int) -> int:
    """How photos are resized to 16 pixels."""
    return cv2.INTER_AREA if width > 16 else cv2.INTER_LINEAR


def test_the_gaussian_scales_with_the_photo() -> None:
    """The same photo twice as large, with a network that sees no difference: the same seeds."""
    net, tags = Classifier(), tags_of(1, 0, 0, 0)
    image = photo(40, 40)
    maps = [GradientSeeder(net, sigma=s)(image, tags)[0] for s in (0.5, 50.0)]
    assert np.abs(np.diff(maps[0])).mean() > 2 * np.abs(np.diff(maps[1])).mean()
    seen: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cv2, "GaussianBlur", lambda m, size, sigma: seen.append(sigma) or m)
        for shape in ((40, 40), (20, 80)):
            GradientSeeder(net, sigma=50.0)(photo(*shape), tags)
    assert seen == [4.0, 8.0]


def test_seeds_of_a_class_do_not_depend_on_the_others() -> None:
    net, image = Classifier(), photo(30, 22)
    seeder = GradientSeeder(net)
    every = seeder(image, tags_of(1, 1, 1, 1))
    for c in range(4):
        alone = seeder(image, np.arange(4) == c)
        np.testing.assert_allclose(alone[c], every[c], atol=1e-5)
        assert not np.delete(alone, c, 0).any()


def test_no_tags_ask_for_no_pass(monkeypatch) -> None:
    seeder = GradientSeeder(Classifier())
    monkeypatch.setattr(seeder, "_saliency", None)
    assert not seeder(photo(8, 9), tags_of(0, 0, 0, 0)).any()


@pytest.mark.parametrize("sigma", [-1.0, float("nan")])
def test_sigmas_that_do_not_fit(sigma) -> None:
    with pytest.raises(ConfigError, match="sigma is "):
        GradientSeeder(Classifier(), sigma=sigma)


def test_networks_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="no backbone; give a tagseg classifier"):
        GradientSeeder(nn.Conv2d(3, 3, 1))
    with pytest.raises(ConfigError, match="training mode"):
        DistinctSeeder(Classifier().train(), PAPER, side=SIDE)
    with pytest.raises(ConfigError, match="no back-propagation 'smooth'"):
        GradientSeeder(Classifier(), "smooth")  # type: ignore[arg-type]


# Layers


def test_layers_of_blocks() -> None:
    found = feature_layers(Small(False), (5, 3, 0))
    assert found.names == ("input", "backbone.three", "backbone.again", "backbone.five")
    assert found.strides == (1, 4, 4, 4)
    assert feature_layers(Small(True), (2, 4)).strides == (None, None)
    assert found.firsts == (0, 0, 0, 0)
    assert found.blocks == (0, 3, 3, 5)
    assert found.weights == (1, 0.5, 0.5, 1)
    assert feature_layers(Small(False), (2, 4)).weights is None
    assert feature_layers(Small(False, moved=True), (0, 2, 5)).firsts == (0, 1, 3)
    ours = feature_layers(Tiny(16), (1, 4))
    assert list(ours) == [("backbone.block1", 2, 0), ("backbone.block4", 16, 0)]


@pytest.mark.parametrize("blocks", [(), (6,), (-1, 3)])
def test_blocks_that_do_not_exist(blocks) -> None:
    with pytest.raises(ConfigError, match=r"give some of 0 \(the photo\) to 5"):
        feature_layers(Small(False), blocks)


# The contract of all localizers


def tiny_classifier(n_classes: int) -> FullyConvolutionalClassifier:
    torch.manual_seed(0)
    net = FullyConvolutionalClassifier(Tiny(), n_classes, hidden=16)
    nn.init.normal_(net.score.weight)
    nn.init.zeros_(net.score.bias)
    return mirror_symmetric(net).eval()


class TestGradientSeeds(LocalizerContract):
    @pytest.fixture(
        params=[*product(("plain", "guided", "excitation"), ((0,), (3, 4, 5)))],
        ids=lambda p: f"{p[0]}-{''.join(map(str, p[1]))}",
    )
    def localize(self, request) -> Localize:
        method, blocks = request.param
        seeder = GradientSeeder(tiny_classifier(self.n_classes), method, blocks=blocks)
        return lambda photos, tags: [seeder(p, t) for p, t in zip(photos, tags, strict=True)]


class TestDistinctSeeds(LocalizerContract):
    @pytest.fixture(params=["paper", "code"])
    def localize(self, request) -> Localize:
        scales = (41 / 57, 1.0, 73 / 57)  # of a square of 57: pixels 0 and 8 n are the ends
        settings = DcsmSettings(scales=scales, variant=request.param)
        seeder = DistinctSeeder(tiny_classifier(self.n_classes), settings, side=57)
        return lambda photos, tags: [
            seeder(p, t).score_map for p, t in zip(photos, tags, strict=True)
        ]
