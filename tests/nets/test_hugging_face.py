from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts import BackboneContract
from tagseg.errors import ConfigError, WeightsError
from tagseg.nets.backbone import Backbone, Preprocessing
from tagseg.nets.catalog import backbone_kind, backbone_label, build_backbone
from tagseg.nets.gap import GapClassifier
from tagseg.nets.hugging_face import HuggingFaceVit, build_vit, sizes_as_symbols
from tagseg.nets.weights import load_into, resolve

transformers = pytest.importorskip("transformers", reason="pip install tagseg[foundation]")

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
MODELS: dict[str, tuple[str, dict[str, Any], int]] = {
    "dinov2": ("Dinov2", {"patch_size": 14, "image_size": 56}, 1),
    "registers": ("Dinov2WithRegisters", {"patch_size": 14, "image_size": 56}, 5),
    "dinov3": ("DINOv3ViT", {"patch_size": 16, "num_register_tokens": 3}, 4),
    "clip": ("CLIPVision", {"patch_size": 16, "image_size": 64}, 1),
    "siglip": ("SiglipVision", {"patch_size": 16, "image_size": 64}, 0),
    "siglip2": ("Siglip2Vision", {"patch_size": 16, "num_patches": 16}, 0),
    "vit": ("ViT", {"patch_size": 16, "image_size": 64}, 1),
}


def saved(folder: Path, kind: str, **changes: Any) -> str:
    """A folder with a model of random weights, as the library itself writes it."""
    family, extra, _ = MODELS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SMALL | extra | changes)
    getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
    return f"hf:{folder}"


def without_positions(net: nn.Module) -> nn.Module:
    """No position embeddings, which tell mirror images apart, and rows of patches that are even."""
    for name, parameter in net.named_parameters():
        if "position" in name:
            nn.init.zeros_(parameter)
        if "patch_embed" in name and parameter.dim() == 2:  # patches as rows, colours last
            mean = parameter.detach().unflatten(1, (-1, 3)).mean(1, keepdim=True)
            parameter.data = (mean.expand(-1, parameter.shape[1] // 3, 3) * 3).flatten(1)
    return net


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "dinov3"])
class TestContract(BackboneContract):
    signed, local = True, False

    @pytest.fixture
    def backbone(self, kind: str, tmp_path: Path) -> Backbone:
        name = saved(tmp_path, kind)
        net = build_backbone(name, resolve("imagenet", name), output_stride=16).eval()
        without_positions(net)
        return net


class TestRotaryPositions(BackboneContract):
    """DINOv3's positions turn with the head's dimensions: mirror images are told apart."""

    signed, local = True, False

    @pytest.fixture
    def backbone(self, tmp_path: Path) -> Backbone:
        name = saved(tmp_path, "dinov3")
        return build_backbone(name, resolve("imagenet", name), output_stride=16).eval()

    def test_position_i_is_centred_on_pixel_stride_times_i(self, backbone: Backbone) -> None:
        pytest.skip("positions are part of the attention")


@pytest.mark.parametrize("kind", MODELS)
def test_maps_are_the_models_own_patch_tokens(kind: str, tmp_path: Path) -> None:
    """At the size of whole patches: the library's output without its class and register tokens."""
    name, (family, extra, prefix) = saved(tmp_path, kind), MODELS[kind]
    patch = extra["patch_size"]
    net = build_vit(name, patch).eval()
    load_into(net, resolve("imagenet", name))
    model = getattr(transformers, f"{family}Model").from_pretrained(tmp_path).eval()
    x = torch.rand(2, 3, 3 * patch, 5 * patch)
    with torch.inference_mode():
        found = net(x)
        normal = net.normalise(x)
        if kind == "siglip2":
            patches = normal.unfold(2, patch, patch).unfold(3, patch, patch)
            patches = patches.permute(0, 2, 3, 4, 5, 1).reshape(2, 15, -1)
            expected = model(patches, torch.ones(2, 15), torch.tensor([[3, 5]] * 2))
        elif kind in ("clip", "siglip", "vit"):
            expected = model(normal, interpolate_pos_encoding=True)
        else:
            expected = model(normal)
    tokens = expected.last_hidden_state
    assert tokens.shape[1] == prefix + 15
    grid = tokens[:, prefix:].mT.unflatten(2, (3, 5))
    torch.testing.assert_close(found, grid, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("stride", "scale"), [(16, 14 / 16), (8, 14 / 8), (14, 1)])
