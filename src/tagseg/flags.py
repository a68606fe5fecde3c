"""Flags of the commands, in groups that several of them share; torch is imported inside them only.

A group is a dataclass, whose fields are flags as Typer reads them; what is typed for them reaches
the command as one value, which knows what it means. The names of the fields are those that a run's
record of its command has (:mod:`tagseg.session.recorded`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from tagseg.errors import ConfigError

if TYPE_CHECKING:
    from tagseg.formats.masks.ground_truth import GroundTruth, MaskRules
    from tagseg.session.export_masks import ExportWishes
    from tagseg.session.inputs import Loaded, Source, Target
    from tagseg.session.reviewing import ReviewSource
    from tagseg.session.train import Options
    from tagseg.stages.recipe import Recipe

__all__ = [
    "ClassList",
    "Colours",
    "ComputingFlags",
    "DataFlags",
    "DeviceFlag",
    "EvidenceFlags",
    "Exclude",
    "ExportTo",
    "ForestFlags",
    "FullSupervision",
    "Host",
    "LearningFlags",
    "MachineFlags",
    "MaskFlags",
    "MaskMarks",
    "MasksBy",
    "MasksByFlag",
    "MasksInFlag",
    "MasksInName",
    "OpensBrowser",
    "Port",
    "Precision",
    "PrecisionFlag",
    "RecipeName",
    "Seed",
    "SettingWords",
    "Skipped",
    "StudentSize",
    "Threads",
    "grouped",
]


class MasksInName(StrEnum):
    """How final masks are kept."""

    auto = "auto"
    files = "files"
    shards = "shards"


class EngineName(StrEnum):
    """Who works on photos."""

    local = "local"
    ray = "ray"


class Precision(StrEnum):
    """Arithmetic of convolutions."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class PresetName(StrEnum):
    """Whose numbers lie under those that are set."""

    paper = "paper"


class StudentSize(StrEnum):
    """How large a student is."""

    small = "small"
    published = "published"


class UntaggedPhotos(StrEnum):
    """What a photo without tags means."""

    negative = "negative"
    unknown = "unknown"


class TagsAre(StrEnum):
    """How far tags are believed."""

    complete = "complete"
    incomplete = "incomplete"
    noisy = "noisy"


class LayoutName(StrEnum):
    """How photos and tags lie on disk."""

    auto = "auto"
    csv = "csv"
    jsonl = "jsonl"
    folders = "folders"
    voc = "voc"
    imagenet = "imagenet"
    object_discovery = "object_discovery"
    object_discovery_100 = "object_discovery_100"
    youtube_objects = "youtube_objects"
    split_folders = "split_folders"
    webdataset = "webdataset"
    inner_folders = "inner_folders"
    coco = "coco"


class MasksBy(StrEnum):
    """What counts in palette files of masks."""

    auto = "auto"
    number = "number"
    colour = "colour"


class ExportTo(StrEnum):
    """What a run or its masks are written as."""

    coco = "coco"
    yolo = "yolo"
    label_studio = "label-studio"
    cvat = "cvat"
    labelme = "labelme"
    voc = "voc"
    png = "png"
    hf = "hf"
    onnx = "onnx"
    torch = "torch"


class PhotosBy(StrEnum):
    """What becomes of the photos of an export."""

    copy = "copy"
    link = "link"
    name = "name"


class Shapes(StrEnum):
    """What regions of masks are written as."""

    masks = "masks"
    polygons = "polygons"


class Per(StrEnum):
    """What one annotation is."""

    region = "region"
    class_ = "class"


class MasksAs(StrEnum):
    """What the masks of photos that EXIF turns lie on."""

    auto = "auto"
    stored = "stored"
    displayed = "displayed"


