"""The formats by name."""

from __future__ import annotations

from tagseg.formats.export.coco import COCO
from tagseg.formats.export.cvat import CVAT
from tagseg.formats.export.hugging_face import HUGGING_FACE
from tagseg.formats.export.label_studio import LABEL_STUDIO
from tagseg.formats.export.labelme import LABELME
from tagseg.formats.export.masked_photos import Format
from tagseg.formats.export.png import PNG
from tagseg.formats.export.voc import VOC
from tagseg.formats.export.yolo import YOLO

__all__ = ["FORMATS"]

FORMATS: dict[str, Format] = {
    "coco": COCO,
    "yolo": YOLO,
    "label-studio": LABEL_STUDIO,
    "cvat": CVAT,
    "labelme": LABELME,
    "voc": VOC,
    "png": PNG,
    "hf": HUGGING_FACE,
}
