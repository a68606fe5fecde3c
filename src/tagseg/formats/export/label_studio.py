"""Label Studio's tasks: one JSON file, brush strokes or polygons, and the labelling interface."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from tagseg.formats.export.json_files import write_json_array
from tagseg.formats.export.masked_photos import Export, Format, MaskedPhoto, Piece
from tagseg.formats.export.polygons import polygons_of
from tagseg.formats.export.regions import Region, regions_of
from tagseg.formats.export.rle import brush_bytes, runs

__all__ = ["LABEL_STUDIO"]

_PHOTOS = "images"
_LOCAL = "/data/local-files/?d="  # Label Studio's own files, below the folder that it is told


def _one(photo: MaskedPhoto, export: Export) -> Piece:
    found = [
        result
        for region in regions_of(photo.labels, export.per)
        for result in _results(region, photo, export)
    ]
    for number, result in enumerate(found):
        result["id"] = f"region{number}"
    return Piece(entry=(photo.file, found), regions=len(found))


def _results(region: Region, photo: MaskedPhoto, export: Export) -> Iterator[dict[str, Any]]:
    name = export.classes.name(region.label)
    if export.shapes == "masks":
        lengths = runs(region.mask, (region.top, region.left), (photo.height, photo.width))
        packed = brush_bytes(lengths).tolist()
        yield _result(photo, "brushlabels", {"format": "rle", "rle": packed, "brushlabels": [name]})
        return
    for polygon in polygons_of(region):
        points = (polygon * (100 / photo.width, 100 / photo.height)).tolist()
        yield _result(
            photo, "polygonlabels", {"points": points, "closed": True, "polygonlabels": [name]}
        )


def _result(photo: MaskedPhoto, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": kind,
        "from_name": "label",
        "to_name": "image",
        "original_width": photo.width,
        "original_height": photo.height,
        "image_rotation": 0,
        "value": value,
    }


def _whole(entries: Iterator[Any], export: Export) -> None:
    inside = "" if export.photos == "name" else f"{_PHOTOS}/"
    tasks = (
        {
            "id": number,
            "data": {"image": _LOCAL + quote(inside + file, safe="/", errors="backslashreplace")},
            "annotations": [{"id": number, "result": results}],
        }
        for number, (file, results) in enumerate(entries, start=1)
    )
    write_json_array(export.folder / "tasks.json", tasks)
    (export.folder / "labeling_config.xml").write_text(_interface(export), encoding="utf-8")


def _interface(export: Export) -> str:
    kind = "BrushLabels" if export.shapes == "masks" else "PolygonLabels"
    pairs = zip(export.classes.names, export.classes.hex_colours(), strict=True)
    labels = [f"    <Label value={quoteattr(n)} background={quoteattr(c)}/>" for n, c in pairs]
    return "\n".join([
        "<View>",
        '  <Image name="image" value="$image" zoom="true"/>',
        f'  <{kind} name="label" toName="image">',
        *labels,
        f"  </{kind}>",
        "</View>",
        "",
    ])  # fmt: skip


LABEL_STUDIO = Format(
    "Label Studio",
    _one,
    _whole,
    photos_in=_PHOTOS,
    photos_by=("name", "copy", "link"),
    annotations={"masks": ("class", "region"), "polygons": ("region",)},
    suffixes=frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp", ".avif", ".jfif")),
)
