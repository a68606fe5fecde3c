"""CheckMask in the tables of Saleh et al. 2017 (4.3, Table 3): a person picks among masks.

Here nobody looks: the pick is simulated from ground truth, and every table says so. It becomes a
review file, which is read and taught as that of a person is by ``tagseg train --review``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

from tagseg.data.masks import encode_mask
from tagseg.data.working import labels_at
from tagseg.errors import MaskError
from tagseg.evaluate.picking import best_mask
from tagseg.formats.review import Accepted, act_line, head_line
from tagseg.maps import Labels
from tagseg.recipes.builtin_priors.candidates import candidate_masks
from tagseg.recipes.builtin_priors.config import Config
from tagseg.recipes.builtin_priors.masks import Evidence, training_masks
from tagseg.recipes.builtin_priors.recipe import segmenter_from
from tagseg.run.workspace import Stage
from tagseg.session.photo_trust import agreement
from tagseg.session.reviewing import ReviewSource, open_review
from tagseg.session.scoring import key_of_truth
from tagseg.session.seed_scoring import truth_at_work
from tagseg.stages.context import Run
from tagseg.stages.outcome import Prediction
from tagseg.stages.review import Review, ReviewSettings
from tagseg.stages.reviewed import reviewed_labels
from tagseg.stages.rounds import working_masks
from tagseg.stages.segmenter import predicted
from tagseg.stages.stage import Declared, Input, LabelMaps, found, opened
from tagseg.stages.tag_doubts import sure_labels
from tagseg.tables.base import Context, Row, Table

__all__ = ["CHECKED", "FRACTIONS", "ORDERS", "segmentation", "table_3", "table_of_looks"]

CHECKED: Mapping[str, Any] = {
    "masks": "both",
    "mask_crf": True,
    "mask_regions": "crisp",
    "refiner": "crf",
    "field_of_view": "large",
    "candidates": True,
}
"""The paper's best row, multi-class masks, and candidates for a person to pick from."""

FRACTIONS = (0.0, 0.2, 0.5, 1.0)
"""Parts of the training photos that are looked at."""

ORDERS: Mapping[str, str] = {"random": "random order", "doubt": "least trusted first"}

_TRUST = Declared("photo-trust")
_PICKS = Declared("simulated-picks")
_REVIEW = Declared("simulated-review")
_FILE = "review.jsonl"
_AT = datetime(1970, 1, 1, tzinfo=UTC)  # nobody picked at any time
_BASE = Row("checkmask", "CheckMask: masks to pick from", CHECKED, None)

_SIMULATED = (
    "CheckMask here: the pick is SIMULATED FROM GROUND TRUTH, nobody looked at a photo: of its "
    "masks the one with the highest mean IoU over the photo's labels"
)


class _Base(NamedTuple):
    """What does not depend on how many photos are looked at.

    Attributes:
        picks: place of its best mask among the offered ones, of each photo that can be looked at.
        orders: these photos in each order of :data:`ORDERS`.
    """

    picks: Mapping[int, int]
    orders: Mapping[str, Sequence[int]]


class _Looked(NamedTuple):
    """What came of looking at some photos.

    Attributes:
        segmented: mIoU of the validation photos before and after the CRF.
        taught: mIoU of the training labels.
        looked, photos: how many photos were looked at, and how many there are.
        masks: titles of the masks to pick from.
    """

    segmented: tuple[float | None, float | None]
    taught: float | None
    looked: int
    photos: int
    masks: Sequence[str]


def table_3(context: Context[Config]) -> Table:
    """The row of CheckMask in Table 3, and that without it."""
    base = _base(context)
    without, checked = _looked_at(context, base, 0.0), _looked_at(context, base, 1.0)
    return Table(
        "3",
        "Table 3, two of its rows: tags alone, and a person who picks masks, mean IoU",
        ("Methods", "paper, VOC 2012 val", "paper, VOC 2012 test", "ours without CRF", "ours"),
        (
            ("Ours (multi-class masks)+CRF", 50.9, 52.6, *without.segmented),
            ("CheckMask procedure+CRF (ours: simulated)", 51.5, 52.9, *checked.segmented),
        ),
        (
            f"{_SIMULATED}; {_offered(checked)}",
            f"ours: of the validation photos; masks of {checked.looked} of {checked.photos} "
            "training photos were picked, the others have no tags, or no ground truth to "
            "simulate with",
            "the paper's row is that of its reference [36], and it does not say how candidates "
            "were made; ours differ from the training mask in one thing each "
            "(docs/builtin_priors.md)",
        ),
    )


