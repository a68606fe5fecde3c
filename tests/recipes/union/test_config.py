"""The numbers of union, and which of them are refused."""

from __future__ import annotations

import math

import pytest

from tagseg.errors import ConfigError
from tagseg.recipes.union.config import Config
from tagseg.session.train import make_config


def test_defaults():
    config = Config()
    assert (config.segmenter, config.saliency_source(), config.rounds) == ("pyramid", "barrier", 2)
    assert config.object_sources() == ("barrier", "drfi")
    assert config.fusion_thresholds == (0.3, 0.4, 0.5, 0.6)
    assert config.cam_scales == (1.0, 1.5)
    assert config.evidence_kinds(on_transformer=False) == ("cam", "layer_cam")
    assert config.evidence_kinds(on_transformer=True) == ("cam",)
    assert config.edges() == ("crf",)


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        ("cam", ("cam",)),
        ("dcsm", ("dcsm",)),
        ("gradients+cam", ("gradients", "cam")),
        ("cam+layer_cam+cam", ("cam", "layer_cam")),
    ],
)
@pytest.mark.parametrize("on_transformer", [False, True])
def test_kinds_of_class_evidence(value, kinds, on_transformer):
    config = make_config(Config, {"class_evidence": value})
    assert config.evidence_kinds(on_transformer=on_transformer) == kinds


def test_kinds_of_edges():
    edges = make_config(Config, {"fusion_edges": "grabcut+crf+crisp+grabcut"}).edges()
    assert edges == ("grabcut", "crf", "crisp")


@pytest.mark.parametrize(
    ("values", "sources"),
    [
        ({}, ("barrier", "drfi")),
        ({"objects": "none"}, ()),
        ({"objects": "none", "saliency_maps": "maps"}, ()),
        ({"objects": "drfi"}, ("drfi",)),
        ({"objects": "drfi+barrier"}, ("drfi", "barrier")),
        ({"objects": "barrier+drfi+barrier"}, ("barrier", "drfi")),
        ({"objects": "activations"}, ("activations",)),
        ({"saliency_maps": "maps"}, ("given", "barrier", "drfi")),
        ({"saliency_model": "net.onnx"}, ("given", "barrier", "drfi")),
        ({"boxes": "boxes.csv"}, ("given", "barrier", "drfi")),
        ({"student": "student"}, ("given", "barrier", "drfi")),
        ({"saliency": "activations"}, ("given", "barrier", "drfi")),
        ({"saliency": "drfi"}, ("barrier", "drfi")),
        ({"saliency_forest": "forest"}, ("barrier", "drfi")),
        ({"saliency_maps": "maps", "objects": "given"}, ("given",)),
        ({"saliency_maps": "maps", "objects": "barrier+given"}, ("barrier", "given")),
        ({"saliency": "student", "objects": "given"}, ("given",)),
    ],
)
def test_sources_of_what_stands_out(values, sources):
    assert make_config(Config, values).object_sources() == sources


SOURCES = "use auto, none or barrier, drfi, activations, given"
KINDS = "use auto or cam, layer_cam, gradients, dcsm"
EDGES = "use crf, superpixels, crisp, grabcut"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"objects": "depth"}, f"objects has 'depth'; {SOURCES}"),
        ({"objects": ""}, f"objects has ''; {SOURCES}"),
        ({"objects": "barrier+"}, f"objects has ''; {SOURCES}"),
        ({"objects": "barrier, drfi"}, f"objects has 'barrier, drfi'; {SOURCES}"),
        ({"objects": "auto+drfi"}, f"objects has 'auto'; {SOURCES}"),
        ({"objects": "none+drfi"}, f"objects has 'none'; {SOURCES}"),
        ({"class_evidence": "drfi"}, f"class_evidence has 'drfi'; {KINDS}"),
        ({"class_evidence": "cam+auto"}, f"class_evidence has 'auto'; {KINDS}"),
        ({"class_evidence": ""}, f"class_evidence has ''; {KINDS}"),
        ({"fusion_edges": "none"}, f"fusion_edges has 'none'; {EDGES}"),
        ({"fusion_edges": "crf+"}, f"fusion_edges has ''; {EDGES}"),
        ({"objects": "given"}, "objects has 'given', but nothing is given; give --saliency DIR, "),
        ({"objects": "drfi+given"}, "objects has 'given', but nothing is given; give "),
        ({"saliency": "folder"}, "saliency=folder has nothing to read; give --saliency DIR"),
        ({"saliency": "drfi", "boxes": "b"}, "--boxes is given, but saliency comes from drfi"),
        ({"cam_scales": (0.7,)}, "cam_scales is "),
        ({"cam_scales": ()}, "cam_scales is "),
        ({"cam_scales": (1.0, 0.0)}, "cam_scales is 1,0; use values over 0"),
        ({"classifier_side": 16}, "classifier_side is 16; use 32 or more, or none"),
        ({"classifier_crop": 31}, "classifier_crop is 31; use 32 or more"),
        ({"classifier_scale": (1.4, 0.7)}, r"classifier_scale is \(1.4, 0.7\); give two factors"),
        ({"classifier_scale": (0.0, 1.0)}, "classifier_scale is 0,1; use values over 0"),
        ({"classifier_scale": (1.0,)}, r"classifier_scale is \(1.0,\); give 2 values"),
        ({"classifier_hidden": 1.1}, "classifier_hidden is 1.1; use 0 to 1"),
        ({"classifier_hidden": math.nan}, "classifier_hidden is nan"),
        ({"classifier_top": 0.0}, "classifier_top is 0.0; use over 0, up to 1"),
        ({"classifier_iterations": 0}, "classifier_iterations is 0; use a value over 0, or none"),
        ({"classifier_batch_size": 0}, "classifier_batch_size is 0; use a value over 0"),
        ({"classifier_learning_rate": 0.0}, "classifier_learning_rate is 0.0; use a value over 0"),
        ({"classifier_backbone_factor": -1.0}, "classifier_backbone_factor is -1.0; use 0 or more"),
        ({"fusion_thresholds": ()}, "fusion_thresholds is empty; give one or more"),
        ({"fusion_thresholds": (0.3, 1.0)}, "fusion_thresholds is 0.3,1; use over 0, below 1"),
        ({"fusion_thresholds": (0.0,)}, "fusion_thresholds is 0; use over 0, below 1"),
        ({"judged_photos": 0}, "judged_photos is 0; use a value over 0"),
        ({"judge_side": 31}, "judge_side is 31; use 32 or more"),
        ({"answer_confidence": 1.1}, "answer_confidence is 1.1; use 0 to 1"),
        ({"answer_confidence": -0.1}, "answer_confidence is -0.1; use 0 to 1"),
        ({"rounds": 0}, "rounds is 0; use 1 to 5"),
        ({"rounds": 6}, "rounds is 6; use 1 to 5"),
        ({"segmenter": "deeplab"}, "segmenter is 'deeplab'; use published or pyramid"),
    ],
)
def test_what_cannot_be_meant(values, line):
    with pytest.raises(ConfigError, match=line):
        make_config(Config, values)
