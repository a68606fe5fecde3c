"""CVAT for images 1.1: an XML file with the labels of each image's tags and shapes."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from tagseg.data.text import tidy_name
from tagseg.errors import TagError
from tagseg.formats.tags.tag_rows import TagFile, TagRow, read_as
from tagseg.formats.tags.voc import row_of_annotation
from tagseg.formats.tags.xml_files import read_xml

__all__ = ["read_xml_tags"]


def read_xml_tags(path: Path) -> TagFile:
    """Tags of a CVAT file, or of one photo's Pascal VOC file; TagError for other XML.

    The classes are those of CVAT's ``meta``, in its order. An image without annotations is known
    to hold none of them.
    """
    root = read_xml(path)
    if root.tag == "annotation":
        name = (root.findtext("filename") or path.stem).strip() or path.stem
        return TagFile((row_of_annotation(root, name, path),))
    if root.tag != "annotations":
        raise TagError(
            f"XML of an unknown kind (<{root.tag}>)", where=path, do="export as CVAT for images 1.1"
        )
    if root.find("track") is not None and root.find("image") is None:
        raise TagError("holds tracks of a video", where=path, do="export as CVAT for images 1.1")
    rows = tuple(_row(image, i, path) for i, image in enumerate(root.iterfind("image"), 1))
    if not any(row.tags for row in rows):
        what = "no annotation in any of its images" if rows else "holds no images"
        raise TagError(what, where=path, do="export annotations as CVAT for images 1.1")
    used = {tag for row in rows for tag in row.tags}
    order = dict.fromkeys(tidy_name(e.text or "") for e in root.iterfind("meta//labels/label/name"))
    classes = tuple(dict.fromkeys([*filter(None, order), *sorted(used - order.keys())]))
    return read_as("CVAT for images", rows, classes, path)


def _row(image: Element, number: int, path: Path) -> TagRow:
    name = (image.get("name") or "").strip()
    where = f"{path}, image {number}"
    if not name:
        raise TagError("has no name", where=where, do="name the photo there")
    labels = (tidy_name(item.get("label") or "") for item in image if item.get("label"))
    return TagRow(name, tuple(dict.fromkeys(filter(None, labels))), where, complete=True)
