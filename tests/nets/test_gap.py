from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sampled import Sampled
from tagseg.errors import ConfigError
from tagseg.nets.catalog import BACKBONES
from tagseg.nets.gap import SEEDERS, GapClassifier, HiddenLayer, SeederName, gap_seeder
from tagseg.nets.weights import resolve


@pytest.mark.parametrize("hidden_layers", [0, 1, 2])
def test_class_maps_are_equation_1_and_average_to_the_scores(hidden_layers: int) -> None:
    torch.manual_seed(0)
    net = GapClassifier(Sampled(), 4, hidden=5, hidden_layers=hidden_layers).double().eval()
    x = torch.rand(2, 3, 40, 33, dtype=torch.float64)
    with torch.inference_mode():
        maps, scores = net.class_maps(x), net(x)
        features = net.hidden(net.backbone(x))
    assert maps.shape == (2, 4, 5, 5)
    for photo in range(2):
        for label in range(4):
            expected = torch.zeros(5, 5, dtype=torch.float64)
            for unit in range(features.shape[1]):
                expected += net.scores.weight[label, unit].detach() * features[photo, unit]
            torch.testing.assert_close(maps[photo, label], expected)
            torch.testing.assert_close(scores[photo, label], expected.sum() / 25)


def test_bias_is_outside_the_maps() -> None:
    torch.manual_seed(0)
    net = GapClassifier(Sampled(), 2, hidden=5, bias=True).eval()
    nn.init.constant_(net.scores.bias, 3.0)
    x = torch.rand(1, 3, 24, 24)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), net.class_maps(x).mean((2, 3)) + 3)


def test_hidden_layers_are_as_asked() -> None:
    net = GapClassifier(Sampled(), 3, hidden=7, hidden_layers=[HiddenLayer(5), HiddenLayer(3)])
    first, second = (layer for layer in net.hidden if isinstance(layer, nn.Conv2d))
    assert first.weight.shape == (7, 6, 5, 5)
    assert second.weight.shape == (7, 7, 3, 3)
    assert net.scores.weight.shape == (3, 7)
    assert net.scores.bias is None


def test_random_numbers_are_drawn_in_the_order_of_the_layers() -> None:
    """Networks that are built again from a seed must not change."""
    torch.manual_seed(0)
    backbone = Sampled()
    net = GapClassifier(backbone, 3, hidden=7)
    torch.manual_seed(0)
    Sampled()
    for i, channels in ((0, 6), (3, 7)):
        convolution = nn.Conv2d(channels, 7, 3)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        assert torch.equal(net.hidden[i].weight, convolution.weight)
        assert not net.hidden[i].bias.any()
    scores = nn.Linear(7, 3, bias=False)
    nn.init.normal_(scores.weight, std=0.01)
    assert torch.equal(net.scores.weight, scores.weight)
    names = ["hidden.0.weight", "hidden.0.bias", "hidden.3.weight", "hidden.3.bias"]
    assert list(net.state_dict())[2:] == [*names, "scores.weight"]


def test_parameter_groups_hold_every_parameter_once() -> None:
    net = GapClassifier(Sampled(), 3, hidden=7)
    groups = {group["name"]: list(map(id, group["params"])) for group in net.parameter_groups()}  # type: ignore[call-overload]
    assert list(groups) == ["backbone", "head", "score"]
    assert groups["backbone"] == list(map(id, net.backbone.parameters()))
    assert groups["score"] == [id(net.scores.weight)]
    held = [*groups["backbone"], *groups["head"], *groups["score"]]
    assert sorted(held) == sorted(map(id, net.parameters()))
    torch.optim.SGD(net.parameter_groups(), lr=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_classes": 0}, "0 classes"),
        ({"hidden_layers": -1}, "-1 hidden layers"),
        ({"hidden": 0}, "0 channels"),
        ({"hidden_layers": [HiddenLayer(4)]}, "kernel of 4"),
        ({"hidden_layers": [HiddenLayer(3), HiddenLayer(2)]}, "kernel of 2"),
    ],
)
def test_impossible_numbers_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GapClassifier(**{"backbone": Sampled(), "n_classes": 3, **change})  # type: ignore[arg-type]


