"""Labels that a segmenter can learn from: several ways to make them, and what the best agree on.

Which ways have a vote is decided once for the whole set: the judge's errors average out over photos
only. Where they disagree the segmenter is told nothing (docs/union.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from tagseg.data.masks import encode_mask
from tagseg.fuse.union import Joining, agreed_labels, fused_probabilities, joined_maps
from tagseg.maps import BACKGROUND, IGNORE, Labels, Probs, ScoreMap, labels_of_tags
from tagseg.recipes.union.config import Config
from tagseg.recipes.union.court import Court
from tagseg.recipes.union.edges import edges_of
from tagseg.segment.predict import Segmenter
from tagseg.stages.context import Plain, Run
from tagseg.stages.refiners import Refinement
from tagseg.stages.saliency import PhotoSaliency
from tagseg.stages.stage import (
    Declared,
    Images,
    LabelMaps,
    Once,
    SaliencyMaps,
    ScoreMaps,
    Trained,
    label_maps,
    per_batch,
)
from tagseg.stages.tag_doubts import allowed_tags

__all__ = ["Evidence", "Way", "first_labels", "later_labels", "object_sources", "voters", "ways_of"]

_LABELS = Declared("union-labels")
_ANSWERS = Declared("union-answers", title="what the segmenter says of its photos")

_JOININGS: tuple[Joining, ...] = ("mean", "product")
_LOWER = 0.6  # of a threshold for products, which are smaller than means


@dataclass(frozen=True)
class Way:
    """A way to labels.

    Attributes:
        source: of what stands out, None for class maps alone.
        joining: how it is joined with these.
        threshold: evidence from which on a class wins over the background.
        edges: how labels follow the photo's edges.
    """

    source: str | None
    joining: Joining
    threshold: float
    edges: str = "crf"

    @property
    def name(self) -> str:
        """As the judge's verdict names it."""
        what = "tags alone" if self.source is None else f"tags and {self.source} ({self.joining})"
        along = "" if self.edges == "crf" else f", along {self.edges}"
        return f"{what} from {self.threshold:g}{along}"


def object_sources(run: Run, config: Config) -> dict[str, PhotoSaliency]:
    """What says where anything is, by name; raises TagsegError where a file does not fit."""
    found = {}
    for name in config.object_sources():
        given = name in ("given", config.saliency_source())
        own = config if given else config.by_photos_alone(name)
        found[name] = PhotoSaliency(run, own, prefix=f"{name}-")
    return found


def ways_of(config: Config, sources: Sequence[str]) -> list[Way]:
    """All ways: for each kind of edges first those of class maps alone."""
    thresholds = config.fusion_thresholds
    found = []
    for edges in config.edges():
        found += [Way(None, "mean", threshold, edges) for threshold in thresholds]
        found += [
            Way(source, joining, threshold * (1.0 if joining == "mean" else _LOWER), edges)
            for source in sources
            for joining in _JOININGS
            for threshold in thresholds
        ]
    return found


def voters(ways: Sequence[Way]) -> list[Way]:
    """Of each source, joining and edges the ways of the lowest and the highest threshold, in order.

    What they agree on those between them agree on too, nearly always, and so no source has more
    votes for having more thresholds.
    """
    kinds: dict[Way, list[Way]] = {}
    for way in sorted(ways, key=lambda way: way.threshold):
        kinds.setdefault(replace(way, threshold=0.0), []).append(way)
    ends = {way for kind in kinds.values() for way in (kind[0], kind[-1])}
    return [way for way in ways if way in ends]


class Evidence:
    """What is known of where classes are, and labels made of it.

    Args:
        seen: score maps of the photos' tags, from one or more layers.

    Attributes:
        sources: what stands out, by source.
        made_from: all of it, and the regions along which labels are made.
        decided_by: settings that decide on how labels follow edges.
    """

    def __init__(
        self,
        run: Run,
        config: Config,
        seen: Sequence[ScoreMaps],
        sources: Mapping[str, SaliencyMaps],
    ) -> None:
        self._run, self._seen, self.sources = run, seen, sources
        self._edges = edges_of(run, config)
        kinds = self._edges.values()
        self.made_from = [*seen, *sources.values(), *(one for kind in kinds for one in kind.inputs)]
        self.decided_by = [one for kind in kinds for one in kind.decided_by]

    def seen(self, index: int) -> ScoreMap:
        """Where the photo's T tags are seen (T, h, w), by all layers together."""
        tags = self._run.photos.tags[index]
        return joined_maps([maps(index)[tags] for maps in self._seen])

    def probabilities(self, index: int, ways: Sequence[Way]) -> Iterator[Probs]:
        """Of the background and the photo's T classes (T + 1, h, w), along its edges, by each way.

        Maps of the photo are read once for all.
        """
        photos = self._run.photos
        image, seen = photos.image(index), self.seen(index)
        named = {way.source for way in ways if way.source}
        salient = {source: self.sources[source](index) for source in named}
        for way in ways:
            objects = salient[way.source] if way.source else None
            probs = fused_probabilities(seen, objects, threshold=way.threshold, joining=way.joining)
            yield self._edges[way.edges].follow(index, image, probs)

    def candidates(self, index: int, ways: Sequence[Way]) -> list[Labels]:
        """Labels (h, w) by each way: of no class where tags say so, unknown without tags."""
        photos = self._run.photos
        tags = photos.tags[index]
        if not tags.any():
            nothing = BACKGROUND if photos.dataset.known[index] else IGNORE
            return [np.full(photos.image(index).shape[:2], nothing, np.uint8)] * len(ways)
        names = labels_of_tags(tags).astype(np.uint8)
        return [names[probs.argmax(0)] for probs in self.probabilities(index, ways)]

    def agreed(self, index: int, ways: Sequence[Way], least: float) -> Labels:
        """Labels (h, w) on which the fraction ``least`` of the ways agree, 255 elsewhere."""
        tags = self._run.photos.tags[index]
        if not tags.any():
            return self.candidates(index, ways[:1])[0]
        votes = reduce(np.add, self.probabilities(index, ways)) / np.float32(len(ways))
        labels = agreed_labels(votes, least=least)
        names = labels_of_tags(tags).astype(np.uint8)
        unknown = labels == IGNORE
        return np.where(unknown, labels, names[np.where(unknown, 0, labels)])


