"""The fields that recipes share, and how a field states its default and its source."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from tagseg.errors import ConfigError
from tagseg.iterate import StopRule

__all__ = [
    "InRounds",
    "LargeFovConfig",
    "SaliencyConfig",
    "SaliencySource",
    "TrainingConfig",
    "number",
    "where_from",
]

_POSITIVE = ("_width", "r_iterations", "_batch_size", "_learning_rate", "_epochs")  # endings


_NOT_NEGATIVE = (
    "classifier_hidden_layers",
    "classifier_backbone_factor",
    "segmenter_backbone_factor",
    "crisp_weight",
    "crisp_gamma_max",
    "crisp_area_weight",
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
    crisp_threshold: float = number(
        0.1, "Isola et al., code", "strength of the boundaries between crisp regions, 0 to 1"
    )
    crisp_weight: float = number(1.0, "other code", "of the P^n-Potts terms")
    crisp_gamma_max: float = number(
        5.0, "assumed", "cost of a region of several labels, and the most that Eq. 8 can cost"
    )
    crisp_area_weight: float = number(
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
        if not 0 <= self.crisp_threshold <= 1:
            raise ConfigError(f"crisp_threshold is {self.crisp_threshold}", do="use 0 to 1")
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
class LargeFovConfig(TrainingConfig):
    """The shared numbers, as Oh et al. have them."""

    classifier_hidden_layers: int = number(
        2, "Table 6", "of G1's classifier; the seeders' are as in the table"
    )
    seeder_side: int | None = number(
        None,
        "authors' code: 321",
        "longer side of photos in a seeder; none: 321, or 1.5 times theirs",
    )
    segmenter_unary: Literal["softmax", "log"] = number(
        "log", "Chen et al. 2015", "of the CRF after the segmenter: softmax of probs, or -log"
    )
    crf_bilateral: tuple[float, float, float] = number(
        (4.0, 121.0, 5.0), "C.1", "weight, sigma in pixels, sigma in colour levels"
    )
    crf_smoothness: tuple[float, float] = number((3.0, 3.0), "C.1", "weight, sigma in pixels")
    crf_filter: Literal["fine", "lattice"] = number(
        "lattice", "as published", "fine: close to the exact mean field; lattice: as pydensecrf"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seeder_side is not None and self.seeder_side < 16:
            raise ConfigError(f"seeder_side is {self.seeder_side}", do="use 16 or more")


class InRounds:
    """What a Config of a recipe that works in rounds says of them, from four of its fields."""

    rounds: int
    converged: float
    start: Literal["warm", "cold"]
    later_fraction: float

    def check_rounds(self) -> None:
        """Raise ConfigError where a number cannot be meant."""
        self.stop_rule()
        if not 0 < self.later_fraction <= 1:
            raise ConfigError(f"later_fraction is {self.later_fraction}", do="use over 0, up to 1")

    def stop_rule(self) -> StopRule:
        """When the rounds end."""
        return StopRule(self.rounds, self.converged)

    def part_of(self, number: int) -> float:
        """Part of the schedule that round ``number`` trains for."""
        return 1.0 if number == 1 else self.later_fraction

    def part_of_all(self) -> float:
        """Part of the schedule that the last network has seen, if all rounds are run."""
        if self.start == "cold":
            return self.part_of(self.rounds)
        return sum(self.part_of(number) for number in range(1, self.rounds + 1))


SaliencySource = Literal["auto", "boxes", "folder", "activations", "barrier", "drfi", "student"]


_TRAINING_FREE = "barrier"  # see docs/saliency.md for how it was chosen


@dataclass(frozen=True)
class SaliencyConfig(LargeFovConfig):
    """Where saliency maps come from (Oh et al. 2017, 5.1 and 6.1; Wang et al. 2018, 4.3)."""

    papers_saliency: ClassVar[Literal["boxes", "drfi", "student"]] = "boxes"

    saliency: SaliencySource = number(  # noqa: RUF009
        "auto",
        "5.1",
        "of maps: boxes, folder, activations, barrier, drfi, student; auto: as given, or barrier",
    )
    saliency_maps: str | None = number(None, "assumed", "folder of given maps (--saliency)")
    saliency_forest: str | None = number(
        None, "assumed", "of drfi, by tagseg train-saliency; none: of generated scenes"
    )
    student: str | None = number(
        None, "assumed", "of student, by tagseg train-student; none: of generated clips"
    )
    boxes: str | None = number(None, "6.1", "boxes to learn saliency from (--boxes)")
    box_photos: str | None = number(None, "assumed", "folder of their photos; none: beside them")
    boxes_left_out: str | None = number(
        None, "6.1", "list of boxed photos to leave out: those of classes to be learned"
    )
    saliency_backbone: str | None = number(
        None, "6.1: resnet101", "of the net that learns from boxes; none: the run's"
    )
    saliency_weights: str = number("imagenet", "6.1", "of that backbone, where it is not the run's")
    saliency_iterations: int | None = number(None, "F: 20,000", "none: by the schedule")
    saliency_epochs: float = number(12.0, "assumed", "passes over the photos, short schedule")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.saliency_iterations is not None and self.saliency_iterations < 1:
            raise ConfigError(
                f"saliency_iterations is {self.saliency_iterations}", do="use a value over 0"
            )

    def saliency_source(self) -> str:
        """As configured, or what was given, or maps that need nothing but the photos."""
        if self.saliency != "auto":
            return self.saliency
        given = {
            "boxes": self.boxes,
            "folder": self.saliency_maps,
            "drfi": self.saliency_forest,
            "student": self.student,
        }
        own = self.papers_saliency
        free = _TRAINING_FREE if own == "boxes" else own  # boxes must be given
        return next((kind for kind, path in given.items() if path is not None), free)

    def check_saliency(self) -> None:
        """Raise ConfigError where a source lacks its files, or files are given in vain."""
        maps = "--coarse-masks DIR" if self.papers_saliency == "student" else "--saliency DIR"
        given = {"boxes": ("--boxes FILE", self.boxes), "folder": (maps, self.saliency_maps)}
        source = self.saliency_source()
        for kind, (flag, path) in given.items():
            if kind == source and path is None:
                raise ConfigError(f"saliency={kind} has nothing to read", do=f"give {flag}")
            if kind != source and path is not None:
                raise ConfigError(
                    f"{flag.split()[0]} is given, but saliency comes from {source}",
                    do="leave one of the two out",
                )
        needs = {"--box-photos": self.box_photos, "boxes_left_out": self.boxes_left_out}
        for name, value in needs.items():
            if value is not None and self.boxes is None:
                raise ConfigError(f"{name} is given without --boxes", do="give --boxes FILE")
        for name, kind in (("saliency_forest", "drfi"), ("student", "student")):
            if getattr(self, name) is not None and source != kind:
                raise ConfigError(
                    f"{name} is given, but saliency comes from {source}",
                    do="leave one of the two out",
                )
