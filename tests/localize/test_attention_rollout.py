"""Attention rollout and its class-specific form, on matrices and on transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from contracts import Localize, LocalizerContract, Prior, PriorContract, mirror_symmetric
from tagseg.errors import ConfigError, ShapeError
from tagseg.localize.attention_rollout import (
    AttentionRelevance,
    attention_relevance,
    attention_rollout,
    rollout_saliency,
    token_map,
)
from tagseg.localize.cam import class_activation_maps, normalised_maps
from tagseg.localize.grad_cam import GradCam
from tagseg.nets.gap import GapClassifier
from tagseg.nets.hugging_face import HuggingFaceVit
from tagseg.nets.tiny import Tiny

torch.set_num_threads(1)
transformers = pytest.importorskip("transformers", reason="pip install tagseg[foundation]")

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "initializer_range": 0.3,  # attention that is not even
}
KINDS: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 64},
    "dinov2": {"image_size": 64},
    "dinov2_with_registers": {"image_size": 64},
    "dinov3_vit": {"num_register_tokens": 3},
    "clip_vision_model": {"image_size": 64},
    "siglip_vision_model": {"image_size": 64},
    "siglip2_vision_model": {"num_patches": 16},
}
PREFIX = {"dinov2_with_registers": 5, "dinov3_vit": 4, "siglip_vision_model": 0}
PREFIX["siglip2_vision_model"] = 0


def vit(kind: str = "vit", stride: int = 16, patch: int = 16) -> HuggingFaceVit:
    torch.manual_seed(0)
    config = SMALL | KINDS[kind] | {"model_type": kind, "patch_size": patch}
    net = HuggingFaceVit(stride, config=config).eval()
    for name, parameter in net.named_parameters():  # some start at zeros
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.3)
        if "lambda1" in name:  # the branches of DINOv2 start at nearly nothing
            nn.init.ones_(parameter)
    return net


def classifier(kind: str = "vit", **form: int) -> GapClassifier:
    backbone = vit(kind, **form)
    made = GapClassifier(backbone, 4, hidden=8)
    nn.init.normal_(made.scores.weight)
    return made.eval()


def attentions(seed: int, photos: int = 2, heads: int = 3, tokens: int = 5) -> list[Tensor]:
    numbers = np.random.default_rng(seed).random((4, photos, heads, tokens, tokens))
    return list(torch.from_numpy(numbers / numbers.sum(-1, keepdims=True)).float())


def loop_rollout(layers: list[Tensor]) -> np.ndarray:
    """A~ = 0.5 mean_h A + 0.5 I; the product of all, later layers to the left."""
    photos, heads, tokens, _ = layers[0].shape
    rolled = np.stack([np.eye(tokens)] * photos)
    for layer in layers:
        after = np.zeros_like(rolled)
        for b in range(photos):
            for i in range(tokens):
                for k in range(tokens):
                    mixing = 0.5 * (i == k)
                    for h in range(heads):
                        mixing += 0.5 * float(layer[b, h, i, k]) / heads
                    for j in range(tokens):
                        after[b, i, j] += mixing * rolled[b, k, j]
        rolled = after
    return rolled


def loop_relevance(layers: list[Tensor], gradients: list[Tensor]) -> np.ndarray:
    """Chefer et al., Eq. 5: A' = mean_h (dA * A)^+; Eq. 6: R = R + A' R."""
    photos, heads, tokens, _ = layers[0].shape
    relevance = np.stack([np.eye(tokens)] * photos)
    for layer, gradient in zip(layers, gradients, strict=True):
        after = relevance.copy()
        for b in range(photos):
            for i in range(tokens):
                for k in range(tokens):
                    total = 0.0
                    for h in range(heads):
                        total += max(0.0, float(layer[b, h, i, k]) * float(gradient[b, h, i, k]))
                    for j in range(tokens):
                        after[b, i, j] += total / heads * relevance[b, k, j]
        relevance = after
    return relevance


def test_rollout_equals_the_loop() -> None:
    layers = attentions(0)
    np.testing.assert_allclose(attention_rollout(layers), loop_rollout(layers), atol=1e-6)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), tokens=st.integers(1, 7), heads=st.integers(1, 4))
def test_rows_of_a_rollout_are_shares(seed: int, tokens: int, heads: int) -> None:
    rolled = attention_rollout(attentions(seed, heads=heads, tokens=tokens))
    torch.testing.assert_close(rolled.sum(2), torch.ones(2, tokens), atol=1e-5, rtol=0)
    assert rolled.min() >= 0


def test_relevance_equals_the_loop() -> None:
    layers = attentions(0)
    gradients = [layer.flip(2) - 0.2 for layer in attentions(1)]
    found = attention_relevance(layers, gradients)
    np.testing.assert_allclose(found, loop_relevance(layers, gradients), atol=1e-5)


def test_what_speaks_against_a_class_is_no_relevance() -> None:
    layers = attentions(0)
    found = attention_relevance(layers, [-torch.ones_like(layer) for layer in layers])
    assert torch.equal(found, torch.eye(5).expand(2, -1, -1))


def test_matrices_that_do_not_fit() -> None:
    layers = attentions(0)
    with pytest.raises(ShapeError, match="give \\(B, heads, T, T\\)"):
        attention_rollout([])
    with pytest.raises(ShapeError, match="give \\(B, heads, T, T\\)"):
        attention_rollout([layers[0], layers[1][..., :3]])
    with pytest.raises(ShapeError, match="give one for each attention"):
        attention_relevance(layers, layers[:2])


def test_a_map_of_patches_drops_what_is_before_them() -> None:
    matrix = torch.arange(2 * 8 * 8.0).view(2, 8, 8)
    expected = matrix[:, 0, 2:].reshape(2, 2, 3)
    assert torch.equal(token_map(matrix, (2, 3), query=0), expected)
    expected = matrix[:, 2:, 2:].mean(1).reshape(2, 2, 3)
    assert torch.equal(token_map(matrix, (2, 3)), expected)
    for grid, query in (((3, 3), None), ((2, 3), 8), ((0, 3), None)):
        with pytest.raises(ShapeError, match="with the patches last"):
            token_map(matrix, grid, query=query)


# --- transformers ----------------------------------------------------------------------------


def photos(count: int = 2, size: tuple[int, int] = (40, 56)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


def by_the_library(net: HuggingFaceVit, x: Tensor) -> tuple[Tensor, ...]:
    """Attentions as the library gives them, of a copy of the model that is eager throughout."""
    net.model.set_attn_implementation("eager")
    pixels = net._whole_patches(net.normalise(x))
    net._grid = (pixels.shape[2] // net.patch, pixels.shape[3] // net.patch)
    return net.model(**net._inputs(pixels), output_attentions=True).attentions


@pytest.mark.parametrize("kind", KINDS)
def test_attentions_are_the_librarys(kind: str) -> None:
    net, x = vit(kind), photos()
    usual = net.model.config._attn_implementation
    with torch.no_grad():
        features = net(x)
        with net.recorded_attentions() as found:
            torch.testing.assert_close(net(x), features, atol=1e-4, rtol=1e-4)
        assert net.model.config._attn_implementation == usual != "eager"
        assert not any(module._forward_hooks for module in net.modules())
        expected = by_the_library(net, x)
    assert len(found) == len(expected) == 5
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other)
    tokens = found[0].shape[2]
    assert tokens == features.shape[2] * features.shape[3] + PREFIX.get(kind, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_class_maps_are_the_relevance_of_the_patches(kind: str) -> None:
    """R by gradients that autograd has of the whole network; the identity is taken off."""
    net, x = classifier(kind), photos(1)
    found = AttentionRelevance(net).class_maps(x)
    with net.backbone.recorded_attentions() as layers:
        scores = net(x)
    assert found.shape == (1, 4, 3, 4)
    for c in range(4):
        gradients = list(torch.autograd.grad(scores[0, c], layers, retain_graph=True))
        relevance = loop_relevance([layer.detach() for layer in layers], gradients)
        patches = (relevance - np.eye(relevance.shape[1]))[0, -12:, -12:]
        expected = patches.mean(0).reshape(3, 4)
        np.testing.assert_allclose(found[0, c], expected, rtol=1e-3, atol=1e-7 * expected.max())
    assert found.min() >= 0
    assert found.amax((2, 3)).gt(0).any()
    peaks = found / found.amax((2, 3), keepdim=True).clamp(min=1e-12)
    assert (peaks[0, 0] - peaks[0, 1]).abs().max() > 0.05, "classes are told apart"


def test_the_classifier_stays_as_it_is() -> None:
    net = classifier()
    with torch.inference_mode():
        AttentionRelevance(net).class_maps(photos(1))
    assert all(parameter.grad is None for parameter in net.parameters())
    assert net.backbone.model.config._attn_implementation != "eager"
    assert not any(module._forward_hooks for module in net.modules())


def test_only_wanted_classes_are_looked_at() -> None:
    maps, x = AttentionRelevance(classifier()), photos()
    wanted = torch.tensor([[True, False, True, False], [False, False, True, False]])
    everything = maps.class_maps(x)
    assert torch.equal(maps.class_maps(x, wanted), everything * wanted[:, :, None, None])
    for wrong in (wanted[:1], wanted[:, :3]):
        with pytest.raises(ShapeError, match="wanted"):
            maps.class_maps(x, wrong)


def test_double_precision() -> None:
    net, x = classifier(), photos(1)
    single, rolled = AttentionRelevance(net).class_maps(x), rollout_saliency(net.backbone, x)
    net = net.double()
    double = AttentionRelevance(net).class_maps(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, atol=1e-6, rtol=1e-3)
    again = rollout_saliency(net.backbone, x.double())
    torch.testing.assert_close(again.float(), rolled, atol=1e-6, rtol=1e-3)


def test_low_precision() -> None:
    maps, x = AttentionRelevance(classifier()), photos()
    exact = maps.of(None).class_maps(x)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = maps.of(None).class_maps(x)
    assert low.dtype == torch.float32
    assert (low - exact).abs().mean() < 0.02


def test_networks_that_are_refused() -> None:
    with pytest.raises(ConfigError, match="tiny has no attentions; use a transformer"):
        AttentionRelevance(GapClassifier(Tiny(), 3, hidden=8).eval())
    with pytest.raises(ConfigError, match="tiny has no attentions; use a transformer"):
        rollout_saliency(Tiny().eval(), photos())
    with pytest.raises(ConfigError, match="training mode"):
        AttentionRelevance(classifier().train())


def test_a_model_that_gives_no_attentions_gets_one_line() -> None:
    net = vit()
    for layer in net.model.modules():
        if type(layer).__name__ == "ViTAttention":
            real = layer.forward
            layer.forward = lambda *args, real=real, **kwargs: (real(*args, **kwargs)[0], None)
    with pytest.raises(ConfigError, match="gave no attentions"), net.recorded_attentions():
        net(photos(1))
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("kind", ["vit", "dinov2_with_registers", "siglip_vision_model"])
def test_saliency_is_the_rollout_of_the_patches(kind: str) -> None:
    net, x = vit(kind), photos(1)
    with torch.no_grad(), net.recorded_attentions() as layers:
        net(x)
    expected = loop_rollout(layers)[0, -12:, -12:].mean(0).reshape(3, 4)
    np.testing.assert_allclose(rollout_saliency(net, x)[0], expected, atol=1e-6)


def even(net: nn.Module) -> nn.Module:
    """No position embeddings and symmetric kernels: mirrored photos have mirrored maps."""
    for name, parameter in net.named_parameters():
        if "position" in name:
            nn.init.zeros_(parameter)
    return mirror_symmetric(net)


class OnTransformers(LocalizerContract):
    """Patches of 19 pixels: three fill the suite's photos of 57, with nothing to repeat."""

    @staticmethod
    def maps(net: GapClassifier) -> Any:
        raise NotImplementedError

    @pytest.fixture(params=["vit", "dinov2_with_registers", "siglip_vision_model"])
    def localize(self, request: pytest.FixtureRequest) -> Localize:
        net = even(classifier(request.param, stride=19, patch=19))
        maps = self.maps(net)

        def localize(photos: Any, tags: Any) -> Any:
            x = torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 255
            found = class_activation_maps(maps.of(torch.from_numpy(np.stack(tags))), x).numpy()
            size = (x.shape[2], x.shape[3])
            return [normalised_maps(*pair, size) for pair in zip(found, tags, strict=True)]

        return localize


class TestRelevanceContract(OnTransformers):
    @staticmethod
    def maps(net: GapClassifier) -> Any:
        return AttentionRelevance(net)


class TestGradCamContract(OnTransformers):
    """At the last block's patch tokens."""

    @staticmethod
    def maps(net: GapClassifier) -> Any:
        return GradCam(net, "backbone.maps.4")


class TestSaliencyContract(PriorContract):
    """The rollout that knows no classes is a saliency map, when it is brought to the photo."""

    @pytest.fixture
    def prior(self) -> Prior:
        net = vit()

        def prior(photo: Any) -> Any:
            x = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
            found = rollout_saliency(net, x).numpy()
            return normalised_maps(found, [True], photo.shape[:2])[0]

        return prior
