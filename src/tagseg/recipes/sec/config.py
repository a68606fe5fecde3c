"""The fields of recipe ``sec``, with sections of Kolesnikov and Lampert."""

from __future__ import annotations

from dataclasses import dataclass

from tagseg.errors import ConfigError
from tagseg.stages.config import LargeFovConfig, number

__all__ = ["Config"]


@dataclass(frozen=True)
class Config(LargeFovConfig):
    """Numbers of Kolesnikov & Lampert."""

    crf_bilateral: tuple[float, float, float] = number(
        (10.0, 80.0, 13.0), "authors' code", "weight, sigma in pixels, sigma in colour levels"
    )
    foreground_threshold: float = number(
        0.2, "4.1", "cues of a class are over this part of its map's maximum"
    )
    background_fraction: float = number(
        0.1, "4.1", "part of the grid's positions, the least salient, that are background cues"
    )
    background_window: int = number(3, "authors' code", "of the median filter before, positions")
    foreground_decay: float = number(
        0.996, "3.1", "of the rank-weighted mean of a present class, on 41 x 41 positions"
    )
    background_decay: float = number(0.999, "3.1", "likewise, of the background")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.foreground_threshold < 1:
            raise ConfigError(
                f"foreground_threshold is {self.foreground_threshold}", do="use 0 to below 1"
            )
        if not 0 <= self.background_fraction <= 1:
            raise ConfigError(f"background_fraction is {self.background_fraction}", do="use 0 to 1")
        if self.background_window < 1 or self.background_window % 2 == 0:
            raise ConfigError(
                f"background_window is {self.background_window}", do="use an odd number"
            )
        for name in ("foreground_decay", "background_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", do="use over 0, up to 1")