def table_of_looks(context: Context[Config]) -> Table:
    """MIoU against the number of photos looked at, in random order and the least trusted first."""
    base = _base(context)
    rows: list[tuple[str | float | None, ...]] = []
    some = {
        (fraction, order): _looked_at(context, base, fraction, order)
        for fraction in FRACTIONS
        for order in (ORDERS if 0 < fraction < 1 else ("",))  # none or all are in any order
    }
    for fraction in FRACTIONS:
        of = [some.get((fraction, order)) or some[fraction, ""] for order in ORDERS]
        label = f"{100 * fraction:g} % ({of[0].looked} photos)"
        rows.append((label, *(each.segmented[1] for each in of), *(each.taught for each in of)))
    return Table(
        "checkmask",
        "CheckMask: mean IoU against the part of the training photos that is looked at",
        (
            "Looked at",
            *(f"segmenter, {title}" for title in ORDERS.values()),
            *(f"training labels, {title}" for title in ORDERS.values()),
        ),
        tuple(rows),
        (
            f"{_SIMULATED}; {_offered(some[1.0, ''])}",
            "segmenter: of the validation photos, with the CRF; training labels: of the training "
            "photos with ground truth, picked ones among them",
            "least trusted first: by how far the mask of the segmenter that nobody helped agrees "
            "with the training mask and the candidates (IoU, of the photo's classes the least), "
            "as tagseg review orders photos; it needs no ground truth",
            "photos that are looked at, and those of no class, are drawn "
            f"{ReviewSettings().review_weight} times as often as others in training",
        ),
    )


def segmentation(run: Run, config: Config) -> dict[str, Prediction]:
    """The validation photos as the segmenter of this Config has them, and after its CRF."""
    segmenter = segmenter_from(run, config, _masks(run, config))
    of_val = predicted(run, segmenter.model, segmenter)
    found = {"raw": of_val.raw, "smooth": of_val.best}
    return {name: Prediction.of(name, name, "val", of) for name, of in found.items()}


def _masks(run: Run, config: Config) -> LabelMaps:
    return training_masks(run, config, Evidence(run, config))[0]


def _looked_at(context: Context[Config], base: _Base, fraction: float, order: str = "") -> _Looked:
    """The segmenter after ``fraction`` of the photos were looked at, in an order if it matters."""
    ranked = base.orders[order or "random"]
    chosen = ranked[: round(fraction * len(ranked))]
    part = f"{100 * fraction:g}"
    name = "-".join(filter(None, ("checkmask", order, part)))
    label = f"CheckMask, {part} % of the photos looked at {ORDERS.get(order, '')}".rstrip()
    with context.variant(Row(name, label, CHECKED, None)) as (run, config):
        offered = _offers(run, config)
        if chosen:
            review = _simulated_review(context, run, offered, {i: base.picks[i] for i in chosen})
            run = replace(run, review=review)
        labels = reviewed_labels(run, sure_labels(run, config, _masks(run, config)))
        taught = Prediction.of("taught", "taught", "train", labels)
        scores = context.scores(run, {**segmentation(run, config), "taught": taught})
    segmented = (scores["raw"].miou, scores["smooth"].miou)
    titles = [prediction.title for prediction in offered]
    return _Looked(segmented, scores["taught"].miou, len(chosen), len(run.photos), titles)


def _offers(run: Run, config: Config) -> list[Prediction]:
    """What there is to pick from: the training mask, which comes first, and the candidates."""
    evidence = Evidence(run, config)
    masks, _ = training_masks(run, config, evidence)
    own = Prediction.of("training-masks", "training mask", "train", masks)
    return [own, *candidate_masks(run, config, evidence)]


