"""The fields of recipe ``union``; what each default was compared on stands in docs/union.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tagseg.errors import ConfigError
from tagseg.stages.settings import (
    BackboneSettings,
    CamSettings,
    MaskSettings,
    PyramidSettings,
    SaliencySettings,
    Settings,
    TagLossSettings,
    check_range,
    number,
)

__all__ = ["ClassifierSettings", "Config", "EvidenceSettings", "FusionSettings"]


@dataclass(frozen=True)
class ClassifierSettings(BackboneSettings, TagLossSettings):
    """The classifier that localizes and judges."""

    classifier_side: int | None = number(
        None,
        "assumed",
        "longer side of photos as it sees them, pixels; none: theirs, but 20 positions of its grid",
        at_least=32,
    )
    classifier_crop: int = number(512, "assumed", "longest side of training crops", at_least=32)
    classifier_scale: tuple[float, float] = number(
        (0.7, 1.4),
        "assumed",
        "range of a random factor on the size of crops",
        above=0,
    )
    classifier_hidden: float = number(
        0.5,
        "Singh and Lee 2017",
        "fraction of crops in which random cells are hidden",
        at_least=0,
        at_most=1,
    )
    classifier_top: float = number(
        0.1,
        "Durand et al. 2016",
        "fraction of positions whose mean is half of a class's score",
        above=0,
        at_most=1,
    )
    classifier_iterations: int | None = number(
        None, "assumed", "none: by the photos and classes", above=0
    )
    classifier_batch_size: int | None = number(
        None, "assumed", "crops; none: 8, down to 4 where they are larger than 256 x 256", above=0
    )
    classifier_learning_rate: float = number(1e-3, "assumed", "of AdamW, new layers", above=0)
    classifier_backbone_factor: float = number(
        0.2, "assumed", "on that, for pre-trained layers", at_least=0
    )

    def check(self) -> None:
        """The range of sizes is one."""
        check_range("classifier_scale", self.classifier_scale)


@dataclass(frozen=True)
class EvidenceSettings(CamSettings):
    """What says where classes are, and where anything is."""

    cam_scales: tuple[float, ...] = number(
        (1.0, 1.5),
        "assumed",
        "factors on the size at which the classifier sees photos, averaged over",
        above=0,
    )
    class_evidence: str = number(
        "auto",
        "assumed",
        "where classes are, by all of: cam, layer_cam, gradients, dcsm, with + between; auto: "
        "cam+layer_cam, cam on a transformer",
    )
    objects: str = number(
        "auto",
        "assumed",
        "what stands out, by any of: barrier, drfi, activations, given, with + between; none; "
        "auto: what is given, barrier and drfi",
    )

    def check(self) -> None:
        """Kinds and sources exist."""
        if self.class_evidence != "auto":
            _named("class_evidence", self.class_evidence, CLASS_EVIDENCE, "auto or ")
        if self.objects not in ("auto", "none"):
            _named("objects", self.objects, SOURCES, "auto, none or ")

    def evidence_kinds(self, *, on_transformer: bool) -> tuple[str, ...]:
        """Kinds of class evidence, in order; a transformer has one grid, and no earlier maps."""
        if self.class_evidence == "auto":
            return ("cam",) if on_transformer else ("cam", "layer_cam")
        return _named("class_evidence", self.class_evidence, CLASS_EVIDENCE)


CLASS_EVIDENCE = ("cam", "layer_cam", "gradients", "dcsm")
SOURCES = ("barrier", "drfi", "activations", "given")
EDGES = ("crf", "superpixels", "crisp", "grabcut")


def _named(field: str, value: str, known: tuple[str, ...], also: str = "") -> tuple[str, ...]:
    """What ``value`` names, with + between, each once; ConfigError for what is not known."""
    names = tuple(dict.fromkeys(value.split("+")))
    for name in names:
        if name not in known:
            raise ConfigError(f"{field} has {name!r}", do=f"use {also}{', '.join(known)}")
    return names


@dataclass(frozen=True)
class FusionSettings(Settings):
    """How labels are made of the evidence, and how often."""

    fusion_thresholds: tuple[float, ...] = number(
        (0.3, 0.4, 0.5, 0.6),
        "assumed",
        "evidence from which on a class wins over the background",
        above=0,
        below=1,
    )
    fusion_edges: str = number(
        "crf",
        "assumed",
        "how labels follow the photo's edges, each a way of its own: crf; superpixels, crisp: the "
        "mean over such a region; grabcut; with + between",
    )
    fusion_tie: float = number(
        0.3,
        "assumed",
        "fraction by which less may speak for a way than for the first if it is to have a vote",
        at_least=0,
        at_most=1,
    )
    fusion_agreement: float = number(
        0.9,
        "assumed",
        "fraction of votes under which nothing is taught of a pixel",
        at_least=0,
        at_most=1,
    )
    judged_photos: int = number(
        80, "assumed", "photos, evenly spread, by which the judge weighs ways", above=0
    )
    judge_side: int = number(
        224, "assumed", "longer side of photos as the judge sees them, pixels", at_least=32
    )
    answer_confidence: float = number(
        0.7,
        "assumed",
        "probability under which a segmenter's answer teaches the next one nothing",
        at_least=0,
        at_most=1,
    )
    rounds: int = number(
        2,
        "assumed",
        "segmenters that are trained, each on what the one before made better",
        at_least=1,
        at_most=5,
    )

    def check(self) -> None:
        """There is a way to labels."""
        if not self.fusion_thresholds:
            raise ConfigError("fusion_thresholds is empty", do="give one or more, over 0, below 1")
        self.edges()

    def edges(self) -> tuple[str, ...]:
        """Kinds of edges that labels follow, in order."""
        return _named("fusion_edges", self.fusion_edges, EDGES)


@dataclass(frozen=True)
class Config(
    MaskSettings,
    PyramidSettings,
    FusionSettings,
    EvidenceSettings,
    ClassifierSettings,
    SaliencySettings,
):
    """All of them."""

    segmenter: str = number(
        "pyramid", "assumed", "pyramid: with skips, for thin and small things; published: LargeFOV"
    )
    segmenter_unary: Literal["softmax", "log"] = number(
        "log",
        "Chen et al. 2015",
        "of the CRF after the segmenter: softmax of probs, or -log",
    )

    def check(self) -> None:
        """Files of saliency must be there."""
        self.check_saliency()
        nothing = self.saliency == "auto" and self.saliency_source() == "barrier"
        if nothing and "given" in self.object_sources():
            raise ConfigError(
                "objects has 'given', but nothing is given",
                do="give --saliency DIR, --saliency-model FILE or --boxes FILE",
            )

    def object_sources(self) -> tuple[str, ...]:
        """Sources of what stands out, in order."""
        if self.objects == "none":
            return ()
        if self.objects != "auto":
            return _named("objects", self.objects, SOURCES)
        own = ("barrier", "drfi")
        return own if self.saliency_source() in own else ("given", *own)

    def supervision(self) -> str:
        """Of what is given, where it is among the sources."""
        return super().supervision() if "given" in self.object_sources() else ""
