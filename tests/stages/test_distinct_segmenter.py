"""Segmentation without a segmenter: probabilities, the CRF on them, and the file."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tagseg.errors import ConfigError, WeightsError
from tagseg.localize.dcsm import DcsmSettings
from tagseg.localize.seeds import DistinctSeeder
from tagseg.nets.backbone import Backbone, Preprocessing
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier
from tagseg.nets.mobilenet import MobileNetV2
from tagseg.nets.tiny import Tiny
from tagseg.refine.dense_crf import CrfParameters, refine
from tagseg.stages.distinct_segmenter import (
    DISTINCT_FORMAT,
    DistinctRefiner,
    DistinctSegmenter,
    SeederSettings,
    distinct_probabilities,
    pack_distinct,
    unpack_distinct,
)
from tagseg.training import Execution

Packed = tuple[dict[str, Tensor], dict[str, str]]
CRF = {**asdict(CrfParameters(bilateral=(1.0, 30.0, 10.0), iterations=3)), "regions": None}


def photo(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def segmenter(backbone: Backbone | None = None, **form: Any) -> DistinctSegmenter:
    """Some classes are found in the photo, and not all."""
    torch.manual_seed(1)
    net = FullyConvolutionalClassifier(Tiny() if backbone is None else backbone, 3, 8, **form)
    nn.init.normal_(net.score.weight)
    net.eval()
    x = torch.from_numpy(photo()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        scores = net(x)[0] - net.score.bias
        net.score.bias.copy_(-scores + torch.tensor([2.0, -2.0, 1.0]))
    settings = SeederSettings(DcsmSettings(scales=(0.8, 1.0)), (3, 4, 5), "guided", 48)
    return DistinctSegmenter(
        net, ("cow", "größe", "car"), settings, side=48, execution=Execution(), refinement=CRF
    )


def unpacked(packed: Packed) -> DistinctSegmenter:
    return unpack_distinct(*packed, execution=Execution(), where="m.safetensors")


def test_probabilities_sum_to_one_and_keep_the_order_of_the_maps():
    maps = np.random.default_rng(0).random((3, 5, 6), np.float32)
    maps[1] = 0
    probs = distinct_probabilities(maps)
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(0), 1, atol=1e-6)
    every = np.concatenate((1 - maps.max(0, keepdims=True), maps))
    np.testing.assert_allclose(probs * every.sum(0), every, atol=1e-6)
    assert (distinct_probabilities(np.zeros((2, 4, 4), np.float32))[0] == 1).all()


def test_more_saliency_than_there_can_be_leaves_no_pixel_undefined():
    """With a high contrast maps reach 1, and the background 0."""
    maps = np.zeros((2, 3, 4), np.float32)
    maps[0, 0] = maps[1, 1] = 1
    probs = distinct_probabilities(maps)
    assert np.isfinite(probs).all()
    np.testing.assert_allclose(probs.sum(0), 1)


def test_labels_are_those_of_the_seeder():
    ours, image = segmenter(), photo(30, 48)
    found = DistinctSeeder(ours.net, ours.settings.equations, side=48)(image)
    assert found.classes.targets.any()
    assert not found.classes.targets.all()
    every = np.concatenate((1 - found.score_map.max(0, keepdims=True), found.score_map))
    labels = ours.predict(image, refine=False)
    assert np.array_equal(labels, every.argmax(0))
    assert len(np.unique(labels)) > 1


def test_company_in_a_batch_does_not_matter():
    ours, images = segmenter(), np.stack([photo(), photo()[::-1], photo()[:, ::-1]])
    for image, probs in zip(images, ours.forward(images), strict=True):
        assert np.array_equal(ours.forward(image[None])[0], probs)


def test_a_large_photo_has_labels_of_its_size():
    labels = segmenter().predict(photo(90, 130))
    assert labels.shape == (90, 130)
    assert labels.dtype == np.uint8
    assert labels.max() <= 3


# The CRF


def test_the_crf_is_over_the_labels_that_a_photo_has():
    """Equation 6: -log of the maps; a class without a map costs nothing and comes out as 0."""
    image = photo(20, 24)
    maps = np.random.default_rng(1).random((4, 20, 24), np.float32)
    maps[2] = 0
    maps[3, :5] = 0
    probs = distinct_probabilities(maps)
    smooth = DistinctRefiner(json.loads(json.dumps(CRF))).refine(image, probs)
    here = [0, 1, 2, 4]
    every = np.concatenate((1 - maps.max(0, keepdims=True), maps))[here]
    costs = -np.log(np.maximum(every, 1e-20))
    parameters = CrfParameters(bilateral=(1.0, 30.0, 10.0), iterations=3)
    np.testing.assert_allclose(
        smooth[here], refine(image, costs.astype(np.float32), parameters), atol=1e-4
    )
    assert not smooth[3].any()
    assert (smooth.argmax(0) != probs.argmax(0)).any()
    np.testing.assert_allclose(smooth.sum(0), 1, atol=1e-5)


def test_background_alone_needs_no_crf(monkeypatch):
    monkeypatch.setattr("tagseg.stages.distinct_segmenter.refine", None)
    probs = distinct_probabilities(np.zeros((2, 5, 6), np.float32))
    assert np.array_equal(DistinctRefiner(CRF).refine(photo(5, 6), probs), probs)


def test_regions_have_no_place_in_it():
    with pytest.raises(ConfigError, match="the CRF of distinct maps has no regions; leave them"):
        DistinctRefiner({**CRF, "regions": {"threshold": 0.1}})


# The file


def tiny() -> Tiny:
    backbone = Tiny(16)
    backbone.set_preprocessing(Preprocessing((0.1, 0.2, 0.3), (1.0, 0.5, 0.25)))
    return backbone


@pytest.mark.parametrize(
    ("backbone", "form"),
    [(tiny, {}), (Tiny, {"kernel": 5}), (lambda: MobileNetV2(16, "same_bottom_right"), {})],
)
def test_what_comes_out_of_a_file_predicts_what_went_in(backbone, form, tmp_path):
    before = segmenter(backbone(), **form)
    save_file(*_for_file(pack_distinct(before), tmp_path / "m.safetensors"))
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        packed = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    after = unpacked(packed)
    assert (after.classes, after.side) == (before.classes, 48)
    assert after.settings == before.settings
    assert after.refinement == json.loads(json.dumps(before.refinement))
    for image in (photo(), photo(70, 90)):
        assert np.array_equal(after.probabilities(image), before.probabilities(image))
        assert np.array_equal(
            after.predict(image, refine=False), before.predict(image, refine=False)
        )
    assert before.probabilities(photo(), refine=False)[1:].any()


def _for_file(packed: Packed, path: Any) -> tuple[Any, ...]:
    return packed[0], path, packed[1]


def test_without_a_crf():
    ours = segmenter()
    plain = DistinctSegmenter(ours.net, ours.classes, ours.settings, side=48, execution=Execution())
    after = unpacked(pack_distinct(plain))
    assert (after.refiner, after.refinement) == (None, None)
    assert np.array_equal(after.predict(photo()), ours.predict(photo(), refine=False))


@pytest.fixture(scope="module")
def packed() -> Packed:
    return pack_distinct(segmenter())


KEYS = [
    "classes", "photo_side", "backbone", "output_stride", "preprocessing", "width", "kernel",
    "seeder", "refinement",
]  # fmt: skip


def test_these_are_all_the_notes_that_are_needed(packed):
    # Files of version 0.1 have no "dilated"; without it a backbone takes its default.
    assert packed[1].keys() == {"format", "dilated", *KEYS}
    assert packed[1]["format"] == DISTINCT_FORMAT


@pytest.mark.parametrize("key", KEYS)
def test_a_file_without_a_note_is_damaged(packed, key):
    metadata = {name: value for name, value in packed[1].items() if name != key}
    with pytest.raises(WeightsError, match=r"^m.safetensors: holds a damaged segmenter \(KeyError"):
        unpacked((packed[0], metadata))


def seeder_with(**changed: Any) -> str:
    settings = asdict(SeederSettings(DcsmSettings(), (3, 4, 5), "guided", 48))
    return json.dumps({**settings, **changed})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", '["cow"]'),
        ("classes", "null"),
        ("photo_side", "0"),
        ("backbone", "resnet"),
        ("output_stride", "7"),
        ("width", "9"),
        ("width", "0"),
        ("kernel", "2"),
        ("kernel", "x"),
        ("seeder", "{"),
        ("seeder", "null"),
        ("seeder", seeder_with(equations={"alpha": 0})),
        ("seeder", seeder_with(equations={"beta": 1})),
        ("seeder", seeder_with(blocks=[6])),
        ("seeder", seeder_with(blocks=None)),
        ("seeder", seeder_with(method="smooth")),
        ("seeder", seeder_with(side="x")),
        ("seeder", seeder_with(side=0)),
        ("seeder", seeder_with(side=-5)),
        ("refinement", "{"),
        ("refinement", '"soft"'),
        ("refinement", '{"iterations": -1}'),
        ("refinement", '{"regions": {"threshold": 0.1}}'),
    ],
)
def test_damaged_notes_are_one_line(packed, key, value):
    with pytest.raises(WeightsError, match=r"^m.safetensors: holds a damaged segmenter \(\w+\); "):
        unpacked((packed[0], {**packed[1], key: value}))


@pytest.mark.parametrize("change", ["missing", "more", "shape"])
def test_damaged_tensors_are_one_line(packed, change):
    tensors = dict(packed[0])
    if change == "missing":
        del tensors["fc7.bias"]
    else:
        tensors["fc7.bias" if change == "shape" else "fc8.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError, match=r"holds a damaged segmenter \(RuntimeError\); train it"):
        unpacked((tensors, packed[1]))
