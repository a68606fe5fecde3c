"""The PASCAL VOC 2012 layout: ``JPEGImages``, ``ImageSets/Segmentation``, ``Annotations``."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from xml.etree import ElementTree

from tagseg.errors import TagError
from tagseg.formats.tag_files import TagRow

__all__ = ["VOC_CLASSES", "is_voc", "rows_of_annotations"]

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
    return tuple(_row(folder / f"{name}.xml", name, classes) for name in names)


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses document types, and with them entities that expand to gigabytes."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("a document type is declared")


def _row(path: Path, name: str, classes: Collection[str]) -> TagRow:
    if not path.exists():
        return TagRow(name, (), str(path))
    try:
        parser = ElementTree.XMLParser(target=_NoDoctype())
        root = ElementTree.parse(path, parser=parser).getroot()
    except OSError as problem:
        reason = problem.strerror or "reading failed"
        raise TagError(f"cannot be read: {reason}", where=path, do="check the file") from None
    except (ElementTree.ParseError, ValueError, LookupError) as problem:
        raise TagError(f"not plain XML: {problem}", where=path, do="mend or remove it") from None
    found = {(element.text or "").strip() for element in root.iterfind("object/name")}
    return TagRow(name, tuple(c for c in classes if c in found), str(path), complete=True)
