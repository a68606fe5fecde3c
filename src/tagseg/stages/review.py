"""What a person said about the masks of the training photos, as the stages take it.

A correction by a person is input like a tag: it is counted and reported, and no ground truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from tagseg.maps import BACKGROUND, IGNORE, Labels, Tags
from tagseg.stages.settings import Settings, number

__all__ = ["Acts", "Review", "ReviewSettings", "foreground_of"]


@dataclass(frozen=True)
class ReviewSettings(Settings):
    """How much a mask that a person accepted counts."""

    review_weight: int = number(
        1,
        "compared on MSRC v2: docs/review-training.md",
        "times that a photo is drawn in training if a person accepted its mask",
        at_least=1,
        at_most=100,
    )


@dataclass(frozen=True)
class Acts:
    """How many acts of a person count, for the report.

    Attributes:
        right, picked, corrected: masks that were accepted as shown, out of several, drawn over.
        wrong: masks that were rejected.
        tags: photos whose tags were changed.
        photos: photos on which any of these was done.
        acts: lines of the review, those included that later ones replaced.
    """

    right: int = 0
    picked: int = 0
    corrected: int = 0
    wrong: int = 0
    tags: int = 0
    photos: int = 0
    acts: int = 0

    @property
    def accepted(self) -> int:
        """Masks that a person took for the photo's."""
        return self.right + self.picked + self.corrected

    def line(self) -> str:
        """All of them in one line."""
        photos = (
            "1 training photo was" if self.photos == 1 else f"{self.photos} training photos were"
        )
        return (
            f"{photos} looked at; masks: {self.right} right, {self.picked} picked, "
            f"{self.corrected} corrected, {self.wrong} wrong; tags changed: {self.tags}; "
            f"acts in all: {self.acts}"
        )

    def to_json(self) -> dict[str, int]:
        """For run.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`."""
        return cls(**{name: int(value) for name, value in values.items()})


@dataclass(frozen=True, eq=False)
class Review:
    """Masks of training photos that a person accepted or rejected.

    Attributes:
        accepted: reads the mask (H, W) of a photo at its own size, by the photo's index; labels are
            those of the photos' classes, 255 where the person was not sure.
        shown: tags (C,) of the classes that each accepted mask shows, by the photo's index.
        rejected: indices of photos of which no mask that was shown is right.
        key: hash of all of them.
        accepted_key: hash of the accepted ones.
        settings: how much they count.
        acts: how many there are.
    """

    accepted: Mapping[int, Callable[[], Labels]] = field(default_factory=dict)
    shown: Mapping[int, Tags] = field(default_factory=dict)
    rejected: frozenset[int] = frozenset()
    key: str = ""
    accepted_key: str = ""
    settings: ReviewSettings = ReviewSettings()
    acts: Acts = Acts()

    @property
    def of_masks(self) -> bool:
        """Whether it says anything about masks; else it is about tags alone."""
        return bool(self.accepted or self.rejected)


def foreground_of(labels: Labels) -> Labels:
    """Labels (H, W) that tell objects of any class (1) from the background; 255 stays."""
    return np.where((labels == BACKGROUND) | (labels == IGNORE), labels, np.uint8(1))
