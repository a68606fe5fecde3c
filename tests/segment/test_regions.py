from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tagseg import training
from tagseg.data.scenes import SCENES, scene_dataset
from tagseg.data.transforms import Augmentation
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ShapeError, TagError
from tagseg.maps import BACKGROUND, IGNORE
from tagseg.nets.catalog import build_backbone
from tagseg.nets.regionnet import RegionNet
from tagseg.nets.weights import resolve
from tagseg.run.checkpoint import Checkpoint, Log
from tagseg.segment import regions as regions_module
from tagseg.segment.regions import balanced_draw, describe_regions, fit_regions, predict_regions
from tagseg.training import Batch, Execution, Loop, Schedule

EXECUTION = Execution(seed=2)
LOOP = {item.name for item in fields(Loop)}
HOW = Augmentation((48, 64))
_SCENES = scene_dataset(SCENES, 8, seed=1, height=48, width=64)[0]

Superpixels = npt.NDArray[np.int32]
RegionLabels = npt.NDArray[np.uint8]


def net(dropout: float = 0.0, **changes: Any) -> RegionNet:
    torch.manual_seed(0)
    backbone = build_backbone("tiny", resolve("imagenet", "tiny"))
    return RegionNet(backbone, 4, **{"width": 32, "dropout": dropout, **changes})


