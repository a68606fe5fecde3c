"""What a stage is: declared once, with its work, its storage and its result.

A stage has a name, a version, the settings that decide on it and the inputs that it is made from;
its key is the hash of these, and nobody lists it by hand. Work over photos has two primitives,
:func:`per_photo` and :func:`per_batch`, which bring order, threads, progress, storage and going on
after a kill. A training is :func:`trained`, one finding about all photos :func:`found`. What comes
back knows the stage that it is from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from types import FunctionType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tagseg.data.masks import decode_mask, encode_mask
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError
from tagseg.maps import Labels, SaliencyMap, ScoreMap
from tagseg.nets.backbone import Backbone, FineTuning
from tagseg.nets.depthwise import is_dilated_depthwise
from tagseg.run.engine import map_photos
from tagseg.run.work import PhotoWork, Row
from tagseg.run.workspace import Stage
from tagseg.stages.context import Plain, Run, Setup, Split
from tagseg.stages.settings import Settings
from tagseg.threads import one_ahead
from tagseg.training import Execution, Loop, Schedule

__all__ = [
    "Declared",
    "Drawn",
    "InTwo",
    "Input",
    "LabelMaps",
    "Once",
    "PhotoMaps",
    "Plain",
    "SaliencyMaps",
    "ScoreMaps",
    "Trained",
    "found",
    "label_maps",
    "network_input",
    "opened",
    "per_batch",
    "per_photo",
    "saliency_maps",
    "trained",
]

BATCH = 16  # photos a forward pass
_MOST_LABELS_AT_ONCE = 1 << 28  # bytes of decoded labels kept in memory
_REDUCED = "reduced"  # of photos that differ a little from those that are decoded whole
_LEVELS = 255  # of stored saliency maps

M = TypeVar("M")
V = TypeVar("V")
Images = npt.NDArray[np.uint8]  # (B, h, w, 3)


class Made(Protocol):
    """The result of a stage."""

    @property
    def stage(self) -> Stage:
        """Where it is from."""


Input = Made | Stage | str  # a result, its stage, or the key of what is no stage


@dataclass(frozen=True)
class Declared:
    """A stage as it is declared, once, beside the function that does its work.

    Attributes:
        name: unique in a run, with "val-" before it for validation photos.
        val_alone: for a stage of validation photos alone, whose name says so.
        weights: name of the file that a training keeps.
        title: of the progress bar over photos; the name if it is empty.
        version: raised when equal settings begin to give another result; runs that were made with
            the version before say so, and do the stage again.
    """

    name: str
    version: int = 1
    val_alone: bool = False
    weights: str = "weights"
    title: str = ""

    def round(self, number: int) -> Declared:
        """The same in a round of a recipe that repeats it."""
        title = f"{self.title}, round {number}" if self.title else ""
        return replace(self, name=f"{self.name}-{number}", title=title)

    def prefixed(self, prefix: str) -> Declared:
        """The same beside others of its kind in a run."""
        return replace(self, name=f"{prefix}{self.name}")


def opened(
    run: Run,
    declared: Declared,
    settings: Iterable[object] = (),
    inputs: Iterable[Input] = (),
    *,
    split: Split | None = "train",
) -> Stage:
    """The stage with the key that follows from what it is made from.

    Args:
        settings: dataclasses, all of whose fields decide on the result, and functions.
        inputs: what it is made from; the photos are added.
        split: of which photos, None for no photos.
    """
    config: dict[str, Any] = {"version": declared.version}
    for item in settings:
        added = _described(item)
        if any(config.get(name, value) != value for name, value in added.items()):
            raise ConfigError(f"stage {declared.name} is told one thing twice", do="name it apart")
        config |= added
    keys = [item if isinstance(item, str | Stage) else item.stage for item in inputs]
    if split is None:
        return run.stage(declared.name, config, keys)
    of_split = run.split(split)
    config["photo_side"] = of_split.photos.side
    if of_split.photos.reduces:
        config["decoding"] = _REDUCED
    prefix = "" if declared.val_alone else of_split.prefix
    return run.stage(f"{prefix}{declared.name}", config, [of_split.key, *keys])


def _described(item: object) -> dict[str, Any]:
    """All fields of a dataclass: those of settings by their own names, others under the class's.

    Of a function, such as a loss without numbers, the name.
    """
    if isinstance(item, FunctionType):
        return {"function": item.__name__}
    if isinstance(item, Settings):
        return item.acting()
    values = {field.name: getattr(item, field.name) for field in fields(item)}  # type: ignore[arg-type]
    if isinstance(item, Plain):
        return values
    kind = type(item).__name__.lstrip("_")
    return {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower(): values}


class Once(Generic[V]):
    """What ``make`` gives when it is first asked for; a copy in another process makes its own."""

    def __init__(self, make: Callable[[], V]) -> None:
        self._make, self._made = make, list[V]()

    def __call__(self) -> V:
        """What was made."""
        if not self._made:
            self._made = [self._make()]
        return self._made[0]

    def __getstate__(self) -> dict[str, Any]:
        return {"_make": self._make, "_made": []}


@dataclass(frozen=True)
class Drawn(Plain):
    """What a stage without networks draws its random numbers from."""

    seed: int


class PhotoMaps(Generic[V]):
    """A value of each of a set of photos, read when asked for.

    Attributes:
        stage: where they are from.
    """

    def __init__(self, stage: Stage, read: Callable[[int], V]) -> None:
        self.stage, self._read = stage, read

    def __call__(self, index: int) -> V:
        """The value of photo ``index``; do not write into it."""
        return self._read(index)

    def map(self, change: Callable[[int, V], V]) -> PhotoMaps[V]:
        """The same after ``change`` (index, value), made anew at every reading."""
        return PhotoMaps(self.stage, lambda index: change(index, self(index)))


class LabelMaps(PhotoMaps[Labels]):
    """Label maps (h, w), kept as PNG in a stage's store, and decoded in memory where that allows.

    Args:
        store: its name.
        names: of the photos.
    """

    def __init__(self, stage: Stage, store: str, names: Sequence[str]) -> None:
        super().__init__(
            stage, lambda index: decode_mask(stage.maps(store).get_bytes(names[index]))
        )
        self._decoded: dict[int, Labels] = {}
        self._room = _MOST_LABELS_AT_ONCE

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoded": {}, "_room": _MOST_LABELS_AT_ONCE}

    def __call__(self, index: int) -> Labels:
        """Labels of photo ``index``; do not write into them."""
        if index not in self._decoded:
            labels = super().__call__(index)
            if labels.nbytes > self._room:
                return labels
            self._room -= labels.nbytes
            self._decoded[index] = labels
        return self._decoded[index]


ScoreMaps = PhotoMaps[ScoreMap]
SaliencyMaps = PhotoMaps[SaliencyMap]


@dataclass(frozen=True, eq=False)
class Trained(Generic[M]):
    """A trained network, or what holds one, and the stage that it is from."""

    model: M
    stage: Stage


def per_photo(
    run: Run,
    declared: Declared,
    stores: Sequence[str],
    make: Callable[[int], Row],
    *,
    settings: Iterable[object] = (),
    inputs: Iterable[Input] = (),
    split: Split = "train",
    threads: int | None = None,
    network: bool = False,
) -> Stage:
    """A stage in which ``make`` finds what is kept of each photo, by its index.

    Args:
        stores: names of the stores that ``make`` fills, by name.
        settings, inputs, split: as in :func:`opened`.
        threads: photos at once; None for the run's.
        network: whether ``make`` asks a network.
    """
    names = run.split(split).photos.names
    work = _EachPhoto(names, make, threads or run.setup.threads, network)
    with opened(run, declared, settings, inputs, split=split).shared() as stage:
        _fill(run, stage, stores, work, declared.title or declared.name.replace("-", " "))
    return stage


def per_batch(
    run: Run,
    declared: Declared,
    stores: Sequence[str],
    make: Callable[[Images, list[int]], Iterable[Row]] | InTwo[Any],
    *,
    settings: Iterable[object] = (),
    inputs: Iterable[Input] = (),
    split: Split = "train",
    batch: int = BATCH,
) -> Stage:
    """A stage in which ``make`` finds what is kept of the photos of a batch, all of one size.

    A batch that is there as a whole is skipped, any other done anew as a whole, so that photos
    keep their company. Each is safe on disk before the next begins.

    Args:
        make: of images (B, h, w, 3) at working size and their indices; a row for each, in order.
            In two steps, a device that works apart from the CPU has one batch while the CPU makes
            the rows of that before.
        batch: photos at once, at most.
    """
    apart = isinstance(make, InTwo) and run.setup.execution.apart
    work = _EachBatch(run.split(split).photos, make, batch, apart)
    with opened(run, declared, settings, inputs, split=split).shared() as stage:
        _fill(run, stage, stores, work, declared.title or declared.name.replace("-", " "))
    return stage


@dataclass(frozen=True)
class InTwo(Generic[V]):
    """What is made of a batch: by a network, and then by the CPU of what the network found."""

    network: Callable[[Images, list[int]], V]
    behind: Callable[[Images, list[int], V], Iterable[Row]]

    def __call__(self, images: Images, indices: list[int]) -> Iterable[Row]:
        """Both steps, one after the other."""
        return self.behind(images, indices, self.network(images, indices))


@dataclass(frozen=True)
class _EachPhoto(PhotoWork):
    names: Sequence[str]
    make: Callable[[int], Row]
    threads: int
    network: bool
    costly = False

    def bounds(self) -> npt.NDArray[np.int64]:
        return np.arange(len(self.names) + 1)

    def rows(self, groups: Iterable[Sequence[int]]) -> Iterator[tuple[range, Iterable[Row]]]:
        items = ((self.names[first], first) for first, _ in groups)  # errors tell the name
        results = map_photos(self._indexed, items, workers=self.threads)
        return ((range(index, index + 1), [row]) for index, row in results)

    def _indexed(self, item: tuple[str, int]) -> tuple[int, Row]:
        return item[1], self.make(item[1])


@dataclass(frozen=True)
class _EachBatch(PhotoWork):
    photos: WorkingPhotos
    make: Callable[[Images, list[int]], Iterable[Row]] | InTwo[Any]
    size: int
    apart: bool
    network = True
    costly = True

    @property
    def names(self) -> Sequence[str]:  # type: ignore[override]
        return self.photos.names

    def bounds(self) -> npt.NDArray[np.int64]:
        return self.photos.runs(self.size)

    def rows(self, groups: Iterable[Sequence[int]]) -> Iterator[tuple[range, Iterable[Row]]]:
        ranges = (range(first, behind) for first, behind in groups)
        if self.apart and isinstance(self.make, InTwo):
            yield from one_ahead(self._found, partial(self._made_of, self.make), ranges)
            return
        for group in ranges:
            yield group, self.make(self.photos.stacked(group), list(group))

    def _found(self, group: range) -> tuple[Images, Any]:
        """The photos, and what the network finds in them."""
        assert isinstance(self.make, InTwo)
        images = self.photos.stacked(group)
        return images, self.make.network(images, list(group))

    @staticmethod
    def _made_of(
        make: InTwo[Any], group: range, found: tuple[Images, Any]
    ) -> tuple[range, Iterable[Row]]:
        """All rows of the group; they are made here, not when they are asked for."""
        return group, list(make.behind(found[0], list(group), found[1]))


def _fill(run: Run, stage: Stage, stores: Sequence[str], work: PhotoWork, title: str) -> None:
    """Do what is left to do of a stage, by the run's engine."""
    if stage.pending:
        with run.task(title, len(work.names)) as ticks:
            run.setup.engine.fill(stage, stores, work, ticks)


