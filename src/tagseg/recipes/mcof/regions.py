"""The stages of a round of MCOF (Wang et al. 2018): regions, their seeds, RegionNet, supplement.

The recipe tells the story; what each stage depends on and how its results are kept stands here. A
region is a superpixel: one of the pieces that a photo is cut into.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from tagseg.data.masks import encode_mask
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
from tagseg.maps import Labels, Probs, label_of_tag
from tagseg.nets.gap import GapClassifier
from tagseg.nets.regionnet import RegionNet, initialise_from_classifier
from tagseg.priors.superpixels import neighbours
from tagseg.recipes.mcof.config import (
    BayesSettings,
    Config,
    RegionNetForm,
    SeedSettings,
    UnseededSettings,
)
from tagseg.segment.regions import describe_regions, fit_regions, predict_regions
from tagseg.stages.context import Run, Setup
from tagseg.stages.crf import Smoothing
from tagseg.stages.priors import PhotoSuperpixels, photo_superpixels
from tagseg.stages.schedules import short_schedule, shortened, uses_paper_schedule
from tagseg.stages.settings import CrfSettings, ReferenceSide
from tagseg.stages.shapes import Seen, some_shapes
from tagseg.stages.stage import (
    Declared,
    Images,
    Input,
    LabelMaps,
    SaliencyMaps,
    ScoreMaps,
    Trained,
    label_maps,
    per_batch,
    trained,
)
from tagseg.training import Schedule

__all__ = ["MinedRegions", "RegionMiner", "initial_seeds", "region_schedule", "supplemented"]

_SEEDS = Declared("seeds")
_REGIONNET = Declared("regionnet", weights="regionnet")
_REGIONS = Declared("object-regions", title="regions")
_SUPPLEMENT = Declared("supplement")

_REGION_BATCH = 4  # photos a batch, of many regions each
_REGION_HEAD = 0.1  # factor on the learning rate of RegionNet's fc6 and fc7
_PAPER_SIDE, _PAPER_STRIDE = 800, 16  # Fast R-CNN's photos have 600 pixels on the shorter side
_LEAST_SIDE, _FINE_STRIDE = 256, 8  # at 16, positions in small photos would hold whole objects
_ENLARGED = 2.0  # small photos, at most
_DEEP = ("vgg16", "resnet50", "resnet101")  # as deep as the paper's
_OTHER_WIDTH = 256
_MOST_PHOTOS, _MOST_PIXELS = 16, 1 << 22  # of a forward pass
_LEAST = 1e-6  # of a probability whose logarithm is a cost


def region_schedule(config: Config, setup: Setup, n_photos: int) -> Schedule:
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
    epochs = config.regionnet_epochs
    factor = config.backbone_rate(config.classifier_backbone_factor)
    short = short_schedule(iterations, size or _REGION_BATCH, rate, epochs, factor, n_photos)
    # fc6 has up to 60,000 inputs, none below 0: at the rate of a convolution it overshoots.
    return replace(short, multipliers={**short.multipliers, "head": _REGION_HEAD})


@dataclass(frozen=True)
class MinedRegions:
    """What RegionNet found in the training photos, and the network itself."""

    labels: LabelMaps
    net: Trained[RegionNet]


class RegionMiner:
    """Superpixels of the training photos, and networks that learn to label them (4.1, 4.2)."""

    def __init__(self, run: Run, config: Config) -> None:
        self.run, self.config = run, config
        self.setup = run.setup.on(config.regionnet_backbone, config.regionnet_weights)
        self.superpixels = photo_superpixels(
            run, config.superpixel_settings(), config.only(ReferenceSide)
        )

    def mine(
        self,
        number: int,
        seeds: LabelMaps,
        seeder: Trained[GapClassifier],
        *,
        fraction: float = 1.0,
        start: MinedRegions | None = None,
    ) -> MinedRegions:
        """Train RegionNet on ``seeds`` and label every region of the photos with it (4.2).

        Args:
            number: of the round.
            seeds: labels (h, w) of the training photos.
            seeder: the tag classifier, from whose backbone RegionNet may start.
            fraction: of the schedule's iterations.
            start: the round to go on from, if any.
        """
        net = self._trained(number, seeds, seeder, fraction, start)
        photos, tags = self.run.photos, self.run.photos.tags
        side, execution = self._side(), self.setup.execution

        def make(images: Images, indices: list[int]) -> Iterator[dict[str, bytes]]:
            regions = [self.superpixels(index) for index in indices]
            found = predict_regions(net.model, images, regions, execution=execution, side=side)
            for index, probs, where in zip(indices, found, regions, strict=True):
                yield {"labels": encode_mask(paint(object_regions(probs, tags[index]), where))}

        stage = per_batch(
            self.run,
            _REGIONS.round(number),
            ["labels"],
            make,
            settings=[Seen(side)],
            inputs=[net, self.superpixels],
            batch=max(1, min(_MOST_PHOTOS, _MOST_PIXELS // side**2)),
        )
        return MinedRegions(LabelMaps(stage, "labels", photos.names), net)

    def features(self, mined: MinedRegions, index: int) -> npt.NDArray[np.float32]:
        """fc7 (n, width) of the regions of training photo ``index``."""
        image, regions = self.run.photos.image(index), self.superpixels(index)
        execution, side, net = self.setup.execution, self._side(), mined.net.model
        return describe_regions(net, image[None], [regions], execution=execution, side=side)[0]

    def _labels_of(self, seeds: LabelMaps, index: int) -> npt.NDArray[np.uint8]:
        """Label of each region (n,), by what most of its pixels are."""
        regions = self.superpixels(index)
        return region_labels(seeds(index), regions, min_fraction=self.config.seed_fraction)

    def _trained(
        self,
        number: int,
        seeds: LabelMaps,
        seeder: Trained[GapClassifier],
        fraction: float,
        start: MinedRegions | None,
    ) -> Trained[RegionNet]:
        """Eq. 1, on as many regions of each label (4.2)."""
        run, config, setup = self.run, self.config, self.setup
        photos = run.photos
        schedule = shortened(region_schedule(config, setup, len(photos)), fraction)
        how = self._samples()
        net = self._network()
        inputs: list[Input] = [self.superpixels, seeds]
        if start is not None:
            net.load_state_dict(start.net.model.state_dict())
            inputs.append(start.net)
        elif config.regionnet_start == "classifier" and config.regionnet_backbone is None:
            net.backbone.load_state_dict(seeder.model.backbone.state_dict())
            inputs.append(seeder)
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
        return trained(
            run,
            _REGIONNET.round(number),
            net,
            fit,
            schedule,
            settings=[config.only(RegionNetForm), how],
            inputs=inputs,
            setup=setup,
            title=f"RegionNet, round {number}",
        )

    def _network(self) -> RegionNet:
        setup, config = self.setup, self.config
        torch.manual_seed(setup.execution.seed)
        backbone = setup.build_backbone(config, output_stride=self._stride(), dilated=False)
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

    def _stride(self) -> int:
        """Pixels per position of RegionNet's features."""
        coarse = self.setup.backbone in _DEEP and self._side() > _PAPER_SIDE / 2
        return _PAPER_STRIDE if coarse else _FINE_STRIDE


