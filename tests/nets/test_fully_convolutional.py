from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sampled import Sampled
from tagseg.errors import ConfigError
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier, initialise_from_imagenet
from tagseg.nets.tiny import Tiny
from tagseg.nets.vgg import Vgg16


def loop_maps(net: FullyConvolutionalClassifier, x: Tensor) -> Tensor:
    """fc6, fc7 and score of one photo, written out position by position."""
    features = net.backbone(x)[0]
    _, height, width = features.shape
    reach = net.fc6.kernel_size[0] // 2
    maps = torch.zeros(net.score.out_channels, height, width, dtype=x.dtype)
    for row in range(height):
        for column in range(width):
            fc6 = net.fc6.bias.clone()  # type: ignore[union-attr]
            for down in range(-reach, reach + 1):
                for right in range(-reach, reach + 1):
                    y, x_ = row + down, column + right
                    if 0 <= y < height and 0 <= x_ < width:
                        tap = net.fc6.weight[:, :, down + reach, right + reach]
                        fc6 = fc6 + tap @ features[:, y, x_]
            fc7 = net.fc7.weight[:, :, 0, 0] @ fc6.clamp(min=0) + net.fc7.bias
            score = net.score.weight[:, :, 0, 0] @ fc7.clamp(min=0) + net.score.bias
            maps[:, row, column] = score
    return maps


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_class_maps_equal_the_loop_and_scores_are_their_maxima(kernel: int) -> None:
    torch.manual_seed(0)
    net = FullyConvolutionalClassifier(Sampled(), 4, hidden=5, kernel=kernel).double().eval()
    nn.init.normal_(net.score.weight)
    nn.init.normal_(net.score.bias)  # type: ignore[arg-type]
    x = torch.rand(2, 3, 40, 33, dtype=torch.float64)
    with torch.inference_mode():
        maps, scores = net.class_maps(x), net(x)
        assert maps.shape == (2, 4, 5, 5)
        for photo in range(2):
            expected = loop_maps(net, x[photo : photo + 1])
            torch.testing.assert_close(maps[photo], expected)
            for label in range(4):
                best = max(float(value) for value in expected[label].flatten())
                assert scores[photo, label].item() == pytest.approx(best, rel=1e-12)


def test_gradient_goes_to_the_place_of_the_maximum() -> None:
    torch.manual_seed(0)
    net = FullyConvolutionalClassifier(Sampled(), 1, hidden=5, kernel=1).eval()
    x = torch.rand(1, 3, 40, 40, requires_grad=True)
    net(x).sum().backward()
    with torch.inference_mode():
        row, column = divmod(int(net.class_maps(x)[0, 0].argmax()), 5)
    assert x.grad is not None
    assert x.grad.abs().sum(1)[0].nonzero().tolist() == [[8 * row, 8 * column]]


