"""The fields of recipe ``guided``, with sections of Oh et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tagseg.errors import ConfigError
from tagseg.nets.gap import SeederName
from tagseg.refine.component_crf import ComponentCrf
from tagseg.refine.dense_crf import CrfParameters
from tagseg.stages.config import SaliencyConfig, number

__all__ = ["Config"]

Guide = Literal["seeds", "g0", "g1", "g2"]


@dataclass(frozen=True)
class Config(SaliencyConfig):
    """Numbers of Oh et al.; ``guide`` and ``seeder`` select the rows of their Tables 1 and 2."""

    guide: Guide = number("g2", "5.1", "guide labels: seeds, g0, g1 or g2")  # noqa: RUF009
    seeder: SeederName = number(  # noqa: RUF009
        "highres", "4.1, 6.1", "GAP network: lowres, highres, roi or deeplab"
    )
    seed_threshold: float = number(
        0.2, "6.1", "argmax class where its map is over this part of its maximum"
    )
    min_seed: int = number(
        25, "authors' code", "pixels of a seed, in photos of 500 x 375; smaller seeds do not count"
    )
    min_component: float = number(0.01, "E", "part of the photo that a salient component covers")
    saliency_threshold: float = number(0.5, "6.1", "of a saliency map's maximum")
    share_bilateral: tuple[float, float, float] = number(
        (4.0, 121.0, 5.0), "C.1", "of the CRF in components with seeds of several classes"
    )
    share_smoothness: tuple[float, float] = number((3.0, 3.0), "C.1", "weight, sigma in pixels")
    share_sigma: float = number(
        10.0, "authors' code", "of the Gaussian on the seeds before that CRF, pixels of 500"
    )
    without_rise: Literal["best", "ignore"] = number(
        "best", "assumed", "G1's label for components where no tag's score rises"
    )
    crf_seed: bool = number(False, "5, C", "smooth the seeds with the CRF of crf_bilateral")
    crf_loss: bool = number(False, "5, C", "add SEC's constrain-to-boundary loss, with that CRF")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.component_crf()
        for name in ("seed_threshold", "saliency_threshold"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", do="use 0 to 1")
        if not 0 <= self.min_component < 1 or self.min_seed < 0:
            raise ConfigError(
                f"min_component is {self.min_component}, min_seed {self.min_seed}",
                do="use 0 to below 1, and 0 or more",
            )
        if self.guide != "seeds":
            self.check_saliency()

    def component_crf(self) -> ComponentCrf:
        """The CRF that shares a component out among classes (E)."""
        return ComponentCrf(
            CrfParameters(
                bilateral=self.share_bilateral,
                smoothness=self.share_smoothness,
                iterations=self.crf_iterations,
                reference_side=self.crf_reference_side,
                filter=self.crf_filter,
            ),
            sigma=self.share_sigma,
        )
