"""Pre-train the ``tiny`` backbone on generated single objects; writes the weights that we ship.

    python tools/pretrain_tiny.py [--photos 12000] [--iterations 4000] [--out FILE]

Single objects of 16 classes stand in for ImageNet: none of them is a class of the scenes, and no
mask is read. Prints the accuracy on held-out pictures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from tagseg.data.scenes import OBJECTS, draw_scene
from tagseg.data.transforms import Augmentation, augment
from tagseg.nets.tiny import Tiny
from tagseg.training import Batch, Execution, Loop, Sample, Schedule, train

OUT = Path(__file__).parents[1] / "src" / "tagseg" / "nets" / "tiny_scenes.safetensors"
SIZE = (96, 128)


class Classifier(nn.Module):
    """Global average pooling and a linear layer on each of the last two blocks.

    The second classifier makes block4, too, tell objects from their surroundings, as VGG's 4th
    block does.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.backbone = Tiny()
        self.scores4 = nn.Linear(Tiny.block4_channels, n_classes)
        self.scores5 = nn.Linear(Tiny.out_channels, n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, classes) of block4 and block5."""
        means = [block.mean((2, 3)) for block in self.backbone.activations(x)]
        means = [functional.dropout(mean, 0.2, self.training) for mean in means]
        return self.scores4(means[0]), self.scores5(means[1])


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (count, H, W, 3) and the index of each one's class."""
    scenes = [draw_scene(OBJECTS, seed, i) for i in range(count)]
    return np.stack([s.image for s in scenes]), np.array([s.tags.argmax() for s in scenes])


def samples(images: np.ndarray, classes: np.ndarray) -> Sample:
    """Random views of the pictures, each with its class, for ``tagseg.training.train``."""
    how = Augmentation(SIZE, scale=(0.8, 1.25), jitter=0.2)

    def sample(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        image, _ = augment(images[index], [], how, rng)
        return {"image": image.transpose(2, 0, 1), "class": classes[index]}

    return sample


def printed(batch: int, every: int) -> Callable[..., None]:
    """Print what a training logs, at each ``every`` iterations, and its pictures a second."""
    start = time.time()

    def log(iteration: int, **values: float) -> None:
        if iteration % every == 0:
            rate = iteration * batch / (time.time() - start)
            print(iteration, values, f"{rate:.0f} photos/s", flush=True)

    return log


def loss(net: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy with a little label smoothing; block4's counts half."""
    losses = [
        functional.cross_entropy(scores.float(), batch["class"], label_smoothing=0.1)
        for scores in net(batch["image"].float() / 255)
    ]
    return 0.5 * losses[0] + losses[1]


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=12_000)
    parser.add_argument("--iterations", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    images, classes = pictures(args.photos, args.seed)
    net = Classifier(len(OBJECTS.classes))
    schedule = Schedule(args.iterations, args.batch, 0.05, weight_decay=5e-4, warmup=200)
    execution = Execution(precision=torch.bfloat16, seed=args.seed)
    loop = Loop(execution, log=printed(args.batch, 200))
    train(
        net,
        loss,
        samples(images, classes),
        len(images),
        schedule,
        loop=loop,
    )
    held_out, truth = pictures(600, args.seed + 1)
    with torch.no_grad():
        x = torch.from_numpy(held_out).permute(0, 3, 1, 2).float() / 255
        guess = torch.cat([net(part)[1].argmax(1) for part in x.split(50)]).numpy()
    accuracy = float((guess == truth).mean())
    print(f"accuracy on 600 held-out pictures: {accuracy:.3f}")
    state = {k: v.half().contiguous() for k, v in net.backbone.state_dict().items()}
    state = {k: v for k, v in state.items() if "num_batches" not in k}
    metadata = {
        "architecture": "tiny",
        "mean": "0.485,0.456,0.406",
        "std": "0.229,0.224,0.225",
        "trained_on": f"{args.photos} generated single objects of {len(OBJECTS.classes)} classes",
        "accuracy": f"{accuracy:.3f}",
    }
    save_file(state, args.out, metadata)
    print(args.out, args.out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
