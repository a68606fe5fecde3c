"""Settings: small frozen dataclasses, one for each stage, of which recipes compose their Config.

A field states its default, where that comes from, what it means and which values make sense. A
Config inherits from the settings of the stages that it uses and from nothing else, so a field that
cannot act does not exist; a stage sees its own settings only (:meth:`Settings.only`), so what
decides on its result is what stands in its key.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from tagseg.errors import ConfigError
from tagseg.iterate import StopRule

__all__ = [
    "BILATERAL",
    "CRF_FIELDS",
    "KERNELS",
    "SMOOTHNESS",
    "BackboneSettings",
    "CamSettings",
    "ClassifierForm",
    "ClassifierSettings",
    "CrfIterations",
    "CrfSettings",
    "CrispForm",
    "CrispSettings",
    "CrispStrengths",
    "DeepLabSettings",
    "GapForm",
    "GapSettings",
    "LocalizerSettings",
    "MaskSettings",
    "PhotoSettings",
    "PyramidSettings",
    "PyramidTraining",
    "ReferenceSide",
    "RefinementSettings",
    "RoundSettings",
    "SaliencySettings",
    "SaliencySource",
    "ScheduleSettings",
    "SeederSettings",
    "SegmenterForm",
    "SegmenterSettings",
    "Settings",
    "TagLossSettings",
    "TagSettings",
    "TagsAre",
    "ViewSettings",
    "WorkSettings",
    "check_blocks",
    "check_range",
    "number",
    "where_from",
]

S = TypeVar("S", bound="Settings")
Bound = float | tuple[float | None, ...] | None  # of a value, or of each value of a tuple


def number(
    default: Any,
    where: str,
    meaning: str,
    *,
    above: Bound = None,
    at_least: Bound = None,
    at_most: Bound = None,
    below: Bound = None,
    among: tuple[Any, ...] = (),
    only_with: Mapping[str, tuple[Any, ...]] = MappingProxyType({}),
) -> Any:
    """A field of a settings class.

    Args:
        where: the section of the paper that the default comes from, or "assumed".
        meaning: what the field does, for the list of fields.
        above, at_least, at_most, below: bounds of the value; for a tuple, of each of its values,
            or a bound for each.
        among: all values that there are, None aside.
        only_with: values of other fields of the class without which this one does nothing.
    """
    bounds = {"above": above, "at_least": at_least, "at_most": at_most, "below": below}
    about: dict[str, Any] = {"where": where, "meaning": meaning, "bounds": bounds, "among": among}
    return field(default=default, metadata={**about, "only_with": only_with})


def where_from(config: Any) -> list[tuple[str, Any, str, str]]:
    """(field, value, where from, meaning) of every field of a Config or of its class."""
    rows = []
    for item in fields(config):
        default = None if item.default is MISSING else item.default
        value = default if isinstance(config, type) else getattr(config, item.name)
        rows.append((item.name, value, item.metadata["where"], item.metadata["meaning"]))
    return rows


@dataclass(frozen=True)
class Settings:
    """What all settings can do: check themselves, and give a stage its share of them.

    Raises:
        ConfigError: a field's value is out of its bounds, or two do not fit together.
    """

    def supervision(self) -> str:
        """What results owe to more than photos and their tags: a clause, "" for nothing."""
        return ""

    def __post_init__(self) -> None:
        hints = _hints(type(self))  # type: ignore[arg-type]
        for item in fields(self):
            _check_value(item.name, getattr(self, item.name), hints[item.name], item.metadata)
        for kind in reversed(type(self).__mro__):  # each class's own check
            vars(kind).get("check", _nothing)(self)

    def check(self) -> None:
        """Raise ConfigError where values of several fields do not fit together."""

    def only(self, kind: type[S]) -> S:
        """The fields of ``kind``, of which this is one, and no others."""
        return kind(**{item.name: getattr(self, item.name) for item in fields(kind)})

    def acting(self) -> dict[str, Any]:
        """Fields and values, but for those that do nothing beside the values of others."""
        return {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if all(getattr(self, o) in v for o, v in item.metadata["only_with"].items())
        }

    def idle(self) -> dict[str, str]:
        """Fields that do nothing beside the values of others, and what they would act with."""
        acting = self.acting()
        return {
            item.name: " and ".join(
                f"{name}={' or '.join(map(str, values)).lower()}"
                for name, values in item.metadata["only_with"].items()
            )
            for item in fields(self)
            if item.name not in acting
        }

    @classmethod
    def named(cls, name: str) -> bool:
        """Whether there is a field ``name``."""
        return name in cls.__dataclass_fields__


def _nothing(settings: Settings) -> None:
    """No check."""


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(kind)


def _check_value(name: str, value: Any, hint: Any, metadata: Any) -> None:
    """Raise ConfigError, which names the field, if its value is none of those that make sense."""
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    if choices and value not in choices:
        raise ConfigError(f"{name} is {value!r}", do=f"use {_either(choices)}")
    if value is None:
        return
    if metadata["among"] and value not in metadata["among"]:
        optional = ("none",) if type(None) in get_args(hint) else ()
        raise ConfigError(
            f"{name} is {value}", do=f"use {_either((*metadata['among'], *optional))}"
        )
    several = isinstance(value, tuple)
    tuples = [get_args(kind) for kind in (hint, *get_args(hint)) if get_origin(kind) is tuple]
    if several and tuples and ... not in tuples[0] and len(value) != len(tuples[0]):
        raise ConfigError(f"{name} is {value}", do=f"give {len(tuples[0])} numbers")
    for position, part in enumerate(value if several else (value,)):
        bounds = {kind: _at(bound, position) for kind, bound in metadata["bounds"].items()}
        if not all(_within(part, bounds)):
            advice = _advice(bounds, several) + (
                ", or none" if type(None) in get_args(hint) else ""
            )
            raise ConfigError(f"{name} is {_shown(value)}", do=advice)


def _at(bound: Bound, position: int) -> float | None:
    return bound[position] if isinstance(bound, tuple) else bound


def _within(value: float, bounds: dict[str, float | None]) -> Iterator[bool]:
    if any(bound is not None for bound in bounds.values()):
        yield math.isfinite(value)
    above, at_least = bounds["above"], bounds["at_least"]
    at_most, below = bounds["at_most"], bounds["below"]
    yield above is None or value > above
    yield at_least is None or value >= at_least
    yield at_most is None or value <= at_most
    yield below is None or value < below


def _advice(bounds: dict[str, float | None], several: bool) -> str:
    """Which values make sense, for an error message."""
    above, at_least, at_most, below = bounds.values()
    low = (
        f"over {above:g}" if above is not None else f"{at_least:g}" if at_least is not None else ""
    )
    values = "values" if several else "a value"
    if at_most is None and below is None:
        return f"use {low} or more" if above is None else f"use {values} {low}"
    high = f"{at_most:g}" if at_most is not None else f"below {below:g}"
    if above is not None:
        return f"use {low}, {'up to ' if at_most is not None else ''}{high}"
    if low:
        return f"use {low} to {high}"
    return f"use {values} {'up to ' if at_most is not None else ''}{high}"


def _either(choices: tuple[Any, ...]) -> str:
    if len(choices) == 1:
        return str(choices[0])
    return f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"


def _shown(value: Any) -> Any:
    return ",".join(f"{part:g}" for part in value) if isinstance(value, tuple) else value


def check_range(name: str, value: tuple[float, float]) -> None:
    """Raise ConfigError for a range of factors whose ends are exchanged."""
    if value[0] > value[1]:
        raise ConfigError(f"{name} is {value}", do="give two factors, the smaller first")


def check_blocks(blocks: tuple[int, ...]) -> None:
    """Raise ConfigError for blocks that no backbone has."""
    if not blocks or not set(blocks) <= set(range(6)):
        raise ConfigError(f"blocks is {blocks}", do="use some of 0, 1, 2, 3, 4, 5")


_USUAL_SIDE, _MOST_SIDE = 500, 1024  # pixels


@dataclass(frozen=True)
class PhotoSettings(Settings):
    """The size of photos at work."""

    photo_side: int | None = number(
        None,
        "assumed",
        "longest side of photos at work, pixels; none: VOC's 500, or by the photos if "
        "segmenter=pyramid",
        at_least=16,
    )

    def working_side(self, median: tuple[int, int]) -> int:
        """Longest side of photos at work, pixels, for photos of a median (height, width)."""
        return _USUAL_SIDE if self.photo_side is None else self.photo_side


_BACKBONES_RATES = (
    "layer_decay",
    "classifier_backbone_factor",
    "segmenter_backbone_factor",
    "pyramid_backbone_factor",
)


@dataclass(frozen=True)
class BackboneSettings(Settings):
    """The form of the backbone, and which of it learns (``FineTuning``)."""

    output_stride: int | None = number(
        None,
        "Saleh et al. 4.2.1: 8",
        "8 or 16; none: 16 for mobilenet_v2, efficientnet_lite and transformers, 8 for others",
        among=(8, 16),
    )
    trained_blocks: int | None = number(
        None,
        "assumed",
        "blocks of a backbone that learn, from the top; 0: it is frozen; none: all",
        at_least=0,
    )
    layer_decay: float | None = number(
        None,
        "He et al. 2022, Table 9: 0.75",
        "factor on the learning rate per block down from the head; none: 0.75 for transformers, "
        "1 for others",
        above=0,
        at_most=1,
    )

    def idle(self) -> dict[str, str]:
        """A frozen backbone has no learning rate."""
        found = super().idle()
        if self.trained_blocks == 0:
            own = [item.name for item in fields(self) if item.name in _BACKBONES_RATES]
            found |= dict.fromkeys(own, "trained_blocks=1 or more")
        return found

    def backbone_rate(self, factor: float) -> float:
        """``factor`` on the learning rate of the backbone; 1 for a frozen one, which has none."""
        return 1.0 if self.trained_blocks == 0 else factor


@dataclass(frozen=True)
class ScheduleSettings(Settings):
    """Which of two schedules all trainings follow."""

    schedule: Literal["auto", "paper", "short"] = number(
        "auto",
        "Saleh et al. 4.2.1",
        "auto: the paper's for vgg16 and 5,000 photos or more, else short",
    )


@dataclass(frozen=True)
class ClassifierForm(BackboneSettings):
    """The network of a tag classifier."""

    classifier_width: int | None = number(
        None, "assumed", "channels of its new layers; none: 1024 for vgg16, 256 for others", above=0
    )


TagsAre = Literal["complete", "incomplete", "noisy"]
TagLoss = Literal["bce", "hill", "rejection", "selection"]


@dataclass(frozen=True)
class TagSettings(Settings):
    """How far tags are believed (docs/incomplete-tags.md)."""

    tags_are: TagsAre = number(  # noqa: RUF009
        "complete",
        "assumed",
        "complete; incomplete: what is not tagged may be there; noisy: tags may be wrong either "
        "way (--tags-are)",
    )
    missing_confidence: float = number(
        0.5,
        "assumed",
        "confidence from which a tag is probably missing or wrong, or there if it is marked ?",
        above=0,
        at_most=1,
    )
    completed_confidence: float | None = number(
        0.8,
        "assumed",
        "confidence from which a probably missing tag is taken as given; none: never",
        above=0,
        at_most=1,
        only_with={"tags_are": ("incomplete",)},
    )
    missing_evidence: float = number(
        0.2,
        "Zhou et al. 2016: 0.2",
        "fraction of the strongest evidence for a class that is probably there from which "
        "background is ignored",
        above=0,
        at_most=1,
    )

    @property
    def tags_in_doubt(self) -> bool:
        """Whether anything that is not said, or said, of a photo may be wrong."""
        return self.tags_are != "complete"


_HILL = {"tag_loss": ("auto", "hill")}


@dataclass(frozen=True)
class TagLossSettings(TagSettings):
    """The loss of a tag classifier."""

    tag_loss: Literal["auto", "bce", "hill", "rejection", "selection"] = number(
        "auto",
        "assumed",
        "bce, cross-entropy; hill; rejection of the largest losses of what is not tagged; "
        "selection, cross-entropy without tags that are probably wrong; auto: by tags_are",
    )
    hill_peak: float = number(
        1.5, "Zhang et al. 2021: 1.5", "lambda of the Hill loss", above=0, only_with=_HILL
    )
    hill_margin: float = number(
        1.0, "Zhang et al. 2021: 1", "of the focal margin loss", at_least=0, only_with=_HILL
    )
    hill_gamma: float = number(
        2.0, "Zhang et al. 2021: 2", "of the focal margin loss", at_least=0, only_with=_HILL
    )
    rejection_rate: float = number(
        0.2,
        "Kim et al. 2022: 0.2",
        "percent of the losses of what is not tagged that are dropped, more in each epoch after "
        "the first",
        at_least=0,
        at_most=100,
        only_with={"tag_loss": ("auto", "rejection")},
    )

    def check(self) -> None:
        """Only tags that may be wrong can be selected from."""
        if self.tag_loss == "selection" and not self.tags_in_doubt:
            raise ConfigError(
                "tag_loss=selection selects nothing from complete tags",
                do="use tags_are=incomplete or noisy, or another tag_loss",
            )

    def chosen_loss(self) -> TagLoss:
        """The loss as configured, or what suits tags that are as they are said to be."""
        return _USUAL_LOSS[self.tags_are] if self.tag_loss == "auto" else self.tag_loss


# docs/incomplete-tags.md says what these were compared on.
_USUAL_LOSS: dict[str, TagLoss] = {
    "complete": "bce",
    "incomplete": "selection",
    "noisy": "selection",
}


@dataclass(frozen=True)
class ClassifierSettings(ClassifierForm, ScheduleSettings, TagLossSettings):
    """The training of a tag classifier (Saleh et al. 4.2.2)."""

    classifier_iterations: int | None = number(
        None, "Saleh et al. 4.2.2", "none: by the schedule", above=0
    )
    classifier_batch_size: int | None = number(
        None, "Saleh et al. 4.2.2", "none: by the schedule", above=0
    )
    classifier_learning_rate: float | None = number(
        None, "Saleh et al. 4.2.2", "none: by the schedule", above=0
    )
    classifier_epochs: float = number(
        12.0, "assumed", "passes over the photos, short schedule", above=0
    )
    classifier_backbone_factor: float = number(
        0.2,
        "assumed",
        "factor on the learning rate of pre-trained layers, short schedule",
        at_least=0,
    )


@dataclass(frozen=True)
class GapForm(ClassifierForm):
    """The localization network of Saleh et al. (3.1.2): convolutions and global average pooling."""

    classifier_hidden_layers: int = number(
        2, "Saleh et al. 4.2.2", "convolutions in place of fc6 and fc7", at_least=0
    )
    classifier_stride: int | None = number(
        None,
        "assumed",
        "of the classifier's backbone, which is then not dilated; none: as output_stride",
        among=(8, 16, 32),
    )


@dataclass(frozen=True)
class GapSettings(GapForm, ClassifierSettings):
    """The training of that network (Saleh et al. 4.2.2)."""

    classifier_size: int = number(
        224, "Saleh et al. 4.2.2", "classifier input, pixels; smaller photos stay", at_least=16
    )


@dataclass(frozen=True)
class CamSettings(Settings):
    """How class activation maps are averaged (Saleh et al. 3.1.2)."""

    cam_flip: bool = number(
        False, "Saleh et al. 3.1.2", "average class activation maps with the mirrored photo's"
    )
    cam_scales: tuple[float, ...] = number(
        (1.0,),
        "Saleh et al. 3.1.2",
        "factors on the photo that class activation maps are averaged over",
        above=0,
    )

    def check(self) -> None:
        """The photo as it is must be among the sizes."""
        if 1.0 not in self.cam_scales:
            raise ConfigError(
                f"cam_scales is {self.cam_scales}", do="use positive factors, 1 among them"
            )


# Localizers of a trained classifier, and the fields of it and of its maps.
_OF_CLASSIFIER = ("cam", "grad_cam", "layer_cam", "rollout")
_CLASSIFIERS_OWN = ("classifier_", "cam_flip", "cam_scales", "tag_loss", "hill_", "rejection_")


@dataclass(frozen=True)
class LocalizerSettings(GapSettings, CamSettings):
    """What says where each class is; the other fields are those of a trained classifier."""

    localizer: str = number(
        "cam",
        "Saleh et al. 3.1.2",
        "of the score maps: cam, class activation maps; grad_cam; layer_cam; rollout (attentions)",
    )

    def idle(self) -> dict[str, str]:
        """A localizer that is not trained has no classifier."""
        found = super().idle()
        if self.localizer not in _OF_CLASSIFIER:
            own = [item.name for item in fields(self) if item.name.startswith(_CLASSIFIERS_OWN)]
            found |= dict.fromkeys(own, f"localizer={' or '.join(_OF_CLASSIFIER)}")
        return found


@dataclass(frozen=True)
class ReferenceSide(Settings):
    """The photo size for which pixels are meant."""

    crf_reference_side: int | None = number(
        500,
        "assumed",
        "sigmas and areas are for photos of this longer side; none: fixed",
        at_least=1,
    )


@dataclass(frozen=True)
class CrfIterations(ReferenceSide):
    """What all dense CRFs of a recipe share."""

    crf_iterations: int = number(10, "assumed", "mean-field iterations", at_least=0)


_CRF = {"refiner": ("crf",)}
# Bounds of a kernel's numbers: its weight, then its sigmas.
BILATERAL: dict[str, Any] = {"at_least": (0, None, None), "above": (None, 0, 0)}
SMOOTHNESS: dict[str, Any] = {"at_least": (0, None), "above": (None, 0)}


@dataclass(frozen=True)
class CrfSettings(CrfIterations):
    """The kernels of the dense CRF (Saleh et al. 3.1.3)."""

    crf_bilateral: tuple[float, float, float] = number(
        (10.0, 80.0, 13.0),
        "assumed",
        "weight, sigma in pixels, sigma in colour levels",
        **BILATERAL,
    )
    crf_smoothness: tuple[float, float] = number(
        (3.0, 3.0), "assumed", "weight, sigma in pixels", **SMOOTHNESS
    )
    crf_filter: Literal["fine", "lattice"] = number(
        "fine", "assumed", "fine: close to the exact mean field; lattice: as pydensecrf has it"
    )


KERNELS = ("crf_bilateral", "crf_smoothness", "crf_filter")
CRF_FIELDS = (*KERNELS, "crf_iterations", "crf_reference_side")


@dataclass(frozen=True)
class CrispForm(Settings):
    """Which crisp regions a photo has (3.1.3)."""

    crisp_threshold: float = number(
        0.1,
        "Isola et al., code",
        "strength of the boundaries between crisp regions, 0 to 1",
        at_least=0,
        at_most=1,
    )


@dataclass(frozen=True)
class CrispStrengths(Settings):
    """How strongly the CRF's higher-order terms hold to crisp regions (3.1.3)."""

    crisp_weight: float = number(1.0, "other code", "of the P^n-Potts terms", at_least=0)
    crisp_gamma_max: float = number(
        5.0, "assumed", "cost of a region of several labels, and the most of Eq. 8", at_least=0
    )
    crisp_area_weight: float = number(
        0.00018,
        "other code",
        "fraction of Eq. 8 that each pixel pays too, times the region's pixels",
        at_least=0,
    )


