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
from tagseg.segment.predict import Refine
from tagseg.stages.config import TrainingConfig

__all__ = [
    "CRISP",
    "RegionFinder",
    "Regions",
    "Smoothing",
    "crf_refinement",
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
    def of(cls, config: TrainingConfig, seed: int) -> RegionFinder:
        """As configured."""
        return cls(config.crisp_threshold, seed % _SEEDS, CRISP)

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
    def of(cls, config: TrainingConfig) -> Smoothing:
        """As configured; raises ConfigError for numbers that the CRF refuses."""
        return cls(
            CrfParameters(
                bilateral=config.crf_bilateral,
                smoothness=config.crf_smoothness,
                iterations=config.crf_iterations,
                reference_side=config.crf_reference_side,
                filter=config.crf_filter,
            ),
            HigherOrder(
                weight=config.crisp_weight,
                gamma_max=config.crisp_gamma_max,
                area_weight=config.crisp_area_weight,
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


def crf_settings(config: TrainingConfig, seed: int) -> dict[str, Any] | None:
    """What decides on the CRF after the segmenter, as JSON data; None for no CRF."""
    if not config.segmenter_crf:
        return None
    smoothing = Smoothing.of(config)
    regions = None
    if config.segmenter_regions == "crisp":
        regions = {
            **asdict(RegionFinder.of(config, seed)),
            "strengths": asdict(smoothing.strengths),
        }
    return {**asdict(smoothing.parameters), "unary": config.segmenter_unary, "regions": regions}


def crf_refinement(settings: Mapping[str, Any]) -> Refine:
    """The dense CRF of :func:`crf_settings`, on a segmenter's probabilities.

    Its unary is Eq. 7 of Saleh et al. ("softmax", the softmax of probabilities, costs that differ
    by 1 at most) or -log p ("log"). The log-sum-exp losses drive probabilities to 0 and 1, and
    their logarithm then overrules the image.
    """
    values = from_json(settings)
    unary, found = values.pop("unary"), values.pop("regions", None)
    finder, strengths = None, HigherOrder()
    if found is not None:
        finder = RegionFinder(
            found["threshold"], found["seed"], crisp.CrispSettings(**found["settings"])
        )
        strengths = HigherOrder(**found["strengths"])
    smoothing = Smoothing(CrfParameters(**values), strengths)

    def smooth(image: Image, probs: Probs, regions: Regions | None = None) -> Probs:
        costs = softmax_unary(probs) if unary == "softmax" else -np.log(probs.clip(1e-8, 1.0))
        if regions is None and finder is not None:
            regions = finder(image)
        return smoothing(image, costs, probs, regions)

    return smooth
