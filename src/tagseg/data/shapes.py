"""The objects of the generated scenes, drawn from parts.

An object is a list of parts in its own frame: x to the right and y down, both in about [-1, 1].
Parts that tell the classes apart (a sail, a beak, horns) stand beside parts that several classes
share (wheels, windows, legs, patterned bodies), so that a classifier can do with a few of them:
this is what makes localization from tags hard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tagseg.data.textures import Material, random_material

__all__ = ["DISTRACTORS", "SCENE_OBJECTS", "SINGLE_OBJECTS", "Part", "Shape"]

Points = npt.NDArray[np.float64]  # (n, 2)


@dataclass(frozen=True)
class Part:
    """A filled outline (n, 2) in the object's frame, and what it is made of."""

    outline: Points
    material: Material


Shape = Callable[[np.random.Generator], list[Part]]


# --- outlines and materials ---------------------------------------------------------------------


def _ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> Points:
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    points = np.stack([rx * np.cos(t), ry * np.sin(t)], 1)
    c, s = np.cos(turn), np.sin(turn)
    return points @ np.array([[c, s], [-s, c]]) + (x, y)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)


def _polygon(*points: tuple[float, float]) -> Points:
    return np.array(points, float)


def _blob(rng: np.random.Generator, x: float, y: float, radius: float, rough: float) -> Points:
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    waves = sum(rng.normal(0, rough / k) * np.cos(k * t + rng.uniform(0, 6)) for k in (2, 3, 5))
    r = radius * (1.0 + waves)
    return np.stack([x + r * np.cos(t), y + r * np.sin(t)], 1)


def _plain(rng: np.random.Generator, red: float, green: float, blue: float) -> Material:
    colour = np.clip(np.array([red, green, blue]) + rng.normal(0, 14, 3), 0, 255)
    return Material(colour.astype(np.float32), colour.astype(np.float32))


def _dark(rng: np.random.Generator) -> Material:
    return _plain(rng, 35, 35, 40)


def _glass(rng: np.random.Generator) -> Material:
    return _plain(rng, 165, 205, 225)


def _fur(rng: np.random.Generator) -> Material:
    return random_material(rng, patterns=("fur", "patches", "plain", "stripes"))


def _wheel(rng: np.random.Generator, x: float, y: float, radius: float) -> list[Part]:
    return [
        Part(_ellipse(x, y, radius, radius), _dark(rng)),
        Part(_ellipse(x, y, radius * 0.45, radius * 0.45), _plain(rng, 170, 170, 175)),
    ]


def _legs(
    xs: tuple[float, ...], top: float, bottom: float, width: float, m: Material
) -> list[Part]:
    return [Part(_box(x - width, top, x + width, bottom), m) for x in xs]


def _eye(rng: np.random.Generator, x: float, y: float, radius: float = 0.05) -> Part:
    return Part(_ellipse(x, y, radius, radius), _dark(rng))


# --- the classes of the scenes ------------------------------------------------------------------


def _aeroplane(rng: np.random.Generator) -> list[Part]:
    body, wing = random_material(rng), random_material(rng, patterns=("plain", "stripes"))
    sweep = rng.uniform(0.1, 0.4)
    return [
        Part(_polygon((-0.85, -0.05), (-1.0, -0.5), (-0.75, -0.5), (-0.5, -0.05)), wing),
        Part(_polygon((0.1, 0), (-sweep, -0.55), (-sweep - 0.25, -0.55), (-0.3, 0)), wing),
        Part(_ellipse(0, 0, 1.0, rng.uniform(0.15, 0.22)), body),
        Part(_polygon((0.2, 0.05), (-sweep, 0.65), (-sweep - 0.3, 0.65), (-0.25, 0.05)), wing),
        *[Part(_ellipse(x, -0.05, 0.05, 0.05), _glass(rng)) for x in (-0.3, 0.0, 0.3, 0.6)],
    ]


