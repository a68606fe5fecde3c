"""What mask files hold, kept between runs: files that have not changed are not read again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import PIL

from tagseg.console import user_cache
from tagseg.data.dataset import FileKey
from tagseg.data.legends import MaskContent

__all__ = ["MaskCache"]

_VERSION = [1, PIL.__version__]


class MaskCache:
    """Contents by file key (path, size, time of change), in one file of the user's cache folder.

    A cache that cannot be read or written does no harm: the masks are read.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (
            user_cache("masks") / f"{blake2b(os.fsencode(folder), digest_size=12).hexdigest()}.json"
        )

    def load(self) -> dict[FileKey, MaskContent]:
        """What is known."""
        try:
            kept = json.loads(self._file.read_bytes())
            if kept["version"] != _VERSION:
                return {}
            return {(path, size, time): _content(row) for path, size, time, row in kept["masks"]}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return {}

    def save(self, contents: Mapping[FileKey, MaskContent]) -> None:
        """Keep ``contents``, and nothing else."""
        masks = [[*key, _row(content)] for key, content in contents.items()]
        text = json.dumps({"version": _VERSION, "masks": masks})
        temporary = self._file.with_suffix(f".{os.getpid()}.tmp")
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text)  # ASCII: names in other bytes are escaped
            temporary.replace(self._file)


def _row(content: MaskContent) -> list[Any]:
    return [
        content.shape,
        list(content.counts.items()),
        list(content.colours.items()),
        content.numbered,
        content.own_palette,
        content.orientation,
    ]


def _content(row: list[Any]) -> MaskContent:
    (height, width), counts, colours, numbered, own_palette, orientation = row
    return MaskContent(
        (height, width),
        dict(counts),
        {value: (r, g, b) for value, (r, g, b) in colours},
        numbered,
        own_palette,
        orientation,
    )
