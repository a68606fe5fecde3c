"""A network that learns from masks, the masks that it gives, and the rules between (IV-D.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from guided_runs import (
    RECURSION,
    TWO_TAGS,
    WITHOUT_CLASSIFIER,
    Begun,
    begun_trainings,
    one_label_photos,
    open_run,
)
from small_runs import finished_stages, same_weights
from tagseg.data.dataset import Dataset
from tagseg.data.masks import decode_mask
from tagseg.data.transforms import augment
from tagseg.errors import TrainingError, WorkspaceError
from tagseg.maps import IGNORE, Labels, Probs
from tagseg.nets.aspp import AsppNet
from tagseg.nets.fpn import FpnNet
from tagseg.recipes.coarse_to_fine import rounds as module
from tagseg.recipes.coarse_to_fine.masks import Target
from tagseg.recipes.coarse_to_fine.recipe import Config, single_target
from tagseg.recipes.coarse_to_fine.rounds import recursion, refined_segmenter, updated_masks
from tagseg.refine.grabcut import enhanced_mask
from tagseg.segment.predict import Segmenter
from tagseg.session.train import make_config
from tagseg.stages.context import Run
from tagseg.stages.stage import Declared, LabelMaps, Trained, label_maps


def config_of(**changed: Any) -> Any:
    return make_config(Config, {**WITHOUT_CLASSIFIER, **RECURSION, **changed})


def shares_of(index: int) -> float:
    """Of foreground, in the masks that the tests train on."""
    return (0.3, 0.5, 0.4, 0.005, 0.6, 0.9, 0.0, 0.2)[index]


def drawn_masks(run: Run, target: Target, name: str = "drawn") -> LabelMaps:
    """A block of foreground in each photo, of the photo's label."""

    def draw(index: int) -> Labels:
        shape = run.photos.image(index).shape[:2]
        foreground = np.zeros(shape, bool)
        foreground.ravel()[: round(shares_of(index) * foreground.size)] = True
        return target.pseudo_label(index, foreground)

    return label_maps(run, Declared(name), draw)


@pytest.fixture(scope="module")
def few(photos) -> Dataset:
    return one_label_photos(photos)


@pytest.fixture
def run(few, photos, tmp_path) -> Iterator[Run]:
    with open_run(few, tmp_path / "run", val=photos.val[:2], recipe="coarse_to_fine") as run:
        yield run


@pytest.fixture
def begun(monkeypatch) -> list[Begun]:
    return begun_trainings(monkeypatch, module)


# Who takes part


def test_only_photos_of_one_known_tag_are_learned_from(run, few, begun):
    """And of these only photos with 1 % to 80 % foreground; of no other is a crop cut."""
    target = single_target(run, config_of())
    names = run.photos.names
    expected = [
        int(np.flatnonzero(tags)[0]) + 1 if known and tags.sum() == 1 else 0
        for tags, known in zip(few.tags, few.known, strict=True)
    ][: len(names)]
    assert target.labels.tolist() == expected
    assert expected[names.index(TWO_TAGS)] == 0
    assert expected.count(0) == 3, "two tags, none, and unknown"
    masks = drawn_masks(run, target)
    asked: list[int] = []

    class Recorded:
        stage = masks.stage

        def __call__(self, index: int) -> Labels:
            if begun:  # before that, rule a looks at all
                asked.append(index)
            return masks(index)

    refined_segmenter(run, config_of(segmenter_iterations=12), target, Recorded())
    taking = [i for i, label in enumerate(expected) if label and 0.01 <= shares_of(i) <= 0.8]
    assert taking == [0, 1, 4]
    assert set(asked) == set(taking)
    assert begun[0].named["chosen"].tolist() == taking
    assert run.workspace.finished("segmenter-photos").load_json("found") == taking


