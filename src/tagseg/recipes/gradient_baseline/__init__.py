"""Gradients as seeds: the back-propagation seeders of Oh et al., CVPR 2017."""

from tagseg.recipes.gradient_baseline.config import Config
from tagseg.recipes.gradient_baseline.recipe import RECIPE, run

__all__ = ["RECIPE", "Config", "run"]
