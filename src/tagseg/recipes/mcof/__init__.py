"""MCOF: Wang et al., CVPR 2018."""

from tagseg.recipes.mcof.config import Config
from tagseg.recipes.mcof.recipe import PAPER, run

__all__ = ["PAPER", "Config", "run"]