@pytest.mark.parametrize(
    ("config", "taking"),
    [
        ({"foreground_limits": (0.0, 1.0)}, [0, 1, 3, 4, 5]),
        ({"foreground_limits": (0.001, 0.55)}, [0, 1, 3]),
        ({"between": "rules"}, [0, 1, 4]),
        ({"between": "nothing"}, [0, 1, 3, 4, 5]),
    ],
    ids=str,
)
def test_limits_of_the_foreground(run, begun, config, taking):
    """Where nothing is done between rounds, every photo with a label takes part."""
    target = single_target(run, config_of())
    refined_segmenter(run, config_of(**config), target, drawn_masks(run, target))
    assert begun[0].named["chosen"].tolist() == taking


@pytest.mark.parametrize("first", [True, False])
def test_rule_a_may_wait_for_the_first_rounds_masks(run, begun, monkeypatch, first):
    """IV-D.2: "this image would not be used to train the network in next training round"."""
    monkeypatch.setattr(module, "updated_masks", lambda *args: drawn_masks(run, args[2], "found"))
    target = single_target(run, config_of())
    config = config_of(rounds=2, filter_first=first)
    recursion(run, config, target, drawn_masks(run, target))
    chosen = [each.named["chosen"].tolist() for each in begun]
    assert chosen == [[0, 1, 4] if first else [0, 1, 3, 4, 5], [0, 1, 4]]


def test_masks_none_of_which_may_take_part(run, begun):
    target = single_target(run, config_of())
    config = config_of(foreground_limits=(0.91, 0.95))
    with pytest.raises(TrainingError) as caught:
        refined_segmenter(
            run, config, target, drawn_masks(run, target), declared=Declared("deeplab-1")
        )
    assert str(caught.value) == (
        "of 5 masks for the segmenter none has 91 % to 95 % foreground; look at the masks before, "
        "or widen foreground_limits"
    )
    assert begun == []
    wider = config_of(foreground_limits=(0.5, 0.95))
    refined_segmenter(run, wider, target, drawn_masks(run, target), declared=Declared("deeplab-2"))
    assert begun[0].named["chosen"].tolist() == [1, 4, 5]


# How it is trained


def sizes_seen(begun: Begun, height: int, width: int) -> list[tuple[int, int]]:
    """Sizes of the photo before the crop, and of the crop, for a photo of the given size."""
    image = np.zeros((height, width, 3), np.uint8)
    whole = np.zeros((height, width), np.uint8)
    sizes = []
    for seed in range(4):
        cut, (labels,) = augment(image, [whole], begun.how, np.random.default_rng(seed))
        assert not (labels == IGNORE).any(), "padding"
        sizes.append(cut.shape[:2])
    return sizes


def flat_run(shape: tuple[int, int], folder: Any, side: int = 500) -> Any:
    images = [np.random.default_rng(i).integers(0, 256, (*shape, 3), np.uint8) for i in range(3)]
    dataset = Dataset.from_arrays(images, np.eye(3, 2, dtype=bool), ("cat", "dog"))
    return open_run(dataset, folder, side=side, recipe="coarse_to_fine")


@pytest.mark.parametrize(
    ("shape", "crop", "squeezed"),
    [
        ((375, 500), (256, 256), (321, 321)),
        ((500, 333), (256, 256), (321, 321)),
        ((240, 400), (191, 256), (239, 321)),  # 240 but for whole pixels of the crop
        ((96, 128), (77, 102), (97, 128)),
        ((16, 16), (13, 13), (16, 16)),
    ],
)
def test_photos_are_squeezed_and_cropped(tmp_path, begun, shape, crop, squeezed):
    """IV-B: to 321 x 321, of which 256 x 256 are seen; smaller photos keep their size."""
    with flat_run(shape, tmp_path / "run") as run:
        config = config_of(between="nothing", photo_side=500, segmenter_iterations=1)
        target = single_target(run, config)
        refined_segmenter(run, config, target, drawn_masks(run, target))
    how = begun[0].how
    assert how.size == crop
    assert (how.stretch, how.flip, how.jitter) == (True, True, 0.0)
    assert how.scale[0] == how.scale[1]
    assert tuple(round(side * how.scale[0]) for side in how.size) == squeezed
    assert sizes_seen(begun[0], *shape) == [crop] * 4


