"""What a paper's tables are given (a :class:`Context`), and what they are (:class:`Table`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from tagseg.data.dataset import Dataset
from tagseg.errors import DamagedError
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.maps import Image
from tagseg.run.progress import Progress
from tagseg.run.workspace import Stage, Workspace, until_whole
from tagseg.segment.predict import Segmenter
from tagseg.session.scoring import key_of_truth, score_prediction
from tagseg.session.seed_scoring import truth_at_work
from tagseg.session.train import Data, Options, make_settings
from tagseg.stages.context import Run, Setup, Split
from tagseg.stages.outcome import Prediction
from tagseg.stages.segmenter import predicted
from tagseg.stages.settings import WorkSettings
from tagseg.stages.stage import Declared, LabelMaps, Trained, label_maps
from tagseg.stages.tag_doubts import completed

__all__ = [
    "TABLES_FOLDER",
    "Context",
    "Printed",
    "Row",
    "Score",
    "Study",
    "Table",
    "mean_of",
    "percent",
]

TABLES_FOLDER = "tables"  # in the folder of the run that the tables are about


_TRUTH = Declared("ground-truth")

C = TypeVar("C", bound=WorkSettings)


class Printed(float):
    """A paper's figure that has not one decimal: shown as the paper prints it, "50.20"."""

    def __new__(cls, text: str) -> Printed:
        """The number of a text."""
        return super().__new__(cls, text)

    def __init__(self, text: str) -> None:
        self.text = str(text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Table:
    """One table of a paper, with the paper's figures beside ours.

    Attributes:
        name: as ``--only`` has it.
        columns: headings, that of the labels first.
        rows: label, then percentages; None where nothing was measured or the paper gives nothing.
        notes: what a reader must know of the columns, a line each.
        picture: of a figure that is one, written beside the table as ``NAME.png``.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]
    notes: tuple[str, ...] = ()
    picture: Image | None = None

    def markdown(self) -> str:
        """Heading, table and notes; percentages with one decimal or as printed; None: a dash."""
        cells = [self.columns, *([_shown(value) for value in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [_line(row, widths) for row in cells]
        rule = [f"{'-' * width}:" if i else "-" * (width + 1) for i, width in enumerate(widths)]
        lines.insert(1, "|" + "|".join(f"-{dashes}" for dashes in rule) + "|")
        notes = [f"- {note}" for note in self.notes]
        notes += [f"- picture: [{self._file}]({self._file})"] if self._file is not None else []
        return "\n".join([f"## {self.title}", "", *lines, *([""] if notes else []), *notes]) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-able values, percentages unrounded; of a picture, its file."""
        found = {k: v for k, v in asdict(self).items() if k != "picture"}
        return found if self._file is None else {**found, "picture": self._file}

    @property
    def _file(self) -> str | None:
        """Name of the picture's file."""
        return None if self.picture is None else f"{self.name}.png"


class Row(NamedTuple):
    """A row of a paper's table: its label, what it changes in the run's Config, the paper's figure.

    ``variant`` names the folder that keeps what the row is made from.
    """

    variant: str
    label: str
    changes: Mapping[str, Any]
    paper: float | None


class Score(NamedTuple):
    """mIoU in per cent (None: not defined, or no ground truth), and the photos compared."""

    miou: float | None
    photos: int


@dataclass(frozen=True)
class Context(Generic[C]):
    """The run that the tables are about, the photos, their ground truth, and room for variants.

    Attributes:
        folder: of the run.
        recipe: its recipe.
        config: of the run; a row changes some of its fields.
        options, setup: as the run had them, but for device and threads.
        truth: for scores alone.
        command: for the record.
    """

    folder: Path
    recipe: str
    config: C
    options: Options
    setup: Setup
    data: Data
    truth: GroundTruth
    progress: Progress
    command: str = ""

    @contextmanager
    def variant(self, row: Row) -> Iterator[tuple[Run, C]]:
        """A run of its own for ``row`` and its Config, in ``tables/VARIANT``.

        Stages that the run or another variant has finished from the same are taken over. What is
        found to be damaged is set aside, and the error goes on to :meth:`Study.made`.
        """
        config = replace(self.config, **row.changes)
        rooms = self.folder / TABLES_FOLDER
        folder = rooms / row.variant
        others = sorted(about.parent for about in rooms.glob("*/workspace.json"))
        self.progress.say(row.label)
        with Workspace.open(
            folder,
            recipe=self.recipe,
            settings=make_settings(self.options, self.setup, config, self.command),
            classes=self.data.photos.classes,
            announce=self.progress.say,
            lenders=[self.folder, *(other for other in others if other != folder)],
        ) as work:
            try:
                run = self.data.run(self.setup, work, self.progress)
                yield completed(run, config), config
            except DamagedError:
                work.mend()
                raise

    def is_annotated(self, run: Run) -> bool:
        """Whether every training photo has ground truth, which upper rows need."""
        return all(map(self.truth.has, run.photos.names))

    def true_labels(self, run: Run) -> LabelMaps | None:
        """Ground truth as training labels; None unless every training photo has it."""
        if not self.is_annotated(run):
            return None
        truth_of = partial(truth_at_work, run.photos, self.truth)
        return label_maps(run, _TRUTH, truth_of, inputs=[key_of_truth(self.truth)])

    def score_on_val(self, run: Run, segmenter: Trained[Segmenter]) -> float | None:
        """mIoU in per cent on the validation photos, with the CRF where the segmenter has one."""
        best = predicted(run, segmenter.model, segmenter).best
        prediction = Prediction.of("full", "full", "val", best)
        return self.scores(run, {"val": prediction})["val"].miou

    def measure(
        self,
        run: Run,
        name: str,
        predictions: Mapping[str, Prediction],
        compute: Callable[[], Any],
        **settings: Any,
    ) -> Any:
        """What ``compute`` finds by comparing ``predictions`` with ground truth, kept as JSON.

        Args:
            name: of the stage that keeps it.
            settings: what else decides on it.
        """
        stages = dict.fromkeys(prediction.stage for prediction in predictions.values())
        made_from = {"predictions": list(predictions), **settings}
        inputs: list[str | Stage] = [*stages, key_of_truth(self.truth)]
        with run.stage(name, made_from, inputs) as stage:
            if stage.pending:
                stage.save_json(name, compute())
        return stage.load_json(name)

    def scores(self, run: Run, predictions: Mapping[str, Prediction]) -> dict[str, Score]:
        """mIoU of each prediction."""

        def compute() -> dict[str, Score]:
            found = {}
            with run.task("scoring", len(predictions)) as ticks:
                for name, prediction in predictions.items():
                    scored = score_prediction(run, prediction, self.truth)
                    miou = percent(scored.miou) if scored is not None else None
                    found[name] = Score(miou, len(scored.photos) if scored is not None else 0)
                    ticks.advance(1)
            return found

        kept = self.measure(run, "scores", predictions, compute)
        return {name: Score(*kept[name]) for name in predictions}

    def class_iou(self, run: Run, prediction: Prediction) -> list[float | None]:
        """IoU of each label, background first, in per cent; None where it is not defined."""

        def compute() -> list[float | None]:
            scored = score_prediction(run, prediction, self.truth)
            if scored is None:
                return [None] * (len(run.photos.classes) + 1)
            return [percent(value) for value in scored.confusion.iou()]

        name = f"iou-{prediction.id}"
        found: list[float | None] = self.measure(run, name, {prediction.id: prediction}, compute)
        return found


@dataclass(frozen=True)
class Study:
    """How one of a paper's tables is made.

    Attributes:
        split: the photos whose ground truth it needs; None if it needs none.
        lacks: why it cannot be made of photos and the names of those to validate with, such as "is
            about videos"; "" if it can. Such a table is left out unless it is asked for.
    """

    make: Callable[[Context[Any]], Table]
    split: Split | None
    lacks: Callable[[Dataset, Collection[str]], str] = lambda photos, val: ""

    def made(self, context: Context[Any]) -> Table:
        """The table; begun again after something damaged was set aside."""
        return until_whole(lambda: self.make(context), lambda: True, context.progress.say)


def percent(part: float | None) -> float | None:
    """A part in 0..1 in per cent; None if it is not defined."""
    return None if part is None or np.isnan(part) else 100 * float(part)


def mean_of(values: Sequence[float | None]) -> float | None:
    """Mean of those that are defined; None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _shown(value: str | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, Printed):
        return str(value)
    return value.replace("|", "\\|") if isinstance(value, str) else f"{value:.1f}"


def _line(cells: Any, widths: list[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    parts = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(parts)} |"
