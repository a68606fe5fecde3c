"""Distinct class saliency maps: Shimoda and Yanai, ECCV 2016."""

from tagseg.recipes.dcsm.config import Config
from tagseg.recipes.dcsm.recipe import RECIPE, run

__all__ = ["RECIPE", "Config", "run"]
