"""Guided segmentation: Oh et al., CVPR 2017."""

from tagseg.recipes.guided.config import Config
from tagseg.recipes.guided.recipe import PAPER, run

__all__ = ["PAPER", "Config", "run"]