def initial_seeds(
    run: Run, config: Config, scores: ScoreMaps, regions_of: PhotoSuperpixels
) -> LabelMaps:
    """Seeds: regions where a present tag's map has a local maximum, or is high (4.1).

    All else is background (4.2), or not known where it is not cold.
    """
    photos, settings, rest = run.photos, config.only(SeedSettings), config.only(UnseededSettings)
    decided_by = [settings, *([rest] if rest.unseeded != "ignore" else [])]

    def make(index: int) -> Labels:
        regions = regions_of(index)
        found = region_seeds(
            scores(index),
            regions,
            neighbours(regions),
            photos.tags[index],
            threshold=settings.seed_threshold,
            background_threshold=settings.background_threshold,
            unseeded=rest.unseeded,
        )
        return paint(found, regions)

    return label_maps(run, _SEEDS, make, settings=decided_by, inputs=[scores, regions_of])


def supplemented(
    run: Run, config: Config, objects: MinedRegions, saliency: SaliencyMaps, miner: RegionMiner
) -> LabelMaps:
    """Object regions of photos of one class, supplemented by saliency (4.3, Eq. 2)."""
    photos, smoothing, settings = run.photos, Smoothing.of(config), config.only(BayesSettings)
    colours = settings.bayes_feature == "colour"

    def make(index: int) -> Labels:
        found, present = objects.labels(index), np.flatnonzero(photos.tags[index])
        if len(present) != 1:
            return found
        label, regions = label_of_tag(int(present[0])), miner.superpixels(index)
        image = photos.image(index)
        chances = object_probability(
            region_means(saliency(index), regions),
            colour_histograms(image, regions) if colours else miner.features(objects, index),
            region_labels(found, regions) == label,
            region_areas(regions),
            bandwidth=settings.bayes_bandwidth,
            distance="chi2" if colours else "cosine",
        )

        def binarise(probs: Probs) -> Probs:
            return smoothing(image, -np.log(probs.clip(_LEAST, 1)), probs, None)

        return refined_regions(paint(chances, regions), label, binarise)

    return label_maps(
        run,
        _SUPPLEMENT,
        make,
        settings=[settings, config.only(CrfSettings)],
        inputs=[objects.labels, saliency, miner.superpixels],
        network=not colours,
    )
