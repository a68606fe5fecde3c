"""How far a class's masks can be trusted, and why not: told from tags alone, before any truth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["ClassFacts", "ClassTrust", "class_trust", "overall", "trust_lines"]

TRUSTED = 0.5  # expected IoU from which more is right than wrong
POOR = 0.35  # expected IoU under which masks need a reason, if there is no other
FEW_PHOTOS = 5  # under which one odd photo decides what a class is learned to be
LARGE = 0.85  # median area over which hardly any background is left to be told from
WHOLE = 0.9  # median area over which a mask is the photo's frame, whatever the judge says
EMPTY = 0.5  # fraction of empty masks over which most photos teach that nothing is there
TOGETHER = 0.9  # fraction of photos with another class from which tags see the two as one
TOLD = 0.85  # average precision under which photos that were learned from are not found again

_SPREAD_OF_ONE = 1 / math.sqrt(12)  # standard deviation of a quality of which nothing is known


@dataclass(frozen=True)
class ClassFacts:
    """What is known of a class and its masks without ground truth; all fractions in 0..1.

    Attributes:
        photos: training photos that are known to have its tag.
        others: training photos that are known to lack it.
        quality: expected IoU of its mask in each of its photos, by a judge that saw tags only;
            NaN where it cannot say; what is beyond 0 or 1 counts as that.
        areas: fraction of each of these photos that its mask covers.
        told: average precision with which the tag classifier finds it again among the photos that
            it learned from; None if that was not measured.
        companions: of every other class, the fraction of this one's photos that have its tag too.
        lead: by how much the class's evidence is stronger inside its masks than outside, the median
            of its photos; None if that was not measured.
    """

    name: str
    photos: int
    others: int
    quality: Sequence[float]
    areas: Sequence[float]
    told: float | None
    companions: Mapping[str, float]
    lead: float | None = None


@dataclass(frozen=True)
class ClassTrust:
    """How far a class's masks can be trusted.

    Attributes:
        photos: training photos with its tag.
        expected: IoU of its masks, 0..1; None if there are none or they were not judged.
        low, high: the range of ``expected``.
        reasons: why not to trust it.
    """

    name: str
    photos: int
    expected: float | None
    low: float | None
    high: float | None
    reasons: tuple[str, ...] = ()

    @property
    def trusted(self) -> bool:
        """Whether the masks are expected to be good and nothing speaks against it."""
        return self.expected is not None and self.expected >= TRUSTED and not self.reasons

    @property
    def why_not(self) -> tuple[str, ...]:
        """The reasons, or that the expected IoU is low; none for a class that is trusted."""
        if self.trusted or self.reasons:
            return self.reasons
        return (f"the expected IoU is under {TRUSTED}",)

    def line(self) -> str:
        """The class in one line for the console."""
        found = "unknown"
        if self.expected is not None:
            found = f"{self.expected:.2f} ({self.low:.2f} to {self.high:.2f})"
        reasons = "; also ".join(self.why_not)
        return f"{self.name}: expected IoU {found}{', do not trust: ' if reasons else ''}{reasons}"

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON data."""
        return {**asdict(self), "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What :meth:`to_json` gave."""
        return cls(**{**data, "reasons": tuple(data["reasons"])})


def class_trust(facts: ClassFacts, *, spread: float) -> ClassTrust:
    """Say how far the masks of a class can be trusted, and why not.

    The expected IoU is the mean of the qualities. Its range is as far on either side as ``spread``
    and the standard error of this mean are together, the root of the sum of their squares. The
    error is that of the photos' qualities and one more of which nothing is known (uniform in 0..1):
    so one photo has a wide range, and many that agree have ``spread`` alone.

    A reason does not change the expected IoU, but where nothing tells the class from its
    background, what the judge says is not worth having, and the range begins at 0.

    Args:
        spread: how far the judge is off for a class of many photos.

    Examples:
        >>> from tagseg.evaluate.trust import ClassFacts, class_trust
        >>> dog = ClassFacts("dog", 20, 80, [0.8] * 20, [0.3] * 20, 0.9, {"cat": 0.1})
        >>> class_trust(dog, spread=0.1).line()
        'dog: expected IoU 0.80 (0.70 to 0.90)'
        >>> sky = ClassFacts("sky", 20, 0, [0.8] * 20, [0.4] * 20, None, {})
        >>> print(*class_trust(sky, spread=0.1).line().split(": "), sep="\\n")
        sky
        expected IoU 0.80 (0.00 to 0.90), do not trust
        it is in every photo
        nothing tells it from what always comes with it; add photos without it
    """
    quality = np.asarray(facts.quality, np.float64)
    quality = quality[np.isfinite(quality)].clip(0, 1)
    if not facts.photos or not len(quality):
        missing = _unjudged(facts) if facts.photos else _NO_PHOTO
        reasons = (missing, *(_reasons(facts) if facts.photos else ()))
        return ClassTrust(facts.name, facts.photos, None, None, None, reasons)
    expected, width = float(quality.mean()), math.hypot(spread, _error_of_mean(quality))
    low, high = max(expected - width, 0.0), min(expected + width, 1.0)
    reasons = tuple(_reasons(facts))
    if not reasons and expected < POOR:
        reasons = ("its masks are not what makes the classifier see it",)
    return ClassTrust(
        facts.name, facts.photos, expected, 0.0 if _is_blind(facts) else low, high, reasons
    )


def overall(trusts: Sequence[ClassTrust]) -> str:
    """All classes in one line."""
    trusted, classes = sum(trust.trusted for trust in trusts), len(trusts)
    of = f"{trusted} of {classes} {'class' if classes == 1 else 'classes'} can be trusted"
    return f"{of} (expected IoU of {TRUSTED} or more, and nothing against it), by tags alone"


def trust_lines(trusts: Sequence[ClassTrust]) -> list[str]:
    """:func:`overall`, then a line for each class, those not to be trusted first."""
    ordered = sorted(trusts, key=lambda trust: trust.trusted)
    return [overall(trusts), *(trust.line() for trust in ordered)] if trusts else []


_NO_PHOTO = "no training photo has its tag, so it has no masks"


def _unjudged(facts: ClassFacts) -> str:
    """Why there is no quality of any mask."""
    if len(facts.quality):
        return "its masks are smaller than any that the judge knows; look at them"
    return "its masks were not judged"


def _error_of_mean(quality: npt.NDArray[np.float64]) -> float:
    """Standard error of the mean, with one more quality of which nothing is known."""
    squares = float(np.square(quality - quality.mean()).sum()) + _SPREAD_OF_ONE**2
    return math.sqrt(squares) / len(quality)


def _is_blind(facts: ClassFacts) -> bool:
    """Whether nothing tells the class from its background."""
    return not facts.others or _median_area(facts) > WHOLE


def _median_area(facts: ClassFacts) -> float:
    return float(np.median(facts.areas)) if len(facts.areas) else 0.0


def _reasons(facts: ClassFacts) -> Iterator[str]:
    """Why not to trust a class that has photos, what is missing in them first."""
    for reason in (_few, _in_every_photo, _large, _empty, _together, _not_told, _elsewhere):
        said = reason(facts)
        if said:
            yield said


def _few(facts: ClassFacts) -> str:
    """With few photos, what they share by chance is learned too."""
    count = f"only {facts.photos} {'photo' if facts.photos == 1 else 'photos'}"
    return count if facts.photos < FEW_PHOTOS else ""


def _in_every_photo(facts: ClassFacts) -> str:
    """A tag that all photos have says nothing of any pixel."""
    if facts.others:
        return ""
    return (
        "it is in every photo: nothing tells it from what always comes with it; "
        "add photos without it"
    )


def _large(facts: ClassFacts) -> str:
    """Masks as large as the photos are those of what surrounds the class as well."""
    area = _median_area(facts)
    if area <= LARGE:
        return ""
    return (
        f"its masks cover {_percent(area)} % of each photo: nothing in the tags tells it from its "
        "background; add photos without it, or give --saliency"
    )


def _empty(facts: ClassFacts) -> str:
    """A photo with the tag and no mask of it is wrong for sure."""
    empty = float(np.mean(np.asarray(facts.areas) == 0)) if len(facts.areas) else 0.0
    return f"its masks are empty in {_percent(empty)} % of its photos" if empty > EMPTY else ""


def _together(facts: ClassFacts) -> str:
    """Of classes that come together, a mask of either explains the tags of both."""
    if facts.photos < FEW_PHOTOS:
        return ""
    always = [name for name, share in facts.companions.items() if share >= 1]
    nearly = [name for name, share in facts.companions.items() if TOGETHER <= share < 1]
    parts = [f"always comes with {_listed(always)}"] if always else []
    parts += [f"nearly always comes with {_listed(nearly)}"] if nearly else []
    if not parts:
        return ""
    return (
        f"{facts.name} {' and '.join(parts)}: the tags cannot tell them apart; "
        "add photos of one without the other"
    )


def _not_told(facts: ClassFacts) -> str:
    """Right tags of something that can be seen are found again nearly always."""
    if facts.told is None or not facts.told < TOLD:
        return ""
    return (
        "the classifier finds it again among the photos that it learned from with an average "
        f"precision of {facts.told:.2f} only; check the tags, or it looks like something else"
    )


def _elsewhere(facts: ClassFacts) -> str:
    """What the classifier goes by is not what the masks show."""
    if facts.lead is None or facts.lead > 0 or _median_area(facts) == 0:
        return ""
    return (
        "the classifier sees it around its masks rather than in them: what always comes with it "
        "tells it; add photos of that without it"
    )


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _percent(share: float) -> int:
    """A share in whole percent, 100 for all of it only."""
    return 100 if share >= 1 else min(round(100 * share), 99)
