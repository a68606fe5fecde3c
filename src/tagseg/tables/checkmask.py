"""CheckMask (Saleh et al. 2017, 4.3) in the tables of a recipe: a person picks among masks.

Here nobody looks: the pick is simulated from ground truth, and every table says so. It becomes a
review file, which is read and taught as that of a person is by ``tagseg train --review``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from tagseg.data.masks import encode_mask
from tagseg.data.working import labels_at
from tagseg.errors import DamagedError, MaskError
from tagseg.evaluate.picking import best_mask
from tagseg.formats.review import Accepted, act_line, head_line
from tagseg.maps import Labels
from tagseg.run.workspace import Stage
from tagseg.session.reviewing import ReviewSource, open_review
from tagseg.session.scoring import key_of_truth
from tagseg.session.seed_scoring import truth_at_work
from tagseg.stages.context import Run
from tagseg.stages.outcome import Prediction
from tagseg.stages.review import Review, ReviewSettings
from tagseg.stages.settings import WorkSettings
from tagseg.stages.stage import Declared, Input, found, opened
from tagseg.tables.base import Context, Row, Table

__all__ = ["FRACTIONS", "ORDERS", "SIMULATED", "CheckMask", "Looked", "Looks", "stages_of"]

FRACTIONS = (0.0, 0.2, 0.5, 1.0)
"""Parts of the training photos that are looked at."""

ORDERS: Mapping[str, str] = {"random": "random order", "doubt": "least trusted first"}

SIMULATED = (
    "CheckMask here: the pick is SIMULATED FROM GROUND TRUTH, nobody looked at a photo: of its "
    "masks the one with the highest mean IoU over the photo's labels"
)

_PICKS = Declared("simulated-picks")
_REVIEW = Declared("simulated-review")
_FILE = "review.jsonl"
_AT = datetime(1970, 1, 1, tzinfo=UTC)  # nobody picked at any time

C = TypeVar("C", bound=WorkSettings)


@dataclass(frozen=True)
class CheckMask(Generic[C]):
    """What CheckMask needs of a recipe.

    Attributes:
        offers: what there is to pick from of the training photos, in a run that nobody helped; the
            mask that counts without a pick comes first. A photo may lack others: KeyError.
        trust: how far each training photo's mask can be trusted, by what the run itself has found;
            ``offers`` were made before.
        made: what is scored of a run, with its review if it has one, by name.
        changes: what all its runs change in the run's Config.
        trusted_by: what ``trust`` is, for the notes.
    """

    offers: Callable[[Run, C], list[Prediction]]
    trust: Callable[[Run, C, Sequence[Prediction]], Sequence[float]]
    made: Callable[[Run, C], Mapping[str, Prediction]]
    trusted_by: str
    changes: Mapping[str, Any] = field(default_factory=dict)


class Looked(NamedTuple):
    """What came of looking at some photos.

    Attributes:
        miou: of all that :attr:`CheckMask.made` gives, in per cent.
        looked: photos that were looked at.
    """

    miou: Mapping[str, float | None]
    looked: int


class Looks(Generic[C]):
    """The run that the tables are about, with some of its photos looked at.

    What does not depend on how many these are is made once: picks, by ground truth, and orders,
    without it.

    Attributes:
        titles: of the masks to pick from.
        photos: number of training photos.

    Raises:
        MaskError: no training photo has tags and ground truth.
    """

    def __init__(self, context: Context[C], method: CheckMask[C]) -> None:
        able = _able(context)
        self._base = Row("checkmask", "CheckMask: masks to pick from", method.changes, None)
        with context.variant(self._base) as (run, config):
            self._offered = method.offers(run, config)
            self._picks = _picks(context, run, self._offered, able)
            trust = method.trust(run, config, self._offered)
        shuffled = np.random.default_rng([context.options.seed, len(able)]).permutation(able)
        doubtful = sorted(able, key=lambda index: trust[index])  # stable: by number where equal
        self._orders: Mapping[str, list[int]] = {"random": shuffled.tolist(), "doubt": doubtful}
        self._context, self._method = context, method
        self.titles = [prediction.title for prediction in self._offered]
        self.photos = len(context.data.photos)

    def at(self, fraction: float, order: str = "") -> Looked:
        """The run after ``fraction`` of the photos were looked at, in an order if it matters."""
        ranked = self._orders[order or "random"]
        chosen = ranked[: round(fraction * len(ranked))]
        part = f"{100 * fraction:g}"
        name = "-".join(filter(None, ("checkmask", order, part)))
        label = f"CheckMask, {part} % of the photos looked at {ORDERS.get(order, '')}".rstrip()
        row = Row(name, label, self._method.changes, None)
        with self._context.variant(row) as (run, config):
            if chosen:
                run = replace(run, review=self._review(run, chosen))
            scores = self._context.scores(run, self._method.made(run, config))
        return Looked({name: score.miou for name, score in scores.items()}, len(chosen))

    def _review(self, run: Run, chosen: Sequence[int]) -> Review:
        picks = {index: self._picks[index] for index in chosen}
        try:
            return _review(self._context, run, self._offered, picks)
        except DamagedError:  # of masks that another variant keeps
            with self._context.variant(self._base):
                raise

    def table(self, columns: Mapping[str, str], notes: Sequence[str]) -> Table:
        """MIoU against the number of photos looked at, in random order and least trusted first.

        Args:
            columns: heading of each of what is scored.
            notes: what a reader must know of these, a line each.
        """
        rows: list[tuple[str | float | None, ...]] = []
        for fraction in FRACTIONS:
            if 0 < fraction < 1:
                of = [self.at(fraction, order) for order in ORDERS]
            else:  # none or all are in any order
                of = [self.at(fraction)] * len(ORDERS)
            label = f"{100 * fraction:g} % ({of[0].looked} photos)"
            rows.append((label, *(each.miou[name] for name in columns for each in of)))
        return Table(
            "checkmask",
            "CheckMask: mean IoU against the part of the training photos that is looked at",
            (
                "Looked at",
                *(f"{head}, {title}" for head in columns.values() for title in ORDERS.values()),
            ),
            tuple(rows),
            (
                f"{SIMULATED}; {self.offered()}",
                *notes,
                f"least trusted first: {self._method.trusted_by}, as tagseg review orders photos; "
                "it needs no ground truth",
                "photos that are looked at, and those of no class, count in training by "
                f"--review-weight {ReviewSettings().review_weight}",
            ),
        )

    def offered(self) -> str:
        """How many masks there are to pick from, and which, for notes."""
        return f"{len(self.titles)} masks to pick from: {', '.join(self.titles)}"


def stages_of(offered: Sequence[Prediction]) -> list[Input]:
    """The stages that masks to pick from are of, each once."""
    return list(dict.fromkeys(prediction.stage for prediction in offered))


def _able(context: Context[C]) -> list[int]:
    """Photos whose pick can be simulated: with tags and ground truth."""
    photos = context.data.photos
    tagged = np.flatnonzero(photos.dataset.known & photos.tags.any(1)).tolist()
    able = [index for index in tagged if context.truth.has(photos.names[index])]
    if not able:
        raise MaskError(
            "picks are simulated from ground truth of training photos, and none has any",
            do="give it, or choose other tables with --only",
        )
    return able


def _picks(
    context: Context[C], run: Run, offered: Sequence[Prediction], able: Sequence[int]
) -> dict[int, int]:
    """The place of the best mask of each of the photos ``able``."""

    def compute() -> list[int]:
        picked = []
        with run.task("simulating picks", len(able)) as ticks:
            for index in able:
                picked.append(_best(context, run, offered, index))
                ticks.advance(1)
        return picked

    inputs = [*stages_of(offered), key_of_truth(context.truth)]
    planned: list[int] = []
    picked = found(run, _PICKS, compute, planned=planned, inputs=inputs).value
    return dict(zip(able, picked, strict=True))


def _best(context: Context[C], run: Run, offered: Sequence[Prediction], index: int) -> int:
    """The place of a photo's best mask, at working size, among those that it has."""
    of_photo = truth_at_work(run.photos, context.truth, index)
    masks: dict[int, Labels] = {}
    for place, prediction in enumerate(offered):
        try:
            masks[place] = labels_at(prediction.labels(index), of_photo.shape)
        except KeyError:
            continue
    best = best_mask(list(masks.values()), of_photo, len(run.photos.classes))
    return list(masks)[best]


def _review(
    context: Context[C], run: Run, offered: Sequence[Prediction], picks: Mapping[int, int]
) -> Review:
    """The picks as a review file in a stage, read and checked as that of a person."""
    photos, progress = run.photos, context.progress
    told = "".join(f"{photos.names[i]}\0{place}\n" for i, place in picks.items())
    key = sha256(told.encode()).hexdigest()
    with opened(run, _REVIEW, inputs=[*stages_of(offered), key]) as stage:
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