@dataclass(frozen=True)
class CrispSettings(CrispForm, CrispStrengths):
    """Crisp regions, and how strongly the CRF holds to them."""


@dataclass(frozen=True)
class RefinementSettings(CrfSettings, CrispSettings):
    """What is done to a segmenter's probabilities (Saleh et al. 3.2.1)."""

    refiner: str = number(
        "crf", "Saleh et al. 3.2.1", "of the segmenter's masks: crf, the dense CRF, or none"
    )
    segmenter_unary: Literal["softmax", "log"] = number(
        "softmax",
        "Saleh et al. Eq. 7",
        "of that CRF: softmax of the probabilities, or -log of them",
    )
    segmenter_regions: Literal["none", "crisp"] = number(
        "none",
        "Saleh et al. 3.2.1",
        "regions of the higher-order terms of the CRF after the segmenter",
        only_with=_CRF,
    )


@dataclass(frozen=True)
class MaskSettings(Settings):
    """The final masks of the training photos."""

    masks_by_tags: bool = number(
        True,
        "Saleh et al. 3.2",
        "the masks of training photos hold classes of their known tags only",
    )


@dataclass(frozen=True)
class ViewSettings(Settings):
    """How far a network sees."""

    scale_field_of_view: bool = number(
        True, "assumed", "scale fc6's dilation with the photos, 12 at 500 pixels; false: always 12"
    )


