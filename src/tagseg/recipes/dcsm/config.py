"""The fields of recipe ``dcsm``, with sections of Shimoda and Yanai."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tagseg.errors import ConfigError
from tagseg.localize.dcsm import DcsmSettings
from tagseg.refine.dense_crf import CrfParameters
from tagseg.stages.settings import (
    BILATERAL,
    KERNELS,
    SMOOTHNESS,
    ClassifierSettings,
    MaskSettings,
    PyramidSettings,
    SegmenterSettings,
    Settings,
    check_blocks,
    check_range,
    number,
)

__all__ = ["Config", "TwoPhaseSettings"]


@dataclass(frozen=True)
class ClassifierFormSettings(Settings):
    """The form of the fully convolutional classifier, and what it is trained on (3.2)."""

    square: int | None = number(
        None,
        "3.2: 500",
        "side of the square that photos are put on; none: the longest photo's",
        at_least=16,
    )
    batch_scale: tuple[float, float] = number(
        (0.7, 1.4),
        "3.2",
        "range of the factor on the size of training batches",
        above=0,
    )
    classifier_flip: bool = number(True, "3.2: false", "mirror every second training photo")
    classifier_jitter: float = number(
        0.1,
        "3.2: 0",
        "random factors on brightness and contrast of training photos, 0.1: 0.9 to 1.1",
        at_least=0,
        below=1,
    )
    classifier_stride: int | None = number(
        None,
        "3.2: 32",
        "of the classifier; none: 32 for vgg16, else as output_stride",
        among=(8, 16, 32),
    )

    def check(self) -> None:
        """The range of sizes is one."""
        check_range("batch_scale", self.batch_scale)


@dataclass(frozen=True)
class TwoPhaseSettings(ClassifierFormSettings, ClassifierSettings):
    """The classifier's training in two phases (4.2)."""

    upper_iterations: int | None = number(
        None, "4.2: 30,000", "of the layers above the backbone; none: by the schedule", above=0
    )
    upper_epochs: float = number(4.0, "assumed", "likewise in passes, short schedule", above=0)


@dataclass(frozen=True)
class MapSettings(Settings):
    """The distinct maps (3.3) and the CRF on them (3.4)."""

    alpha: float = number(3.0, "Eq. 5, Table 1", "contrast of the maps", above=0)
    blocks: tuple[int, ...] = number(
        (3, 4, 5), "4.4, Table 2", "blocks whose feature maps count; 0 is the photo"
    )
    scales: tuple[float, ...] = number(
        (0.8, 1.0, 1.2), "4.4, Table 3", "sizes of the photo, 1 for 500 pixels", above=0
    )
    min_candidates: int = number(
        3, "3.3, Table 4", "classes that are subtracted at the least; 0: nothing", at_least=0
    )
    candidate_threshold: float = number(
        0.5, "3.3", "probability over which a class is there", at_least=0, at_most=1
    )
    method: Literal["guided", "plain", "excitation"] = number(
        "guided", "3.3, Table 5", "back-propagation: guided, plain, excitation"
    )
    normalise: Literal["map", "none"] = number(
        "map", "3.3", "map: tanh(alpha M / max M), as in the figures; none: Eq. 5 to the letter"
    )
    variant: Literal["paper", "code"] = number(
        "paper", "authors' code", "code: each difference of Eq. 4 is normalised by itself"
    )
    map_bilateral: tuple[float, float, float] = number(
        (1.0, 30.0, 10.0),
        "4.2",
        "CRF on the maps: weight, sigma in pixels and in colour levels",
        **BILATERAL,
    )
    map_smoothness: tuple[float, float] = number(
        (1.0, 3.0), "4.2", "its weight, sigma in pixels", **SMOOTHNESS
    )
    map_filter: Literal["fine", "lattice"] = number(
        "lattice", "assumed", "of that CRF; fine is slow with so narrow a kernel on small photos"
    )

    def check(self) -> None:
        """Only blocks that there are, and numbers that the equations take."""
        self.equations()
        check_blocks(self.blocks)

    def equations(self) -> DcsmSettings:
        """The numbers of Eq. 4 and 5."""
        return DcsmSettings(
            self.alpha,
            self.scales,
            self.min_candidates,
            self.candidate_threshold,
            self.normalise,
            self.variant,
        )


@dataclass(frozen=True)
class Config(MaskSettings, PyramidSettings, MapSettings, TwoPhaseSettings):
    """The paper's numbers beside the shared ones."""

    segmenter: str = number(
        "none",
        "3.1",
        "none: photos are segmented by the maps; trained or pyramid: by such a network",
    )
    segmenters: ClassVar[tuple[str, ...]] = ("none", "trained", "pyramid")

    def check(self) -> None:
        """Regions are of a segmenter's CRF."""
        self.check_segmenter()
        if self.segmenter == "none" and self.segmenter_regions != "none":
            raise ConfigError("segmenter_regions needs a segmenter", do="set segmenter=trained")

    def idle(self) -> dict[str, str]:
        """Without a segmenter, all that would train and refine one."""
        found = super().idle()
        if self.segmenter == "none":
            own = (*self.refiners_own(), *KERNELS, *SegmenterSettings.own())
            found |= dict.fromkeys(own, "segmenter=trained")
        return found

    def crf(self) -> CrfParameters:
        """The CRF of Eq. 6 to 8."""
        return CrfParameters(
            bilateral=self.map_bilateral,
            smoothness=self.map_smoothness,
            iterations=self.crf_iterations,
            reference_side=self.crf_reference_side,
            filter=self.map_filter,
        )
