"""The ablation of ``union``, every piece taken away in turn, and what looking at photos gains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tagseg.errors import WorkspaceError
from tagseg.maps import Labels
from tagseg.recipes import union
from tagseg.recipes.union.config import Config
from tagseg.session.label_maps import LabelMapsOfRun, find_label_maps
from tagseg.session.photo_trust import judged
from tagseg.session.run_to_review import MOST_MAPS
from tagseg.stages.context import Run
from tagseg.stages.outcome import Prediction
from tagseg.tables.base import Context, Row, Study, Table
from tagseg.tables.checkmask import CheckMask, Looks

__all__ = ["TABLES"]

ROWS = (
    Row("all", "union", {}, None),
    Row("tags-alone", "class maps alone, nothing that stands out", {"objects": "none"}, None),
    Row("barrier", "of what stands out, barrier alone", {"objects": "barrier"}, None),
    Row("drfi", "of what stands out, drfi alone", {"objects": "drfi"}, None),
    Row("activations", "of what stands out, activations alone", {"objects": "activations"}, None),
    Row(
        "nothing-hidden", "no regions hidden from the classifier", {"classifier_hidden": 0.0}, None
    ),
    Row("mean-alone", "scores by the mean over all positions", {"classifier_top": 1.0}, None),
    Row("one-size", "class maps at one size", {"cam_scales": (1.0,)}, None),
    Row("one-layer", "class maps of the last layer alone", {"class_evidence": "cam"}, None),
    Row("layer-cam", "LayerCAM alone", {"class_evidence": "layer_cam"}, None),
    Row("gradients", "gradients alone", {"class_evidence": "gradients"}, None),
    Row("dcsm", "distinct maps alone", {"class_evidence": "dcsm"}, None),
    Row(
        "with-gradients",
        "gradients beside both layers",
        {"class_evidence": "cam+layer_cam+gradients"},
        None,
    ),
    Row(
        "with-dcsm",
        "distinct maps beside both layers",
        {"class_evidence": "cam+layer_cam+dcsm"},
        None,
    ),
    Row("superpixels", "votes of superpixels for the CRF", {"fusion_edges": "superpixels"}, None),
    Row("crisp", "votes of crisp regions for the CRF", {"fusion_edges": "crisp"}, None),
    Row("grabcut", "GrabCut for the CRF", {"fusion_edges": "grabcut"}, None),
    Row("crf-grabcut", "GrabCut beside the CRF", {"fusion_edges": "crf+grabcut"}, None),
    Row(
        "all-edges",
        "superpixels and GrabCut beside the CRF",
        {"fusion_edges": "crf+superpixels+grabcut"},
        None,
    ),
    Row("one-way", "the first of the ways alone, no votes", {"fusion_tie": 0.0}, None),
    Row("all-votes", "pixels without agreement teach too", {"fusion_agreement": 0.0}, None),
    Row("one-round", "one round", {"rounds": 1}, None),
    Row("all-answers", "answers that are not sure teach too", {"answer_confidence": 0.0}, None),
    Row("unrefined", "final masks as the segmenter answers", {"refiner": "none"}, None),
)


def ablation(context: Context[Config]) -> Table:
    """Mean IoU of the first labels, of the photos' final masks, and on the validation photos."""
    rows = tuple((row.label, *_scores(context, row)) for row in ROWS)
    return Table(
        "ablation",
        "Union, with every piece taken away in turn: mean IoU",
        ("", "first labels", "masks of the photos", "val"),
        rows,
        ("first labels and masks are of training photos, of known tags; val is without tags",),
    )


def table_of_looks(context: Context[Config]) -> Table:
    """MIoU against the number of photos looked at, in random order and the least trusted first."""
    return Looks(context, _CHECKMASK).table(
        {"val": "segmenter", "masks": "masks of the photos"},
        (
            "segmenter: of the validation photos, which nobody looks at, without tags; a training "
            "is one draw",
            "masks of the photos: the final masks of the training photos with ground truth, of "
            "which those looked at are what was picked, so this rises by the picks themselves; "
            "pixels that a pick leaves open count as wrong",
        ),
    )


TABLES: Mapping[str, Study] = {
    "ablation": Study(ablation, "val"),
    "checkmask": Study(table_of_looks, "val"),
}


def _scores(context: Context[Config], row: Row) -> tuple[float | None, ...]:
    with context.variant(row) as (run, config):
        made = union.run(run, config).predictions
        wanted = {
            "labels": _first(made, "labels"),
            "masks": _first(made, "masks"),
            "val": _first(made, "refined", "segmenter"),
        }
        found = context.scores(run, wanted)
        return tuple(found[name].miou for name in wanted)


def _first(predictions: tuple[Prediction, ...], *ids: str) -> Prediction:
    """The first of the first id that there is."""
    return next(each for id in ids for each in predictions if each.id == id)


def _offers(run: Run, config: Config) -> list[Prediction]:
    """What ``tagseg review`` offers: the final masks, and label maps that the stages kept."""
    union.run(run, config)
    maps = find_label_maps(run.open_workspace, run.photos.dataset)[:MOST_MAPS]
    return [
        Prediction(each.id, each.title, "train", _by_index(each, run.photos.names), each.stage)
        for each in maps
    ]


def _by_index(maps: LabelMapsOfRun, names: Sequence[str]) -> Callable[[int], Labels]:
    return lambda index: maps.read(names[index])


def _trust(run: Run, config: Config, offered: Sequence[Prediction]) -> Sequence[float]:
    """The word of the judge."""
    trust = judged(run.open_workspace, run.photos.dataset)
    if trust is None:
        raise WorkspaceError("no judge has looked at its masks", where=run.open_workspace.folder)
    return trust.tolist()  # type: ignore[no-any-return]


def _made(run: Run, config: Config) -> dict[str, Prediction]:
    made = union.run(run, config).predictions
    return {"val": _first(made, "refined", "segmenter"), "masks": _first(made, "masks")}


_CHECKMASK = CheckMask(
    _offers,
    _trust,
    _made,
    "by what the judge of the run that nobody helped expects of their masks (IoU, of the photo's "
    "classes the least)",
)