def _base(context: Context[Config]) -> _Base:
    """Picks, by ground truth, and orders, without it.

    Raises:
        MaskError: no training photo has tags and ground truth.
    """
    photos = context.data.photos
    tagged = np.flatnonzero(photos.dataset.known & photos.tags.any(1)).tolist()
    able = [index for index in tagged if context.truth.has(photos.names[index])]
    if not able:
        raise MaskError(
            "picks are simulated from ground truth of training photos, and none has any",
            do="give it, or choose other tables with --only",
        )
    with context.variant(_BASE) as (run, config):
        offered = _offers(run, config)
        picks = _picks(context, run, offered, able)
        trust = _trust(run, config, offered)
    shuffled = np.random.default_rng([context.options.seed, len(able)]).permutation(able)
    doubtful = sorted(able, key=lambda index: trust[index])  # stable: by number where equal
    return _Base(picks, {"random": shuffled.tolist(), "doubt": doubtful})


def _picks(
    context: Context[Config], run: Run, offered: Sequence[Prediction], able: Sequence[int]
) -> dict[int, int]:
    """The place of the best mask of each of the photos ``able``."""
    photos, truth = run.photos, context.truth

    def compute() -> list[int]:
        picked = []
        with run.task("simulating picks", len(able)) as ticks:
            for index in able:
                masks = [prediction.labels(index) for prediction in offered]
                of_photo = truth_at_work(photos, truth, index)
                picked.append(best_mask(masks, of_photo, len(photos.classes)))
                ticks.advance(1)
        return picked

    inputs = [*_stages(offered), key_of_truth(truth)]
    planned: list[int] = []
    picked = found(run, _PICKS, compute, planned=planned, inputs=inputs).value
    return dict(zip(able, picked, strict=True))


def _trust(run: Run, config: Config, offered: Sequence[Prediction]) -> list[float]:
    """How far each photo's mask can be trusted, 0 to 1, by what the run itself has found."""
    photos = run.photos
    segmenter = segmenter_from(run, config, _masks(run, config))
    final = working_masks(run, config, segmenter, 1)

    def compute() -> list[float]:
        maps: list[Callable[[int], Labels]] = [final, *(each.labels for each in offered)]
        return [agreement([m(i) for m in maps], photos.tags[i]) for i in range(len(photos))]

    planned: list[float] = []
    inputs = [final, *_stages(offered)]
    return found(run, _TRUST, compute, planned=planned, inputs=inputs).value


def _stages(offered: Sequence[Prediction]) -> list[Input]:
    return list(dict.fromkeys(prediction.stage for prediction in offered))


def _simulated_review(
    context: Context[Config], run: Run, offered: Sequence[Prediction], picks: Mapping[int, int]
) -> Review:
    """The picks as a review file in a stage, read and checked as that of a person."""
    photos, progress = run.photos, context.progress
    told = "".join(f"{photos.names[i]}\0{place}\n" for i, place in picks.items())
    key = sha256(told.encode()).hexdigest()
    with opened(run, _REVIEW, inputs=[*_stages(offered), key]) as stage:
        if stage.pending:
            lines = [head_line("simulated from ground truth", photos.classes)]
            for number, (index, place) in enumerate(picks.items(), 1):
                mask = labels_at(offered[place].labels(index), photos.full_shape(index))
                name = photos.names[index]
                lines.append(_picked(stage, number, mask, name, offered[place].id))
            stage.save_bytes(_FILE, b"".join(lines))
    source = ReviewSource(stage.read_path(_FILE))
    return open_review(source, photos.dataset, (), progress).of(
        photos, progress, context.setup.threads
    )


def _picked(stage: Stage, number: int, mask: Labels, photo: str, candidate: str) -> bytes:
    """The line of a pick; its mask is in the stage then."""
    data, name = encode_mask(mask), f"masks/{number}.png"
    stage.save_bytes(name, data)
    digest = sha256(data).hexdigest()
    return act_line(
        Accepted(photo=photo, at=_AT, how="pick", mask=name, sha256=digest, candidate=candidate)
    )


def _offered(looked: _Looked) -> str:
    return f"{len(looked.masks)} masks to pick from: {', '.join(looked.masks)}"
