"""Saliency maps of the photos: learned from boxes, made elsewhere, or free of any training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tagseg.data.masks import encode_mask
from tagseg.data.saliency_maps import SaliencyFolder
from tagseg.maps import Image, SaliencyMap
from tagseg.nets.student import StudentNet
from tagseg.priors.onnx_saliency import OnnxSaliency, find_model
from tagseg.priors.saliency.drfi import DrfiSettings, drfi_saliency, shipped_forest
from tagseg.priors.saliency.forest import RegionForest
from tagseg.priors.saliency.minimum_barrier import MinimumBarrierSettings, minimum_barrier_saliency
from tagseg.priors.student import load_student, shipped_student, student_saliencies
from tagseg.run.workspace import Stage
from tagseg.stages.box_saliency import BoxSaliency
from tagseg.stages.context import Run, Split
from tagseg.stages.priors import activation_prior
from tagseg.stages.settings import SaliencySettings
from tagseg.stages.stage import (
    Declared,
    Images,
    Plain,
    SaliencyMaps,
    label_maps,
    levels,
    per_batch,
    saliency_maps,
)

__all__ = ["PhotoSaliency"]

_SALIENCY = Declared("saliency", title="saliency maps")


class PhotoSaliency:
    """Saliency maps of a run's photos (Oh et al. 2017, 5.1 and 6.1).

    What the source reads is looked at here, before anything is trained.

    Args:
        prefix: of its stages' names, where a recipe has more than one source.

    Attributes:
        curves: stages that logged a training, once maps were asked for.
    """

    def __init__(self, run: Run, config: SaliencySettings, *, prefix: str = "") -> None:
        self.run, self.config, self.source = run, config, config.saliency_source()
        self._stage = _SALIENCY.prefixed(prefix)
        self.curves: list[Stage] = []
        self.learned: BoxSaliency | None = None
        self.folder: SaliencyFolder | None = None
        self.forest: RegionForest | None = None
        self.student: StudentNet | None = None
        self.network: OnnxSaliency | None = None
        if self.source == "boxes" and config.boxes is not None:
            self.learned = BoxSaliency(run, config, Path(config.boxes))
        if self.source == "folder" and config.saliency_maps is not None:
            self.folder = SaliencyFolder(Path(config.saliency_maps))
            self.folder.check(run.photos.names)
        if self.source == "network" and config.saliency_model is not None:
            self.network = OnnxSaliency(find_model(config.saliency_model))
        if self.source == "drfi":
            given = config.saliency_forest
            self.forest = shipped_forest() if given is None else RegionForest.load(Path(given))
        if self.source == "student":
            own = config.student
            self.student = shipped_student() if own is None else load_student(Path(own))

    def maps(self, split: Split = "train") -> SaliencyMaps:
        """Maps (h, w) in [0, 1] of a split's photos at working size."""
        if self.learned is not None:
            return self._by_boxes(self.learned, split)
        if self.folder is not None:
            return self._from_folder(self.folder, split)
        if self.source == "activations":
            return activation_prior(self.run, self.config, split=split)
        if self.forest is not None:
            return self._regional(self.forest, split)
        if self.student is not None:
            return self._by_student(self.student, split)
        if self.network is not None:
            return self._of_photos(split, self.network.map, None, self.network.digest)
        barrier = MinimumBarrierSettings()
        return self._of_photos(
            split, lambda image: minimum_barrier_saliency(image, barrier), barrier
        )

    def _regional(self, forest: RegionForest, split: Split) -> SaliencyMaps:
        settings = DrfiSettings()
        return self._of_photos(
            split, lambda image: drfi_saliency(image, forest, settings), settings, forest.digest
        )

    def _of_photos(
        self, split: Split, make: Callable[[Image], SaliencyMap], settings: object, *files: str
    ) -> SaliencyMaps:
        photos = self.run.split(split).photos
        return self._each(split, lambda index: make(photos.image(index)), settings, *files)

    def _from_folder(self, folder: SaliencyFolder, split: Split) -> SaliencyMaps:
        photos = self.run.split(split).photos
        folder.check(photos.names)

        def read(index: int) -> SaliencyMap:
            height, width = photos.image(index).shape[:2]
            return folder.map(photos.names[index], (height, width))

        return self._each(split, read, None, folder.digest(photos.names))

    def _each(
        self, split: Split, make: Callable[[int], SaliencyMap], settings: object, *files: str
    ) -> SaliencyMaps:
        """Maps that are made photo by photo, from ``files`` of these digests."""
        labels = label_maps(
            self.run,
            self._stage,
            lambda index: levels(make(index)),
            settings=[_Source(self.source), *([] if settings is None else [settings])],
            inputs=files,
            split=split,
        )
        return saliency_maps(self.run, labels.stage, split, "labels")

    def _by_student(self, student: StudentNet, split: Split) -> SaliencyMaps:
        """Jing et al. 2018, III-B; in batches, as the published student is large."""

        def make(images: Images, indices: list[int]) -> Iterator[dict[str, bytes]]:
            student.to(self.run.setup.execution.device)
            for found in student_saliencies(student, images):
                yield {"levels": encode_mask(levels(found))}

        stage = per_batch(
            self.run,
            replace(self._stage, title="coarse masks by the student"),
            ["levels"],
            make,
            settings=[_Source(self.source)],
            inputs=[student.digest],
            split=split,
        )
        return saliency_maps(self.run, stage, split, "levels")

    def _by_boxes(self, learned: BoxSaliency, split: Split) -> SaliencyMaps:
        network = learned.trained()
        if network.stage not in self.curves:
            self.curves.append(network.stage)
        stage = per_batch(
            self.run,
            self._stage,
            ["levels"],
            partial(learned.answers, network.model),
            settings=[_Source(self.source)],
            inputs=[network],
            split=split,
        )
        return saliency_maps(self.run, stage, split, "levels")


@dataclass(frozen=True)
class _Source(Plain):
    """Where saliency comes from."""

    saliency: str
