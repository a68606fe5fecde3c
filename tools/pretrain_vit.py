"""Pre-train a small vision transformer on generated single objects; writes the folder that we ship.

    python tools/pretrain_vit.py [--photos 3000] [--iterations 2000] [--out FOLDER]

The classes are those of ``tools/pretrain_tiny.py``: none is a class of the scenes, and no mask is
read. So few pictures teach a transformer little by their classes alone; so each patch also learns
what ``tiny``, which was pre-trained on such pictures and their classes, says at its place. Prints
accuracies on held-out pictures. ``tagseg train ... --backbone hf:FOLDER`` takes the folder.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Dinov2Config, Dinov2Model

from pretrain_tiny import pictures, printed, samples
from tagseg.data.scenes import OBJECTS
from tagseg.nets.backbone import Backbone, Preprocessing
from tagseg.nets.catalog import build_backbone
from tagseg.nets.weights import resolve
from tagseg.training import Batch, Execution, Loop, Schedule, train

OUT = Path(__file__).parents[1] / "tests" / "data" / "vit_scenes"
PATCH = 8
SHAPE = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "mlp_ratio": 2}
GRID = 16  # patches a side of the square that position embeddings are kept for
HEADS = ("class token", "patches", "patches of layer 5")
PREPROCESSING = Preprocessing()


def waves(grid: int, width: int) -> Tensor:
    """Sines and cosines of a patch's row and column (grid * grid, width), to begin with.

    The two-dimensional embedding of Beyer et al., Better plain ViT baselines, 2022: neighbours
    are alike from the start.
    """
    rates = 10_000 ** -torch.linspace(0, 1, width // 4)
    angles = torch.arange(grid)[:, None] * rates
    side = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = side[:, None].expand(-1, grid, -1), side[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], 2).flatten(0, 1)


class Student(nn.Module):
    """A transformer of DINOv2's form that names classes and repeats what a teacher says of patches.

    Classes are told from the class token and from the mean of the patches, of the output and of
    the layer before it: those two are what tagseg's networks stand on (block5 and block4).

    Args:
        n_classes: of the pictures.
        taught: channels of the teacher's block4 and block5.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_classes: int, taught: tuple[int, int]) -> None:
        super().__init__()
        width = SHAPE["hidden_size"]
        # The library's 0.02 is for a width of 768; this one would stand nearly still with it.
        form = Dinov2Config(
            patch_size=PATCH, image_size=PATCH * GRID, initializer_range=width**-0.5, **SHAPE
        )
        self.vit = Dinov2Model(form)
        with torch.no_grad():
            self.vit.embeddings.position_embeddings[0, 1:] = waves(GRID, width)
        self.classes = nn.ModuleList(nn.Linear(width, n_classes) for _ in HEADS)
        self.norm4 = nn.LayerNorm(width)
        self.teacher4 = nn.Linear(width, taught[0])
        self.teacher5 = nn.Linear(width, taught[1])
        for name in ("mean", "std"):
            values = torch.tensor(getattr(PREPROCESSING, name)).view(3, 1, 1)
            self.register_buffer(name, values)

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """For RGB in [0, 1], (B, 3, H, W): scores (B, classes) of each head, maps (B, P, C)."""
        states = self.vit((x - self.mean) / self.std, output_hidden_states=True)
        token, patches = states.last_hidden_state[:, 0], states.last_hidden_state[:, 1:]
        patches4 = self.norm4(states.hidden_states[-2][:, 1:])
        means = (token, patches.mean(1), patches4.mean(1))
        scores = [head(mean) for head, mean in zip(self.classes, means, strict=True)]
        return scores, [self.teacher4(patches4), self.teacher5(patches)]


