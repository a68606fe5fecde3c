"""Losses on the segmenter's grid that hold a dense CRF (Kolesnikov & Lampert; Oh et al., C)."""

from __future__ import annotations

from dataclasses import asdict

from torch import Tensor

from tagseg.losses.seed_expand_constrain import constrain_loss, sec_probabilities
from tagseg.refine.dense_crf import CrfParameters
from tagseg.refine.exact_crf import dense_crf_batch
from tagseg.segment.fit import GridBatch, GridObjective
from tagseg.stages.config import TrainingConfig
from tagseg.stages.large_fov import grid_cross_entropy

__all__ = ["constrain_to_boundaries", "grid_crf", "guide_objective"]

_GRID = 41  # positions of the paper's grid


_SHRINK = 12.0  # the authors' sigmas on that grid are those of the photo over 12


def grid_crf(config: TrainingConfig) -> CrfParameters:
    """The configured CRF on the segmenter's grid (SEC's code: sigmas over 12 at 41 x 41)."""
    weight, pixels, levels = config.crf_bilateral
    smooth, narrow = config.crf_smoothness
    return CrfParameters(
        bilateral=(weight, pixels / _SHRINK, levels),
        smoothness=(smooth, narrow / _SHRINK),
        iterations=config.crf_iterations,
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


def guide_objective(config: TrainingConfig, *, constrained: bool) -> tuple[GridObjective, str]:
    """Cross-entropy on guide labels, with the constrain-to-boundary loss or without; its name."""
    if not constrained:
        return grid_cross_entropy, "cross-entropy on the grid"
    crf = grid_crf(config)

    def loss(scores: Tensor, on_grid: GridBatch) -> Tensor:
        probs = sec_probabilities(scores)
        boundaries = constrain_to_boundaries(scores, probs, on_grid, crf)
        return grid_cross_entropy(scores, on_grid) + boundaries

    return loss, f"cross-entropy and boundaries on the grid, {asdict(crf)}"
