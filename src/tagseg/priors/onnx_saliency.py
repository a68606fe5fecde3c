"""Saliency by a network from an ONNX file, such as U2-Net (Qin et al., 2020).

Such networks have learned from pixel masks of salient objects. What they give is no figure of
learning from tags alone, and is labelled so wherever results stand. ``onnxruntime`` is an extra:
``pip install tagseg[onnx]``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.errors import ConfigError, WeightsError
from tagseg.maps import Image, SaliencyMap, check_image
from tagseg.nets.onnx_files import onnx_content, onnx_session

__all__ = ["KNOWN_NETWORKS", "InputForm", "OnnxSaliency", "find_model"]

Scale = Literal["255", "maximum", "1"]
Output = Literal["min-max", "sigmoid", "clip"]


@dataclass(frozen=True)
class InputForm:
    """What a network expects and gives.

    Attributes:
        side: height and width of the input, pixels; None: as the file says.
        scale: what pixels are divided by first: 255, the photo's ``maximum``, or 1.
        mean, std: of each channel, RGB, after that.
        output: how the first output becomes a map in [0, 1]: stretched from its minimum to its
            maximum (min-max), through a sigmoid, or cut to [0, 1] (clip).
    """

    side: int | None = None
    scale: Scale = "255"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    output: Output = "min-max"


# By the names that the files have in rembg's folder; how that program prepares their input.
KNOWN_NETWORKS: Mapping[str, InputForm] = {
    "u2net": InputForm(320, "maximum"),
    "u2netp": InputForm(320, "maximum"),
    "u2net_human_seg": InputForm(320, "maximum"),
    "silueta": InputForm(320, "maximum"),
    "isnet-general-use": InputForm(1024, "maximum", (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)),
    "isnet-anime": InputForm(1024, "maximum", (0.485, 0.456, 0.406), (1.0, 1.0, 1.0)),
}


def find_model(given: str) -> Path:
    """The file that ``given`` names: a path, or a known network in rembg's folder.

    Raises:
        WeightsError: there is none.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise WeightsError("is a folder", where=path, do="name an .onnx file in it")
    if given in KNOWN_NETWORKS:
        home = Path(os.environ.get("U2NET_HOME", "~/.u2net")).expanduser()
        kept = home / f"{given}.onnx"
        if kept.is_file():
            return kept
        raise WeightsError(
            f"{given}.onnx is not there", where=home, do="put it there or give its path"
        )
    raise WeightsError(
        "no such file", where=path, do=f"give an .onnx file or one of {', '.join(KNOWN_NETWORKS)}"
    )


