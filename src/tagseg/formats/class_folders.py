"""One folder per class: the first folder in a photo's name is its tag."""

from __future__ import annotations

from collections.abc import Iterable

from tagseg.formats.tag_files import TagRow

__all__ = ["rows_of_class_folders"]


def rows_of_class_folders(names: Iterable[str]) -> tuple[TagRow, ...]:
    """Tag each photo ``cat/a`` with ``cat``; photos beside the class folders have no tag."""
    return tuple(TagRow(name, tuple(name.split("/")[:-1][:1]), name) for name in names)
