"""The pyramid segmenter: skips to stride 4, crops around classes, sizes from the labels.

What a practitioner would train today on label maps, whoever made them; docs/segmenter.md says
where each number comes from. The papers' recipes have it as ``segmenter=pyramid``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tagseg.data.transforms import crop_size
from tagseg.losses.dice import dice_loss
from tagseg.losses.pixel import pixel_loss
from tagseg.nets.catalog import backbone_kind
from tagseg.nets.pyramid import PyramidNet
from tagseg.segment.crops import ClassCrops, CropForm
from tagseg.segment.fit import known_photos
from tagseg.segment.orientation import Orientation, movements_of, photo_features, told_apart
from tagseg.segment.predict import Segmenter
from tagseg.segment.sizes import typical_size, zoom_for
from tagseg.segment.windowed import Sight, WindowedSegmenter
from tagseg.stages.context import Plain, Run
from tagseg.stages.held_out import HeldOut, held_out_of
from tagseg.stages.refiners import find_refiner, refiner_from
from tagseg.stages.reviewed import drawn_photos, taught
from tagseg.stages.schedules import schedule_by_root, shortened
from tagseg.stages.settings import PyramidSettings, PyramidTraining
from tagseg.stages.shapes import evenly, some_shapes
from tagseg.stages.stage import Declared, Found, Input, LabelMaps, Trained, found, trained
from tagseg.training import Batch, Loop, Schedule, train

__all__ = ["PyramidLoss", "pyramid_segmenter"]

Indices = npt.NDArray[np.intp]
Movements = tuple[bool, bool] | Found[tuple[bool, bool]]

_SEGMENTER = Declared("pyramid", weights="segmenter")
_ORIENTATION = Declared("orientation")

_LOOKED_AT = 200  # photos
_MOST = 1536.0  # pixels of the longer side, as seen
_WINDOW = 1024  # pixels
_PAPERS_CROP = 513  # pixels, for which the dilations of ASPP are meant (Chen et al. 2018)
_LATER = 0.5  # of the first cycle's iterations
_SCORES = {"score": 10.0, "score_bias": 10.0}  # on the rate of so few weights, as in DeepLab


@dataclass(frozen=True)
class PyramidLoss:
    """Cross-entropy on labelled pixels, with smoothed labels, and soft Dice beside it.

    Attributes:
        dice: weight of the soft Dice loss (Milletari et al., V-Net, 3DV 2016, section 3).
        smoothing: of labels in cross-entropy (Szegedy et al., CVPR 2016, section 7).
    """

    dice: float
    smoothing: float

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss of scores (B, L, H, W) and labels (B, H, W), 255 unknown."""
        loss = pixel_loss(scores, labels, label_smoothing=self.smoothing)
        return loss + self.dice * dice_loss(scores, labels) if self.dice else loss


