"""Tables 1 to 5 and Figure 3 of Oh et al. 2017 (sections 4.2, 6.2, 6.3 and supplement C)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tagseg.evaluate.scores import average_precision
from tagseg.fuse.seed_labels import cam_labels
from tagseg.maps import Labels
from tagseg.recipes.gradient_baseline.config import Config as GradientConfig
from tagseg.recipes.gradient_baseline.recipe import seed_maps
from tagseg.recipes.guided.config import Config
from tagseg.recipes.guided.guides import Seeding, guide_labels, oracle_labels
from tagseg.recipes.guided.recipe import segmenter_from
from tagseg.segment.predict import Segmenter
from tagseg.session.scoring import key_of_truth, score_prediction
from tagseg.session.seed_scoring import find_seed_maps, score_seeds, truth_at_work
from tagseg.stages.classifier import classifier_scores
from tagseg.stages.context import Run
from tagseg.stages.guide_classifier import guide_classifier
from tagseg.stages.large_fov import large_fov_segmenter
from tagseg.stages.outcome import Prediction, Seeds
from tagseg.stages.segmenter import predicted
from tagseg.stages.stage import LabelMaps, Trained
from tagseg.tables.base import Context, Row, Study, Table, percent

__all__ = ["TABLES"]

_VOC = "paper, VOC 2012 val"


_SEC, _DEEPLAB = (10.0, 80.0, 13.0), (4.0, 121.0, 5.0)  # v1 and v2 of C.1


_RECALLS = tuple(tenth / 10 for tenth in range(1, 10))


_PLAIN = {"crf_seed": False, "crf_loss": False, "seeder": "highres"}


_SEEDERS = {  # name: the paper's mP and mAP
    "lowres": ("GAP-LowRes", 76.5, 88.0),
    "highres": ("GAP-HighRes", 80.7, 87.0),
    "roi": ("GAP-ROI", 80.8, 87.2),
    "deeplab": ("GAP-DeepLab", 57.7, 92.7),
}


_GRADIENTS = {
    "plain": "Vanilla backprop",
    "guided": "Guided backprop",
    "excitation": "Excitation backprop",
}


class _Guide(NamedTuple):
    """A row of Table 2: precision and recall of foreground and background, mIoU; Table 3's mIoU."""

    row: Row
    precision_recall: tuple[float, ...]
    with_crf: float | None


GUIDES = {
    "seeds": _Guide(
        Row("seeds", "Seeds only", {"guide": "seeds", **_PLAIN}, 38.7), (69, 37, 81, 95), 39.8
    ),
    "g0": _Guide(Row("g0", "G0", {"guide": "g0", **_PLAIN}, 45.8), (65, 52, 65, 52), 48.8),
    "g1": _Guide(Row("g1", "G1", {"guide": "g1", **_PLAIN}, 46.2), (75, 51, 75, 51), None),
    "g2": _Guide(Row("g2", "G2", {"guide": "g2", **_PLAIN}, 51.2), (73, 59, 87, 95), 55.7),
    "oracle": _Guide(
        Row("oracle", "Saliency oracle", {"guide": "seeds", **_PLAIN}, 56.9),
        (89, 91, 100, 99),
        None,
    ),
}


_FULL = _Guide(Row("full", "DeepLabv1, ground truth", {"guide": "seeds", **_PLAIN}, None), (), 67.6)


class _Crf(NamedTuple):
    """A row of Tables 4 and 5: which CRF units are in use, and the paper's mIoU."""

    seeder: str
    parameters: str | None  # "v1" or "v2"
    seed: bool
    loss: bool
    after: bool
    paper: float
    in_table_4: bool = False


CRF_ROWS = (
    _Crf("highres", None, False, False, False, 37.5, True),
    _Crf("highres", "v1", False, True, True, 50.4, True),
    _Crf("highres", "v1", False, True, False, 46.4),
    _Crf("highres", "v1", False, False, True, 45.5),
    _Crf("highres", "v2", False, True, True, 45.2, True),
    _Crf("highres", "v1", True, False, False, 33.0),
    _Crf("roi", None, False, False, False, 37.6, True),
    _Crf("roi", "v1", False, True, True, 45.0, True),
    _Crf("roi", "v2", False, True, True, 44.2),
)


_G2 = {"highres": 55.2, "roi": 54.6}  # "Saliency: G2" of Table 4