@pytest.mark.parametrize("size", [(1, 1), (33, 2), (321, 321), (500, 500)])
def test_vgg_form(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        net = FullyConvolutionalClassifier(Vgg16(32), 20)
        x = torch.empty(2, 3, *size)
        assert net.class_maps(x).shape == (2, 20, *(-(-side // 32) for side in size))
        assert net(x).shape == (2, 20)
    assert net.fc6.weight.shape == (4096, 512, 7, 7)
    assert net.fc7.weight.shape == (4096, 4096, 1, 1)
    # ImageNet's VGG-16 with 20 units in place of 1000.
    assert sum(p.numel() for p in net.parameters()) == 138_357_544 - 980 * 4097


def test_other_backbones_have_a_smaller_head() -> None:
    with torch.device("meta"):
        net = FullyConvolutionalClassifier(Tiny(16), 3)
        told = FullyConvolutionalClassifier(Vgg16(32), 3, hidden=8, kernel=5)
        assert net.class_maps(torch.empty(1, 3, 33, 2)).shape == (1, 3, 3, 1)
    assert net.fc6.weight.shape == (256, 192, 3, 3)
    assert net.fc7.weight.shape == (256, 256, 1, 1)
    assert told.fc6.weight.shape == (8, 512, 5, 5)


def test_one_pass_of_vgg_on_a_small_picture() -> None:
    torch.manual_seed(0)
    net = FullyConvolutionalClassifier(Vgg16(32), 2, hidden=8).eval()
    with torch.inference_mode():
        maps = net.class_maps(torch.rand(1, 3, 40, 33))
    assert maps.shape == (1, 2, 2, 2)
    assert maps.std() > 0


def test_relus_are_modules_of_their_own_and_not_in_place() -> None:
    net = FullyConvolutionalClassifier(Sampled(), 2, hidden=4)
    called: list[nn.Module] = []
    relus = [module for module in net.modules() if isinstance(module, nn.ReLU)]
    for relu in relus:
        relu.register_forward_hook(lambda module, *_: called.append(module))
    net.class_maps(torch.rand(1, 3, 8, 8))
    assert called == relus == [net.relu6, net.relu7]
    assert not any(relu.inplace for relu in relus)


def test_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    net = FullyConvolutionalClassifier(Sampled(), 2, hidden=64)
    x = torch.rand(1, 3, 40, 40)
    assert not torch.equal(net.class_maps(x), net.class_maps(x))
    net.eval()
    assert torch.equal(net.class_maps(x), net.class_maps(x))
    assert FullyConvolutionalClassifier(Sampled(), 2, dropout=0.0).dropout7.p == 0


def test_parameter_groups_hold_every_parameter_once() -> None:
    net = FullyConvolutionalClassifier(Sampled(), 3, hidden=7)
    groups = {group["name"]: set(map(id, group["params"])) for group in net.parameter_groups()}  # type: ignore[call-overload]
    assert list(groups) == ["backbone", "head"]
    assert groups["backbone"] == set(map(id, net.backbone.parameters()))
    assert groups["backbone"].isdisjoint(groups["head"])
    assert groups["backbone"] | groups["head"] == set(map(id, net.parameters()))


def test_scores_start_small_and_say_no() -> None:
    torch.manual_seed(0)
    score = FullyConvolutionalClassifier(Sampled(), 40).score
    assert 0.009 < score.weight.std() < 0.011
    assert score.bias is not None
    assert (score.bias == -2).all()


# VGG-16 as a classifier of photos of one size


@pytest.mark.parametrize(("side", "stride", "shape"), [(40, 8, (40, 40)), (33, 8, (33, 33))])
def test_one_position_sees_the_whole_photo(side: int, stride: int, shape: tuple[int, int]) -> None:
    """Oh et al., Table 6: fc6 is not padded and as large as its input, in float64."""
    torch.manual_seed(0)
    net = FullyConvolutionalClassifier(Sampled(), 4, hidden=5, side=side).double().eval()
    nn.init.normal_(net.score.weight)
    assert net.fc6.padding == (0, 0)
    x = torch.rand(1, 3, *shape, dtype=torch.float64)
    with torch.inference_mode():
        units = net.backbone(x).flatten()
        for layer in (net.fc6, net.fc7):
            units = (layer.weight.flatten(1) @ units + layer.bias).relu()  # type: ignore[operator]
        expected = net.score.weight.flatten(1) @ units + net.score.bias  # type: ignore[operator]
        assert net.class_maps(x).shape == (1, 4, 1, 1)
        torch.testing.assert_close(net(x)[0], expected)


def test_photos_of_other_sizes_are_squeezed() -> None:
    torch.manual_seed(0)
    net = FullyConvolutionalClassifier(Sampled(), 4, hidden=5, side=24).eval()
    nn.init.normal_(net.score.weight)
    colours = torch.rand(2, 3, 1, 1)
    with torch.inference_mode():
        expected = net(colours.expand(2, 3, 24, 24))
        for shape in ((96, 24), (7, 30), (24, 24)):
            torch.testing.assert_close(net(colours.expand(2, 3, *shape)), expected)


def test_vgg_has_the_form_of_table_6() -> None:
    with torch.device("meta"):
        net = FullyConvolutionalClassifier(Vgg16(32), 20, side=224)
        features = net.backbone(torch.empty(1, 3, 224, 224))
        assert features.shape == (1, 512, 7, 7)
        assert net.fc6(features).shape == (1, 4096, 1, 1)
    assert net.fc6.kernel_size == (7, 7)
    assert net.fc7.weight.shape == (4096, 4096, 1, 1)
    assert net.score.weight.shape == (20, 4096, 1, 1)


def test_imagenets_classifier_at_one_position() -> None:
    torch.manual_seed(0)
    net, state = FullyConvolutionalClassifier(Sampled(), 2, hidden=5, side=56), imagenet_like()
    assert initialise_from_imagenet(net, state) is True
    x = torch.rand(1, 3, 56, 56)
    with torch.inference_mode():
        features = net.backbone(x)
        units = state["classifier.0.weight"] @ features.flatten() + state["classifier.0.bias"]
        torch.testing.assert_close(net.fc6(features).flatten(), units)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": 0}, "an input of 0 pixels"),
        ({"side": 56, "kernel": 7}, "a kernel of 7; give a side of at least 1 alone"),
        ({"n_classes": 0}, "0 classes"),
        ({"hidden": 0}, "fc6 and fc7 of 0 channels"),
        ({"kernel": 4}, "kernel of 4; use an odd kernel"),
        ({"kernel": -1}, "kernel of -1"),
        ({"dropout": 1.0}, r"dropout of 1\.0"),
        ({"dropout": -0.1}, r"dropout of -0\.1"),
    ],
)
def test_impossible_numbers_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FullyConvolutionalClassifier(**{"backbone": Sampled(), "n_classes": 3, **change})  # type: ignore[arg-type]


# ImageNet's classifier


def imagenet_like(channels: int = 6, hidden: int = 5, kernel: int = 7) -> dict[str, Tensor]:
    """A classifier in torchvision's form, whose first layer sees (channels, kernel, kernel)."""
    generator = torch.Generator().manual_seed(1)
    shapes = {"0": (hidden, channels * kernel**2), "3": (hidden, hidden), "6": (9, hidden)}
    state = {}
    for name, shape in shapes.items():
        state[f"classifier.{name}.weight"] = torch.randn(shape, generator=generator)
        state[f"classifier.{name}.bias"] = torch.randn(shape[0], generator=generator)
    return state


def test_the_middle_position_is_imagenets_classifier() -> None:
    """On features of 7x7, fc6 at the middle sees all that the fully connected layer saw."""
    torch.manual_seed(0)
    net, state = (
        FullyConvolutionalClassifier(Sampled(), 2, hidden=5, kernel=7).eval(),
        imagenet_like(),
    )
    assert initialise_from_imagenet(net, state) is True
    x = torch.rand(1, 3, 56, 56)
    with torch.inference_mode():
        units = net.backbone(x).flatten()
        for i in ("0", "3"):
            weight, bias = state[f"classifier.{i}.weight"], state[f"classifier.{i}.bias"]
            units = (weight @ units + bias).relu()
        features = net.relu7(net.fc7(net.relu6(net.fc6(net.backbone(x)))))
    assert units.max() > 0
    torch.testing.assert_close(features[0, :, 3, 3], units)
    assert net.fc6.weight.requires_grad


@pytest.mark.parametrize(
    "state",
    [
        {},
        imagenet_like(channels=4),
        imagenet_like(hidden=6),
        imagenet_like(kernel=3),
        {k: v for k, v in imagenet_like().items() if k != "classifier.3.bias"},
        imagenet_like() | {"classifier.0.bias": torch.zeros(1)},
    ],
    ids=["none", "channels", "hidden", "kernel", "missing", "bias"],
)
def test_what_does_not_fit_changes_nothing(state: dict[str, Tensor]) -> None:
    net = FullyConvolutionalClassifier(Sampled(), 2, hidden=5, kernel=7)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert initialise_from_imagenet(net, state) is False
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_it_fits_vgg() -> None:
    with torch.device("meta"):
        net = FullyConvolutionalClassifier(Vgg16(32), 2)
        state = {
            "classifier.0.weight": torch.empty(4096, 25088),
            "classifier.0.bias": torch.empty(4096),
            "classifier.3.weight": torch.empty(4096, 4096),
            "classifier.3.bias": torch.empty(4096),
        }
        assert initialise_from_imagenet(net, state)