def _bird(rng: np.random.Generator) -> list[Part]:
    body, wing = _fur(rng), random_material(rng)
    beak = _plain(rng, 235, 150, 30)
    return [
        *_legs((-0.1, 0.15), 0.4, 0.95, 0.04, beak),
        Part(_polygon((-0.5, 0.0), (-1.0, rng.uniform(-0.2, 0.3)), (-0.9, 0.4), (-0.4, 0.3)), wing),
        Part(_ellipse(0, 0.15, 0.62, rng.uniform(0.34, 0.44), -0.25), body),
        Part(_polygon((0.75, -0.5), (1.1, -0.38), (0.75, -0.3)), beak),
        Part(_ellipse(0.55, -0.4, 0.28, 0.27), body),
        Part(_ellipse(-0.1, 0.12, 0.4, 0.2, 0.3), wing),
        _eye(rng, 0.62, -0.46),
    ]


def _boat(rng: np.random.Generator) -> list[Part]:
    hull, sail = random_material(rng), _plain(rng, 232, 228, 220)
    lean = rng.uniform(-0.1, 0.1)
    return [
        Part(_box(-0.04 + lean, -1.0, 0.04 + lean, 0.4), _plain(rng, 110, 75, 45)),
        Part(_polygon((0.07 + lean, -0.95), (0.75, 0.2), (0.07 + lean, 0.2)), sail),
        Part(_polygon((-0.07 + lean, -0.75), (-0.6, 0.2), (-0.07 + lean, 0.2)), sail),
        Part(_polygon((-1.0, 0.3), (1.0, 0.3), (0.65, 0.85), (-0.7, 0.85)), hull),
    ]


def _bus(rng: np.random.Generator) -> list[Part]:
    body = random_material(rng)
    top = rng.uniform(-0.65, -0.5)
    windows = [
        Part(_box(x, top + 0.14, x + 0.26, top + 0.5), _glass(rng))
        for x in (-0.88, -0.53, -0.18, 0.17, 0.58)
    ]
    return [
        Part(_box(-1.0, top, 1.0, 0.5), body),
        *windows,
        *_wheel(rng, -0.6, 0.5, 0.2),
        *_wheel(rng, 0.6, 0.5, 0.2),
    ]


def _car(rng: np.random.Generator) -> list[Part]:
    body = random_material(rng)
    roof = rng.uniform(-0.5, -0.35)
    return [
        Part(_polygon((-0.6, 0.02), (-0.38, roof), (0.3, roof), (0.62, 0.02)), body),
        Part(
            _polygon((-0.45, 0.0), (-0.3, roof + 0.1), (-0.05, roof + 0.1), (-0.05, 0.0)),
            _glass(rng),
        ),
        Part(
            _polygon((0.05, 0.0), (0.05, roof + 0.1), (0.25, roof + 0.1), (0.46, 0.0)), _glass(rng)
        ),
        Part(_polygon((-1, 0.05), (-0.9, 0), (0.85, 0), (1, 0.15), (1, 0.45), (-1, 0.45)), body),
        *_wheel(rng, -0.55, 0.45, 0.23),
        *_wheel(rng, 0.58, 0.45, 0.23),
    ]


def _cat(rng: np.random.Generator) -> list[Part]:
    fur = _fur(rng)
    return [
        Part(_ellipse(-0.85, -0.15, 0.08, 0.5, rng.uniform(-0.5, 0.2)), fur),
        *_legs((-0.5, -0.3, 0.2, 0.4), 0.3, 0.9, 0.08, fur),
        Part(_ellipse(-0.08, 0.25, 0.68, 0.33), fur),
        Part(_polygon((0.38, -0.35), (0.42, -0.85), (0.66, -0.5)), fur),
        Part(_polygon((0.68, -0.5), (0.93, -0.85), (0.95, -0.35)), fur),
        Part(_ellipse(0.66, -0.22, 0.36, 0.32), fur),
        _eye(rng, 0.55, -0.28, 0.06),
        _eye(rng, 0.79, -0.28, 0.06),
        Part(_polygon((0.62, -0.14), (0.74, -0.14), (0.68, -0.05)), _plain(rng, 225, 130, 140)),
    ]


