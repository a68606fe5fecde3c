"""What a page works on, whichever page it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_SHOWN", "Desk", "Photos"]

MOST_SHOWN = 500
"""Photos that are described in one answer."""


class Photos(Protocol):
    """Photos by number."""

    def __len__(self) -> int: ...

    def file(self, photo: int) -> Path:
        """The photo's file; raises DataError if it is gone or must not be shown."""


class Desk(Protocol):
    """Acts come in, are on disk, and change what is known of photos."""

    @property
    def photos(self) -> Photos:
        """Those that are worked on."""

    def started(self) -> dict[str, Any]:
        """What does not change while the server runs, for the page."""

    def act(self, wanted: Mapping[str, Any]) -> str:
        """Do what a page asks for, and say what was done, once it is on disk."""

    def view(self, show: str, search: str = "", order: str = "name") -> npt.NDArray[np.int32]:
        """The photos to be shown."""

    def described(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """What a page shows of photos; up to :data:`MOST_SHOWN` of them."""

    def news(self, since: int) -> dict[str, Any]:
        """What has changed after act ``since``, and how things stand."""
