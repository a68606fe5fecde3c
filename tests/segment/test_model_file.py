from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from small_runs import Refines
from tagseg.data.working import working_image
from tagseg.errors import ConfigError, WeightsError
from tagseg.maps import Image, Probs
from tagseg.nets import folding
from tagseg.nets.aspp import AsppNet
from tagseg.nets.backbone import Backbone, Preprocessing
from tagseg.nets.deeplab import SegmentationNet
from tagseg.nets.fpn import FpnNet
from tagseg.nets.mobilenet import MobileNetV2
from tagseg.nets.pyramid import PyramidNet
from tagseg.nets.resnet import ResNet50
from tagseg.nets.tiny import Tiny
from tagseg.nets.vgg import Vgg16
from tagseg.segment.model_file import (
    damage_in_one_line,
    pack_backbone,
    pack_segmenter,
    pack_tensors,
    positive,
    unpack_backbone,
    unpack_segmenter,
)
from tagseg.segment.predict import Refiner, Segmenter
from tagseg.training import Execution

Packed = tuple[dict[str, Tensor], dict[str, str]]


def segmenter(backbone: Backbone | None = None, refinement: Any = None, **form: Any) -> Segmenter:
    """With batch-norm statistics and upsampling as after training, and labels that vary."""
    torch.manual_seed(0)
    net = SegmentationNet(Tiny(16) if backbone is None else backbone, 3, width=8, **form)
    net.upsample.weight.data.mul_(torch.rand_like(net.upsample.weight) + 0.5)
    nn.init.normal_(net.score.weight)
    x = estimate_statistics(net)
    with torch.no_grad():
        net.score.weight.data.mul_(2 / net.coarse(x).std((0, 2, 3)).view(3, 1, 1, 1))
        net.score.bias.copy_(-net.coarse(x).mean((0, 2, 3)))  # type: ignore[union-attr]
    return Segmenter(net, ("cow", "größe"), side=48, execution=Execution(), refinement=refinement)


def estimate_statistics(net: nn.Module) -> Tensor:
    """Of the batch norms, from a photo: or else a random MobileNetV2 hardly depends on it."""
    x = torch.from_numpy(working_image(photo(), 48)).permute(2, 0, 1)[None].float() / 255
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(x)
    net.eval()
    for norm in norms:
        norm.momentum = 0.1
    return x


def unpacked(packed: Packed, refinement: Any = None) -> Segmenter:
    def none(stored: Mapping[str, Any]) -> Refiner:
        raise AssertionError

    return unpack_segmenter(
        *packed, execution=Execution(), refinement=refinement or none, where="m.safetensors"
    )


def by_way_of_a_file(packed: Packed, folder: Path) -> Packed:
    save_file(packed[0], folder / "model.safetensors", packed[1])
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def photo(height: int = 40, width: int = 60) -> Image:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def mobilenet() -> MobileNetV2:
    backbone = MobileNetV2(8, "same_bottom_right")
    backbone.set_preprocessing(Preprocessing((0.5, 0.4, 0.3), (0.25, 0.5, 0.75)))
    return backbone


def tiny() -> Tiny:
    backbone = Tiny(16)
    backbone.set_preprocessing(Preprocessing((0.1, 0.2, 0.3), (1.0, 0.5, 0.25)))
    return backbone


@pytest.mark.parametrize(
    ("backbone", "form"),
    [
        (tiny, {"view_scale": 0.31}),
        (tiny, {"field_of_view": "small", "learn_upsampling": False}),
        (mobilenet, {"field_of_view": "small", "view_scale": 0.25}),
        (mobilenet, {}),
        (tiny, {"margin": 16, "view_scale": 0.3}),
    ],
)
def test_what_comes_out_of_a_file_predicts_what_went_in(
    backbone: Any, form: dict[str, Any], tmp_path: Any
) -> None:
    torch.manual_seed(0)
    before = segmenter(backbone(), **form)
    after = unpacked(by_way_of_a_file(pack_segmenter(before), tmp_path))
    assert (after.classes, after.side, after.refiner) == (before.classes, 48, None)
    assert after.net.backbone.preprocessing == before.net.backbone.preprocessing
    assert after.net.fc6.dilation == before.net.fc6.dilation
    assert after.net.margin == before.net.margin == form.get("margin", 0)
    for image in (photo(), photo(70, 90)):
        expected = before.probabilities(image)
        assert len(np.unique(expected.argmax(0))) > 1
        np.testing.assert_allclose(after.probabilities(image), expected, atol=1e-4)
        assert (after.predict(image) == before.predict(image)).mean() > 0.999


