"""The stages of a round of MCOF (Wang et al. 2018): regions, their seeds, RegionNet, supplement.

The recipe tells the story; what each stage depends on and how its results are kept stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tagseg.data.images import encode_mask
from tagseg.data.transforms import Augmentation, crop_size
from tagseg.fuse.bayes import colour_histograms, object_probability, refined_regions
from tagseg.fuse.region_seeds import (
    object_regions,
    paint,
    region_areas,
    region_labels,
    region_means,
    region_seeds,
)
from tagseg.maps import Labels, Probs, SaliencyMap, ScoreMap, label_of_tag
from tagseg.nets.catalog import build_backbone
from tagseg.nets.regionnet import RegionNet, initialise_from_classifier
from tagseg.priors.superpixels import (
    Superpixels,
    neighbours,
    superpixels,
)
from tagseg.recipes.mcof.config import RegionConfig
from tagseg.run.workspace import Stage
from tagseg.segment.predict import Segmenter
from tagseg.segment.regions import (
    describe_regions,
    fit_regions,
    predict_regions,
)
from tagseg.stages.context import Run, Setup
from tagseg.stages.crf import Smoothing
from tagseg.stages.labels import LabelMaps, photo_arrays, training_labels
from tagseg.stages.schedules import _short, shortened, uses_paper_schedule
from tagseg.stages.seeder import SeederMaps
from tagseg.stages.shapes import some_shapes
from tagseg.stages.trained import trained
from tagseg.training import Schedule

__all__ = [
    "Mined",
    "MinedRegions",
    "RegionMiner",
    "initial_seeds",
    "region_schedule",
    "supplemented",
]

_REGION_BATCH = 4  # photos a batch, of many regions each


_REGION_HEAD = 0.1  # factor on the learning rate of RegionNet's fc6 and fc7


def region_schedule(config: RegionConfig, setup: Setup, n_photos: int) -> Schedule:
    """Girshick 2015, 4 (two photos a batch, rate 1e-3, a tenth for the last 10,000), or short."""
    iterations, size = config.regionnet_iterations, config.regionnet_batch_size
    rate = config.regionnet_learning_rate
    if uses_paper_schedule(config, setup, n_photos):
        return Schedule(
            iterations or 40_000,
            size or 2,
            rate or 1e-3,
            policy="step",
            steps=(3 / 4,),
            multipliers={"score_bias": 2.0},
        )
    epochs, factor = config.regionnet_epochs, config.classifier_backbone_factor
    short = _short(iterations, size or _REGION_BATCH, rate, epochs, factor, n_photos)
    # fc6 has up to 60,000 inputs, none below 0: at the rate of a convolution it overshoots.
    return replace(short, multipliers={**short.multipliers, "head": _REGION_HEAD})


_PAPER_SIDE, _PAPER_STRIDE = 800, 16  # Fast R-CNN's photos have 600 pixels on the shorter side


_LEAST_SIDE, _FINE_STRIDE = 256, 8  # at 16, positions in small photos would hold whole objects


_ENLARGED = 2.0  # small photos, at most


_DEEP = ("vgg16", "resnet50", "resnet101")  # as deep as the paper's


_OTHER_WIDTH = 256


_MOST_PHOTOS, _MOST_PIXELS = 16, 1 << 22  # of a forward pass


_LEAST = 1e-6  # of a probability whose logarithm is a cost


PhotoSuperpixels = Callable[[int], Superpixels]


@dataclass(frozen=True)
class MinedRegions:
    """What RegionNet found in the training photos, and the network itself."""

    labels: LabelMaps
    net: RegionNet
    training: Stage


@dataclass(frozen=True)
class Mined:
    """What a round gave: regions (None without mining), what PixelNet learned from, its masks."""

    regions: MinedRegions | None
    labels: LabelMaps
    pixel_net: tuple[Segmenter, Stage]
    masks: LabelMaps

    def trainings(self) -> list[Stage]:
        """The stages that logged a training."""
        first = [self.regions.training] if self.regions is not None else []
        return [*first, self.pixel_net[1]]


class RegionMiner:
    """Superpixels of the training photos, and networks that learn to label them (4.1, 4.2)."""

    def __init__(self, run: Run, config: RegionConfig) -> None:
        self.run, self.config = run, config
        self.setup = run.setup.on(config.regionnet_backbone, config.regionnet_weights)
        self.superpixels, self.stage = photo_superpixels(run, config)

    def mine(
        self,
        number: int,
        seeds: LabelMaps,
        seeding: SeederMaps,
        *,
        part: float = 1.0,
        start: MinedRegions | None = None,
    ) -> MinedRegions:
        """Train RegionNet on ``seeds`` and label every region of the photos with it (4.2).

        Args:
            number: of the round.
            seeds: labels (h, w) of the training photos.
            seeding: the tag classifier, from whose backbone RegionNet may start.
            part: of the schedule's iterations.
            start: the round to go on from, if any.
        """
        net, training = self._trained(number, seeds, seeding, part, start)
        photos, run = self.run.photos, self.run
        name = f"object-regions-{number}"
        with run.stage(
            name, {"side": self._side()}, [training, self.stage, run.photos_key]
        ) as stage:
            if stage.pending:
                store = stage.maps("labels")
                with run.task(f"regions of round {number}", len(photos)) as ticks:
                    for indices, images in photos.batches(self._batch()):
                        if not store.missing([photos.names[i] for i in indices]):
                            ticks.skip(len(indices))
                            continue
                        for index, labels in self._predicted(net, indices, images):
                            store.put_bytes(photos.names[index], encode_mask(labels))
                        ticks.advance(len(indices))
        return MinedRegions(LabelMaps(stage, "labels", photos.names), net, training)

    def features(self, mined: MinedRegions, index: int) -> npt.NDArray[np.float32]:
        """fc7 (n, width) of the regions of training photo ``index``."""
        image, regions = self.run.photos.image(index), self.superpixels(index)
        execution, side = self.setup.execution, self._side()
        rows = describe_regions(mined.net, image[None], [regions], execution=execution, side=side)
        return rows[0]

    def _labels_of(self, seeds: LabelMaps, index: int) -> npt.NDArray[np.uint8]:
        """Label of each region (n,), by what most of its pixels are."""
        regions = self.superpixels(index)
        return region_labels(seeds(index), regions, min_fraction=self.config.seed_share)

    def _predicted(
        self, net: RegionNet, indices: list[int], images: npt.NDArray[np.uint8]
    ) -> list[tuple[int, Labels]]:
        regions = [self.superpixels(index) for index in indices]
        probs = predict_regions(
            net, images, regions, execution=self.setup.execution, side=self._side()
        )
        tags = self.run.photos.tags
        return [
            (index, paint(object_regions(of_photo, tags[index]), where))
            for index, of_photo, where in zip(indices, probs, regions, strict=True)
        ]

    def _trained(
        self,
        number: int,
        seeds: LabelMaps,
        seeding: SeederMaps,
        part: float,
        start: MinedRegions | None,
    ) -> tuple[RegionNet, Stage]:
        """Eq. 1, on as many regions of each label (4.2)."""
        run, config, setup = self.run, self.config, self.setup
        photos = run.photos
        schedule = shortened(region_schedule(config, setup, len(photos)), part)
        how = self._samples()
        net = self._network()
        inputs: list[Stage | str] = [run.photos_key, self.stage, seeds.stage]
        if start is not None:
            net.load_state_dict(start.net.state_dict())
            inputs.append(start.training)
        elif config.regionnet_start == "classifier" and config.regionnet_backbone is None:
            net.backbone.load_state_dict(seeding.seeder.backbone.state_dict())
            inputs.append(seeding.curve)
        made_from = {
            **setup.settings(),
            "output_stride": net.backbone.output_stride,
            "width": net.fc7.out_features,
            "regions": config.regionnet_regions,
            "seed_share": config.seed_share,
            "augmentation": asdict(how),
        }
        fit = partial(
            fit_regions,
            net,
            photos,
            self.superpixels,
            partial(self._labels_of, seeds),
            how,
            schedule,
            regions_per_photo=config.regionnet_regions,
        )
        stage = trained(
            replace(run, setup=setup),
            f"regionnet-{number}",
            f"RegionNet, round {number}",
            net,
            fit,
            schedule,
            made_from,
            inputs,
            tensors="regionnet",
        )
        return net, stage

    def _network(self) -> RegionNet:
        setup, config = self.setup, self.config
        torch.manual_seed(setup.execution.seed)
        backbone = build_backbone(
            setup.backbone, setup.weights, output_stride=self._stride(), dilated=False
        )
        width = config.regionnet_width or (4096 if setup.backbone == "vgg16" else _OTHER_WIDTH)
        net = RegionNet(backbone, len(self.run.photos.classes) + 1, width)
        if setup.weights is not None:
            initialise_from_classifier(net, setup.weights.state)
        return net

    def _samples(self) -> Augmentation:
        """Photos as Fast R-CNN sees them, whole where they are of the usual size."""
        shapes = np.asarray(some_shapes(self.run.photos))
        factor = self._side() / float(np.median(shapes.max(1)))
        seen = [(round(height * factor), round(width * factor)) for height, width in shapes]
        return Augmentation(crop_size(seen, self._side()), scale=(factor, factor))

    def _side(self) -> int:
        """Longer side of the photos that RegionNet sees, pixels.

        Small networks, which are chosen for their speed, see photos as they are.
        """
        if self.config.regionnet_side is not None:
            return self.config.regionnet_side
        longest = max(map(max, some_shapes(self.run.photos)))
        if self.setup.backbone in _DEEP:
            return min(_PAPER_SIDE, round(_ENLARGED * longest))
        return max(longest, min(_LEAST_SIDE, round(_ENLARGED * longest)))

    def _batch(self) -> int:
        """Photos a forward pass."""
        return max(1, min(_MOST_PHOTOS, _MOST_PIXELS // self._side() ** 2))

    def _stride(self) -> int:
        """Pixels per position of RegionNet's features."""
        coarse = self.setup.backbone in _DEEP and self._side() > _PAPER_SIDE / 2
        return _PAPER_STRIDE if coarse else _FINE_STRIDE