def _cow(rng: np.random.Generator) -> list[Part]:
    hide = random_material(rng, patterns=("patches", "patches", "fur", "plain", "stripes"))
    horn = _plain(rng, 225, 215, 185)
    return [
        *_legs((-0.65, -0.45, 0.25, 0.45), 0.3, 0.95, 0.09, hide),
        Part(_ellipse(-0.3, 0.5, 0.14, 0.12), _plain(rng, 230, 160, 160)),
        Part(_ellipse(-0.1, 0.1, 0.78, 0.42), hide),
        Part(_polygon((0.55, -0.4), (0.45, -0.75), (0.66, -0.5)), horn),
        Part(_polygon((0.82, -0.5), (1.03, -0.75), (0.93, -0.4)), horn),
        Part(_ellipse(0.74, -0.2, 0.24, 0.34), hide),
        Part(_ellipse(0.76, 0.08, 0.19, 0.13), _plain(rng, 230, 160, 160)),
        _eye(rng, 0.66, -0.28),
        _eye(rng, 0.84, -0.28),
    ]


def _plant(rng: np.random.Generator) -> list[Part]:
    pot = random_material(rng)
    leaves = []
    for _ in range(int(rng.integers(6, 10))):
        turn = rng.uniform(-1.2, 1.2)
        reach = rng.uniform(0.45, 0.7)
        green = Material(
            np.array([50, rng.uniform(110, 170), 45], np.float32),
            np.array([90, 200, 80], np.float32),
            "stripes",
            7.0,
            float(turn),
        )
        centre = (np.sin(turn) * reach, 0.1 - np.cos(turn) * reach)
        leaves.append(Part(_ellipse(*centre, 0.14, reach * 0.75, turn), green))
    return [*leaves, Part(_polygon((-0.5, 0.15), (0.5, 0.15), (0.36, 0.95), (-0.36, 0.95)), pot)]


# --- single objects: the stand-in for ImageNet --------------------------------------------------


def _fish(rng: np.random.Generator) -> list[Part]:
    body, fin = random_material(rng), random_material(rng)
    return [
        Part(_polygon((-0.5, 0), (-1.0, -0.45), (-0.85, 0), (-1.0, 0.45)), fin),
        Part(_polygon((-0.1, -0.3), (0.1, -0.75), (0.4, -0.25)), fin),
        Part(_ellipse(0.1, 0, 0.8, rng.uniform(0.3, 0.48)), body),
        _eye(rng, 0.6, -0.1, 0.07),
    ]


def _mushroom(rng: np.random.Generator) -> list[Part]:
    cap = random_material(rng, patterns=("dots", "plain", "patches", "stripes"))
    t = np.linspace(np.pi, 2 * np.pi, 16)
    dome = np.stack([0.9 * np.cos(t), 0.05 + 0.8 * np.sin(t)], 1)
    return [Part(_box(-0.22, 0, 0.22, 0.95), _plain(rng, 225, 215, 195)), Part(dome, cap)]


def _cup(rng: np.random.Generator) -> list[Part]:
    body = random_material(rng)
    ring = [Part(_ellipse(0.7, 0.0, 0.32, 0.4), body)]
    rim = Part(_ellipse(0, -0.65, 0.62, 0.14), _dark(rng))
    return [
        *ring,
        Part(_polygon((-0.62, -0.65), (0.62, -0.65), (0.5, 0.8), (-0.5, 0.8)), body),
        rim,
    ]


def _lamp(rng: np.random.Generator) -> list[Part]:
    shade, foot = random_material(rng), random_material(rng)
    return [
        Part(_box(-0.06, -0.2, 0.06, 0.8), _dark(rng)),
        Part(_ellipse(0, 0.85, 0.5, 0.12), foot),
        Part(_polygon((-0.35, -0.95), (0.35, -0.95), (0.7, -0.1), (-0.7, -0.1)), shade),
    ]


def _clock(rng: np.random.Generator) -> list[Part]:
    a, b = rng.uniform(0, 6, 2)
    hands = [
        _polygon((-0.04, 0), (0.04, 0), (r * np.cos(t), r * np.sin(t)))
        for t, r in ((a, 0.6), (b, 0.4))
    ]
    return [
        Part(_ellipse(0, 0, 0.95, 0.95), random_material(rng)),
        Part(_ellipse(0, 0, 0.74, 0.74), _plain(rng, 235, 235, 228)),
        *[Part(hand, _dark(rng)) for hand in hands],
    ]


