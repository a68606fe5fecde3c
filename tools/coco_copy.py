"""Write data sets in COCO's layout: generated scenes, or a list of objects as large as COCO's own.

python tools/coco_copy.py scenes OUT --train 120 --val 40
python tools/coco_copy.py list instances_train2017.json --photos 118000 --objects 860000

``scenes``: photos in train2014 and val2014, objects in annotations/instances_train2014.json and
instances_val2014.json, with COCO's own ids of its classes, which have gaps. Objects are polygons,
run lengths and packed run lengths in turn; one that lies in the middle of another overlaps it, as a
fork does the table; some that are close together are one crowd. ``list``: no photos, and outlines
that mean nothing, to measure how a list of that size is read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from scipy import ndimage

from tagseg.data.scenes import SCENES, Scene, draw_scene, whole_folder
from tagseg.formats.export.coco import run_lengths
from tagseg.formats.export.polygons import polygons_of
from tagseg.formats.export.regions import Region, regions_of
from tagseg.formats.export.rle import runs
from tagseg.maps import Labels

NAMES = {"aeroplane": "airplane", "plant": "potted plant"}
"""COCO's names of the scenes' classes, where they differ."""
IDS = {
    "car": 3,
    "airplane": 5,
    "bus": 6,
    "boat": 9,
    "bird": 16,
    "cat": 17,
    "cow": 21,
    "potted plant": 64,
}
"""COCO's ids of these classes."""
_OFFSETS = {"train2014": 0, "val2014": 1_000_000}
_CROWD_EVERY = 5  # photos, if it has several of a class
_POOL = 2000  # outlines that a large list is made of


class Object(NamedTuple):
    """A region, the label of its class, and whether it is a crowd."""

    region: Region
    label: int
    crowd: bool = False


def objects_of(labels: Labels, *, crowd: bool) -> list[Object]:
    """The objects of a scene: its regions, with what lies inside of them; perhaps a crowd."""
    found = [Object(_with_inner(region, labels), region.label) for region in regions_of(
        labels, "region")]  # fmt: skip
    twice = [label for label in np.unique(labels) if sum(o.label == label for o in found) > 1]
    if not crowd or not twice:
        return found
    together = Region(int(twice[0]), 0, 0, labels == twice[0])
    return [*(o for o in found if o.label != twice[0]), Object(together, int(twice[0]), True)]


def _with_inner(region: Region, labels: Labels) -> Region:
    """The region and those in its holes that leave no background between."""
    mask = np.zeros(labels.shape, bool)
    height, width = region.mask.shape
    mask[region.top : region.top + height, region.left : region.left + width] = region.mask
    holes, count = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask, np.ones((3, 3)))
    for hole in range(1, count + 1):
        if labels[holes == hole].all():
            mask |= holes == hole
    return Region(region.label, 0, 0, mask)