@contextmanager
def network_input(execution: Execution, images: Images) -> Iterator[torch.Tensor]:
    """Images (B, h, w, 3) as (B, 3, h, w) in [0, 1] on the device, for a pass without gradients."""
    low = execution.precision != torch.float32
    x = torch.from_numpy(images).to(execution.device).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad(), torch.autocast(execution.device.type, execution.precision, enabled=low):
        yield x


def label_maps(
    run: Run,
    declared: Declared,
    make: Callable[[int], Labels],
    *,
    settings: Iterable[object] = (),
    inputs: Iterable[Input] = (),
    split: Split = "train",
    network: bool = False,
) -> LabelMaps:
    """Labels (h, w) of every photo: :func:`per_photo` with ``make`` (index) -> labels."""
    stage = per_photo(
        run,
        declared,
        ["labels"],
        lambda index: {"labels": encode_mask(make(index))},
        settings=settings,
        inputs=inputs,
        split=split,
        network=network,
    )
    return LabelMaps(stage, "labels", run.split(split).photos.names)


def saliency_maps(run: Run, stage: Stage, split: Split, store: str = "labels") -> SaliencyMaps:
    """Maps (h, w) in [0, 1] that a stage keeps as :func:`levels`."""
    kept = LabelMaps(stage, store, run.split(split).photos.names)
    return PhotoMaps(stage, lambda index: kept(index).astype(np.float32) / np.float32(_LEVELS))