class Toy:
    """Eight photos of 12 blocks, each grey, red, green or blue, which is the region's label.

    Ids lie in no order, so that a mistake between ids and rows cannot go unseen.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        colours = np.array([[80, 80, 80], [240, 20, 20], [20, 220, 20], [20, 20, 240]])
        y, x = np.mgrid[:48, :64]
        images = []
        self.maps: list[Superpixels] = []
        self.labels: list[RegionLabels] = []
        for _ in range(8):
            regions = rng.permutation(12)[y // 16 * 4 + x // 16].astype(np.int32)
            labels = rng.choice(4, 12, p=[0.4, 0.2, 0.2, 0.2]).astype(np.uint8)
            noise = rng.integers(-15, 16, (48, 64, 3))
            images.append((colours[labels][regions] + noise).clip(0, 255).astype(np.uint8))
            self.maps.append(regions)
            self.labels.append(labels)
        self.dataset = replace(_SCENES.subset(range(8)), sources=tuple(images))
        self.photos = WorkingPhotos(self.dataset, 64)

    def images(self) -> npt.NDArray[np.uint8]:
        return np.stack([self.photos.image(i) for i in range(8)])

    def fit(self, schedule: Schedule, fitted: RegionNet | None = None, **changes: Any) -> RegionNet:
        loop = {"execution": EXECUTION, "frozen_batch_norm": True}
        given = {name: value for name, value in changes.items() if name not in LOOP}
        loop |= {name: value for name, value in changes.items() if name in LOOP}
        photos = given.pop("photos", self.photos)
        maps, labels = given.pop("maps", self.maps), given.pop("labels", self.labels)
        how = given.pop("how", HOW)
        return fit_regions(
            fitted or net(), photos, maps.__getitem__, labels.__getitem__, how, schedule,
            loop=Loop(**loop), **given,
        )  # fmt: skip


@pytest.fixture
def toy() -> Toy:
    return Toy()


class Watched(RegionNet):
    """Remembers what it was given."""

    seen: list[tuple[Tensor, Tensor, Tensor]]

    def forward(self, x: Tensor, regions: Any) -> tuple[Tensor, Tensor]:
        logits, ids = super().forward(x, regions)
        self.seen.append((x.detach(), regions, ids))
        return logits, ids


def watched() -> Watched:
    torch.manual_seed(0)
    made = Watched(build_backbone("tiny", resolve("imagenet", "tiny")), 4, 8)
    made.seen = []
    return made


# Training


def test_it_learns_labels_of_regions(toy: Toy) -> None:
    lines: list[dict[str, Any]] = []
    schedule = Schedule(80, 4, 3e-3, optimizer="adamw", multipliers={"backbone": 0.1})
    fitted = toy.fit(schedule, log=lambda **values: lines.append(values))
    assert lines[-1]["loss"] < 0.2 * lines[0]["loss"]
    assert not fitted.training
    probs = predict_regions(fitted, toy.images(), toy.maps, execution=EXECUTION)
    right = [p.argmax(1) == labels for p, labels in zip(probs, toy.labels, strict=True)]
    assert np.concatenate(right).mean() > 0.95


def test_labels_of_255_teach_nothing(toy: Toy) -> None:
    """Hidden regions are not even pooled; what the others are told is their own label."""
    labels = [np.where(np.arange(12) % 3 == 0, IGNORE, own).astype(np.uint8) for own in toy.labels]
    fitted = watched()
    toy.fit(Schedule(4, 4, 1e-3), fitted, labels=labels, regions_per_photo=12)
    for _, regions, ids in fitted.seen:
        assert regions.shape == (4, 48, 64)
        for photo in range(4):
            assert 1 <= (ids[:, 0] == photo).sum() <= 8
            assert set(regions[photo].unique().tolist()) <= {-1, *range(8)}


@pytest.mark.parametrize(
    "how",
    [
        HOW,
        Augmentation((64, 96)),
        Augmentation((30, 40), scale=(0.8, 1.3)),
        Augmentation((96, 120), scale=(1.4, 1.6)),
        Augmentation((60, 60), letterbox=(1, 2, 3)),
    ],
    ids=["as it is", "padded", "cut", "enlarged", "letterbox"],
)
def test_regions_and_labels_follow_the_photo(
    toy: Toy, how: Augmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The label of each pixel's region is the one that the pixel's colour tells."""
    told: list[Tensor] = []
    loss = regions_module._loss

    def remembered(net: Any, batch: Batch) -> Tensor:
        told.append(batch["labels"])
        return loss(net, batch)

    monkeypatch.setattr(regions_module, "_loss", remembered)
    fitted = watched()
    toy.fit(Schedule(4, 4, 1e-3), fitted, how=how, regions_per_photo=10)
    checked = 0
    for (x, regions, _), labels in zip(fitted.seen, told, strict=True):
        assert regions.dtype == torch.int32
        for image, where, own in zip(x, regions, labels, strict=True):
            colours = image.permute(1, 2, 0)[where >= 0] * 255
            expected = own[where[where >= 0].long()]
            assert not (expected == IGNORE).any()
            highest = colours.argmax(1) + 1
            apparent = torch.where(colours.amax(1) - colours.amin(1) > 100, highest, 0)
            agree = (apparent == expected).float().mean()
            pixels = (image.permute(1, 2, 0) * 255).round()
            padding = (pixels == 118).all(2) | (pixels == torch.tensor([1, 2, 3])).all(2)
            if how.scale == (1.0, 1.0):
                assert agree == 1
                assert (where[padding] == -1).all()
            else:  # colours are mixed where regions meet
                assert agree > 0.9
            checked += len(expected)
    assert checked > 4000


def test_photos_without_labelled_regions_teach_nothing(toy: Toy) -> None:
    nothing = [np.full(12, IGNORE, np.uint8)] * 8
    before = net().state_dict()
    lines: list[dict[str, Any]] = []
    fitted = toy.fit(
        Schedule(3, 2, 0.1, weight_decay=0.0), labels=nothing,
        log=lambda **values: lines.append(values),
    )  # fmt: skip
    assert lines[-1]["loss"] == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in fitted.state_dict().items())


def test_photos_without_known_tags_are_left_out(toy: Toy) -> None:
    toy.dataset.known[:] = [True, False] * 4
    asked: list[int] = []

    class Asked(list[RegionLabels]):
        def __getitem__(self, index: Any) -> Any:
            asked.append(index)
            return super().__getitem__(index)

    toy.fit(Schedule(4, 2, 1e-3), labels=Asked(toy.labels))
    assert sorted(set(asked)) == [0, 2, 4, 6]
    toy.dataset.known[:] = False
    with pytest.raises(TagError, match="no photo has known tags; tag some"):
        toy.fit(Schedule(1, 1, 1e-3))
    toy.dataset.known[:] = True