def table_1(context: Context[Config]) -> Table:
    """The four seeders: where they look, and what they know."""
    rows = []
    for name, (label, mean_precision, average) in _SEEDERS.items():
        found = _seeder_scores(context, name, label)
        rows.append(
            (
                label,
                mean_precision,
                percent(found["mean_precision"]),
                percent(found["foreground_precision"]),
                percent(found["background_precision"]),
                percent(found["miou"]),
                average,
                percent(found["tag_map"]),
            )
        )
    rows.append((found["baseline_label"], None, percent(found["baseline"]), *[None] * 5))
    return Table(
        "1",
        "Table 1: seeders, mean precision (mP) and mean average precision of tags (mAP)",
        (
            "network",
            f"mP, {_VOC}",
            "ours",
            "foreground at 20 % recall",
            "background at 80 % recall",
            "mIoU of the seeds",
            f"mAP, {_VOC}",
            "ours",
        ),
        tuple(rows),
        (
            f"ours: of {found['photos']} validation photos with ground truth; seeds of their "
            "tags, mAP without",
            "on other networks than VGG-16 the counterparts by output stride (docs/guided.md)",
        ),
    )


def figure_3(context: Context[Config]) -> Table:
    """Precision of the seeders, of back-propagation and of the mean shape at given recalls."""
    columns, curves = [], {}
    for name, (label, _, _) in _SEEDERS.items():
        curves[label] = found = _seeder_scores(context, name, label)
    for method, label in _GRADIENTS.items():
        curves[label] = _gradient_scores(context, method, label)
    curves[found["baseline_label"]] = found["baseline_curves"]
    for label, found in curves.items():
        for side in ("foreground", "background"):
            recall, precision = (np.asarray(found[side][key]) for key in ("recall", "precision"))
            columns.append((f"{label} {side}", _precision_at(recall, precision)))
    rows = [
        (f"{recall:.1f}", *(values[i] for _, values in columns))
        for i, recall in enumerate(_RECALLS)
    ]
    return Table(
        "fig3",
        "Figure 3: precision at a given recall",
        ("recall", *(title for title, _ in columns)),
        tuple(rows),
        (
            "the paper gives curves and no figures; a dash: no threshold reaches that recall",
            "back-propagation through a classifier of its own (4.2, F), not through a seeder; the "
            "mean shape is that of the photos that it is scored on",
        ),
    )


def table_2(context: Context[Config]) -> Table:
    """Guide labels, and the segmenters that learn from them, without CRF."""
    rows = []
    for name, guide in GUIDES.items():
        found = _guided(context, name, guide.row)
        rows.append(
            (
                guide.row.label,
                *map(float, guide.precision_recall),
                guide.row.paper,
                *(percent(value) for value in found["guides"]),
                percent(found["plain"]),
            )
        )
    kinds = ("Fg P", "Fg R", "Bg P", "Bg R", "mIoU")
    return Table(
        "2",
        "Table 2: guide labels and segmenters without CRF",
        ("Method", *(f"paper {kind}" for kind in kinds), *(f"our {kind}" for kind in kinds)),
        tuple(rows),
        (
            "P, R: precision and recall of the guide labels of training photos (500 at most), "
            "classes averaged; ignored pixels are recalled by nobody",
            f"mIoU: of {found['photos']} validation photos with ground truth; tags are not used",
            "the oracle's saliency is ground truth: for comparison alone",
        ),
    )


def table_3(context: Context[Config]) -> Table:
    """Scores with the CRF, and as a percentage of full supervision."""
    found = {
        name: (guide, _guided(context, name, guide.row)["smooth"])
        for name, guide in [*GUIDES.items(), ("full", _FULL)]
    }
    full = found["full"][1]
    rows = []
    for guide, miou in found.values():
        part = None if guide.with_crf is None else 100 * guide.with_crf / 67.6
        ours = miou / full if miou is not None and full else None
        rows.append((guide.row.label, guide.with_crf, part, percent(miou), percent(ours)))
    return Table(
        "3",
        "Table 3: segmenters with CRF, and in per cent of full supervision (FS%)",
        ("Method", _VOC, "FS%, val", "ours", "our FS%"),
        tuple(rows),
        (
            "the paper prints FS% of VOC's test set (G2: 80.6); here both are of val",
            "full supervision: the same segmenter and schedule, trained on ground truth",
        ),
    )