@dataclass(frozen=True)
class SegmenterForm(ViewSettings, BackboneSettings):
    """The network of a segmenter."""

    segmenter_width: int | None = number(
        None,
        "Saleh et al. 4.2.1",
        "channels of fc6 and fc7; none: 1024 or 4096 for vgg16, 256 for others",
        above=0,
    )


@dataclass(frozen=True)
class SegmenterSettings(SegmenterForm, ScheduleSettings):
    """The training of a segmenter (Saleh et al. 4.2.1)."""

    segmenter_crop: int = number(
        321, "assumed", "longest side of training crops, pixels", at_least=16
    )
    segmenter_iterations: int | None = number(
        None, "Saleh et al. 4.2.1", "none: by the schedule", above=0
    )
    segmenter_batch_size: int | None = number(
        None, "Saleh et al. 4.2.1", "none: by the schedule", above=0
    )
    segmenter_learning_rate: float | None = number(
        None, "Saleh et al. 4.2.1", "none: by the schedule", above=0
    )
    segmenter_epochs: float = number(
        12.0, "assumed", "passes over the photos, short schedule", above=0
    )
    segmenter_backbone_factor: float = number(
        0.5, "assumed", "likewise, for the segmenter", at_least=0
    )

    @staticmethod
    def own() -> tuple[str, ...]:
        """Fields that no other network of a recipe heeds."""
        shared = (*BackboneSettings.__dataclass_fields__, "schedule")
        return tuple(name for name in SegmenterSettings.__dataclass_fields__ if name not in shared)