ClassList = Annotated[Path | None, typer.Option(help="Class names, one a line, in label order.")]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        help="Pictures that are no photos, such as '*_mask.png' or a folder's name; '!...' keeps "
        "what looks like masks. May be repeated."
    ),
]
Colours = Annotated[
    Path | None,
    typer.Option(
        help="Colours of the classes in masks: CVAT's labelmap.txt, or lines name,r,g,b. "
        "[default: such a list beside the masks, else VOC's]"
    ),
]
MasksByFlag = Annotated[
    MasksBy,
    typer.Option("--masks-by", help="What counts in palette masks, if both could be meant."),
]
DeviceFlag = Annotated[
    str, typer.Option("--device", help="Where to compute: auto, cpu, cuda, cuda:1, mps and others.")
]
MasksInFlag = Annotated[
    MasksInName,
    typer.Option(
        "--masks-in",
        help="Final masks: a PNG a photo, or tars of 4,096; auto: tars past 100,000 photos.",
    ),
]
PrecisionFlag = Annotated[Precision, typer.Option("--precision", help="Arithmetic.")]
Seed = Annotated[int, typer.Option(help="Of all random draws.")]
Threads = Annotated[int | None, typer.Option(help="Threads. [default: all cores]")]
Skipped = Annotated[
    float, typer.Option(help="Fraction of the photos that may be missing or unreadable.")
]
Host = Annotated[
    str, typer.Option(help="Address to listen on; any but this machine's own lets others in.")
]
Port = Annotated[
    int | None, typer.Option(help="Port. [default: 8765, or one that is free]", min=0, max=65535)
]
OpensBrowser = Annotated[
    bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
]
FullSupervision = Annotated[
    Path | None, typer.Option(help="Run of full_supervision, to state the percentage of it.")
]
RecipeName = Annotated[str, typer.Option(help="See tagseg recipes.")]
SettingWords = Annotated[
    list[str] | None, typer.Option("--set", help="field=value of the recipe; may be repeated.")
]

_OF_TARGET = ("--target-tags", "--target-layout", "--target-ground-truth")


@dataclass(frozen=True)
class TargetFlags:
    """Another data set than that of the tags, to be scored."""

    target: Annotated[
        Path | None,
        typer.Option("--target", help="Folder of another data set, to score; never trained on."),
    ] = None
    target_tags: Annotated[
        Path | None, typer.Option(help="Tag file of --target. [default: what it holds, or none]")
    ] = None
    target_layout: Annotated[LayoutName, typer.Option(help="Layout of --target.")] = LayoutName.auto
    target_ground_truth: Annotated[
        Path | None,
        typer.Option(help="Ground truth of --target's photos: masks, or COCO's instances."),
    ] = None

    def opened(self, allow_missing: float) -> Target | None:
        """It, if there is one; ConfigError if something is said of none."""
        from tagseg.session.inputs import Target

        kind: Any = self.target_layout.value
        if self.target is not None:
            return Target(
                self.target, self.target_tags, kind, self.target_ground_truth, allow_missing
            )
        of_it = (self.target_tags, kind, self.target_ground_truth)
        for flag, value, usual in zip(_OF_TARGET, of_it, (None, "auto", None), strict=True):
            if value != usual:
                raise ConfigError(f"{flag} is given without --target", do="give --target DIR")
        return None


@dataclass(frozen=True)
class MaskMarks:
    """How files of masks are meant."""

    colours: Colours = None
    masks_by: MasksByFlag = MasksBy.auto
    masks_as: Annotated[
        MasksAs,
        typer.Option("--masks-as", help="What masks of photos that EXIF turns are drawn on."),
    ] = MasksAs.auto

    def rules(self) -> MaskRules:
        """The same, as readers of ground truth have it."""
        from tagseg.formats.masks.ground_truth import MaskRules

        lie_on: Any = None if self.masks_as is MasksAs.auto else self.masks_as.value
        by: Any = self.masks_by.value
        return MaskRules(self.colours, by, lie_on)


