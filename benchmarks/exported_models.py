"""A run's segmenter in PyTorch, as an ONNX file and as one of int8: parity, size, speed, quality.

All on one thread, photos decoded beforehand, no CRF. With ground truth, mIoU over the photos.

    tagseg train PHOTOS --out RUN ...
    python benchmarks/exported_models.py RUN PHOTOS/JPEGImages [--list val.txt] [--truth MASKS]

With ``--nets`` instead: every network and head with random weights, and how far off the file is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch
from PIL import Image as PilImage
from torch import nn

from tagseg.data.images import decode_photo
from tagseg.data.working import argmax_at
from tagseg.nets.aspp import AsppNet
from tagseg.nets.backbone import Backbone
from tagseg.nets.catalog import BACKBONES
from tagseg.nets.deeplab import SegmentationNet
from tagseg.nets.fpn import FpnNet
from tagseg.nets.hugging_face import HuggingFaceVit
from tagseg.nets.pyramid import PyramidNet
from tagseg.segment.exported import onnx_network
from tagseg.segment.onnx_graph import Frame, assemble
from tagseg.segment.predict import Segmenter
from tagseg.segment.windowed import Sight, WindowedSegmenter
from tagseg.session.export import load_segmenter
from tagseg.session.export_model import export_onnx
from tagseg.training import Execution

_SHAPES = ((75, 98), (213, 320), (480, 360), (33, 40), (500, 751))  # of photos, with --nets
_SIDE = 320
_VITS = (
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "clip_vision_model",
    "siglip_vision_model",
    "siglip2_vision_model",
    "vit",
)
_SMALL_VIT = {
    "hidden_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 112,
    "patch_size": 16,
}
Labels = np.ndarray


def session_of(content: bytes | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    options.log_severity_level = 3
    given = str(content) if isinstance(content, Path) else content
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def timed(
    ways: dict[str, Callable[[np.ndarray], Labels]], photos: list[np.ndarray]
) -> dict[str, tuple[list[Labels], float]]:
    """What each way gives of the photos, and photos a second of processor time.

    The ways take turns at each photo, so that other programs disturb them alike.
    """
    found: dict[str, list[Labels]] = {name: [] for name in ways}
    took = dict.fromkeys(ways, 0.0)
    for work in ways.values():
        work(photos[0])
    for photo in photos:
        for name, work in ways.items():
            begin = time.process_time()
            found[name].append(work(photo))
            took[name] += time.process_time() - begin
    return {name: (found[name], len(photos) / took[name]) for name in ways}


def mean_iou(found: list[Labels], truth: list[Labels], labels: int) -> float:
    counts = np.zeros((labels, labels), np.int64)
    for a, b in zip(truth, found, strict=True):
        known = a != 255
        counts += np.bincount(
            a[known].astype(int) * labels + b[known], minlength=labels**2
        ).reshape(labels, labels)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    return float((counts.diagonal()[union > 0] / union[union > 0]).mean())


def of_run(run: Path, folder: Path, listed: Path | None, truth: Path | None) -> None:
    names = sorted(path.stem for path in folder.iterdir())
    if listed is not None:
        names = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]
    files = {path.stem: path for path in folder.iterdir()}
    photos = [decode_photo(files[name]) for name in names]
    segmenter = load_segmenter(run, device="cpu", precision="fp32")
    weights = next(run.glob("stages/*-export/segmenter.safetensors"))
    sizes = {"PyTorch": weights.stat().st_size}
    ways: dict[str, Callable[[np.ndarray], Labels]] = {
        "PyTorch": lambda photo: segmenter.predict(photo, refine=False)
    }
    with tempfile.TemporaryDirectory() as place:
        for name, int8 in (("ONNX", False), ("ONNX, int8", True)):
            file = Path(place) / f"{int(int8)}.onnx"
            export_onnx(run, file, int8=int8)
            session, sizes[name] = session_of(file), file.stat().st_size
            ways[name] = lambda photo, s=session: s.run(["labels"], {"image": photo})[0]
            if not int8:
                off = max(
                    np.abs(session.run(["probabilities"], {"image": photo})[0] - probs).max()
                    for photo in photos[:20]
                    for probs in [segmenter.probabilities(photo, refine=False)]
                )
                print(f"probabilities of 20 photos are {off:.1e} off at most")
    results = timed(ways, photos)
    first, _ = results["PyTorch"]
    for name, (found, speed) in results.items():
        same = np.mean([np.mean(a == b) for a, b in zip(found, first, strict=True)])
        line = f"{name:12s} {sizes[name] / 1e6:6.1f} MB {speed:6.2f} photos/s, "
        line += f"labels {100 * same:.4f} %"
        if truth is not None:
            true = [np.asarray(PilImage.open(truth / f"{name}.png")) for name in names]
            line += f", mIoU {100 * mean_iou(found, true, len(segmenter.classes) + 1):.2f}"
        print(line, flush=True)


def networks() -> Iterator[tuple[str, nn.Module, Sight | None]]:
    for name in ("tiny", "mobilenet_v2", "efficientnet_lite0", "resnet50", "vgg16"):
        kind = BACKBONES[name]
        yield f"{name}, LargeFOV", SegmentationNet(kind(8), 5), None
        yield f"{name}, ASPP", AsppNet(kind(8), 5), None
        yield f"{name}, FPN", FpnNet(kind(kind.pyramid_stride), 5), None
        yield from _pyramids(name, kind(kind.native_stride))
    for name in _VITS:
        backbone = HuggingFaceVit(16, config={**_SMALL_VIT, "model_type": name})
        yield f"{name}, LargeFOV", SegmentationNet(backbone, 5), None
        yield from _pyramids(name, backbone)


def _pyramids(name: str, backbone: Backbone) -> Iterator[tuple[str, nn.Module, Sight]]:
    net = PyramidNet(backbone, 5)
    yield f"{name}, pyramid", net, Sight(1.25)
    yield f"{name}, pyramid, windows, 2 sizes, mirrored", net, Sight(1.25, 224, (1.0, 1.5), True)


def of_networks() -> None:
    torch.manual_seed(0)
    for name, net, sight in networks():
        net = confident(net.eval())
        classes = ("a", "b", "c", "d")
        segmenter = (
            Segmenter(net, classes, side=_SIDE, execution=Execution())
            if sight is None
            else WindowedSegmenter(net, classes, sight=sight, side=_SIDE, execution=Execution())
        )
        begin = time.perf_counter()
        model = assemble(onnx_network(net), Frame(_SIDE, 5, sight), {"tagseg": "0"})
        content = model.SerializeToString()
        took = time.perf_counter() - begin
        session, off, same, pixels = session_of(content), 0.0, 0, 0
        for shape in _SHAPES:
            photo = picture(shape)
            probs = segmenter.probabilities(photo)
            labels, found = session.run(None, {"image": photo})
            off = max(off, float(np.abs(found - probs).max()))
            same += int((labels == argmax_at(probs, shape)).sum())
            pixels += labels.size
        print(
            f"{name:50s} {off:.1e} {100 * same / pixels:8.4f} % {len(content) / 1e6:7.1f} MB, "
            f"written in {took:.1f} s",
            flush=True,
        )


def picture(shape: tuple[int, int]) -> np.ndarray:
    rough = np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8)
    return cv2.resize(rough, shape[::-1], interpolation=cv2.INTER_CUBIC)


def confident(net: nn.Module) -> nn.Module:
    """The network with scores of standard deviation 3, so that probabilities are sharp."""
    x = torch.from_numpy(picture((96, 128))).permute(2, 0, 1)[None].float() / 255
    last = [p for n, p in net.named_parameters() if any(w in n for w in ("score", "direct", "fc8"))]
    with torch.no_grad():
        factor = 3 / net(x).std()
        for parameter in last:
            parameter.mul_(factor)
    return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("--list", type=Path)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--nets", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if given.nets:
        of_networks()
    elif given.run is None or given.photos is None:
        sys.exit("give a run and a folder of photos, or --nets")
    else:
        of_run(given.run, given.photos, given.list, given.truth)


if __name__ == "__main__":
    main()