@dataclass(frozen=True)
class WorkSettings(RefinementSettings, SegmenterSettings, PhotoSettings):
    """What every recipe has: photos at a size, a segmenter and its refinement."""

    def refiners_own(self) -> tuple[str, ...]:
        """Fields that serve the refiner alone; a recipe without another CRF has more of them."""
        return ("segmenter_unary",)

    def idle(self) -> dict[str, str]:
        """Without a refiner, all that it alone would heed."""
        found = super().idle()
        if self.refiner == "none":
            found |= dict.fromkeys(self.refiners_own(), "refiner=crf")
        return found

    def of_masks(self) -> MaskSettings:
        """Those of the final masks; of a recipe that knows no classes, they hold any label."""
        return self.only(MaskSettings) if isinstance(self, MaskSettings) else MaskSettings(False)


_PYRAMID = {"segmenter": ("pyramid",)}


@dataclass(frozen=True)
class PyramidTraining(Settings):
    """A segmenter with skips, trained on crops around classes (docs/segmenter.md)."""

    segmenter: str = number(
        "published",
        "assumed",
        "published: the paper's own; pyramid: with skips, for thin and small things",
    )
    pyramid_iterations: int | None = number(
        None,
        "assumed",
        "of the first cycle, later ones have half; none: by the photos and classes",
        above=0,
        only_with=_PYRAMID,
    )
    pyramid_batch_size: int = number(8, "assumed", "crops", above=0, only_with=_PYRAMID)
    pyramid_learning_rate: float = number(
        1e-3, "assumed", "of AdamW, new layers", above=0, only_with=_PYRAMID
    )
    pyramid_backbone_factor: float = number(
        0.2, "assumed", "on that, for pre-trained layers", at_least=0, only_with=_PYRAMID
    )
    pyramid_averaging: float = number(
        0.99,
        "Tarvainen and Valpola 2017",
        "decay of the average of weights that is kept; 0: the last weights",
        at_least=0,
        below=1,
        only_with=_PYRAMID,
    )
    pyramid_finest: int = number(
        4, "assumed", "pixels per position of the scores", among=(2, 4), only_with=_PYRAMID
    )
    pyramid_crop: int = number(
        320, "assumed", "side of training crops, pixels as seen", at_least=32, only_with=_PYRAMID
    )
    pyramid_zoom: float | None = number(
        None,
        "assumed",
        "factor on photos at work, as seen; none: by the size of labelled things",
        above=0,
        only_with=_PYRAMID,
    )
    pyramid_object_size: float = number(
        64.0,
        "assumed",
        "pixels at which labelled things are seen, if photos are enlarged for them",
        above=0,
        only_with=_PYRAMID,
    )
    pyramid_scale: tuple[float, float] = number(
        (0.7, 1.4),
        "assumed",
        "range of a random factor on the size of training crops",
        above=0,
        only_with=_PYRAMID,
    )
    pyramid_around: float = number(
        0.7,
        "assumed",
        "fraction of training crops that are drawn around a labelled class",
        at_least=0,
        at_most=1,
        only_with=_PYRAMID,
    )
    pyramid_turns: Literal["auto", "none", "flip", "quarter"] = number(
        "auto",
        "assumed",
        "crops mirrored sideways alone, upside down too, or by quarter turns too; auto: by "
        "whether photos show which way is up",
        only_with=_PYRAMID,
    )
    pyramid_jitter: float = number(
        0.2,
        "assumed",
        "random factors on brightness, contrast and saturation, 0.2: 0.8 to 1.2",
        at_least=0,
        below=1,
        only_with=_PYRAMID,
    )
    pyramid_dice: float = number(
        1.0,
        "Milletari et al. 2016",
        "weight of the soft Dice loss beside cross-entropy",
        at_least=0,
        only_with=_PYRAMID,
    )
    pyramid_smoothing: float = number(
        0.0,
        "Szegedy et al. 2016",
        "of labels in cross-entropy",
        at_least=0,
        below=1,
        only_with=_PYRAMID,
    )

    def check(self) -> None:
        """The range of sizes is one."""
        check_range("pyramid_scale", self.pyramid_scale)


