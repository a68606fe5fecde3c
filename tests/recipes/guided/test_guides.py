"""Guide labels from evidence: each labeller beside a slow composition of its parts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from guided_runs import FEW, few_photos, open_run, write_maps
from small_runs import finished_stages, options
from tagseg.data.working import labels_at
from tagseg.errors import DataError, WorkspaceError
from tagseg.fuse.guide_labels import salient_components, seed_guide
from tagseg.maps import IGNORE, labels_of_tags
from tagseg.nets.gap import GapClassifier
from tagseg.recipes.guided import guides as guide_stages
from tagseg.recipes.guided.config import Config
from tagseg.recipes.guided.guides import Seeding, guide_labels, oracle_labels
from tagseg.refine.component_crf import ComponentCrf
from tagseg.refine.dense_crf import CrfParameters
from tagseg.session.train import make_config
from tagseg.stages.crf import Smoothing
from tagseg.stages.saliency import PhotoSaliency

LINE_AT, GREY_AT, NEGATIVE_AT, UNKNOWN_AT = 0, 4, 6, 7  # of guided_runs.few_photos


@pytest.fixture(scope="module")
def few(photos) -> Any:
    return few_photos(photos)


@pytest.fixture(scope="module")
def maps(few, photos, tmp_path_factory) -> Path:
    return write_maps(tmp_path_factory.mktemp("maps"), few, photos)


@pytest.fixture
def config_of(maps):
    def make(**changed: Any) -> Any:
        return make_config(Config, {**FEW, "saliency_maps": str(maps), **changed})

    return make


@pytest.fixture
def run(few, photos, tmp_path):
    with open_run(few, tmp_path / "run", val=photos.val[:2]) as run:
        yield run


def masks_of(run: Any, config: Any) -> list[Any]:
    """Where each map reaches the part of its maximum; nowhere if it is 0."""
    read = PhotoSaliency(run, config).maps()
    masks = []
    for index in range(len(run.photos)):
        values = read(index)
        peak = values.max()
        part = config.saliency_threshold
        masks.append(values >= part * peak if peak > 0 else np.zeros(values.shape, bool))
    return masks


def slow_seeds(scores: Any, tags: Any, threshold: float) -> Any:
    """Argmax class where its map is over the part of its maximum, pixel by pixel."""
    labels = np.zeros(scores.shape[1:], np.uint8)
    present = np.flatnonzero(tags)
    for y, x in np.ndindex(labels.shape):
        values = [scores[c, y, x] for c in present]
        if not values:
            continue
        best = int(present[int(np.argmax(values))])
        if scores[best, y, x] > 0 and scores[best, y, x] >= threshold * scores[best].max():
            labels[y, x] = best + 1
    return labels


def test_the_photos_are_what_this_file_says(few, run):
    assert run.photos.image(LINE_AT).shape == (1, 40, 3)
    assert not np.ptp(run.photos.image(GREY_AT), axis=2).any()
    assert run.photos.dataset.known[NEGATIVE_AT]
    assert not run.photos.tags[NEGATIVE_AT].any()
    assert run.photos.dataset.known.tolist() == [True] * 7 + [False]


# Seeds


@pytest.mark.parametrize("crf", [False, True])
def test_seeds(run, config_of, crf):
    config = config_of(guide="seeds", saliency_maps=None, crf_seed=crf, seed_threshold=0.3)
    guides = guide_labels(run, config)
    seeding, seen = Seeding(run, config), set()
    smoothing = Smoothing.of(config)
    for index in range(len(run.photos)):
        found = guides.labels(index)
        tags = run.photos.tags[index]
        expected = slow_seeds(seeding.maps(index), tags, 0.3)
        if crf:
            expected = smoothing.labels(run.photos.image(index), expected)
        np.testing.assert_array_equal(found, expected)
        assert set(np.unique(found)) <= set(labels_of_tags(tags).tolist())
        seen |= set(np.unique(found))
    assert len(seen) > 2
    assert not guides.labels(NEGATIVE_AT).any()
    assert not guides.labels(UNKNOWN_AT).any()
    assert set(finished_stages(run.workspace.folder)) == {"seeder", "location-maps", "guide-labels"}
    assert [(found.id, found.title) for found in guides.predictions] == [("seeds", "seeds")]
    assert [stage.name for stage in guides.curves] == ["seeder"]


# G0


def test_g0_draws_one_tag_for_all_that_is_salient(run, config_of):
    config = config_of(guide="g0")
    guides, masks = guide_labels(run, config), masks_of(run, config)
    for index, salient in enumerate(masks):
        found = guides.labels(index)
        present = np.flatnonzero(run.photos.tags[index]) + 1
        assert not found[~salient].any()
        drawn = np.unique(found[salient])
        if len(present) == 0:
            assert not found.any()
        else:
            assert salient.any()
            assert len(drawn) == 1
            assert drawn[0] in present
    made = set(finished_stages(run.workspace.folder))
    assert made == {"saliency", "guide-labels"}
    assert guides.seeds == ()
    assert guides.tag_scores is None
    assert [p.title for p in guides.predictions] == ["salient regions", "guide labels (G0)"]
    assert not guides.predictions[0].by_class


def test_g0_draws_evenly_and_anew_for_another_seed(photos, tmp_path):
    """Twenty photos of three classes: their draws are not all alike, and the seed decides."""
    few = few_photos(photos)
    many = replace(
        few,
        names=tuple(f"{i:02d}" for i in range(30)),
        tags=np.tile(np.arange(len(few.classes)) < 3, (30, 1)),
        known=np.ones(30, bool),
        sources=tuple(
            np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8) for i in range(30)
        ),
    )
    drawn = []
    for folder, seed in (("a", 0), ("b", 0), ("c", (1 << 63) - 1)):
        with open_run(many, tmp_path / folder, options=options(seed=seed)) as run:
            labels = guide_labels(run, make_config(Config, {**FEW, "guide": "g0"})).labels
            drawn.append([int(labels(i).max()) for i in range(30)])
    assert drawn[0] == drawn[1] != drawn[2]
    for classes in (drawn[0], drawn[2]):
        assert set(classes) == {1, 2, 3}
        assert np.bincount(classes, minlength=4).max() < 20


# G1


@pytest.mark.parametrize("without_rise", ["best", "ignore"])
def test_g1_hides_all_but_a_component_by_hand(run, config_of, without_rise):
    config = config_of(guide="g1", without_rise=without_rise, saliency_threshold=0.4)
    guides, masks = guide_labels(run, config), masks_of(run, config)
    net = GapClassifier(
        run.setup.build_backbone(config), len(run.photos.classes), hidden=16, hidden_layers=2
    ).eval()
    trained = run.workspace.finished("classifier")
    net.load_state_dict(trained.load_tensors("classifier")[0])
    fill = net.backbone.preprocessing.mean_colour

    def scores(image: Any) -> Any:
        with torch.no_grad():
            return net(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[0].numpy()

    labelled = 0
    for index, salient in enumerate(masks):
        image, tags = run.photos.image(index), run.photos.tags[index]
        parts = salient_components(salient, min_fraction=0.01)
        expected = np.zeros(salient.shape, np.uint8)
        for number in range(1, parts.max() + 1) if tags.any() else ():
            alone = image.copy()
            alone[parts != number] = fill
            rise = scores(alone) - scores(image)
            best = max(np.flatnonzero(tags), key=lambda c: rise[c])
            keep = without_rise == "best" or rise[best] > 0
            expected[parts == number] = best + 1 if keep else IGNORE
            labelled += 1
        np.testing.assert_array_equal(guides.labels(index), expected)
    assert labelled >= 5
    made = set(finished_stages(run.workspace.folder))
    assert made == {"saliency", "classifier", "guide-labels"}
    assert not guides.labels(NEGATIVE_AT).any()
    assert not guides.labels(UNKNOWN_AT).any()


def test_g1s_training_is_shown(run, config_of):
    """Like every other training: its curve, and how well it knows the tags."""
    guides = guide_labels(run, config_of(guide="g1"))
    assert [stage.name for stage in guides.curves] == ["classifier"]
    assert guides.tag_scores is not None


# G2


def share_of(config: Any, image: Any) -> Any:
    """The CRF among the classes of a component, with the photo bound."""
    crf = ComponentCrf(
        CrfParameters(config.share_bilateral, config.share_smoothness, 2, 500, "lattice"),
        sigma=config.share_sigma,
    )
    return lambda *rest: crf(image, *rest)


@pytest.mark.parametrize("changed", [{}, {"min_seed": 400, "min_component": 0.2}])
def test_g2_spreads_seeds_over_components(run, config_of, changed):
    config = config_of(guide="g2", seed_threshold=0.5, **changed)
    guides, masks = guide_labels(run, config), masks_of(run, config)
    seeding, seen = Seeding(run, config), set()
    for index, salient in enumerate(masks):
        image = run.photos.image(index)
        least = config.min_seed * max(image.shape[:2]) ** 2 / 500**2
        expected = seed_guide(
            seeding.labels(index),
            salient,
            share=share_of(config, image),
            min_seed_pixels=round(least),
            min_fraction=config.min_component,
        )
        found = guides.labels(index)
        if index == NEGATIVE_AT:
            expected = np.zeros_like(expected)
        np.testing.assert_array_equal(found, expected)
        allowed = {*labels_of_tags(run.photos.tags[index]).tolist(), IGNORE}
        assert set(np.unique(found)) <= allowed
        seen |= set(np.unique(found))
    assert {0, IGNORE} <= seen
    assert len(seen) > 3
    assert set(finished_stages(run.workspace.folder)) == {
        *("saliency", "seeder", "location-maps", "guide-labels")
    }
    assert [(found.id, found.title) for found in guides.predictions] == [
        ("seeds", "seeds"),
        ("salient", "salient regions"),
        ("guide-labels", "guide labels (G2)"),
    ]
    for prediction, labels in zip(
        guides.predictions, (seeding.labels, None, guides.labels), strict=True
    ):
        if labels is not None:
            np.testing.assert_array_equal(prediction.labels(1), labels(1))
    np.testing.assert_array_equal(guides.predictions[1].labels(1), masks[1].astype(np.uint8))


@pytest.mark.parametrize(
    ("reference", "side", "expected"),
    [(500, 500, 25), (500, 250, 6), (500, 64, 0), (500, 1000, 100), (None, 64, 25), (64, 64, 25)],
)
def test_the_least_seed_is_the_same_part_of_small_photos(
    few, tmp_path, config_of, reference, side, expected
):
    """25 pixels of 500 x 375; a photo of half the sides has a quarter of the pixels."""
    image = np.zeros((3 * side // 4, side, 3), np.uint8)
    one = replace(few.subset([0]), sources=(image,))
    with open_run(one, tmp_path / "run", side=1000) as run:
        config = config_of(photo_side=1000, crf_reference_side=reference)
        how = guide_stages._spreading(run, config, 0)
    assert how["min_seed_pixels"] == expected
    assert how["min_fraction"] == 0.01


def test_a_photo_known_to_hold_nothing(run, config_of):
    """Nothing of it can be an object of the classes: G0 and G1 say so, and seeds; G2, too."""
    labels = guide_labels(run, config_of(guide="g2")).labels(NEGATIVE_AT)
    assert not labels.any()


# The oracle


def test_the_oracle_is_g2_with_ground_truth_for_saliency(run, photos, config_of):
    """And nothing else of the truth: which class stands in it does not matter."""
    config = config_of(guide="seeds", saliency_maps=None)
    read: list[int] = []

    def truth_of(index: int) -> Any:
        read.append(index)
        shape = run.photos.image(index).shape[:2]
        name = run.photos.names[index]
        return labels_at(photos.labels.get(name, np.ones(shape, np.uint8)), shape)

    labels = oracle_labels(run, config, truth_of, "truth")
    assert sorted(set(read)) == list(range(len(run.photos)))
    seeding, ignored = Seeding(run, config), 0
    found = [labels(i) for i in range(len(run.photos))]
    for index, guide in enumerate(found):
        image, truth = run.photos.image(index), truth_of(index)
        expected = seed_guide(
            seeding.labels(index),
            (truth > 0) & (truth != IGNORE),
            share=share_of(config, image),
            min_seed_pixels=round(25 * (max(image.shape[:2]) / 500) ** 2),
        )
        expected[truth == IGNORE] = IGNORE
        np.testing.assert_array_equal(guide, expected)
        ignored += int((truth == IGNORE).sum())
    assert ignored > 0


def test_classes_of_the_truth_do_not_reach_the_oracle(few, photos, tmp_path, config_of):
    config, found = config_of(guide="seeds", saliency_maps=None), []
    for folder, class_of in (("a", lambda m: m), ("b", lambda m: np.where(m == IGNORE, m, m > 0))):
        with open_run(few, tmp_path / folder) as run:

            def truth_of(index: int, run: Any = run, class_of: Any = class_of) -> Any:
                shape = run.photos.image(index).shape[:2]
                full = photos.labels.get(run.photos.names[index], np.zeros(shape, np.uint8))
                return labels_at(class_of(full).astype(np.uint8), shape)

            labels = oracle_labels(run, config, truth_of, folder)
            found.append([labels(i) for i in range(len(run.photos))])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_changed_truth_makes_the_oracle_anew(run, config_of):
    config = config_of(guide="seeds", saliency_maps=None)

    def truth_of(index: int) -> Any:
        return np.ones(run.photos.image(index).shape[:2], np.uint8)

    oracle_labels(run, config, truth_of, "one")
    with pytest.raises(WorkspaceError, match="asked for twice, made from different things"):
        oracle_labels(run, config, truth_of, "other")


# Order


@pytest.mark.parametrize("guide", ["g0", "g1", "g2"])
def test_a_map_that_does_not_fit_costs_no_training(run, config_of, maps, tmp_path, guide):
    folder = Path(shutil.copytree(maps, tmp_path / "maps"))
    PilImage.new("L", (50, 50)).save(folder / f"{run.photos.names[2]}.png")
    with pytest.raises(DataError, match="the saliency map is 50 x 50, the photo"):
        guide_labels(run, config_of(guide=guide, saliency_maps=str(folder)))
    assert finished_stages(run.workspace.folder) == {}
    begun = {path.parent.name[3:] for path in run.workspace.folder.glob("stages/*/started.json")}
    assert begun == {"saliency"}
