"""Vision transformers from a folder of Hugging Face's library, as backbones: ``hf:FOLDER``.

``transformers`` is an extra (``pip install tagseg[foundation]``) and is imported when a
transformer is asked for. Its model classes alone are used: resizing and normalisation are ours.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tagseg.errors import ConfigError, WeightsError, one_line
from tagseg.nets.backbone import Activations, Backbone, FeatureBlock, Preprocessing, PyramidLevel

__all__ = [
    "PREFIX",
    "HuggingFaceVit",
    "build_vit",
    "pretrained_state",
    "read_vit_config",
    "sizes_as_symbols",
]

PREFIX = "hf:"
_BLOCKS = 5
_TO_NUMBER = "torch_int"  # how the library's models call it
_SAID = 200  # characters of what the library says of an error
_HALF = Preprocessing((0.5,) * 3, (0.5,) * 3)
_CLIP = Preprocessing((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


class _Kind(NamedTuple):
    """How a family of transformers is called and what its tokens are.

    Attributes:
        model: name of the class in ``transformers``.
        class_tokens: before the patches, registers aside, which the configuration counts.
        interpolates: whether ``interpolate_pos_encoding`` must be asked for.
        preprocessing: where the folder has no ``preprocessor_config.json``.
        takes_patches: whether the input is patches and not pictures (SigLIP 2's NaFlex form).
    """

    model: str
    class_tokens: int
    interpolates: bool
    preprocessing: Preprocessing
    takes_patches: bool = False


_KINDS = {
    "dinov2": _Kind("Dinov2Model", 1, False, Preprocessing()),
    "dinov2_with_registers": _Kind("Dinov2WithRegistersModel", 1, False, Preprocessing()),
    "dinov3_vit": _Kind("DINOv3ViTModel", 1, False, Preprocessing()),
    "clip_vision_model": _Kind("CLIPVisionModel", 1, True, _CLIP),
    "siglip_vision_model": _Kind("SiglipVisionModel", 0, True, _HALF),
    "siglip2_vision_model": _Kind("Siglip2VisionModel", 0, False, _HALF, takes_patches=True),
    "vit": _Kind("ViTModel", 1, True, _HALF),
}
# Models of pictures and words: their picture side is used.
_TOWERS = {
    "clip": "clip_vision_model",
    "siglip": "siglip_vision_model",
    "siglip2": "siglip2_vision_model",
}


class HuggingFaceVit(Backbone):
    """A vision transformer whose patch tokens are feature maps (B, C, h, w) at any photo size.

    The photo is scaled so that a patch covers ``output_stride`` of its pixels, and filled up to
    whole patches at the right and bottom by repeating its border: H pixels give
    ``ceil(H / output_stride)`` positions, each the middle of its cell. Position embeddings are
    interpolated by the model; class and register tokens are dropped as its configuration counts
    them. ``block5`` is the model's own output, ``block4`` what the layer at four fifths of the
    depth gives. Maps have any sign, and each position sees the whole photo.

    Args:
        output_stride: photo pixels per patch, 4 to 32.
        config: the model's configuration as in ``config.json``, with its ``model_type``.
        name: ``hf:`` and the folder's name.
        preprocessing: None is the usual one of such models.

    Raises:
        ConfigError: for a model or output stride that cannot be used; the extra is not installed.
    """

    model: Any
    pyramid_channels = 64
    usual_stride = pyramid_stride = native_stride = 16
    has_attentions = True
    usual_layer_decay = 0.75  # He et al., Masked Autoencoders, 2022, Table 9

    def __init__(
        self,
        output_stride: int = 16,
        *,
        config: Mapping[str, Any],
        name: str = PREFIX,
        preprocessing: Preprocessing | None = None,
        dilated: bool | None = None,
    ) -> None:
        if dilated:
            raise ConfigError("a transformer has nothing to dilate", do="leave dilated out")
        if not 4 <= output_stride <= 32:
            raise ConfigError(f"{name} has no output stride {output_stride}", do="use 8 or 16")
        self.name = name
        self._kind = _kind_of(config["model_type"], name)
        self.own_preprocessing = preprocessing or self._kind.preprocessing
        super().__init__(output_stride)
        self.grid_stride = None
        self.model = _new_model(self._kind, config)
        self.config = dict(config)
        self.patch = int(self.model.config.patch_size)
        self.out_channels = self.block4_channels = int(self.model.config.hidden_size)
        registers = getattr(self.model.config, "num_register_tokens", 0)
        self._prefix = self._kind.class_tokens + registers
        # Feature maps pass through these, so that they can be watched like any other layer's.
        self.maps = nn.ModuleList(nn.Identity() for _ in range(_BLOCKS))
        self._grid = (0, 0)
        self._seen: dict[int, Tensor] = {}
        for block, layer in enumerate(_mapped_layers(self.model)):
            layer.belongs_to(self, block)

    def activations(self, x: Tensor) -> Activations:
        """block4 and block5, (B, C, h, w) each, for RGB in [0, 1], (B, 3, H, W)."""
        pixels = self._whole_patches(self.normalise(x))
        self._grid = (pixels.shape[2] // self.patch, pixels.shape[3] // self.patch)
        self._seen = {}
        output = self.model(**self._inputs(pixels)).last_hidden_state
        block4, self._seen = self._seen[_BLOCKS - 2], {}
        return Activations(block4, self._to_map(output))

    def feature_blocks(self) -> tuple[FeatureBlock, ...]:
        """What the layers at fifths of the depth give, all at the output stride."""
        stride = self.output_stride
        return tuple(FeatureBlock((f"maps.{i}",), stride, stride // 2) for i in range(_BLOCKS))

    def layer_groups(self) -> tuple[tuple[nn.Module, ...], ...]:
        """The embeddings, and every layer; the last one with what follows it."""
        layers = _encoder_layers(self.model)
        before, after = _beside(self.model, layers)
        first, *others = ((layer,) for layer in layers)
        groups: list[tuple[nn.Module, ...]] = [tuple(before), first, *others]
        groups[-1] += tuple(after)
        return tuple(groups)

    def pyramid(self, x: Tensor, finest: int = 4) -> tuple[Tensor, ...]:
        """The one map that there is, brought to strides 4, 8 and so on by bilinear resizing.

        The simple pyramid of Li et al. (Exploring Plain Vision Transformer Backbones, 2022, section
        3), without learned layers.
        """
        features, shape = self(x), x.shape[2:]
        return tuple(
            functional.interpolate(
                features,
                [(size + level.stride - 1) // level.stride for size in shape],
                mode="bilinear",
                align_corners=False,
            )
            for level in self.pyramid_levels(finest)
        )

    @contextmanager
    def recorded_attentions(self) -> Iterator[list[Tensor]]:
        """As :class:`Backbone` has it; attention is computed "eager" meanwhile, and only here.

        The faster ways that the library takes elsewhere never hold the matrix. A network that
        threads share must not be recorded.
        """
        layers, before = _encoder_layers(self.model), self.model.config._attn_implementation
        kept: list[Tensor] = [torch.empty(0)] * len(layers)

        def keep(index: int) -> Callable[[nn.Module, Any, Any], None]:
            def after(module: nn.Module, args: Any, output: Any) -> None:
                if isinstance(output, tuple) and len(output) > 1 and _is_attention(output[1]):
                    kept[index] = output[1]

            return after

        hooks = [
            module.register_forward_hook(keep(index))
            for index, layer in enumerate(layers)
            for module in layer.modules()
        ]
        try:
            self.model.set_attn_implementation("eager")
            yield kept
        finally:
            self.model.set_attn_implementation(before)
            for hook in hooks:
                hook.remove()
        if not all(map(_is_attention, kept)):
            raise ConfigError(f"{self.name} gave no attentions", do="pip install -U transformers")

    def _sections(self) -> tuple[PyramidLevel, ...]:
        strides = [s for s in (2, 4, 8, 16, 32) if s <= self.output_stride]
        return tuple(PyramidLevel((nn.Identity(),), s, self.out_channels) for s in strides)

    def _whole_patches(self, x: Tensor) -> Tensor:
        stride, patch = self.output_stride, self.patch
        right, bottom = (-size % stride for size in (x.shape[3], x.shape[2]))
        x = functional.pad(x, (0, right, 0, bottom), mode="replicate")
        if stride == patch:
            return x
        size = [side // stride * patch for side in x.shape[2:]]
        return functional.interpolate(x, size, mode="bilinear", antialias=True)

    def _inputs(self, pixels: Tensor) -> dict[str, Any]:
        if not self._kind.takes_patches:
            asked = {"interpolate_pos_encoding": True} if self._kind.interpolates else {}
            return {"pixel_values": pixels, **asked}
        (height, width), side = self._grid, self.patch
        patches = pixels.unflatten(3, (width, side)).unflatten(2, (height, side))
        patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(len(pixels), height * width, -1)
        mask = torch.ones(patches.shape[:2], dtype=torch.int64, device=pixels.device)
        shapes = torch.tensor([self._grid] * len(pixels), device=pixels.device)
        return {"pixel_values": patches, "pixel_attention_mask": mask, "spatial_shapes": shapes}

    def passed_as_map(self, tokens: Tensor, block: int) -> Tensor:
        """A layer's tokens after their patches went through ``maps[block]`` as a map."""
        features = self.maps[block](self._to_map(tokens))
        self._seen[block] = features
        return torch.cat([tokens[:, : self._prefix], features.flatten(2).mT], 1)

    def _to_map(self, tokens: Tensor) -> Tensor:
        return tokens[:, self._prefix :].mT.unflatten(2, self._grid)


class _MappedLayer(nn.Module):
    """A transformer's layer whose patch tokens its owner passes through as a map.

    No hook: copies of a network that are made to take gradients leave hooks out.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self._owners: list[HuggingFaceVit] = []  # a list, as the owner is no part of this module
        self._block = 0

    def belongs_to(self, owner: HuggingFaceVit, block: int) -> None:
        self._owners, self._block = [owner], block

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output, (owner,) = self.layer(*args, **kwargs), self._owners
        if isinstance(output, tuple):
            return (owner.passed_as_map(output[0], self._block), *output[1:])
        return owner.passed_as_map(output, self._block)


def _mapped_layers(model: nn.Module) -> list[_MappedLayer]:
    """The layers at fifths of the depth, which are replaced in ``model``."""
    layers = _encoder_layers(model)
    if len(layers) < _BLOCKS:
        raise ConfigError(
            f"the transformer has {len(layers)} layers", do=f"use a model of {_BLOCKS} or more"
        )
    chosen = []
    for index in _ends(len(layers)):
        layers[index] = _MappedLayer(layers[index])
        chosen.append(cast(_MappedLayer, layers[index]))
    return chosen


def build_vit(name: str, output_stride: int, *, dilated: bool | None = None) -> HuggingFaceVit:
    """The transformer in the folder of ``hf:FOLDER``, with random weights.

    Raises:
        ConfigError: the folder or its model cannot be used.
    """
    config, preprocessing = read_vit_config(name)
    return HuggingFaceVit(
        output_stride,
        config=config,
        name=PREFIX + _folder(name).name,
        preprocessing=preprocessing,
        dilated=dilated,
    )


def read_vit_config(name: str) -> tuple[dict[str, Any], Preprocessing]:
    """The configuration in the folder of ``hf:FOLDER``, of its picture side, and its preprocessing.

    Raises:
        ConfigError: there is no such folder, or its model is none that can be used.
    """
    folder = _folder(name)
    config = _read_json(folder / "config.json")
    if "model_type" not in config:
        raise ConfigError("its config.json names no model_type", where=folder, do="save it again")
    tower = _TOWERS.get(config["model_type"])
    if tower is not None:
        config = {**config.get("vision_config", {}), "model_type": tower}
    kind = _kind_of(config["model_type"], name)
    return config, _preprocessing(folder, kind)


def pretrained_state(name: str) -> tuple[dict[str, Tensor], str, str]:
    """(tensors of a :class:`HuggingFaceVit`, file, sha256) in the folder of ``hf:FOLDER``.

    Raises:
        WeightsError: the folder has no weights, or those of another model.
    """
    folder = _folder(name)
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise WeightsError(
            "has no model.safetensors",
            where=folder,
            do="save the model there with save_pretrained, or give --weights none",
        )
    config, _ = read_vit_config(name)
    kind = _kind_of(config["model_type"], name)
    with _quiet():
        try:
            model, info = _model_class(kind).from_pretrained(
                str(folder), output_loading_info=True, local_files_only=True
            )
        except Exception as error:  # a broken file can raise nearly anything
            raise WeightsError(
                f"its weights cannot be read ({one_line(error, _SAID)})",
                where=folder,
                do="save it again",
            ) from error
    wrong = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    wrong = [key for key in wrong if not _beside_the_maps(key)]
    if wrong:
        raise WeightsError(
            f"holds weights of another model: {len(wrong)} entries are missing or of another size "
            f"(the first is {wrong[0]})",
            where=folder,
            do="take config.json and model.safetensors from one model",
        )
    _mapped_layers(model)  # as they are called in a HuggingFaceVit
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    state = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    return state, str(files[0]), digest.hexdigest()


def _beside_the_maps(key: str) -> bool:
    """Heads that pool tokens, which are not used."""
    return any(part in key for part in ("pooler", "head", "mask_token"))


def _kind_of(model_type: str, name: str) -> _Kind:
    if model_type not in _KINDS:
        raise ConfigError(
            f"{name} is a model of type {model_type!r}",
            do=f"use one of {', '.join([*_KINDS, *_TOWERS])}",
        )
    return _KINDS[model_type]


def _new_model(kind: _Kind, config: Mapping[str, Any]) -> nn.Module:
    chosen = _model_class(kind)
    values = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
    with _quiet():
        try:
            made = chosen.config_class(**values)
            return cast(nn.Module, chosen(made))
        except Exception as error:  # the library raises anything on numbers that do not fit
            raise ConfigError(
                f"no {kind.model} can be built from its config.json: {one_line(error, _SAID)}",
                do="save the model again",
            ) from error


def _model_class(kind: _Kind) -> Any:
    if importlib.util.find_spec("transformers") is None:
        raise ConfigError(
            "vision transformers need the package transformers", do="pip install tagseg[foundation]"
        )
    _keep_broken_torchvision_out()
    import transformers

    found = getattr(transformers, kind.model, None)
    if found is None:
        raise ConfigError(
            f"transformers {transformers.__version__} has no {kind.model}",
            do="pip install -U transformers",
        )
    return found


def _keep_broken_torchvision_out() -> None:
    """Nothing of torchvision is needed, and one built for another PyTorch fails when imported."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    try:
        import torchvision  # type: ignore[import-not-found,import-untyped]  # noqa: F401
    except Exception:
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # type: ignore[assignment]


@contextmanager
def sizes_as_symbols(net: nn.Module) -> Iterator[None]:
    """Let ``torch.export`` follow the transformers in a network at any photo size.

    Some of the library's models make plain numbers of sizes, unless they are traced in the way that
    ``torch.jit`` does it: the example's size would become a constant of the program.
    """
    homes = {sys.modules[type(module).__module__] for module in net.modules()}
    changed = [home for home in homes if hasattr(home, _TO_NUMBER)]
    before = [getattr(home, _TO_NUMBER) for home in changed]
    try:
        for home, to_number in zip(changed, before, strict=True):
            setattr(home, _TO_NUMBER, partial(_number_or_symbol, to_number))
        yield
    finally:
        for home, to_number in zip(changed, before, strict=True):
            setattr(home, _TO_NUMBER, to_number)


def _number_or_symbol(to_number: Callable[[Any], Any], value: Any) -> Any:
    return value if isinstance(value, torch.SymInt) else to_number(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """What the library tells of entries that are not used is no news here."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    progress = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if progress:
            logging.enable_progress_bar()


def _encoder_layers(model: nn.Module) -> nn.ModuleList:
    """The transformer's layers: its longest list of modules."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len)


def _beside(model: nn.Module, layers: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """The modules of ``model`` before and after ``layers``, as large as they come."""
    before: list[nn.Module] = []
    after: list[nn.Module] = []
    here = before
    for child in model.children():
        if child is layers:
            here = after
        elif any(part is layers for part in child.modules()):
            inner = _beside(child, layers)
            before += inner[0]
            after += inner[1]
            here = after
        else:
            here.append(child)
    return before, after


def _is_attention(value: object) -> bool:
    """Whether it is (B, heads, T, T)."""
    return isinstance(value, Tensor) and value.ndim == 4 and value.shape[2] == value.shape[3]


def _ends(count: int) -> list[int]:
    """The layer at which each fifth of the depth ends."""
    return [max(0, -(-count * (block + 1) // _BLOCKS) - 1) for block in range(_BLOCKS)]


def _folder(name: str) -> Path:
    text = name.removeprefix(PREFIX)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    if text.startswith((".", "/", "~")) or text.count("/") != 1:
        raise ConfigError("this folder does not exist", where=folder, do="check the path")
    return _from_the_hub(text)


def _from_the_hub(repository: str) -> Path:
    """The files of a model on huggingface.co, from the library's cache if they are there."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ConfigError(
            "models by name need the package transformers", do="pip install tagseg[foundation]"
        )
    from huggingface_hub import snapshot_download

    wanted = ["config.json", "preprocessor_config.json", "*.safetensors"]
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except Exception as error:  # no network, no such model, no right to read it
        raise ConfigError(
            f"cannot fetch {repository} ({one_line(error, _SAID)})",
            do=f"save the model into a folder and give {PREFIX}FOLDER",
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"has no {path.name}", where=path.parent, do="give a folder that save_pretrained wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read ({one_line(error, _SAID)})", where=path) from None
    if not isinstance(content, dict):
        raise ConfigError("holds no settings", where=path, do="save the model again")
    return content


def _preprocessing(folder: Path, kind: _Kind) -> Preprocessing:
    path = folder / "preprocessor_config.json"
    if not path.exists():
        return kind.preprocessing
    content = _read_json(path)
    mean, std = (
        content.get(key, usual)
        for key, usual in (
            ("image_mean", kind.preprocessing.mean),
            ("image_std", kind.preprocessing.std),
        )
    )
    try:
        numbers = [tuple(float(value) for value in values) for values in (mean, std)]
    except (TypeError, ValueError):
        numbers = [(), ()]
    if [len(values) for values in numbers] != [3, 3] or min(numbers[1]) <= 0:
        raise ConfigError("image_mean and image_std are not three numbers each", where=path)
    return Preprocessing(*numbers)  # type: ignore[arg-type]
