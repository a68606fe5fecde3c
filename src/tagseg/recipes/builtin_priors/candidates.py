"""Masks of a photo from which a person picks the best: CheckMask (Saleh et al., 4.3).

The paper compares with it and refers to the authors' earlier work for how candidates are made. Here
each candidate is the training mask with one thing changed that decides on what it covers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tagseg.data.masks import encode_mask
from tagseg.fuse.builtin_masks import labels_from_maps
from tagseg.maps import Labels
from tagseg.recipes.builtin_priors.config import CandidateSettings, Config
from tagseg.recipes.builtin_priors.masks import Evidence
from tagseg.refine.dense_crf import softmax_unary
from tagseg.stages.context import Run
from tagseg.stages.crf import Regions, Smoothing
from tagseg.stages.outcome import Prediction
from tagseg.stages.priors import BLOCKS, activation_prior, photo_regions
from tagseg.stages.settings import CrfSettings, CrispStrengths
from tagseg.stages.stage import Declared, Input, LabelMaps, per_photo

__all__ = ["Way", "candidate_masks", "mask_by", "stronger", "ways_of"]

_CANDIDATES = Declared("candidates")


@dataclass(frozen=True)
class Way:
    """How one candidate is made.

    Attributes:
        id: of its prediction, and of the store that keeps it.
        title: as people read it.
        evidence: the maps that it is made from.
        background: factor on the background's map.
        crf: factor on the weights of the CRF; 0 for none.
    """

    id: str
    title: str
    evidence: Evidence
    background: float = 1.0
    crf: float = 1.0


def candidate_masks(run: Run, config: Config, evidence: Evidence) -> tuple[Prediction, ...]:
    """One mask of each training photo by each way, as predictions that a person can pick from."""
    ways = list(ways_of(run, config, evidence))
    smoothing = Smoothing.of(config)
    inputs: list[Input] = list(evidence.inputs)
    settings: list[object] = [config.only(CandidateSettings), config.only(CrfSettings)]
    regions_of = None
    if config.mask_crf and config.mask_regions == "crisp":
        regions_of = photo_regions(run, config)
        inputs.append(regions_of)
        settings.append(config.only(CrispStrengths))

    def make(index: int) -> dict[str, bytes]:
        regions = regions_of(index) if regions_of is not None else None
        return {way.id: encode_mask(mask_by(way, smoothing, regions, index)) for way in ways}

    stage = per_photo(
        run,
        _CANDIDATES,
        [way.id for way in ways],
        make,
        settings=[*settings, _With(config.mask_crf)],
        inputs=inputs,
    )
    by_class, names = config.masks != "foreground", run.photos.names
    return tuple(
        Prediction.of(
            f"candidate-{way.id}",
            f"candidate: {way.title}",
            "train",
            LabelMaps(stage, way.id, names),
            by_class=by_class,
        )
        for way in ways
    )


@dataclass(frozen=True)
class _With:
    """Whether the CRF smooths candidates, as it does the training masks."""

    mask_crf: bool


def ways_of(run: Run, config: Config, evidence: Evidence) -> Iterator[Way]:
    """All ways that are configured, in the order in which they are offered."""
    usual = 1.0 if config.mask_crf else 0.0
    if config.masks == "both":
        for alpha in config.candidate_alphas:
            changed = evidence.changed(alpha=alpha)
            yield Way(f"alpha-{alpha:g}", f"alpha {alpha:g}", changed, crf=usual)
    if config.masks in ("foreground", "both") and config.candidate_blocks == "each":
        for block in BLOCKS:
            prior = activation_prior(run, config, saturate=config.prior_saturate, blocks=(block,))
            changed = evidence.changed(foreground_of=prior)
            yield Way(block, f"foreground of {block} alone", changed, crf=usual)
    for factor in config.candidate_backgrounds:
        title = f"background times {factor:g}"
        yield Way(f"background-{factor:g}", title, evidence, background=factor, crf=usual)
    for factor in config.candidate_crfs if config.mask_crf else ():
        title = f"CRF times {factor:g}" if factor else "without CRF"
        yield Way(f"crf-{factor:g}", title, evidence, crf=factor)


def mask_by(way: Way, smoothing: Smoothing, regions: Regions | None, index: int) -> Labels:
    """The mask (h, w) of a photo by one way (3.1.2 and 3.1.3)."""
    maps, labels = way.evidence.maps(index)
    weights = np.ones(len(labels), np.float32)
    weights[0] = way.background
    maps = np.minimum(maps * weights[:, None, None], 1)  # P of Eq. 8 is no more
    if way.crf and len(labels) > 1:
        image = way.evidence.photos.image(index)
        maps = stronger(smoothing, way.crf)(image, softmax_unary(maps), maps, regions)
    return labels_from_maps(maps, labels)


def stronger(smoothing: Smoothing, factor: float) -> Smoothing:
    """The CRF with ``factor`` on the weights of its kernels and of its higher-order terms."""
    own, strengths = smoothing.parameters, smoothing.strengths
    return replace(
        smoothing,
        parameters=replace(
            own,
            bilateral=own.bilateral and (factor * own.bilateral[0], *own.bilateral[1:]),
            smoothness=own.smoothness and (factor * own.smoothness[0], *own.smoothness[1:]),
        ),
        strengths=replace(
            strengths,
            weight=factor * strengths.weight,
            area_weight=factor * strengths.area_weight,
        ),
    )