def levels(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Maps in [0, 1] as whole levels, to be kept."""
    return np.rint(np.clip(maps, 0, 1) * _LEVELS).astype(np.uint8)


class Fit(Protocol):
    """Trains a network in place."""

    def __call__(self, *, loop: Loop) -> object:
        """``loop`` is that of :func:`tagseg.training.train`."""


Net = TypeVar("Net", bound=nn.Module)


def trained(
    run: Run,
    declared: Declared,
    net: Net,
    fit: Fit,
    schedule: Schedule,
    *,
    settings: Iterable[object] = (),
    inputs: Iterable[Input] = (),
    setup: Setup | None = None,
    title: str,
) -> Trained[Net]:
    """``net``, which ``fit`` trains as ``schedule`` says, or as it was trained before.

    What of its backbone learns decides on the result too, where that is not all at one rate.

    Args:
        declared: the stage, and the file of the weights that it keeps.
        settings, inputs: what decides on the result, beside the schedule and the setup.
        setup: the means; None for the run's.
        title: of the progress bar, after "training".
    """
    setup = setup if setup is not None else run.setup
    mended = _mended(net, setup.execution.precision)
    decided_by = [setup.means(), *mended, *settings, *_fine_tuning(net), schedule]
    with opened(run, declared, decided_by, inputs).shared() as stage:
        if stage.pending:
            with run.task(f"training {title}", schedule.iterations) as ticks:
                loop = Loop(
                    setup.execution,
                    frozen_batch_norm=setup.weights is not None,
                    checkpoint=stage.checkpoint,
                    log=stage.log,
                    ticks=ticks,
                    ranks=stage.ranks,
                    say=stage.announce,
                )
                fit(loop=loop)
            stage.save_tensors(declared.weights, net.state_dict())
    if not stage.planned:
        net.load_state_dict(stage.load_tensors(declared.weights)[0])
    return Trained(net, stage)


@dataclass(frozen=True)
class _Gradients(Plain):
    """Which gradients of dilated depthwise kernels a training had: the first ones were wrong."""

    dilated_gradients: int = 2


def _mended(net: nn.Module, precision: torch.dtype) -> list[_Gradients]:
    """What tells a training from one that had wrong gradients (docs/decisions/0018)."""
    if precision == torch.bfloat16 and any(map(is_dilated_depthwise, net.modules())):
        return [_Gradients()]
    return []


def _fine_tuning(net: nn.Module) -> list[FineTuning]:
    """What of the network's backbone learns; nothing where it has none or all of it learns."""
    backbone = getattr(net, "backbone", None)
    if not isinstance(backbone, Backbone) or backbone.fine_tuning == FineTuning():
        return []
    return [backbone.fine_tuning]


@dataclass(frozen=True)
class Found(Generic[V]):
    """A finding about all photos together, and the stage that it is from."""

    value: V
    stage: Stage


def found(
    run: Run,
    declared: Declared,
    compute: Callable[[], V],
    *,
    planned: V,
    settings: Iterable[object] = (),
    inputs: Iterable[Input] = (),
) -> Found[V]:
    """What ``compute`` finds, JSON data; ``planned`` in a run that is only planned."""
    with opened(run, declared, settings, inputs, split=None) as stage:
        if stage.pending:
            stage.save_json("found", compute())
    return Found(planned if stage.planned else stage.load_json("found"), stage)
