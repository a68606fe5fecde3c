"""Union: all evidence, weighed by tags alone, and how far the result can be trusted.

A classifier learns from tags with regions hidden, and says where it sees each of them. Together
with what stands out this gives several sets of labels; a judge that saw no person's masks says
which are likely good on these photos, and what those agree on teaches a segmenter. Its answers
teach the next one, unless the judge finds them worse. In the end it says of each class how good its
masks are likely to be.
"""

from __future__ import annotations

from dataclasses import replace

from tagseg.evaluate.judge import shipped_judge
from tagseg.losses.pixel import cross_entropy
from tagseg.recipes.union.class_evidence import class_evidence
from tagseg.recipes.union.classifier import MAPS, hiding_classifier, seen_side
from tagseg.recipes.union.config import Config
from tagseg.recipes.union.court import Court
from tagseg.recipes.union.diagnosis import diagnosed, told_apart
from tagseg.recipes.union.labels import Evidence, first_labels, later_labels, object_sources
from tagseg.recipes.union.refining import refined_unless_worse
from tagseg.segment.predict import Segmenter
from tagseg.stages.classifier import location_maps
from tagseg.stages.context import Run, Split
from tagseg.stages.outcome import Outcome, Prediction, Seeds
from tagseg.stages.predictions import classifier_outcome, final_predictions, show_map, show_maps
from tagseg.stages.pyramid_segmenter import pyramid_segmenter
from tagseg.stages.recipe import Demo, Recipe
from tagseg.stages.segmenter import trained_segmenter
from tagseg.stages.stage import LabelMaps, ScoreMaps, Trained
from tagseg.stages.tag_doubts import sure_labels

__all__ = ["RECIPE", "run"]


def run(run: Run, config: Config) -> Outcome:
    """Localize, weigh, train; again with what the segmenter has learned; then judge."""
    pool = object_sources(run, config)  # files that do not fit must show before long work
    classifier = hiding_classifier(run, config)
    side = seen_side(run, config)

    def seen_in(split: Split) -> ScoreMaps:
        return location_maps(run, config, classifier, kind=MAPS, split=split, side=side)

    seen = seen_in("train")
    kinds = class_evidence(run, config, classifier, side)
    salient = {name: source.maps() for name, source in pool.items()}
    evidence = Evidence(run, config, list(kinds.values()), salient)
    court = Court(run, config, classifier, seen, shipped_judge())

    labels = [first_labels(run, config, evidence, court)]
    nets = [_trained(run, config, labels[0], 1, None)]
    for number in range(2, config.rounds + 1):
        labels.append(later_labels(run, config, labels[-1], nets[-1], court, number))
        nets.append(_trained(run, config, labels[-1], number, nets[-1]))
    final = refined_unless_worse(run, config, nets[-1], court)
    predictions = final_predictions(run, config, final.model, final, title="pyramid")
    return Outcome(
        final.model,
        (
            *(_shown(number, made) for number, made in enumerate(labels, 1)),
            *predictions,
        ),
        views=(
            ("where tags are seen", show_maps(seen)),
            *((_TITLES[name], show_maps(maps)) for name, maps in kinds.items() if name != "cam"),
            *((f"what stands out: {n}", show_map(m)) for n, m in evidence.sources.items()),
        ),
        tag_scores=classifier_outcome(run, classifier.model, side=side),
        curves=(
            classifier.stage,
            *(curve for source in pool.values() for curve in source.curves),
            *(net.stage for net in nets),
        ),
        seeds=(Seeds("cam", "where tags are seen", config.fusion_thresholds[0], seen_in),),
        trust=diagnosed(run, court, predictions[0], labels, told_apart(run, classifier, side)),
    )


def _trained(
    run: Run, config: Config, labels: LabelMaps, number: int, before: Trained[Segmenter] | None
) -> Trained[Segmenter]:
    """The segmenter of a round: a pyramid goes on from that of before, the last in cycles."""
    last = number == config.rounds
    own = config if last else replace(config, pyramid_cycles=1)
    labels = sure_labels(run, config, labels)
    prefix = "" if last else f"round-{number}-"
    if config.segmenter != "pyramid":
        return trained_segmenter(run, own, labels, cross_entropy, prefix=prefix)
    return pyramid_segmenter(run, own, labels, prefix=prefix, start=before)


_TITLES = {
    "layer_cam": "the same, finely",
    "gradients": "the same, by gradients",
    "dcsm": "the same, by distinct maps",
}


def _shown(number: int, labels: LabelMaps) -> Prediction:
    return Prediction.of("labels", f"labels, round {number}", "train", labels, number=number)


_QUICK = {
    "classifier_iterations": 150,
    "classifier_crop": 320,
    "cam_scales": (1.0,),
    "fusion_thresholds": (0.3, 0.5),
    "judged_photos": 30,
    "pyramid_iterations": 200,
    "pyramid_crop": 224,
    "pyramid_cycles": 1,
}

_FAST = {"rounds": 1, **_QUICK}
_DEMO = {
    **_QUICK,
    "classifier_iterations": 800,
    "classifier_batch_size": 16,
    "pyramid_iterations": 300,
}

RECIPE = Recipe(
    "union",
    "class maps and saliency, joined in the way that tags alone speak for (docs/union.md)",
    Config,
    run,
    takes=("saliency", "saliency_model", "boxes"),
    demo=Demo(
        settings=_DEMO,
        note="with the settings of --fast, but for more training, of which a tiny network is quick",
        scenes=(500, 100),
    ),
    fast=_FAST,
)