@dataclass(frozen=True)
class PyramidSettings(WorkSettings, PyramidTraining):
    """The choice between the paper's segmenter and that one, when it has learned enough, and how it
    looks at photos.

    Attributes:
        segmenters: values of ``segmenter``.
    """

    segmenters: ClassVar[tuple[str, ...]] = ("published", "pyramid")

    pyramid_cycles: int = number(
        4,
        "Loshchilov and Hutter 2017",
        "of the learning rate, at most; 1: no stopping rule",
        above=0,
        only_with=_PYRAMID,
    )
    pyramid_gain: float = number(
        0.01,
        "assumed",
        "rise of mean IoU with held-out labels without which there is no further cycle",
        at_least=0,
        only_with=_PYRAMID,
    )
    pyramid_scales: tuple[float, ...] = number(
        (1.0,), "assumed", "factors that answers are averaged over", above=0, only_with=_PYRAMID
    )
    pyramid_flip: bool = number(
        False, "assumed", "average answers with the mirrored photo's", only_with=_PYRAMID
    )

    def check_segmenter(self) -> None:
        """Raise ConfigError if there is no segmenter of the name that is configured."""
        if self.segmenter not in self.segmenters:
            raise ConfigError(
                f"segmenter is {self.segmenter!r}", do=f"use {_either(self.segmenters)}"
            )

    def working_side(self, median: tuple[int, int]) -> int:
        """Of the pyramid: the photos' own longer side, up to 1,024 pixels."""
        if self.photo_side is None and self.segmenter == "pyramid":
            return min(_MOST_SIDE, max(median))
        return super().working_side(median)

    def idle(self) -> dict[str, str]:
        """The pyramid has no other segmenter's numbers, where there is no other network."""
        found = super().idle()
        if self.segmenter == "pyramid" and not isinstance(self, RoundSettings | SaliencySettings):
            found |= dict.fromkeys(SegmenterSettings.own(), "segmenter=published")
        return found


