from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts import Prior, PriorContract
from tagseg.errors import ConfigError, TagsegError, WeightsError
from tagseg.maps import Image
from tagseg.priors.onnx_saliency import KNOWN_NETWORKS, InputForm, OnnxSaliency, find_model

onnx = pytest.importorskip("onnx", reason="pip install onnx")
pytest.importorskip("onnxruntime", reason="pip install tagseg[onnx]")


def written(path: Path, *shapes: list[Any], form: dict[str, Any] | None = None) -> Path:
    """A network whose map is the mean of the channels, and the sum of its inputs."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    shapes = shapes or ([1, 3, 32, 32],)
    inputs = [helper.make_tensor_value_info(f"in{i}", kind, s) for i, s in enumerate(shapes)]
    nodes = [helper.make_node("Sum", [i.name for i in inputs], ["sum"])]
    nodes.append(helper.make_node("ReduceMean", ["sum", "axes"], ["map"], keepdims=1))
    axes = helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1])
    output = helper.make_tensor_value_info("map", kind, None)
    graph = helper.make_graph(nodes, "mean", inputs, [output], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    if form is not None:
        path.with_suffix(".json").write_text(json.dumps(form))
    return path


PLAIN = {"mean": [0, 0, 0], "std": [1, 1, 1]}


def photo(height: int = 40, width: int = 56) -> Image:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


class TestContract(PriorContract):
    @pytest.fixture
    def prior(self, tmp_path: Path) -> Prior:
        return OnnxSaliency(written(tmp_path / "net.onnx", form=PLAIN)).map


@pytest.mark.parametrize("scale", ["255", "maximum", "1"])
def test_input_is_prepared_as_the_form_says(tmp_path: Path, scale: str) -> None:
    """At the network's own size, where nothing is resized."""
    form = {"scale": scale, "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "output": "min-max"}
    net = OnnxSaliency(written(tmp_path / "net.onnx", form=form))
    image = photo(32, 32) // 2
    divisor = {"255": 255, "maximum": image.max(), "1": 1}[scale]
    pixels = image.astype(np.float64) / divisor
    mean = ((pixels - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]).mean(2)
    expected = (mean - mean.min()) / (mean.max() - mean.min())
    np.testing.assert_allclose(net.map(image), expected, atol=1e-5)


def test_outputs_become_maps(tmp_path: Path) -> None:
    image = photo(32, 32)
    mean = image.astype(np.float64).mean(2) / 255
    for output, expected in (("clip", mean), ("sigmoid", 1 / (1 + np.exp(-mean)))):
        path = written(tmp_path / f"{output}.onnx", form=PLAIN | {"output": output})
        np.testing.assert_allclose(OnnxSaliency(path).map(image), expected, atol=1e-5)


def test_a_photo_without_contrast_has_no_salient_object(tmp_path: Path) -> None:
    net = OnnxSaliency(written(tmp_path / "net.onnx", form=PLAIN))
    assert not net.map(np.full((20, 30, 3), 77, np.uint8)).any()


def test_a_dynamic_axis_needs_a_size(tmp_path: Path) -> None:
    path = written(tmp_path / "net.onnx", ["batch", 3, "h", "w"], form=PLAIN)
    with pytest.raises(ConfigError, match=r"any size; say which, as \{\"side\": 320\} in net.json"):
        OnnxSaliency(path)
    assert (
        OnnxSaliency(written(path, ["b", 3, "h", "w"], form=PLAIN | {"side": 48})).form.side == 48
    )


def test_known_networks_need_no_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "u2netp.onnx", [1, 3, 320, 320])
    assert OnnxSaliency(path).form == KNOWN_NETWORKS["u2netp"] == InputForm(320, "maximum")
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    assert find_model("u2netp") == path
    with pytest.raises(WeightsError, match=r"u2net\.onnx is not there; put it there"):
        find_model("u2net")


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([[1, 3, 32, 32], [1, 3, 32, 32]], r"has 2 inputs \(in0, in1\)"),
        ([[1, 1, 32, 32]], r"takes tensor\(float\) \[1, 1, 32, 32\]"),
        ([[4, 3, 32, 32]], "takes 4 photos at once"),
        ([[1, 3, 32, 48]], "takes 32 x 48 pixels"),
        ([[1, 3, 32]], "takes tensor"),
    ],
)
def test_other_inputs_are_refused(tmp_path: Path, shapes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OnnxSaliency(written(tmp_path / "net.onnx", *shapes, form=PLAIN))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"size": 3}, "has other fields; use side, scale, mean, std, output"),
        ({"mean": [1]}, "three numbers"),
        ({"std": [0, 1, 1]}, "three numbers"),
        ({"mean": "abc"}, "three numbers"),
        ({"scale": 255}, "scale is not one of 255, maximum, 1"),
        ({"output": "softmax"}, "output is not one of"),
        ({"side": 3}, "side is not"),
        ({"side": 64}, "takes 32 pixels, and its form says 64"),
        ([], "has other fields"),
    ],
)
def test_other_forms_are_refused(tmp_path: Path, form: Any, message: str) -> None:
    path = written(tmp_path / "net.onnx")
    path.with_suffix(".json").write_text(json.dumps(form))
    with pytest.raises(ConfigError, match=message):
        OnnxSaliency(path)


def test_a_network_without_a_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing says how its input is prepared; .* net\.json"):
        OnnxSaliency(written(tmp_path / "net.onnx"))


def test_numbers_in_another_file_are_not_read(tmp_path: Path) -> None:
    path = written(tmp_path / "net.onnx", form=PLAIN)
    model = onnx.load(path)
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [1.0])
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"
    model.graph.initializer.append(weight)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match="keeps its numbers in another file, which is not read"):
        OnnxSaliency(path)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\x07\x12\x00" * 9])
def test_other_files_get_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "u2netp.onnx"
    path.write_bytes(content)
    with pytest.raises(TagsegError) as caught:
        OnnxSaliency(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match=r"no such file; give an \.onnx file or one of u2net,"):
        find_model(str(tmp_path / "nothing.onnx"))


def test_the_digest_follows_file_and_form(tmp_path: Path) -> None:
    def digest(form: dict[str, Any]) -> str:
        return OnnxSaliency(written(tmp_path / "net.onnx", form=form)).digest

    assert digest(PLAIN) == digest(PLAIN) != digest(PLAIN | {"scale": "maximum"})


def test_another_process_opens_the_same_file_for_itself(tmp_path: Path) -> None:
    file = written(tmp_path / "net.onnx", form=PLAIN)
    net = OnnxSaliency(file)
    sent = pickle.dumps(net)
    assert np.array_equal(pickle.loads(sent).map(photo()), net.map(photo()))
    written(tmp_path / "net.onnx", form={**PLAIN, "output": "clip"})
    with pytest.raises(WeightsError, match="is not what it was when the run began"):
        pickle.loads(sent)


def test_a_run_says_that_it_is_not_from_tags_alone(tmp_path: Path, go: Any) -> None:
    path = written(tmp_path / "net.onnx", form=PLAIN)
    values = {"seeder_side": 64, "guide": "g1", "saliency_model": str(path)}
    result = go("guided", values, out=tmp_path / "run")
    said = (
        "Not from tags alone:</strong> saliency is by a network that has learned from pixel masks"
    )
    assert said in result.report.read_text()
    with pytest.raises(ConfigError, match="--saliency-model is given, but saliency comes from"):
        go("guided", values | {"saliency": "barrier"})
    with pytest.raises(ConfigError, match="saliency=network has nothing to read"):
        go("guided", {"saliency": "network"})
