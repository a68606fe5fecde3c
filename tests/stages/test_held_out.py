"""Photos held out: which they are, and what their labels say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tagseg.recipes.cam_baseline import Config
from tagseg.segment.windowed import Sight
from tagseg.session.train import make_config
from tagseg.stages import held_out as module
from tagseg.stages.held_out import HeldOut, held_out_of
from tagseg.stages.refiners import find_refiner
from tagseg.stages.stage import Declared, Trained, label_maps, opened


def test_one_in_sixteen_is_held_out():
    few = np.arange(100)
    assert len(held_out_of(few)) == 0  # 6 would say nothing
    assert held_out_of(np.arange(160) * 2).tolist() == [16 + 32 * i for i in range(10)]
    assert len(held_out_of(np.arange(5000))) == 40


class Always(nn.Module):
    """Answers label 1 wherever a photo is bright, else 0."""

    def __init__(self, n_labels):
        super().__init__()
        self.n_labels, self.bright = n_labels, 9.0

    def forward(self, x):
        bright = x.mean(1) > 0.5
        scores = torch.zeros(len(x), self.n_labels, *x.shape[2:])
        scores[:, 1] = torch.where(bright, self.bright, -9.0)
        return scores


@pytest.fixture
def judge(odd_run):
    def halves(index):
        labels = (odd_run.photos.image(index).mean(2) > 127).astype(np.uint8)
        labels[:4] = 255
        return labels

    targets = label_maps(odd_run, Declared("halves"), halves)
    return HeldOut(odd_run, np.array([0, 2]), targets, Sight())


@pytest.fixture
def result(odd_run):
    with opened(odd_run, Declared("toy")) as stage:
        if stage.pending:
            stage.save_json("toy", 1)
    return Trained(Always(len(odd_run.photos.classes) + 1), stage)


def test_agreement_is_mean_iou_with_the_labels(judge, result, monkeypatch):
    said = []
    monkeypatch.setattr(judge.run.progress, "say", said.append)
    assert judge.agreement(result, 0) > 0.95
    assert "cycle 1" in said[-1]
    assert "2 photos held out" in said[-1]
    monkeypatch.setattr(HeldOut, "_met", lambda *args: pytest.fail("it was done"))
    assert judge.agreement(result, 0) > 0.95


@pytest.mark.parametrize("helps", [True, False])
def test_a_refiner_is_used_where_the_labels_speak_for_it(judge, result, monkeypatch, helps):
    """One that gives the labels, or none of them."""

    class Oracle:
        def refine(self, image, probs, known=None):
            photos = judge.run.photos
            index = next(i for i in (0, 2) if np.array_equal(photos.image(i), image))
            labels = judge.targets(index) if helps else np.full_like(judge.targets(index), 2)
            labels = np.where(labels == 255, 0, labels)
            return np.eye(len(probs), dtype=np.float32)[labels].transpose(2, 0, 1)

    said = []
    monkeypatch.setattr(judge.run.progress, "say", said.append)
    monkeypatch.setattr(module, "refiner_from", lambda refinement: Oracle())
    monkeypatch.setattr(
        Always, "forward", lambda self, x: torch.zeros(len(x), self.n_labels, *x.shape[2:])
    )
    assert judge.refining_helps(result, {"any": 1}) == helps
    assert ("it is used" in said[-1]) == helps


def test_nothing_is_refined_without_photos_or_refiner(odd_run, judge, result):
    assert not judge.refining_helps(result, None)
    nobody = HeldOut(odd_run, np.array([], np.intp), judge.targets, Sight())
    assert not nobody.refining_helps(result, {"any": 1})


def test_labels_of_which_nothing_is_known_speak_for_nothing(odd_run, result):
    def unknown(index):
        return np.full(odd_run.photos.image(index).shape[:2], 255, np.uint8)

    judge = HeldOut(
        odd_run, np.array([0, 2]), label_maps(odd_run, Declared("unknown"), unknown), Sight()
    )
    assert judge.agreement(result, 0) == 0
    refinement = find_refiner(make_config(Config, {"crf_iterations": 1}), 0)
    assert not judge.refining_helps(result, refinement)
