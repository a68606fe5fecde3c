"""SEC: Kolesnikov and Lampert, ECCV 2016."""

from tagseg.recipes.sec.config import Config
from tagseg.recipes.sec.recipe import PAPER, run

__all__ = ["PAPER", "Config", "run"]
