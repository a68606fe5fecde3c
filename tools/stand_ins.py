"""Draw data sets of kinds that general models know badly: cells, surfaces, land from above.

python tools/stand_ins.py cells OUT --train 160 --val 80
python tools/stand_ins.py defects OUT
python tools/stand_ins.py land OUT

They stand in for photos that are not at hand, to see whether a recipe's defaults hold where things
look otherwise than in photos of everyday life. Nothing is tuned on them.

``cells``: 120 pixels, one white cell of 4 kinds among red ones, no photo without; what tells the
kind is the nucleus or the grain, and the mask is the whole cell. ``defects``: 256 pixels, grey,
brushed; scratches, pits and stains of 0.1 to 5 % of the photo, four photos in ten without any.
``land``: 256 pixels; fields, water, roads and houses, which lie over one another.

OUT holds photos, masks, tags.csv, classes.txt and val.txt.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]
Rng = np.random.Generator


class Drawn(NamedTuple):
    """A photo (H, W, 3) in levels, and its mask (H, W): 0 background, k + 1 for class k."""

    photo: Floats
    mask: npt.NDArray[np.uint8]


class Kind(NamedTuple):
    """A kind of data set: its classes, and what draws its i-th photo."""

    classes: tuple[str, ...]
    draw: Callable[[Rng, int], Drawn]


class Cell(NamedTuple):
    """How a kind of white cell looks: colours of cell and nucleus, and the nucleus's parts."""

    body: tuple[int, int, int]
    nucleus: tuple[int, int, int]
    lobes: tuple[int, int]
    """Fewest and most parts of the nucleus."""
    lobe: float
    """Radius of one, in radii of the cell."""
    radius: tuple[float, float] = (20.0, 28.0)
    grains: int = 0


CELLS: Mapping[str, Cell] = {
    "neutrophil": Cell((205, 190, 220), (110, 60, 140), (2, 4), 0.36),
    "eosinophil": Cell((240, 170, 150), (110, 60, 140), (2, 2), 0.36, grains=90),
    "lymphocyte": Cell((170, 180, 225), (95, 50, 135), (1, 1), 0.85, (15.0, 18.0)),
    "monocyte": Cell((190, 185, 200), (130, 85, 160), (1, 1), 0.62),
}
DEFECTS = ("scratch", "pits", "stain")
LAND = ("field", "water", "road", "house")