# The seeders of Oh et al.

# The parameters of each layer as Table 6 prints them, and the side of its output for a photo of
# 321x321. "=" is the same as in the column LowRes. The paper prints "st=1" for DeepLab's pool3,
# from which its own output of 41x41 cannot come.
TABLE_6 = """
layer   | LowRes                     | HighRes                    | ROI                       | DeepLab
conv1_1 | (64, 3, 3) pad=1: 321      | =                          | =                         | =
conv1_2 | (64, 3, 3) pad=1: 321      | =                          | =                         | =
pool1   | (64, 2, 2) st=2: 161       | =                          | =                         | (64, 3, 3) st=2 pad=1: 161
conv2_1 | (128, 3, 3) pad=1: 161     | =                          | =                         | =
conv2_2 | (128, 3, 3) pad=1: 161     | =                          | =                         | =
pool2   | (128, 2, 2) st=2: 81       | =                          | =                         | (128, 3, 3) st=2 pad=1: 81
conv3_1 | (256, 3, 3) pad=1: 81      | =                          | =                         | =
conv3_2 | (256, 3, 3) pad=1: 81      | =                          | =                         | =
conv3_3 | (256, 3, 3) pad=1: 81      | =                          | =                         | =
pool3   | (256, 2, 2) st=2: 41       | =                          | =                         | (256, 3, 3) st=2 pad=1: 41
conv4_1 | (512, 3, 3) pad=1: 41      | =                          | =                         | =
conv4_2 | (512, 3, 3) pad=1: 41      | =                          | =                         | =
conv4_3 | (512, 3, 3) pad=1: 41      | =                          | =                         | =
pool4   | (512, 2, 2) st=2: 21       | None                       | None                      | (512, 3, 3) pad=1: 41
conv5_1 | (512, 3, 3) pad=1: 21      | (512, 3, 3) pad=1: 41      | (512, 3, 3) pad=1: 41     | (512, 3, 3) pad=2 dil=2: 41
conv5_2 | (512, 3, 3) pad=1: 21      | (512, 3, 3) pad=1: 41      | (512, 3, 3) pad=1: 41     | (512, 3, 3) pad=2 dil=2: 41
conv5_3 | (512, 3, 3) pad=1: 21      | (512, 3, 3) pad=1: 41      | (512, 3, 3) pad=1: 41     | (512, 3, 3) pad=2 dil=2: 41
pool5   | None                       | None                       | (512, 3, 3) pad=1: 41     | None
fc6     | (1024, 3, 3) pad=1: 21     | (1024, 3, 3) pad=1: 41     | (1024, 1, 1): 41          | (1024, 3, 3) pad=12 dil=12: 41
fc7     | None                       | (1024, 3, 3) pad=1: 41     | (1024, 1, 1): 41          | (1024, 1, 1): 41
fc8     | (20, 1, 1): 21             | (20, 1, 1): 41             | (20, 1, 1): 41            | (20, 1, 1): 41
"""  # noqa: E501


def column_of_table_6(seeder: str) -> list[str]:
    """The layers that there are."""
    head, *rows = ([cell.strip() for cell in row.split("|")] for row in TABLE_6.split("\n")[1:-1])
    column = [name.lower() for name in head].index(seeder)
    cells = [row[1] if row[column] == "=" else row[column] for row in rows]
    return [cell for cell in cells if cell != "None"]


def as_in_table_6(module: nn.Conv2d | nn.MaxPool2d, output: Tensor) -> str:
    settings = [
        f" {name}={both(value)}"
        for name, value, usual in (
            ("st", module.stride, 1),
            ("pad", module.padding, 0),
            ("dil", module.dilation, 1),
        )
        if both(value) != usual
    ]
    kernel, (channels, height, width) = both(module.kernel_size), output.shape[1:]
    assert height == width
    return f"({channels}, {kernel}, {kernel}){''.join(settings)}: {height}"


