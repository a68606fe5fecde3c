"""Refiners by name: what is done to a segmenter's probabilities so that they follow the photo.

A new one is a class with ``refine(image, probs, tags)`` and one call of :func:`register_refiner`
beside it; the setting ``refiner`` then takes its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tagseg.errors import ConfigError, WeightsError, choose_from
from tagseg.segment.predict import Refiner
from tagseg.stages.context import Plain
from tagseg.stages.settings import RefinementSettings

__all__ = ["Refinement", "Refining", "find_refiner", "refiner_from", "register_refiner"]

_NONE = "none"
_NAME = "refiner"  # in the settings that a model file keeps; files of version 0.1 have none
_FIRST = "crf"


class Refining(NamedTuple):
    """How a refiner is made.

    Attributes:
        settings: JSON data that decides on it, from a recipe's settings and the run's seed.
        build: the refiner, from that data.
    """

    settings: Callable[[RefinementSettings, int], Mapping[str, Any]]
    build: Callable[[Mapping[str, Any]], Refiner]


@dataclass(frozen=True)
class Refinement(Plain):
    """What decides on the refiner of a segmenter as JSON data, in a stage's key; None for none."""

    refinement: Any


_REFINERS: dict[str, Refining] = {}


def register_refiner(name: str, refining: Refining) -> None:
    """Let the setting ``refiner`` take ``name``; ConfigError if it is another's."""
    if _REFINERS.get(name, refining) != refining:
        raise ConfigError(f"there is a refiner {name!r} already", do="choose another name")
    _REFINERS[name] = refining


def find_refiner(settings: RefinementSettings, seed: int) -> Mapping[str, Any] | None:
    """What decides on the refiner that is configured, as JSON data; None for none.

    Raises:
        ConfigError: there is no refiner of that name.
    """
    name = settings.refiner
    if name == _NONE:
        return None
    if name not in _REFINERS:
        known = [*_REFINERS, _NONE]
        raise ConfigError(f"there is no refiner {name!r}", do=choose_from(known, name))
    return {_NAME: name, **_REFINERS[name].settings(settings, seed)}


def refiner_from(settings: Mapping[str, Any]) -> Refiner:
    """The refiner of :func:`find_refiner`, or of a model file.

    Raises:
        WeightsError: the file's refiner is not known here.
    """
    values = dict(settings)
    name = values.pop(_NAME, _FIRST)
    if name not in _REFINERS:
        raise WeightsError(f"there is no refiner {name!r}", do="import the module that has it")
    return _REFINERS[name].build(values)
