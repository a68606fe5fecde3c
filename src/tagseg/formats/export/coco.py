"""COCO's instances: one JSON file, regions as run lengths or polygons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from tagseg.errors import ConfigError
from tagseg.formats.export.json_files import write_json_lists
from tagseg.formats.export.masked_photos import Export, Format, MaskedPhoto, Piece
from tagseg.formats.export.polygons import polygons_of
from tagseg.formats.export.regions import Region, regions_of
from tagseg.formats.export.rle import runs

__all__ = ["COCO", "run_lengths"]

_FILE = "annotations/instances_train.json"


def run_lengths(region: Region, shape: tuple[int, int]) -> dict[str, Any]:
    """COCO's compressed run lengths of a region in a photo of ``shape``, column by column."""
    from pycocotools import mask as coco_mask

    lengths = runs(region.mask.T, (region.left, region.top), shape[::-1])
    plain = {"counts": lengths.tolist(), "size": list(shape)}
    packed = coco_mask.frPyObjects(plain, *shape)
    return {"size": list(shape), "counts": packed["counts"].decode("ascii")}


def _check(export: Export) -> None:
    if export.shapes == "masks" and find_spec("pycocotools") is None:
        raise ConfigError(
            "COCO's run lengths need pycocotools",
            do="pip install 'tagseg[formats]', or give --shapes polygons",
        )


def _one(photo: MaskedPhoto, export: Export) -> Piece:
    found = [_annotation(r, photo, export) for r in regions_of(photo.labels, export.per)]
    image = {"file_name": photo.file, "width": photo.width, "height": photo.height}
    return Piece(entry=(image, found), regions=len(found))


def _annotation(region: Region, photo: MaskedPhoto, export: Export) -> dict[str, Any]:
    segmentation: Any
    if export.shapes == "masks":
        segmentation = run_lengths(region, (photo.height, photo.width))
    else:
        segmentation = [polygon.ravel().tolist() for polygon in polygons_of(region)]
    return {
        "category_id": region.label,
        "segmentation": segmentation,
        "area": region.area,
        "bbox": list(region.box),
        "iscrowd": 0,
    }


def _whole(entries: Iterator[Any], export: Export) -> None:
    categories = [
        {"id": label, "name": name, "supercategory": "", "color": list(colour)}
        for label, (name, colour) in enumerate(export.classes.coloured(), start=1)
    ]
    head = {
        "info": {"description": "written by tagseg"},
        "licenses": [],
        "categories": categories,
    }
    images: list[str] = []

    def annotations() -> Iterator[dict[str, Any]]:
        number = 0
        for image_id, (image, found) in enumerate(entries, start=1):
            images.append(json.dumps({"id": image_id, **image}, ensure_ascii=False))
            for annotation in found:
                number += 1
                yield {"id": number, "image_id": image_id, **annotation}

    write_json_lists(export.folder / _FILE, head, "annotations", annotations(), "images", images)


COCO = Format(
    "COCO",
    _one,
    _whole,
    photos_in="images/train",
    photos_by=("name", "copy", "link"),
    annotations={"masks": ("region", "class"), "polygons": ("region", "class")},
    check=_check,
)
