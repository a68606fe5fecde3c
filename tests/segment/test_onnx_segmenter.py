"""Files that are opened as segmenters, and files that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from onnx_networks import COLOURS
from tagseg.errors import WeightsError
from tagseg.segment.onnx_graph import Frame, assemble
from tagseg.segment.onnx_segmenter import open_onnx, pack_onnx
from tagseg.segment.predict import Segmenter
from tagseg.stages.refiners import refiner_from
from tagseg.training import Execution

onnx = pytest.importorskip("onnx", reason="pip install tagseg[onnx]")
pytest.importorskip("onnxruntime", reason="pip install tagseg[onnx]")
parser = pytest.importorskip("onnx.parser")


def written(path: Path, **changed: str | None) -> Path:
    segmenter = Segmenter(nn.Identity(), ("a", "b"), side=50, execution=Execution())
    metadata = {**pack_onnx(segmenter, "0.1.0", int8=False), **changed}
    model = assemble(parser.parse_model(COLOURS), Frame(50, 3), metadata | {"tagseg": "0"})
    onnx.save(model, path)
    return path


def opened(path: Path) -> Segmenter:
    return open_onnx(path, refinement=refiner_from)


def test_a_file_is_a_segmenter(tmp_path: Path) -> None:
    segmenter = opened(written(tmp_path / "m.onnx", white_of_16_bits="1023"))
    photo = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    assert (segmenter.classes, segmenter.side, segmenter.white) == (("a", "b"), 50, 1023)
    assert segmenter.refiner is None
    probs = segmenter.forward(np.stack([photo, photo[::-1]]))
    np.testing.assert_allclose(probs[1], photo[::-1].transpose(2, 0, 1) / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": "another"}, "is no segmenter of tagseg; give a file that tagseg export"),
        ({"classes": "[1, 2]"}, "holds a damaged segmenter"),
        ({"photo_side": "-3"}, "holds a damaged segmenter"),
        ({"refinement": "{"}, "holds a damaged segmenter"),
        ({"refinement": '{"refiner": "magic"}'}, "there is no refiner 'magic'"),
    ],
)
def test_other_metadata_are_one_line(tmp_path: Path, changed: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        opened(written(tmp_path / "m.onnx", **changed))


def test_other_networks_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(WeightsError, match="is no ONNX network"):
        opened(path)
    foreign = parser.parse_model(COLOURS)
    onnx.save(foreign, path)
    with pytest.raises(WeightsError, match="is no segmenter of tagseg"):
        opened(path)
    # Our metadata on another network.
    ours = onnx.load(written(tmp_path / "ours.onnx"))
    foreign.metadata_props.extend(ours.metadata_props)
    onnx.save(foreign, path)
    with pytest.raises(WeightsError, match="is no segmenter of tagseg"):
        opened(path)


def test_numbers_in_another_file_are_refused(tmp_path: Path) -> None:
    model = onnx.load(written(tmp_path / "m.onnx"))
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.zeros(4096, np.float32), "numbers")
    )
    onnx.external_data_helper.set_external_data(model.graph.initializer[-1], "../secret")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match="keeps its numbers in another file"):
        opened(tmp_path / "m.onnx")


def test_classes_that_are_not_the_networks_are_noticed(tmp_path: Path) -> None:
    segmenter = opened(written(tmp_path / "m.onnx", classes='["a"]'))
    with pytest.raises(WeightsError, match=r"gives \(3, 8, 8\) where \(2, 8, 8\)"):
        segmenter.forward(np.zeros((1, 8, 8, 3), np.uint8))
