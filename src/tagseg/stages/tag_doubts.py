"""Which tags are probably missing or wrong, and what that leaves to be taught and to be forbidden.

One finding of a run, whatever its recipe: linear probes on the frozen backbone's features, each
asked about photos that it has not seen (:mod:`tagseg.evaluate.wrong_tags`). With tags that are
complete, and none marked ``?``, nothing here has a stage, and all is as if it were not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tagseg.data.masks import encode_mask
from tagseg.data.transforms import factor_to, resize_batch
from tagseg.evaluate.wrong_tags import Errors, Probe, cross_fitted, error_confidence, presence
from tagseg.fuse.doubtful_labels import without_doubtful
from tagseg.localize.cam import normalised_maps
from tagseg.maps import Image, Labels, ScoreMap, label_of_tag
from tagseg.nets.backbone import Backbone
from tagseg.nets.catalog import backbone_kind
from tagseg.run.workspace import Stage
from tagseg.stages.context import Plain, Run
from tagseg.stages.settings import BackboneSettings, Settings, TagSettings
from tagseg.stages.shapes import Seen
from tagseg.stages.stage import (
    Declared,
    Drawn,
    Images,
    LabelMaps,
    Once,
    SaliencyMaps,
    label_maps,
    levels,
    network_input,
    opened,
    per_batch,
    saliency_maps,
)

__all__ = ["Doubts", "allowed_tags", "completed", "sure_labels", "tag_doubts"]

_FEATURES = Declared("tag-features", title="features of the photos")
_DOUBTS = Declared("tag-doubts")
_MISSING = Declared("likely-missing", title="where missing tags would be")
_SURE = "sure-"

_POSITIONS = 20  # of the grid along the longer side
_ERRORS: dict[str, Errors] = {"incomplete": "missing", "noisy": "any"}

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Asked(Plain):
    """What is asked of the tags, and the hash of what is surely absent."""

    tags_are: str
    absent: str


@dataclass(frozen=True)
class _Least(Plain):
    """The confidence from which a tag is in doubt."""

    missing_confidence: float


@dataclass(frozen=True)
class _LeastEvidence(Plain):
    """The same, and the evidence from which background is ignored."""

    missing_confidence: float
    missing_evidence: float


@dataclass(frozen=True, eq=False)
class Doubts:
    """What the probes say of the training photos.

    Attributes:
        confidence: (N, C), how sure it is that what is said of a photo and a class is wrong.
        unsure: (N, C), how likely a class is there of which nobody knows; 0 elsewhere.
        tags: (N, C), those of the photos.
        fold: (N,), which probe has not seen a photo.
        probes: of all folds.
        stage: where all this is from.
    """

    confidence: npt.NDArray[np.float32]
    unsure: npt.NDArray[np.float32]
    tags: Bools
    fold: npt.NDArray[np.intp]
    probes: tuple[Probe, ...]
    stage: Stage

    def missing(self, least: float) -> Bools:
        """Classes (N, C) that are probably in a photo although they are not tagged."""
        return ~self.tags & (np.maximum(self.confidence, self.unsure) >= least)

    def wrong(self, least: float) -> Bools:
        """Classes (N, C) that are tagged and are probably not in the photo."""
        return self.tags & (self.confidence >= least)

    def without(self, added: Bools) -> Doubts:
        """The same where the tags ``added`` (N, C) were missing, and are in doubt no more."""
        sure = np.where(added, np.float32(0), self.confidence)
        return replace(self, tags=self.tags | added, confidence=sure)


def tag_doubts(run: Run, settings: Settings) -> Doubts | None:
    """What is in doubt of the training photos' tags; None where they are complete and known."""
    if run.given is not None:
        doubts = tag_doubts(run.given, settings)
        return None if doubts is None else doubts.without(run.photos.tags & ~doubts.tags)
    unsure = run.photos.dataset.unsure
    if not isinstance(settings, TagSettings) or (not settings.tags_in_doubt and unsure is None):
        return None
    features = _features(run)
    asked = _Asked(settings.tags_are, absent_key(run))
    decided_by = [asked, Drawn(run.setup.execution.seed)]
    with opened(run, _DOUBTS, decided_by, [features]) as stage:
        if stage.pending:
            stage.save_tensors("doubts", _found(run, settings, features))
    tags, shape = run.photos.tags, run.photos.tags.shape
    if stage.planned:
        nothing = np.zeros(shape, np.float32)
        return Doubts(nothing, nothing, tags, np.zeros(shape[0], np.intp), (), stage)
    kept = {name: value.numpy() for name, value in stage.load_tensors("doubts")[0].items()}
    probes = map(Probe, kept["weights"], kept["bias"])
    return Doubts(kept["confidence"], kept["unsure"], tags, kept["fold"], tuple(probes), stage)


