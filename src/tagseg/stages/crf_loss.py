"""Losses on the segmenter's grid that hold a dense CRF (Kolesnikov & Lampert; Oh et al., C)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tagseg.losses.seed_expand_constrain import constrain_loss, sec_probabilities
from tagseg.refine.dense_crf import CrfParameters
from tagseg.refine.exact_crf import dense_crf_batch
from tagseg.segment.fit import GridBatch, GridObjective
from tagseg.stages.large_fov import grid_cross_entropy
from tagseg.stages.settings import CrfSettings

__all__ = ["constrain_to_boundaries", "grid_crf", "guide_objective"]

_GRID = 41  # positions of the paper's grid


_SHRINK = 12.0  # the authors' sigmas on that grid are those of the photo over 12


def grid_crf(settings: CrfSettings) -> CrfParameters:
    """The configured CRF on the segmenter's grid (SEC's code: sigmas over 12 at 41 x 41)."""
    weight, pixels, levels = settings.crf_bilateral
    smooth, narrow = settings.crf_smoothness
    return CrfParameters(
        bilateral=(weight, pixels / _SHRINK, levels),
        smoothness=(smooth, narrow / _SHRINK),
        iterations=settings.crf_iterations,
        reference_side=_GRID,
        filter="lattice",
    )


def constrain_to_boundaries(
    scores: Tensor, probs: Tensor, on_grid: GridBatch, crf: CrfParameters
) -> Tensor:
    """Divergence of ``probs`` (B, L, h, w) from what the CRF makes of ``scores``, a batch at once.

    The CRF takes the network's scores as they are, as in the authors' code.
    """
    refined = dense_crf_batch(on_grid.images, -scores.detach().float(), crf)
    return constrain_loss(probs, refined, valid=on_grid.inside)


def guide_objective(settings: CrfSettings, *, constrained: bool) -> GridObjective:
    """Cross-entropy on guide labels, with the constrain-to-boundary loss or without."""
    return GridAndBoundaries(grid_crf(settings)) if constrained else grid_cross_entropy


@dataclass(frozen=True)
class GridAndBoundaries:
    """Cross-entropy and the divergence from what ``crf`` makes of the scores."""

    crf: CrfParameters

    def __call__(self, scores: Tensor, on_grid: GridBatch) -> Tensor:
        """The loss of a batch."""
        probs = sec_probabilities(scores)
        boundaries = constrain_to_boundaries(scores, probs, on_grid, self.crf)
        return grid_cross_entropy(scores, on_grid) + boundaries