def _umbrella(rng: np.random.Generator) -> list[Part]:
    t = np.linspace(np.pi, 2 * np.pi, 20)
    dome = np.stack([np.cos(t), 0.1 + 0.85 * np.sin(t)], 1)
    cloth = random_material(rng, patterns=("stripes", "plain", "dots"))
    handle = _plain(rng, 110, 75, 45)
    return [
        Part(_box(-0.05, -0.8, 0.05, 0.9), handle),
        Part(_box(0.0, 0.8, 0.3, 0.92), handle),
        Part(dome, cloth),
    ]


def _guitar(rng: np.random.Generator) -> list[Part]:
    body = random_material(rng)
    return [
        Part(_box(-0.08, -1.0, 0.08, 0.2), _plain(rng, 90, 60, 40)),
        Part(_ellipse(0, 0.15, 0.36, 0.32), body),
        Part(_ellipse(0, 0.58, 0.5, 0.42), body),
        Part(_ellipse(0, 0.35, 0.14, 0.14), _dark(rng)),
    ]


def _butterfly(rng: np.random.Generator) -> list[Part]:
    upper, lower = random_material(rng), random_material(rng)
    return [
        *[Part(_ellipse(s * 0.5, -0.3, 0.5, 0.4, s * 0.5), upper) for s in (-1, 1)],
        *[Part(_ellipse(s * 0.38, 0.4, 0.34, 0.34), lower) for s in (-1, 1)],
        Part(_ellipse(0, 0, 0.09, 0.7), _dark(rng)),
    ]


def _snail(rng: np.random.Generator) -> list[Part]:
    foot, shell = _fur(rng), random_material(rng)
    return [
        Part(_polygon((-0.95, 0.6), (0.7, 0.3), (0.8, -0.3), (1.0, -0.3), (0.95, 0.6)), foot),
        Part(_ellipse(-0.1, 0.05, 0.6, 0.58), shell),
        Part(_ellipse(-0.1, 0.05, 0.25, 0.24), random_material(rng)),
        _eye(rng, 0.9, -0.35, 0.08),
    ]


def _rocket(rng: np.random.Generator) -> list[Part]:
    body, fin = random_material(rng), random_material(rng)
    return [
        Part(_polygon((-0.3, 0.3), (-0.7, 0.95), (-0.25, 0.8)), fin),
        Part(_polygon((0.3, 0.3), (0.7, 0.95), (0.25, 0.8)), fin),
        Part(_polygon((-0.3, -0.4), (0, -1.0), (0.3, -0.4), (0.3, 0.8), (-0.3, 0.8)), body),
        Part(_ellipse(0, -0.25, 0.15, 0.15), _glass(rng)),
    ]


def _bottle(rng: np.random.Generator) -> list[Part]:
    body, label = random_material(rng, patterns=("plain", "stripes")), random_material(rng)
    return [
        Part(_box(-0.12, -0.95, 0.12, -0.3), body),
        Part(
            _polygon(
                (-0.14, -0.5), (0.14, -0.5), (0.4, -0.1), (0.4, 0.95), (-0.4, 0.95), (-0.4, -0.1)
            ),
            body,
        ),
        Part(_box(-0.4, 0.15, 0.4, 0.6), label),
    ]


def _flower(rng: np.random.Generator) -> list[Part]:
    petal = random_material(rng, patterns=("plain", "fur"))
    n = int(rng.integers(5, 9))
    turns = np.arange(n) * 2 * np.pi / n
    return [
        Part(_box(-0.05, -0.2, 0.05, 1.0), _plain(rng, 60, 140, 55)),
        *[
            Part(_ellipse(0.38 * np.cos(t), -0.4 + 0.38 * np.sin(t), 0.34, 0.18, t), petal)
            for t in turns
        ],
        Part(_ellipse(0, -0.4, 0.2, 0.2), _plain(rng, 235, 190, 50)),
    ]