def first_labels(run: Run, config: Config, evidence: Evidence, court: Court) -> LabelMaps:
    """What those ways agree on for which about as much speaks as for the first."""
    ways = ways_of(config, tuple(evidence.sources))
    verdict = court.choose(
        lambda index: evidence.candidates(index, ways),
        [way.name for way in ways],
        evidence.made_from,
        1,
        settings=evidence.decided_by,
    )
    near = voters([ways[place] for place in verdict.near(config.fusion_tie)])
    least = config.fusion_agreement
    if not verdict.stage.planned:
        run.progress.say(f"{len(near)} of the ways have a vote, and {least:.0%} must agree")
    return label_maps(
        run,
        _LABELS,
        lambda index: evidence.agreed(index, near, least),
        settings=[*evidence.decided_by, _Agreement(config.fusion_tie, least)],
        inputs=[*evidence.made_from, verdict],
    )


def later_labels(
    run: Run,
    config: Config,
    before: LabelMaps,
    segmenter: Trained[Segmenter],
    court: Court,
    number: int,
) -> LabelMaps:
    """The segmenter's answers of known tags, or the labels of before if those have lost too much.

    Where an answer is not sure, the next segmenter is told nothing, nor of photos of unknown tags.
    Where none at all is sure, the labels of before stay.
    """
    answers, sure = _answers(run, config, segmenter, number)
    verdict = court.choose(
        lambda index: [before(index), answers(index)],
        ["the labels of before", "the segmenter's answers"],
        [before, answers],
        number,
        favourite=1,
    )
    best, photos = (before, sure)[verdict.best], run.photos

    @Once
    def teaching() -> LabelMaps:
        some = any((best(index) != IGNORE).any() for index in range(len(photos)))
        return best if some else before

    return label_maps(
        run,
        _LABELS.round(number),
        lambda index: teaching()(index),
        inputs=[before, answers, verdict],
    )


def _answers(
    run: Run, config: Config, segmenter: Trained[Segmenter], number: int
) -> tuple[LabelMaps, LabelMaps]:
    """Likeliest labels among those of the tags, and the same where they are sure, 255 elsewhere."""
    photos, least = run.photos, config.answer_confidence
    allowed, allowed_by = allowed_tags(run, config)

    def make(images: Images, indices: list[int]) -> Iterator[dict[str, bytes]]:
        for index, probs in zip(indices, segmenter.model.forward(images), strict=True):
            known = photos.dataset.known[index]
            labels = labels_of_tags(allowed[index]) if known else np.arange(len(probs))
            among = probs[labels] / probs[labels].sum(0).clip(1e-12)
            answer = labels.astype(np.uint8)[among.argmax(0)]
            unsure = (among.max(0) < least) | (not known)
            yield {
                "answers": encode_mask(answer),
                "sure": encode_mask(np.where(unsure, np.uint8(IGNORE), answer)),
            }

    stage = per_batch(
        run,
        _ANSWERS.round(number),
        ["answers", "sure"],
        make,
        settings=[Refinement(segmenter.model.decided_by), _Least(least), *allowed_by],
        inputs=[segmenter],
    )
    return (
        LabelMaps(stage, "answers", photos.names),
        LabelMaps(stage, "sure", photos.names),
    )


@dataclass(frozen=True)
class _Agreement(Plain):
    """Which ways have a vote, and how many must agree."""

    fusion_tie: float
    fusion_agreement: float


@dataclass(frozen=True)
class _Least(Plain):
    """Probability of an answer that is sure."""

    answer_confidence: float
