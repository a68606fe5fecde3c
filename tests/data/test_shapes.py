from __future__ import annotations

import numpy as np
import pytest

from tagseg.data.shapes import DISTRACTORS, SCENE_OBJECTS, SINGLE_OBJECTS, Part, Shape
from tagseg.data.textures import PATTERNS

EVERY = [
    *SCENE_OBJECTS.items(),
    *SINGLE_OBJECTS.items(),
    *((shape.__name__, shape) for shape in DISTRACTORS),
]


def test_there_are_enough_classes_and_the_two_sets_share_none() -> None:
    assert len(SCENE_OBJECTS) >= 8
    assert len(SINGLE_OBJECTS) >= 12
    assert not SCENE_OBJECTS.keys() & SINGLE_OBJECTS.keys()
    shapes = [shape for _, shape in EVERY]
    assert len(set(shapes)) == len(shapes)


@pytest.mark.parametrize("name_and_shape", EVERY, ids=lambda item: item[0])
def test_parts_fill_the_frame_and_can_be_painted(name_and_shape: tuple[str, Shape]) -> None:
    for seed in range(20):
        parts = name_and_shape[1](np.random.default_rng(seed))
        assert parts
        outlines = np.concatenate([part.outline for part in parts])
        assert np.isfinite(outlines).all()
        assert np.abs(outlines).max() < 1.5
        assert np.ptp(outlines, axis=0).max() > 0.9  # about [-1, 1]: sizes are comparable
        for part in parts:
            assert part.outline.ndim == 2
            assert part.outline.shape[1] == 2
            assert len(part.outline) >= 3
            assert part.material.pattern in PATTERNS
            assert part.material.period > 0


def test_no_two_pictures_of_a_class_are_alike() -> None:
    for _, shape in EVERY:
        first, second = (_signature(shape(np.random.default_rng(seed))) for seed in (0, 1))
        assert first != second
        assert first == _signature(shape(np.random.default_rng(0)))


def test_classes_share_the_look_of_their_bodies() -> None:
    """Colour or pattern alone do not tell the classes apart: many have what others have."""
    patterns: dict[str, set[str]] = {}
    for name, shape in SCENE_OBJECTS.items():
        for seed in range(40):
            for part in shape(np.random.default_rng(seed)):
                patterns.setdefault(part.material.pattern, set()).add(name)
    assert all(len(owners) >= 4 for owners in patterns.values())


def _signature(parts: list[Part]) -> list[tuple[float, ...]]:
    return [
        (*part.outline.ravel(), *part.material.first, *part.material.second, part.material.period)
        for part in parts
    ]
