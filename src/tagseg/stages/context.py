"""What every recipe is given: the photos, the means and the folder (:class:`Run`)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple

from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError, WorkspaceError
from tagseg.nets.backbone import Backbone, FineTuning
from tagseg.nets.catalog import backbone_kind, backbone_label, build_backbone
from tagseg.nets.weights import LoadedWeights, resolve
from tagseg.run.company import Followed
from tagseg.run.plan import Plan
from tagseg.run.progress import Progress, Task
from tagseg.run.work import Engine, Local
from tagseg.run.workspace import Stage, Workspace
from tagseg.stages.review import Review
from tagseg.stages.settings import BackboneSettings
from tagseg.training import Execution

__all__ = ["Means", "Plain", "Run", "Setup", "Split", "SplitPhotos", "fine_tuned"]


class Plain:
    """A dataclass whose fields stand in a stage's key by their own names, as those of settings."""


@dataclass(frozen=True)
class Means(Plain):
    """What decides on whatever a network computes, beside its form and its training.

    Attributes:
        backbone: name of it.
        weights: hash of its pre-trained weights, or "none".
        precision: of arithmetic.
        seed: of all random draws.
    """

    backbone: str
    weights: str
    precision: str
    seed: int


@dataclass(frozen=True)
class Setup:
    """What a recipe computes with, and where.

    Attributes:
        backbone: as :func:`tagseg.nets.catalog.build_backbone` takes it.
        weights: pre-trained weights, or None for random ones.
        threads: photos that are refined at once.
        engine: who does what stages make of photos; no part of what it comes to.
        masks_in: whether final masks are files, or in tars (:mod:`tagseg.run.mask_files`).
    """

    backbone: str
    weights: LoadedWeights | None
    execution: Execution
    threads: int = 1
    engine: Engine = field(default_factory=Local)
    masks_in: str = "auto"

    def means(self) -> Means:
        """What decides on every network."""
        return Means(
            backbone_label(self.backbone),
            self.weights.digest if self.weights is not None else "none",
            str(self.execution.precision).removeprefix("torch."),
            self.execution.seed,
        )

    def settings(self) -> dict[str, Any]:
        """The same as JSON data, for the record."""
        return asdict(self.means())

    def output_stride(self, settings: BackboneSettings) -> int:
        """The backbone's: as configured, or else what is usual on it."""
        return settings.output_stride or backbone_kind(self.backbone).usual_stride

    def on(self, backbone: str | None, weights: str) -> Setup:
        """The same means with a network's own backbone and weights; None keeps the run's.

        Raises:
            TagsegError: there is no such backbone, or its weights cannot be used.
        """
        if backbone is None:
            return self
        build_backbone(backbone)  # a wrong name must show before weights are looked for
        found = resolve(weights, backbone)
        return replace(self, backbone=backbone, weights=found if found.state else None)

    def build_backbone(
        self,
        settings: BackboneSettings,
        *,
        output_stride: int | None = None,
        dilated: bool | None = None,
    ) -> Backbone:
        """A fresh backbone with the pre-trained weights, of which learns what is configured.

        Args:
            output_stride: its own; None for the configured one.
            dilated: as :func:`tagseg.nets.catalog.build_backbone` takes it.

        Raises:
            ConfigError: it has no such geometry, or fewer blocks than are to learn.
        """
        stride = output_stride or self.output_stride(settings)
        backbone = build_backbone(
            self.backbone, self.weights, output_stride=stride, dilated=dilated
        )
        return fine_tuned(backbone, settings)


def fine_tuned(backbone: Backbone, settings: BackboneSettings) -> Backbone:
    """The same backbone, of which learns what is configured."""
    decay = settings.layer_decay
    if settings.trained_blocks == 0:
        decay = 1.0
    elif decay is None:
        decay = backbone.usual_layer_decay
    backbone.fine_tune(FineTuning(settings.trained_blocks, decay))
    return backbone


Split = Literal["train", "val"]


class SplitPhotos(NamedTuple):
    """Photos of a run, the hash of their content and tags, and what their stages' names start with.

    Nothing for training photos, so that a recipe's own stages are called what they are.
    """

    photos: WorkingPhotos
    key: str
    prefix: str


@dataclass(frozen=True)
class Run:
    """One run of a recipe: the photos, the means, and the folder that keeps what is made.

    Attributes:
        photos: the training photos.
        photos_key: hash of their content and tags.
        val, val_key: the validation photos, if any; no recipe trains on them.
        worked: names of the stages that were not finished before.
        review: what a person said about the training photos' masks and tags, if anyone did.
        given: the same with the tags as they were given, where surely missing ones were added.
    """

    photos: WorkingPhotos
    photos_key: str
    val: WorkingPhotos | None
    val_key: str
    setup: Setup
    workspace: Workspace | Plan | Followed
    progress: Progress
    worked: list[str] = field(default_factory=list)
    review: Review | None = None
    given: Run | None = None

    def split(self, split: Split) -> SplitPhotos:
        """The photos for training or for validation; ConfigError if there are none for that."""
        if split == "train":
            return SplitPhotos(self.photos, self.photos_key, "")
        if self.val is None:
            raise ConfigError("there are no validation photos", do="give --val")
        return SplitPhotos(self.val, self.val_key, "val-")

    def stage(self, name: str, config: dict[str, Any], inputs: Sequence[str | Stage]) -> Stage:
        """A stage of the workspace, new or finished."""
        stage = self.workspace.stage(name, config=config, inputs=inputs)
        if stage.pending:
            self.worked.append(name)
        return stage

    @property
    def open_workspace(self) -> Workspace:
        """The workspace; WorkspaceError for a run that is only planned, or followed."""
        if not isinstance(self.workspace, Workspace):
            raise WorkspaceError("the run is only planned", do="run it")
        return self.workspace

    def task(self, title: str, total: int) -> AbstractContextManager[Task]:
        """A progress bar."""
        return self.progress.task(title, total)
