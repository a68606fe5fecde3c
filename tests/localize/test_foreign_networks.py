"""Networks that are not ours, beside autograd in float64, captum and loops of the papers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagseg.errors import ConfigError, ShapeError
from tagseg.localize import ClassSaliency, class_activation_maps
from tagseg.nets.gap import GapClassifier
from tagseg.nets.tiny import Tiny

torch.set_num_threads(1)
N_CLASSES = 4
CLASSES = torch.tensor([[0, 3], [2, 1]])


def plain_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, N_CLASSES),
    )


def resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2]}
    return ResNetForImageClassification(
        ResNetConfig(**sizes, layer_type="bottleneck", num_labels=N_CLASSES)
    )


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ViTConfig(**sizes, intermediate_size=24, image_size=32, patch_size=8)
    config.num_labels = N_CLASSES
    return ViTForImageClassification(config)


class Tutorial(nn.Module):
    """Functions, views and fully connected layers, as a first network is often written."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 5), nn.Conv2d(4, 6, 5)
        self.fc1, self.fc2 = nn.Linear(6 * 5 * 5, 12), nn.Linear(12, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.view(-1, 6 * 5 * 5))))


class Encoder(nn.Module):
    """PyTorch's own transformer, which has a fast way without derivatives, and ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.encoder(tokens).mean(1))


def ours() -> nn.Module:
    return GapClassifier(Tiny(), N_CLASSES, hidden=6)


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "sequential": (plain_cnn, ("input", "0", "3", "5", "6")),
    "transformers resnet": (resnet, ("input", "resnet.embedder", "resnet.encoder.stages.1")),
    "transformers vit": (vit, ("input", "vit.embeddings", "vit.layers.0", "vit.layers.1.mlp")),
    "tutorial": (Tutorial, ("input", "conv1", "conv2", "fc1")),
    "encoder": (Encoder, ("input", "patches", "encoder.layers.0", "encoder")),
    "ours": (ours, ("input", "backbone.block3", "hidden")),
}
WITH_RELUS = [name for name in NETS if name != "transformers vit"]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = NETS[name][0]()
    for parameter in net.parameters():
        if parameter.ndim > 1:  # so that scores differ by class
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def pictures(side: int = 32) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def scores_of(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits


class Guided(torch.autograd.Function):
    """Springenberg et al., 2015: back where activation and gradient are over 0."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return gradient.clamp(min=0) * (ctx.saved_tensors[0] > 0)


class GuidedReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Guided.apply(x)


def by_autograd(
    net: nn.Module, x: Tensor, layers: Sequence[str], monkeypatch: pytest.MonkeyPatch, method: str
) -> dict[str, Tensor]:
    """A class and a photo at a time, in float64."""
    net, outputs = copy.deepcopy(net).double(), dict[str, Tensor]()
    if method == "guided":
        for parent in list(net.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.ReLU):
                    setattr(parent, name, GuidedReLU())
        for parent in net.modules():
            if isinstance(parent, nn.TransformerEncoderLayer):
                parent.activation = Guided.apply
        monkeypatch.setattr(F, "relu", Guided.apply)
    for name, module in net.named_modules():
        if name in layers:

            def note(m: nn.Module, args: Any, out: Any, name: str = name) -> Any:
                outputs[name] = out
                return out + 0  # nothing is written over the layer's own output

            module.register_forward_hook(note)
    outputs["input"] = x.double().requires_grad_()
    scores = scores_of(net(outputs["input"] + 0))
    found: dict[str, Tensor] = {}
    for name in layers:
        rows = [
            [
                torch.autograd.grad(scores[photo, k], outputs[name], retain_graph=True)[0][photo]
                for k in row
            ]
            for photo, row in enumerate(CLASSES.tolist())
        ]
        found[name] = torch.stack([torch.stack(row) for row in rows])
    monkeypatch.undo()
    return found


def relative_error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    assert expected.abs().max() > 0  # or else anything would do
    return float((found - expected).abs().max() / expected.abs().max())


def saliency_of(net: nn.Module, method: Any, layers: Any, **options: Any) -> ClassSaliency:
    return ClassSaliency(net, method, layers, scores=scores_of, **options)