@pytest.mark.parametrize("forget", ["preprocessing", "stride2_padding", "view_scale", "margin"])
def test_each_of_these_matters(forget: str) -> None:
    """Were it left out of the file, predictions would differ."""
    before = segmenter(mobilenet(), view_scale=0.3, margin=16)
    tensors, metadata = pack_segmenter(before)
    default = {
        "preprocessing": json.dumps(Preprocessing()),
        "stride2_padding": "symmetric",
        "view_scale": "1.0",
        "margin": "0",
    }
    changed = unpacked((tensors, {**metadata, forget: default[forget]}))
    difference = np.abs(changed.probabilities(photo()) - before.probabilities(photo()))
    assert difference.max() > 1e-3


def test_a_network_that_was_trained_packs_as_well() -> None:
    """Training leaves weights channels-last; files want them contiguous."""
    before = segmenter()
    before.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tensors, metadata = pack_segmenter(before)
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in tensors.values())
    after = unpacked((tensors, metadata))
    np.testing.assert_allclose(
        after.probabilities(photo()), before.probabilities(photo()), atol=1e-5
    )


@pytest.mark.parametrize(("backbone", "norms", "most"), [(tiny, 10, 1e-5), (mobilenet, 52, 2e-4)])
def test_files_of_before_norms_were_folded_are_read(
    monkeypatch: pytest.MonkeyPatch, backbone: Any, norms: int, most: float
) -> None:
    """They hold convolutions and norms apart, as files do now."""
    monkeypatch.setattr(folding, "_folds", lambda layer, convolution: False)
    before = segmenter(backbone())
    packed, expected = pack_segmenter(before), before.probabilities(photo())
    monkeypatch.undo()
    assert sum(name.endswith("running_var") for name in packed[0]) == norms
    after = unpacked(packed)
    np.testing.assert_allclose(after.probabilities(photo()), expected, atol=most)
    assert all(torch.equal(tensor, packed[0][k]) for k, tensor in pack_segmenter(after)[0].items())


def test_refinement_is_rebuilt_from_what_was_stored() -> None:
    stored = {"iterations": 3, "bilateral": [10.0, 80.0, 13.0]}
    packed = pack_segmenter(segmenter(refinement=stored))
    got: list[Mapping[str, Any]] = []

    def refinement(values: Mapping[str, Any]) -> Refiner:
        got.append(values)

        def refine(image: Image, probs: Probs) -> Probs:
            return probs[::-1]

        return Refines(refine)

    after = unpacked(packed, refinement)
    assert got == [stored]
    image = photo()
    np.testing.assert_array_equal(
        after.probabilities(image), after.probabilities(image, refine=False)[::-1]
    )


@pytest.fixture(scope="module")
def packed() -> Packed:
    return pack_segmenter(segmenter())


@pytest.mark.parametrize("metadata", [{}, {"format": "tagseg-segmenter-0"}, {"network": "tiny"}])
def test_other_files_are_no_segmenter(packed: Packed, metadata: dict[str, str]) -> None:
    with pytest.raises(WeightsError, match=r"^m.safetensors: holds no segmenter of tagseg; give a"):
        unpacked((packed[0], metadata))


