"""What a recipe says of itself, for whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tagseg.stages.context import Run
from tagseg.stages.outcome import Outcome
from tagseg.stages.preset import Preset
from tagseg.stages.settings import WorkSettings, where_from

__all__ = ["Demo", "Recipe"]

Takes = Literal["saliency", "saliency_model", "boxes", "coarse_masks"]


@dataclass(frozen=True)
class Demo:
    """What the demo gives to a recipe.

    Attributes:
        boxes: boxes of other classes, to learn saliency from, unless a source is chosen.
        one_tag: training photos that show one class each, and photos of several to be scored.
        settings: fields that take other values in a demo, unless they are set.
        note: what the user is told of them.
        scenes: how many to train on, and to score, unless it is said.
    """

    boxes: bool = False
    one_tag: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    scenes: tuple[int, int] = (2000, 300)


@dataclass(frozen=True)
class Recipe:
    """A recipe: its paper, its settings, its steps, and what it needs.

    Attributes:
        run: makes an outcome from a run and the settings; from ground truth and its key too, if
            that is needed.
        uses_tags: False if it learns from photos alone.
        check_truth: given by a recipe that trains on ground truth; raises MaskError if that of
            one of the named photos is missing.
        takes: which files beside photos and tags it can be given.
        fast: fields that take other values with --fast, unless they are set.
        paper_preset: the paper's own set-up, which --preset paper lays under what is set.
    """

    name: str
    paper: str
    config: type[WorkSettings]
    run: Callable[..., Outcome]
    uses_tags: bool = True
    check_truth: Callable[[Sequence[str], Any], None] | None = None
    takes: tuple[Takes, ...] = ()
    demo: Demo = Demo()
    fast: Mapping[str, Any] = field(default_factory=dict)
    paper_preset: Preset | None = None

    @property
    def needs_truth(self) -> bool:
        """Whether it trains on ground truth."""
        return self.check_truth is not None

    def sources(
        self, config: WorkSettings | type[WorkSettings] | None = None
    ) -> list[tuple[str, Any, str, str]]:
        """(field, value, where from, meaning) of every field, by default of the defaults.

        Where from is the section of the recipe's own paper, wherever that states the value.
        """
        rows = where_from(self.config if config is None else config)
        if self.paper_preset is None:
            return rows
        source = self.paper_preset.source
        return [
            (name, value, source(name, value, where), meaning)
            for name, value, where, meaning in rows
        ]

    def outcome(self, run: Run, config: WorkSettings, truth: Any, truth_key: str) -> Outcome:
        """What it makes; ``truth`` reaches those alone that train on it."""
        return self.run(run, config, *((truth, truth_key) if self.needs_truth else ()))
