from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tagseg.data.scenes import SCENES, scene_dataset
from tagseg.data.transforms import Augmentation
from tagseg.data.working import WorkingPhotos
from tagseg.errors import TagError
from tagseg.maps import IGNORE, Labels
from tagseg.nets.aspp import AsppNet
from tagseg.nets.backbone import upsample_grid
from tagseg.nets.catalog import build_backbone
from tagseg.nets.deeplab import SegmentationNet
from tagseg.nets.fpn import FpnNet
from tagseg.nets.weights import resolve
from tagseg.segment.fit import GridBatch, fit_on_grid, fit_segmenter
from tagseg.training import Execution, Loop, Schedule

EXECUTION = Execution(seed=2)
HOW = Augmentation((48, 64))


@pytest.fixture
def photos() -> WorkingPhotos:
    return WorkingPhotos(_SCENES[0], 80)


_SCENES = scene_dataset(SCENES, 8, seed=1, height=60, width=80)
_LABELS = list(_SCENES[1].values())


def net() -> SegmentationNet:
    torch.manual_seed(0)
    backbone = build_backbone("tiny", resolve("imagenet", "tiny"))
    return SegmentationNet(backbone, 9, width=16, dropout=0.0, view_scale=0.15)


def cross_entropy(scores: Tensor, tags: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(scores.float(), labels.long(), ignore_index=IGNORE)


def targets(index: int) -> Labels:
    return _LABELS[index]


def test_a_few_iterations_on_a_few_scenes_lower_the_loss(photos: WorkingPhotos) -> None:
    lines: list[dict[str, Any]] = []
    fitted = fit_segmenter(
        net(), photos, targets, cross_entropy, HOW, Schedule(40, 4, 3e-3, optimizer="adamw"),
        loop=Loop(EXECUTION, frozen_batch_norm=True, log=lambda **values: lines.append(values)),
    )  # fmt: skip
    assert [line["iteration"] for line in lines] == [20, 40]
    assert lines[1]["loss"] < 0.75 * lines[0]["loss"]
    assert not fitted.training


@pytest.mark.parametrize("fit", [fit_segmenter, fit_on_grid])
def test_chosen_photos_are_drawn_as_often_as_they_stand_there(
    photos: WorkingPhotos, fit: Any
) -> None:
    """In whole epochs exactly; the others are not looked at."""
    seen: list[int] = []

    def counted(index: int) -> Labels:
        seen.append(index)
        return _LABELS[index]

    def objective(scores: Tensor, *given: Any) -> Tensor:
        return scores.float().square().mean()

    chosen = np.array([1, 3, 3, 3, 6])
    schedule = Schedule(5, 4, 1e-3)  # 20 samples are 4 epochs
    fit(net(), photos, counted, objective, HOW, schedule, chosen=chosen, loop=Loop(EXECUTION))
    assert np.bincount(seen, minlength=8).tolist() == [0, 4, 0, 12, 0, 0, 4, 0]


def test_the_objective_sees_scores_tags_and_labels_of_the_same_crop(photos: WorkingPhotos) -> None:
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def objective(scores: Tensor, tags: Tensor, labels: Tensor) -> Tensor:
        seen.append((scores.detach(), tags, labels))
        return cross_entropy(scores, tags, labels)

    how = Augmentation((72, 64), scale=(0.9, 1.1))
    fit_segmenter(
        net(), photos, targets, objective, how, Schedule(4, 4, 1e-3), loop=Loop(EXECUTION)
    )
    for scores, tags, labels in seen:
        assert scores.shape == (4, 9, 72, 64)
        assert tags.shape == (4, 8)
        assert labels.shape == (4, 72, 64)
        assert labels.dtype == torch.uint8
        assert (labels == IGNORE).any()  # outside the photo, which is 60 pixels high
        for present, crop in zip(tags, labels, strict=True):
            found = set(crop.unique().tolist()) - {0, IGNORE}
            assert found <= {k + 1 for k in range(8) if present[k]}
    assert any((labels > 0).logical_and(labels < IGNORE).any() for _, _, labels in seen)


def test_photos_without_known_tags_are_left_out() -> None:
    dataset = _SCENES[0].subset(range(8))
    dataset.known[:] = [True, False] * 4
    asked: list[int] = []
    told: list[list[bool]] = []

    def remembered(index: int) -> Labels:
        asked.append(index)
        return targets(index)

    def objective(scores: Tensor, tags: Tensor, labels: Tensor) -> Tensor:
        told.extend(tags.tolist())
        return cross_entropy(scores, tags, labels)

    fit_segmenter(
        net(), WorkingPhotos(dataset, 80), remembered, objective, HOW, Schedule(4, 2, 1e-3),
        loop=Loop(EXECUTION),
    )  # fmt: skip
    assert set(asked) == {0, 2, 4, 6}
    assert told == [dataset.tags[index].tolist() for index in asked]


def test_without_any_known_tags_there_is_nothing_to_learn() -> None:
    dataset = _SCENES[0].subset(range(8))
    dataset.known[:] = False
    with pytest.raises(TagError, match="no photo has known tags; tag some"):
        fit_segmenter(
            net(), WorkingPhotos(dataset, 80), targets, cross_entropy, HOW, Schedule(1, 1, 1e-3),
            loop=Loop(EXECUTION),
        )  # fmt: skip


def test_labels_of_255_teach_nothing(photos: WorkingPhotos) -> None:
    """Half of each mask is hidden; what would stand there makes no difference."""

    def hidden(index: int) -> Labels:
        labels = targets(index).copy()
        labels[:, :40] = IGNORE
        return labels

    def scores_of_hidden_side(scores: Tensor, tags: Tensor, labels: Tensor) -> Tensor:
        losses = functional.cross_entropy(
            scores.float(), labels.long(), ignore_index=IGNORE, reduction="none"
        )
        assert not losses[labels == IGNORE].any()
        return losses.sum() / np.prod(labels.shape)

    fit_segmenter(
        net(), photos, hidden, scores_of_hidden_side, HOW, Schedule(2, 4, 1e-3),
        loop=Loop(EXECUTION),
    )  # fmt: skip


def test_the_same_seed_gives_the_same_network(photos: WorkingPhotos) -> None:
    weights = [
        fit_segmenter(
            net(), photos, targets, cross_entropy, HOW, Schedule(3, 2, 1e-2),
            loop=Loop(Execution(seed=seed)),
        ).state_dict()
        for seed in (3, 3, 4)
    ]  # fmt: skip
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert not torch.equal(weights[0]["fc6.weight"], weights[2]["fc6.weight"])


# On the network's own grid


def grid_loss(scores: Tensor, on_grid: GridBatch) -> Tensor:
    labels = on_grid.labels.long()
    return functional.cross_entropy(scores.float(), labels, ignore_index=IGNORE)


def grid_net(stride: int = 8) -> SegmentationNet:
    torch.manual_seed(0)
    backbone = build_backbone("tiny", resolve("imagenet", "tiny"), output_stride=stride)
    return SegmentationNet(
        backbone, 9, width=16, dropout=0.0, view_scale=0.15, learn_upsampling=False, margin=stride
    )


class Watch:
    """An objective that remembers scores, what is known on the grid, and the crops themselves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[Tensor, GridBatch, Tensor]] = []
        coarse = SegmentationNet.coarse

        def remembered(net: SegmentationNet, x: Tensor) -> Tensor:
            self.crops = x.detach()
            return coarse(net, x)

        monkeypatch.setattr(SegmentationNet, "coarse", remembered)

    def __call__(self, scores: Tensor, on_grid: GridBatch) -> Tensor:
        self.seen.append((scores.detach(), on_grid, self.crops))
        return grid_loss(scores, on_grid)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def places(photo: int, height: int = 60, width: int = 80) -> Labels:
    """Every pixel's own place as a label, of which each photo has another rule."""
    rows, columns = np.mgrid[:height, :width]
    return ((rows * 7 + columns * 3 + photo) % 9).astype(np.uint8)


def slow_colours(crop: Any, stride: int) -> Any:
    """Mean colour of the pixels nearer than half a stride to stride * i, in each direction."""
    height, width = crop.shape[1:]
    reach = (stride - 1) // 2
    out = np.zeros((-(-height // stride), -(-width // stride), 3))
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            y, x = stride * i, stride * j
            part = crop[:, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
            out[i, j] = part.reshape(3, -1).mean(1)
    return out


@pytest.mark.parametrize(
    ("stride", "size"),
    [(8, (48, 64)), (8, (72, 88)), (8, (41, 57)), (16, (48, 80)), (16, (33, 65))],
)
def test_what_the_objective_is_told_on_the_grid(
    photos: WorkingPhotos, watch: Watch, stride: int, size: tuple[int, int]
) -> None:
    """Labels of the pixels stride * i, mean colours around them, and which lie in the photo."""
    fit_on_grid(
        grid_net(stride), photos, places, watch, Augmentation(size),
        Schedule(3, 4, 1e-3), loop=Loop(EXECUTION),
    )  # fmt: skip
    grid = tuple(-(-side // stride) for side in size)
    padded = 0
    for scores, on_grid, crops in watch.seen:
        assert scores.shape == (4, 9, *grid)
        assert on_grid.tags.shape == (4, 8)
        assert (on_grid.tags.dtype, on_grid.inside.dtype) == (torch.bool, torch.bool)
        assert (on_grid.labels.dtype, on_grid.images.dtype) == (torch.uint8, torch.uint8)
        assert on_grid.labels.shape == on_grid.inside.shape == (4, *grid)
        # Targets know everything: only padding has no label.
        assert torch.equal(on_grid.inside, on_grid.labels != IGNORE)
        pixels = (crops * 255).round().double().numpy()
        for crop, colours in zip(pixels, on_grid.images, strict=True):
            expected = slow_colours(crop, stride)
            assert np.abs(colours.numpy() - expected).max() <= 0.5 + 1e-3
        padded += int((~on_grid.inside).sum())
    assert (padded > 0) == (size[0] > 60 or size[1] > 80)


def test_labels_are_those_of_the_pixels_themselves(watch: Watch) -> None:
    """A photo whose colours tell where a pixel comes from; the labels must be of these pixels."""
    rows, columns = np.mgrid[:60, :80].astype(np.uint8)
    image = np.stack([columns, rows, np.full_like(rows, 7)], 2)
    dataset = replace(_SCENES[0].subset([0]), sources=(image,))

    def own(index: int) -> Labels:
        return ((rows.astype(int) * 5 + columns * 3) % 9).astype(np.uint8)

    fit_on_grid(
        grid_net(), WorkingPhotos(dataset, 80), own, watch, Augmentation((72, 56)),
        Schedule(4, 2, 1e-3), loop=Loop(EXECUTION),
    )  # fmt: skip
    known = 0
    for _, on_grid, crops in watch.seen:
        pixels = (crops * 255).round().long()
        for b in range(len(pixels)):
            for i in range(on_grid.labels.shape[1]):
                for j in range(on_grid.labels.shape[2]):
                    red, green, blue = pixels[b, :, 8 * i, 8 * j].tolist()
                    inside = (red, green, blue) != (118, 118, 118)
                    assert on_grid.inside[b, i, j] == inside
                    wanted = (green * 5 + red * 3) % 9 if inside else IGNORE
                    assert on_grid.labels[b, i, j] == wanted
                    known += inside
    assert known > 100


def test_labels_that_are_not_known_are_inside_all_the_same(
    photos: WorkingPhotos, watch: Watch
) -> None:
    nothing = np.full((60, 80), IGNORE, np.uint8)
    fit_on_grid(
        grid_net(), photos, lambda index: nothing,
        lambda scores, on_grid: 0 * watch(scores, on_grid).nan_to_num(),
        Augmentation((72, 80)), Schedule(2, 3, 1e-3), loop=Loop(EXECUTION),
    )  # fmt: skip
    for _, on_grid, _ in watch.seen:
        assert (on_grid.labels == IGNORE).all()
        rows = on_grid.inside.all(2).sum(1)  # 60 of 72 rows: 7 or 8 positions
        assert rows.tolist() == [7 if r == 7 else 8 for r in rows]
        assert (rows < 9).all()


def test_stretched_photos_fill_the_grid(photos: WorkingPhotos, watch: Watch) -> None:
    fit_on_grid(
        grid_net(), photos, targets, watch, Augmentation((72, 96), stretch=True),
        Schedule(2, 4, 1e-3), loop=Loop(EXECUTION),
    )  # fmt: skip
    for _, on_grid, _ in watch.seen:
        assert on_grid.inside.all()
        for present, labels in zip(on_grid.tags, on_grid.labels, strict=True):
            found = set(labels.unique().tolist()) - {0, IGNORE}
            assert found <= {k + 1 for k in range(8) if present[k]}


def coloured() -> tuple[WorkingPhotos, list[Labels]]:
    """Red rectangles of class 1 and blue ones of class 2 on grey noise."""
    rng = np.random.default_rng(0)
    images, masks = [], []
    for i in range(8):
        image, labels = rng.integers(90, 130, (48, 64, 3), np.uint8), np.zeros((48, 64), np.uint8)
        for label, left in ((1, 0), (2, 32)):
            if i % 4 != label:
                top, width = int(rng.integers(0, 20)), int(rng.integers(16, 30))
                image[top : top + 24, left : left + width] = (
                    (250, 0, 0) if label == 1 else (0, 0, 250)
                )
                labels[top : top + 24, left : left + width] = label
        images.append(image)
        masks.append(labels)
    tags = np.array([[(m == label).any() for label in range(1, 9)] for m in masks])
    return WorkingPhotos(
        replace(_SCENES[0].subset(range(8)), sources=tuple(images), tags=tags), 64
    ), masks


@pytest.mark.parametrize("kind", ["large_fov", "aspp", "fpn"])
def test_it_learns_on_the_grid(kind: str) -> None:
    """All networks find the labels at full size; upsampling stays bilinear."""
    photos, masks = coloured()
    net = grid_net()
    before = net.upsample.weight.clone()
    if kind == "aspp":
        net = AsppNet(net.backbone, 9, view_scale=0.15)  # type: ignore[assignment]
    if kind == "fpn":
        net = FpnNet(net.backbone, 9)  # type: ignore[assignment]
    lines: list[dict[str, Any]] = []
    schedule = Schedule(60, 4, 2e-3, optimizer="adamw", multipliers={"backbone": 0.2})
    fitted = fit_on_grid(
        net, photos, masks.__getitem__, grid_loss, HOW, schedule,
        loop=Loop(EXECUTION, frozen_batch_norm=True, log=lambda **values: lines.append(values)),
    )  # fmt: skip
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert not fitted.training
    x = torch.from_numpy(np.stack([photos.image(i) for i in range(8)])).permute(0, 3, 1, 2)
    with torch.no_grad():
        found, truth = fitted(x.float() / 255).argmax(1).numpy(), np.stack(masks)
    ious = [
        ((found == label) & (truth == label)).sum() / ((found == label) | (truth == label)).sum()
        for label in (0, 1, 2)
    ]
    assert min(ious) > 0.25
    assert np.mean(ious) > 0.45  # nothing but background would give 0.2
    if kind == "large_fov":
        assert torch.equal(fitted.upsample.weight, before)


def test_on_the_grid_photos_without_known_tags_are_left_out() -> None:
    dataset = _SCENES[0].subset(range(8))
    dataset.known[:] = [True, False] * 4
    asked: list[int] = []

    def remembered(index: int) -> Labels:
        asked.append(index)
        return targets(index)

    fit_on_grid(
        grid_net(), WorkingPhotos(dataset, 80), remembered, grid_loss, HOW, Schedule(4, 2, 1e-3),
        loop=Loop(EXECUTION),
    )  # fmt: skip
    assert set(asked) == {0, 2, 4, 6}
    dataset.known[:] = False
    with pytest.raises(TagError, match="no photo has known tags; tag some"):
        fit_on_grid(
            grid_net(), WorkingPhotos(dataset, 80), targets, grid_loss, HOW, Schedule(1, 1, 1e-3),
            loop=Loop(EXECUTION),
        )  # fmt: skip


@pytest.mark.parametrize("chosen", [[5, 1], [3], list(range(8))], ids=str)
def test_chosen_photos_alone_are_learned_from(watch: Watch, chosen: list[int]) -> None:
    """Whether or not their tags are known; each crop has its own photo's tags."""
    dataset = _SCENES[0].subset(range(8))
    dataset.known[:] = [True, False] * 4
    asked: list[int] = []

    def remembered(index: int) -> Labels:
        asked.append(index)
        return targets(index)

    fit_on_grid(
        grid_net(), WorkingPhotos(dataset, 80), remembered, watch, HOW, Schedule(8, 2, 1e-3),
        loop=Loop(EXECUTION), chosen=np.array(chosen),
    )  # fmt: skip
    assert set(asked) == set(chosen)
    told = [tags for _, on_grid, _ in watch.seen for tags in on_grid.tags.tolist()]
    assert told == [dataset.tags[index].tolist() for index in asked]


def test_all_known_photos_are_the_usual_choice(photos: WorkingPhotos) -> None:
    weights = [
        fit_on_grid(
            grid_net(), photos, targets, grid_loss, HOW, Schedule(2, 2, 1e-2),
            loop=Loop(EXECUTION), chosen=chosen,
        ).state_dict()
        for chosen in (None, np.arange(8), np.arange(7))
    ]  # fmt: skip
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert not torch.equal(weights[0]["fc6.weight"], weights[2]["fc6.weight"])


def test_the_same_seed_gives_the_same_network_on_the_grid(photos: WorkingPhotos) -> None:
    weights = [
        fit_on_grid(
            grid_net(), photos, targets, grid_loss, HOW, Schedule(3, 2, 1e-2),
            loop=Loop(Execution(seed=seed)),
        ).state_dict()
        for seed in (3, 3, 4)
    ]  # fmt: skip
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert not torch.equal(weights[0]["fc6.weight"], weights[2]["fc6.weight"])


def test_the_reflected_margin_is_for_prediction_alone(photos: WorkingPhotos) -> None:
    """Training looks at crops as they are."""
    weights = []
    for margin in (0, 16):
        net = grid_net()
        net.margin = margin
        fit_on_grid(
            net, photos, targets, grid_loss, HOW, Schedule(2, 2, 1e-2), loop=Loop(EXECUTION)
        )
        weights.append(net.state_dict())
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


# On a finer grid than the network's


def slow_upsampled(scores: Any, y: int, x: int, stride: int) -> Any:
    """Scores (L,) at a pixel, bilinear between positions on stride * i; the last one's beyond."""
    height, width = scores.shape[1:]
    v, u = min(y / stride, height - 1), min(x / stride, width - 1)
    i, j = int(v), int(u)
    k, m = min(i + 1, height - 1), min(j + 1, width - 1)
    a, b = v - i, u - j
    above = (1 - b) * scores[:, i, j] + b * scores[:, i, m]
    below = (1 - b) * scores[:, k, j] + b * scores[:, k, m]
    return (1 - a) * above + a * below


@pytest.mark.parametrize(("loss_stride", "size"), [(1, (24, 40)), (2, (33, 50)), (4, (48, 64))])
def test_a_finer_grid_than_the_networks(
    photos: WorkingPhotos, monkeypatch: pytest.MonkeyPatch, loss_stride: int, size: tuple[int, int]
) -> None:
    raw: list[Tensor] = []
    seen: list[tuple[Tensor, GridBatch, Tensor]] = []
    coarse = SegmentationNet.coarse

    def remembered(net: SegmentationNet, x: Tensor) -> Tensor:
        raw.extend((coarse(net, x), x.detach()))
        return raw[-2]

    def objective(scores: Tensor, on_grid: GridBatch) -> Tensor:
        seen.append((scores.detach(), on_grid, raw[-1]))
        return grid_loss(scores, on_grid)

    monkeypatch.setattr(SegmentationNet, "coarse", remembered)
    net = grid_net()
    torch.nn.init.normal_(net.score.weight)
    fit_on_grid(
        net, photos, places, objective, Augmentation(size), Schedule(1, 2, 1e-3),
        loop=Loop(EXECUTION), loss_stride=loss_stride,
    )  # fmt: skip
    ((scores, on_grid, crops),) = seen
    grid = tuple(-(-side // loss_stride) for side in size)
    assert scores.shape == (2, 9, *grid)
    assert on_grid.labels.shape == on_grid.inside.shape == on_grid.images.shape[:3] == (2, *grid)
    exact = raw[-2].detach().double().numpy()
    rng = np.random.default_rng(0)
    for b in range(2):
        for _ in range(60):
            i, j = (int(rng.integers(length)) for length in grid)
            expected = slow_upsampled(exact[b], loss_stride * i, loss_stride * j, 8)
            np.testing.assert_allclose(scores[b, :, i, j], expected, atol=1e-4)
        pixels = (crops[b] * 255).round().double().numpy()
        expected = slow_colours(pixels, loss_stride)
        assert np.abs(on_grid.images[b].numpy() - expected).max() <= 0.5 + 1e-3
    assert np.ptp(exact) > 0.1


def test_the_networks_own_grid_by_its_number(photos: WorkingPhotos) -> None:
    weights = [
        fit_on_grid(
            grid_net(), photos, targets, grid_loss, HOW, Schedule(2, 2, 1e-2),
            loop=Loop(EXECUTION), loss_stride=stride,
        ).state_dict()
        for stride in (None, 8)
    ]  # fmt: skip
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


# Networks whose grid is finer than their backbone's


@pytest.mark.parametrize("loss_stride", [None, 2, 8])
@pytest.mark.parametrize("middles", [False, True])
def test_scores_are_those_of_the_pixels_with_labels(
    photos: WorkingPhotos, monkeypatch: pytest.MonkeyPatch, middles: bool, loss_stride: int | None
) -> None:
    """Every ``loss_stride``-th pixel, or every 4th; behind pools no position lies on them."""
    torch.manual_seed(0)
    fpn, made = FpnNet(build_backbone("tiny", output_stride=16), 9, channels=8), list[Tensor]()
    if middles:
        fpn.backbone.grid_stride = None  # as VGG-16 has it
    coarse = FpnNet.coarse

    def remembered(net: FpnNet, x: Tensor) -> Tensor:
        made.append(coarse(net, x))
        return made[-1]

    monkeypatch.setattr(FpnNet, "coarse", remembered)

    def objective(scores: Tensor, on_grid: GridBatch) -> Tensor:
        stride = loss_stride or 4
        full = upsample_grid(made[-1], (40, 56), None if middles else 4)
        torch.testing.assert_close(scores, full[..., ::stride, ::stride])
        assert on_grid.labels.shape == (2, -(-40 // stride), -(-56 // stride))
        return grid_loss(scores, on_grid)

    fit_on_grid(
        fpn, photos, targets, objective, Augmentation((40, 56)), Schedule(2, 2, 1e-3),
        loss_stride=loss_stride, loop=Loop(EXECUTION),
    )  # fmt: skip
    assert len(made) == 2