def photo_superpixels(run: Run, config: RegionConfig) -> tuple[PhotoSuperpixels, Stage]:
    """Graph-based superpixels of the training photos at working size (4.1)."""
    photos, settings = run.photos, config.superpixel_settings()
    made_from = {
        **asdict(settings),
        "photo_side": config.photo_side,
        "reference_side": config.crf_reference_side,
    }

    def make(index: int) -> npt.NDArray[np.integer]:
        found = superpixels(photos.image(index), settings, reference_side=config.crf_reference_side)
        return found.astype(np.uint16 if found.max() < 1 << 16 else np.int32)

    read, stage = photo_arrays(run, "superpixels", "superpixels", make, made_from)
    return lambda index: read(index).astype(np.int32), stage


def initial_seeds(
    run: Run,
    config: RegionConfig,
    scores_of: Callable[[int], ScoreMap],
    scores: Stage,
    miner: RegionMiner,
) -> LabelMaps:
    """Seeds: regions where a present tag's map has a local maximum, or is high (4.1)."""
    photos = run.photos
    thresholds = {
        "threshold": config.seed_threshold,
        "background_threshold": config.background_threshold,
    }

    def make(index: int) -> Labels:
        regions = miner.superpixels(index)
        found = region_seeds(
            scores_of(index), regions, neighbours(regions), photos.tags[index], **thresholds
        )
        return paint(found, regions)

    return training_labels(run, "seeds", make, thresholds, [scores, miner.stage])


