"""What a recipe's paper says of its fields: the set-up that was published, for ``--preset paper``.

A :class:`Preset` is data. Every field of the recipe's Config is in one of three states: the paper
states a value, with a section; the paper leaves the field open; or the field is no part of the
paper, and does what it does without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

from tagseg.stages.settings import (
    CamSettings,
    CrispSettings,
    PyramidSettings,
    Settings,
    TagLossSettings,
    WorkSettings,
)

__all__ = [
    "BOX_FILES",
    "BOX_TRAINING",
    "HIGHER_ORDER",
    "PRESETS",
    "SALIENCY_FILES",
    "PaperValue",
    "Preset",
    "Said",
    "beside_the_paper",
]

PRESETS = ("paper",)

SALIENCY_FILES = ("saliency_maps", "saliency_model", "saliency_forest", "student")
"""Fields by which saliency is given as files."""
BOX_FILES = ("boxes", "box_photos", "boxes_left_out")
BOX_TRAINING = ("saliency_backbone", "saliency_weights", "saliency_iterations")
"""Fields of saliency that is learned from boxes: what is given, and the training."""
HIGHER_ORDER = ("segmenter_regions", *(item.name for item in fields(CrispSettings)))
"""Fields of the higher-order terms of a segmenter's CRF."""


class PaperValue(NamedTuple):
    """What a paper states of a field, and in which section, table or equation."""

    value: Any
    section: str


class Said(NamedTuple):
    """What a preset has to say of a field.

    Attributes:
        state: whether the paper states a value, leaves it open, or has no such thing.
        value: the paper's; None in the other states.
        where: the section, or why there is none.
    """

    state: Literal["stated", "open", "beside"]
    value: Any
    where: str


@dataclass(frozen=True)
class Preset:
    """A paper's set-up of its recipe.

    Attributes:
        stated: fields of which the paper states the value.
        open: fields of the paper's method of which it does not, and what is missing.
        beside: fields of what the paper does not have, and what that is; beside those of
            :func:`beside_the_paper`.
        taken: where values that the paper does not state are from, if not from what their
            settings say.
        backbone: the paper's network, as ``--backbone`` names it; None where it states none.
        gives_way: stated fields whose value is left out where one of certain fields is set, such
            as the source of saliency where files of another source are given.
    """

    stated: Mapping[str, PaperValue]
    open: Mapping[str, str]
    beside: Mapping[str, str] = field(default_factory=dict)
    taken: Mapping[str, str] = field(default_factory=dict)
    backbone: PaperValue | None = None
    gives_way: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Any]:
        """The fields that the paper states, and its values."""
        return {name: said.value for name, said in self.stated.items()}

    def beside_given(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The paper's values that the ``given`` ones leave room for."""
        return {
            name: value
            for name, value in self.values.items()
            if not given.keys() & set(self.gives_way.get(name, ()))
        }

    def says(self, name: str) -> Said:
        """What is said of field ``name``; KeyError if nothing is, which a test rules out."""
        if name in self.stated:
            return Said("stated", *self.stated[name])
        if name in self.open:
            return Said("open", None, self.open[name])
        return Said("beside", None, {**beside_the_paper(), **self.beside}[name])

    def source(self, name: str, value: Any, where: str) -> str:
        """Where ``value`` of field ``name`` comes from; ``where`` is what its settings say of it.

        A value of the paper, or None where its schedule fills it in, has its section.
        """
        said = self.says(name)
        filled_in = value is None and name.endswith(_BY_SCHEDULE)
        if said.state == "stated" and (value == said.value or filled_in):
            return said.where
        return self.taken.get(name, where)


def beside_the_paper() -> dict[str, str]:
    """Fields of stages that no paper has, and what they belong to."""
    pyramid = {
        name: "of tagseg's segmenter with skips"
        for name in _own(PyramidSettings, WorkSettings)
        if name != "segmenter"
    }
    tags = dict.fromkeys(_own(TagLossSettings, Settings), "of tags that may be missing or wrong")
    averaged = dict.fromkeys(_own(CamSettings, Settings), "maps are averaged over no views")
    return {**pyramid, **tags, **averaged, **_SHORT_SCHEDULE}


_BY_SCHEDULE = ("_iterations", "_batch_size", "_learning_rate")
_SHORT_SCHEDULE = dict.fromkeys(
    (
        *("classifier_epochs", "segmenter_epochs", "saliency_epochs"),
        *("upper_epochs", "regionnet_epochs"),
        *("classifier_backbone_factor", "segmenter_backbone_factor"),
    ),
    "of the short schedule",
)


def _own(kind: type[Settings], base: type[Settings]) -> list[str]:
    """Names of the fields that ``kind`` has and ``base`` does not."""
    return [item.name for item in fields(kind) if not base.named(item.name)]
