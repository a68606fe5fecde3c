"""Priors of the photos: foreground probability, superpixels and crisp regions."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tagseg.maps import SaliencyMap
from tagseg.nets.backbone import Backbone
from tagseg.priors.activations import channel_means, foreground_probability
from tagseg.priors.superpixels import Superpixels, SuperpixelSettings, superpixels
from tagseg.stages.context import Plain, Run, Split
from tagseg.stages.crf import RegionFinder, Regions
from tagseg.stages.settings import BackboneSettings, CrispForm, ReferenceSide
from tagseg.stages.stage import (
    Declared,
    Drawn,
    Images,
    Once,
    PhotoMaps,
    SaliencyMaps,
    network_input,
    per_batch,
    per_photo,
)

__all__ = [
    "BLOCKS",
    "PhotoRegions",
    "PhotoSuperpixels",
    "activation_prior",
    "photo_regions",
    "photo_superpixels",
]

BLOCKS = ("block4", "block5")
"""The blocks whose activations P_f is made from."""

_ACTIVATIONS = Declared("activation-prior")
_REGIONS = Declared("regions", title="crisp regions")
_SUPERPIXELS = Declared("superpixels")


@dataclass(frozen=True)
class Stride(Plain):
    """The backbone's, as it is built."""

    output_stride: int


PhotoRegions = PhotoMaps[Regions]
PhotoSuperpixels = PhotoMaps[Superpixels]


def activation_prior(
    run: Run,
    settings: BackboneSettings,
    *,
    saturate: float = 0.0,
    blocks: Collection[str] = BLOCKS,
    split: Split = "train",
) -> SaliencyMaps:
    """Foreground probability P_f of the photos (Saleh et al. 3.1.1).

    From the pre-trained network as it comes: fine-tuning it on the tags did not help in the paper
    (4.2.2). Kept as the channel means of the two blocks; read at working size, with ``saturate``
    of its pixels at either end as 0 and 1, from both ``blocks`` or from one of them.
    """
    photos, setup = run.split(split).photos, run.setup
    stride = setup.output_stride(settings)
    strides = (8 if setup.backbone == "vgg16" else stride, stride)

    @Once
    def backbone() -> Backbone:  # not built where the stage is finished
        torch.manual_seed(setup.execution.seed)
        return setup.build_backbone(settings).eval().to(setup.execution.device)

    def make(images: Images, indices: list[int]) -> Iterator[dict[str, Any]]:
        with network_input(setup.execution, images) as x:
            means = [m.float().cpu().numpy() for m in channel_means(backbone(), x)]
        for block4, block5 in zip(*means, strict=True):
            kept = {"block4": block4.astype(np.float16), "block5": block5.astype(np.float16)}
            yield {"channel-means": kept}

    stage = per_batch(
        run,
        _ACTIVATIONS,
        ["channel-means"],
        make,
        settings=[setup.means(), Stride(stride)],
        split=split,
    )

    def read(index: int) -> SaliencyMap:
        means = stage.maps("channel-means").get(photos.names[index])
        block4, block5 = (
            means[block].astype(np.float32) * np.float32(block in blocks) for block in BLOCKS
        )
        return foreground_probability(
            block4,
            block5,
            photos.image(index).shape[:2],
            saturate=saturate,
            strides=strides,
        )

    return SaliencyMaps(stage, read)


def photo_superpixels(
    run: Run, settings: SuperpixelSettings, reference: ReferenceSide
) -> PhotoSuperpixels:
    """Graph-based superpixels of the training photos at working size (Wang et al. 2018, 4.1)."""
    photos = run.photos

    def make(index: int) -> dict[str, Any]:
        image = photos.image(index)
        found = superpixels(image, settings, reference_side=reference.crf_reference_side)
        small = found.astype(np.uint16 if found.max() < 1 << 16 else np.int32)
        return {"superpixels": {"superpixels": small}}

    stage = per_photo(run, _SUPERPIXELS, ["superpixels"], make, settings=[settings, reference])

    def read(index: int) -> Superpixels:
        kept = stage.maps("superpixels").get(photos.names[index])["superpixels"]
        return kept.astype(np.int32)

    return PhotoSuperpixels(stage, read)


def photo_regions(run: Run, settings: CrispForm, *, split: Split = "train") -> PhotoRegions:
    """Crisp regions of the photos at working size (Saleh et al. 3.1.3)."""
    photos = run.split(split).photos
    find = RegionFinder.of(settings, run.setup.execution.seed)
    stage = per_photo(
        run,
        _REGIONS,
        ["regions"],
        lambda index: {"regions": {"regions": find(photos.image(index))}},
        settings=[settings.only(CrispForm), Drawn(find.seed), find.settings],
        split=split,
    )
    return PhotoRegions(
        stage, lambda index: stage.maps("regions").get(photos.names[index])["regions"]
    )
