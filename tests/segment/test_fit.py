from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tagseg.data.scenes import SCENES, scene_dataset
from tagseg.data.transforms import Augmentation
from tagseg.data.working import WorkingPhotos
from tagseg.errors import TagError
from tagseg.maps import IGNORE, Labels
from tagseg.nets.catalog import build_backbone
from tagseg.nets.deeplab import SegmentationNet
from tagseg.nets.weights import resolve
from tagseg.segment.fit import fit_segmenter
from tagseg.training import Execution, Schedule

EXECUTION = Execution(seed=2)
HOW = Augmentation((48, 64))


@pytest.fixture
def photos() -> WorkingPhotos:
    return WorkingPhotos(_SCENES[0], 80)


_SCENES = scene_dataset(SCENES, 8, seed=1, height=60, width=80)
_LABELS = list(_SCENES[1].values())


def net() -> SegmentationNet:
    torch.manual_seed(0)
    backbone = build_backbone("tiny", resolve("imagenet", "tiny"))
    return SegmentationNet(backbone, 9, width=16, dropout=0.0, view_scale=0.15)


def cross_entropy(scores: Tensor, tags: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(scores.float(), labels.long(), ignore_index=IGNORE)


def targets(index: int) -> Labels:
    return _LABELS[index]


def test_a_few_iterations_on_a_few_scenes_lower_the_loss(photos: WorkingPhotos) -> None:
    lines: list[dict[str, Any]] = []
    fitted = fit_segmenter(
        net(), photos, targets, cross_entropy, HOW, Schedule(40, 4, 3e-3, optimizer="adamw"),
        execution=EXECUTION, frozen_batch_norm=True, log=lambda **values: lines.append(values),
    )  # fmt: skip
    assert [line["iteration"] for line in lines] == [20, 40]
    assert lines[1]["loss"] < 0.75 * lines[0]["loss"]
    assert not fitted.training


def test_the_objective_sees_scores_tags_and_labels_of_the_same_crop(photos: WorkingPhotos) -> None:
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def objective(scores: Tensor, tags: Tensor, labels: Tensor) -> Tensor:
        seen.append((scores.detach(), tags, labels))
        return cross_entropy(scores, tags, labels)

    how = Augmentation((72, 64), scale=(0.9, 1.1))
    fit_segmenter(net(), photos, targets, objective, how, Schedule(4, 4, 1e-3), execution=EXECUTION)
    for scores, tags, labels in seen:
        assert scores.shape == (4, 9, 72, 64)
        assert tags.shape == (4, 8)
        assert labels.shape == (4, 72, 64)
        assert labels.dtype == torch.uint8
        assert (labels == IGNORE).any()  # outside the photo, which is 60 pixels high
        for present, crop in zip(tags, labels, strict=True):
            found = set(crop.unique().tolist()) - {0, IGNORE}
            assert found <= {k + 1 for k in range(8) if present[k]}
    assert any((labels > 0).logical_and(labels < IGNORE).any() for _, _, labels in seen)


def test_photos_without_known_tags_are_left_out() -> None:
    dataset = _SCENES[0].subset(range(8))
    dataset.known[:] = [True, False] * 4
    asked: list[int] = []
    told: list[list[bool]] = []

    def remembered(index: int) -> Labels:
        asked.append(index)
        return targets(index)

    def objective(scores: Tensor, tags: Tensor, labels: Tensor) -> Tensor:
        told.extend(tags.tolist())
        return cross_entropy(scores, tags, labels)

    fit_segmenter(
        net(), WorkingPhotos(dataset, 80), remembered, objective, HOW, Schedule(4, 2, 1e-3),
        execution=EXECUTION,
    )  # fmt: skip
    assert set(asked) == {0, 2, 4, 6}
    assert told == [dataset.tags[index].tolist() for index in asked]


def test_without_any_known_tags_there_is_nothing_to_learn() -> None:
    dataset = _SCENES[0].subset(range(8))
    dataset.known[:] = False
    with pytest.raises(TagError, match="no photo has known tags; tag some"):
        fit_segmenter(
            net(), WorkingPhotos(dataset, 80), targets, cross_entropy, HOW, Schedule(1, 1, 1e-3),
            execution=EXECUTION,
        )  # fmt: skip


def test_labels_of_255_teach_nothing(photos: WorkingPhotos) -> None:
    """Half of each mask is hidden; what would stand there makes no difference."""

    def hidden(index: int) -> Labels:
        labels = targets(index).copy()
        labels[:, :40] = IGNORE
        return labels

    def scores_of_hidden_side(scores: Tensor, tags: Tensor, labels: Tensor) -> Tensor:
        losses = functional.cross_entropy(
            scores.float(), labels.long(), ignore_index=IGNORE, reduction="none"
        )
        assert not losses[labels == IGNORE].any()
        return losses.sum() / np.prod(labels.shape)

    fit_segmenter(
        net(), photos, hidden, scores_of_hidden_side, HOW, Schedule(2, 4, 1e-3),
        execution=EXECUTION,
    )  # fmt: skip


def test_the_same_seed_gives_the_same_network(photos: WorkingPhotos) -> None:
    weights = [
        fit_segmenter(
            net(), photos, targets, cross_entropy, HOW, Schedule(3, 2, 1e-2),
            execution=Execution(seed=seed),
        ).state_dict()
        for seed in (3, 3, 4)
    ]  # fmt: skip
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert not torch.equal(weights[0]["fc6.weight"], weights[2]["fc6.weight"])
