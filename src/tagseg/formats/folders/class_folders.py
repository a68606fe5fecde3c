"""One folder per class: a folder in a photo's name is its tag."""

from __future__ import annotations

from collections.abc import Iterable

from tagseg.formats.folders.photo_tree import Tree, read_tree
from tagseg.formats.tags.tag_files import TagRow

__all__ = ["rows_of_class_folders"]


def rows_of_class_folders(names: Iterable[str], tree: Tree | None = None) -> tuple[TagRow, ...]:
    """Tag each photo with the class that its folders say; by default the first, ``cat/a``.

    Photos beside the class folders have no tag.
    """
    listed = tuple(names)
    if tree is None:
        tree = read_tree({name.rpartition("/")[0] for name in listed}, "folders")
    return tuple(_row(name, tree.class_of(name)) for name in listed)


def _row(name: str, of: str | None) -> TagRow:
    return TagRow(name, () if of is None else (of,), name)