def completed(run: Run, settings: Settings) -> Run:
    """The run with the tags added that are surely missing, as if they had been given.

    Those of a confidence of ``completed_confidence`` or more, where tags are incomplete: what
    follows is taught them, and may have masks of them. The same run where that is not wanted.
    """
    if not isinstance(settings, TagSettings) or settings.tags_are != "incomplete":
        return run
    least, doubts = settings.completed_confidence, tag_doubts(run, settings)
    if least is None or doubts is None:
        return run
    added = ~doubts.tags & (doubts.confidence >= least)
    if not doubts.stage.planned:
        photos = np.count_nonzero(added.any(1))
        run.progress.say(
            f"tags: {np.count_nonzero(added)} that are probably missing from {photos} photos are "
            f"taken as given (confidence {least:g} or more); completed_confidence=none leaves them"
        )
    dataset = replace(run.photos.dataset, tags=doubts.tags | added)
    key = f"{run.photos_key} completed from {least:g} by {doubts.stage.key}"
    return replace(
        run,
        photos=run.photos.retold(dataset),
        photos_key=blake2b(key.encode(), digest_size=16).hexdigest(),
        given=run,
    )


def absent_key(run: Run) -> str:
    """Hash of what is surely absent; it is no part of the photos' own, as it may not matter."""
    absent = run.photos.dataset.absent
    if absent is None:
        return "none"
    return blake2b(np.packbits(absent).tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class _Allowed(Plain):
    """What decides on the classes that masks may hold: the least confidence, and the doubts."""

    missing_confidence: float
    doubts: str


def allowed_tags(run: Run, settings: Settings) -> tuple[Bools, list[object]]:
    """Classes (N, C) that a photo's mask may hold: its tags, and those that are probably missing.

    And what decides on them, beside the photos, for a stage's settings: nothing without doubts.
    """
    doubts = tag_doubts(run, settings)
    if doubts is None or not isinstance(settings, TagSettings):
        return run.photos.tags, []
    least = settings.missing_confidence
    return run.photos.tags | doubts.missing(least), [_Allowed(least, doubts.stage.key)]


def sure_labels(run: Run, settings: Settings, labels: LabelMaps) -> LabelMaps:
    """``labels`` without what is in doubt (:func:`tagseg.fuse.without_doubtful`).

    For all label maps of training photos that a network is to learn from. The same where nothing
    is in doubt.
    """
    doubts = tag_doubts(run, settings)
    if doubts is None or not isinstance(settings, TagSettings):
        return labels
    if labels.stage.name.startswith(_SURE):  # which they are already
        return labels
    least, evidence = settings.missing_confidence, settings.missing_evidence
    (missing, stronger), wrong = _missing_maps(run, doubts, least), doubts.wrong(least)

    def make(index: int) -> Labels:
        given = labels(index)
        tags = [label_of_tag(int(tag)) for tag in np.flatnonzero(wrong[index])]
        found, over = missing(index), stronger(index)
        return without_doubtful(given, found, threshold=evidence, stronger=over, wrong=tags)

    return label_maps(
        run,
        Declared(f"{_SURE}{labels.stage.name}"),
        make,
        settings=[_LeastEvidence(least, evidence)],
        inputs=[labels, missing],
    )


# --- the finding --------------------------------------------------------------------------------


def _side(run: Run) -> int:
    """The longer side at which photos are seen, pixels, whatever theirs is."""
    kind = backbone_kind(run.setup.backbone)
    return max(_POSITIONS * kind.usual_stride, kind.native_side)


def _backbone(run: Run) -> Backbone:
    """The pre-trained backbone as it comes, in its usual form."""
    torch.manual_seed(run.setup.execution.seed)
    backbone = run.setup.build_backbone(BackboneSettings())
    return backbone.eval().to(run.setup.execution.device)


def _features(run: Run) -> Stage:
    """Mean and maximum of the backbone's last maps over each training photo."""
    side, backbone = _side(run), Once(lambda: _backbone(run))

    def make(images: Images, indices: list[int]) -> Iterator[dict[str, Any]]:
        with network_input(run.setup.execution, images) as x:
            maps = backbone()(resize_batch(x, factor_to(side, x.shape[2:]))).float()
            pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1).cpu().numpy()
        for row in pooled:
            yield {"features": {"features": row}}

    return per_batch(
        run,
        _FEATURES,
        ["features"],
        make,
        settings=[run.setup.means(), Seen(side)],
    )