@dataclass(frozen=True)
class DeepLabSettings(WorkSettings):
    """The same with the CRF of DeepLab, as Oh et al. have it (C.1)."""

    segmenter_unary: Literal["softmax", "log"] = number(
        "log",
        "Chen et al. 2015",
        "of the CRF after the segmenter: softmax of probs, or -log",
    )
    crf_bilateral: tuple[float, float, float] = number(
        (4.0, 121.0, 5.0),
        "Oh et al. C.1",
        "weight, sigma in pixels, sigma in colour levels",
        **BILATERAL,
    )
    crf_smoothness: tuple[float, float] = number(
        (3.0, 3.0), "Oh et al. C.1", "weight, sigma in pixels", **SMOOTHNESS
    )
    crf_filter: Literal["fine", "lattice"] = number(
        "lattice", "as published", "fine: close to the exact mean field; lattice: as pydensecrf"
    )


@dataclass(frozen=True)
class SeederSettings(ViewSettings, ClassifierSettings):
    """The seeders of Oh et al. (4.1 and B)."""

    seeder_side: int | None = number(
        None,
        "authors' code: 321",
        "longer side of photos in a seeder; none: 321, or 1.5 times theirs",
        at_least=16,
    )


@dataclass(frozen=True)
class RoundSettings(Settings):
    """The rounds of a recipe that learns from its own masks."""

    rounds: int = number(5, "assumed", "at most", at_least=1)
    converged: float = number(
        0.97, "assumed", "agreement with the masks before that ends the rounds", above=0
    )
    start: Literal["warm", "cold"] = number(
        "warm", "assumed", "later rounds' networks go on from those before, or begin anew"
    )
    later_fraction: float = number(
        0.5,
        "assumed",
        "iterations of a training in later rounds, as a fraction of the first round's",
        above=0,
        at_most=1,
    )

    def stop_rule(self) -> StopRule:
        """When the rounds end."""
        return StopRule(self.rounds, self.converged)

    def fraction_of(self, number: int) -> float:
        """Fraction of the schedule that round ``number`` trains for."""
        return 1.0 if number == 1 else self.later_fraction

    def fraction_of_all(self) -> float:
        """Fraction of the schedule that the last network has seen, if all rounds are run."""
        if self.start == "cold":
            return self.fraction_of(self.rounds)
        return sum(self.fraction_of(number) for number in range(1, self.rounds + 1))


