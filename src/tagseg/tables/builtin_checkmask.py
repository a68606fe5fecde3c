"""CheckMask on ``builtin_priors``: Table 3 of Saleh et al. 2017, and what each look gains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tagseg.maps import Labels
from tagseg.recipes.builtin_priors.candidates import candidate_masks
from tagseg.recipes.builtin_priors.config import Config
from tagseg.recipes.builtin_priors.masks import Evidence, training_masks
from tagseg.recipes.builtin_priors.recipe import segmenter_from
from tagseg.session.photo_trust import agreement
from tagseg.stages.context import Run
from tagseg.stages.outcome import Prediction
from tagseg.stages.priors import photo_regions
from tagseg.stages.reviewed import reviewed_labels
from tagseg.stages.rounds import working_masks
from tagseg.stages.segmenter import predicted
from tagseg.stages.stage import Declared, LabelMaps, found
from tagseg.stages.tag_doubts import sure_labels
from tagseg.tables.base import Context, Table
from tagseg.tables.checkmask import SIMULATED, CheckMask, Looks, stages_of

__all__ = ["CHECKED", "segmentation", "table_3", "table_of_looks"]

CHECKED: Mapping[str, Any] = {
    "masks": "both",
    "mask_crf": True,
    "mask_regions": "crisp",
    "refiner": "crf",
    "segmenter_regions": "crisp",
    "field_of_view": "large",
    "candidates": True,
}
"""The paper's best row, multi-class masks, and candidates for a person to pick from."""

_TRUST = Declared("photo-trust")


def table_3(context: Context[Config]) -> Table:
    """The row of CheckMask in Table 3, and that without it."""
    looks = Looks(context, _CHECKMASK)
    without, checked = looks.at(0.0), looks.at(1.0)
    figures = [(each.miou["raw"], each.miou["smooth"]) for each in (without, checked)]
    return Table(
        "3",
        "Table 3, two of its rows: tags alone, and a person who picks masks, mean IoU",
        ("Methods", "paper, VOC 2012 val", "paper, VOC 2012 test", "ours without CRF", "ours"),
        (
            ("Ours (multi-class masks)+CRF", 50.9, 52.6, *figures[0]),
            ("CheckMask procedure+CRF (ours: simulated)", 51.5, 52.9, *figures[1]),
        ),
        (
            f"{SIMULATED}; {looks.offered()}",
            f"ours: of the validation photos; masks of {checked.looked} of {looks.photos} "
            "training photos were picked, the others have no tags, or no ground truth to "
            "simulate with",
            "the paper's row is that of its reference [36], and it does not say how candidates "
            "were made; ours differ from the training mask in one thing each "
            "(docs/builtin_priors.md)",
        ),
    )


def table_of_looks(context: Context[Config]) -> Table:
    """MIoU against the number of photos looked at, in random order and the least trusted first."""
    return Looks(context, _CHECKMASK).table(
        {"smooth": "segmenter", "taught": "training labels"},
        (
            "segmenter: of the validation photos, with the CRF; training labels: of the training "
            "photos with ground truth, picked ones among them",
        ),
    )


def segmentation(run: Run, config: Config) -> dict[str, Prediction]:
    """The validation photos as the segmenter of this Config has them, and after its CRF."""
    segmenter = segmenter_from(run, config, _masks(run, config))
    # One stage of all rows: each would find the same regions again.
    by_regions = config.acting().get("segmenter_regions") == "crisp"
    regions_of = photo_regions(run, config, split="val") if by_regions else None
    of_val = predicted(run, segmenter.model, segmenter, regions_of=regions_of)
    found = {"raw": of_val.raw, "smooth": of_val.best}
    return {name: Prediction.of(name, name, "val", of) for name, of in found.items()}


def _masks(run: Run, config: Config) -> LabelMaps:
    return training_masks(run, config, Evidence(run, config))[0]


def _offers(run: Run, config: Config) -> list[Prediction]:
    """The training mask and the candidates."""
    evidence = Evidence(run, config)
    masks, _ = training_masks(run, config, evidence)
    own = Prediction.of("training-masks", "training mask", "train", masks)
    return [own, *candidate_masks(run, config, evidence)]


def _trust(run: Run, config: Config, offered: Sequence[Prediction]) -> list[float]:
    """Agreement of the segmenter's mask with those that are offered."""
    photos = run.photos
    segmenter = segmenter_from(run, config, _masks(run, config))
    final = working_masks(run, config, segmenter, 1)

    def compute() -> list[float]:
        maps: list[Callable[[int], Labels]] = [final, *(each.labels for each in offered)]
        return [agreement([m(i) for m in maps], photos.tags[i]) for i in range(len(photos))]

    planned: list[float] = []
    inputs = [final, *stages_of(offered)]
    return found(run, _TRUST, compute, planned=planned, inputs=inputs).value


def _made(run: Run, config: Config) -> dict[str, Prediction]:
    """The segmenter, and the labels that it was taught."""
    labels = reviewed_labels(run, sure_labels(run, config, _masks(run, config)))
    taught = Prediction.of("taught", "taught", "train", labels)
    return {**segmentation(run, config), "taught": taught}


_CHECKMASK = CheckMask(
    _offers,
    _trust,
    _made,
    "by how far the mask of the segmenter that nobody helped agrees with the training mask and the "
    "candidates (IoU, of the photo's classes the least)",
    CHECKED,
)
