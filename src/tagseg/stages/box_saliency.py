"""A saliency network that learns from boxes in other photos (Oh et al. 2017, 6.1 and F)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from tagseg.data.masks import encode_mask
from tagseg.data.transforms import Augmentation
from tagseg.data.working import WorkingPhotos
from tagseg.formats.boxes import BoxSet, read_boxes
from tagseg.formats.lists.name_lookup import NameLookup
from tagseg.formats.lists.photo_lists import read_list
from tagseg.maps import Labels
from tagseg.nets.aspp import AsppNet
from tagseg.refine.box_masks import OBJECT, object_mask
from tagseg.segment.fit import fit_on_grid
from tagseg.stages.context import Run, Setup
from tagseg.stages.large_fov import grid_crop, grid_cross_entropy, loss_stride
from tagseg.stages.schedules import MANY_PHOTOS, short_schedule
from tagseg.stages.settings import SaliencySettings
from tagseg.stages.shapes import NetworkForm, some_shapes, view_scale
from tagseg.stages.stage import (
    Declared,
    Images,
    Trained,
    label_maps,
    levels,
    network_input,
    trained,
)
from tagseg.training import Schedule

__all__ = ["BoxSaliency", "saliency_schedule"]

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


class BoxSaliency:
    """DeepLab-v2, trained on boxes of things of other classes than the run's.

    Args:
        file: of the boxes.

    Attributes:
        boxes: those to learn from.
        setup: what the network is trained with.
    """

    def __init__(self, run: Run, config: SaliencySettings, file: Path) -> None:
        self.run, self.config = run, config
        self.boxes = boxes_of_others(run, config, file)
        self.setup = run.setup.on(config.saliency_backbone, config.saliency_weights)

    def answers(
        self, net: AsppNet, images: Images, indices: list[int]
    ) -> Iterator[dict[str, bytes]]:
        """What the trained network says of a batch: how salient each pixel is, in levels."""
        execution = self.run.setup.execution
        net.to(execution.device).eval()
        with network_input(execution, images) as x:
            probs = torch.softmax(net(x).float(), 1)[:, OBJECT]
        for found in levels(probs.cpu().numpy()):
            yield {"levels": encode_mask(found)}

    def trained(self) -> Trained[AsppNet]:
        """DeepLab-v2 on masks that GrabCut makes of the boxes."""
        run, config, setup, boxes = self.run, self.config, self.setup, self.boxes
        photos = WorkingPhotos(boxes.dataset(), run.photos.side)
        key = f"boxes {boxes.digest} {photos.dataset.fingerprint()}"
        mine = replace(run, photos=photos, photos_key=key, given=None)

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


def boxes_of_others(run: Run, config: SaliencySettings, file: Path) -> BoxSet:
    """Boxes without those that would teach the run's classes; told where that cannot be seen."""
    photos = Path(config.box_photos) if config.box_photos is not None else None
    everything = read_boxes(file, photos)
    if config.boxes_left_out is not None:
        boxed = NameLookup(photo.name for photo in everything.photos)
        left_out = read_list(Path(config.boxes_left_out), boxed).names
        everything = everything.without_photos(left_out)
    boxes = everything.without_classes(run.photos.classes)
    if not boxes.classes and config.boxes_left_out is None:
        run.progress.say(
            f"note: {config.boxes} names no classes; leave pictures of the classes to be "
            "learned out with --set boxes_left_out=FILE"
        )
    return boxes
