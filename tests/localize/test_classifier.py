from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tagseg.data.dataset import Dataset
from tagseg.data.transforms import Augmentation
from tagseg.data.working import WorkingPhotos
from tagseg.errors import TagError
from tagseg.localize.classifier import multi_label_loss, tag_scores, train_tag_classifier
from tagseg.nets.backbone import Activations, Backbone
from tagseg.nets.gap import GapClassifier
from tagseg.training import Execution, Schedule

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
    return train_tag_classifier(classifier(), photos, how, schedule, execution=EXECUTION, **hooks)


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
        net, coloured(), Augmentation((24, 24)), schedule, execution=EXECUTION,
        frozen_batch_norm=True,
    )  # fmt: skip
    assert torch.equal(net.backbone.layers[1].running_mean, before)  # type: ignore[index, union-attr]