def _house(rng: np.random.Generator) -> list[Part]:
    wall, roof = random_material(rng), random_material(rng)
    return [
        Part(_box(-0.75, -0.1, 0.75, 0.9), wall),
        Part(_polygon((-0.95, -0.1), (0, -0.85), (0.95, -0.1)), roof),
        Part(_box(-0.15, 0.35, 0.15, 0.9), _plain(rng, 95, 65, 45)),
        *[Part(_box(x, 0.1, x + 0.26, 0.38), _glass(rng)) for x in (-0.6, 0.34)],
    ]


def _tortoise(rng: np.random.Generator) -> list[Part]:
    skin, shell = _fur(rng), random_material(rng)
    t = np.linspace(np.pi, 2 * np.pi, 16)
    dome = np.stack([-0.1 + 0.75 * np.cos(t), 0.4 + 0.8 * np.sin(t)], 1)
    return [
        *_legs((-0.5, 0.3), 0.3, 0.8, 0.12, skin),
        Part(_ellipse(0.8, 0.15, 0.22, 0.18), skin),
        Part(dome, shell),
        _eye(rng, 0.87, 0.1),
    ]


def _tractor(rng: np.random.Generator) -> list[Part]:
    body = random_material(rng)
    return [
        Part(_box(-0.7, -0.8, 0.1, 0.3), body),
        Part(_box(-0.6, -0.68, 0.0, -0.2), _glass(rng)),
        Part(_box(0.0, -0.2, 0.9, 0.35), body),
        Part(_box(0.5, -0.7, 0.6, -0.2), _dark(rng)),
        *_wheel(rng, -0.4, 0.4, 0.48),
        *_wheel(rng, 0.65, 0.58, 0.28),
    ]


def _crab(rng: np.random.Generator) -> list[Part]:
    shell = random_material(rng)
    legs = [
        _polygon((s * 0.4, y), (s * 1.0, y + 0.35), (s * 0.4, y + 0.12))
        for s in (-1, 1)
        for y in (0.1, 0.3)
    ]
    return [
        *[Part(leg, shell) for leg in legs],
        *[Part(_ellipse(s * 0.75, -0.45, 0.24, 0.2, s * 0.6), shell) for s in (-1, 1)],
        Part(_ellipse(0, 0.15, 0.6, 0.4), shell),
        _eye(rng, -0.18, -0.2, 0.08),
        _eye(rng, 0.18, -0.2, 0.08),
    ]


# --- distractors: salient, but of no class ------------------------------------------------------


def _stone(rng: np.random.Generator) -> list[Part]:
    return [Part(_blob(rng, 0, 0, 0.8, 0.12), random_material(rng))]


def _sign(rng: np.random.Generator) -> list[Part]:
    n = int(rng.choice([3, 4, 6]))
    t = np.arange(n) * 2 * np.pi / n + rng.uniform(0, 6)
    plate = np.stack([0.7 * np.cos(t), -0.3 + 0.7 * np.sin(t)], 1)
    return [Part(_box(-0.05, 0, 0.05, 1.0), _dark(rng)), Part(plate, random_material(rng))]


def _crate(rng: np.random.Generator) -> list[Part]:
    high = rng.uniform(0.4, 0.9)
    return [Part(_box(-0.8, -high, 0.8, high), random_material(rng))]


SCENE_OBJECTS: Mapping[str, Shape] = {
    "aeroplane": _aeroplane,
    "bird": _bird,
    "boat": _boat,
    "bus": _bus,
    "car": _car,
    "cat": _cat,
    "cow": _cow,
    "plant": _plant,
}

SINGLE_OBJECTS: Mapping[str, Shape] = {
    "bottle": _bottle,
    "butterfly": _butterfly,
    "clock": _clock,
    "crab": _crab,
    "cup": _cup,
    "fish": _fish,
    "flower": _flower,
    "guitar": _guitar,
    "house": _house,
    "lamp": _lamp,
    "mushroom": _mushroom,
    "rocket": _rocket,
    "snail": _snail,
    "tortoise": _tortoise,
    "tractor": _tractor,
    "umbrella": _umbrella,
}

DISTRACTORS: tuple[Shape, ...] = (_stone, _sign, _crate)
