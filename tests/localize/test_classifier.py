from __future__ import annotations

import copy
import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tagseg import training
from tagseg.data.dataset import Dataset
from tagseg.data.transforms import Augmentation
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError, TagError
from tagseg.localize.classifier import (
    Teaching,
    multi_label_loss,
    tag_scores,
    train_tag_classifier,
)
from tagseg.losses.image_tags import tag_cross_entropy
from tagseg.nets.backbone import Activations, Backbone
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier
from tagseg.nets.gap import GapClassifier
from tagseg.training import Execution, Loop, Schedule

EXECUTION = Execution(seed=1)


class Coarse(Backbone):
    """One convolution: enough to tell colours apart."""

    name, out_channels, block4_channels = "coarse", 8, 8

    def __init__(self) -> None:
        super().__init__(8)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 9, 8, 4), nn.BatchNorm2d(8), nn.ReLU())

    def activations(self, x: Tensor) -> Activations:
        features = self.layers(self.normalise(x))
        return Activations(features, features)

    def feature_blocks(self) -> tuple[()]:
        return ()


def classifier() -> GapClassifier:
    torch.manual_seed(0)
    return GapClassifier(Coarse(), 2, hidden_layers=0)


def coloured(known: list[bool] | None = None, n: int = 24) -> WorkingPhotos:
    """Class "red" is a red square, "blue" a blue one, in photos of two sizes."""
    rng = np.random.default_rng(0)
    images, tags = [], []
    for i in range(n):
        image = rng.integers(90, 130, (24, 32, 3) if i % 3 else (32, 24, 3), np.uint8)
        present = rng.random(2) < 0.5
        for channel, left in ((0, 0), (2, 12)):
            if present[channel // 2]:
                image[8:20, left : left + 12, channel] = 250
        images.append(image)
        tags.append(present)
    dataset = Dataset.from_arrays(images, np.array(tags), ("red", "blue"))
    if known is not None:
        dataset.known[:] = known
    return WorkingPhotos(dataset, 32)


def fit(photos: WorkingPhotos, iterations: int = 60, **hooks: Any) -> GapClassifier:
    schedule = Schedule(iterations, 8, 0.03, optimizer="adamw")
    how = Augmentation((24, 24))
    return train_tag_classifier(classifier(), photos, how, schedule, loop=Loop(EXECUTION, **hooks))


def loop_loss(scores: Any, tags: Any) -> float:
    """Sigmoid cross-entropy, summed over classes, averaged over photos."""
    total = 0.0
    for row, present in zip(scores, tags, strict=True):
        for score, here in zip(row, present, strict=True):
            p = 1 / (1 + math.exp(-score))
            total -= math.log(p if here else 1 - p)
    return total / len(scores)


def test_loss_equals_the_loop() -> None:
    rng = np.random.default_rng(0)
    scores, tags = rng.normal(size=(5, 4)) * 3, rng.random((5, 4)) < 0.5
    ours = multi_label_loss(torch.tensor(scores), torch.tensor(tags))
    assert ours.item() == pytest.approx(loop_loss(scores, tags), rel=1e-5)


def test_loss_is_finite_and_float32_at_any_score() -> None:
    scores = torch.tensor([[1e4, -1e4]], dtype=torch.bfloat16, requires_grad=True)
    loss = multi_label_loss(scores, torch.tensor([[False, True]]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(2e4, rel=1e-2)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[1.0, -1.0]]


def test_it_learns_what_the_tags_say() -> None:
    photos = coloured()
    lines: list[dict[str, Any]] = []
    net = fit(photos, log=lambda **values: lines.append(values))
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]
    guessed = tag_scores(net, photos, execution=EXECUTION) > 0.5
    assert (guessed == photos.tags).mean() > 0.9
    assert not net.training


def test_photos_without_known_tags_are_left_out() -> None:
    """Their tags may be wrong in any way: nothing changes."""
    known = [i % 2 == 0 for i in range(24)]
    right, wrong = coloured(known), coloured(known)
    wrong.dataset.tags[1::2] = ~wrong.dataset.tags[1::2]
    weights = [fit(photos, 5).state_dict() for photos in (right, wrong)]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
    everything = fit(coloured(), 5).state_dict()
    assert not torch.equal(everything["scores.weight"], weights[0]["scores.weight"])


def test_without_any_known_tags_there_is_nothing_to_learn() -> None:
    with pytest.raises(TagError, match="no photo has known tags; tag some photos"):
        fit(coloured([False] * 24))


def test_scores_are_probabilities_in_the_photos_order() -> None:
    photos, net, done = coloured(), classifier(), []
    scores = tag_scores(net, photos, execution=EXECUTION, batch_size=5, advance=done.append)
    assert scores.shape == (24, 2)
    assert scores.dtype == np.float32
    assert sum(done) == 24
    for i in (0, 1, 2, 23):
        x = torch.from_numpy(photos.image(i)).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            expected = torch.sigmoid(net(x))[0].numpy()
        np.testing.assert_allclose(scores[i], expected, atol=1e-5)


def test_low_precision_gives_nearly_the_same_scores() -> None:
    photos, net = coloured(), classifier()
    low = tag_scores(net, photos, execution=Execution(precision=torch.bfloat16))
    full = tag_scores(net, photos, execution=EXECUTION)
    np.testing.assert_allclose(low, full, atol=0.02)
    assert low.dtype == np.float32
    assert not np.array_equal(low, full)


def test_frozen_batch_norm_is_passed_on() -> None:
    schedule = Schedule(3, 8, 0.03)
    net = classifier()
    before = net.backbone.layers[1].running_mean.clone()  # type: ignore[index, union-attr]
    train_tag_classifier(
        net, coloured(), Augmentation((24, 24)), schedule,
        loop=Loop(EXECUTION, frozen_batch_norm=True),
    )  # fmt: skip
    assert torch.equal(net.backbone.layers[1].running_mean, before)  # type: ignore[index, union-attr]


# Both nets, both phases, batches of random size


def fully_convolutional() -> FullyConvolutionalClassifier:
    torch.manual_seed(0)
    return FullyConvolutionalClassifier(Coarse(), 2, hidden=16, dropout=0.2)


LOOP = {item.name for item in fields(Loop)}


def train_some(net: Any, iterations: int = 6, rate: float = 0.01, **options: Any) -> Any:
    schedule = Schedule(iterations, 8, rate, optimizer="adamw", clip=1.0)
    named = {name: options.pop(name) for name in LOOP & options.keys()}
    loop = Loop(**{"execution": EXECUTION, **named})
    how = Augmentation((24, 24))
    return train_tag_classifier(net, coloured(), how, schedule, loop=loop, **options)


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same_bits(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(ours[name], tensor), name


class Wide(nn.Module):
    """Notes the sizes that it is shown; its score is how much photo there is."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.weight = Coarse(), nn.Parameter(torch.ones(()))
        self.sizes: list[tuple[int, int]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append((x.shape[2], x.shape[3]))
        return self.weight * torch.full((len(x), 2), float(x.shape[2])) / 100

    def parameter_groups(self) -> list[dict[str, object]]:
        return [{"name": "head", "params": [self.weight]}]


def test_a_fully_convolutional_net_learns_in_two_phases() -> None:
    photos, lines = coloured(), list[dict[str, Any]]()
    net = fully_convolutional()
    how, scale = Augmentation((24, 24)), (0.7, 1.4)
    for iterations, train_backbone in ((100, False), (100, True)):
        schedule = Schedule(iterations, 8, 0.01, optimizer="adamw")
        train_tag_classifier(
            net, photos, how, schedule, train_backbone=train_backbone, batch_scale=scale,
            loop=Loop(EXECUTION, log=lambda **values: lines.append(values)),
        )  # fmt: skip
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]
    assert ((tag_scores(net, photos, execution=EXECUTION) > 0.5) == photos.tags).mean() > 0.9


@pytest.mark.parametrize("build", [classifier, fully_convolutional])
@pytest.mark.parametrize("frozen_batch_norm", [False, True])
def test_the_first_phase_moves_the_upper_layers_only(build: Any, frozen_batch_norm: bool) -> None:
    net = build()
    net.backbone.layers[0].bias.requires_grad_(False)
    required = [parameter.requires_grad for parameter in net.parameters()]
    before = copied(net)
    train_some(net, 3, train_backbone=False, frozen_batch_norm=frozen_batch_norm)
    assert [parameter.requires_grad for parameter in net.parameters()] == required
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("backbone."), name
    assert not any(parameter.grad is not None for parameter in net.backbone.parameters())
    net.backbone.layers[0].bias.requires_grad_(True)
    between = copied(net)
    train_some(net, 3)
    for name, tensor in net.state_dict().items():
        assert not torch.equal(tensor, between[name]), name


def test_the_first_phase_is_training_on_the_backbones_own_features() -> None:
    """The same as a head alone on features that evaluation gives, whatever gradients are left."""

    class Still(Coarse):
        @torch.no_grad()
        def activations(self, x: Tensor) -> Activations:
            return super().activations(x)

        def train(self, mode: bool = True) -> Any:
            return super().train(False)

    torch.manual_seed(0)
    expected = FullyConvolutionalClassifier(Still(), 2, hidden=16, dropout=0.2)
    net = fully_convolutional()
    net.load_state_dict(expected.state_dict())
    net.eval()(torch.rand(2, 3, 24, 24)).sum().backward()  # would count when gradients are clipped
    train_some(net, train_backbone=False)
    train_some(expected)
    assert_same_bits(net.state_dict(), expected.state_dict())


def test_the_backbone_is_free_again_after_a_failure() -> None:
    class Stop:
        def advance(self, n: int = 1) -> None:
            raise KeyboardInterrupt

        def skip(self, n: int) -> None:
            pass

    net = fully_convolutional()
    with pytest.raises(KeyboardInterrupt):
        train_some(net, train_backbone=False, ticks=Stop())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_batches_have_sizes_all_over_the_range() -> None:
    net = Wide()
    train_some(net, 300, batch_scale=(0.7, 1.4))
    heights = np.array([height for height, _ in net.sizes])
    assert all(height == width for height, width in net.sizes)
    assert (heights.min(), heights.max()) == (17, 34)  # 16.8 and 33.6 of 24
    shares, _ = np.histogram(heights, bins=3, range=(16.8, 33.6))
    assert (np.abs(shares - 100) < 30).all()
    plain = Wide()
    train_some(plain, 5)
    assert set(plain.sizes) == {(24, 24)}


class Memory:
    """A checkpoint that keeps one state."""

    def __init__(self, at: int) -> None:
        self.at, self.state = at, None

    def load(self) -> Any:
        return copy.deepcopy(self.state)

    def save(self, state: dict[str, Any]) -> None:
        if state["iteration"] == self.at:
            self.state = copy.deepcopy(state)

    def wait(self) -> None:
        pass


@pytest.mark.parametrize("train_backbone", [True, False])
def test_a_killed_and_resumed_run_draws_the_same_sizes(
    train_backbone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopsAt:
        def __init__(self, last: int) -> None:
            self.left = last

        def advance(self, n: int = 1) -> None:
            self.left -= n
            if self.left == 0:
                raise KeyboardInterrupt

        def skip(self, n: int) -> None:
            pass

    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", -1.0)
    options = {"batch_scale": (0.7, 1.4), "train_backbone": train_backbone}
    straight = copied(train_some(fully_convolutional(), 12, **options))
    memory = Memory(at=5)
    with pytest.raises(KeyboardInterrupt):
        train_some(fully_convolutional(), 12, checkpoint=memory, ticks=StopsAt(7), **options)
    torch.manual_seed(99)  # another process: the generator stands anywhere
    fresh = fully_convolutional()
    torch.rand(17)
    assert_same_bits(train_some(fresh, 12, checkpoint=memory, **options).state_dict(), straight)
    unscaled = train_some(fully_convolutional(), 12, train_backbone=train_backbone)
    assert not torch.equal(unscaled.fc6.weight, straight["fc6.weight"])


def test_another_seed_draws_other_sizes() -> None:
    sizes = []
    for seed in (1, 1, 2):
        net = Wide()
        train_some(net, 8, batch_scale=(0.7, 1.4), execution=Execution(seed=seed))
        sizes.append(net.sizes)
    assert sizes[0] == sizes[1] != sizes[2]


@pytest.mark.parametrize(
    "scale", [(0.0, 1.0), (-1.0, 1.0), (1.4, 0.7), (1.0, math.inf), (math.nan, 1.0)]
)
def test_ranges_that_cannot_be_are_refused(scale: tuple[float, float]) -> None:
    net = fully_convolutional()
    with pytest.raises(ConfigError, match="batch_scale is"):
        train_some(net, batch_scale=scale)


def test_scores_over_scales_are_their_maxima() -> None:
    photos, net = coloured(), fully_convolutional()
    nn.init.normal_(net.score.weight)
    scales = (0.8, 1.0, 1.2)
    together = tag_scores(net, photos, execution=EXECUTION, scales=scales)
    alone = np.stack([tag_scores(net, photos, execution=EXECUTION, scales=[s]) for s in scales])
    np.testing.assert_array_equal(together, alone.max(0))
    assert len(set(alone.argmax(0).ravel().tolist())) == 3  # each scale is the best somewhere
    once = tag_scores(net, photos, execution=EXECUTION)
    np.testing.assert_array_equal(once, alone[1])


def test_scales_change_the_photos_size() -> None:
    net = Wide()
    tag_scores(net, coloured(n=3), execution=EXECUTION, scales=(0.5, 1.0, 1.5))
    assert net.sizes == [(16, 12), (32, 24), (48, 36), (12, 16), (24, 32), (36, 48)]


@pytest.mark.parametrize("scales", [(), (1.0, 0.0), (-1.0,), (math.nan,)])
def test_scales_that_cannot_be_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="scales are"):
        tag_scores(classifier(), coloured(), execution=EXECUTION, scales=scales)


def test_scores_of_photos_brought_to_a_side() -> None:
    """Photos of any size are seen at the longer side that is asked for."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in ((24, 32), (40, 20))]
    photos = WorkingPhotos(Dataset.from_arrays(images, np.ones((2, 1), bool), ["a"]), 64)
    seen: list[tuple[int, ...]] = []

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(tuple(x.shape[2:]))
            return x.mean((2, 3))[:, :1]

    tag_scores(Net(), photos, execution=Execution(), side=48)
    assert seen == [(36, 48), (48, 24)]


class TestTeaching:
    def teaching(self, photos: WorkingPhotos, seen: list[int]) -> Teaching:
        def loss(scores: Tensor, batch: training.Batch, epoch: int) -> Tensor:
            seen.append(epoch)
            return tag_cross_entropy(scores, batch["tags"], known=batch["known"])

        known = np.ones_like(photos.tags)
        known[:, 1] = False
        return Teaching({"tags": photos.tags, "known": known}, loss)

    def test_the_loss_is_told_of_the_epoch_by_the_iteration(self):
        photos, seen = coloured(n=24), list[int]()
        schedule = Schedule(7, 8, 1e-3)
        net = classifier()
        train_tag_classifier(
            net, photos, Augmentation((24, 24)), schedule,
            teaching=self.teaching(photos, seen), loop=Loop(EXECUTION),
        )  # fmt: skip
        assert seen == [0, 0, 0, 1, 1, 1, 2]

    def test_a_training_that_goes_on_is_told_the_same_epochs(self, monkeypatch):
        photos, seen = coloured(n=24), list[int]()
        schedule, state = Schedule(7, 8, 1e-3), dict[str, Any]()

        class Kept:
            def load(self) -> dict[str, Any] | None:
                return state or None

            def save(self, new: dict[str, Any]) -> None:
                state.update(copy.deepcopy(new))

            def wait(self) -> None:
                pass

        def whole(teaching: Teaching, loop: Loop) -> list[Tensor]:
            net = classifier()
            how = Augmentation((24, 24))
            train_tag_classifier(net, photos, how, schedule, teaching=teaching, loop=loop)
            return [value.clone() for value in net.state_dict().values()]

        expected = whole(self.teaching(photos, []), Loop(EXECUTION))
        teaching = self.teaching(photos, seen)

        def stopping(scores: Tensor, batch: training.Batch, epoch: int) -> Tensor:
            if len(seen) == 4:
                raise KeyboardInterrupt
            return teaching.loss(scores, batch, epoch)

        cut = Teaching(teaching.of_photos, stopping)
        monkeypatch.setattr(training, "_CHECKPOINT_EVERY", -1.0)
        with pytest.raises(KeyboardInterrupt):
            whole(cut, Loop(EXECUTION, checkpoint=Kept()))
        found = whole(teaching, Loop(EXECUTION, checkpoint=Kept()))
        assert seen == [0, 0, 0, 1, 1, 1, 2]
        for value, other in zip(found, expected, strict=True):
            torch.testing.assert_close(value, other, rtol=0, atol=0)

    def test_what_is_not_known_is_not_learned(self):
        photos = coloured(n=24)
        net = classifier()
        before = net.scores.weight.detach().clone()
        train_tag_classifier(
            net, photos, Augmentation((24, 24)), Schedule(3, 8, 1e-3, weight_decay=0),
            teaching=self.teaching(photos, []), loop=Loop(EXECUTION),
        )  # fmt: skip
        assert torch.equal(before[1], net.scores.weight[1])
        assert not torch.equal(before[0], net.scores.weight[0])
