"""Every recipe on a device that is not the CPU: no operation has arguments on two devices."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from small_runs import DISTINCT, N_TRAIN, WEIGHED, Photos, fields_of, options, quick
from tagseg.recipes.catalog import RECIPES
from tagseg.run.engine import choose_device
from tagseg.session.train import train
from tracked_device import DEVICE, NAME, Mixed, OnDevice, tracked

FEW, FEW_VAL = 10, 4
SMALL = {
    "rounds": 1,
    "saliency": "barrier",
    "objects": "barrier",
    "seeder_side": 64,
    "regionnet_width": 16,
    "regionnet_side": 96,
    "regionnet_iterations": 2,
}
OWN = {
    "union": WEIGHED,
    "dcsm": {**DISTINCT, "classifier_iterations": 3, "upper_iterations": 2},
    "guided": {"guide": "g2", "crf_seed": True, "crf_loss": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_mix_no_devices(photos: Photos, recipe: str):
    kept = [*range(FEW), *range(N_TRAIN, N_TRAIN + FEW_VAL)]
    few = photos.dataset.subset(kept)
    settings = {**quick(recipe), **fields_of(recipe, SMALL), **OWN.get(recipe, {})}
    with tracked():
        result = train(
            few,
            recipe,
            settings,
            val=few.names[FEW:],
            ground_truth=photos.truth(),
            options=options(device=NAME),
        )
        if isinstance(getattr(result.segmenter, "net", None), torch.nn.Module):
            assert next(result.segmenter.net.parameters()).device == DEVICE
    assert result.scores


def test_the_device_is_there_only_where_it_is_tracked():
    with tracked():
        assert choose_device(NAME).type == NAME
    assert torch.ones(2).device.type == "cpu"


def test_devices_that_are_mixed_are_found():
    with tracked():
        here, there = torch.ones(3, 4), torch.ones(3, 4).to(DEVICE)
        assert isinstance(there, OnDevice)
        assert (there * 2.0 + torch.tensor(1.0)).device == DEVICE  # numbers go with any
        assert there[torch.tensor([0, 2])].shape == (2, 4)  # as indices of the CPU do
        assert torch.equal((there + there).cpu(), here + here)
        for mixed in (
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: functional.linear(there, here),
            lambda: here[torch.tensor([0, 2]).to(DEVICE)],
            lambda: functional.cross_entropy(there, torch.zeros(3, dtype=torch.int64)),
        ):
            with pytest.raises(Mixed):
                mixed()
        with pytest.raises(RuntimeError):
            there.numpy()


def test_a_training_step_computes_what_the_cpu_does():
    def trained(device: torch.device) -> torch.Tensor:
        torch.manual_seed(3)
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        x, params = torch.rand(2, 3, 8, 8).to(device), list(net.parameters())
        net.to(device)
        optimizer = torch.optim.Adam(params)
        net(x).square().mean().backward()
        optimizer.step()
        return params[0].detach().cpu()

    with tracked():
        ours = trained(DEVICE)
    assert torch.equal(ours, trained(torch.device("cpu")))