class OnnxSaliency:
    """A network of one picture in and one map out.

    How its input is prepared stands in a file ``NAME.json`` beside it, with the fields of
    :class:`InputForm`; without one it must be one of :data:`KNOWN_NETWORKS` by its name.

    Attributes:
        name: of the file, without its suffix.
        form: how input is prepared; ``side`` is a number.
        digest: sha256 of the file and of the form.

    Args:
        path: of the .onnx file.
        threads: for arithmetic.

    Raises:
        WeightsError: the file is none that can be used.
        ConfigError: its form is not known, or onnxruntime is not installed.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        content = onnx_content(path)
        self._path, self._threads = path, threads
        self.name = path.stem
        self._session = onnx_session(content, path, threads)
        form = _form(path)
        self._input, side = _only_input(self._session, path)
        if form.side is None and side is None:
            raise ConfigError(
                "takes photos of any size",
                where=path,
                do=f'say which, as {{"side": 320}} in {path.stem}.json beside it',
            )
        if form.side is not None and side is not None and form.side != side:
            raise ConfigError(f"takes {side} pixels, and its form says {form.side}", where=path)
        self.form = replace(form, side=form.side or side)
        noted = json.dumps([str(v) for v in vars(self.form).values()]).encode()
        self.digest = hashlib.sha256(content + noted).hexdigest()

    def __reduce__(self) -> tuple[Callable[..., OnnxSaliency], tuple[Path, int, str]]:
        """Another process opens the file for itself."""
        return _opened_again, (self._path, self._threads, self.digest)

    def map(self, image: Image) -> SaliencyMap:
        """The saliency map of a photo uint8 (H, W, 3), float32 (H, W) in [0, 1].

        A map without contrast, which min-max cannot stretch, is all 0.
        """
        image = check_image(image, "image")
        found = self._session.run(None, {self._input: self._prepared(image)})[0]
        plane = np.asarray(found, np.float32).squeeze()
        if plane.ndim != 2 or not np.isfinite(plane).all():
            raise WeightsError(
                f"the network gives {np.shape(found)}", where=self.name, do="use one of one map"
            )
        size = (image.shape[1], image.shape[0])
        in_range = _in_range(plane, self.form.output)
        return cv2.resize(in_range, size, interpolation=cv2.INTER_LINEAR).clip(0, 1)

    def _prepared(self, image: Image) -> npt.NDArray[np.float32]:
        """(1, 3, side, side), as the network takes it."""
        side = self.form.side or 0
        smaller = max(image.shape[:2]) > side
        way = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        pixels = cv2.resize(image, (side, side), interpolation=way).astype(np.float32)
        divisor = {"255": 255.0, "maximum": max(float(pixels.max()), 1e-6), "1": 1.0}
        pixels = pixels / divisor[self.form.scale]
        normal = (pixels - np.array(self.form.mean, np.float32)) / np.array(
            self.form.std, np.float32
        )
        return np.ascontiguousarray(normal.transpose(2, 0, 1)[None], np.float32)


def _opened_again(path: Path, threads: int, digest: str) -> OnnxSaliency:
    found = OnnxSaliency(path, threads=threads)
    if found.digest != digest:
        raise WeightsError(
            "is not what it was when the run began", where=path, do="run the same command again"
        )
    return found


def _only_input(session: Any, path: Path) -> tuple[str, int | None]:
    """The name of the one input, and its height and width if the file fixes them."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(item.name for item in inputs)
        raise ConfigError(f"has {len(inputs)} inputs ({names})", where=path, do="use one with one")
    shape = list(inputs[0].shape)
    if len(shape) != 4 or shape[1] != 3 or inputs[0].type != "tensor(float)":
        raise ConfigError(
            f"takes {inputs[0].type} {shape}",
            where=path,
            do="use one that takes floats (1, 3, H, W)",
        )
    fixed = [side for side in shape[2:] if isinstance(side, int)]
    if isinstance(shape[0], int) and shape[0] != 1:
        raise ConfigError(f"takes {shape[0]} photos at once", where=path, do="save it for one")
    if len(fixed) == 2 and fixed[0] != fixed[1]:
        raise ConfigError(
            f"takes {fixed[0]} x {fixed[1]} pixels", where=path, do="use a square one"
        )
    return inputs[0].name, fixed[0] if len(fixed) == 2 else None


def _form(path: Path) -> InputForm:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        if path.stem in KNOWN_NETWORKS:
            return KNOWN_NETWORKS[path.stem]
        raise ConfigError(
            "nothing says how its input is prepared",
            where=path,
            do=f'write it into {beside.name} beside it, such as {{"side": 320, "scale": "255"}}',
        )
    try:
        values = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"is not JSON ({error})", where=beside) from None
    return _checked_form(values, beside)


def _checked_form(values: Any, where: Path) -> InputForm:
    known = [item.name for item in fields(InputForm)]
    if not isinstance(values, dict) or not set(values) <= set(known):
        raise ConfigError("has other fields", where=where, do=f"use {', '.join(known)}")
    stated: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    form = replace(InputForm(), **stated)
    numbers = [
        isinstance(v, tuple) and len(v) == 3 and all(isinstance(x, int | float) for x in v)
        for v in (form.mean, form.std)
    ]
    if not all(numbers) or min(form.std) <= 0:
        raise ConfigError("mean and std are not three numbers each", where=where)
    for name, choices in (("scale", get_args(Scale)), ("output", get_args(Output))):
        if getattr(form, name) not in choices:
            raise ConfigError(f"{name} is not one of {', '.join(choices)}", where=where)
    if form.side is not None and not (isinstance(form.side, int) and 16 <= form.side <= 4096):
        raise ConfigError("side is not a number of pixels, 16 to 4096", where=where)
    return form


def _in_range(plane: npt.NDArray[np.float32], output: Output) -> npt.NDArray[np.float32]:
    if output == "sigmoid":
        return (1 / (1 + np.exp(-plane.astype(np.float64)))).astype(np.float32)
    if output == "clip":
        return plane.clip(0, 1)
    least, most = float(plane.min()), float(plane.max())
    if most - least < 1e-6:
        return np.zeros_like(plane)
    return (plane - least) / np.float32(most - least)