def smooth_noise(rng: Rng, side: int, grain: int, strength: float) -> Floats:
    """Noise (side, side) whose spots are about ``grain`` pixels wide."""
    coarse = rng.normal(size=(max(2, side // grain),) * 2).astype(np.float32)
    return strength * cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def blob(
    rng: Rng, side: int, centre: npt.ArrayLike, radius: float, *, rough: float, long: float
) -> Bools:
    """A round shape about ``centre`` (y, x), more uneven the larger ``rough`` and ``long`` are."""
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radii = radius * (1 + long * np.cos(2 * (angles - rng.uniform(0, 2 * np.pi))))
    for k in range(2, 6):
        radii *= 1 + rough / k * rng.normal() * np.cos(k * angles + rng.uniform(0, 2 * np.pi))
    y, x = np.asarray(centre)[:, None] + radii * np.stack([np.sin(angles), np.cos(angles)])
    filled = np.zeros((side, side), np.uint8)
    cv2.fillPoly(filled, [np.stack([x, y], 1).round().astype(np.int32)], 1)
    return filled.astype(bool)


def tilted_box(side: int, centre: npt.ArrayLike, size: Sequence[float], angle: float) -> Bools:
    """A rectangle of ``size`` about ``centre``, turned by degrees."""
    filled = np.zeros((side, side), np.uint8)
    y, x = np.asarray(centre).tolist()
    corners = cv2.boxPoints(((x, y), (size[0], size[1]), angle))
    cv2.fillPoly(filled, [corners.astype(np.int32)], 1)
    return filled.astype(bool)


def draw_cell(rng: Rng, number: int) -> Drawn:
    """One white cell; the kinds take turns."""
    side, label = 120, number % len(CELLS)
    cell = tuple(CELLS.values())[label]
    photo = np.array([232, 205, 215]) + smooth_noise(rng, side, 20, 5)[..., None]
    for _ in range(rng.integers(3, 8)):
        centre, radius = rng.uniform(0, side, 2), rng.uniform(11, 15)
        for factor, colour in ((1.0, (222, 160, 165)), (0.45, (232, 185, 190))):
            disc = blob(rng, side, centre, factor * radius, rough=0.05, long=0.05)
            photo[disc] = np.array(colour) + rng.normal(0, 3)
    centre, radius = side / 2 + rng.normal(0, 6, 2), rng.uniform(*cell.radius)
    body = blob(rng, side, centre, radius, rough=0.06, long=0.06)
    photo[body] = np.array(cell.body) + rng.normal(0, 4, 3)
    lobes = int(rng.integers(cell.lobes[0], cell.lobes[1] + 1))
    for _ in range(lobes):
        angle, away = rng.uniform(0, 2 * np.pi), 0.0 if lobes == 1 else 0.45 * radius
        middle = centre + away * np.array([np.sin(angle), np.cos(angle)])
        part = blob(rng, side, middle, cell.lobe * radius, rough=0.1, long=0.2)
        photo[part & body] = np.array(cell.nucleus) + rng.normal(0, 4, 3)
    for y, x in (centre + rng.normal(0, radius / 2, (cell.grains, 2))).round().astype(int):
        if body[y, x]:
            photo[y - 1 : y + 2, x - 1 : x + 2] = (225, 90, 70)
    mask = np.where(body, label + 1, 0).astype(np.uint8)
    return Drawn(finished(rng, photo, 0.8, 3), mask)


def draw_defects(rng: Rng, number: int) -> Drawn:
    """A brushed grey surface; number does not matter."""
    side = 256
    photo = rng.uniform(95, 160) + smooth_noise(rng, side, 64, 10) + smooth_noise(rng, side, 6, 5)
    photo += 6 * np.sin(np.arange(side) * rng.uniform(0.2, 0.5)) + rng.normal(0, 4, (side, side))
    mask = np.zeros((side, side), np.uint8)
    count = int(rng.choice(3, p=[0.4, 0.42, 0.18]))
    for label in rng.choice(len(DEFECTS), count, replace=False):
        where, change = (scratch, pits, stain)[label](rng, side)
        photo = photo + where * change
        mask[where] = label + 1
    return Drawn(finished(rng, np.repeat(photo[..., None], 3, 2), 0.7, 0), mask)


def scratch(rng: Rng, side: int) -> tuple[Bools, float]:
    """A thin dark line that bends, and how much darker it is."""
    point, angle = rng.uniform(20, side - 20, 2), rng.uniform(0, 2 * np.pi)
    points = [point]
    for _ in range(rng.integers(6, 16)):
        angle += rng.normal(0, 0.25)
        points.append(points[-1] + 9 * np.array([np.cos(angle), np.sin(angle)]))
    drawn = np.zeros((side, side), np.uint8)
    line = np.array(points).round().astype(np.int32)
    cv2.polylines(drawn, [line], False, 1, int(rng.integers(1, 4)))
    return drawn.astype(bool), -rng.uniform(30, 50)


def pits(rng: Rng, side: int) -> tuple[Bools, float]:
    """Some bright spots, and how much brighter they are."""
    drawn = np.zeros((side, side), np.uint8)
    for y, x in rng.uniform(10, side - 10, (int(rng.integers(2, 9)), 2)):
        cv2.circle(drawn, (int(x), int(y)), int(rng.integers(2, 5)), 1, -1)
    return drawn.astype(bool), rng.uniform(30, 50)


def stain(rng: Rng, side: int) -> tuple[Bools, Floats]:
    """A darker patch, and how much darker it is at each pixel."""
    patch = blob(rng, side, rng.uniform(30, side - 30, 2), rng.uniform(10, 26), rough=0.3, long=0.2)
    return patch, -18 - smooth_noise(rng, side, 8, 6)


def draw_land(rng: Rng, number: int) -> Drawn:
    """Land from above; number does not matter."""
    side = 256
    photo = np.array([95, 110, 70]) + smooth_noise(rng, side, 32, 10)[..., None]
    photo = photo + smooth_noise(rng, side, 4, 8)[..., None]
    mask = np.zeros((side, side), np.uint8)
    for label, (often, lay) in enumerate(
        ((0.45, lay_field), (0.4, lay_water), (0.45, lay_road), (0.45, lay_houses)), start=1
    ):
        if rng.random() < often:
            mask[lay(rng, photo)] = label
    return Drawn(finished(rng, photo, 0.8, 4), mask)


def lay_field(rng: Rng, photo: Floats) -> Bools:
    """A ploughed field, painted into the photo; where it lies."""
    side, size, angle = len(photo), rng.uniform(50, 90), rng.uniform(0, 90)
    field = tilted_box(side, rng.uniform(40, side - 40, 2), (2 * size, 1.3 * size), angle)
    y, x = np.mgrid[:side, :side]
    furrows = 10 * np.sin(0.9 * (x * np.cos(np.deg2rad(angle)) + y * np.sin(np.deg2rad(angle))))
    ground = np.array([165, 150, 90]) + (furrows + smooth_noise(rng, side, 16, 6))[..., None]
    photo[field] = ground[field]
    return field


def lay_water(rng: Rng, photo: Floats) -> Bools:
    """A lake, painted into the photo; where it lies."""
    side = len(photo)
    lake = blob(rng, side, rng.uniform(20, side - 20, 2), rng.uniform(30, 70), rough=0.3, long=0.3)
    photo[lake] = (np.array([50, 75, 95]) + smooth_noise(rng, side, 12, 4)[..., None])[lake]
    return lake


def lay_road(rng: Rng, photo: Floats) -> Bools:
    """A straight road from edge to edge, painted into the photo; where it lies."""
    side = len(photo)
    ends = [(0, int(rng.uniform(0, side))), (side, int(rng.uniform(0, side)))]
    if rng.random() < 0.5:
        ends = [(x, y) for y, x in ends]
    drawn = np.zeros((side, side), np.uint8)
    cv2.line(drawn, ends[0], ends[1], 1, int(rng.integers(7, 12)))
    road = drawn.astype(bool)
    photo[road] = (np.array([135, 132, 128]) + smooth_noise(rng, side, 8, 4)[..., None])[road]
    return road


def lay_houses(rng: Rng, photo: Floats) -> Bools:
    """Roofs with shadows, painted into the photo; where the roofs lie."""
    side = len(photo)
    roofs = np.zeros((side, side), bool)
    for _ in range(rng.integers(3, 12)):
        centre, size, angle = rng.uniform(10, side - 10, 2), rng.uniform(12, 24), rng.uniform(0, 90)
        photo[tilted_box(side, centre + 3, (size, 1.4 * size), angle) & ~roofs] *= 0.5
        roof = tilted_box(side, centre, (size, 1.4 * size), angle)
        colour = ((165, 90, 75), (150, 150, 155), (120, 80, 60))[rng.integers(3)]
        photo[roof] = np.array(colour) + rng.normal(0, 8)
        roofs |= roof
    return roofs


def finished(rng: Rng, photo: Floats, blur: float, noise: float) -> Floats:
    """As a lens and a sensor would have it."""
    blurred = cv2.GaussianBlur(photo.astype(np.float32), (0, 0), blur)
    return np.asarray(blurred + rng.normal(0, noise, photo.shape), np.float32)


KINDS: Mapping[str, Kind] = {
    "cells": Kind(tuple(CELLS), draw_cell),
    "defects": Kind(DEFECTS, draw_defects),
    "land": Kind(LAND, draw_land),
}


def write(kind: str, out: Path, train: int, val: int, *, seed: int = 0) -> None:
    """Write a data set of ``train`` + ``val`` photos into the folder ``out``."""
    classes, draw = KINDS[kind]
    for name in ("photos", "masks"):
        (out / name).mkdir(parents=True, exist_ok=True)
    names = [f"{kind}{i:04d}" for i in range(train + val)]
    with (out / "tags.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "tags"])
        for i, name in enumerate(names):
            photo, mask = draw(np.random.default_rng([seed, i]), i)
            levels = photo.clip(0, 255).astype(np.uint8)
            PilImage.fromarray(levels).save(out / "photos" / f"{name}.jpg", quality=92)
            PilImage.fromarray(mask).save(out / "masks" / f"{name}.png")
            seen = [classes[label - 1] for label in np.unique(mask).tolist() if label]
            rows.writerow([f"{name}.jpg", ";".join(seen)])
    (out / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
    (out / "val.txt").write_text("\n".join(names[train:]) + "\n", encoding="utf-8")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=160)
    parser.add_argument("--val", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write(given.kind, given.out, given.train, given.val, seed=given.seed)


if __name__ == "__main__":
    main()
