"""Coarse to fine: Jing, Chen, Tian, 2018; ``foreground`` is their recipe for foreground alone."""

from tagseg.recipes.coarse_to_fine.recipe import PAPER, Config, run

__all__ = ["PAPER", "Config", "run"]