SaliencySource = Literal[
    "auto", "boxes", "folder", "network", "activations", "barrier", "drfi", "student"
]
_SALIENCY_FILES = (
    *("saliency_maps", "saliency_model", "saliency_forest", "student"),
    *("boxes", "box_photos", "boxes_left_out"),
)
_TRAINING_FREE = "barrier"  # see docs/saliency.md for how it was chosen


@dataclass(frozen=True)
class SaliencySettings(SegmenterSettings, PhotoSettings):
    """Where saliency maps come from (Oh et al. 2017, 5.1 and 6.1; Wang et al. 2018, 4.3).

    The network that learns from boxes is a segmenter, with a segmenter's crops and rates.
    """

    saliency: SaliencySource = number(  # noqa: RUF009
        "auto",
        "Oh et al. 5.1",
        "of maps: boxes, folder, network, activations, barrier, drfi, student; auto: as given, or "
        "barrier",
    )
    saliency_maps: str | None = number(None, "assumed", "folder of given maps (--saliency)")
    saliency_model: str | None = number(
        None, "assumed", "of network, an .onnx file (--saliency-model); it learned from masks"
    )
    saliency_forest: str | None = number(
        None, "assumed", "of drfi, by tagseg train-saliency; none: of generated scenes"
    )
    student: str | None = number(
        None, "assumed", "of student, by tagseg train-student; none: of generated clips"
    )
    boxes: str | None = number(None, "Oh et al. 6.1", "boxes to learn saliency from (--boxes)")
    box_photos: str | None = number(None, "assumed", "folder of their photos; none: beside them")
    boxes_left_out: str | None = number(
        None, "Oh et al. 6.1", "list of boxed photos to leave out: those of classes to be learned"
    )
    saliency_backbone: str | None = number(
        None, "Oh et al. 6.1: resnet101", "of the net that learns from boxes; none: the run's"
    )
    saliency_weights: str = number(
        "imagenet", "Oh et al. 6.1", "of that backbone, where it is not the run's"
    )
    saliency_iterations: int | None = number(
        None, "Oh et al. F: 20,000", "none: by the schedule", above=0
    )
    saliency_epochs: float = number(
        12.0, "assumed", "passes over the photos, short schedule", above=0
    )

    @classmethod
    def papers_saliency(cls) -> str:
        """What the recipe's paper takes: boxes, drfi or student."""
        return "boxes"

    def saliency_source(self) -> str:
        """The source: as configured, or what was given, or what needs nothing but the photos."""
        if self.saliency != "auto":
            return self.saliency
        given = {
            "boxes": self.boxes,
            "folder": self.saliency_maps,
            "network": self.saliency_model,
            "drfi": self.saliency_forest,
            "student": self.student,
        }
        own = self.papers_saliency()
        free = _TRAINING_FREE if own == "boxes" else own  # boxes must be given
        return next((kind for kind, path in given.items() if path is not None), free)

    def by_photos_alone(self, source: str) -> Self:
        """The same with a source that needs no file, and no file given."""
        files = dict.fromkeys(_SALIENCY_FILES)
        return replace(self, **files, saliency=source)  # type: ignore[arg-type]

    def supervision(self) -> str:
        """What a network knows that maps come from, beside the photos and their tags."""
        return {
            "boxes": "saliency was learned from boxes in other photos",
            "folder": "saliency maps were made elsewhere; what they learned from is not known here",
            "network": "saliency is by a network that has learned from pixel masks of objects",
        }.get(self.saliency_source(), "")

    def check_saliency(self) -> None:
        """Raise ConfigError where a source lacks its files, or files are given in vain."""
        maps = "--coarse-masks DIR" if self.papers_saliency() == "student" else "--saliency DIR"
        given = {
            "boxes": ("--boxes FILE", self.boxes),
            "folder": (maps, self.saliency_maps),
            "network": ("--saliency-model FILE", self.saliency_model),
        }
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
