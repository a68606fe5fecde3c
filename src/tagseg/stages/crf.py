"""The dense CRF as configured, and the regions of its higher-order terms (Saleh et al., 3.1.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tagseg.maps import Image, Labels, Probs, ScoreMap
from tagseg.priors import crisp
from tagseg.refine.dense_crf import CrfParameters, refine, softmax_unary
from tagseg.refine.higher_order import HigherOrder
from tagseg.segment.predict import NOTHING, Known
from tagseg.stages.refiners import Refining, register_refiner
from tagseg.stages.settings import CrispForm, RefinementSettings

__all__ = [
    "CRISP",
    "CrfRefiner",
    "RegionFinder",
    "Regions",
    "Smoothing",
    "crf_settings",
    "from_json",
    "smoothed_scores",
]

CRISP = crisp.CrispSettings()  # the authors' speedy preset


_LEAST = 1e-3  # of a seed's probability; certainty would leave the CRF nothing to say


_SEEDS = 1 << 32  # what crisp regions take


Regions: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True)
class RegionFinder:
    """Crisp regions of a photo, int32 (H, W), with the settings that decide on them."""

    threshold: float
    seed: int
    settings: crisp.CrispSettings

    @classmethod
    def of(cls, settings: CrispForm, seed: int) -> RegionFinder:
        """The finder that is configured."""
        return cls(settings.crisp_threshold, seed % _SEEDS, CRISP)

    def __call__(self, image: Image) -> Regions:
        """Regions of one photo (H, W, 3)."""
        return crisp.regions(image, self.threshold, settings=self.settings, seed=self.seed)


@dataclass(frozen=True)
class Smoothing:
    """The dense CRF with or without higher-order terms, for photos of any size.

    Attributes:
        parameters: of the pairwise CRF; its ``reference_side`` holds for the strengths as well.
        strengths: of the higher-order terms, where there are regions.
    """

    parameters: CrfParameters
    strengths: HigherOrder

    @classmethod
    def of(cls, settings: RefinementSettings) -> Smoothing:
        """As configured; raises ConfigError for numbers that the CRF refuses."""
        return cls(
            CrfParameters(
                bilateral=settings.crf_bilateral,
                smoothness=settings.crf_smoothness,
                iterations=settings.crf_iterations,
                reference_side=settings.crf_reference_side,
                filter=settings.crf_filter,
            ),
            HigherOrder(
                weight=settings.crisp_weight,
                gamma_max=settings.crisp_gamma_max,
                area_weight=settings.crisp_area_weight,
            ),
        )

    def __call__(
        self,
        image: Image,
        costs: npt.NDArray[np.float32],
        maps: npt.NDArray[np.float32],
        regions: Regions | None,
    ) -> Probs:
        """Probabilities (L, H, W) from ``costs`` (L, H, W); ``maps`` is P in Eq. 8."""
        return refine(
            image,
            costs,
            self.parameters,
            regions=regions,
            higher_order=self._strengths_at(max(image.shape[:2])),
            maps=maps,
        )

    def labels(self, image: Image, labels: Labels) -> Labels:
        """Labels (H, W) after the pairwise CRF, among those that are there.

        The energy of a label is 0 or -1, as in Oh et al.'s CRF on seeds: they are sure of
        themselves, and the logarithm of 0 and 1 would leave the image no say.
        """
        present = np.unique(labels)
        if len(present) < 2:
            return labels
        costs = -(labels == present[:, None, None]).astype(np.float32)
        return present[refine(image, costs, self.parameters).argmax(0)]

    def _strengths_at(self, side: int) -> HigherOrder:
        """A region that is a given part of its photo costs the same in a smaller photo."""
        reference = self.parameters.reference_side
        if reference is None:
            return self.strengths
        per_pixel = self.strengths.area_weight * (reference / side) ** 2
        return replace(self.strengths, area_weight=per_pixel)


def smoothed_scores(
    image: Image, score_map: ScoreMap, parameters: CrfParameters, *, contrast: float
) -> ScoreMap:
    """Seeds (C, H, W) after a dense CRF, each class divided by its maximum (Oh et al. 2017, 4.2).

    Oh et al. do not say which unary they give it. It is that of Shimoda & Yanai 2016 (3.3, Eq. 6
    and 7), whose maps are gradients too: -log of tanh(contrast M), and of 1 less the highest for
    the background. Without the contrast, which lifts the many small values, the background wins.
    """
    present = np.asarray(score_map.any((1, 2)))
    if not present.any():
        return score_map
    maps = np.tanh(contrast * score_map[present])
    every = np.concatenate((1 - maps.max(0, keepdims=True), maps))
    refined = refine(image, -np.log(every.clip(_LEAST, 1)), parameters)[1:]
    scores = np.zeros_like(score_map)
    peaks = refined.max((1, 2), keepdims=True)
    scores[present] = refined / np.where(peaks > 0, peaks, 1)
    return scores


def from_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Values for a dataclass, as JSON kept them: lists were tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def crf_settings(settings: RefinementSettings, seed: int) -> dict[str, Any]:
    """What decides on the CRF after the segmenter, as JSON data."""
    smoothing = Smoothing.of(settings)
    regions = None
    if settings.segmenter_regions == "crisp":
        regions = {
            **asdict(RegionFinder.of(settings, seed)),
            "strengths": asdict(smoothing.strengths),
        }
    return {**asdict(smoothing.parameters), "unary": settings.segmenter_unary, "regions": regions}


class CrfRefiner:
    """The dense CRF of :func:`crf_settings`, on a segmenter's probabilities.

    Its unary is Eq. 7 of Saleh et al. ("softmax", the softmax of probabilities, costs that differ
    by 1 at most) or -log p ("log"). The log-sum-exp losses drive probabilities to 0 and 1, and
    their logarithm then overrules the image.

    Attributes:
        regions_of: finds the regions of a photo's higher-order terms; None without them.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        values = from_json(settings)
        self._unary, found = values.pop("unary"), values.pop("regions", None)
        self.regions_of: RegionFinder | None = None
        strengths = HigherOrder()
        if found is not None:
            self.regions_of = RegionFinder(
                found["threshold"], found["seed"], crisp.CrispSettings(**found["settings"])
            )
            strengths = HigherOrder(**found["strengths"])
        self._smoothing = Smoothing(CrfParameters(**values), strengths)

    def refine(self, image: Image, probs: Probs, known: Known = NOTHING) -> Probs:
        """Probabilities (L, H, W) that follow the photo (H, W, 3), by its regions if known."""
        costs = softmax_unary(probs) if self._unary == "softmax" else -np.log(probs.clip(1e-8, 1.0))
        regions = known.regions
        if regions is None and self.regions_of is not None:
            regions = self.regions_of(image)
        return self._smoothing(image, costs, probs, regions)


register_refiner("crf", Refining(crf_settings, CrfRefiner))
