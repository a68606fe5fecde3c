from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import mirror_symmetric
from tagseg.errors import ConfigError, ShapeError
from tagseg.localize.background_cues import background_cues, background_saliency
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier
from tagseg.nets.gap import GapClassifier
from tagseg.nets.mobilenet import MobileNetV2
from tagseg.nets.tiny import Tiny
from tagseg.nets.vgg import Vgg16

torch.set_num_threads(1)

BACKBONES = {
    "tiny-8": (lambda: Tiny(8), "block4"),
    "tiny-16": (lambda: Tiny(16), "block4"),
    "mobilenet-8": (lambda: MobileNetV2(8), "features.7.conv.1"),
    "mobilenet-16-moved": (lambda: MobileNetV2(16, "same_bottom_right"), "features.7.conv.1"),
    "vgg-8": (lambda: Vgg16(8), "features.18"),
    "vgg-16": (lambda: Vgg16(16), "features.18"),
}


def classifier(kind, n_classes=3):
    torch.manual_seed(0)
    net = GapClassifier(BACKBONES[kind][0](), n_classes, hidden=8, hidden_layers=1).eval()
    torch.nn.init.normal_(net.scores.weight)  # of both signs: the sum of classes is not each one
    return net


def photos(seed=0, size=(40, 57)):
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(seed))


def loop_saliency(net, layer, images):
    """Class by class, photo by photo, by PyTorch's own derivatives at the layer's output."""
    kept = {}

    def keep(module, args, output):
        kept["leaf"] = output.detach().requires_grad_()
        return kept["leaf"].clone()  # what follows may write over it

    hook = net.backbone.get_submodule(layer).register_forward_hook(keep)
    result = []
    for image in images:
        total = 0.0
        for label in range(net.scores.out_features):
            score = net.class_maps(image[None])[0, label].sum()
            (gradient,) = torch.autograd.grad(score, kept["leaf"])
            total = total + gradient[0]
        result.append(total.abs().amax(0))
    hook.remove()
    return torch.stack(result)


def means_around_every_second(maps):
    """Mean of the 3 x 3 positions, fewer at the edges, around (2 i, 2 j): the pixel of (i, j)."""
    _, height, width = maps.shape
    return torch.stack(
        [
            torch.stack(
                [
                    maps[:, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].mean((1, 2))
                    for x in range(0, width, 2)
                ],
                dim=1,
            )
            for y in range(0, height, 2)
        ],
        dim=1,
    )


@pytest.mark.parametrize("kind", BACKBONES)
def test_equals_the_sum_of_the_classes_gradients(kind):
    net, images = classifier(kind), photos()
    found = background_saliency(net, images)
    height, width = net.class_maps(images).shape[2:]
    wanted = loop_saliency(net, BACKBONES[kind][1], images)
    if kind == "vgg-16":  # conv4_1 has stride 8
        wanted = means_around_every_second(wanted)
    wanted = wanted[:, :height, :width]
    assert found.shape == (2, height, width)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5 * float(wanted.max()))
    assert found.max() > found.min() >= 0


def test_conv4_1_is_the_layer_of_vgg():
    """Index 17 of torchvision's ``features`` is conv4_1, 18 its ReLU; 19 is conv4_2."""
    net = Vgg16(8)
    assert net.feature_blocks()[3].layers[0] == "features.18"
    assert net.features[17].in_channels == 256
    assert net.features[17].out_channels == net.features[19].in_channels == 512


def test_the_cells_of_the_original_vgg_are_means():
    """conv4_1 has stride 8 there, the class maps 32, and a position is the middle of its cell."""
    torch.manual_seed(0)
    net = FullyConvolutionalClassifier(Vgg16(32), 3, hidden=8).eval()
    images = photos(size=(64, 96))
    found = background_saliency(net, images)
    assert found.shape[1:] == net.class_maps(images).shape[2:] == (2, 3)
    fine = saliency_of_conv4_1(net, images)
    wanted = fine.reshape(2, 2, 4, 3, 4).mean((2, 4))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5 * float(wanted.max()))


def saliency_of_conv4_1(net, images):
    kept = []
    hook = net.backbone.features[18].register_forward_hook(
        lambda module, args, output: kept.append(output)
    )
    score = net.class_maps(images).sum()
    hook.remove()
    return torch.autograd.grad(score, kept[0])[0].abs().amax(1)