def test_a_patch_covers_the_output_stride(stride: int, scale: float, tmp_path: Path) -> None:
    net = build_vit(saved(tmp_path, "dinov2"), stride).eval()
    sizes: list[torch.Size] = []
    net.model.embeddings.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(
            (args[0] if args else kwargs["pixel_values"]).shape
        ),
        with_kwargs=True,
    )
    with torch.inference_mode():
        assert net(torch.rand(1, 3, 50, 90)).shape == (1, 32, -(-50 // stride), -(-90 // stride))
    assert sizes[0][2:] == tuple(-(-side // stride) * 14 for side in (50, 90))


def test_the_border_is_repeated_to_whole_patches(tmp_path: Path) -> None:
    net = build_vit(saved(tmp_path, "vit"), 16).eval()
    x = torch.rand(1, 3, 40, 50)
    filled = nn.functional.pad(x, (0, 14, 0, 8), mode="replicate")
    with torch.inference_mode():
        torch.testing.assert_close(net(x), net(filled))


def test_gradients_reach_the_maps_of_inner_layers(tmp_path: Path) -> None:
    net = build_vit(saved(tmp_path, "registers"), 16).eval()
    maps: list[Tensor] = []
    net.maps[1].register_forward_hook(lambda module, args, output: maps.append(output))
    (gradient,) = torch.autograd.grad(net(torch.rand(1, 3, 48, 64))[0, 0].sum(), maps)
    assert gradient.shape == (1, 32, 3, 4)
    assert gradient.abs().sum() > 0


def test_a_copy_has_maps_of_its_own(tmp_path: Path) -> None:
    net = build_vit(saved(tmp_path, "dinov2"), 16).eval()
    other, x = copy.deepcopy(net), torch.rand(1, 3, 32, 48)
    seen: list[Tensor] = []
    other.maps[3].register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.inference_mode():
        torch.testing.assert_close(other.activations(x).block4, net.activations(x).block4)
    assert len(seen) == 1


def test_a_classifier_stands_on_it(tmp_path: Path) -> None:
    net = GapClassifier(build_vit(saved(tmp_path, "clip"), 16), 3, hidden=8).eval()
    assert net.class_maps(torch.rand(2, 3, 33, 40)).shape[:2] == (2, 3)


def test_pyramid_has_all_strides_of_one_map(tmp_path: Path) -> None:
    net = build_vit(saved(tmp_path, "vit"), 16).eval()
    with torch.inference_mode():
        maps = net.pyramid(torch.rand(2, 3, 41, 65))
        assert [tuple(level.shape) for level in maps] == [
            (2, 32, -(-41 // stride), -(-65 // stride)) for stride in (4, 8, 16)
        ]


def test_preprocessing_is_the_folders(tmp_path: Path) -> None:
    name = saved(tmp_path, "clip")
    assert build_vit(name, 16).preprocessing.mean == pytest.approx(
        (0.4815, 0.4578, 0.4082), abs=1e-4
    )
    own = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(own))
    net = build_backbone(name, resolve("imagenet", name))
    assert net.preprocessing == Preprocessing((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1]}')
    with pytest.raises(ConfigError, match="three numbers"):
        build_vit(name, 16)


def test_a_model_of_pictures_and_words_gives_its_picture_side(tmp_path: Path) -> None:
    vision = SMALL | MODELS["clip"][1]
    text = SMALL | {"vocab_size": 20, "max_position_embeddings": 8}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text)
    model = transformers.CLIPModel(config)
    model.save_pretrained(tmp_path)
    name = f"hf:{tmp_path}"
    net = build_backbone(name, resolve("imagenet", name), output_stride=16)
    own = dict(net.model.named_parameters())
    for entry, parameter in model.vision_model.named_parameters():
        (found,) = [v for k, v in own.items() if k.replace(".layer.", ".").endswith(entry)]
        torch.testing.assert_close(found, parameter)


def test_labels_say_which_network_it_is_wherever_it_lies(tmp_path: Path) -> None:
    here, there = (saved(tmp_path / place, "vit") for place in "ab")
    other = saved(tmp_path / "c", "vit", num_hidden_layers=7)
    assert backbone_label(here) == backbone_label(there) != backbone_label(other)
    assert str(tmp_path) not in backbone_label(here)
    assert backbone_label("tiny") == "tiny"
    assert backbone_kind(here) is HuggingFaceVit


def test_bad_folders_get_one_line(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="does not exist; check the path"):
        build_backbone(f"hf:{tmp_path / 'nowhere'}")
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        build_backbone(f"hf:{empty}")
    (empty / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        build_backbone(f"hf:{empty}")
    (empty / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="a model of type 'bert'; use one of dinov2"):
        build_backbone(f"hf:{empty}")
    (empty / "config.json").write_text('{"model_type": "vit", "hidden_act": "no such"}')
    with pytest.raises(ConfigError, match="no ViTModel can be built"):
        build_backbone(f"hf:{empty}")


def test_bad_weights_get_one_line(tmp_path: Path) -> None:
    name = saved(tmp_path / "a", "vit")
    (tmp_path / "a" / "model.safetensors").rename(tmp_path / "weights")
    with pytest.raises(WeightsError, match=r"has no model\.safetensors"):
        resolve("imagenet", name)
    other = saved(tmp_path / "b", "siglip")
    (tmp_path / "b" / "model.safetensors").replace(tmp_path / "a" / "model.safetensors")
    with pytest.raises(WeightsError, match="weights of another model"):
        resolve("imagenet", name)
    (tmp_path / "b" / "model.safetensors").write_bytes((tmp_path / "weights").read_bytes()[:500])
    with pytest.raises(WeightsError, match="cannot be read"):
        resolve("imagenet", other)


def test_the_library_is_as_it_was_after_sizes_were_symbols(tmp_path: Path) -> None:
    net = build_vit(saved(tmp_path, "registers"), 16)
    home = sys.modules[type(net.model).__module__]
    before = home.torch_int
    with sizes_as_symbols(net):
        assert home.torch_int is not before
        assert home.torch_int(7.9) == 7
    assert home.torch_int is before


def test_a_broken_torchvision_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tagseg.nets import hugging_face

    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    hugging_face._keep_broken_torchvision_out()
    assert sys.modules["torchvision"] is None  # type: ignore[comparison-overlap]
    monkeypatch.delitem(sys.modules, "torchvision")


def test_without_the_extra_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = saved(tmp_path, "vit")
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None)
    with pytest.raises(ConfigError, match=r"pip install tagseg\[foundation\]"):
        build_backbone(name)
