"""Networks come out of an export as they went in: every backbone, every head, any size."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from tagseg.data.working import argmax_at
from tagseg.errors import ConfigError
from tagseg.maps import Image
from tagseg.nets import efficientnet_lite, mobilenet
from tagseg.nets.aspp import AsppNet
from tagseg.nets.backbone import Preprocessing
from tagseg.nets.deeplab import SegmentationNet
from tagseg.nets.efficientnet_lite import EfficientNetLite0
from tagseg.nets.fpn import FpnNet
from tagseg.nets.hugging_face import HuggingFaceVit
from tagseg.nets.mobilenet import MobileNetV2
from tagseg.nets.pyramid import PyramidNet
from tagseg.nets.resnet import ResNet
from tagseg.nets.tiny import Tiny
from tagseg.nets.vgg import Vgg16
from tagseg.segment.exported import exported_program, least_side, onnx_network
from tagseg.segment.onnx_graph import Frame, assemble
from tagseg.segment.predict import Segmenter
from tagseg.segment.windowed import Sight, WindowedSegmenter
from tagseg.training import Execution

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="pip install tagseg[onnx]")

CLASSES = ("a", "b", "c")
SIDE = 80
SHAPES = [(75, 98), (64, 32), (33, 140), (1, 9)]
SIGHT = Sight(1.25, 64, (1.0, 1.5), True)
VITS = {  # what each adds to VIT
    "vit": {"model_type": "siglip_vision_model"},
    "vit with registers": {"model_type": "dinov2_with_registers"},  # sizes become numbers
    "vit of patches": {"model_type": "siglip2_vision_model", "num_patches": 16},  # asserts things
}
VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 56,
    "patch_size": 14,
}


class _ShortResNet(ResNet):
    """A bottleneck of each width."""

    name, _counts = "short", (1, 1, 1, 1)


def short_mobilenet(patch: pytest.MonkeyPatch) -> MobileNetV2:
    """The stem, three stages and the head, padded as in TensorFlow."""
    stages = ((1, 16, 1, 1), (6, 24, 1, 2), (6, 32, 1, 2))
    patch.setattr(mobilenet, "_STAGES", stages)
    patch.setattr(mobilenet, "_BLOCK4", 3)
    return MobileNetV2(8, "same_bottom_right")


def short_efficientnet(patch: pytest.MonkeyPatch) -> EfficientNetLite0:
    """The stem, three stages and the head."""
    patch.setattr(efficientnet_lite, "_STAGES", efficientnet_lite._STAGES[:3])
    return EfficientNetLite0(8)


def short_vit(kind: str, labels: int) -> SegmentationNet:
    """With position embeddings that matter, so that how they are interpolated does."""
    backbone = HuggingFaceVit(16, config=VIT | VITS[kind])
    for name, parameter in backbone.named_parameters():
        if "position" in name:
            nn.init.normal_(parameter)
    return SegmentationNet(backbone, labels, width=8)


def networks(name: str, patch: pytest.MonkeyPatch) -> tuple[nn.Module, Sight | None]:
    labels = len(CLASSES) + 1
    with warnings.catch_warnings():
        # The library's own deprecations while its models are built are not ours to mend.
        warnings.filterwarnings("ignore", module=r"transformers\.")
        made: dict[str, Any] = {
            "mobilenet_v2, ASPP": lambda: AsppNet(short_mobilenet(patch), labels),
            "efficientnet_lite, LargeFOV": lambda: SegmentationNet(
                short_efficientnet(patch), labels, width=8, margin=16
            ),
            "resnet, FPN": lambda: FpnNet(_ShortResNet(8), labels, channels=8),
            "vgg16, LargeFOV": lambda: SegmentationNet(Vgg16(8), labels, "small", width=8),
            "tiny, pyramid, windows and sizes": lambda: PyramidNet(Tiny(8), labels, channels=32),
            **{f"{kind}, LargeFOV": partial(short_vit, kind, labels) for kind in VITS},
        }
        torch.manual_seed(0)
        net = made[name]()
    return confident(net.eval()), SIGHT if "windows" in name else None


NAMES = [
    "mobilenet_v2, ASPP",
    "efficientnet_lite, LargeFOV",
    "resnet, FPN",
    "vgg16, LargeFOV",
    "tiny, pyramid, windows and sizes",
    *(f"{kind}, LargeFOV" for kind in VITS),
]


def confident(net: nn.Module) -> nn.Module:
    """The network with batch norms that do something and scores of standard deviation 3."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    x = torch.from_numpy(picture((96, 128))).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith(("fc6.bias", "fc7.bias")):
                parameter.fill_(0.5)  # so that not all of the few ReLUs are dead
    last = [p for n, p in net.named_parameters() if any(w in n for w in ("score", "direct", "fc8"))]
    with torch.no_grad():
        factor = 3 / net(x).std()
        for parameter in last:
            parameter.mul_(factor)
    return net


def picture(shape: tuple[int, int]) -> Image:
    rough = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    smooth: Any = cv2.resize(rough, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return smooth


def segmenter_of(net: nn.Module, sight: Sight | None) -> Segmenter:
    if sight is None:
        return Segmenter(net, CLASSES, side=SIDE, execution=Execution())
    return WindowedSegmenter(net, CLASSES, sight=sight, side=SIDE, execution=Execution())


def session(net: nn.Module, sight: Sight | None = None) -> Any:
    import onnxruntime

    model = assemble(onnx_network(net), Frame(SIDE, len(CLASSES) + 1, sight), {"tagseg": "0"})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as found:
        yield found


@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_gives_what_the_segmenter_gives(name: str, patch: pytest.MonkeyPatch) -> None:
    net, sight = networks(name, patch)
    segmenter, graph = segmenter_of(net, sight), session(net, sight)
    same = pixels = 0
    surest = 0.0
    for shape in SHAPES:
        expected = segmenter.probabilities(picture(shape))
        surest = max(surest, float(expected.max()))
        labels, found = graph.run(None, {"image": picture(shape)})
        np.testing.assert_allclose(found, expected, atol=1e-4)
        same += int((labels == argmax_at(expected, shape)).sum())
        pixels += labels.size
    assert surest > 0.5  # sure of something, so that the comparison is sharp
    assert same / pixels >= 0.9999


@pytest.mark.parametrize("name", ["tiny, pyramid, windows and sizes", NAMES[-2], NAMES[-1]])
def test_a_program_gives_what_the_network_gives(name: str) -> None:
    net, _ = networks(name, pytest.MonkeyPatch())
    program = exported_program(net)
    run, least = program.module(check_guards=False), least_side(program)
    assert least <= 32
    for shape in [(75, 98), (64, 33), (least, least)]:
        photo = picture(shape)[None]
        expected = Segmenter.forward(segmenter_of(net, None), photo)
        np.testing.assert_allclose(run(torch.from_numpy(photo)).numpy(), expected, atol=1e-5)


def test_normalisation_is_in_the_file() -> None:
    """Left out, or of other numbers, it would be noticed by the comparison above."""
    net, _ = networks("tiny, pyramid, windows and sizes", pytest.MonkeyPatch())
    photo, segmenter = picture((60, 70)), segmenter_of(net, None)
    right = segmenter.probabilities(photo)
    net.backbone.set_preprocessing(Preprocessing((0.0,) * 3, (1.0,) * 3))
    assert np.abs(segmenter.probabilities(photo) - right).max() > 0.05
    assert np.abs(segmenter.forward(photo[None] // 255)[0] - right).max() > 0.05


class _Odd(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write a segmenter on _Odd"):
        onnx_network(_Odd())
