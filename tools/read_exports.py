"""Exports read by the tools that they are for, and compared with the masks, pixel by pixel.

Run it in an environment that has the reader, which need not have tagseg:

    tagseg export MASKS --photos PHOTOS --to png --out truth
    tagseg export MASKS --photos PHOTOS --to cvat --out cvat
    python tools/read_exports.py datumaro-cvat cvat truth

One line a reader: photos, pixels that differ, and the lowest IoU of a class in a photo. Unknown
pixels (255) are background in formats that have none.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from PIL import Image

Found = Iterator[tuple[str, np.ndarray]]  # a photo's name without suffix, and its labels
KEEP_UNKNOWN = {"datumaro-voc", "datasets"}


def pycocotools(folder: Path, names: list[str]) -> Found:
    """COCO.annToMask, in the order of the annotations."""
    from pycocotools.coco import COCO

    coco = COCO(str(folder / "annotations/instances_train.json"))
    for image in coco.dataset["images"]:
        labels = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in coco.imgToAnns[image["id"]]:
            name = coco.cats[annotation["category_id"]]["name"]
            labels[coco.annToMask(annotation) > 0] = names.index(name) + 1
        yield stem(image["file_name"]), labels


def ultralytics(folder: Path, names: list[str]) -> Found:
    """The polygons as YOLODataset reads and checks them, through polygon2mask."""
    yield from _ultralytics(folder, resampled=False)


def ultralytics_training(folder: Path, names: list[str]) -> Found:
    """The same after the resampling to 1,000 points, with which YOLODataset trains."""
    yield from _ultralytics(folder, resampled=True)


def _ultralytics(folder: Path, *, resampled: bool) -> Found:
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset, polygon2mask

    data = check_det_dataset(str(folder / "data.yaml"), autodownload=False)
    dataset = YOLODataset(img_path=data["train"], data=data, task="segment", augment=False)
    for label in dataset.labels:
        height, width = label["shape"]
        found = dict(label)
        segments = found["segments"]
        if resampled:
            found = dataset.update_labels_info(
                {key: value for key, value in label.items() if key != "shape"} | {}
            )
            segments = found["instances"].segments
        labels = np.zeros((height, width), np.uint8)
        for kind, segment in zip(label["cls"].ravel(), segments, strict=True):
            points = [np.asarray(segment) * (width, height)]
            labels[polygon2mask((height, width), points) > 0] = int(kind) + 1
        path = Path(label["im_file"]).relative_to(folder.resolve() / "images/train")
        yield stem(path.as_posix()), labels


def label_studio_sdk(folder: Path, names: list[str]) -> Found:
    """The converter's reading of tasks; brushes through its decode_rle, polygons through Pillow."""
    from label_studio_sdk.converter import Converter
    from label_studio_sdk.converter.brush import decode_rle
    from PIL import ImageDraw

    config = (folder / "labeling_config.xml").read_text(encoding="utf-8")
    converter = Converter(config, str(folder), download_resources=False)
    for item in converter.iter_from_json_file(str(folder / "tasks.json")):
        labels = None
        for result in [r for results in item["output"].values() for r in results]:
            size = result["original_height"], result["original_width"]
            labels = np.zeros(size, np.uint8) if labels is None else labels
            kind = result.get("brushlabels") or result["polygonlabels"]
            if "rle" in result:
                inside = decode_rle(result["rle"]).reshape(*size, 4)[:, :, 3] > 0
            else:
                canvas = Image.fromarray(np.zeros(size, np.uint8))
                points = np.array(result["points"]) / 100 * size[::-1]
                ImageDraw.Draw(canvas).polygon([tuple(p) for p in points], fill=1, outline=1)
                inside = np.asarray(canvas) > 0
            labels[inside] = names.index(kind[0]) + 1
        path = unquote(item["input"]["image"]).split("?d=")[1].removeprefix("images/")
        yield stem(path), np.zeros((1, 1), np.uint8) if labels is None else labels


def labelme(folder: Path, names: list[str]) -> Found:
    """LabelFile and shapes_to_label."""
    from labelme._label_file import LabelFile
    from labelme.utils import img_data_to_arr, shapes_to_label

    values = {name: label for label, name in enumerate(names, start=1)}
    for path in sorted(folder.rglob("*.json")):
        file = LabelFile(str(path))
        shape = img_data_to_arr(file.image_data).shape
        labels, _ = shapes_to_label(shape, file.shapes, values)
        yield stem(path.relative_to(folder).as_posix()), labels.astype(np.uint8)