class Teacher(nn.Module):
    """``tiny``'s activations at the middles of patches, each channel of mean 0 and deviation 1.

    Args:
        images: uint8 (N, H, W, 3), over which mean and deviation are taken.
    """

    def __init__(self, images: np.ndarray) -> None:
        super().__init__()
        net = build_backbone("tiny", resolve("imagenet", "tiny"), output_stride=PATCH)
        self.net: Backbone = net.eval().requires_grad_(False)
        self.channels = (net.block4_channels, net.out_channels)
        seen = self._patches(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
        self.moments = [(s.mean((0, 1)), s.std((0, 1)) + 1e-3) for s in seen]

    @torch.no_grad()
    def forward(self, x: Tensor) -> list[Tensor]:
        """block4 and block5 (B, P, C) for RGB in [0, 1], (B, 3, H, W)."""
        maps = zip(self._patches(x), self.moments, strict=True)
        return [((map_ - mean) / std).clamp(-4, 4) for map_, (mean, std) in maps]

    def _patches(self, x: Tensor) -> list[Tensor]:
        # Position i lies on pixel 8 i; half a patch further on is the patch's middle.
        half = PATCH // 2
        return [map_.flatten(2).mT for map_ in self.net.activations(x[:, :, half:, half:])]


def loss_with(teacher: Teacher) -> Callable[[nn.Module, Batch], Tensor]:
    """Cross-entropies with a little label smoothing, and squared distances from the teacher."""

    def loss(net: nn.Module, batch: Batch) -> Tensor:
        x = batch["image"].float() / 255
        scores, maps = net(x)
        told = [
            functional.cross_entropy(each, batch["class"], label_smoothing=0.1) for each in scores
        ]
        pairs = zip(maps, teacher(x), strict=True)
        repeated = [functional.mse_loss(map_, target) for map_, target in pairs]
        return torch.stack(told).mean() + 2 * torch.stack(repeated).sum()

    return loss


def groups_of(net: nn.Module) -> list[dict[str, object]]:
    """Parameters that are matrices, and the others, whose weights do not decay."""
    parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in net.named_parameters():
        matrix = parameter.ndim > 1 and "token" not in name and "position" not in name
        parts[matrix].append(parameter)
    return [
        {"params": parts[True], "name": "matrices"},
        {"params": parts[False], "name": "others", "weight_decay": 0.0},
    ]


def accuracies(net: Student, count: int, seed: int) -> dict[str, float]:
    """Of each head, on pictures that it was not trained on."""
    images, truth = pictures(count, seed)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        scores = [net(part)[0] for part in x.split(50)]
    guesses = [torch.cat(each).argmax(1).numpy() for each in zip(*scores, strict=True)]
    return {
        head: float((guess == truth).mean()) for head, guess in zip(HEADS, guesses, strict=True)
    }


def save(vit: Dinov2Model, out: Path, card: str) -> None:
    """Write the folder in the form of ``save_pretrained``, in half precision, with a model card."""
    vit.half().save_pretrained(out)
    means = {"image_mean": PREPROCESSING.mean, "image_std": PREPROCESSING.std}
    text = json.dumps(means | {"do_normalize": True, "rescale_factor": 1 / 255}, indent=2)
    (out / "preprocessor_config.json").write_text(text + "\n", encoding="utf-8")
    (out / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=3000)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    images, classes = pictures(args.photos, args.seed)
    start = time.time()
    teacher = Teacher(images[:64])
    net = Student(len(OBJECTS.classes), teacher.channels)
    schedule = Schedule(
        args.iterations, args.batch, 1e-3, "adamw", weight_decay=0.05, warmup=100, clip=1.0
    )
    loop = Loop(Execution(seed=args.seed), log=printed(args.batch, 40))
    loss, groups = loss_with(teacher), groups_of(net)
    train(net, loss, samples(images, classes), len(images), schedule, groups=groups, loop=loop)
    found = accuracies(net, 600, args.seed + 1)
    told = ", ".join(f"{value:.3f} ({head})" for head, value in found.items())
    card = (
        f"A transformer of DINOv2's form, pre-trained by tools/pretrain_vit.py on {args.photos} "
        f"generated\nsingle objects of {len(OBJECTS.classes)} classes, {args.iterations} "
        f"iterations of {args.batch}, seed {args.seed}.\n"
        f"Accuracy on 600 held-out pictures: {told}.\n"
    )
    save(net.vit, args.out, card)
    print(card, f"{time.time() - start:.0f} s", flush=True)
    print(args.out, sum(file.stat().st_size for file in args.out.iterdir()), "bytes")


if __name__ == "__main__":
    main()
