"""Pictures for people: labels over a photo, score maps as heat, and the key to the colours."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from tagseg.data.masks import voc_palette
from tagseg.errors import ShapeError
from tagseg.maps import BACKGROUND, IGNORE, Image, Labels, check_image

__all__ = [
    "Palette",
    "average_picture",
    "average_sheet",
    "colour_labels",
    "colour_map",
    "data_uri",
    "legend",
    "overlay",
    "shrink",
]

Palette = npt.NDArray[np.uint8]

_HATCH = 8  # pixels from one stripe of an ignored area to the next
_CELL, _GAP, _TEXT = 96, 6, 13  # pixels of a picture of a sheet, between two, and of its words
_QUALITY = 78  # of WebP: about 7 kB for a photo 240 pixels wide


def overlay(
    photo: Image, labels: Labels, palette: Palette | None = None, alpha: float = 0.55
) -> Image:
    """Labels coloured over their photo, with contours; 255 is hatched in white.

    Args:
        photo: uint8 (H, W, 3).
        labels: uint8 (H, W).
        palette: uint8 (256, 3), VOC's if not given.
        alpha: weight of the colour in a labelled area, 0..1; the background keeps the photo.
    """
    _check_same_size(check_image(photo, "photo"), labels, "labels")
    colours = colour_labels(labels, palette).astype(np.float32)
    weight = np.where((labels == BACKGROUND) | (labels == IGNORE), 0, alpha).astype(np.float32)
    mixed = photo + weight[..., None] * (colours - photo)
    rows, columns = np.indices(labels.shape)
    stripes = (labels == IGNORE) & ((rows + columns) % _HATCH < _HATCH // 3)
    mixed[stripes] = 255
    mixed[_contours(labels)] = 255
    return np.rint(mixed).astype(np.uint8)


def colour_labels(labels: Labels, palette: Palette | None = None) -> Image:
    """Labels uint8 (H, W) in the colours of ``palette`` uint8 (256, 3), VOC's if not given."""
    return (voc_palette() if palette is None else palette)[labels]


def colour_map(score_map: npt.NDArray[np.float32], photo: Image | None = None) -> Image:
    """Heat colours of scores (H, W) in [0, 1], black to yellow; over the photo's grey if given."""
    if score_map.ndim != 2 or not np.isfinite(score_map).all():
        raise ShapeError(f"score map {score_map.shape} is no finite array (H, W)")
    heat = matplotlib.colormaps["inferno"](np.clip(score_map, 0, 1))[..., :3] * 255
    if photo is None:
        return np.rint(heat).astype(np.uint8)
    _check_same_size(check_image(photo, "photo"), score_map, "score map")
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None]
    return np.rint(0.35 * grey + 0.65 * heat).astype(np.uint8)


def average_picture(average: npt.NDArray[np.floating]) -> Image:
    """Heat of an average map (H, W) in [0, 1] over its own maximum: averages are low."""
    peak = average.max(initial=0.0)
    return colour_map((average / (peak if peak > 0 else 1)).astype(np.float32))


def average_sheet(
    columns: Sequence[tuple[str, npt.NDArray[np.floating]]], rows: Sequence[str]
) -> Image:
    """Average maps side by side: a row for each class, a column for each kind of maps.

    Args:
        columns: title, and maps (C, H, W) in [0, 1]; all zeros leave the place empty.
        rows: the C classes.
    """
    font = ImageFont.load_default(_TEXT)
    margin = 2 * _GAP + round(max(map(font.getlength, rows), default=0))
    widths = [max(_CELL, round(font.getlength(title))) + _GAP for title, _ in columns]
    height = 2 * _TEXT + len(rows) * (_CELL + _GAP)
    sheet = PillowImage.new("RGB", (margin + sum(widths), height), "white")
    draw = ImageDraw.Draw(sheet)
    left = margin
    for (title, maps), width in zip(columns, widths, strict=True):
        draw.text((left, _TEXT // 2), title, "black", font)
        for place, average in enumerate(maps):
            if average.any():
                picture = PillowImage.fromarray(average_picture(average)).resize((_CELL, _CELL))
                sheet.paste(picture, (left, 2 * _TEXT + place * (_CELL + _GAP)))
        left += width
    for place, name in enumerate(rows):
        draw.text((_GAP, 2 * _TEXT + place * (_CELL + _GAP) + _CELL // 2), name, "black", font)
    return np.asarray(sheet)


def legend(classes: Sequence[str], palette: Palette | None = None) -> list[tuple[str, str]]:
    """(name, ``#rrggbb``) of each label; ``classes`` in label order, background first."""
    colours = (voc_palette() if palette is None else palette)[: len(classes)]
    return [
        (name, f"#{bytes(colour).hex()}") for name, colour in zip(classes, colours, strict=True)
    ]


def shrink(image: Image, side: int) -> Image:
    """The image with its longer side at most ``side`` pixels; never enlarged."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def data_uri(image: Image) -> str:
    """The image uint8 (H, W, 3) as a WebP data URI."""
    buffer = io.BytesIO()
    PillowImage.fromarray(image).save(buffer, "WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _contours(labels: Labels) -> npt.NDArray[np.bool_]:
    """Pixels where the label changes; thicker in large photos, so that it survives shrinking."""
    edge = np.zeros(labels.shape, np.uint8)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    thickness = max(round(max(labels.shape) / 320), 1)
    return cv2.dilate(edge, np.ones((thickness, thickness), np.uint8)) > 0


def _check_same_size(photo: Image, plane: npt.NDArray, name: str) -> None:
    if plane.shape != photo.shape[:2]:
        raise ShapeError(
            f"{name} has shape {plane.shape}, the photo is {photo.shape[0]} x {photo.shape[1]}",
            do="bring both to the same height and width",
        )
