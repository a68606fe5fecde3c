"""A run's segmenter as a file: what it says, what predict makes of it, what is refused."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from small_runs import contents
from tagseg.data.masks import read_mask
from tagseg.errors import ConfigError, WorkspaceError
from tagseg.segment.predict import Segmenter
from tagseg.session import export_model
from tagseg.session.export import load_segmenter
from tagseg.session.export_model import export_onnx, export_torch
from tagseg.session.predict import predict_folder

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="pip install tagseg[onnx]")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(go: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps, whose segmenter has a CRF."""
    folder = tmp_path_factory.mktemp("run") / "run"
    go("cam_baseline", out=folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def written_once() -> Iterator[None]:
    """All tests export one network, which takes PyTorch seconds."""
    with pytest.MonkeyPatch.context() as patch:
        write: Any = export_model.onnx_network
        kept: list[Any] = []

        def once(net: torch.nn.Module) -> Any:
            if not kept:
                kept.append(write(net))
            return kept[0]

        patch.setattr(export_model, "onnx_network", once)
        yield


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    file = tmp_path_factory.mktemp("models") / "model.onnx"
    return file, export_onnx(run, file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    for name, shape in {"one": (150, 140), "x/two": (20, 70)}.items():
        path = tmp_path / "new" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = PilImage.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8))
        coarse.resize(shape[::-1], PilImage.Resampling.BICUBIC).save(path)
    return tmp_path / "new"


def test_the_file_stands_alone_and_says_what_it_is(run: Path, exported: tuple[Path, str]) -> None:
    import onnx

    file, said = exported
    assert re.fullmatch(
        r"\S+model\.onnx: \d+\.\d MB, photos of any size to labels of 9 classes and background; "
        "without its CRF, which tagseg predict adds",
        said,
    )
    model = onnx.load(file, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    segmenter = load_segmenter(run, precision="fp32")
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["classes"]) == list(segmenter.classes)
    assert about["names"].split("\n") == ["background", *segmenter.classes]
    assert about["photo_side"] == "64"
    assert about["left_out"] == "the refinement by a dense CRF"
    assert str(ROOT).encode() not in file.read_bytes()  # nothing of where it was made


@pytest.mark.parametrize("refine", [True, False])
def test_predict_gives_the_masks_of_the_run(
    run: Path, exported: tuple[Path, str], folder: Path, tmp_path: Path, refine: bool
) -> None:
    for name, source in {"run": run, "file": exported[0]}.items():
        segmenter = load_segmenter(source, device="auto", precision="fp32")
        predict_folder(segmenter, folder, tmp_path / name, refine=refine)
    assert sorted(contents(tmp_path / "file")) == sorted(contents(tmp_path / "run"))
    for name in ("one", "x/two"):
        masks = [read_mask(tmp_path / place / f"{name}.png") for place in ("run", "file")]
        assert np.mean(masks[0] == masks[1]) >= 0.9999


def test_the_lines_without_tagseg_run(
    exported: tuple[Path, str],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = []
    for page in (ROOT / "README.md", ROOT / "docs" / "model-export.md"):
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
        found += [block for block in blocks if "onnxruntime" in block]
    assert len(found) == 2
    assert found[0] == found[1]
    assert len([line for line in found[0].splitlines() if line]) <= 10
    assert "tagseg" not in found[0]
    shutil.copy(exported[0], tmp_path / "model.onnx")
    with PilImage.open(folder / "one.png") as photo:
        photo.save(tmp_path / "photo.jpg", quality=100)
        seen = np.asarray(PilImage.open(tmp_path / "photo.jpg"))
    monkeypatch.chdir(tmp_path)
    exec(found[0], {})
    with PilImage.open("labels.png") as written:
        labels = np.asarray(written)
    assert "background" in capsys.readouterr().out or 0 not in labels
    expected = load_segmenter(exported[0]).predict(seen, refine=False)
    assert np.array_equal(labels, expected)


def test_int8_is_a_quarter_and_nearly_the_same(
    run: Path, exported: tuple[Path, str], folder: Path, tmp_path: Path
) -> None:
    export_onnx(run, tmp_path / "int8.onnx", int8=True)
    assert (tmp_path / "int8.onnx").stat().st_size < 0.35 * exported[0].stat().st_size
    with PilImage.open(folder / "one.png") as picture:
        photo = np.asarray(picture)
    exact, coarse = (
        load_segmenter(file).probabilities(photo, refine=False)
        for file in (exported[0], tmp_path / "int8.onnx")
    )
    assert 0 < np.abs(exact - coarse).max() < 0.1


def test_a_program_is_written_and_read(run: Path, tmp_path: Path) -> None:
    said = export_torch(run, tmp_path / "model.pt2")
    assert "the network alone" in said
    notes = {"tagseg.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=notes)
    segmenter = load_segmenter(run, precision="fp32")
    assert json.loads(notes["tagseg.json"])["classes"] == list(segmenter.classes)
    photo = np.random.default_rng(0).integers(0, 256, (1, 41, 60, 3), np.uint8)
    found = program.module(check_guards=False)(torch.from_numpy(photo)).numpy()
    np.testing.assert_allclose(found, Segmenter.forward(segmenter, photo), atol=1e-5)


def test_what_cannot_be_done_is_said_before_anything(
    run: Path, exported: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"model\.bin: .*ends in \.onnx; use model\.onnx"):
        export_onnx(run, tmp_path / "model.bin")
    with pytest.raises(WorkspaceError, match="cannot be used"):
        export_onnx(run, tmp_path / "nowhere" / "model.onnx")
    with pytest.raises(ConfigError, match="is an exported file itself; give a run folder"):
        export_onnx(exported[0], tmp_path / "model.onnx")
    (weights,) = run.glob("stages/*-export/segmenter.safetensors")
    with pytest.raises(ConfigError, match="int8 needs training photos; give the run's folder"):
        export_onnx(weights, tmp_path / "model.onnx", int8=True)
    find_spec = export_model.check_extra.__globals__["importlib"].util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "onnx" else find_spec(name)
    )
    with pytest.raises(ConfigError, match=r"needs onnx; pip install tagseg\[onnx\]"):
        export_onnx(run, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("device", "precision"), [("cuda", "auto"), ("auto", "bf16")])
def test_options_of_pytorch_are_refused_for_a_file(
    exported: tuple[Path, str], device: str, precision: str
) -> None:
    with pytest.raises(ConfigError, match=r"an \.onnx file has no (device cuda|precision bf16)"):
        load_segmenter(exported[0], device=device, precision=precision)


def test_a_network_that_comes_out_otherwise_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one without its normalisation: here one that sees photos at half their brightness."""
    written = export_model.onnx_network

    def darker(net: torch.nn.Module) -> Any:
        model = copy.deepcopy(written(net))
        white = next(
            tensor
            for tensor in model.graph.initializer
            if tensor.float_data == [255.0] or tensor.raw_data == np.float32(255).tobytes()
        )
        white.ClearField("float_data")
        white.raw_data = np.float32(510).tobytes()
        return model

    monkeypatch.setattr(export_model, "onnx_network", darker)
    with pytest.raises(ConfigError, match="tiny comes out otherwise in onnxruntime than in"):
        export_onnx(run, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
