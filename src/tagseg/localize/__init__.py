"""Which class is where?

    from tagseg.localize import ClassSaliency, class_activation_maps

    maps = class_activation_maps(net, photos, layer="layer4", head="fc")
    record = ClassSaliency(net, "guided", layers=["layer3", "layer4"]).forward(photos)
    saliency = record.saliency([0, 5])["layer4"]  # (B, 2, h, w)

Networks may be any ``torch.nn.Module``. The training of tag classifiers stands in
:mod:`tagseg.localize.classifier`.
"""

from tagseg.localize.attention_rollout import (
    AttentionRelevance,
    attention_relevance,
    attention_rollout,
    rollout_saliency,
    token_map,
)
from tagseg.localize.background_cues import background_cues, background_saliency
from tagseg.localize.backprop import ClassSaliency, Record, channel_maximum
from tagseg.localize.cam import class_activation_maps, normalised_maps
from tagseg.localize.component_scores import score_changes
from tagseg.localize.dcsm import (
    CandidateClasses,
    DcsmSettings,
    aggregate,
    at_photo_size,
    candidate_classes,
    distinct_maps,
    layer_saliency,
    score_map,
    unary,
    with_background,
)
from tagseg.localize.grad_cam import grad_cam
from tagseg.localize.hiding import hidden_cells
from tagseg.localize.layer_cam import layer_cam
from tagseg.localize.seeds import (
    DistinctSeeder,
    GradientSeeder,
    LayerSet,
    Square,
    distinct_score_map,
    feature_layers,
    probabilities,
)

__all__ = [
    "AttentionRelevance",
    "CandidateClasses",
    "ClassSaliency",
    "DcsmSettings",
    "DistinctSeeder",
    "GradientSeeder",
    "LayerSet",
    "Record",
    "Square",
    "aggregate",
    "at_photo_size",
    "attention_relevance",
    "attention_rollout",
    "background_cues",
    "background_saliency",
    "candidate_classes",
    "channel_maximum",
    "class_activation_maps",
    "distinct_maps",
    "distinct_score_map",
    "feature_layers",
    "grad_cam",
    "hidden_cells",
    "layer_cam",
    "layer_saliency",
    "normalised_maps",
    "probabilities",
    "rollout_saliency",
    "score_changes",
    "score_map",
    "token_map",
    "unary",
    "with_background",
]