def both(value: int | tuple[int, ...] | str) -> int:
    """A number of which there are two, for height and width."""
    if isinstance(value, int):
        return value
    first, second = value
    assert first == second
    return int(first)


def names() -> list[SeederName]:
    return list(SEEDERS)


@pytest.mark.parametrize("seeder", names())
def test_every_layer_is_that_of_table_6(seeder: SeederName) -> None:
    with torch.device("meta"):
        net, photo = gap_seeder(seeder, "vgg16", None, 20).eval(), torch.empty(1, 3, 321, 321)
    found: list[str] = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            module.register_forward_hook(
                lambda layer, _, output: found.append(as_in_table_6(layer, output))
            )
    maps = net.class_maps(photo)
    assert maps.shape[2] == maps.shape[3]
    assert net.scores.weight.shape == (20, 1024)  # fc8, 1x1
    assert [*found, f"({maps.shape[1]}, 1, 1): {maps.shape[2]}"] == column_of_table_6(seeder)
    assert net(photo).shape == (1, 20)
    # Behind 2x2 pools a position is the middle of a cell.
    assert net.backbone.grid_stride == (8 if seeder == "deeplab" else None)


@pytest.mark.parametrize("seeder", names())
@pytest.mark.parametrize("backbone", ["tiny", "mobilenet_v2", "resnet50"])
def test_counterparts_have_the_same_output_stride_and_head(
    backbone: str, seeder: SeederName
) -> None:
    if backbone not in BACKBONES:
        pytest.skip(f"no {backbone} yet")
    with torch.device("meta"):
        net = gap_seeder(seeder, backbone, None, 20).eval()
        maps = net.class_maps(torch.empty(1, 3, 321, 321))
    side = 21 if seeder == "lowres" else 41
    assert maps.shape == (1, 20, side, side)
    dilations = {m.dilation for m in net.backbone.modules() if isinstance(m, nn.Conv2d)}
    assert (max(dilations) > (1, 1)) is net.backbone.dilated is (seeder == "deeplab")
    hidden = [layer for layer in net.hidden if isinstance(layer, nn.Conv2d)]
    assert [(layer.out_channels, layer.kernel_size[0], layer.dilation[0]) for layer in hidden] == {
        "lowres": [(256, 3, 1)],
        "highres": [(256, 3, 1), (256, 3, 1)],
        "roi": [(256, 1, 1), (256, 1, 1)],
        "deeplab": [(256, 3, 12), (256, 1, 1)],
    }[seeder]


def small_seeder(seeder: SeederName, backbone: str) -> GapClassifier:
    torch.manual_seed(0)
    net = gap_seeder(seeder, backbone, None, 3, width=6, view_scale=0.25)
    for module in net.hidden:
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
            nn.init.normal_(module.bias, std=0.1)  # type: ignore[arg-type]
    return net


@pytest.mark.parametrize("seeder", names())
@pytest.mark.parametrize("backbone", ["tiny", "vgg16"])
def test_averaging_and_weighting_can_be_swapped(backbone: str, seeder: SeederName) -> None:
    """Supplement B.1: GAP, then fc8, or fc8, then GAP."""
    net, photos = small_seeder(seeder, backbone).eval(), torch.rand(2, 3, 41, 57)
    with torch.inference_mode():
        scores, maps = net(photos), net.class_maps(photos)
    assert scores.std() > 0
    torch.testing.assert_close(maps.mean((2, 3)), scores)


