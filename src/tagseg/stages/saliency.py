"""Saliency maps of the photos: learned from boxes, made elsewhere, or free of any training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from tagseg.data.masks import encode_mask
from tagseg.data.saliency_maps import SaliencyFolder
from tagseg.data.transforms import Augmentation
from tagseg.data.working import WorkingPhotos
from tagseg.formats.boxes import BoxSet, read_boxes
from tagseg.formats.lists.name_lookup import NameLookup
from tagseg.formats.lists.photo_lists import read_list
from tagseg.maps import Image, Labels, SaliencyMap
from tagseg.nets.aspp import AsppNet
from tagseg.nets.student import StudentNet
from tagseg.priors.onnx_saliency import OnnxSaliency, find_model
from tagseg.priors.saliency.drfi import DrfiSettings, drfi_saliency, shipped_forest
from tagseg.priors.saliency.forest import RegionForest
from tagseg.priors.saliency.minimum_barrier import MinimumBarrierSettings, minimum_barrier_saliency
from tagseg.priors.student import load_student, shipped_student, student_saliencies
from tagseg.refine.box_masks import OBJECT, object_mask
from tagseg.run.workspace import Stage
from tagseg.segment.fit import fit_on_grid
from tagseg.stages.context import Run, Setup, Split
from tagseg.stages.large_fov import grid_crop, grid_cross_entropy, loss_stride
from tagseg.stages.priors import activation_prior
from tagseg.stages.schedules import MANY_PHOTOS, short_schedule
from tagseg.stages.settings import SaliencySettings
from tagseg.stages.shapes import NetworkForm, some_shapes, view_scale
from tagseg.stages.stage import (
    Declared,
    Images,
    Plain,
    SaliencyMaps,
    Trained,
    label_maps,
    levels,
    network_input,
    per_batch,
    saliency_maps,
    trained,
)
from tagseg.training import Schedule

__all__ = ["PhotoSaliency", "saliency_schedule"]

_SALIENCY = Declared("saliency", title="saliency maps")
_BOX_MASKS = Declared("box-masks")
_NET = Declared("saliency-net", weights="saliency")


def saliency_schedule(settings: SaliencySettings, setup: Setup, n_photos: int) -> Schedule:
    """Chen et al. 2017, 4.1 (batches of 10, rate 2.5e-4, poly over 20,000), or short."""
    paper = settings.schedule == "paper"
    if paper or (settings.schedule == "auto" and n_photos >= MANY_PHOTOS):
        return Schedule(
            settings.saliency_iterations or 20_000,
            10,
            2.5e-4,
            multipliers={"score": 10.0, "score_bias": 20.0},
        )
    return short_schedule(
        settings.saliency_iterations,
        None,
        None,
        settings.saliency_epochs,
        settings.backbone_rate(settings.segmenter_backbone_factor),
        n_photos,
    )


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
        self.boxes: BoxSet | None = None
        self.folder: SaliencyFolder | None = None
        self.forest: RegionForest | None = None
        self.student: StudentNet | None = None
        self.network: OnnxSaliency | None = None
        self.setup = run.setup
        if self.source == "boxes" and config.boxes is not None:
            photos = Path(config.box_photos) if config.box_photos is not None else None
            everything = read_boxes(Path(config.boxes), photos)
            if config.boxes_left_out is not None:
                boxed = NameLookup(photo.name for photo in everything.photos)
                left_out = read_list(Path(config.boxes_left_out), boxed).names
                everything = everything.without_photos(left_out)
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

    def _learned(self, boxes: BoxSet, split: Split) -> SaliencyMaps:
        trained_on_boxes = self._trained(boxes)
        if trained_on_boxes.stage not in self.curves:
            self.curves.append(trained_on_boxes.stage)
        net, execution = trained_on_boxes.model, self.run.setup.execution

        def make(images: Images, indices: list[int]) -> Iterator[dict[str, bytes]]:
            net.to(execution.device).eval()
            with network_input(execution, images) as x:
                probs = torch.softmax(net(x).float(), 1)[:, OBJECT]
            for found in levels(probs.cpu().numpy()):
                yield {"levels": encode_mask(found)}

        stage = per_batch(
            self.run,
            self._stage,
            ["levels"],
            make,
            settings=[_Source(self.source)],
            inputs=[trained_on_boxes],
            split=split,
        )
        return saliency_maps(self.run, stage, split, "levels")

    def _trained(self, boxes: BoxSet) -> Trained[AsppNet]:
        """DeepLab-v2 on masks that GrabCut makes of the boxes (6.1 and F)."""
        run, config, setup = self.run, self.config, self.setup
        photos = WorkingPhotos(boxes.dataset(), run.photos.side)
        key = f"boxes {boxes.digest} {photos.dataset.fingerprint()}"
        mine = replace(run, photos=photos, photos_key=key)

        def mask(index: int) -> Labels:
            image = photos.image(index)
            return object_mask(image, boxes.photos[index].boxes_at(image.shape[:2]))

        masks = label_maps(mine, _BOX_MASKS, mask)
        shapes = some_shapes(photos)
        schedule = saliency_schedule(config, setup, len(photos))
        crop = grid_crop(shapes, config.segmenter_crop)
        how = Augmentation(crop, scale=(0.5, 1.5))
        torch.manual_seed(setup.execution.seed)
        net = AsppNet(setup.build_backbone(config), 2, view_scale=view_scale(config, shapes))
        grid = min(loss_stride(crop), net.backbone.output_stride)
        return trained(
            mine,
            _NET,
            net,
            partial(
                fit_on_grid, net, photos, masks, grid_cross_entropy, how, schedule, loss_stride=grid
            ),
            schedule,
            settings=[NetworkForm.of(net, config), how],
            inputs=[masks],
            setup=setup,
            title="the saliency network",
        )


@dataclass(frozen=True)
class _Source(Plain):
    """Where saliency comes from."""

    saliency: str
