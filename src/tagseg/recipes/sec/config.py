"""The fields of recipe ``sec``, with sections of Kolesnikov and Lampert."""

from __future__ import annotations

from dataclasses import dataclass

from tagseg.errors import ConfigError
from tagseg.stages.seeder import SeedingSettings
from tagseg.stages.settings import BILATERAL, DeepLabSettings, MaskSettings, Settings, number

__all__ = ["Config", "CueSettings"]


@dataclass(frozen=True)
class CueSettings(Settings):
    """What of the maps is a cue (4.1)."""

    foreground_threshold: float = number(
        0.2,
        "4.1",
        "cues of a class are over this fraction of its map's maximum",
        at_least=0,
        below=1,
    )
    background_fraction: float = number(
        0.1,
        "4.1",
        "fraction of the grid's positions, the least salient, that are background cues",
        at_least=0,
        at_most=1,
    )
    background_window: int = number(
        3,
        "authors' code",
        "of the median filter before, positions; odd",
    )

    def check(self) -> None:
        """A window has a middle."""
        if self.background_window < 1 or self.background_window % 2 == 0:
            raise ConfigError(
                f"background_window is {self.background_window}", do="use an odd number"
            )


@dataclass(frozen=True)
class Config(MaskSettings, DeepLabSettings, CueSettings, SeedingSettings):
    """Numbers of Kolesnikov & Lampert."""

    crf_bilateral: tuple[float, float, float] = number(
        (10.0, 80.0, 13.0),
        "authors' code",
        "weight, sigma in pixels, sigma in colour levels",
        **BILATERAL,
    )
    foreground_decay: float = number(
        0.996,
        "3.1",
        "of the rank-weighted mean of a present class, on 41 x 41 positions",
        above=0,
        at_most=1,
    )
    background_decay: float = number(
        0.999, "3.1", "likewise, of the background", above=0, at_most=1
    )