def annotation(item: Object, form: int, shape: tuple[int, int]) -> dict[str, Any]:
    """An object as COCO has it: a polygon (0), run lengths (1, and all crowds) or packed ones."""
    region = item.region
    segmentation: Any = {"size": list(shape), "counts": runs(region.mask.T).tolist()}
    if not item.crowd and form == 0:
        segmentation = [polygon.ravel().tolist() for polygon in polygons_of(region)]
    elif not item.crowd and form == 2:
        segmentation = run_lengths(region, shape)
    ys, xs = np.nonzero(region.mask)
    box = [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
    return {
        "segmentation": segmentation,
        "area": int(region.mask.sum()),
        "iscrowd": int(item.crowd),
        "bbox": [float(value) for value in box],
    }


def categories() -> list[dict[str, Any]]:
    """COCO's categories, in the order of their ids."""
    return [{"supercategory": "", "id": i, "name": name} for name, i in IDS.items()]


def write_scenes(
    folder: Path, counts: dict[str, int], *, seed: int = 0, size: tuple[int, int] = (96, 128)
) -> None:
    """Scenes in COCO's layout; ``counts`` of train2014 and val2014, ``size`` height and width."""
    with whole_folder(folder) as home:
        (home / "annotations").mkdir(parents=True)
        for split, count in counts.items():
            images, objects = [], []
            for number, scene in enumerate(_scenes(split, count, seed, size), start=1):
                name = f"COCO_{split}_{number:012d}.jpg"
                (home / split).mkdir(exist_ok=True)
                PilImage.fromarray(scene.image).save(home / split / name, quality=95)
                images.append(
                    {"file_name": name, "height": size[0], "width": size[1], "id": number * 7}
                )
                objects += _annotations(scene, number, len(objects))
            whole = {"info": {"description": "generated by tagseg"}, "images": images}
            whole |= {"annotations": objects, "categories": categories()}
            file = home / "annotations" / f"instances_{split}.json"
            file.write_text(json.dumps(whole), encoding="utf-8")


def _scenes(split: str, count: int, seed: int, size: tuple[int, int]) -> Iterator[Scene]:
    for number in range(count):
        index = _OFFSETS[split] + number
        yield draw_scene(SCENES, seed, index, height=size[0], width=size[1])


def _annotations(scene: Scene, number: int, before: int) -> list[dict[str, Any]]:
    found = objects_of(scene.labels, crowd=number % _CROWD_EVERY == 0)
    rows = []
    for place, item in enumerate(found):
        row = annotation(item, (number + place) % 3, scene.labels.shape)
        name = SCENES.classes[item.label - 1]
        row |= {"image_id": number * 7, "category_id": IDS[NAMES.get(name, name)]}
        rows.append(row | {"id": before + place + 1})
    return rows


def write_list(path: Path, photos: int, objects: int, *, seed: int = 0) -> None:
    """A list of 80 categories as large as COCO's own, objects in no order of photos."""
    rng = np.random.default_rng(seed)
    ids = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    named = [{"supercategory": "thing", "id": i, "name": f"class {i}"} for i in ids]
    of_image, of_class = rng.integers(photos, size=objects), rng.choice(ids, objects)
    with path.open("w", encoding="ascii") as file:
        file.write('{"info": {}, "licenses": [], "images": [')
        for start in range(0, photos, 1000):
            several = ", ".join(map(_image_text, range(start, min(photos, start + 1000))))
            file.write(f"{', ' * bool(start)}{several}")
        file.write('], "annotations": [')
        pool = [_outline_text(rng) for _ in range(_POOL)]
        chosen = rng.integers(_POOL, size=objects)
        for start in range(0, objects, 1000):
            several = ", ".join(
                f'{{{pool[chosen[i]]}, "image_id": {of_image[i] * 3}, "category_id": '
                f'{of_class[i]}, "id": {i}}}'
                for i in range(start, min(objects, start + 1000))
            )
            file.write(f"{', ' * bool(start)}{several}")
        file.write(f'], "categories": {json.dumps(named)}}}')


def _image_text(number: int) -> str:
    name = f"{number:012d}.jpg"
    return (
        f'{{"license": 3, "file_name": "{name}", "coco_url": "http://images.example/{name}", '
        f'"height": 480, "width": 640, "date_captured": "2013-11-14 11:18:45", "id": {number * 3}}}'
    )


def _outline_text(rng: np.random.Generator) -> str:
    """A ring of points, most of them few; one in a hundred is a crowd's run lengths."""
    if rng.random() < 0.01:
        ends = np.sort(rng.choice(480 * 640, 700, replace=False))
        counts = np.diff(ends, prepend=0, append=480 * 640).tolist()
        inner = {"counts": counts, "size": [480, 640]}
        return f'"segmentation": {json.dumps(inner)}, "area": 9000, "iscrowd": 1'
    points = _ring(rng, int(rng.gamma(2.0, 9.5)) + 4)
    box = [*points.min(axis=0).tolist(), *np.ptp(points, axis=0).round(2).tolist()]
    return (
        f'"segmentation": {json.dumps([points.ravel().tolist()])}, "area": {box[2] * box[3]:.2f}, '
        f'"iscrowd": 0, "bbox": {json.dumps(box)}'
    )


def _ring(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    radius = rng.uniform(5, 120) * rng.uniform(0.7, 1.0, count)
    centre = rng.uniform((120, 120), (520, 360))
    return np.round(centre + radius[:, None] * np.stack((np.cos(angles), np.sin(angles)), 1), 2)


def main() -> None:
    """Write one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="what", required=True)
    scenes = verbs.add_parser("scenes", help="photos and their objects")
    scenes.add_argument("out", type=Path)
    scenes.add_argument("--train", type=int, default=120)
    scenes.add_argument("--val", type=int, default=40)
    large = verbs.add_parser("list", help="a list of objects alone")
    large.add_argument("out", type=Path)
    large.add_argument("--photos", type=int, default=118_000)
    large.add_argument("--objects", type=int, default=860_000)
    for verb in (scenes, large):
        verb.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.what == "scenes":
        write_scenes(args.out, {"train2014": args.train, "val2014": args.val}, seed=args.seed)
    else:
        write_list(args.out, args.photos, args.objects, seed=args.seed)


if __name__ == "__main__":
    main()
