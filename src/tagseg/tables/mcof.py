"""Tables 3 and 4 and Figure 8 of Wang et al. 2018 (section 6.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tagseg.maps import BACKGROUND, IGNORE, Labels
from tagseg.recipes import mcof
from tagseg.recipes.mcof.config import Config
from tagseg.stages.large_fov import large_fov_segmenter
from tagseg.stages.outcome import Prediction
from tagseg.tables.base import Context, Printed, Row, Score, Study, Table

__all__ = ["TABLES"]

# Every row runs all rounds, whether or not masks have converged. No stage depends on the rule.
_ALL = {"converged": 2.0}


_FULL = {**_ALL, "mining": True, "supplement": True}


ROWS = {
    "mcof": Row("mcof", "MCOF", _FULL, None),
    "unaided": Row("unaided", "w/o saliency refinement", {**_FULL, "supplement": False}, None),
    "direct": Row("direct", "direct iterative training", {**_FULL, "mining": False}, None),
}


_TRAIN = {  # per round: RegionNet, saliency, PixelNet
    1: (29.1, 34.8, 48.4),
    2: (53.8, None, 57.9),
    3: (58.2, None, 60.9),
    4: (61.1, None, 63.1),
    5: (62.5, None, 63.2),
}


_VAL = {"unaided": (41.8, 46.2, 47.7, 51.5, 52.1), "mcof": (44.4, 51.6, 53.3, 55.5, 56.2)}


_SEEDS = Printed("14.27")


_WHOLE_SEEDS = "seeds, the rest background"  # under which they are scored


_STAGES = {
    "regions": "RegionNet",
    "supplement": "saliency supplement",
    "round-masks": "PixelNet",
}


def table_3(context: Context[Config]) -> Table:
    """Every network of every round, on training and validation photos."""
    found = _rounds(context, "mcof")
    val = _on_val(found, context.config.rounds)
    rows: list[tuple[str | float | None, ...]] = [
        ("initial object seeds", _SEEDS, _miou(found, "train", _WHOLE_SEEDS), None, None)
    ]
    for number in range(1, context.config.rounds + 1):
        papers = _TRAIN.get(number, (None, None, None))
        for (id, stage), paper in zip(_STAGES.items(), papers, strict=True):
            ours = _miou(found, "train", id, number)
            if stage == "PixelNet":
                on_val = _paper_val("mcof", number), val[number - 1]
                rows.append((f"iter{number} {stage}", paper, ours, *on_val))
            elif ours is not None or paper is not None:
                rows.append((f"iter{number} {stage}", paper, ours, None, None))
    full = None
    for label, fraction in (("iter1", 1.0), ("all rounds", context.config.fraction_of_all())):
        full = _full_supervision(context, fraction)
        row = f"PixelNet on ground truth, as long as {label}"
        rows.append((row, None, None, None, full))
    notes = [
        "train: of training photos with ground truth (500 at most); PixelNet's are the masks that "
        "the next round learns from, of known tags",
        "initial object seeds: regions that are no seed count as background (4.2)",
        "val: no tags are used; with the CRF, as the run has it",
    ]
    if full and val and val[-1] is not None:
        notes.append(
            f"the last PixelNet reaches {100 * val[-1] / full:.1f} % of the same network that "
            "learned from ground truth for as many iterations"
        )
    return Table(
        "3",
        "Table 3: mean IoU in the course of the rounds",
        ("", "paper, VOC train", "our train", "paper, VOC val", "our val"),
        tuple(rows),
        tuple(notes),
    )


def table_4(context: Context[Config]) -> Table:
    """PixelNet of each round on validation photos, with and without saliency."""
    rows: list[tuple[str | float | None, ...]] = []
    numbers = range(1, context.config.rounds + 1)
    for name in ("unaided", "mcof"):
        label = ROWS[name].label if name == "unaided" else "w/ saliency refinement"
        ours = _on_val(_rounds(context, name), context.config.rounds)
        rows.append((f"{label}, paper", *(_paper_val(name, number) for number in numbers)))
        rows.append((f"{label}, ours", *ours))
    return Table(
        "4",
        "Table 4: with and without the saliency supplement, mean IoU of PixelNet on val",
        ("iterations", *map(str, numbers)),
        tuple(rows),
        ("paper: VOC 2012 val",),
    )


def figure_8(context: Context[Config]) -> Table:
    """Against training on the masks of the round before, without RegionNet."""
    columns = {
        ROWS[name].label: _on_val(_rounds(context, name), context.config.rounds)
        for name in ("mcof", "direct")
    }
    rows = [
        (str(number), *(values[number - 1] for values in columns.values()))
        for number in range(1, context.config.rounds + 1)
    ]
    return Table(
        "fig8",
        "Figure 8: against direct iterative training, mean IoU of PixelNet on val",
        ("iterations", *columns),
        tuple(rows),
        ("the paper gives curves and no figures", "both share the first round"),
    )


TABLES: Mapping[str, Study] = {
    "3": Study(table_3, "val"),
    "4": Study(table_4, "val"),
    "fig8": Study(figure_8, "val"),
}


Found = Mapping[str, Score]


def _rounds(context: Context[Config], name: str) -> Found:
    """Scores of all that a row's rounds gave, by split, id and round."""
    with context.variant(ROWS[name]) as (run, config):
        outcome = mcof.run(run, config)
        found = {_key(p.split, p.id, p.number): p for p in outcome.predictions}
        found[_key("train", _WHOLE_SEEDS, None)] = _whole(found.pop(_key("train", "seeds", None)))
        return context.scores(run, found)


def _whole(seeds: Prediction) -> Prediction:
    """The seeds with all regions that are none "initially labeled as background" (4.2)."""

    def labels(index: int) -> Labels:
        found = seeds.labels(index)
        return np.where(found == IGNORE, np.uint8(BACKGROUND), found)

    return replace(seeds, labels=labels)


def _key(split: str, id: str, number: int | None) -> str:
    return f"{split} {id}" if number is None else f"{split} {id} {number}"


def _miou(found: Found, split: str, id: str, number: int | None = None) -> float | None:
    score = found.get(_key(split, id, number))
    return score.miou if score is not None else None


def _on_val(found: Found, rounds: int) -> list[float | None]:
    """mIoU of PixelNet on validation photos, in per cent, with the CRF where the run has one."""
    return [_miou(found, "val", "segmenter", number) for number in range(1, rounds + 1)]


def _paper_val(name: str, number: int) -> float | None:
    values = _VAL[name]
    return values[number - 1] if number <= len(values) else None


def _full_supervision(context: Context[Config], fraction: float) -> float | None:
    """PixelNet trained on ground truth, in per cent; None if not all training photos have it."""
    row = Row(f"full-{fraction:g}", "PixelNet on ground truth", _FULL, None)
    with context.variant(row) as (run, config):
        labels = context.true_labels(run)
        if labels is None:
            return None
        segmenter = large_fov_segmenter(run, config, labels, fraction=fraction)
        return context.score_on_val(run, segmenter)