@pytest.mark.parametrize("crop", [16, 100, 255, 256, 320, 321])
def test_crops_are_never_larger_than_the_squeezed_photo(crop):
    """So that nothing is padded, of photos of every size."""
    config = config_of(segmenter_crop=crop)
    for side in (1, 2, 7, 16, 30, *range(60, 340, 13), 321, 500):
        for other in (side, 3 * side // 4 + 1):
            how, _ = module._squeezed_crops([(side, other)], config)
            begun = Begun({}, drawn_masks, how, None, {})  # type: ignore[arg-type]
            assert sizes_seen(begun, side, other) == [how.size] * 4


@pytest.mark.parametrize(("least", "most"), [(1.0, 1.0), (0.5, 1.5), (1.2, 2.0)])
def test_squeezed_photos_of_random_sizes(least, most):
    """As in DeepLab-v2, where it is asked for: the photo is larger or smaller by that factor."""
    how, _ = module._squeezed_crops([(375, 500)], config_of(resize_range=(least, most)))
    assert how.size == (256, 256)
    assert [256 * factor for factor in how.scale] == pytest.approx([321 * least, 321 * most])


def test_the_median_photo_decides(run, begun):
    """Photos of one row and of few pixels are squeezed to the same size."""
    target = single_target(run, config_of())
    refined_segmenter(run, config_of(), target, drawn_masks(run, target))
    shapes = [run.photos.image(i).shape[:2] for i in range(len(run.photos))]
    assert len(set(shapes)) > 3
    height, width = np.median(shapes, axis=0)
    assert begun[0].how.size == (round(height * 256 / 321), round(width * 256 / 321))
    for shape in shapes:
        sizes_seen(begun[0], *shape)


@pytest.mark.parametrize(("fraction", "iterations"), [(1.0, 10), (0.5, 5), (0.01, 1)])
def test_a_fraction_of_the_schedule(run, begun, fraction, iterations):
    target = single_target(run, config_of())
    config = config_of(segmenter_iterations=10)
    refined_segmenter(run, config, target, drawn_masks(run, target), fraction=fraction)
    assert begun[0].schedule.iterations == iterations


def test_it_goes_on_from_another_network(run, begun):
    config = config_of()
    target = single_target(run, config)
    masks = drawn_masks(run, target)
    first = refined_segmenter(run, config, target, masks, declared=Declared("one"))
    weights = {name: tensor.clone() for name, tensor in first.model.net.state_dict().items()}
    refined_segmenter(run, config, target, masks, declared=Declared("two"), start=first)
    refined_segmenter(run, config, target, masks, declared=Declared("three"))
    assert not same_weights(begun[0].weights, weights)
    assert same_weights(begun[1].weights, weights)
    assert same_weights(begun[2].weights, begun[0].weights)
    assert same_weights(first.model.net.state_dict(), weights), "which itself stays as it was"


@pytest.mark.parametrize("form", ["deeplab", "fpn"])
def test_the_loss_is_on_a_grid_as_fine_as_the_papers(run, begun, form):
    """41 positions a crop, or more where the network's own grid has them."""
    config = config_of()
    target = single_target(run, config)

    def pyramid(view_scale: float) -> FpnNet:
        return FpnNet(run.setup.build_backbone(config), len(run.photos.classes) + 1)

    if form == "fpn":
        target = target._replace(network=pyramid, form=form)
    found = refined_segmenter(run, config, target, drawn_masks(run, target))
    segmenter = found.model
    assert isinstance(segmenter.net, FpnNet if form == "fpn" else AsppNet)
    assert begun[0].how.size == (38, 51)
    assert begun[0].named["loss_stride"] == 1
    assert segmenter.classes == run.photos.classes
    trained = found.stage.load_tensors("segmenter")[0]
    assert same_weights(segmenter.net.state_dict(), dict(trained))


# What comes of its masks


class Known(Segmenter):
    """Answers that are drawn: blobs of every label, most of them of 0, 1 and 2."""

    def __init__(self, run: Run, n_labels: int) -> None:
        self.run, self.n_labels = run, n_labels
        self.classes, self.refiner, self.refinement = run.photos.classes, None, None

    def forward(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        answers = []
        for image in images:
            rng = np.random.default_rng(int(image.sum()))
            blobs = rng.normal(size=(self.n_labels, 4, 4)).astype(np.float32)
            blobs[:3] += 1.5
            scores = np.stack([cv2.resize(blob, image.shape[1::-1]) for blob in blobs])
            exact = np.exp(scores - scores.max(0))
            answers.append(exact / exact.sum(0))
        return np.stack(answers)


LABELS = np.array([1, 2, 0, 2, 1, 2, 1, 0])


def known_target(run: Run) -> Target:
    network: Callable[..., Any] = lambda scale: None  # noqa: E731
    return Target(LABELS, run.photos.classes, network, "deeplab")


def slow_own(probs: Probs, label: int) -> npt.NDArray[np.bool_]:
    """Pixel by pixel: whether the photo's own label is the likeliest of all."""
    own = np.zeros(probs.shape[1:], bool)
    for y, x in np.ndindex(own.shape):
        best = max(range(len(probs)), key=lambda k: (probs[k, y, x], -k))
        own[y, x] = best == label
    return own


@pytest.fixture
def answered(run) -> tuple[Run, Trained[Segmenter]]:
    with run.stage("net", {}, []) as stage:
        pass
    return run, Trained(Known(run, len(run.photos.classes) + 1), stage)


@pytest.mark.parametrize("between", ["grabcut", "rules", "nothing"])
def test_what_the_next_round_learns_from(answered, between):
    """Rules b and c; without rules whatever was predicted; 255 for photos that take no part."""
    run, network = answered
    config = config_of(between=between, grabcut_iterations=2, grabcut_side=50)
    masks = updated_masks(run, config, known_target(run), network, 1)
    others = cut = 0
    for index, label in enumerate(LABELS.tolist()):
        image = run.photos.image(index)
        found = masks(index)
        assert (found.dtype, found.shape) == (np.uint8, image.shape[:2])
        if label == 0:
            assert (found == IGNORE).all()
            continue
        probs = network.model.forward(image[None])[0]
        best = probs.argmax(0)
        own = slow_own(probs, label)
        others += len(set(np.unique(best).tolist()) - {0, label}) > 0
        expected = np.where(own, label, 0)
        if between == "nothing":
            expected = best
        if between == "grabcut":
            mask = enhanced_mask(image, own.astype(np.float32), config.grabcut())
            cut += bool((mask != own).any())
            expected = np.where(mask, label, 0)
        np.testing.assert_array_equal(found, expected)
    assert others >= 4, "other labels were predicted"
    assert (cut >= 3) == (between == "grabcut")


def test_grabcuts_numbers_count_where_it_is_used(answered):
    run, network = answered
    target = known_target(run)

    def made(number: int, **changed: Any) -> bool:
        """Whether masks could be made in this round without asking for others than before."""
        try:
            updated_masks(run, config_of(**changed), target, network, number)
        except WorkspaceError:
            return False
        return True

    assert made(1, between="rules")
    assert made(1, between="rules", grabcut_iterations=7, foreground_limits=(0.2, 0.4))
    assert not made(1, between="nothing")
    assert made(2, between="grabcut")
    assert not made(2, between="grabcut", grabcut_iterations=7)
    assert not made(2, between="grabcut", grabcut_side=30)


# Rounds


def run_rounds(run: Run, target: Target | None = None, **changed: Any) -> Any:
    config = config_of(foreground_limits=(0.0, 1.0), converged=2.0, **changed)
    target = target or single_target(run, config)
    return recursion(run, config, target, drawn_masks(run, target))


@pytest.mark.parametrize("start", ["warm", "cold"])
def test_rounds(run, begun, start):
    """Each learns from the masks of the one before, for half as long from the second on."""
    last, progression, curves = run_rounds(run, start=start, rounds=3, segmenter_iterations=4)
    assert [entry.labels.stage.name for entry in begun] == ["drawn", "masks-1", "masks-2"]
    assert [entry.schedule.iterations for entry in begun] == [4, 2, 2]
    networks = [
        dict(run.workspace.finished(f"deeplab-{n}").load_tensors("segmenter")[0]) for n in (1, 2, 3)
    ]
    if start == "warm":
        assert same_weights(begun[1].weights, networks[0])
        assert same_weights(begun[2].weights, networks[1])
    else:
        assert same_weights(begun[1].weights, begun[0].weights)
        assert same_weights(begun[2].weights, begun[0].weights)
    assert same_weights(last.segmenter.model.net.state_dict(), networks[2])
    assert last.masks.stage.name == "masks-3"
    assert [stage.name for stage in curves] == ["deeplab-1", "deeplab-2", "deeplab-3"]
    assert [entry.number for entry in progression.rounds] == [1, 2, 3]
    assert [
        (found.id, found.title, found.split, found.number)
        for entry in progression.rounds
        for found in entry.predictions
    ] == [
        (id, title.format(number), split, number)
        for number in (1, 2, 3)
        for id, title, split in (
            ("round-masks", "masks of the photos, round {}", "train"),
            ("segmenter", "segmenter + CRF, round {}", "val"),
        )
    ]


def test_agreement_is_with_the_masks_before(run):
    """Not with those that the first round began with; photos that take no part do not count."""
    _, progression, _ = run_rounds(run, rounds=3)
    first, *others = (entry.agreement for entry in progression.rounds)
    assert first is None
    for number, found in enumerate(others, start=2):
        one, other = (
            run.workspace.finished(f"masks-{n}").maps("labels") for n in (number - 1, number)
        )
        before, after = (
            np.concatenate([decode_mask(maps.get_bytes(name)).ravel() for name in run.photos.names])
            for maps in (one, other)
        )
        known = before != IGNORE
        assert (after[~known] == IGNORE).all()
        before, after = before[known], after[known]
        shares = [
            ((before == c) & (after == c)).sum() / ((before == c) | (after == c)).sum()
            for c in np.union1d(before, after)
        ]
        assert found == pytest.approx(np.mean(shares))


def test_foreground_of_any_class(run):
    """Predictions tell no classes apart and say so; the segmenter has the target's classes."""
    labels = np.ones(len(run.photos), np.intp)
    config = config_of()

    def network(view_scale: float) -> AsppNet:
        return AsppNet(run.setup.build_backbone(config), 2, width=16, view_scale=view_scale)

    target = Target(labels, ("thing",), network, "deeplab", by_class=False)
    last, progression, _ = run_rounds(run, target, rounds=1)
    assert last.segmenter.model.classes == ("thing",)
    assert last.segmenter.model.forward(run.photos.image(1)[None]).shape[1] == 2
    assert {p.by_class for entry in progression.rounds for p in entry.predictions} == {False}


def test_without_validation_photos(run):
    _, progression, _ = run_rounds(replace(run, val=None), rounds=1)
    assert [found.split for found in progression.rounds[0].predictions] == ["train"]
    assert not any(name.startswith("predictions") for name in finished_stages(run.workspace.folder))


def test_settled_masks_end_the_rounds(run, begun):
    config = config_of(foreground_limits=(0.0, 1.0), converged=0.001, rounds=5)
    target = single_target(run, config)
    _, progression, _ = recursion(run, config, target, drawn_masks(run, target))
    assert len(begun) == 2
    assert progression.reason.startswith("Stopped after round 2: its masks agree")
