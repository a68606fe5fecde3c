"""Which class is where?"""

from tagseg.localize.backprop import ClassSaliency
from tagseg.localize.cam import class_activation_maps

__all__ = ["ClassSaliency", "class_activation_maps"]