def test_the_same_seed_gives_the_same_network(toy: Toy) -> None:
    weights = [
        toy.fit(
            Schedule(3, 2, 1e-2), net(0.5), execution=Execution(seed=seed), regions_per_photo=5
        ).state_dict()
        for seed in (3, 3, 4)
    ]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert not torch.equal(weights[0]["fc6.weight"], weights[2]["fc6.weight"])


class Stop:
    """Counts, and stops the run at an iteration as Ctrl-C would."""

    def __init__(self, at: int) -> None:
        self.left = at

    def advance(self, n: int = 1) -> None:
        self.left -= n
        if self.left == 0:
            raise KeyboardInterrupt

    def skip(self, n: int) -> None:
        assert n == 0


def test_an_interrupted_training_ends_as_if_it_had_not_been(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", -1.0)
    schedule = Schedule(9, 2, 1e-2)
    how = Augmentation((40, 40), scale=(0.8, 1.2))
    given: dict[str, Any] = {"how": how, "regions_per_photo": 5}
    straight = toy.fit(schedule, net(0.5), **given).state_dict()

    def kept() -> Checkpoint:
        log = Log(tmp_path / "metrics.jsonl")
        return Checkpoint(tmp_path / "checkpoint.pt", log, pytest.fail)

    with pytest.raises(KeyboardInterrupt):
        toy.fit(schedule, net(0.5), **given, checkpoint=kept(), ticks=Stop(5))
    ended = toy.fit(schedule, net(0.5), **given, checkpoint=kept()).state_dict()
    assert all(torch.equal(tensor, straight[name]) for name, tensor in ended.items())


@pytest.mark.parametrize(
    ("maps", "labels", "said"),
    [
        (np.zeros((48, 60), np.int32), np.zeros(12, np.uint8), "the photo is .48, 64."),
        (np.full((48, 64), 12, np.int32), np.zeros(12, np.uint8), "but 12 labels; number"),
        (np.full((48, 64), -1, np.int32), np.zeros(12, np.uint8), "ids from -1"),
    ],
    ids=["another size", "no label", "below 0"],
)
def test_superpixels_that_do_not_fit(toy: Toy, maps: Any, labels: Any, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        toy.fit(Schedule(1, 1, 1e-3), maps=[maps] * 8, labels=[labels] * 8)


# Which regions are drawn


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    counts=st.dictionaries(st.sampled_from([0, 1, 2, 7, 254, 255]), st.integers(1, 30)),
    most=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_labels_are_drawn_in_equal_shares(counts: dict[int, int], most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(*map(list, zip(*counts.items(), strict=True)))) if counts \
        else np.empty(0)  # fmt: skip
    labels = labels.astype(np.uint8)
    drawn = balanced_draw(labels, most, rng)
    assert (np.diff(drawn) > 0).all()
    taken = {label: int((labels[drawn] == label).sum()) for label in counts}
    assert taken.pop(IGNORE, 0) == 0
    foreground = {label: n for label, n in counts.items() if label not in (BACKGROUND, IGNORE)}
    allowed = dict(foreground)
    if BACKGROUND in counts:
        limit = sum(foreground.values()) or max(1, most // 2)
        allowed[BACKGROUND] = min(counts[BACKGROUND], limit)
    assert sum(taken.values()) == min(most, sum(allowed.values()))
    for label, n in taken.items():
        # Whoever has less than another by more than one has given all.
        assert n == allowed[label] or n >= max(taken.values()) - 1
    if foreground:
        assert taken.get(BACKGROUND, 0) <= sum(taken[label] for label in foreground)


def test_every_region_of_a_label_may_be_drawn() -> None:
    labels = np.repeat([BACKGROUND, 3], [20, 10]).astype(np.uint8)
    rng = np.random.default_rng(0)
    counts = np.zeros(30, int)
    for _ in range(600):
        drawn = balanced_draw(labels, 8, rng)
        assert (labels[drawn] == 3).sum() == 4
        counts[drawn] += 1
    assert 80 <= counts[:20].min() <= counts[:20].max() <= 160  # 4 of 20 in 600: 120 each
    assert 200 <= counts[20:].min() <= counts[20:].max() <= 280  # 4 of 10: 240 each


# Prediction


def test_every_region_gets_its_row(toy: Toy) -> None:
    """Regions of one pixel too, where the network sees the photo at a fifth of its size."""
    maps = [m.copy() for m in toy.maps[:3]]
    maps[1][20, 33] = 12
    maps[2][-1, -1] = 14  # and no pixel has id 13 or 12
    fitted = net()
    torch.nn.init.normal_(fitted.score.weight)
    for side in (None, 13, 31, 64, 150):
        probs = predict_regions(fitted, toy.images()[:3], maps, execution=EXECUTION, side=side)
        assert [p.shape for p in probs] == [(12, 4), (13, 4), (15, 4)]
        assert all(p.dtype == np.float32 for p in probs)
        sums = np.concatenate([p.sum(1) for p in probs])
        empty = np.arange(40) == 12 + 13 + 12
        empty[12 + 13 + 13] = True
        np.testing.assert_allclose(sums[~empty], 1, atol=1e-5)
        assert not sums[empty].any()


def test_probabilities_are_the_networks_own(toy: Toy) -> None:
    fitted = net()
    torch.nn.init.normal_(fitted.score.weight)
    images = toy.images()
    probs = predict_regions(fitted.train(), images, toy.maps, execution=EXECUTION)
    assert not fitted.training
    with torch.no_grad():
        for image, regions, found in zip(images, toy.maps, probs, strict=True):
            x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
            expected = torch.softmax(fitted(x, regions[None])[0], 1)
            np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.concatenate(probs).std(0).min() > 0.01


def test_enlarged_regions_fill_their_cells(toy: Toy) -> None:
    """At five times the size a block of 16 pixels is all of its 10 x 10 cells, not each second."""
    fitted = net()
    torch.nn.init.normal_(fitted.score.weight)
    probs = predict_regions(fitted, toy.images(), toy.maps, execution=EXECUTION, side=320)
    x = torch.from_numpy(toy.images()).permute(0, 3, 1, 2).float() / 255
    large = torch.nn.functional.interpolate(x, scale_factor=5, mode="bilinear")
    regions = np.stack(toy.maps).repeat(5, 1).repeat(5, 2)
    with torch.no_grad():
        expected = torch.softmax(fitted(large, regions)[0], 1)
    np.testing.assert_allclose(np.concatenate(probs), expected, atol=1e-4)


def test_features_of_regions(toy: Toy) -> None:
    fitted = net()
    rows = describe_regions(fitted, toy.images(), toy.maps, execution=EXECUTION)
    assert [r.shape for r in rows] == [(12, 32)] * 8
    assert rows[0].min() >= 0
    probs = predict_regions(fitted, toy.images(), toy.maps, execution=EXECUTION)
    with torch.no_grad():
        scored = torch.softmax(fitted.score(torch.from_numpy(rows[5])), 1)
    np.testing.assert_allclose(probs[5], scored, atol=1e-5)


def test_low_precision_changes_little(toy: Toy) -> None:
    fitted = net()
    low = Execution(precision=torch.bfloat16)
    exact = predict_regions(fitted, toy.images(), toy.maps, execution=EXECUTION)
    found = predict_regions(fitted, toy.images(), toy.maps, execution=low)
    assert max(np.abs(a - b).max() for a, b in zip(exact, found, strict=True)) < 0.02


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("number", "one map per photo"), ("size", "one map per photo"), ("ids", "ids below 0")],
)
def test_superpixels_of_other_photos(toy: Toy, wrong: str, said: str) -> None:
    maps = list(toy.maps)
    if wrong == "number":
        maps = maps[:-1]
    elif wrong == "size":
        maps[3] = maps[3][:, :-1]
    else:
        maps[3] = maps[3] - 1
    with pytest.raises(ShapeError, match=said):
        predict_regions(net(), toy.images(), maps, execution=EXECUTION)
