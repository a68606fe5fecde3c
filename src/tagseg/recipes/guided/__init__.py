"""Guided segmentation: Oh et al., CVPR 2017."""

from tagseg.recipes.guided.config import Config
from tagseg.recipes.guided.recipe import RECIPE, run

__all__ = ["RECIPE", "Config", "run"]
