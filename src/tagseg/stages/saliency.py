"""Saliency maps of the photos: learned from boxes, made elsewhere, or free of any training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tagseg.data.boxes import BoxSet, read_boxes
from tagseg.data.images import encode_mask
from tagseg.data.saliency_maps import SaliencyFolder
from tagseg.data.tag_files import read_names
from tagseg.data.transforms import Augmentation
from tagseg.data.working import WorkingPhotos
from tagseg.maps import Labels, SaliencyMap
from tagseg.nets.aspp import AsppNet
from tagseg.nets.student import StudentNet
from tagseg.priors.saliency.drfi import DrfiSettings, drfi_saliency, shipped_forest
from tagseg.priors.saliency.forest import RegionForest
from tagseg.priors.saliency.minimum_barrier import MinimumBarrierSettings, minimum_barrier_saliency
from tagseg.priors.student import load_student, shipped_student, student_saliencies
from tagseg.refine.box_masks import OBJECT, object_mask
from tagseg.run.workspace import Stage
from tagseg.segment.fit import fit_on_grid
from tagseg.stages.config import SaliencyConfig
from tagseg.stages.context import Run, Setup, Split
from tagseg.stages.labels import LabelMaps, each_batch, training_labels
from tagseg.stages.large_fov import grid_crop, grid_cross_entropy, loss_stride
from tagseg.stages.priors import activation_prior
from tagseg.stages.schedules import _MANY, _short
from tagseg.stages.shapes import some_shapes, view_scale
from tagseg.stages.trained import trained
from tagseg.training import Schedule

__all__ = ["PhotoSaliency", "SaliencyMaps", "saliency_schedule"]


def saliency_schedule(config: SaliencyConfig, setup: Setup, n_photos: int) -> Schedule:
    """Chen et al. 2017, 4.1 (batches of 10, rate 2.5e-4, poly over 20,000), or short."""
    if config.schedule == "paper" or (config.schedule == "auto" and n_photos >= _MANY):
        return Schedule(
            config.saliency_iterations or 20_000,
            10,
            2.5e-4,
            multipliers={"score": 10.0, "score_bias": 20.0},
        )
    return _short(
        config.saliency_iterations,
        None,
        None,
        config.saliency_epochs,
        config.segmenter_backbone_factor,
        n_photos,
    )


_BATCH = 16  # photos a forward pass


_LEVELS = 255  # of stored maps


SaliencyMaps = Callable[[int], SaliencyMap]


class PhotoSaliency:
    """Saliency maps of a run's photos (Oh et al. 2017, 5.1 and 6.1).

    What the source reads is looked at here, before anything is trained.

    Attributes:
        curves: stages that logged a training, once maps were asked for.
    """

    def __init__(self, run: Run, config: SaliencyConfig) -> None:
        self.run, self.config, self.source = run, config, config.saliency_source()
        self.curves: list[Stage] = []
        self.boxes: BoxSet | None = None
        self.folder: SaliencyFolder | None = None
        self.forest: RegionForest | None = None
        self.student: StudentNet | None = None
        self.setup = run.setup
        if self.source == "boxes" and config.boxes is not None:
            photos = Path(config.box_photos) if config.box_photos is not None else None
            everything = read_boxes(Path(config.boxes), photos)
            if config.boxes_left_out is not None:
                everything = everything.without_photos(read_names(Path(config.boxes_left_out)))
            self.boxes = everything.without_classes(run.photos.classes)
            if not self.boxes.classes and config.boxes_left_out is None:
                run.progress.say(
                    f"note: {config.boxes} names no classes; leave pictures of the classes to be "
                    "learned out with --set boxes_left_out=FILE"
                )
            self.setup = run.setup.on(config.saliency_backbone, config.saliency_weights)
        if self.source == "folder" and config.saliency_maps is not None:
            self.folder = SaliencyFolder(Path(config.saliency_maps))
            self.folder.check(run.photos.names)
        if self.source == "drfi":
            given = config.saliency_forest
            self.forest = shipped_forest() if given is None else RegionForest.load(Path(given))
        if self.source == "student":
            own = config.student
            self.student = shipped_student() if own is None else load_student(Path(own))

    def maps(self, split: Split = "train") -> tuple[SaliencyMaps, Stage]:
        """Map (h, w) of a split's photo at working size, and what they depend on."""
        if self.boxes is not None:
            return self._learned(self.boxes, split)
        if self.folder is not None:
            return self._from_folder(self.folder, split)
        if self.source == "activations":
            return activation_prior(self.run, self.config, split=split)
        if self.forest is not None:
            return self._regional(self.forest, split)
        if self.student is not None:
            return self._by_student(self.student, split)
        photos, settings = self.run.part(split).photos, MinimumBarrierSettings()

        def make(index: int) -> SaliencyMap:
            return minimum_barrier_saliency(photos.image(index), settings)

        return self._stored(split, asdict(settings), make)

    def _regional(self, forest: RegionForest, split: Split) -> tuple[SaliencyMaps, Stage]:
        photos, settings = self.run.part(split).photos, DrfiSettings()

        def make(index: int) -> SaliencyMap:
            return drfi_saliency(photos.image(index), forest, settings)

        return self._stored(split, {"forest": forest.digest, **asdict(settings)}, make)

    def _by_student(self, student: StudentNet, split: Split) -> tuple[SaliencyMaps, Stage]:
        """Jing et al. 2018, III-B; in batches, as the published student is large."""
        run = self.run
        photos, key, prefix = run.part(split)
        made_from = {"student": student.digest, "photo_side": self.config.photo_side}
        with run.stage(f"{prefix}saliency", made_from, [key]) as kept:
            if kept.pending:
                store = kept.maps("levels")
                student.to(run.setup.execution.device)
                with run.task("coarse masks by the student", len(photos)) as ticks:
                    for indices, images in photos.batches(_BATCH):
                        names = [photos.names[i] for i in indices]
                        if not store.missing(names):
                            ticks.skip(len(names))
                            continue
                        for name, found in zip(
                            names, student_saliencies(student, images), strict=True
                        ):
                            store.put_bytes(name, encode_mask(_levels(found)))
                        ticks.advance(len(names))
        return _maps_of(LabelMaps(kept, "levels", photos.names)), kept

    def _from_folder(self, folder: SaliencyFolder, split: Split) -> tuple[SaliencyMaps, Stage]:
        photos = self.run.part(split).photos
        folder.check(photos.names)
        made_from = {"maps": folder.digest(photos.names)}

        def read(index: int) -> SaliencyMap:
            height, width = photos.image(index).shape[:2]
            return folder.map(photos.names[index], (height, width))

        return self._stored(split, made_from, read)

    def _learned(self, boxes: BoxSet, split: Split) -> tuple[SaliencyMaps, Stage]:
        net, stage = self._trained(boxes)
        if stage not in self.curves:
            self.curves.append(stage)
        run = self.run
        photos, key, prefix = run.part(split)
        with run.stage(f"{prefix}saliency", {}, [stage, key]) as kept:
            if kept.pending:
                store = kept.maps("levels")
                net.to(run.setup.execution.device).eval()

                def compute(images: torch.Tensor, indices: list[int]) -> None:
                    probs = torch.softmax(net(images).float(), 1)[:, OBJECT]
                    for index, levels in zip(indices, _levels(probs.cpu().numpy()), strict=True):
                        store.put_bytes(photos.names[index], encode_mask(levels))

                each_batch(run, photos, "saliency maps", store.missing, compute)
        return _maps_of(LabelMaps(kept, "levels", photos.names)), kept

    def _trained(self, boxes: BoxSet) -> tuple[AsppNet, Stage]:
        """DeepLab-v2 on masks that GrabCut makes of the boxes (6.1 and F)."""
        run, config, setup = self.run, self.config, self.setup
        photos = WorkingPhotos(boxes.dataset(), config.photo_side)
        key = f"boxes {boxes.digest} {photos.dataset.fingerprint()}"
        mine = replace(run, photos=photos, photos_key=key)

        def mask(index: int) -> Labels:
            image = photos.image(index)
            return object_mask(image, boxes.photos[index].boxes_at(image.shape[:2]))

        masks = training_labels(mine, "box-masks", mask, {"side": config.photo_side}, [])
        shapes = some_shapes(photos)
        schedule = saliency_schedule(config, setup, len(photos))
        how = Augmentation(grid_crop(shapes, config.segmenter_crop), scale=(0.5, 1.5))
        scale = view_scale(config, shapes)
        torch.manual_seed(setup.execution.seed)
        net = AsppNet(setup.build_backbone(config), 2, view_scale=scale)
        grid = min(loss_stride(how.size), net.backbone.output_stride)
        made_from = {
            **setup.settings(),
            "loss_stride": grid,
            "output_stride": net.backbone.output_stride,
            "form": "aspp",
            "view_scale": scale,
            "augmentation": asdict(how),
        }
        fit = partial(
            fit_on_grid, net, photos, masks, grid_cross_entropy, how, schedule, loss_stride=grid
        )
        stage = trained(
            replace(run, setup=setup),
            "saliency-net",
            "the saliency network",
            net,
            fit,
            schedule,
            made_from,
            [masks.stage],
            tensors="saliency",
        )
        return net, stage

    def _stored(
        self, split: Split, made_from: dict[str, Any], make: SaliencyMaps
    ) -> tuple[SaliencyMaps, Stage]:
        """Maps that are made photo by photo, in threads, and kept."""
        labels = training_labels(
            self.run,
            "saliency",
            lambda index: _levels(make(index)),
            {"source": self.source, "photo_side": self.config.photo_side, **made_from},
            [],
            split=split,
        )
        return _maps_of(labels), labels.stage


def _levels(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Maps in [0, 1] as whole levels, to be stored."""
    return np.rint(np.clip(maps, 0, 1) * _LEVELS).astype(np.uint8)


def _maps_of(levels: LabelMaps) -> SaliencyMaps:
    return lambda index: levels(index).astype(np.float32) / np.float32(_LEVELS)
