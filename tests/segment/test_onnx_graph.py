"""What stands around a network in an exported file gives what OpenCV and the segmenter give."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from torch import nn

from onnx_networks import COLOURS
from tagseg.data.working import argmax_at
from tagseg.maps import Image, Probs
from tagseg.segment.onnx_graph import Frame, assemble
from tagseg.segment.predict import Segmenter
from tagseg.segment.windowed import Sight, WindowedSegmenter
from tagseg.training import Execution

onnx = pytest.importorskip("onnx", reason="pip install tagseg[onnx]")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install tagseg[onnx]")
parser = pytest.importorskip("onnx.parser")

SIDE = 100
SIGHTS = {
    "whole": None,
    "windows": Sight(1.25, 32),
    "sizes": Sight(1.5, 40, (0.5, 1.0, 1.3), True),
    "small": Sight(0.4, 33, (1.0, 2.0)),
}
# Whole factors (2, 3 and both unlike), others, one that leaves the width, photos that stay small.
SHAPES = [(200, 150), (300, 150), (300, 400), (223, 317), (501, 3), (1, 7), (75, 98), (1000, 750)]


def colours() -> Any:
    """A network whose three probabilities are the colours of its input."""
    model = parser.parse_model(COLOURS)
    return model


class Colours(Segmenter):
    def forward(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(
            255
        )


class ColoursInWindows(WindowedSegmenter, Colours):
    pass


def segmenter(sight: Sight | None) -> Segmenter:
    if sight is None:
        return Colours(nn.Identity(), ("a", "b"), side=SIDE, execution=Execution())
    return ColoursInWindows(
        nn.Identity(), ("a", "b"), sight=sight, side=SIDE, execution=Execution()
    )


def session(model: Any) -> Any:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def at_full_size(probs: Probs, shape: tuple[int, int]) -> Probs:
    return np.stack([cv2.resize(np.ascontiguousarray(p), shape[::-1]) for p in probs])


def smooth(shape: tuple[int, int]) -> Image:
    rough = np.random.default_rng(1).integers(0, 256, (9, 8, 3), np.uint8)
    picture: Any = cv2.resize(rough, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return picture


@pytest.mark.parametrize("name", SIGHTS)
def test_probabilities_and_labels_are_the_segmenters(name: str) -> None:
    graph = session(assemble(colours(), Frame(SIDE, 3, SIGHTS[name]), {"tagseg": "0"}))
    expected_of = segmenter(SIGHTS[name])
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        for photo in (rng.integers(0, 256, (*shape, 3), np.uint8), smooth(shape)):
            expected = expected_of.probabilities(photo)
            labels, probs = graph.run(None, {"image": photo})
            np.testing.assert_allclose(probs, expected, atol=4e-6)
            asked = {"image": photo, "full_probabilities": np.array(True)}
            full = graph.run(["probabilities"], asked)[0]
            large = at_full_size(expected, shape)
            np.testing.assert_allclose(full, large, atol=4e-6)
            # Where labels differ, two colours are equal but for rounding.
            chosen = np.take_along_axis(large, labels[None].astype(np.intp), 0)
            assert (large.max(0) - chosen).max() < 1e-5
            assert np.mean(labels == argmax_at(expected, shape)) > 0.99


def test_pixels_at_working_size_are_opencvs_to_the_bit() -> None:
    """Noise has a sum near a half at every other pixel; rounding otherwise would show."""
    graph = session(assemble(colours(), Frame(SIDE, 3), {"tagseg": "0"}))
    rng = np.random.default_rng(3)
    for shape in [(200, 200), (300, 200), (400, 400), (600, 300), (137, 251), (999, 640)]:
        photo = rng.integers(0, 256, (*shape, 3), np.uint8)
        probs = graph.run(["probabilities"], {"image": photo})[0]
        assert np.array_equal(probs, segmenter(None).probabilities(photo))


def test_photos_are_brought_to_working_size_before_the_network() -> None:
    photo = smooth((300, 400))
    with_it, without = (
        session(assemble(colours(), Frame(side, 3), {"tagseg": "0"})).run(None, {"image": photo})
        for side in (SIDE, 1000)
    )
    assert with_it[1].shape == (3, 75, 100)
    assert without[1].shape == (3, 300, 400)


def test_the_file_is_the_same_each_time_and_holds_no_functions() -> None:
    made = [assemble(colours(), Frame(SIDE, 3, Sight()), {"tagseg": "0"}) for _ in range(2)]
    assert made[0].SerializeToString(deterministic=True) == made[1].SerializeToString(
        deterministic=True
    )
    assert not made[0].functions
    assert [opset.domain for opset in made[0].opset_import] == [""]