def pyramid_segmenter(
    run: Run,
    settings: PyramidSettings,
    targets: LabelMaps,
    *,
    drawn: bool = False,
    prefix: str = "",
    start: Trained[Segmenter] | None = None,
) -> Trained[Segmenter]:
    """The pyramid, trained on ``targets``, and the refiner where held-out labels speak for it.

    Args:
        drawn: whether people drew the labels. Those that a recipe has made follow the edges that a
            refiner follows too, or lack them: they agree with it or not whatever is true, and it is
            left out.
        prefix: of its stages' names, where a recipe trains more than one.
        start: another pyramid, from whose weights this one goes on.
    """
    given = taught(run, targets, prefix=prefix)
    photos, setup, targets = given.photos, run.setup, given.labels
    held_out = held_out_of(known_photos(run.photos))  # whatever a person has looked at
    drawn_from = drawn_photos(run, np.setdiff1d(known_photos(photos), held_out))
    learned = np.unique(drawn_from)
    movements = _movements(run, settings)
    form = _crops(run, settings, targets, learned, movements)
    schedule = _schedule(settings, len(learned), len(photos.classes))
    torch.manual_seed(setup.execution.seed)
    view = round(min(1.0, max(form.size) / _PAPERS_CROP), 3)
    stride = settings.output_stride or backbone_kind(setup.backbone).native_stride
    backbone = setup.build_backbone(settings, output_stride=stride)
    n_labels = len(photos.classes) + 1
    net = PyramidNet(backbone, n_labels, finest=settings.pyramid_finest, view_scale=view)
    if start is not None:
        net.load_state_dict(start.model.net.state_dict())
    sight = Sight(form.zoom, _WINDOW, settings.pyramid_scales, settings.pyramid_flip)
    _say(run, form, schedule)
    declared, later = _SEGMENTER.prefixed(prefix), shortened(schedule, _LATER)
    seen: list[Input] = [targets, *([movements] if isinstance(movements, Found) else [])]
    seen += [] if start is None else [start]
    apart = run.setup.execution.apart
    crops = cache(lambda: ClassCrops(photos, drawn_from, targets, form, apart=apart))
    made_of = [_Form(net.backbone.output_stride, net.channels), _numbers(settings)]

    def cycle(number: int, before: Sequence[Trained[PyramidNet]]) -> Trained[PyramidNet]:
        planned = later if number else schedule
        return trained(
            run,
            declared.round(number) if number else declared,
            net,
            partial(_fit, net, crops, len(drawn_from), _loss(settings), planned, number),
            planned,
            settings=made_of,
            inputs=[*seen, *before],
            title=f"the segmenter, cycle {number + 1}" if number else "the segmenter",
        )

    seen_once = replace(sight, scales=(1.0,), flip=False)
    judge = HeldOut(run, held_out, targets, seen_once, prefix)
    result = _cycles(settings, cycle, judge)
    asked = find_refiner(settings, setup.execution.seed) if drawn else None
    refined = judge.refining_helps(result, asked)
    return Trained(_segmenter(run, net, sight, asked, refined=refined), result.stage)


Cycle = Callable[[int, Sequence[Trained[PyramidNet]]], Trained[PyramidNet]]


def _cycles(settings: PyramidSettings, cycle: Cycle, judge: HeldOut) -> Trained[PyramidNet]:
    """Train for as many cycles as bring the segmenter nearer to the labels of held-out photos.

    Each begins at the full learning rate again (Loshchilov and Hutter, SGDR, ICLR 2017). The best
    cycle's weights stay; without photos held out there is one.
    """
    best = cycle(0, ())
    if len(judge.photos) == 0 or settings.pyramid_cycles == 1:
        return best
    agreed = judge.agreement(best, 0)
    for number in range(1, settings.pyramid_cycles):
        result = cycle(number, (best,))
        now = judge.agreement(result, number)
        enough = now < agreed + settings.pyramid_gain
        if now > agreed:
            best, agreed = result, now
        if enough:
            break
    if not best.stage.planned:
        best.model.load_state_dict(best.stage.load_tensors(_SEGMENTER.weights)[0])
    return best


def _numbers(settings: PyramidSettings) -> PyramidTraining:
    """Those of the training that act: a frozen backbone has no rate."""
    rate = settings.backbone_rate(settings.pyramid_backbone_factor)
    return replace(settings.only(PyramidTraining), pyramid_backbone_factor=rate)


def _loss(settings: PyramidTraining) -> PyramidLoss:
    return PyramidLoss(settings.pyramid_dice, settings.pyramid_smoothing)


@dataclass(frozen=True)
class _Form(Plain):
    """The network as it is built."""

    output_stride: int
    channels: int | None


def _crops(
    run: Run,
    settings: PyramidTraining,
    targets: LabelMaps,
    learned: Indices,
    movements: Movements,
) -> CropForm:
    """What crops are like, from the sizes of photos and of labelled things."""
    shapes = some_shapes(run.photos)
    zoom = _zoom(run, settings, targets, learned, shapes)
    seen = [(round(height * zoom), round(width * zoom)) for height, width in shapes]
    upside_down, quarter = movements if isinstance(movements, tuple) else movements.value
    size = crop_size(seen, settings.pyramid_crop, multiple=32)
    return CropForm(
        (max(size),) * 2 if quarter else size,
        zoom,
        settings.pyramid_scale,
        settings.pyramid_around,
        upside_down,
        quarter,
        settings.pyramid_jitter,
    )