@dataclass(frozen=True)
class DataFlags:
    """Photos, tags and ground truth, and how they lie on disk."""

    photos: Annotated[Path, typer.Argument(help="Folder of photos, in any of the known layouts.")]
    tags: Annotated[
        Path | None,
        typer.Option(
            help="Tag file (CSV, JSON, XML) or annotations. [default: what the folder holds]"
        ),
    ] = None
    tag_separator: Annotated[
        str | None,
        typer.Option(
            help="What stands between tags in a cell: ';', ',', 'space'. [default: by content]"
        ),
    ] = None
    classes: ClassList = None
    untagged: Annotated[
        UntaggedPhotos | None,
        typer.Option(help="What photos without tags are; needed if any exist."),
    ] = None
    layout: Annotated[LayoutName, typer.Option(help="Layout of the folder.")] = LayoutName.auto
    synsets: Annotated[
        Path | None,
        typer.Option(help="Synset and class, one pair a line, for ImageNet's folders of synsets."),
    ] = None
    exclude: Exclude = None
    frames_per_class: Annotated[
        int | None,
        typer.Option(
            help="Of YouTube-Objects: training frames of a class, spread evenly; 0 for all. "
            "[default: 2200, Saleh et al. 4.1]",
            min=0,
        ),
    ] = None
    train_list: Annotated[
        str | None,
        typer.Option(
            "--train", help="List of training photos. [default: all but --val, or the folder train]"
        ),
    ] = None
    val: Annotated[
        str | None,
        typer.Option(
            "--val", help="List of photos to score, never trained on; of --target, if given."
        ),
    ] = None
    ground_truth: Annotated[
        Path | None,
        typer.Option(
            help="Folder of ground-truth masks, or COCO's instances; for evaluation only."
        ),
    ] = None
    target: TargetFlags = TargetFlags()
    masks: MaskMarks = MaskMarks()

    def load(
        self, allow_missing: float, say: Callable[[str], None]
    ) -> tuple[Loaded, GroundTruth | None]:
        """Photos and the ground truth that was given with them, and a word on how they are read.

        ``allow_missing`` is the fraction of the tagged photos that need not be there.
        """
        from tagseg.session.inputs import ground_truth_of, load_photos

        source, target = self.source(allow_missing), self.target.opened(allow_missing)
        rules = self.masks.rules()
        loaded = load_photos(source, target, say=say)
        of_target = target.masks if target is not None else None
        return loaded, ground_truth_of(loaded, source.masks, of_target, rules)

    def source(self, allow_missing: float) -> Source:
        """The photos to learn from, as :func:`tagseg.session.inputs.load_photos` reads them."""
        from tagseg.formats.loading import Reading
        from tagseg.session.inputs import Source

        meaning: Any = self.untagged.value if self.untagged is not None else None
        kind: Any = self.layout.value
        return Source(
            self.photos,
            self.tags,
            self.classes,
            meaning,
            kind,
            self.synsets,
            self.train_list,
            self.val,
            self.ground_truth,
            Reading(
                tuple(self.exclude or ()),
                self.tag_separator,
                allow_missing,
                frames_per_class=self.frames_per_class,
            ),
        )