@pytest.mark.parametrize("method", ["plain", "guided"])
@pytest.mark.parametrize("name", NETS)
def test_any_network_and_layer(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if method == "guided" and name not in WITH_RELUS:
        pytest.skip("has no ReLU")
    net, layers, x = network(name), NETS[name][1], pictures()
    expected = by_autograd(net, x, layers, monkeypatch, method)
    record = saliency_of(copy.deepcopy(net).double(), method, layers).forward(x.double())
    found = record.gradients(CLASSES)
    assert set(found) == set(layers)
    for layer in layers:
        assert relative_error(found[layer], expected[layer]) <= 1e-11, layer
    with torch.no_grad():
        torch.testing.assert_close(record.class_maps.flatten(1).float(), scores_of(net(x)))
    single = saliency_of(net, method, layers).forward(x).gradients(CLASSES)
    assert all(relative_error(single[layer], expected[layer]) <= 1e-4 for layer in layers)


@pytest.mark.parametrize("name", ["sequential", "transformers resnet"])
def test_guided_is_that_of_captum(name: str) -> None:
    class Scores(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return scores_of(self.net(x))

    net, x = network(name).double(), pictures().double()
    found = ClassSaliency(net, "guided").forward(x).gradients(CLASSES)["input"]
    theirs = Scores(copy.deepcopy(net))
    for module in theirs.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    columns = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hooks that are set, and of inputs without a gradient
        for column in CLASSES.T:
            columns.append(captum.attr.GuidedBackprop(theirs).attribute(x, column))
    assert relative_error(found, torch.stack(columns, 1).detach()) <= 1e-12


def test_excitation_of_a_plain_network() -> None:
    """Eq. 1 to 3 of Zhang et al., written out as matrices: P(a_j) = sum_i P(a_j | a_i) P(a_i)."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)),
    ).eval()
    x = pictures(4)
    with torch.no_grad():
        maps = net[1](net[0](x)).double()  # (B, 4, 4, 4)
        units = net[5](net[4](net[3](net[2](net[1](net[0](x)))))).double()
    first, second = (net[i].weight.detach().double().clamp(min=0) for i in (4, 6))
    record = ClassSaliency(net, "excitation", ["1", "5"]).forward(x)
    found = record.gradients([0, 2])
    for photo in range(2):
        means = maps[photo].mean((1, 2))
        for k, label in enumerate((0, 2)):
            brought = units[photo] * second[label]
            of_units = brought / brought.sum()
            of_means = torch.zeros(4, dtype=torch.float64)
            for i in range(5):
                brought = means * first[i]
                if brought.sum() > 0:
                    of_means += of_units[i] * brought / brought.sum()
            shares = maps[photo] / maps[photo].sum((1, 2), keepdim=True).clamp(min=1e-30)
            expected = of_means[:, None, None] * shares
            assert relative_error(found["5"][photo, k].double(), of_units) <= 1e-5
            assert relative_error(found["1"][photo, k].double(), expected) <= 1e-5
    sums = found["1"].sum((2, 3, 4))
    torch.testing.assert_close(sums, torch.ones(2, 2))


def test_excitation_of_a_residual_network_keeps_probability() -> None:
    """Where everything excites everything."""
    net = network("transformers resnet")
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.abs_().mul_(-1 if "running_mean" in name else 1)
    layers = ["input", "resnet.embedder", "resnet.encoder.stages.0", "resnet.encoder.stages.1"]
    found = ClassSaliency(net, "excitation", layers).forward(pictures()).saliency(CLASSES)
    for layer, maps in found.items():
        assert maps.min() >= 0, layer
        torch.testing.assert_close(maps.sum((2, 3)), torch.ones(2, 2), atol=1e-4, rtol=0)
        assert maps.amax() < 0.5, layer  # spread out


# How layers and scores are named


def test_layers_by_name_or_as_modules() -> None:
    net, x = network("transformers resnet"), pictures()
    stage = net.resnet.encoder.stages[0]
    by_name = ClassSaliency(net, "guided", ["resnet.encoder.stages.0"]).forward(x)
    by_module = ClassSaliency(net, "guided", [stage]).forward(x)
    expected = by_name.saliency([1])["resnet.encoder.stages.0"]
    assert torch.equal(by_module.saliency([1])["resnet.encoder.stages.0"], expected)
    with pytest.raises(ConfigError, match="the network has no layer ReLU"):
        ClassSaliency(net, layers=[nn.ReLU()])


def test_logits_are_found_and_scores_may_be_given() -> None:
    net, x = network("transformers resnet"), pictures()
    found = ClassSaliency(net, "plain").forward(x).gradients([2])["input"]
    chosen = ClassSaliency(net, "plain", scores=lambda output: output.logits[:, 2:]).forward(x)
    assert torch.equal(chosen.gradients([0])["input"], found)
    assert chosen.class_maps.shape == (2, 2, 1, 1)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: {"out": x}, "gives dict, not class scores; say how .* scores=lambda"),
        (lambda x: (x, x), "gives tuple, not class scores"),
        (lambda x: x.flatten(1)[:, 0], r"scores are \(2,\)"),
        (lambda x: x.flatten(2), r"scores are \(2, 6, 1\)"),
    ],
)
def test_outputs_that_are_no_scores_are_refused(output: Any, message: str) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 32)

        def forward(self, x: Tensor) -> Any:
            return output(self.conv(x))

    with pytest.raises((ConfigError, ShapeError), match=message) as caught:
        ClassSaliency(Odd().eval(), "plain").forward(pictures())
    assert "\n" not in str(caught.value)


def test_class_maps_of_ours_and_its_scores_agree() -> None:
    """The score is the mean of the map, whose sum goes back."""
    net, x = network("ours"), pictures()
    maps = ClassSaliency(net, "guided", ["input", "hidden"]).forward(x)
    scores = saliency_of(net, "guided", ["input", "hidden"]).forward(x)
    positions = maps.class_maps[0, 0].numel()
    assert positions > 1
    for layer, gradient in scores.gradients(CLASSES).items():
        torch.testing.assert_close(gradient * positions, maps.gradients(CLASSES)[layer])


def test_tokens_become_maps_by_reshape() -> None:
    net, x = network("transformers vit"), pictures()
    layers = ["input", "vit.layers.0"]
    plain = saliency_of(net, "plain", layers).forward(x)
    with pytest.raises(ConfigError, match=r"gives \(17, 16\) for a photo, .* give reshape=") as c:
        plain.saliency(CLASSES)
    assert "\n" not in str(c.value)
    mapped = saliency_of(
        net, "plain", layers, reshape=lambda t: t[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    ).forward(x)
    tokens = plain.gradients(CLASSES)["vit.layers.0"]
    assert tokens.shape == (2, 2, 17, 16)
    found = mapped.saliency(CLASSES)
    assert found["input"].shape == (2, 2, 32, 32)
    for photo, k, row, column in np.ndindex(2, 2, 4, 4):
        expected = tokens[photo, k, 1 + 4 * row + column].abs().max()
        assert found["vit.layers.0"][photo, k, row, column] == expected


def test_layers_whose_first_axis_is_not_the_photos() -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.mix = nn.Conv2d(3, 5, 8, 8), nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.mix(self.patches(x).flatten(2).permute(2, 0, 1)).relu().mean(0)

    torch.manual_seed(0)
    net, x = Sequence().eval(), pictures()
    with pytest.raises(ConfigError, match="not 2 photos first"):
        ClassSaliency(net, "plain", ["mix"]).forward(x).gradients(CLASSES)
    reshape = lambda t: t.permute(1, 2, 0).unflatten(2, (4, 4))  # noqa: E731
    found = ClassSaliency(net, "plain", ["mix"], reshape=reshape).forward(x)
    alone = ClassSaliency(net, "plain", ["mix"], reshape=reshape).forward(x[1:])
    expected = found.gradients(CLASSES)["mix"][1:]
    assert expected.shape == (1, 2, 5, 4, 4)
    torch.testing.assert_close(alone.gradients(CLASSES[1:])["mix"], expected)


# Where a method cannot hold


def with_activation(activation: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), activation, nn.Conv2d(4, 4, 3), activation),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    ).eval()


@pytest.mark.parametrize(
    "activation",
    [nn.GELU(), nn.SiLU(inplace=True), nn.LeakyReLU(), nn.PReLU(), nn.Tanh(), nn.Identity()],
    ids=repr,
)
def test_guided_without_relus_is_refused(activation: nn.Module) -> None:
    with pytest.raises(ConfigError) as caught:
        ClassSaliency(with_activation(activation), "guided").forward(pictures())
    assert str(caught.value) == (
        "guided back-propagation changes ReLUs, and none lies between layers and scores; use plain"
    )
    assert ClassSaliency(with_activation(activation), "plain").forward(pictures()).saliency([0])


def test_guided_behind_the_last_relu_is_plain() -> None:
    net, x = with_activation(nn.ReLU()), pictures()
    found = ClassSaliency(net, "guided", ["3"]).forward(x).gradients([0])["3"]
    assert torch.equal(found, ClassSaliency(net, "plain", ["3"]).forward(x).gradients([0])["3"])
    mixed = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), with_activation(nn.GELU())).eval()
    ClassSaliency(mixed, "guided").forward(x)
    with pytest.raises(ConfigError, match="none lies between"):
        ClassSaliency(mixed, "guided", ["2.0"]).forward(x)


def test_guided_vit_is_refused_and_so_is_its_excitation() -> None:
    net = network("transformers vit")
    with pytest.raises(ConfigError, match="guided back-propagation changes ReLUs"):
        ClassSaliency(net, "guided").forward(pictures())
    with pytest.raises(ConfigError, match="excitation has no rule for aten"):
        ClassSaliency(net, "excitation").forward(pictures())


def test_excitation_of_negative_activations_is_refused() -> None:
    for activation in (nn.Identity(), nn.Hardtanh()):
        with pytest.raises(ConfigError, match="needs activations of 0 or more") as caught:
            ClassSaliency(with_activation(activation), "excitation").forward(pictures())
        assert "\n" not in str(caught.value)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.Linear(4, 2)).eval()
    with pytest.raises(ConfigError, match="needs activations of 0 or more"):
        ClassSaliency(linear, "excitation", ["0"]).forward(torch.rand(2, 3, 1, 1) - 0.5)


# Unusual networks


def test_weights_that_a_hook_makes() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 30), nn.Flatten())
    nn.utils.spectral_norm(net[0])
    net(pictures())
    net.eval()
    net[0].weight_orig.data.mul_(torch.tensor([1.0, 3.0, -1.0, 0.5]).view(-1, 1, 1, 1))
    x = pictures().requires_grad_()
    (expected,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    found = ClassSaliency(net, "plain").forward(x).gradients([1])["input"][:, 0]
    assert relative_error(found, expected) <= 1e-5


def test_networks_that_cannot_be_copied_are_named() -> None:
    net = plain_cnn().eval()
    net.frames = (i for i in range(3))
    with pytest.raises(ConfigError, match="the network cannot be copied: cannot pickle"):
        ClassSaliency(net)


def test_one_channel_and_other_convolutions() -> None:
    class Lines(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.along = nn.Conv2d(1, 4, 3, padding=1), nn.Conv1d(4, 3, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.along(F.relu(self.first(x)).mean(2)).amax(2)

    torch.manual_seed(0)
    net, x = Lines().eval(), pictures()[:, :1].requires_grad_()
    (expected,) = torch.autograd.grad(net(x)[:, 2].sum(), x)
    found = ClassSaliency(net, "plain").forward(x).gradients([2])["input"][:, 0]
    assert relative_error(found, expected) <= 1e-5


def test_the_network_is_left_as_it_was() -> None:
    net, x = network("transformers resnet"), pictures()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    called: list[str] = []
    net.resnet.register_forward_hook(lambda *args: called.append("hook"))
    ClassSaliency(net, "guided", [net.resnet.embedder]).forward(x).saliency([0])
    assert not called
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name])
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_double_photos_give_what_single_ones_give() -> None:
    for name in ("sequential", "ours"):
        net, x = network(name), pictures()
        found = ClassSaliency(net, "guided").forward(x.double()).saliency(CLASSES)["input"]
        assert torch.equal(
            found, ClassSaliency(net, "guided").forward(x).saliency(CLASSES)["input"]
        )
    with pytest.raises(ShapeError, match=r"images are torch.uint8; give floats"):
        ClassSaliency(network("sequential")).forward(pictures().mul(255).byte())


# Class activation maps


CAMS = {
    "sequential": ("5", "8"),
    "transformers resnet": ("resnet.encoder", "classifier.1"),
    "ours": ("hidden", "scores"),
}


def loop_cam(weight: Tensor, features: Tensor) -> np.ndarray:
    """Eq. 2 of Zhou et al. for one photo."""
    n_classes, (units, height, width) = len(weight), features.shape
    maps = np.zeros((n_classes, height, width))
    for c, k, y, x in np.ndindex(n_classes, units, height, width):
        maps[c, y, x] += float(weight[c, k]) * float(features[k, y, x])
    return maps


@pytest.mark.parametrize("name", CAMS)
def test_class_activation_maps_are_equation_2(name: str) -> None:
    net, x, (layer, head) = network(name), pictures(), CAMS[name]
    double, seen = copy.deepcopy(net).double(), dict[str, Any]()
    double.get_submodule(layer).register_forward_hook(
        lambda m, args, out: seen.update(features=out)
    )
    with torch.no_grad():
        scores = scores_of(double(x.double()))
    features = getattr(seen["features"], "last_hidden_state", seen["features"])
    linear = double.get_submodule(head)
    found = class_activation_maps(net, x, layer=layer, head=head)
    assert found.dtype == torch.float32
    for photo in range(2):
        expected = loop_cam(linear.weight.detach().flatten(1), features[photo].detach())
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found[photo], expected, atol=1e-5 * scale)
        bias = 0 if linear.bias is None else linear.bias.detach().numpy()
        # Eq. 1: their mean and the bias make the score.
        np.testing.assert_allclose(expected.mean((1, 2)) + bias, scores[photo], atol=1e-6 * scale)
    modules = net.get_submodule(layer), net.get_submodule(head)
    assert torch.equal(class_activation_maps(net, x, layer=modules[0], head=modules[1]), found)
    again = class_activation_maps(net, x.double(), layer=layer, head=head)
    assert torch.equal(again, found)


def test_class_activation_maps_of_ours_are_its_class_maps() -> None:
    net, x = network("ours"), pictures()
    for views in ({}, {"flip": True, "scales": (1.0, 0.5)}):
        named = class_activation_maps(net, x, layer="hidden", head="scores", **views)
        torch.testing.assert_close(named, class_activation_maps(net, x, **views))


def test_class_activation_maps_with_a_convolution_as_head() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
    net = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 3, 1), nn.Flatten()).eval()
    found = class_activation_maps(net, pictures(), layer="0", head="2")
    with torch.no_grad():
        expected = F.conv2d(body(pictures()), net[2].weight)
    torch.testing.assert_close(found, expected)


def test_class_activation_maps_of_tokens() -> None:
    net, x = network("encoder"), pictures()
    found = class_activation_maps(
        net, x, layer="encoder", head="head", reshape=lambda t: t.mT.unflatten(2, (4, 4))
    )
    with torch.no_grad():
        scores = net(x) - net.head.bias
    torch.testing.assert_close(found.mean((2, 3)), scores)
    assert found.shape == (2, N_CLASSES, 4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Sequential has no class_maps; name the layer"),
        ({"layer": "5"}, "Sequential has no class_maps; name the layer"),
        ({"layer": "5", "head": "9"}, "has no layer '9'"),
        ({"layer": "input", "head": "8"}, "the photo is no layer"),
        ({"layer": "5", "head": "6"}, "head '6' is a AdaptiveAvgPool2d; name an nn.Linear"),
        ({"layer": "4", "head": "8"}, "is not the mean of '4' over positions"),
        ({"layer": "1", "head": "8"}, "which are no maps for '8'"),
        ({"layer": "7", "head": "8"}, "which are no maps for '8'"),
    ],
)
def test_networks_without_class_activation_maps_are_refused(
    options: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        class_activation_maps(network("sequential"), pictures(), **options)
    assert "\n" not in str(caught.value)


def test_a_class_token_is_no_mean() -> None:
    with pytest.raises(ConfigError, match=r"is not the mean of 'vit\.layernorm' over"):
        class_activation_maps(
            network("transformers vit"),
            pictures(),
            layer="vit.layernorm",
            head="classifier",
            reshape=lambda t: t[:, 1:].mT.unflatten(2, (4, 4)),
        )
    with pytest.raises(ConfigError, match=r"gives \(2, 17, 16\), .* give reshape="):
        class_activation_maps(
            network("transformers vit"), pictures(), layer="vit.layernorm", head="classifier"
        )
    with pytest.raises(ConfigError, match="training mode"):
        class_activation_maps(plain_cnn(), pictures(), layer="5", head="8")


def test_threads_may_share_a_network() -> None:
    net = network("sequential")
    photos = [pictures() * (0.2 + 0.1 * i) for i in range(8)]

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        maps = class_activation_maps(net, x, layer="5", head="8")
        return maps, ClassSaliency(net, "guided", ["5"]).forward(x).saliency([0])["5"]

    expected = [run(x) for x in photos]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, photos))
    for ours, alone in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, alone, strict=True))
    assert not net[5]._forward_hooks
