"""Coarse to fine: Jing, Chen, Tian, 2018; ``foreground`` is their recipe for foreground alone."""

from tagseg.recipes.coarse_to_fine.recipe import RECIPE, Config, run

__all__ = ["RECIPE", "Config", "run"]