def table_4(context: Context[Config]) -> Table:
    """CRF units, the paper's main rows."""
    rows = tuple(row for row in CRF_ROWS if row.in_table_4)
    return _crf_table(context, "4", "Table 4: CRF variants, mean IoU", rows)


def table_5(context: Context[Config]) -> Table:
    """CRF units, all combinations."""
    return _crf_table(context, "5", "Table 5: CRF variants, all combinations, mean IoU", CRF_ROWS)


TABLES: Mapping[str, Study] = {
    "1": Study(table_1, "val"),
    "fig3": Study(figure_3, "val"),
    "2": Study(table_2, "val"),
    "3": Study(table_3, "val"),
    "4": Study(table_4, "val"),
    "5": Study(table_5, "val"),
}


def _seeder_scores(context: Context[Config], name: str, label: str) -> dict[str, Any]:
    """Precision, recall and average precision of one seeder on the validation photos."""
    row = Row(f"seeder-{name}", label, {**_PLAIN, "guide": "seeds", "seeder": name}, None)
    with context.variant(row) as (run, config):
        photos = run.split("val").photos
        seeding = Seeding(run, config)
        maps = find_seed_maps(run, seeding.seeds, context.truth)

        def compute() -> dict[str, Any]:
            every = score_seeds(run, maps, context.truth, range(len(photos)))
            scores = classifier_scores(run, seeding.seeder.model, photos, side=seeding.side)
            precision = average_precision(scores, photos.tags)
            known = precision[~np.isnan(precision)]
            return {
                **every[0],
                "tag_map": float(known.mean()) if known.size else None,
                "baseline_label": every[-1]["method"],
                "baseline": every[-1]["mean_precision"],
                "baseline_curves": {side: every[-1][side] for side in ("foreground", "background")},
            }

        def labels(index: int) -> Labels:
            scores = maps[0].scores_of(index)
            return cam_labels(scores, photos.tags[index], threshold=config.seed_threshold)

        seeds = Prediction(name, label, "val", labels, maps[0].stage)
        return dict(
            context.measure(run, "seeder-scores", {label: seeds}, compute, baseline="curves")
        )


def _gradient_scores(context: Context[Config], method: str, label: str) -> dict[str, Any]:
    """Precision and recall of one kind of back-propagation on the validation photos (4.2)."""
    row = Row(f"gradients-{method}", label, {**_PLAIN, "guide": "seeds"}, None)
    with context.variant(row) as (run, config):
        own = {name: value for name, value in vars(config).items() if GradientConfig.named(name)}
        gradients = GradientConfig(**{**own, "method": method})
        classifier = guide_classifier(run, gradients)
        maps_of = partial(seed_maps, run, gradients, classifier)
        seeds = Seeds("gradients", label, gradients.seed_threshold, maps_of)
        maps = find_seed_maps(run, (seeds,), context.truth)
        photos = run.split("val").photos

        def compute() -> dict[str, Any]:
            return score_seeds(run, maps, context.truth, range(len(photos)))[0]

        def labels(index: int) -> Labels:
            scores, threshold = maps[0].scores_of(index), gradients.seed_threshold
            return cam_labels(scores, photos.tags[index], threshold=threshold)

        found = Prediction(method, label, "val", labels, maps[0].stage)
        return dict(context.measure(run, "gradient-scores", {label: found}, compute))


def _precision_at(
    recall: npt.NDArray[np.float64], precision: npt.NDArray[np.float64]
) -> list[float | None]:
    """Precision in per cent at each of the recalls, linear between thresholds."""
    order = np.argsort(recall, kind="stable")
    reached = recall.max(initial=0.0)
    at = np.interp(_RECALLS, recall[order], precision[order])
    return [percent(float(p)) if r <= reached else None for r, p in zip(_RECALLS, at, strict=True)]


def _guided(context: Context[Config], name: str, row: Row) -> dict[str, Any]:
    """Quality of guide labels, and mIoU of their segmenter without and with CRF."""
    with context.variant(row) as (run, config):
        labels = _labels(context, run, config, name)
        if labels is None:
            return {"guides": [None] * 4, "plain": None, "smooth": None, "photos": 0}
        guides = Prediction.of("guide-labels", "guide labels", "train", labels)

        def quality() -> list[float | None]:
            scored = score_prediction(run, guides, context.truth)
            return [None] * 4 if scored is None else _precision_recall(scored.confusion.counts)

        found = context.measure(run, "guide-quality", {"guides": guides}, quality)
        if name == "full":
            segmenter = large_fov_segmenter(run, config, labels)
        else:
            segmenter = segmenter_from(run, config, labels)
        plain, smooth = _on_val(context, run, segmenter)
    return {"guides": found, "plain": plain[0], "smooth": smooth[0], "photos": plain[1]}