KEYS = [
    "classes", "photo_side", "backbone", "output_stride", "preprocessing", "field_of_view",
    "width", "view_scale", "refinement",
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_a_file_without_a_note_is_damaged(packed: Packed, key: str) -> None:
    metadata = {name: value for name, value in packed[1].items() if name != key}
    with pytest.raises(WeightsError, match=r"^m.safetensors: holds a damaged segmenter \(KeyError"):
        unpacked((packed[0], metadata))


def test_these_are_all_the_notes_that_are_needed(packed: Packed) -> None:
    assert packed[1].keys() == {"format", "form", "margin", "dilated", *KEYS}
    with_padding = pack_segmenter(segmenter(MobileNetV2()))[1]
    assert with_padding.keys() == {
        "format", "form", "stride2_padding", "margin", "dilated", *KEYS
    }  # fmt: skip


def test_files_of_version_0_1_name_no_form_or_margin_and_not_if_dilated(packed: Packed) -> None:
    """They predict as they did."""
    new = {"form", "margin", "dilated"}
    metadata = {name: value for name, value in packed[1].items() if name not in new}
    old, today = unpacked((packed[0], metadata)), unpacked(packed)
    assert old.net.margin == 0
    np.testing.assert_array_equal(old.probabilities(photo()), today.probabilities(photo()))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("form", "pspnet"),
        ("form", "aspp"),
        ("form", "fpn"),
        ("classes", "cow"),
        ("classes", "null"),
        ("classes", '["cow"]'),
        ("classes", "3"),
        ("photo_side", "0"),
        ("photo_side", "wide"),
        ("backbone", "resnet"),
        ("backbone", "mobilenet_v2"),
        ("output_stride", "7"),
        ("output_stride", "x"),
        ("preprocessing", "null"),
        ("preprocessing", "[[0.5], [0.5]]"),
        ("preprocessing", '["a", "b"]'),
        ("preprocessing", "[[0, 0, 0]]}"),
        ("field_of_view", "huge"),
        ("width", "0"),
        ("width", "9"),
        ("view_scale", "nan"),
        ("view_scale", "inf"),
        ("view_scale", "-1"),
        ("margin", "-8"),
        ("margin", "3"),
        ("margin", "wide"),
        ("margin", "8.5"),
        ("refinement", "{"),
        ("refinement", '"soft"'),
        ("refinement", '{"unknown": 1}'),
    ],
)
def test_damaged_notes_are_one_line(packed: Packed, key: str, value: str) -> None:
    def refinement(stored: Mapping[str, Any]) -> Refiner:
        def build(iterations: int) -> Refiner:
            return Refines(lambda image, probs: probs)

        return build(**dict(stored.items()))

    with pytest.raises(WeightsError, match=r"^m.safetensors: holds a damaged segmenter \(\w+\); "):
        unpacked((packed[0], {**packed[1], key: value}), refinement)


