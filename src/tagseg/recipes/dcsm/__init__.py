"""Distinct class saliency maps: Shimoda and Yanai, ECCV 2016."""

from tagseg.recipes.dcsm.config import Config
from tagseg.recipes.dcsm.recipe import PAPER, run

__all__ = ["PAPER", "Config", "run"]