@pytest.mark.parametrize("seeder", names())
@pytest.mark.parametrize("backbone", ["tiny", "vgg16"])
def test_gradients_reach_every_parameter(backbone: str, seeder: SeederName) -> None:
    net = small_seeder(seeder, backbone).train()
    (net(torch.rand(2, 3, 65, 65)) * torch.randn(2, 3)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_roi_is_fc6_to_fc8_of_every_window() -> None:
    net, photo = small_seeder("roi", "tiny").double().eval(), torch.rand(1, 3, 40, 56).double()
    fc6, fc7 = (layer for layer in net.hidden if isinstance(layer, nn.Conv2d))
    with torch.inference_mode():
        conv5, maps = net.backbone.activations(photo).block5[0], net.class_maps(photo)[0]
        assert maps.shape == (3, 5, 7)
        for row in range(5):
            for column in range(7):
                window = conv5[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
                pooled = window.flatten(1).max(1).values
                f = (fc6.weight[:, :, 0, 0] @ pooled + fc6.bias).relu()
                f = (fc7.weight[:, :, 0, 0] @ f + fc7.bias).relu()
                expected = net.scores.weight @ f
                torch.testing.assert_close(maps[:, row, column], expected)
    assert maps.std((1, 2)).min() > 0


@pytest.mark.parametrize("backbone", ["vgg16", "tiny"])
@pytest.mark.parametrize("seeder", names())
def test_what_is_settled(seeder: SeederName, backbone: str) -> None:
    """Hidden layers of N(0, 0.005) with bias 0, each with ReLU and dropout; fc8 without a bias.

    Away from VGG-16 the hidden layers start as He et al. have it.
    """
    torch.manual_seed(0)
    net = gap_seeder(seeder, backbone, None, 40, width=128)
    assert net.scores.bias is None
    assert 0.009 < net.scores.weight.std() < 0.011
    for convolution, relu, dropout in zip(*(net.hidden[i::3] for i in range(3)), strict=True):
        fan_in = convolution.weight[0].numel()
        std = 0.005 if backbone == "vgg16" else (2 / fan_in) ** 0.5
        assert 0.96 < convolution.weight.std() / std < 1.04
        assert not convolution.bias.any()
        assert isinstance(relu, nn.ReLU)
        assert isinstance(dropout, nn.Dropout)
        assert dropout.p == 0.5


def test_deeplabs_head_takes_conv5_3_and_not_pool5() -> None:
    net, photo = small_seeder("deeplab", "vgg16").eval(), torch.rand(1, 3, 40, 48)
    with torch.inference_mode():
        conv5, pool5 = net.backbone.activations(photo).block5, net.backbone(photo)
        assert not torch.equal(conv5, pool5)
        torch.testing.assert_close(net.features(photo), net.hidden(conv5))


@pytest.mark.parametrize(("scale", "dilation"), [(0.01, 1), (0.256, 3), (0.4, 5), (1.5, 18)])
def test_view_scale_is_of_deeplabs_fc6(scale: float, dilation: int) -> None:
    with torch.device("meta"):
        for seeder in names():
            net = gap_seeder(seeder, "tiny", None, 3, view_scale=scale)
            found = [m.dilation[0] for m in net.hidden if isinstance(m, nn.Conv2d)]
            assert found == ([dilation, 1] if seeder == "deeplab" else [1] * len(found))
            assert net.class_maps(torch.empty(1, 3, 65, 65)).shape[2] in (9, 5)


def test_the_backbone_takes_the_weights() -> None:
    weights = resolve("imagenet", "tiny")
    net = gap_seeder("deeplab", "tiny", weights, 3)
    stored = weights.state["block5.conv1.weight"].float()
    torch.testing.assert_close(net.backbone.state_dict()["block5.conv1.weight"], stored)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeder": "highress"}, "no seeder 'highress'; did you mean highres"),
        (
            {"seeder": "deeplab", "backbone_name": "hf:x"},
            "'deeplab' dilates .* hf:x is a transformer, .*; use lowres, highres or roi",
        ),
        ({"backbone_name": "alexnet"}, "no backbone 'alexnet'"),
        ({"width": 0}, "0 channels"),
        ({"n_classes": 0}, "0 classes"),
        ({"view_scale": 0.0}, "a view scale of 0.0"),
    ],
)
def test_impossible_seeders_are_refused(change: dict[str, object], message: str) -> None:
    arguments = {"seeder": "roi", "backbone_name": "tiny", "weights": None, "n_classes": 3}
    with pytest.raises(ConfigError, match=message):
        gap_seeder(**{**arguments, **change})  # type: ignore[arg-type]
