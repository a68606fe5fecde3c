"""Rounds: the masks of one are the evidence of the next, for as long as that changes anything.

Wang et al. 2018, Algorithm 1, repeats "while iteration is effective" and does not say how that is
told; whoever has no ground truth can see only whether masks still change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from tagseg.errors import ConfigError
from tagseg.evaluate.confusion import ConfusionMatrix
from tagseg.maps import Labels

__all__ = ["Round", "StopRule", "agreement", "iterate"]

T = TypeVar("T")


@dataclass(frozen=True)
class StopRule:
    """When to stop, without ground truth.

    Attributes:
        max_rounds: rounds, at most.
        converged: agreement of a round's masks with those of the round before from which on they
            count as converged; over 1 for never.

    Raises:
        ConfigError: no round at all, or an agreement that is no number over 0.
    """

    max_rounds: int = 5
    converged: float = 0.97

    def __post_init__(self) -> None:
        if self.max_rounds < 1:
            raise ConfigError(f"rounds is {self.max_rounds}", do="use 1 or more")
        if not self.converged > 0:
            raise ConfigError(
                f"converged is {self.converged}", do="use over 0, up to 1; over 1: never"
            )


@dataclass(frozen=True)
class Round(Generic[T]):
    """What a round gave.

    Attributes:
        number: from 1.
        agreement: with the round before, 0 to 1; None for the first.
        ending: why there are no more, in a sentence; empty for all rounds but the last.
    """

    number: int
    result: T
    agreement: float | None
    ending: str


def iterate(
    step: Callable[[int, T | None], T], agree: Callable[[int, T, T], float], rule: StopRule
) -> Iterator[Round[T]]:
    """Repeat ``step`` on its own result (Wang et al. 2018, Algorithm 1).

    Rounds come as they are done. A result, which may hold networks, is kept here for no longer
    than the next round takes.

    Args:
        step: of a round's number, from 1, and the result of the round before, None at first.
        agree: of a round's number, the result before it and its own: their agreement, 0 to 1.
    """
    number, before, ending = 0, None, ""
    while not ending:
        number += 1
        result = step(number, before)
        found = agree(number, before, result) if before is not None else None
        ending = _ending(number, found, rule)
        before = result
        yield Round(number, result, found, ending)


def _ending(number: int, found: float | None, rule: StopRule) -> str:
    """Why round ``number`` is the last; empty if it is not."""
    if found is not None and found >= rule.converged:
        return (
            f"Stopped after round {number}: its masks agree with those before by "
            f"{100 * found:.1f} %, {100 * rule.converged:g} % or more."
        )
    if number < rule.max_rounds:
        return ""
    rounds = f"{rule.max_rounds} rounds" if rule.max_rounds > 1 else "one round"
    return f"Stopped after {rounds}, as configured."


def agreement(pairs: Iterable[tuple[Labels, Labels]], n_labels: int) -> float:
    """Mean IoU of the masks before and after, (H, W) each, over all photos' pixels together.

    The same either way round; pixels that the masks before ignore do not count. 1 where there is
    nothing to compare, as nothing differs.
    """
    counts = ConfusionMatrix(n_labels)
    for before, after in pairs:
        counts.update(after, before)
    found = counts.mean_iou()
    return 1.0 if np.isnan(found) else found
