"""What every recipe is given (a :class:`Run`), and what it gives back (an :class:`Outcome`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError
from tagseg.maps import Image, Labels, ScoreMap
from tagseg.nets.backbone import Backbone
from tagseg.nets.catalog import build_backbone
from tagseg.nets.weights import LoadedWeights, resolve
from tagseg.run.progress import Progress, Task
from tagseg.run.workspace import Stage, Workspace
from tagseg.segment.predict import Segmenter
from tagseg.training import Execution

__all__ = [
    "Outcome",
    "Part",
    "Product",
    "Progression",
    "RoundProducts",
    "Run",
    "Seeds",
    "Setup",
    "Split",
    "TagScores",
    "TrainingConfig",
    "View",
    "number",
    "where_from",
]


_POSITIVE = ("_width", "r_iterations", "_batch_size", "_learning_rate", "_epochs")  # endings
_NOT_NEGATIVE = (
    "classifier_hidden_layers",
    "classifier_backbone_factor",
    "segmenter_backbone_factor",
    "region_weight",
    "region_gamma_max",
    "region_area_weight",
)


def number(default: Any, where: str, meaning: str) -> Any:
    """A field of a Config: its default, the section that it comes from, and what it means."""
    return field(default=default, metadata={"where": where, "meaning": meaning})


def where_from(config: Any) -> list[tuple[str, Any, str, str]]:
    """(field, value, where from, meaning) of every field of a Config or of its class."""
    rows = []
    for item in fields(config):
        default = None if item.default is MISSING else item.default
        value = default if isinstance(config, type) else getattr(config, item.name)
        rows.append((item.name, value, item.metadata["where"], item.metadata["meaning"]))
    return rows


@dataclass(frozen=True)
class TrainingConfig:
    """What all recipes share: photo size, the tag classifier, the segmenter, and their schedules.

    Sections are of Saleh et al. The three reference recipes take these numbers unchanged, so that
    they differ in nothing but their training labels.
    """

    uses_tags: ClassVar[bool] = True

    photo_side: int = number(500, "assumed", "longest side of photos at work, pixels; VOC's 500")
    output_stride: int | None = number(
        None, "4.2.1: 8", "8 or 16; none: 16 for mobilenet_v2, 8 for others"
    )
    schedule: Literal["auto", "paper", "short"] = number(
        "auto", "4.2.1", "auto: the paper's for vgg16 and 5,000 photos or more, else short"
    )
    classifier_size: int = number(224, "4.2.2", "classifier input, pixels; smaller photos stay")
    classifier_hidden_layers: int = number(2, "4.2.2", "convolutions in place of fc6 and fc7")
    classifier_width: int | None = number(
        None, "assumed", "their channels; none: 1024 for vgg16, 256 for others"
    )
    classifier_iterations: int | None = number(None, "4.2.2", "none: by the schedule")
    classifier_batch_size: int | None = number(None, "4.2.2", "none: by the schedule, 15 or 16")
    classifier_learning_rate: float | None = number(None, "4.2.2", "none: by the schedule")
    classifier_epochs: float = number(12.0, "assumed", "passes over the photos, short schedule")
    classifier_backbone_factor: float = number(
        0.2, "assumed", "factor on the learning rate of pre-trained layers, short schedule"
    )
    cam_flip: bool = number(
        False, "3.1.2", "average class activation maps with the mirrored photo's"
    )
    cam_scales: tuple[float, ...] = number(
        (1.0,), "3.1.2", "factors on the photo that class activation maps are averaged over"
    )
    segmenter_crop: int = number(321, "assumed", "longest side of training crops, pixels")
    segmenter_width: int | None = number(
        None, "4.2.1", "channels of fc6 and fc7; none: 1024 or 4096 for vgg16, 256 for others"
    )
    segmenter_iterations: int | None = number(None, "4.2.1", "none: by the schedule")
    segmenter_batch_size: int | None = number(None, "4.2.1", "none: by the schedule, 1 or 16")
    segmenter_learning_rate: float | None = number(None, "4.2.1", "none: by the schedule")
    segmenter_epochs: float = number(12.0, "assumed", "passes over the photos, short schedule")
    segmenter_backbone_factor: float = number(0.5, "assumed", "likewise, for the segmenter")
    segmenter_crf: bool = number(True, "3.2.1", "smooth the segmenter's masks with the dense CRF")
    segmenter_unary: Literal["softmax", "log"] = number(
        "softmax", "Eq. 7", "of that CRF: softmax of the probabilities, or -log of them"
    )
    crf_bilateral: tuple[float, float, float] = number(
        (10.0, 80.0, 13.0), "assumed", "weight, sigma in pixels, sigma in colour levels"
    )
    crf_smoothness: tuple[float, float] = number((3.0, 3.0), "assumed", "weight, sigma in pixels")
    crf_iterations: int = number(10, "assumed", "mean-field iterations")
    crf_reference_side: int | None = number(
        500, "assumed", "sigmas and areas are for photos of this longer side; none: fixed"
    )
    crf_filter: Literal["fine", "lattice"] = number(
        "fine", "assumed", "fine: close to the exact mean field; lattice: as pydensecrf has it"
    )
    segmenter_regions: Literal["none", "crisp"] = number(
        "none", "3.2.1", "regions of the higher-order terms of the CRF after the segmenter"
    )
    region_threshold: float = number(
        0.1, "Isola et al., code", "strength of the boundaries between crisp regions, 0 to 1"
    )
    region_weight: float = number(1.0, "other code", "of the P^n-Potts terms")
    region_gamma_max: float = number(
        5.0, "assumed", "cost of a region of several labels, and the most that Eq. 8 can cost"
    )
    region_area_weight: float = number(
        0.00018, "other code", "part of Eq. 8 that each pixel pays too, times the region's pixels"
    )
    scale_field_of_view: bool = number(
        True, "assumed", "scale fc6's dilation with the photos, 12 at 500 pixels; false: always 12"
    )
    masks_by_tags: bool = number(
        True, "3.2", "the masks of training photos hold classes of their known tags only"
    )

    def __post_init__(self) -> None:
        self._check_choices()
        if self.output_stride not in (None, 8, 16):
            raise ConfigError(f"output_stride is {self.output_stride}", do="use 8, 16 or none")
        if not 0 <= self.region_threshold <= 1:
            raise ConfigError(f"region_threshold is {self.region_threshold}", do="use 0 to 1")
        for name in ("photo_side", "classifier_size", "segmenter_crop"):
            if getattr(self, name) < 16:
                raise ConfigError(f"{name} is {getattr(self, name)}", do="use 16 or more")
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name.endswith(_POSITIVE) and value is not None and not value > 0:
                raise ConfigError(f"{item.name} is {value}", do="use a value over 0")
        for name in _NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}", do="use 0 or more")
        if 1.0 not in self.cam_scales or not min(self.cam_scales) > 0:
            raise ConfigError(
                f"cam_scales is {self.cam_scales}", do="use positive factors, 1 among them"
            )

    def _check_choices(self) -> None:
        """Every field that is one of a few words."""
        for name, kind in get_type_hints(type(self)).items():
            value, known = getattr(self, name), get_args(kind)
            if get_origin(kind) is Literal and value not in known:
                words = f"{', '.join(known[:-1])} or {known[-1]}"
                raise ConfigError(f"{name} is {value!r}", do=f"use {words}")


@dataclass(frozen=True)
class Setup:
    """What a recipe computes with, and where.

    Attributes:
        backbone: name in :data:`tagseg.nets.catalog.BACKBONES`.
        weights: pre-trained weights, or None for random ones.
        threads: photos that are refined at once.
    """

    backbone: str
    weights: LoadedWeights | None
    execution: Execution
    threads: int = 1

    def settings(self) -> dict[str, Any]:
        """What decides on every trained network."""
        return {
            "backbone": self.backbone,
            "weights": self.weights.digest if self.weights is not None else "none",
            "precision": str(self.execution.precision).removeprefix("torch."),
            "seed": self.execution.seed,
        }

    def output_stride(self, config: TrainingConfig) -> int:
        """Of the backbone: as configured, else 8, or 16 for MobileNetV2, which is slow at 8."""
        return config.output_stride or (16 if self.backbone == "mobilenet_v2" else 8)

    def on(self, backbone: str | None, weights: str) -> Setup:
        """The same means with a network's own backbone and weights; None keeps the run's.

        Raises:
            TagsegError: there is no such backbone, or its weights cannot be used.
        """
        if backbone is None:
            return self
        build_backbone(backbone)  # a wrong name must show before weights are looked for
        found = resolve(weights, backbone)
        return replace(self, backbone=backbone, weights=found if found.state else None)

    def build_backbone(self, config: TrainingConfig) -> Backbone:
        """A fresh backbone with the pre-trained weights."""
        stride = self.output_stride(config)
        return build_backbone(self.backbone, self.weights, output_stride=stride)


Split = Literal["train", "val"]


class Part(NamedTuple):
    """Photos of a run, the hash of their content and tags, and what their stages' names start with.

    Nothing for training photos, so that a recipe's own stages are called what they are.
    """

    photos: WorkingPhotos
    key: str
    prefix: str


@dataclass(frozen=True)
class Run:
    """One run of a recipe: the photos, the means, and the folder that keeps what is made.

    Attributes:
        photos: the training photos.
        photos_key: hash of their content and tags.
        val, val_key: the validation photos, if any; no recipe trains on them.
        worked: names of the stages that were not finished before.
    """

    photos: WorkingPhotos
    photos_key: str
    val: WorkingPhotos | None
    val_key: str
    setup: Setup
    workspace: Workspace
    progress: Progress
    worked: list[str] = field(default_factory=list)

    def part(self, split: Split) -> Part:
        """The photos for training or for validation; ConfigError if there are none for that."""
        if split == "train":
            return Part(self.photos, self.photos_key, "")
        if self.val is None:
            raise ConfigError("there are no validation photos", do="give --val")
        return Part(self.val, self.val_key, "val-")

    def stage(self, name: str, config: dict[str, Any], inputs: Sequence[str | Stage]) -> Stage:
        """A stage of the workspace, new or finished."""
        stage = self.workspace.stage(name, config=config, inputs=inputs)
        if stage.pending:
            self.worked.append(name)
        return stage

    def task(self, title: str, total: int) -> AbstractContextManager[Task]:
        """A progress bar."""
        return self.progress.task(title, total)


View = Callable[[int], Image]
TagScores = Callable[[], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Product:
    """Labels that a stage made for a set of photos, to be scored and shown.

    Attributes:
        title: of the stage, as the report prints it.
        split: "train" or "val".
        labels: of photo i, at working or full size.
        stages: what the labels depend on.
        by_class: False for masks that only tell foreground (1) from background.
    """

    title: str
    split: Split
    labels: Callable[[int], Labels]
    stages: tuple[Stage, ...]
    by_class: bool = True


@dataclass(frozen=True)
class Seeds:
    """Score maps of known tags, to be scored by precision and recall.

    Attributes:
        method: as the report prints it.
        threshold: over which a pixel is foreground; None where the method has none.
        maps_of: score map (C, h, w) of a split's photo i at working size, and what they depend on.
    """

    method: str
    threshold: float | None
    maps_of: Callable[[Split], tuple[Callable[[int], ScoreMap], Stage]]


@dataclass(frozen=True)
class RoundProducts:
    """What one round of an iterative recipe gave.

    Attributes:
        agreement: of its masks with those of the round before, 0 to 1; None for the first.
        products: of the round, those of the outcome; their titles end in ", round NUMBER".
    """

    number: int
    agreement: float | None
    products: tuple[Product, ...]


@dataclass(frozen=True)
class Progression:
    """The rounds of a recipe in order, and why there are no more."""

    rounds: tuple[RoundProducts, ...]
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What a recipe gives back.

    Attributes:
        segmenter: trained, with its refinement.
        products: every stage's labels, in the order of the pipeline.
        views: pictures of the intermediate maps of training photo i, by title, for the gallery.
        tag_scores: computes those of the validation photos (N, C), if there is a tag classifier.
        curves: stages that logged a training.
        seeds: score maps to be compared.
        progression: of a recipe that works in rounds.
    """

    segmenter: Segmenter
    products: tuple[Product, ...]
    views: tuple[tuple[str, View], ...] = ()
    tag_scores: TagScores | None = None
    curves: tuple[Stage, ...] = ()
    seeds: tuple[Seeds, ...] = ()
    progression: Progression | None = None