def _labels(context: Context[Config], run: Run, config: Config, name: str) -> LabelMaps | None:
    """Training labels of a row; None if they need ground truth that is not there."""
    if name == "full":
        return context.true_labels(run)
    if name != "oracle":
        return guide_labels(run, config).labels
    if not context.is_annotated(run):
        return None
    truth_of = partial(truth_at_work, run.photos, context.truth)
    return oracle_labels(run, config, truth_of, key_of_truth(context.truth))


def _precision_recall(counts: npt.NDArray[np.int64]) -> list[float | None]:
    """Mean precision and recall of the classes, then the background's.

    Args:
        counts: (L, L + 1), rows ground truth; the last column holds ignored pixels.
    """
    right = counts[:, :-1].diagonal()
    with np.errstate(invalid="ignore"):
        precision, recall = right / counts[:, :-1].sum(0), right / counts.sum(1)
    values = []
    for part in (slice(1, None), slice(0, 1)):
        for kind in (precision, recall):
            known = kind[part][~np.isnan(kind[part])]
            values.append(float(known.mean()) if known.size else None)
    return values


def _on_val(
    context: Context[Config], run: Run, segmenter: Trained[Segmenter]
) -> tuple[tuple[float | None, int], tuple[float | None, int]]:
    """mIoU as a fraction of 1, and photos, of the validation photos without and with CRF."""
    of_val = predicted(run, segmenter.model, segmenter)
    found = {"raw": of_val.raw, "smooth": of_val.best}
    compared = {name: Prediction.of(name, name, "val", of) for name, of in found.items()}
    scores = context.scores(run, compared)
    plain, refined = (
        (s.miou / 100 if s.miou is not None else None, s.photos) for s in scores.values()
    )
    return plain, refined


def _crf_table(context: Context[Config], name: str, title: str, rows: tuple[_Crf, ...]) -> Table:
    lines: list[tuple[str | float | None, ...]] = []
    for seeder in dict.fromkeys(row.seeder for row in rows):
        for row in rows:
            if row.seeder == seeder:
                lines.append((_told(row), row.paper, percent(_crf_miou(context, row))))
        label = f"{_SEEDERS[seeder][0]}: saliency, G2"
        changes = {**GUIDES["g2"].row.changes, "seeder": seeder}
        variant = "g2" if seeder == "highres" else f"g2-{seeder}"
        found = _guided(context, "g2", Row(variant, label, changes, _G2[seeder]))
        lines.append((label, _G2[seeder], percent(found["smooth"])))
    return Table(
        name,
        title,
        ("seed method, CRF", _VOC, "ours"),
        tuple(lines),
        (
            "v1: parameters of SEC (10, 80, 13), v2: of DeepLab (4, 121, 5); -seed: on the seeds, "
            "-loss: SEC's constrain-to-boundary loss beside cross-entropy on the seeds, "
            "-postproc: at test",
            "saliency, G2: with -postproc as the run has it",
        ),
    )


def _told(row: _Crf) -> str:
    units = {"seed": row.seed, "loss": row.loss, "postproc": row.after}
    used = [f"-{unit} {row.parameters}" for unit, on in units.items() if on]
    return f"{_SEEDERS[row.seeder][0]}: {', '.join(used) or 'no CRF'}"


def _crf_miou(context: Context[Config], row: _Crf) -> float | None:
    changes: dict[str, Any] = {
        "guide": "seeds",
        "seeder": row.seeder,
        "crf_seed": row.seed,
        "crf_loss": row.loss,
        "refiner": "crf",
    }
    if row.parameters is not None:
        changes["crf_bilateral"] = _SEC if row.parameters == "v1" else _DEEPLAB
    parts = [row.seeder, row.parameters or "plain", "seed" * row.seed, "loss" * row.loss]
    variant = "crf-" + "-".join(part for part in parts if part)
    found = _guided(context, "seeds", Row(variant, _told(row), changes, row.paper))
    miou: float | None = found["smooth" if row.after else "plain"]
    return miou