def test_the_photo_mirrors_with_its_saliency():
    torch.manual_seed(1)
    net = mirror_symmetric(GapClassifier(Tiny(), 3, hidden=8, hidden_layers=1)).eval()
    images = photos(size=(41, 49))  # pixel 8 i has a mirror image on the grid
    plain, mirrored = background_saliency(net, images), background_saliency(net, images.flip(3))
    torch.testing.assert_close(mirrored.flip(2), plain, rtol=1e-3, atol=1e-5 * float(plain.max()))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_network_is_not_touched(mode):
    net, images = classifier("tiny-8"), photos()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    plain = background_saliency(net, images)
    with mode():
        inside = background_saliency(net, images.clone())
    torch.testing.assert_close(inside, plain, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_bfloat16_sees_nearly_the_same():
    net, images = classifier("vgg-8"), photos(size=(64, 64))
    exact = background_saliency(net, images)
    low = background_saliency(net, images, precision=torch.bfloat16)
    assert low.dtype == torch.float32
    assert float((low - exact).abs().mean() / exact.mean()) < 0.05


def test_memory_format_does_not_matter():
    net, images = classifier("mobilenet-8"), photos()
    plain = background_saliency(net, images)
    last = background_saliency(net, images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-6 * float(plain.max()))


def test_wrong_networks_and_photos_are_named():
    net = classifier("tiny-8")
    with pytest.raises(ShapeError, match="images have shape"):
        background_saliency(net, photos()[0])
    with pytest.raises(ConfigError, match="training mode"):
        background_saliency(net.train(), photos())
    with pytest.raises(ConfigError, match="has no backbone"):
        background_saliency(torch.nn.Conv2d(3, 3, 1), photos())


def loop_cues(saliency, part, window):
    """Median of each window (edges repeated); as many of the lowest as fit below the next one."""
    height, width = saliency.shape
    reach, smooth = window // 2, np.empty_like(saliency)
    for y in range(height):
        for x in range(width):
            values = [
                saliency[min(max(v, 0), height - 1), min(max(u, 0), width - 1)]
                for v in range(y - reach, y + reach + 1)
                for u in range(x - reach, x + reach + 1)
            ]
            smooth[y, x] = sorted(values)[len(values) // 2]
    wanted, ordered = int(part * smooth.size), sorted(smooth.ravel().tolist())
    limit = ordered[wanted] if wanted < smooth.size else np.inf
    return smooth < limit


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    part=st.sampled_from([0.0, 0.1, 0.35, 1.0]),
    window=st.sampled_from([1, 3, 5]),
    levels=st.sampled_from([3, 1000]),
)
def test_cues_equal_the_loop(seed, part, window, levels):
    rng = np.random.default_rng(seed)
    saliency = rng.integers(0, levels, (6, 9)).astype(np.float32)
    found = background_cues(saliency, fraction=part, window=window)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, loop_cues(saliency, part, window))
    assert found.sum() <= part * saliency.size


def test_a_tenth_of_distinct_positions_are_cues():
    """On the paper's 41 x 41 positions: 168, the lowest end of a slope."""
    slope = np.arange(41 * 41, dtype=np.float32).reshape(41, 41)
    found = background_cues(slope, window=1)
    assert found.sum() == 168
    np.testing.assert_array_equal(found.ravel(), np.arange(41 * 41) < 168)


def test_a_lone_low_position_is_no_cue():
    saliency = np.ones((9, 9), np.float32)
    saliency[4, 4] = 0
    saliency[:3, :3] = 0.5
    found = background_cues(saliency)
    assert not found[4, 4]
    assert found[0, 0]
    assert background_cues(saliency, window=1)[4, 4]


def test_a_map_that_says_nothing_gives_no_cue():
    assert not background_cues(np.zeros((5, 5), np.float32)).any()
    assert not background_cues(np.ones((1, 1), np.float32)).any()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_cues_mirror_with_the_map_and_do_not_know_its_scale(seed):
    saliency = np.random.default_rng(seed).random((7, 10)).astype(np.float32)
    plain = background_cues(saliency)
    np.testing.assert_array_equal(background_cues(saliency[::-1, ::-1])[::-1, ::-1], plain)
    np.testing.assert_array_equal(background_cues(saliency * 1024), plain)


def test_wrong_numbers_are_named():
    saliency = np.ones((4, 4), np.float32)
    for options in ({"fraction": -0.1}, {"fraction": 1.1}, {"window": 0}, {"window": 2}):
        with pytest.raises(ConfigError, match="fraction is"):
            background_cues(saliency, **options)
    with pytest.raises(ShapeError, match="saliency has shape"):
        background_cues(saliency[None])
    with pytest.raises(ShapeError, match="NaN"):
        background_cues(saliency * np.nan)
