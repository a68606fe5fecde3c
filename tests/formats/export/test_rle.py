"""Run lengths beside slow loops that are written from the formats' descriptions."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from hypothesis import given
from pycocotools import mask as coco_mask

from exported import CHECKED, MASKS
from tagseg.formats.export.rle import brush_bytes, runs


def slow_runs(mask: np.ndarray) -> list[int]:
    found = [(bool(value), len(list(part))) for value, part in groupby(mask.ravel().tolist())]
    lengths = [length for _, length in found]
    return [0, *lengths] if found and found[0][0] else lengths


def slow_values(packed: np.ndarray) -> list[int]:
    """thi.ng's rle-pack, read bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in packed.tolist())
    at = 0

    def read(size: int) -> int:
        nonlocal at
        at += size
        return int(bits[at - size : at], 2)

    number, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < number:
        is_run = read(1)
        length = read(sizes[read(2)]) + 1
        if is_run:
            values += [read(word)] * length
        else:
            values += [read(word) for _ in range(length)]
    assert len(bits) - at < 8
    return values


@given(mask=MASKS)
@CHECKED
def test_runs_of_a_mask_and_of_a_part_of_one(mask):
    assert runs(mask).tolist() == slow_runs(mask)
    large = np.zeros((mask.shape[0] + 3, mask.shape[1] + 2), bool)
    large[2 : 2 + mask.shape[0], 1 : 1 + mask.shape[1]] = mask
    assert runs(mask, (2, 1), large.shape).tolist() == slow_runs(large)


@given(mask=MASKS)
@CHECKED
def test_columns_are_those_of_pycocotools(mask):
    counts = {"counts": runs(mask.T).tolist(), "size": list(mask.shape)}
    packed = coco_mask.frPyObjects(counts, *mask.shape)
    assert packed == coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))


@given(mask=MASKS)
@CHECKED
def test_brush_of_label_studio(mask):
    expected = np.repeat(mask.ravel() * 255, 4).tolist()
    assert slow_values(brush_bytes(runs(mask))) == expected


def test_brush_of_long_runs():
    for length in (2, 4, 16, 64, 65, 16_384, 16_385, 50_000):
        mask = np.zeros((1, 3 * length), bool)
        mask[0, length : 2 * length] = True
        values = slow_values(brush_bytes(runs(mask)))
        assert values == np.repeat(mask.ravel() * 255, 4).tolist()