def datasets(folder: Path, names: list[str]) -> Found:
    """load_dataset on the folder; classes are compared, too."""
    from datasets import load_dataset

    read = load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))["train"]
    kinds = read.features["classes"].feature
    for row in read:
        labels = np.asarray(row["mask"])
        assert row["image"].size == labels.shape[::-1]
        told = [kinds.int2str(k) for k in row["classes"]]
        assert told == [n for k, n in enumerate(names, 1) if (labels == k).any()], row["name"]
        yield row["name"], labels


def _datumaro(kind: str) -> Callable[[Path, list[str]], Found]:
    def read(folder: Path, names: list[str]) -> Found:
        """Dataset.import_from; masks and polygons as datumaro draws them."""
        from datumaro.components.annotation import AnnotationType
        from datumaro.components.dataset import Dataset
        from datumaro.util.mask_tools import rles_to_mask

        found = Dataset.import_from(str(folder), kind)
        of_label = found.categories()[AnnotationType.label]
        for item in found:
            height, width = item.media.size
            labels = np.zeros((height, width), np.uint8)
            for one in item.annotations:
                if one.type == AnnotationType.mask:
                    inside = one.image > 0
                elif one.type == AnnotationType.polygon:
                    inside = rles_to_mask([one.points], width, height) > 0
                else:
                    continue
                name = of_label[one.label].name
                values = {"ignored": 255, "background": 0}
                labels[inside] = values[name] if name in values else names.index(name) + 1
            yield item.id, labels

    return read


def supervision(folder: Path, names: list[str]) -> Found:
    """DetectionDataset.from_coco, or from_yolo where there is a data.yaml."""
    import supervision as sv

    if (folder / "data.yaml").exists():
        read = sv.DetectionDataset.from_yolo(
            str(folder / "images/train"),
            str(folder / "labels/train"),
            str(folder / "data.yaml"),
            force_masks=True,
        )
    else:
        file = folder / "annotations/instances_train.json"
        read = sv.DetectionDataset.from_coco(
            str(folder / "images/train"), str(file), force_masks=True
        )
    for path, image, found in read:
        labels = np.zeros(image.shape[:2], np.uint8)
        masks = found.mask if found.mask is not None else ()
        for mask, kind in zip(masks, found.class_id, strict=True):
            labels[mask] = names.index(read.classes[kind]) + 1
        yield Path(path).stem, labels


READERS: dict[str, Callable[[Path, list[str]], Found]] = {
    "pycocotools": pycocotools,
    "ultralytics": ultralytics,
    "ultralytics-training": ultralytics_training,
    "label-studio-sdk": label_studio_sdk,
    "labelme": labelme,
    "datasets": datasets,
    "datumaro-cvat": _datumaro("cvat"),
    "datumaro-voc": _datumaro("voc_segmentation"),
    "datumaro-coco": _datumaro("coco_instances"),
    "datumaro-yolo": _datumaro("yolo"),
    "supervision": supervision,
}


def stem(path: str) -> str:
    """A path without its suffix."""
    return path.rpartition(".")[0]


def main(reader: str, folder: Path, truth: Path) -> None:
    """Read, compare, print."""
    names = (truth / "classes.txt").read_text(encoding="utf-8").splitlines()
    wanted = {stem(p.relative_to(truth / "masks").as_posix()): p for p in truth.rglob("*.png")}
    photos = differing = 0
    worst = 1.0
    start = time.perf_counter()
    for name, labels in READERS[reader](folder, names):
        expected = np.asarray(Image.open(wanted.pop(name))).copy()
        if reader not in KEEP_UNKNOWN:
            expected[expected == 255] = 0
        if labels.shape == (1, 1):  # a photo without annotations, whose size is not told
            labels = np.zeros_like(expected)
        photos += 1
        differing += int((labels != expected).sum())
        for label in range(1, len(names) + 1):
            union = ((labels == label) | (expected == label)).sum()
            if union:
                both = ((labels == label) & (expected == label)).sum()
                worst = min(worst, float(both / union))
    told = {
        "reader": reader,
        "photos": photos,
        "not read": len(wanted),
        "pixels that differ": differing,
        "lowest IoU": round(worst, 5),
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