def _found(run: Run, settings: TagSettings, features: Stage) -> dict[str, torch.Tensor]:
    dataset, store = run.photos.dataset, features.maps("features")
    rows = np.stack([store.get(name)["features"] for name in dataset.names])
    counted = np.broadcast_to(dataset.known[:, None], dataset.tags.shape).copy()
    if dataset.unsure is not None:
        counted &= ~dataset.unsure
    fitted = cross_fitted(rows, dataset.tags, counted, seed=run.setup.execution.seed)
    if fitted is None or run.setup.weights is None:
        run.progress.say("note: too little is known to say which tags are probably wrong")
        return _nothing(dataset.tags.shape, rows.shape[1])
    asked = counted if dataset.absent is None else counted & ~dataset.absent
    errors = _ERRORS.get(settings.tags_are)
    none = np.zeros(dataset.tags.shape, np.float32)
    confidence, unsure = none, none
    if errors is not None:
        confidence = error_confidence(fitted.probabilities, dataset.tags, asked, errors)
    if dataset.unsure is not None:
        likely = presence(fitted.probabilities, dataset.tags, counted)
        unsure = np.where(dataset.unsure, likely, none)
    return {
        "confidence": torch.from_numpy(confidence),
        "unsure": torch.from_numpy(unsure),
        "fold": torch.from_numpy(fitted.fold),
        "weights": torch.from_numpy(np.stack([p.weights for p in fitted.probes])),
        "bias": torch.from_numpy(np.stack([p.bias for p in fitted.probes])),
    }


def _nothing(shape: tuple[int, ...], width: int) -> dict[str, torch.Tensor]:
    """What is found where nothing can be said."""
    n, c = shape
    return {
        "confidence": torch.zeros(n, c),
        "unsure": torch.zeros(n, c),
        "fold": torch.zeros(n, dtype=torch.int64),
        "weights": torch.zeros(1, c, width, dtype=torch.float64),
        "bias": torch.zeros(1, c, dtype=torch.float64),
    }


# --- where what is missing would be -------------------------------------------------------------


def _missing_maps(run: Run, doubts: Doubts, least: float) -> tuple[SaliencyMaps, SaliencyMaps]:
    """Evidence (h, w) of the photos for the classes that are probably there although not tagged.

    The class activation maps of the probe that has not seen the photo (Zhou et al. 2016), of each
    class divided by its maximum; the strongest of them. And the same where it is more than that
    for any class that is tagged, 0 elsewhere.
    """
    missing, backbone, side = doubts.missing(least), Once(lambda: _backbone(run)), _side(run)

    def make(images: Images, indices: list[int]) -> Iterator[dict[str, bytes]]:
        for image, index in zip(images, indices, strict=True):
            evidence = stronger = np.zeros(image.shape[:2], np.float32)
            if missing[index].any():
                scores = _scores(run, backbone(), side, doubts, index, image)
                evidence = scores[missing[index]].max(0)
                tagged = scores[doubts.tags[index]].max(0, initial=0)
                stronger = np.where(evidence > tagged, evidence, np.float32(0))
            kept = {"missing": evidence, "stronger": stronger}
            yield {name: encode_mask(levels(found)) for name, found in kept.items()}

    stage = per_batch(
        run,
        _MISSING,
        ["missing", "stronger"],
        make,
        settings=[run.setup.means(), Seen(side), _Least(least)],
        inputs=[doubts],
    )
    return saliency_maps(run, stage, "train", "missing"), saliency_maps(
        run, stage, "train", "stronger"
    )


def _scores(
    run: Run, backbone: Backbone, side: int, doubts: Doubts, index: int, image: Image
) -> ScoreMap:
    """Class activation maps (C, h, w) of a photo, by the probe that has not seen it."""
    with network_input(run.setup.execution, image[None]) as x:
        x = resize_batch(x, factor_to(side, x.shape[2:]))
        found = backbone(x)
    evidence = _evidence(doubts.probes[doubts.fold[index]], found.float())
    shape, seen = (image.shape[0], image.shape[1]), (int(x.shape[2]), int(x.shape[3]))
    every = np.ones(len(evidence), bool)
    return normalised_maps(evidence, every, shape, stride=backbone.grid_stride, seen=seen)


def _evidence(probe: Probe, maps: torch.Tensor) -> npt.NDArray[np.float32]:
    """A probe of means and maxima at each position of maps (1, D, h, w): (C, h, w)."""
    of_means, of_maxima = np.split(probe.weights, 2, axis=1)
    weights = torch.from_numpy(of_means + of_maxima).to(maps)
    return torch.einsum("cd,dhw->chw", weights, maps[0]).cpu().numpy()