@pytest.mark.parametrize("change", ["missing", "more", "shape"])
def test_damaged_tensors_are_one_line(packed: Packed, change: str) -> None:
    tensors = dict(packed[0])
    if change == "missing":
        del tensors["fc7.bias"]
    elif change == "more":
        tensors["fc8.bias"] = torch.zeros(3)
    else:
        tensors["fc7.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError, match=r"holds a damaged segmenter \(RuntimeError\); train it"):
        unpacked((tensors, packed[1]))


# The other forms of networks


def vgg() -> Vgg16:
    return Vgg16(16, dilated=False)  # smaller is no VGG-16, and its pools leave cells


def other_segmenter(form: str, backbone: Backbone | None = None, **options: Any) -> Segmenter:
    """Channels-last, as training leaves a network."""
    torch.manual_seed(0)
    kind = {"aspp": AsppNet, "fpn": FpnNet, "pyramid": PyramidNet}[form]
    net = kind(Tiny(16) if backbone is None else backbone, 3, **options)
    scores = [branch[-1] for branch in net.branches] if form == "aspp" else [net.score]
    for score in scores:
        nn.init.normal_(score.weight)
    x = estimate_statistics(net)
    with torch.no_grad():
        spread = net.coarse(x).std((0, 2, 3)).view(3, 1, 1, 1)
        for score in scores:
            score.weight.data.mul_(2 / spread)
        scores[0].bias.copy_(-net.coarse(x).mean((0, 2, 3)))
    net.to(memory_format=torch.channels_last)
    return Segmenter(net, ("cow", "größe"), side=48, execution=Execution())


OTHERS: list[tuple[str, Any, dict[str, Any]]] = [
    ("aspp", tiny, {}),
    ("aspp", tiny, {"rates": (2, 5), "width": 8, "dropout": 0.25}),
    ("aspp", mobilenet, {"view_scale": 0.256}),
    ("aspp", vgg, {"width": 8, "view_scale": 0.1 + 0.2}),
    ("aspp", lambda: ResNet50(8), {"view_scale": 0.3}),
    ("fpn", tiny, {}),
    ("fpn", Tiny, {"channels": 8}),
    ("fpn", mobilenet, {"channels": 16}),
    ("fpn", vgg, {"channels": 8}),
    ("fpn", lambda: ResNet50(32), {"channels": 24}),
    ("pyramid", tiny, {}),
    ("pyramid", mobilenet, {"channels": 32, "finest": 2, "view_scale": 0.5}),
]


@pytest.mark.parametrize(("form", "backbone", "options"), OTHERS)
def test_every_form_predicts_what_it_did_bit_for_bit(
    form: str, backbone: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    before = other_segmenter(form, backbone(), **options)
    packed = by_way_of_a_file(pack_segmenter(before), tmp_path)
    assert packed[1]["form"] == form
    after = unpacked(packed)
    assert type(after.net) is type(before.net)
    assert str(after.net) == str(before.net)  # layers, dilations and dropout
    assert after.net.coarse_stride == before.net.coarse_stride
    for image in (photo(), photo(70, 90)):
        expected = before.probabilities(image)
        assert len(np.unique(expected.argmax(0))) > 1
        np.testing.assert_array_equal(after.probabilities(image), expected)
    again = pack_segmenter(after)
    assert again[1] == packed[1]
    assert all(torch.equal(tensor, again[0][name]) for name, tensor in packed[0].items())


NOTES = {"aspp": ["rates", "width", "dropout", "view_scale"], "fpn": ["channels"]}
NOTES["pyramid"] = ["decoder", "channels", "finest", "view_scale"]
COMMON = [
    "classes", "photo_side", "backbone", "output_stride", "preprocessing", "refinement",
]  # fmt: skip


@pytest.fixture(scope="module", params=["aspp", "fpn", "pyramid"])
def other(request: pytest.FixtureRequest) -> tuple[str, Packed]:
    return request.param, pack_segmenter(other_segmenter(request.param))


def test_each_form_notes_this_and_no_more(other: tuple[str, Packed]) -> None:
    form, packed = other
    assert packed[1].keys() == {"format", "form", "dilated", *COMMON, *NOTES[form]}


def test_no_note_of_a_form_may_be_missing(other: tuple[str, Packed]) -> None:
    form, (tensors, notes) = other
    for key in (*COMMON, *NOTES[form]):
        metadata = {name: value for name, value in notes.items() if name != key}
        with pytest.raises(WeightsError, match=r"^m.safetensors: holds a damaged .* \(KeyError\)"):
            unpacked((tensors, metadata))


@pytest.mark.parametrize(
    ("form", "key", "value"),
    [
        ("aspp", "form", "large_fov"),
        ("aspp", "form", "fpn"),
        ("aspp", "form", ""),
        ("aspp", "rates", "[]"),
        ("aspp", "rates", "6"),
        ("aspp", "rates", "null"),
        ("aspp", "rates", "[6, 12, 18]"),
        ("aspp", "rates", "[6, 12, 18, 0]"),
        ("aspp", "rates", "[6, 12, 18, NaN]"),
        ("aspp", "rates", '["6", 12, 18, 24]'),
        ("aspp", "width", "8"),
        ("aspp", "width", "-1"),
        ("aspp", "width", '"8"'),
        ("aspp", "dropout", "1.5"),
        ("aspp", "dropout", "NaN"),
        ("aspp", "dropout", "half"),
        ("aspp", "view_scale", "NaN"),
        ("aspp", "view_scale", "Infinity"),
        ("aspp", "view_scale", "0"),
        ("fpn", "form", "large_fov"),
        ("fpn", "form", "aspp"),
        ("fpn", "channels", "0"),
        ("fpn", "channels", "-8"),
        ("fpn", "channels", "12"),
        ("fpn", "channels", "72"),
        ("fpn", "channels", "null"),
        ("fpn", "output_stride", "8"),
        ("fpn", "output_stride", "32"),
        ("fpn", "backbone", "mobilenet_v2"),
    ],
)
def test_damaged_notes_of_other_forms_are_one_line(form: str, key: str, value: str) -> None:
    tensors, notes = pack_segmenter(other_segmenter(form))
    with pytest.raises(WeightsError, match=r"^m.safetensors: holds a damaged segmenter \(\w+\); "):
        unpacked((tensors, {**notes, key: value}))


@pytest.mark.parametrize(
    ("key", "value"), [("rates", "[1, 2, 3, 4]"), ("view_scale", "2.0"), ("dropout", "0.1")]
)
def test_the_notes_of_aspp_are_what_it_is_built_from(key: str, value: str) -> None:
    before = other_segmenter("aspp", width=8, view_scale=0.9)
    tensors, notes = pack_segmenter(before)
    assert str(unpacked((tensors, {**notes, key: value})).net) != str(before.net)


def test_networks_of_no_form_are_not_packed() -> None:
    class Half(AsppNet):
        pass

    for net in (Half(Tiny(), 3), nn.Conv2d(3, 3, 1)):
        with pytest.raises(ConfigError, match=f"files hold no {type(net).__name__}; use a"):
            pack_segmenter(Segmenter(net, ("a", "b"), side=8, execution=Execution()))


# The parts, which other kinds of segmenters are packed with


@pytest.mark.parametrize("make", [tiny, mobilenet, Tiny, lambda: Vgg16(32)])
def test_a_backbone_comes_out_as_it_went_in(make: Any) -> None:
    before = make()
    after = unpack_backbone(json.loads(json.dumps(pack_backbone(before))))
    assert type(after) is type(before)
    assert after.output_stride == before.output_stride
    assert after.preprocessing == before.preprocessing
    assert after.preprocessing.mean_colour == before.preprocessing.mean_colour
    padding = "stride2_padding"
    assert getattr(after, padding, None) == getattr(before, padding, None)
    if not isinstance(before, Vgg16):  # large
        after.load_state_dict(pack_tensors(before))
        x = torch.rand(1, 3, 40, 40)
        with torch.inference_mode():
            torch.testing.assert_close(after.eval()(x), before.eval()(x))


def test_tensors_are_contiguous_and_without_a_graph() -> None:
    net = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    packed = pack_tensors(net)
    assert packed.keys() == {"weight", "bias"}
    assert packed["weight"].is_contiguous()
    assert not packed["weight"].requires_grad
    assert torch.equal(packed["weight"], net.weight)


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), ValueError("x"), TypeError("x"), RuntimeError("x"), ZeroDivisionError("x")]
    + [AttributeError("x"), IndexError("x"), ConfigError("x")],
)
def test_damage_is_one_line(error: Exception) -> None:
    name = type(error).__name__
    with (
        pytest.raises(
            WeightsError, match=rf"^f: holds a damaged segmenter \({name}\); train it"
        ) as e,
        damage_in_one_line("f"),
    ):
        raise error
    assert e.value.__cause__ is error


def test_other_ends_are_no_damage() -> None:
    with pytest.raises(KeyboardInterrupt), damage_in_one_line("f"):
        raise KeyboardInterrupt
    with pytest.raises(MemoryError), damage_in_one_line("f"):
        raise MemoryError


@pytest.mark.parametrize("text", ["0", "-3", "", "x", "2.5"])
def test_numbers_that_are_not_positive(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        positive(text)
    assert positive("12") == 12
