"""The PASCAL VOC 2012 layout: ``JPEGImages``, ``ImageSets/Segmentation``, ``Annotations``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element

from tagseg.data.text import tidy_name
from tagseg.formats.tags.tag_rows import TagFile, TagRow, listed
from tagseg.formats.tags.xml_files import read_xml

__all__ = [
    "VOC_CLASSES",
    "is_voc",
    "read_annotations",
    "row_of_annotation",
    "rows_of_annotations",
]

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


_SURELY_VOC = 10  # so many of its classes, and no others, are enough to know


def is_voc(folder: Path) -> bool:
    """Whether ``folder`` looks like VOC 2012: JPEGImages, and its lists or annotations."""
    has_lists = (folder / "ImageSets").is_dir() or (folder / "Annotations").is_dir()
    return has_lists and (folder / "JPEGImages").is_dir()


def rows_of_annotations(
    folder: Path, names: Iterable[str], classes: Collection[str]
) -> tuple[TagRow, ...]:
    """Tags of the photos ``names`` from ``folder/NAME.xml``: the classes of the objects.

    Objects of other classes do not count; difficult ones do. A file without objects of the classes
    is a statement that there are none; without a file nothing is known. Raises TagError for a file
    that is not plain XML.
    """
    return _within(
        tuple(_row(folder / f"{name}.xml", name) for name in names), tuple(classes), (), folder
    ).rows


def row_of_annotation(root: Element, name: str, path: Path) -> TagRow:
    """The classes of all objects in one annotation, in their order there."""
    found = (tidy_name(element.text or "") for element in root.iterfind("object/name"))
    return TagRow(name, tuple(dict.fromkeys(filter(None, found))), str(path), complete=True)


def read_annotations(
    folder: Path,
    listed_names: Iterable[str],
    names: Iterable[str],
    classes: Sequence[str] | None,
) -> TagFile:
    """Tags of the photos ``listed_names``, and which classes there are.

    Without ``classes``, these are VOC's 20 if most classes of the annotations of all photos
    ``names`` are among them, else what the annotations name; notes say what is left out.
    """
    rows = tuple(_row(folder / f"{name}.xml", name) for name in listed_names)
    if classes is not None:
        return _within(rows, classes, rows, folder)
    found = {tag for row in rows for tag in row.tags}
    every = rows
    if len(found) < _SURELY_VOC or not found <= set(VOC_CLASSES):
        done = {row.image: row for row in rows}
        every = tuple(done.get(name) or _row(folder / f"{name}.xml", name) for name in names)
        found = {tag for row in every for tag in row.tags}
    own = sorted(found - set(VOC_CLASSES))
    if len(own) < len(found) - len(own) or not own:
        return _within(rows, VOC_CLASSES, every, folder)
    note = f"{folder.name}: the classes are those of the annotations, not VOC's 20: "
    note += listed(sorted(found), 20)
    like = [name for name in own if name.lower() in VOC_CLASSES]
    note += f" (not {listed(like)} as in VOC, where capitals differ)" if like else ""
    return TagFile(rows, tuple(sorted(found)), (note,))


def _within(
    rows: tuple[TagRow, ...], classes: Sequence[str], every: Iterable[TagRow], folder: Path
) -> TagFile:
    """The rows without tags that are no classes, and a note that counts these."""
    counts = Counter(tag for row in every for tag in row.tags if tag not in classes)
    kept = tuple(replace(row, tags=tuple(c for c in classes if c in row.tags)) for row in rows)
    said = TagFile(kept, tuple(classes))
    if not counts:
        return said
    shown = listed(f"{tag} (in {n} photos)" for tag, n in counts.most_common())
    whose = "VOC's 20" if tuple(classes) == VOC_CLASSES else "those of the class list"
    note = f"{folder.name}: the classes are {whose}; objects of others are left out: {shown}"
    note += "; list all classes in classes.txt to learn them"
    return replace(said, notes=(note,))


def _row(path: Path, name: str) -> TagRow:
    if not path.exists():
        return TagRow(name, (), str(path))
    return row_of_annotation(read_xml(path), name, path)
