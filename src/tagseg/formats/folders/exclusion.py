"""Patterns for pictures that are to be left out, or kept, whatever they look like."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import translate
from glob import escape
from pathlib import Path

from tagseg.errors import ConfigError

__all__ = ["NOTHING", "Exclusion", "parse_patterns"]

_LONGEST = 1000  # letters of a pattern; the time to understand one grows with their square


@dataclass(frozen=True)
class Exclusion:
    """What the user said of pictures, by path relative to the photo folder, with the suffix.

    Attributes:
        dropped: patterns of what is no photo.
        kept: patterns of what is a photo although it looks like a mask.
        masks: patterns of the folder of ground truth, if it lies among the photos.
    """

    dropped: tuple[_Pattern, ...] = ()
    kept: tuple[_Pattern, ...] = ()
    masks: tuple[_Pattern, ...] = ()

    def drops(self, path: str) -> bool:
        """Whether the picture is to be left out."""
        dropped = self.is_mask(path) or any(pattern.matches(path) for pattern in self.dropped)
        return dropped and not self.keeps(path)

    def is_mask(self, path: str) -> bool:
        """Whether the picture lies in the folder of ground truth."""
        return any(pattern.matches(path) for pattern in self.masks)

    def with_masks(self, masks: Path | None, photos: Path) -> Exclusion:
        """Pictures in the folder ``masks`` are left out, too, if it lies in that of the photos."""
        if masks is None or not masks.is_dir():
            return self
        inner, home = masks.resolve(), photos.resolve()
        if inner == home or not inner.is_relative_to(home):
            return self
        return replace(self, masks=(_pattern(escape(inner.relative_to(home).as_posix())),))

    def keeps(self, path: str) -> bool:
        """Whether the picture is a photo, whatever it looks like."""
        return any(pattern.matches(path) for pattern in self.kept)

    def idle(self, paths: Iterable[str]) -> list[str]:
        """The patterns that match none of the pictures, as they were written."""
        every = [*((p, p.text) for p in self.dropped), *((p, f"!{p.text}") for p in self.kept)]
        listed = list(paths) if every else []
        return [text for pattern, text in every if not any(map(pattern.matches, listed))]


@dataclass(frozen=True)
class _Pattern:
    """A pattern as the shell has them: ``*``, ``?``, ``[abc]``."""

    text: str
    expression: re.Pattern[str]

    def matches(self, path: str) -> bool:
        """Whether the path, or a folder that it lies in, is meant.

        Without a slash the pattern is of any part of the path, else of the whole.
        """
        if self.expression.match(path):
            return True
        parts = path.split("/")
        if "/" not in self.text:
            return any(map(self.expression.match, parts))
        return any(self.expression.match("/".join(parts[:n])) for n in range(1, len(parts)))


NOTHING = Exclusion()
"""The user said nothing."""


def parse_patterns(texts: str | Iterable[str]) -> Exclusion:
    """Patterns such as ``masks``, ``*_mask.png``, ``train/cat/*``; ``!...`` keeps what it matches.

    Raises ConfigError for an empty one, and for one that is long.
    """
    listed = [texts] if isinstance(texts, str) else list(texts)
    longest = max(map(len, listed), default=0)
    if longest > _LONGEST:
        raise ConfigError(
            f"a pattern of exclude has {longest} letters", do=f"give some of up to {_LONGEST}"
        )
    patterns = [(text.startswith("!"), _pattern(text.removeprefix("!"))) for text in listed]
    return Exclusion(
        tuple(pattern for keeps, pattern in patterns if not keeps),
        tuple(pattern for keeps, pattern in patterns if keeps),
    )


def _pattern(text: str) -> _Pattern:
    tidy = text.strip().replace("\\", "/").removeprefix("./").rstrip("/")
    if not tidy:
        raise ConfigError("a pattern of exclude is empty", do="give one such as '*_mask.png'")
    return _Pattern(tidy, re.compile(translate(tidy)))