@dataclass(frozen=True)
class LearningFlags:
    """What a recipe learns by, beside its fields."""

    tags_are: Annotated[
        TagsAre | None,
        typer.Option(
            "--tags-are",
            help="incomplete: what is not tagged may be there; noisy: tags may be wrong either "
            "way. [default: complete]",
        ),
    ] = None
    fast: Annotated[
        bool,
        typer.Option(
            "--fast", help="Fewer iterations and ways, one round: a first look; docs/union.md."
        ),
    ] = False
    preset: Annotated[
        PresetName | None,
        typer.Option(help="paper: the paper's numbers and backbone; docs/presets.md."),
    ] = None
    full_supervision: FullSupervision = None
    review: Annotated[
        Path | None,
        typer.Option(help="review.jsonl of tagseg review: masks and tags by a person."),
    ] = None
    review_weight: Annotated[
        int | None,
        typer.Option(help="Times that a photo with an accepted mask is drawn. [default: 1]"),
    ] = None

    def belief(self, recipe: Recipe) -> dict[str, str]:
        """The field for how far tags are believed, of a recipe that learns from tags."""
        if self.tags_are is None:
            return {}
        if not recipe.config.named("tags_are"):
            raise ConfigError(
                f"--tags-are says nothing to recipe {recipe.name}, which does not learn from tags",
                do="leave it out",
            )
        return {"tags_are": self.tags_are.value}

    def quick(self, recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values of --fast for fields that are not given."""
        from tagseg.session.settings import laid_under

        if not self.fast:
            return {}
        if not recipe.fast:
            raise ConfigError(f"recipe {recipe.name} has no fast form", do="leave --fast out")
        return laid_under(recipe.config, recipe.fast, given)

    def named_preset(self, recipe: Recipe) -> str | None:
        """The preset's name; ConfigError if the recipe has none."""
        from tagseg.session.settings import find_preset

        if self.preset is None:
            return None
        find_preset(recipe, self.preset.value)
        return self.preset.value

    def reviewed(self) -> ReviewSource | None:
        """A person's review, and how much its masks count."""
        from tagseg.session.reviewing import ReviewSource
        from tagseg.stages.review import ReviewSettings

        if self.review is None:
            if self.review_weight is not None:
                raise ConfigError(
                    "--review-weight counts masks of a review", do="give --review FILE"
                )
            return None
        if self.review_weight is None:
            return ReviewSource(self.review)
        return ReviewSource(self.review, ReviewSettings(self.review_weight))


@dataclass(frozen=True)
class EvidenceFlags:
    """Files of evidence beside photos and tags: fields of a Config with flags of their own."""

    saliency: Annotated[
        Path | None,
        typer.Option(help="Folder of saliency maps made elsewhere (union, guided, mcof)."),
    ] = None
    saliency_model: Annotated[
        Path | None,
        typer.Option(help="Saliency network, an .onnx file or u2netp and others of rembg."),
    ] = None
    boxes: Annotated[
        Path | None,
        typer.Option(help="Boxes to learn saliency from: .txt, .json, .csv (union, guided, mcof)."),
    ] = None
    box_photos: Annotated[
        Path | None, typer.Option(help="Folder of the boxes' photos. [default: beside them]")
    ] = None
    coarse_masks: Annotated[
        Path | None,
        typer.Option(help="Folder of coarse masks to begin with, hard or soft (coarse_to_fine)."),
    ] = None

    def values(self, recipe: Recipe) -> dict[str, str]:
        """The fields and their files; absolute, to be found again."""
        values = {}
        for name, (taken, field) in _EVIDENCE.items():
            path: Path | None = getattr(self, name)
            if path is not None:
                _check_taken(recipe, taken, f"--{name.replace('_', '-')}")
                known = name == "saliency_model" and not path.exists()  # one of rembg's, by name
                values[field] = str(path if known else path.absolute())
        if self.saliency is not None and self.coarse_masks is not None:
            raise ConfigError(
                "--coarse-masks and --saliency mean the same", do="leave one of them out"
            )
        return values


_EVIDENCE = {
    "saliency": ("saliency", "saliency_maps"),
    "saliency_model": ("saliency_model", "saliency_model"),
    "boxes": ("boxes", "boxes"),
    "box_photos": ("boxes", "box_photos"),
    "coarse_masks": ("coarse_masks", "saliency_maps"),
}  # flag -> what a recipe takes, and the field


def _check_taken(recipe: Recipe, what: str, flag: str) -> None:
    """Raise ConfigError, which names the recipes that take such files, if this one does not."""
    from tagseg.recipes.catalog import RECIPES

    if what not in recipe.takes:
        *others, last = (other.name for other in RECIPES.values() if what in other.takes)
        known = f"{', '.join(others)} or {last}" if others else last
        raise ConfigError(f"recipe {recipe.name} takes no {flag}", do=f"use {known}")


@dataclass(frozen=True)
class ComputingFlags:
    """How to compute a run."""

    backbone: Annotated[
        str | None,
        typer.Option(
            help="efficientnet_lite0 to 2, mobilenet_v2, vgg16, resnet50, resnet101 or tiny. "
            "[default: efficientnet_lite0, or a preset's]"
        ),
    ] = None
    weights: Annotated[str, typer.Option(help="imagenet, none, a path or a URL.")] = "imagenet"
    device: DeviceFlag = "auto"
    precision: PrecisionFlag = Precision.auto
    seed: Seed = 0
    workers: Annotated[
        str,
        typer.Option(help="Processes that load photos; 0: none beside the main; auto: as needed."),
    ] = "auto"
    threads: Threads = None
    engine: Annotated[
        EngineName,
        typer.Option("--engine", help="Who works on photos: this process, or a Ray cluster."),
    ] = EngineName.local
    masks_in: MasksInFlag = MasksInName.auto
    compiles: Annotated[
        bool,
        typer.Option(
            "--compile/--no-compile", help="Compile networks for training (docs/engines.md)."
        ),
    ] = False

    def options(self, allow_skipped: float, preset: str | None) -> Options:
        """The same, as :func:`tagseg.train` has it."""
        from tagseg.session.train import Options

        return Options(
            self.backbone,
            self.weights,
            self.device,
            self.precision.value,
            self.seed,
            self._loaders(),
            self.threads,
            allow_skipped,
            self.engine.value,
            preset,
            self.masks_in.value,
            self.compiles,
        )

    def _loaders(self) -> int | None:
        """Processes that load photos, None for auto; ConfigError if it is no number."""
        if self.workers == "auto":
            return None
        try:
            return int(self.workers)
        except ValueError:
            raise ConfigError(f"workers is {self.workers}", do="use auto, or 0 to 256") from None


@dataclass(frozen=True)
class MachineFlags:
    """How to compute with one small network."""

    device: DeviceFlag = "auto"
    precision: PrecisionFlag = Precision.auto
    seed: Seed = 0
    threads: Threads = None

    def options(self) -> Options:
        """The same, checked."""
        from tagseg.session.train import Options

        return Options(
            device=self.device,
            precision=self.precision.value,
            seed=self.seed,
            threads=self.threads,
        )


@dataclass(frozen=True)
class MaskFlags:
    """What masks for another tool are to be like."""

    photos: Annotated[Path | None, typer.Option(help="Folder of the masks' photos.")] = None
    classes: Annotated[
        Path | None,
        typer.Option(help="Class names of a folder of masks. [default: the list that lies there]"),
    ] = None
    photos_by: Annotated[
        PhotosBy | None, typer.Option(help="Copy photos, link or only name them: docs/export.md.")
    ] = None
    shapes: Annotated[
        Shapes | None, typer.Option(help="Write regions as masks or polygons. [default: by format]")
    ] = None
    per: Annotated[
        Per | None,
        typer.Option(help="One annotation a connected region or a class. [default: by format]"),
    ] = None

    def given(self) -> list[str]:
        """The flags that are given."""
        names = (item.name for item in fields(self) if getattr(self, item.name) is not None)
        return [f"--{name.replace('_', '-')}" for name in names]

    def wishes(self, to: ExportTo) -> ExportWishes:
        """The same, as :func:`tagseg.session.export_masks.export_masks` has it."""
        from tagseg.session.export_masks import ExportWishes

        chosen: Any = [wish and wish.value for wish in (self.photos_by, self.shapes, self.per)]
        return ExportWishes(to.value, *chosen)


@dataclass(frozen=True)
class ForestFlags:
    """The numbers of a saliency forest."""

    trees: Annotated[int, typer.Option(help="Trees of the forest.")] = 200
    max_leaves: Annotated[
        int | None,
        typer.Option(help="Most leaves of a tree, for a small file. [default: no limit]"),
    ] = None
    max_photos: Annotated[
        int | None, typer.Option(help="Most photos to use, drawn. [default: all with a mask]")
    ] = None
    void: Annotated[
        int | None, typer.Option(help="Mask value of unknown pixels; 255 in VOC's masks.")
    ] = None
    salient_from: Annotated[
        int, typer.Option(help="Least mask value that is salient; 128 for soft grey masks.")
    ] = 1


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer is to see it: in the place of each group its flags, by keyword."""
    parameters = [*_flattened(command)]

    @wraps(command)
    def called(**given: Any) -> None:
        command(**_built(command, given))

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called


def _flattened(what: Any) -> Iterator[inspect.Parameter]:
    """Parameters of a command or a group, without groups."""
    kinds = get_type_hints(what, include_extras=True)
    for name, each in inspect.signature(what).parameters.items():
        if is_dataclass(kinds[name]):
            yield from _flattened(kinds[name])
        else:
            yield each.replace(annotation=kinds[name], kind=inspect.Parameter.KEYWORD_ONLY)


def _built(what: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a command or a group, from the values of all flags."""
    kinds = get_type_hints(what)
    return {
        name: kinds[name](**_built(kinds[name], given))
        if is_dataclass(kinds[name])
        else given[name]
        for name in inspect.signature(what).parameters
    }
