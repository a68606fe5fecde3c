"""``tagseg.localize`` as a library: what is exported, its examples, and both types of floats."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tagseg import localize
from tagseg.errors import ShapeError
from tagseg.localize import (
    ClassSaliency,
    DcsmSettings,
    DistinctSeeder,
    GradientSeeder,
    LayerSet,
    Square,
    aggregate,
    at_photo_size,
    attention_relevance,
    attention_rollout,
    background_cues,
    background_saliency,
    candidate_classes,
    channel_maximum,
    class_activation_maps,
    distinct_maps,
    distinct_score_map,
    grad_cam,
    layer_cam,
    layer_saliency,
    normalised_maps,
    probabilities,
    score_changes,
    score_map,
    token_map,
    unary,
    with_background,
)
from tagseg.nets.gap import GapClassifier
from tagseg.nets.tiny import Tiny

torch.set_num_threads(1)


@pytest.mark.parametrize("name", localize.__all__)
def test_every_name_has_examples_that_run(name: str) -> None:
    found = getattr(localize, name)
    assert ">>>" in (inspect.getdoc(found) or "")
    home = sys.modules[found.__module__]
    tests = doctest.DocTestFinder(recurse=False).find(found, name, module=home)
    assert sum(len(test.examples) for test in tests) >= 1
    runner = doctest.DocTestRunner()
    for test in tests:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("name", localize.__all__)
def test_every_docstring_says_what_goes_in_and_comes_out(name: str) -> None:
    found = getattr(localize, name)
    text = inspect.getdoc(found) or ""
    assert text.split("\n")[0].endswith(".")
    if inspect.isfunction(found):
        assert "Args:" in text
        assert "Returns:" in text
        for parameter in inspect.signature(found).parameters:
            assert f"\n    {parameter}: " in text, parameter


def test_names_are_sorted_and_all_there_are() -> None:
    assert sorted(localize.__all__) == list(localize.__all__)
    public = {
        name
        for name, value in vars(localize).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(localize.__all__)


def test_importing_tagseg_stays_quick() -> None:
    heavy = "{'torch', 'numpy', 'tagseg.localize'}"
    code = f"import sys, tagseg; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


# Single and double precision


def network() -> GapClassifier:
    torch.manual_seed(0)
    net = GapClassifier(Tiny(), 3, hidden=8).eval()
    nn.init.normal_(net.scores.weight)
    return net


def photos() -> np.ndarray:
    return np.random.default_rng(0).random((2, 3, 40, 56)).astype(np.float32)


def photo() -> np.ndarray:
    return photos()[0].transpose(1, 2, 0)


TAGS = np.array([True, False, True])
SETTINGS = DcsmSettings(scales=(1.0,), min_candidates=3)
CLASSES = candidate_classes([[0.9, 0.3, 0.2]], SETTINGS, TAGS)


def maps(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape).astype(np.float32)


def distinct(raw: Tensor) -> Any:
    square = Square.of(photo(), 40, Tiny())
    layers = LayerSet(("input",), (1,), (0,))
    return distinct_score_map(square, lambda j: {"input": raw}, layers, CLASSES, SETTINGS)


OF_TENSORS: dict[str, tuple[Callable[[Tensor], Any], np.ndarray]] = {
    "ClassSaliency": (
        lambda x: ClassSaliency(network(), "guided").forward(x).saliency([0, 2])["input"],
        photos(),
    ),
    "Record": (lambda x: ClassSaliency(network()).forward(x).class_maps, photos()),
    "aggregate": (lambda m: aggregate([(0, m)], CLASSES, SETTINGS), maps(3, 5, 6)),
    "at_photo_size": (lambda m: at_photo_size(m, (17, 23), stride=4), maps(3, 5, 6)),
    "attention_relevance": (lambda a: attention_relevance([a, a], [a - 0.5, a]), maps(2, 3, 5, 5)),
    "attention_rollout": (lambda a: attention_rollout([a, a]), maps(2, 3, 5, 5)),
    "background_saliency": (lambda x: background_saliency(network(), x), photos()),
    "channel_maximum": (channel_maximum, maps(2, 3, 5, 6) - 0.5),
    "class_activation_maps": (
        lambda x: class_activation_maps(network(), x, flip=True, scales=(1.0, 0.5)),
        photos(),
    ),
    "distinct_maps": (lambda m: distinct_maps(m, [0, 2], [0, 1]), maps(3, 5, 6)),
    "distinct_score_map": (distinct, maps(3, 40, 40)),
    "grad_cam": (lambda x: grad_cam(network(), x, layer="backbone.block5"), photos()),
    "layer_cam": (lambda x: layer_cam(network(), x, layer="backbone.block4"), photos()),
    "layer_saliency": (lambda g: layer_saliency(g, (17, 23), stride=4), maps(3, 2, 5, 6)),
    "probabilities": (
        lambda x: probabilities([ClassSaliency(network()).forward(x[:1])]),
        photos(),
    ),
    "score_map": (lambda m: score_map(m, TAGS), maps(2, 5, 6)),
    "token_map": (lambda m: token_map(m, (2, 2)), maps(2, 5, 5)),
    "unary": (unary, maps(2, 5, 6)),
    "with_background": (with_background, maps(2, 5, 6)),
}
OF_ARRAYS: dict[str, tuple[Callable[[np.ndarray], Any], np.ndarray]] = {
    "DistinctSeeder": (
        lambda p: DistinctSeeder(network(), SETTINGS, side=40)(p, TAGS).score_map,
        photo(),
    ),
    "GradientSeeder": (lambda p: GradientSeeder(network())(p, TAGS), photo()),
    "Square": (lambda p: Square.of(p, 40, Tiny()).image, photo()),
    "background_cues": (lambda m: background_cues(m, fraction=0.3), maps(9, 8)),
    "candidate_classes": (lambda p: candidate_classes(p, SETTINGS).classes, maps(1, 3)),
    "normalised_maps": (lambda m: normalised_maps(m, TAGS, (17, 23)), maps(3, 5, 6) - 0.5),
    "score_changes": (
        lambda p: score_changes(network(), p, np.eye(40, 56), fill=(9, 9, 9)),
        photo(),
    ),
}
# The two that need a transformer are tried in test_attention_rollout.py.
OF_TRANSFORMERS = {"AttentionRelevance", "rollout_saliency"}
WITHOUT_FLOATS = {
    "CandidateClasses",
    "DcsmSettings",
    "LayerSet",
    "feature_layers",
    "hidden_cells",
}


def test_every_name_is_tried_with_doubles() -> None:
    assert {*OF_TENSORS, *OF_ARRAYS, *OF_TRANSFORMERS, *WITHOUT_FLOATS} == set(localize.__all__)


@pytest.mark.parametrize("name", OF_TENSORS)
def test_double_tensors_give_what_single_ones_give(name: str) -> None:
    function, values = OF_TENSORS[name]
    given = torch.from_numpy(values)
    single, double = (torch.as_tensor(function(x)) for x in (given.clone(), given.double()))
    assert single.dtype == torch.float32
    assert single.any()
    torch.testing.assert_close(double.float(), single, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_double_arrays_give_what_single_ones_give(name: str) -> None:
    function, values = OF_ARRAYS[name]
    kept = values.copy()
    single, double = function(values), function(values.astype(np.float64))
    np.testing.assert_array_equal(values, kept)
    assert np.any(single)
    assert double.dtype == single.dtype
    np.testing.assert_allclose(double, single, atol=1e-6)


@pytest.mark.parametrize(
    "see", [GradientSeeder(network()), DistinctSeeder(network(), SETTINGS, side=40)]
)
def test_photos_may_be_of_8_bits_or_floats(see: Any) -> None:
    bits = np.round(photo() * 255).astype(np.uint8)
    found = [see(p, TAGS) for p in (bits, bits / 255)]
    found = [getattr(f, "score_map", f) for f in found]
    np.testing.assert_array_equal(found[0], found[1])
    with pytest.raises(ShapeError, match="image has floats beyond"):
        see(photo() * 255, TAGS)
    with pytest.raises(ShapeError, match="give a uint8 array"):
        see(bits.astype(np.int64), TAGS)


def test_seeds_of_a_network_of_others() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 3, 3, 2, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ).eval()
    seeds = GradientSeeder(net, layers=["input", net[1]], sigma=0)(photo(), TAGS)
    x = torch.from_numpy(np.round(photo() * 255) / 255).permute(2, 0, 1)[None].requires_grad_()
    hidden = net[1](net[0](x))
    expected = np.zeros((2, 40, 56))
    for k, label in enumerate((0, 2)):
        score = net[4](net[3](net[2](hidden)))[0, label]
        (of_hidden,) = torch.autograd.grad(score, hidden, retain_graph=True)
        passed = of_hidden.clamp(min=0) * (hidden > 0)  # guided
        (of_photo,) = torch.autograd.grad(net[0](x), x, passed)
        for gradient in (of_hidden, of_photo):
            whole = nn.functional.interpolate(
                gradient.abs().amax(1, keepdim=True), (40, 56), mode="bilinear"
            )[0, 0]
            expected[k] += (whole / whole.max()).numpy()
        expected[k] /= expected[k].max()
    np.testing.assert_allclose(seeds[TAGS], expected, atol=1e-5)
    assert not seeds[1].any()
