"""labelme's JSON, a file a photo: the labels of its shapes, and its flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tagseg.data.text import tidy_name
from tagseg.errors import TagError
from tagseg.formats.tags.tag_rows import TagRow

__all__ = ["is_labelme", "row_of_labelme"]


def is_labelme(whole: Any) -> bool:
    """Whether a JSON value is a file of labelme."""
    return isinstance(whole, dict) and isinstance(whole.get("shapes"), list)


def row_of_labelme(whole: Any, path: Path, image: str | None = None) -> TagRow:
    """The row of one photo: ``image``, or the one that the file names, or is named like it.

    A file without shapes and flags says that there is none of the classes.
    """
    if not is_labelme(whole):
        raise TagError("not a file of labelme: no list 'shapes'", where=path, do="remove it")
    labels = []
    for i, shape in enumerate(whole["shapes"]):
        label = shape.get("label") if isinstance(shape, dict) else None
        if not isinstance(label, str) or not tidy_name(label):
            raise TagError(f"shapes[{i}] has no label", where=path, do="name its class there")
        labels.append(tidy_name(label))
    flags = whole.get("flags")
    labels += (
        [tidy_name(k) for k, v in flags.items() if v is True] if isinstance(flags, dict) else []
    )
    written = whole.get("imagePath")
    name = image or (written if isinstance(written, str) and written.strip() else path.stem)
    return TagRow(
        name.strip(), tuple(dict.fromkeys(filter(None, labels))), str(path), complete=True
    )