def _zoom(
    run: Run,
    settings: PyramidTraining,
    targets: LabelMaps,
    learned: Indices,
    shapes: Sequence[tuple[int, int]],
) -> float:
    """The factor at which photos are seen: as configured, or by the size of labelled things."""
    if settings.pyramid_zoom is not None:
        return settings.pyramid_zoom
    some = learned[evenly(len(learned), _LOOKED_AT)]
    typical = None if targets.stage.planned else typical_size(map(targets, some.tolist()))
    longer = float(np.median(np.max(np.asarray(shapes), axis=1)))
    least = backbone_kind(run.setup.backbone).native_side
    wanted = settings.pyramid_object_size
    zoom = zoom_for(typical, longer, wanted=wanted, least=least, most=_MOST)
    if typical is not None:
        run.progress.say(
            f"labelled things are {typical:.0f} pixels across, in photos of {longer:.0f} at work "
            f"(medians); {wanted:g} and at least {least} are wanted"
        )
    return zoom


def _movements(run: Run, settings: PyramidSettings) -> Movements:
    """Whether crops may be upside down, and turned: as configured, or by a look at the photos."""
    if settings.pyramid_turns != "auto":
        return settings.pyramid_turns != "none", settings.pyramid_turns == "quarter"
    setup, photos = run.setup, run.photos
    if setup.weights is None:
        return False, False  # features that know nothing tell nothing

    def look() -> tuple[bool, bool]:
        net = setup.build_backbone(settings)
        some = evenly(len(photos), _LOOKED_AT)
        squares = [movements_of(photos.image(index)) for index in some]
        upright, down, turned = (
            photo_features(net, of_kind, setup.execution) for of_kind in zip(*squares, strict=True)
        )
        seen = Orientation(told_apart(upright, down), told_apart(upright, turned))
        for line in seen.lines():
            run.progress.say(line)
        return seen.allowed()

    form = _Form(setup.output_stride(settings), None)
    return found(
        run,
        _ORIENTATION,
        look,
        planned=(False, False),
        settings=[setup.means(), form],
        inputs=[run.photos_key],
    )


def _schedule(settings: PyramidSettings, n_photos: int, n_classes: int) -> Schedule:
    rate = settings.backbone_rate(settings.pyramid_backbone_factor)
    return schedule_by_root(
        settings.pyramid_iterations,
        settings.pyramid_batch_size,
        settings.pyramid_learning_rate,
        n_photos,
        n_classes,
        weight_decay=1e-4,
        averaging=settings.pyramid_averaging,
        multipliers={"backbone": rate, **_SCORES},
    )


def _say(run: Run, form: CropForm, schedule: Schedule) -> None:
    height, width = form.size
    run.progress.say(
        f"the segmenter sees photos at {form.zoom:g} times their size at work "
        f"({run.photos.side} pixels at most), in windows of {_WINDOW} where that is more, and "
        f"learns from {schedule.iterations} x {schedule.batch_size} crops of {height} x {width} in "
        "its first cycle"
    )


def _fit(
    net: PyramidNet,
    crops: Callable[[], ClassCrops],
    n_photos: int,
    loss: PyramidLoss,
    schedule: Schedule,
    number: int,
    *,
    loop: Loop,
) -> None:
    def of_batch(module: nn.Module, batch: Batch) -> Tensor:
        return loss(module(batch["image"].float() / 255), batch["labels"])

    # Each cycle draws crops of its own.
    loop = replace(loop, execution=replace(loop.execution, seed=loop.execution.seed + number))
    train(net, of_batch, crops(), n_photos, schedule, groups=net.parameter_groups(), loop=loop)


def _segmenter(
    run: Run,
    net: nn.Module,
    sight: Sight,
    asked: Mapping[str, Any] | None,
    *,
    refined: bool,
) -> WindowedSegmenter:
    refinement = asked if refined else None
    return WindowedSegmenter(
        net,
        run.photos.classes,
        sight=sight,
        side=run.photos.side,
        execution=run.setup.execution,
        refiner=None if refinement is None else refiner_from(refinement),
        refinement=refinement,
        decided_by={
            "asked": asked,
            "scales": sight.scales,
            "flip": sight.flip,
        },
    )
