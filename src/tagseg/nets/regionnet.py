"""RegionNet: the label of a region, by masked Fast R-CNN (Wang et al. 2018, section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagseg.errors import ConfigError
from tagseg.nets.backbone import Backbone
from tagseg.nets.masked_pooling import masked_roi_pool, region_cells

__all__ = ["RegionNet", "initialise_from_classifier"]

_BINS = 7  # a side, as VGG-16's classifier has it
_VGG_WIDTH = 4096


class RegionNet(nn.Module):
    """Scores per region and label: features once a photo, pooled per region, fc6, fc7, ``score``.

    fc6 takes the bins row by row and the channels of a bin together, as pooling gives them:
    (7, 7, C) where torchvision's classifier takes (C, 7, 7).

    Args:
        backbone: the network below. Fast R-CNN has VGG-16's conv5_3, at stride 16 and not dilated.
        n_labels: C + 1, background first.
        width: units of fc6 and fc7; the paper's on VGG-16 is 4096.
        dropout: probability after fc6 and after fc7, in training.

    Raises:
        ConfigError: if a number cannot be meant.
    """

    def __init__(
        self, backbone: Backbone, n_labels: int, width: int = _VGG_WIDTH, *, dropout: float = 0.5
    ) -> None:
        super().__init__()
        if n_labels < 2:
            raise ConfigError(f"{n_labels} labels", do="give background and at least one class")
        if width < 1:
            raise ConfigError(f"a width of {width}", do="use at least 1")
        self.backbone = backbone
        self.fc6 = nn.Linear(_BINS * _BINS * backbone.out_channels, width)
        self.fc7 = nn.Linear(width, width)
        self.score = nn.Linear(width, n_labels)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.bias)

    def forward(
        self, x: Tensor, regions: Tensor | npt.NDArray[np.integer]
    ) -> tuple[Tensor, Tensor]:
        """Logits of the regions of a batch.

        Args:
            x: (B, 3, H, W) RGB in [0, 1].
            regions: (B, H', W') integers, ids from 0 in each photo; pixels of -1 belong to none,
                so regions that are not asked for cost nothing. H' and W' may be larger than H and
                W: then no region is lost where the photo was made smaller.

        Returns:
            Logits (R, n_labels) and int64 (R, 2), the photo and id of each row, ascending. Ids that
            no pixel has are left out.

        Raises:
            ShapeError: regions is no such map, or not of as many photos.
        """
        features, ids = self.features_of(x, regions)
        return self.score(features), ids

    def scores_of_labelled(
        self, x: Tensor, regions: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (R, n_labels) of the regions of a batch, and the label (R,) int64 of each.

        ``labels`` (B, M) holds those of each photo's regions by their ids; other arguments and
        errors are those of :meth:`forward`.
        """
        logits, ids = self(x, regions)
        return logits, labels[ids[:, 0], ids[:, 1]].long()

    def features_of(
        self, x: Tensor, regions: Tensor | npt.NDArray[np.integer]
    ) -> tuple[Tensor, Tensor]:
        """What ``score`` sees of each region: fc7 after ReLU (R, width), and the rows' ids.

        Arguments, ids and errors are those of :meth:`forward`.
        """
        features = self.backbone(x)
        array = regions.cpu().numpy() if isinstance(regions, Tensor) else regions
        cells = region_cells(
            array,
            (features.shape[2], features.shape[3]),
            self.backbone.grid_stride,
            seen=(x.shape[2], x.shape[3]),
        )
        pooled = masked_roi_pool(features, cells, _BINS)
        rows = pooled.permute(0, 2, 3, 1).flatten(1)  # no copy
        rows = self.dropout(F.relu(self.fc6(rows)))
        rows = self.dropout(F.relu(self.fc7(rows)))
        return rows, torch.from_numpy(cells.ids).to(x.device)

    def parameter_groups(self) -> list[dict[str, object]]:
        """``backbone``, ``head`` (fc6, fc7), ``score`` (weights) and ``score_bias``.

        For a learning rate each, as :class:`tagseg.nets.deeplab.SegmentationNet` has them.
        """
        return [
            *self.backbone.parameter_groups(),
            {"name": "head", "params": [*self.fc6.parameters(), *self.fc7.parameters()]},
            {"name": "score", "params": [self.score.weight]},
            {"name": "score_bias", "params": [self.score.bias]},
        ]


def initialise_from_classifier(net: RegionNet, state: Mapping[str, Tensor]) -> bool:
    """Start fc6 and fc7 from VGG-16's classifier on ImageNet, as Fast R-CNN does.

    A narrower ``net`` takes every m-th of the 4096 units. ``score`` stays N(0, 0.01).

    Args:
        net: the network to initialise, in place.
        state: the weights file's entries (``classifier.{0,3}.{weight,bias}``).

    Returns:
        Whether ``state`` held a classifier that fits; where not, ``net`` stays as it is.
    """
    if not _has_vgg_classifier(net, state):
        return False
    width, channels = net.fc6.out_features, net.backbone.out_channels
    kept = torch.arange(width) * _VGG_WIDTH // width
    with torch.no_grad():
        taps = state["classifier.0.weight"].view(_VGG_WIDTH, channels, _BINS, _BINS)
        net.fc6.weight.view(width, _BINS, _BINS, channels).copy_(taps[kept].permute(0, 2, 3, 1))
        net.fc6.bias.copy_(state["classifier.0.bias"][kept])
        net.fc7.weight.copy_(state["classifier.3.weight"][kept][:, kept])
        net.fc7.bias.copy_(state["classifier.3.bias"][kept])
    return True


def _has_vgg_classifier(net: RegionNet, state: Mapping[str, Tensor]) -> bool:
    expected = {"0": (_VGG_WIDTH, net.fc6.in_features), "3": (_VGG_WIDTH, _VGG_WIDTH)}
    return net.fc6.out_features <= _VGG_WIDTH and all(
        f"classifier.{i}.bias" in state
        and f"classifier.{i}.weight" in state
        and tuple(state[f"classifier.{i}.weight"].shape) == shape
        for i, shape in expected.items()
    )
