"""How long and how fast the networks learn: the papers' schedule and a short one for small data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from tagseg.stages.context import Setup
from tagseg.stages.settings import (
    ClassifierSettings,
    ScheduleSettings,
    SegmenterSettings,
)
from tagseg.training import Schedule

__all__ = [
    "aspp_schedule",
    "classifier_schedule",
    "gap_schedule",
    "guide_classifier_schedule",
    "large_fov_schedule",
    "schedule_by_root",
    "segmenter_schedule",
    "shortened",
    "uses_paper_schedule",
]

MANY_PHOTOS = 5000  # photos


MIN_ITERATIONS = 300  # iterations of a short schedule


_PER_ROOT = 4.0  # iterations


Given = tuple[int | None, int | None, float | None]  # iterations, batch size, learning rate


def uses_paper_schedule(config: ScheduleSettings, setup: Setup, n_photos: int) -> bool:
    """Whether the paper's 60,000 iterations of SGD are meant for this data."""
    if config.schedule == "auto":
        return setup.backbone == "vgg16" and n_photos >= MANY_PHOTOS
    return config.schedule == "paper"


def classifier_schedule(config: ClassifierSettings, setup: Setup, n_photos: int) -> Schedule:
    """Saleh et al. 4.2.2 (batches of 15, else as the segmenter), or the short schedule."""
    if uses_paper_schedule(config, setup, n_photos):
        return _paper(
            config.classifier_iterations,
            config.classifier_batch_size or 15,
            config.classifier_learning_rate,
        )
    return short_schedule(
        config.classifier_iterations,
        config.classifier_batch_size,
        config.classifier_learning_rate,
        config.classifier_epochs,
        config.backbone_rate(config.classifier_backbone_factor),
        n_photos,
    )


def segmenter_schedule(config: SegmenterSettings, setup: Setup, n_photos: int) -> Schedule:
    """Saleh et al. 4.2.1 (one photo a batch; rate 1e-4, 1e-5 for the last third), or short."""
    if uses_paper_schedule(config, setup, n_photos):
        return _paper(
            config.segmenter_iterations,
            config.segmenter_batch_size or 1,
            config.segmenter_learning_rate,
        )
    return short_schedule(
        config.segmenter_iterations,
        config.segmenter_batch_size,
        config.segmenter_learning_rate,
        config.segmenter_epochs,
        config.backbone_rate(config.segmenter_backbone_factor),
        n_photos,
    )


def gap_schedule(config: ClassifierSettings, setup: Setup, n_photos: int) -> Schedule:
    """Oh et al. B.2 (batches of 15, rate 1e-3, a tenth every 2,000 of 8,000), or short."""
    if not uses_paper_schedule(config, setup, n_photos):
        return classifier_schedule(config, setup, n_photos)
    return _by_tenths(8000, 4, 15, _classifiers(config), {"score": 10.0})


def guide_classifier_schedule(config: ClassifierSettings, setup: Setup, n_photos: int) -> Schedule:
    """Oh et al. F (batches of 40, rate 1e-3, a tenth every 5,000 of 30,000), or short."""
    if not uses_paper_schedule(config, setup, n_photos):
        return classifier_schedule(config, setup, n_photos)
    return _by_tenths(30_000, 6, 40, _classifiers(config), {})


def large_fov_schedule(config: SegmenterSettings, setup: Setup, n_photos: int) -> Schedule:
    """Oh et al. F (batches of 15, rate 1e-3, a tenth every 2,000 of 8,000), or short."""
    if not uses_paper_schedule(config, setup, n_photos):
        return segmenter_schedule(config, setup, n_photos)
    given = (
        config.segmenter_iterations,
        config.segmenter_batch_size,
        config.segmenter_learning_rate,
    )
    return _by_tenths(8000, 4, 15, given, {"score": 10.0, "score_bias": 20.0})


def aspp_schedule(config: SegmenterSettings, setup: Setup, n_photos: int) -> Schedule:
    """Jing et al. IV-B (batches of 12, rate 2.5e-4), iterations of Chen et al. 2017; or short."""
    if not uses_paper_schedule(config, setup, n_photos):
        return segmenter_schedule(config, setup, n_photos)
    return Schedule(
        config.segmenter_iterations or 20_000,
        config.segmenter_batch_size or 12,
        config.segmenter_learning_rate or 2.5e-4,
        multipliers={"score": 10.0, "score_bias": 20.0},
    )


def shortened(schedule: Schedule, fraction: float) -> Schedule:
    """``fraction`` of the iterations, by the same course of the learning rate."""
    return replace(schedule, iterations=max(1, round(fraction * schedule.iterations)))


def _classifiers(config: ClassifierSettings) -> Given:
    return (
        config.classifier_iterations,
        config.classifier_batch_size,
        config.classifier_learning_rate,
    )


def _by_tenths(
    iterations: int, parts: int, batch_size: int, given: Given, multipliers: Mapping[str, float]
) -> Schedule:
    """Oh et al. (and SEC): SGD at 1e-3, a tenth of it after each of ``parts`` equal parts."""
    return Schedule(
        given[0] or iterations,
        given[1] or batch_size,
        given[2] or 1e-3,
        policy="step",
        momentum=0.9,
        weight_decay=5e-4,
        steps=tuple(part / parts for part in range(1, parts)),
        gamma=0.1,
        multipliers=multipliers,
    )


def _paper(iterations: int | None, batch_size: int, learning_rate: float | None) -> Schedule:
    return Schedule(
        iterations or 60_000,
        batch_size,
        learning_rate or 1e-4,
        optimizer="sgd",
        policy="step",
        momentum=0.9,
        weight_decay=5e-4,
        steps=(2 / 3,),
        gamma=0.1,
    )


def short_schedule(
    iterations: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    epochs: float,
    backbone_factor: float,
    n_photos: int,
) -> Schedule:
    """AdamW with poly decay; new layers learn faster than the pre-trained ones."""
    size = batch_size or 16
    return Schedule(
        iterations or max(MIN_ITERATIONS, math.ceil(epochs * n_photos / size)),
        size,
        learning_rate or 1e-3,
        optimizer="adamw",
        policy="poly",
        weight_decay=1e-4,
        warmup=20,
        clip=5.0,
        multipliers={"backbone": backbone_factor},
    )


def schedule_by_root(
    iterations: int | None,
    batch_size: int,
    learning_rate: float,
    n_photos: int,
    n_classes: int,
    *,
    weight_decay: float,
    averaging: float,
    multipliers: Mapping[str, float],
) -> Schedule:
    """AdamW with poly decay; iterations grow with the root of photos times labels."""
    usual = max(MIN_ITERATIONS, round(_PER_ROOT * math.sqrt(n_photos * (n_classes + 1))))
    return Schedule(
        iterations or usual,
        batch_size,
        learning_rate,
        optimizer="adamw",
        policy="poly",
        weight_decay=weight_decay,
        warmup=20,
        clip=5.0,
        averaging=averaging,
        multipliers=multipliers,
    )
