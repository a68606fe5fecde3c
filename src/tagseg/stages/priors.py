"""Priors of the photos: foreground probability and crisp regions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch

from tagseg.maps import SaliencyMap
from tagseg.priors.activations import channel_means, foreground_probability
from tagseg.run.workspace import Stage
from tagseg.stages.config import TrainingConfig
from tagseg.stages.context import Run, Split
from tagseg.stages.crf import RegionFinder, Regions
from tagseg.stages.labels import each_batch, photo_arrays

__all__ = ["activation_prior", "photo_regions"]

Prior = Callable[[int], SaliencyMap]


PhotoRegions = Callable[[int], Regions]


def activation_prior(
    run: Run, config: TrainingConfig, *, saturate: float = 0.0, split: Split = "train"
) -> tuple[Prior, Stage]:
    """Foreground probability P_f of the photos (Saleh et al. 3.1.1).

    From the pre-trained network as it comes: fine-tuning it on the tags did not help in the paper
    (4.2.2). Stored as the channel means of the two blocks; read at working size.
    """
    photos, key, prefix = run.part(split)
    stride = run.setup.output_stride(config)
    strides = (8 if run.setup.backbone == "vgg16" else stride, stride)
    made_from = {
        **run.setup.settings(),
        "photo_side": config.photo_side,
        "output_stride": stride,
    }
    with run.stage(f"{prefix}activation-prior", made_from, [key]) as stage:
        if stage.pending:
            torch.manual_seed(run.setup.execution.seed)
            backbone = run.setup.build_backbone(config).eval()
            backbone.to(run.setup.execution.device)
            store = stage.maps("channel-means")

            def compute(images: torch.Tensor, indices: list[int]) -> None:
                means = [m.float().cpu().numpy() for m in channel_means(backbone, images)]
                for index, block4, block5 in zip(indices, *means, strict=True):
                    store.put(
                        photos.names[index],
                        block4=block4.astype(np.float16),
                        block5=block5.astype(np.float16),
                    )

            each_batch(run, photos, "activation prior", store.missing, compute)

    def read(index: int) -> SaliencyMap:
        means = stage.maps("channel-means").get(photos.names[index])
        return foreground_probability(
            means["block4"].astype(np.float32),
            means["block5"].astype(np.float32),
            photos.image(index).shape[:2],
            saturate=saturate,
            strides=strides,
        )

    return read, stage


def photo_regions(
    run: Run, config: TrainingConfig, *, split: Split = "train"
) -> tuple[PhotoRegions, Stage]:
    """Crisp regions of the photos at working size (Saleh et al. 3.1.3)."""
    find = RegionFinder.of(config, run.setup.execution.seed)
    made_from = {"photo_side": config.photo_side, **asdict(find)}
    photos = run.part(split).photos
    return photo_arrays(
        run,
        "regions",
        "crisp regions",
        lambda index: find(photos.image(index)),
        made_from,
        split=split,
    )