def supplemented(
    run: Run,
    config: RegionConfig,
    objects: MinedRegions,
    saliency_of: Callable[[int], SaliencyMap],
    saliency: Stage,
    miner: RegionMiner,
) -> LabelMaps:
    """Object regions of photos of one class, supplemented by saliency (4.3, Eq. 2)."""
    photos, smoothing = run.photos, Smoothing.of(config)

    def make(index: int) -> Labels:
        found, present = objects.labels(index), np.flatnonzero(photos.tags[index])
        if len(present) != 1:
            return found
        label, regions = label_of_tag(int(present[0])), miner.superpixels(index)
        image = photos.image(index)
        colours = config.bayes_feature == "colour"
        chances = object_probability(
            region_means(saliency_of(index), regions),
            colour_histograms(image, regions) if colours else miner.features(objects, index),
            region_labels(found, regions) == label,
            region_areas(regions),
            bandwidth=config.bayes_bandwidth,
            distance="chi2" if colours else "cosine",
        )

        def binarise(probs: Probs) -> Probs:
            return smoothing(image, -np.log(probs.clip(_LEAST, 1)), probs, None)

        return refined_regions(paint(chances, regions), label, binarise)

    made_from: dict[str, Any] = {
        "feature": config.bayes_feature,
        "bandwidth": config.bayes_bandwidth,
        "crf": asdict(smoothing.parameters),
    }
    inputs = [objects.labels.stage, saliency, miner.stage]
    return training_labels(run, "supplement", make, made_from, inputs)
