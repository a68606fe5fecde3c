"""The command line: ``tagseg VERB``. Thin; torch is imported inside a command only."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tagseg.errors import ConfigError, RankError, TagsegError, printable
from tagseg.ranks.alone import ALONE, Ranks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tagseg.data.scenes import SceneKind
    from tagseg.evaluate.masks import MaskScores
    from tagseg.formats.loading import Reading
    from tagseg.formats.masks.ground_truth import GroundTruth, MaskRules
    from tagseg.run.progress import Progress
    from tagseg.session.inputs import Loaded, Source, Target
    from tagseg.session.reviewing import ReviewSource
    from tagseg.session.train import Caller, Options
    from tagseg.stages.preset import Preset, Said
    from tagseg.stages.recipe import Recipe

__all__ = ["app", "main"]

app = typer.Typer(
    help="Pixel-level segmentation learned from image-level tags.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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


_STOPPED = 130  # exit status, by the shell's custom: 128 and the number of the signal, SIGINT

_PROCESSES = "--processes"
_AFTER_STOP = {
    "train": "the same command continues",
    "tables": "the same command continues",
    "demo": "the same command continues",
    "predict": "the masks so far are whole; the same command makes all of them again",
    "train-saliency": "nothing was written; the same command begins again",
    "train-student": "nothing was written; the same command begins again",
    "tag": "every tag is on disk; the same command goes on",
    "review": "every act is on disk; the same command goes on",
}

_SALIENCY_FIELDS = {"boxes", "saliency", "saliency_maps"}

# Typer carries its own click or uses the installed one; both derive BadParameter from UsageError.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]

Photos = Annotated[Path, typer.Argument(help="Folder of photos, in any of the known layouts.")]
Tags = Annotated[
    Path | None,
    typer.Option(help="Tag file (CSV, JSON, XML) or annotations. [default: what the folder holds]"),
]
TagSeparator = Annotated[
    str | None,
    typer.Option(
        help="What stands between tags in a cell: ';', ',', 'space'. [default: by content]"
    ),
]
ClassList = Annotated[Path | None, typer.Option(help="Class names, one a line, in label order.")]
Untagged = Annotated[
    UntaggedPhotos | None, typer.Option(help="What photos without tags are; needed if any exist.")
]
BelievedTags = Annotated[
    TagsAre | None,
    typer.Option(
        "--tags-are",
        help="incomplete: what is not tagged may be there; noisy: tags may be wrong either way. "
        "[default: complete]",
    ),
]
Layout = Annotated[LayoutName, typer.Option(help="Layout of the folder.")]
Synsets = Annotated[
    Path | None,
    typer.Option(help="Synset and class, one pair a line, for ImageNet's folders of synsets."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        help="Pictures that are no photos, such as '*_mask.png' or a folder's name; '!...' keeps "
        "what looks like masks. May be repeated."
    ),
]
FramesPerClass = Annotated[
    int | None,
    typer.Option(
        help="Of YouTube-Objects: training frames of a class, spread evenly; 0 for all. "
        "[default: 2200, Saleh et al. 4.1]",
        min=0,
    ),
]
TargetPhotos = Annotated[
    Path | None,
    typer.Option("--target", help="Folder of another data set, to score; never trained on."),
]
TargetTags = Annotated[
    Path | None, typer.Option(help="Tag file of --target. [default: what it holds, or none]")
]
TargetLayout = Annotated[LayoutName, typer.Option(help="Layout of --target.")]
TargetTruth = Annotated[
    Path | None, typer.Option(help="Ground truth of --target's photos: masks, or COCO's instances.")
]
TrainList = Annotated[
    str | None,
    typer.Option(
        "--train", help="List of training photos. [default: all but --val, or the folder train]"
    ),
]
ValList = Annotated[
    str | None,
    typer.Option("--val", help="List of photos to score, never trained on; of --target, if given."),
]
Truth = Annotated[
    Path | None,
    typer.Option(help="Folder of ground-truth masks, or COCO's instances; for evaluation only."),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="efficientnet_lite0 to 2, mobilenet_v2, vgg16, resnet50, resnet101 or tiny. "
        "[default: efficientnet_lite0, or a preset's]"
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
MasksAsFlag = Annotated[
    MasksAs,
    typer.Option("--masks-as", help="What masks of photos that EXIF turns are drawn on."),
]
Weights = Annotated[str, typer.Option(help="imagenet, none, a path or a URL.")]
DeviceFlag = Annotated[
    str, typer.Option("--device", help="Where to compute: auto, cpu, cuda, cuda:1, mps and others.")
]
EngineFlag = Annotated[
    EngineName,
    typer.Option("--engine", help="Who works on photos: this process, or a Ray cluster."),
]
PrecisionFlag = Annotated[Precision, typer.Option("--precision", help="Arithmetic.")]
Seed = Annotated[int, typer.Option(help="Of all random draws.")]
Workers = Annotated[int, typer.Option(help="Processes that load photos; 0: none beside the main.")]
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
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="field=value of the recipe; may be repeated.")
]


@app.command()
def train(
    photos: Photos,
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    tags: Tags = None,
    tag_separator: TagSeparator = None,
    recipe: Annotated[str, typer.Option(help="See tagseg recipes.")] = "union",
    classes: ClassList = None,
    untagged: Untagged = None,
    tags_are: BelievedTags = None,
    layout: Layout = LayoutName.auto,
    synsets: Synsets = None,
    exclude: Exclude = None,
    frames_per_class: FramesPerClass = None,
    train_list: TrainList = None,
    val: ValList = None,
    ground_truth: Truth = None,
    target: TargetPhotos = None,
    target_tags: TargetTags = None,
    target_layout: TargetLayout = LayoutName.auto,
    target_ground_truth: TargetTruth = None,
    colours: Colours = None,
    masks_by: MasksByFlag = MasksBy.auto,
    masks_as: MasksAsFlag = MasksAs.auto,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast", help="Fewer iterations and ways, one round: a first look; docs/union.md."
        ),
    ] = False,
    preset: Annotated[
        PresetName | None,
        typer.Option(help="paper: the paper's numbers and backbone; docs/presets.md."),
    ] = None,
    full_supervision: Annotated[
        Path | None, typer.Option(help="Run of full_supervision, to state the percentage of it.")
    ] = None,
    review: Annotated[
        Path | None,
        typer.Option(help="review.jsonl of tagseg review: masks and tags by a person."),
    ] = None,
    review_weight: Annotated[
        int | None,
        typer.Option(help="Times that a photo with an accepted mask is drawn. [default: 1]"),
    ] = None,
    saliency: Annotated[
        Path | None,
        typer.Option(help="Folder of saliency maps made elsewhere (union, guided, mcof)."),
    ] = None,
    saliency_model: Annotated[
        Path | None,
        typer.Option(help="Saliency network, an .onnx file or u2netp and others of rembg."),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(help="Boxes to learn saliency from: .txt, .json, .csv (union, guided, mcof)."),
    ] = None,
    box_photos: Annotated[
        Path | None, typer.Option(help="Folder of the boxes' photos. [default: beside them]")
    ] = None,
    coarse_masks: Annotated[
        Path | None,
        typer.Option(help="Folder of coarse masks to begin with, hard or soft (coarse_to_fine)."),
    ] = None,
    backbone: Backbone = None,
    weights: Weights = "imagenet",
    device: DeviceFlag = "auto",
    precision: PrecisionFlag = Precision.auto,
    seed: Seed = 0,
    workers: Workers = 0,
    threads: Threads = None,
    engine: EngineFlag = EngineName.local,
    processes: Annotated[
        int | None,
        typer.Option(
            _PROCESSES, help="Processes on this machine that share the work; docs/engines.md."
        ),
    ] = None,
    allow_skipped: Skipped = 0.01,
    settings: Settings = None,
) -> None:
    """Train a segmenter from tagged photos; the same command again continues."""
    if processes is not None:
        from tagseg.ranks.launch import launch

        raise typer.Exit(launch(processes, _words()))
    from tagseg.recipes.catalog import find_recipe
    from tagseg.session.settings import find_preset, parse_settings
    from tagseg.session.train import Options

    with _together(device) as ranks:
        chosen = find_recipe(recipe)
        values = parse_settings(chosen.config, settings or [])
        values |= _belief(chosen, tags_are)
        values |= _files(chosen, saliency, saliency_model, boxes, box_photos, coarse_masks)
        quick = _fast(chosen, values) if fast else {}
        if preset is not None:
            find_preset(chosen, preset.value)
        how = (device, precision.value, seed, workers, threads, allow_skipped, engine.value)
        options = Options(backbone, weights, *how)
        source = _source(photos, tags, classes, untagged, layout, synsets, train_list, val)
        reading = _reading(exclude, tag_separator, allow_skipped, frames_per_class)
        source = source._replace(masks=ground_truth, how=reading)
        missing = reading.allow_missing
        other = _target(target, target_tags, target_layout, target_ground_truth, missing)
        loaded, truth = _load(source, other, _rules(colours, masks_by, masks_as))
        if quick:
            _note(f"fast: {', '.join(f'{name}={_plain(value)}' for name, value in quick.items())}")
        values = {**quick, **values}
        reviewed = _review(review, review_weight)
        extras: dict[str, Any] = {"full_supervision": full_supervision, "review": reviewed}
        extras["preset"] = None if preset is None else preset.value
        _train_and_tell(loaded, recipe, values, truth, out, options, extras, ranks)


@app.command()
def check(
    photos: Photos,
    tags: Tags = None,
    tag_separator: TagSeparator = None,
    classes: ClassList = None,
    untagged: Untagged = None,
    layout: Layout = LayoutName.auto,
    synsets: Synsets = None,
    exclude: Exclude = None,
    frames_per_class: FramesPerClass = None,
    train_list: TrainList = None,
    val: ValList = None,
    ground_truth: Truth = None,
    target: TargetPhotos = None,
    target_tags: TargetTags = None,
    target_layout: TargetLayout = LayoutName.auto,
    target_ground_truth: TargetTruth = None,
    colours: Colours = None,
    masks_by: MasksByFlag = MasksBy.auto,
    masks_as: MasksAsFlag = MasksAs.auto,
    allow_skipped: Skipped = 0.01,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at photos, tags and masks before anything long starts."""
    from tagseg.run.files import check_names_fit
    from tagseg.session.train import Options, look_at_masks, look_at_photos

    options = Options(threads=threads, allow_skipped=allow_skipped)
    source = _source(photos, tags, classes, untagged, layout, synsets, train_list, val)
    how = _reading(exclude, tag_separator, allow_skipped, frames_per_class)
    source = source._replace(masks=ground_truth, how=how)
    other = _target(target, target_tags, target_layout, target_ground_truth, how.allow_missing)
    loaded, truth = _load(source, other, _rules(colours, masks_by, masks_as))
    dataset, held_out = loaded.photos, loaded.val
    check_names_fit(dataset.names, photos)
    found = look_at_photos(dataset, held_out, options, _progress())
    masks = None
    if truth is not None:
        masks = look_at_masks(truth, found.dataset, options, _progress())
    if as_json:
        about = found.to_dict() | ({} if masks is None else {"ground_truth": masks.to_dict()})
        _say(json.dumps(about, indent=1, ensure_ascii=not _prints_any_letter()))
    else:
        _say("\n".join([*found.lines(), *(masks.lines() if masks is not None else [])]))
    if masks is not None:
        masks.raise_errors()


@app.command()
def tag(
    photos: Annotated[Path, typer.Argument(help="Folder of photos.")],
    tags: Annotated[
        Path | None, typer.Option(help="Tag file of any form, to begin with what it says.")
    ] = None,
    classes: ClassList = None,
    run: Annotated[
        Path | None, typer.Option(help="Run whose classifier suggests tags and orders photos.")
    ] = None,
    exclude: Exclude = None,
    host: Host = "127.0.0.1",
    port: Port = None,
    browser: OpensBrowser = True,
) -> None:
    """Tag photos on a page in the browser; tags.csv in their folder is what train reads."""
    from tagseg.web.serve import Address, Photos, tag_photos

    what = Photos(photos, tags, classes, tuple(exclude or ()), run)
    tag_photos(what, Address(host, port), browser=browser, say=_say)


@app.command()
def review(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[
        Path | None,
        typer.Option(help="File of what is said. [default: review.jsonl in the run]"),
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(help="Folder of the run's photos. [default: that of its command]"),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = None,
    browser: OpensBrowser = True,
) -> None:
    """Look through a run's masks on a page in the browser; train --review learns from it."""
    from tagseg.web.serve import Address
    from tagseg.web.serve_review import ToReview, review_run

    what = ToReview(run, out, photos)
    review_run(what, Address(host, port), browser=browser, parse=_parsed_train, say=_say)


def _parsed_train(words: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """What the words of a train command give: name -> flag, "" for none, and value."""
    commands: Any = typer.main.get_command(app)
    command = commands.commands["train"]
    try:
        context = command.make_context("train", list(words))
    except _USAGE_ERROR:  # of another version
        return {}
    return {
        each.name: (each.opts[0] if each.opts[0].startswith("-") else "", context.params[each.name])
        for each in command.params
        if context.get_parameter_source(each.name).name == "COMMANDLINE"
    }


@app.command()
def predict(
    run: Annotated[
        Path,
        typer.Argument(help="Run folder, its segmenter.safetensors, or an exported .onnx file."),
    ],
    photos: Annotated[Path, typer.Argument(help="Folder of photos, or one photo.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks, one PNG a photo.")],
    overlays: Annotated[
        Path | None, typer.Option(help="Folder for photos with their mask over them.")
    ] = None,
    crf: Annotated[
        bool, typer.Option(help="Smooth with the dense CRF, if the run has one.")
    ] = True,
    device: DeviceFlag = "auto",
    precision: PrecisionFlag = Precision.auto,
    threads: Threads = None,
) -> None:
    """Segment new photos; no tags are needed."""
    from tagseg.run.engine import set_threads, usable_cores
    from tagseg.session.export import load_segmenter
    from tagseg.session.predict import predict_folder
    from tagseg.session.train import Options

    cores = Options(threads=threads).threads or usable_cores()
    set_threads(cores)
    segmenter = load_segmenter(run, device=device, precision=precision.value)
    done = predict_folder(
        segmenter,
        photos,
        out,
        overlays=overlays,
        refine=crf,
        threads=cores,
        progress=_progress(),
    )
    for _, reason in done.skipped:
        _say(f"skipped: {reason}", err=True)
    _say(f"{len(done.written)} masks in {out}, {len(done.skipped)} photos skipped")


@app.command()
def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|MASKS", help="Folder of a finished run, or of masks.")
    ],
    to: Annotated[ExportTo, typer.Option(help="Format of the masks, or of the segmenter.")],
    out: Annotated[Path, typer.Option(help="Folder of the export; of onnx and torch, the file.")],
    photos: Annotated[Path | None, typer.Option(help="Folder of the masks' photos.")] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help="Class names of a folder of masks. [default: the list that lies there]"),
    ] = None,
    photos_by: Annotated[
        PhotosBy | None, typer.Option(help="Copy photos, link or only name them: docs/export.md.")
    ] = None,
    shapes: Annotated[
        Shapes | None, typer.Option(help="Write regions as masks or polygons. [default: by format]")
    ] = None,
    per: Annotated[
        Per | None,
        typer.Option(help="One annotation a connected region or a class. [default: by format]"),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="A quantised network (onnx).")] = False,
    threads: Threads = None,
) -> None:
    """Write masks for another tool, or the segmenter for another program."""
    given = {
        "--photos": photos,
        "--classes": classes,
        "--photos-by": photos_by,
        "--shapes": shapes,
        "--per": per,
    }
    if to in (ExportTo.onnx, ExportTo.torch):
        _say(_export_model(source, to, out, int8, [k for k, v in given.items() if v is not None]))
        return
    from tagseg.run.engine import set_threads, usable_cores
    from tagseg.session.export_masks import ExportWishes, export_masks
    from tagseg.session.train import Options

    if int8:
        raise ConfigError(f"--int8 does nothing with --to {to.value}", do="leave it out")
    cores = Options(threads=threads).threads or usable_cores()
    set_threads(1)  # photos are mapped over the cores
    chosen: Any = [wish and wish.value for wish in (photos_by, shapes, per)]
    wishes = ExportWishes(to.value, *chosen)
    done = export_masks(
        source,
        out,
        wishes,
        photos=photos,
        classes=classes,
        threads=cores,
        progress=_progress(),
    )
    _say("\n".join(done.lines()))
    _say(f"written: {out}")


def _export_model(run: Path, to: ExportTo, out: Path, int8: bool, idle: list[str]) -> str:
    """Write the segmenter of a run, and give what to say; ConfigError for flags of masks."""
    from tagseg.session.export_model import export_onnx, export_torch

    if idle:
        raise ConfigError(f"{idle[0]} does nothing with --to {to.value}", do="leave it out")
    if to is ExportTo.onnx:
        return export_onnx(run, out, int8=int8)
    if int8:
        raise ConfigError("--int8 does nothing with --to torch", do="leave it out")
    return export_torch(run, out)


@app.command()
def evaluate(
    masks: Annotated[Path, typer.Argument(help="Folder of predicted masks.")],
    ground_truth: Annotated[
        Path, typer.Argument(help="Folder of ground-truth masks, or COCO's instances_*.json.")
    ],
    classes: Annotated[Path, typer.Option(help="Class names, one a line, in label order.")],
    names: Annotated[Path | None, typer.Option("--list", help="Photos to compare.")] = None,
    colours: Colours = None,
    masks_by: MasksByFlag = MasksBy.auto,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave photos without a mask out.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--json", help="All figures. [default: scores.json beside MASKS]")
    ] = None,
) -> None:
    """Compare masks with ground truth: IoU per class, mIoU, confusion."""
    from tagseg.data.finding import find_masks
    from tagseg.evaluate.masks import evaluate_masks
    from tagseg.evaluate.truth_audit import truth_of_masks
    from tagseg.formats.lists.class_lists import read_class_list
    from tagseg.formats.lists.name_lookup import NameLookup
    from tagseg.formats.lists.photo_lists import read_list
    from tagseg.formats.masks.ground_truth import GroundTruth
    from tagseg.run.files import atomic_write, check_file, to_json

    if out is not None:
        check_file(out)
    known = read_class_list(classes)
    rules = _rules(colours, masks_by, MasksAs.auto)
    truth = GroundTruth(ground_truth, known.names, legend=known.legend(), rules=rules)
    listed = None
    if names is not None:
        listed = read_list(names, NameLookup((*truth.names(), *find_masks(masks))))
        for note in listed.notes:
            _note(note)
        if listed.absent:
            number = f"{len(listed.absent)} of {len(listed.names)} listed photos"
            _note(f"{number} have neither mask nor ground truth: {', '.join(listed.absent[:3])}")
    wanted = listed.names if listed is not None else None
    truth, notes = truth_of_masks(truth, masks, wanted)
    for note in (*known.notes, *notes):
        _note(f"note: {note}")
    scores = evaluate_masks(
        masks,
        truth,
        known.names,
        names=wanted,
        allow_missing=allow_missing,
    )
    _print_table(scores)  # first, so that a place that cannot be written does not lose it
    # Beside: the masks may be a finished stage of a run, whose files are under its manifest.
    out = out if out is not None else masks.absolute().parent / "scores.json"
    with atomic_write(out) as file:
        file.write(to_json(scores.to_dict()))
    _say(f"written: {out}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    full_supervision: Annotated[
        Path | None, typer.Option(help="Run of full_supervision, to state the percentage of it.")
    ] = None,
) -> None:
    """Write the report of a finished run again and print its path."""
    from tagseg.session.report import render_report

    _say(str(render_report(run, full_supervision=full_supervision)))


@app.command()
def tables(
    paper: Annotated[str, typer.Argument(help="The paper, by its recipe's name.")],
    photos: Photos,
    run: Annotated[Path, typer.Option(help="Folder of a finished run of that recipe.")],
    tags: Tags = None,
    tag_separator: TagSeparator = None,
    classes: ClassList = None,
    untagged: Untagged = None,
    layout: Layout = LayoutName.auto,
    synsets: Synsets = None,
    exclude: Exclude = None,
    frames_per_class: FramesPerClass = None,
    train_list: TrainList = None,
    val: ValList = None,
    ground_truth: Truth = None,
    target: TargetPhotos = None,
    target_tags: TargetTags = None,
    target_layout: TargetLayout = LayoutName.auto,
    target_ground_truth: TargetTruth = None,
    colours: Colours = None,
    masks_by: MasksByFlag = MasksBy.auto,
    masks_as: MasksAsFlag = MasksAs.auto,
    only: Annotated[
        str | None, typer.Option(help="Some tables, such as 4,6. [default: all of the paper]")
    ] = None,
    device: DeviceFlag = "auto",
    threads: Threads = None,
) -> None:
    """Rerun a paper's ablations on the photos of a run, beside the paper's own figures."""
    from tagseg.tables.making import make_tables

    source = _source(photos, tags, classes, untagged, layout, synsets, train_list, val)
    how = _reading(exclude, tag_separator, 1.0, frames_per_class)
    source = source._replace(masks=ground_truth, how=how)
    other = _target(target, target_tags, target_layout, target_ground_truth, how.allow_missing)
    # How many may be missing was said when the run was made, and is asked when they are checked.
    loaded, truth = _load(source, other, _rules(colours, masks_by, masks_as))
    made = make_tables(
        paper,
        loaded.photos,
        run,
        val=loaded.val,
        ground_truth=truth,
        only=[name.strip() for name in only.split(",")] if only is not None else (),
        device=device,
        threads=threads,
        caller=_caller(),
    )
    for table in made.tables:
        _say(table.markdown())
    _say(f"written: {made.markdown}")


@app.command()
def recipes(
    fields: Annotated[
        str | None, typer.Option("--fields", help="List the fields of this recipe.")
    ] = None,
) -> None:
    """List the recipes and their papers."""
    from tagseg.recipes.catalog import RECIPES, find_recipe

    if fields is None:
        for name, recipe in RECIPES.items():
            _say(f"{name}\n    {recipe.paper}")
        return
    chosen = find_recipe(fields)
    preset = chosen.paper_preset
    for name, value, where, meaning in chosen.sources():
        _say(f"{name} = {_plain(value)}\n    {meaning} ({where})")
        if preset is not None:
            _say(f"    paper: {_paper_says(preset.says(name))}")
    if preset is not None:
        _say(_paper_line(chosen, preset))


def _paper_says(said: Said) -> str:
    """A line on what a preset says of a field."""
    if said.state == "stated":
        return f"{_plain(said.value)} ({said.where})"
    return f"{'open' if said.state == 'open' else '-'}, {said.where}"


def _paper_line(recipe: Recipe, preset: Preset) -> str:
    """A line on the preset as a whole."""
    from tagseg.session.settings import preset_line

    network = preset.backbone
    on = "" if network is None else f"; --backbone {network.value} ({network.section})"
    return f"{preset_line(recipe, 'paper', {})}{on}"


@app.command()
def train_saliency(
    photos: Annotated[Path, typer.Argument(help="Folder of photos.")],
    masks: Annotated[Path, typer.Argument(help="Folder of masks of their salient objects.")],
    out: Annotated[Path, typer.Option(help="File of the forest, .safetensors.")],
    trees: Annotated[int, typer.Option(help="Trees of the forest.")] = 200,
    max_leaves: Annotated[
        int | None,
        typer.Option(help="Most leaves of a tree, for a small file. [default: no limit]"),
    ] = None,
    max_photos: Annotated[
        int | None, typer.Option(help="Most photos to use, drawn. [default: all with a mask]")
    ] = None,
    void: Annotated[
        int | None, typer.Option(help="Mask value of unknown pixels; 255 in VOC's masks.")
    ] = None,
    salient_from: Annotated[
        int, typer.Option(help="Least mask value that is salient; 128 for soft grey masks.")
    ] = 1,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Train a saliency forest from photos and masks of salient objects."""
    from tagseg.run.engine import set_threads, usable_cores
    from tagseg.session.train import Options
    from tagseg.session.train_saliency import MaskMeaning, SaliencyTraining, train_saliency

    cores = Options(threads=threads).threads or usable_cores()
    set_threads(1)  # photos are mapped over the cores
    done = train_saliency(
        photos,
        masks,
        out,
        SaliencyTraining(trees, max_leaves, max_photos, seed=seed),
        meaning=MaskMeaning(void, salient_from),
        threads=cores,
        progress=_progress(),
    )
    _say("\n".join(done.lines()))
    _say(f"written: {out}")


@app.command()
def train_student(
    videos: Annotated[Path, typer.Argument(help="Video file, or folder of videos or of frames.")],
    out: Annotated[Path, typer.Option(help="File of the student, .safetensors.")],
    size: Annotated[
        StudentSize, typer.Option(help="The published network wants a GPU.")
    ] = StudentSize.small,
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder of masks, <shot>/<frame>.png; to score shots held out alone."),
    ] = None,
    fraction: Annotated[
        float, typer.Option(help="Share of the frames, the teacher's best, to train on.")
    ] = 0.15,
    iterations: Annotated[
        int | None, typer.Option(help="Updates of 32 crops. [default: by the size]")
    ] = None,
    max_frames: Annotated[int, typer.Option(help="Most frames to train on.")] = 10_000,
    device: DeviceFlag = "auto",
    precision: PrecisionFlag = Precision.auto,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Train a student, which finds objects in photos, from unlabelled video."""
    from tagseg.run.engine import set_threads, usable_cores
    from tagseg.session.train import Options
    from tagseg.session.train_student import StudentTraining, train_student

    options = Options(device=device, precision=precision.value, seed=seed, threads=threads)
    set_threads(options.threads or usable_cores())
    done = train_student(
        videos,
        out,
        StudentTraining(size.value, fraction, iterations, max_frames, options.seed),
        masks=masks,
        device=options.device,
        precision=options.precision,
        progress=_progress(),
    )
    _say("\n".join(done.lines()))
    _say(f"written: {out}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for scenes and run.")] = Path("runs/demo"),
    train_photos: Annotated[
        int | None, typer.Option("--train", help="Scenes to train on: 2,000; of union, 500.")
    ] = None,
    val_photos: Annotated[
        int | None, typer.Option("--val", help="Scenes to score: 300; of union, 100.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="See tagseg recipes.")] = "union",
    seed: Seed = 0,
    settings: Settings = None,
) -> None:
    """Generate scenes and learn to segment them from their tags alone."""
    from tagseg.data.scenes import SINGLE
    from tagseg.recipes.catalog import find_recipe
    from tagseg.session.inputs import Source, Target, ground_truth_of, load_photos
    from tagseg.session.settings import laid_under, parse_settings
    from tagseg.session.train import Options

    chosen = find_recipe(recipe)
    given, wants = parse_settings(chosen.config, settings or []), chosen.demo
    usual = laid_under(chosen.config, wants.settings, given)
    values = {**usual, **given}
    options = Options(backbone="tiny", seed=seed)
    usual_train, usual_val = wants.scenes
    train_photos = usual_train if train_photos is None else train_photos
    val_photos = usual_val if val_photos is None else val_photos
    if min(train_photos, val_photos) < 1:
        raise ConfigError(f"{train_photos} + {val_photos} scenes are too few", do="ask for more")
    progress = _progress()
    scenes = out / f"scenes-{train_photos}-{val_photos}"
    _write_demo(scenes, progress, train=train_photos, val=val_photos)
    source, target = Source(scenes, untagged="negative", val="val"), None
    if wants.boxes and not _SALIENCY_FIELDS & values.keys():
        values["boxes"] = str(_demo_boxes(out, train_photos, progress))
    if wants.one_tag:  # of another data set than the photos to be scored
        single = out / f"single-{train_photos}"
        _write_demo(single, progress, train=train_photos, val=0, kind=SINGLE)
        source = source._replace(folder=single)
        target = Target(scenes, masks=scenes / "SegmentationClass")
    loaded = load_photos(source, target)
    truth = ground_truth_of(
        loaded, source.folder / "SegmentationClass", scenes / "SegmentationClass"
    )
    run = out / recipe
    _train_and_tell(loaded, recipe, values, truth, run, options)
    if usual and wants.note:
        _say(f"note: {wants.note}")
    follow = ["tagseg", "predict", run, scenes / "JPEGImages", "--out", out / "masks"]
    follow += ["--overlays", out / "overlays"]
    _say(f"next: {shlex.join(map(str, follow))}")


def _write_demo(
    folder: Path, progress: Progress, *, train: int, val: int, kind: SceneKind | None = None
) -> None:
    """Generated scenes, unless they are there."""
    from tagseg.data.scenes import SCENES, write_scenes

    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with progress.task("generating scenes", train + val) as ticks:
        chosen = kind if kind is not None else SCENES
        write_scenes(folder, train=train, val=val, kind=chosen, advance=ticks.advance)


def _demo_boxes(out: Path, train_photos: int, progress: Progress) -> Path:
    """Boxes of generated pictures of other classes, as many as there are scenes."""
    from tagseg.data.scenes import write_box_scenes

    folder = out.absolute() / f"boxes-{train_photos}"
    if not folder.exists():
        with progress.task("generating boxed pictures", train_photos) as ticks:
            write_box_scenes(folder, count=train_photos, advance=ticks.advance)
    return folder / "boxes.csv"


def main() -> None:
    """Run the command line; errors are one line, and the exit status is 2."""
    from tagseg.console import cache_folders, in_utf8, leave, survive_odd_letters
    from tagseg.stopping import ended_by_signals

    in_utf8()
    survive_odd_letters()
    cache_folders()
    command = typer.main.get_command(app)
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    with ended_by_signals() as signals:
        try:
            status = command.main(standalone_mode=False) or 0  # Typer answers Ctrl-C with 130
        except (typer.Abort, KeyboardInterrupt):
            status = _STOPPED
        except Exception as error:  # what a signal cuts short may end in any error
            by_signal = signals and not isinstance(error, RankError)
            status = _STOPPED if by_signal else _told(error)
    if status == _STOPPED:
        _say(_stopped(sys.argv[1:]), err=True)
        if signals:
            leave(128 + signals[0])
    sys.exit(status)


def _told(error: Exception) -> int:
    """Say an error on purpose in one line, and give the exit status; others are raised."""
    if isinstance(error, TagsegError):
        line = str(error)
    elif isinstance(error, _USAGE_ERROR):
        line = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    else:
        raise error
    _say(f"tagseg: error: {line}", err=True)
    return 2


def _stopped(words: list[str]) -> str:
    """What to say when a command was stopped."""
    verb = next((word for word in words if not word.startswith("-")), "")
    return f"stopped; {_AFTER_STOP.get(verb, 'nothing was written')}"


def _progress() -> Progress:
    from rich.console import Console

    from tagseg.run.progress import Progress

    return Progress(Console(stderr=True))


def _caller(ranks: Ranks = ALONE) -> Caller:
    from tagseg.session.recorded import files_of
    from tagseg.session.train import Caller

    verb, words = sys.argv[1:2], sys.argv[2:]
    files = files_of(_parsed_train(words)) if verb == ["train"] else {}
    return Caller(_progress(), _command(), files, ranks)


@contextmanager
def _together(device: str) -> Iterator[Ranks]:
    """The processes that share the run: those of the environment, or this one."""
    from tagseg.ranks.group import together
    from tagseg.ranks.launch import place_in_environment
    from tagseg.run.engine import choose_device

    place = place_in_environment()
    chosen = choose_device(device, None if place is None else place.here)
    with together(chosen) as ranks:
        yield ranks


def _words() -> list[str]:
    """What was typed, but for the number of processes, which nothing depends on."""
    words, kept = iter(sys.argv[1:]), []
    for word in words:
        if word == _PROCESSES:
            next(words, None)
        elif not word.startswith(f"{_PROCESSES}="):
            kept.append(word)
    return kept


def _source(
    folder: Path,
    tags: Path | None,
    classes: Path | None,
    untagged: UntaggedPhotos | None,
    layout: LayoutName,
    synsets: Path | None,
    train_list: str | None,
    val: str | None,
) -> Source:
    from tagseg.session.inputs import Source

    meaning: Any = untagged.value if untagged is not None else None
    kind: Any = layout.value
    return Source(folder, tags, classes, meaning, kind, synsets, train_list, val)


def _reading(
    exclude: list[str] | None,
    tag_separator: str | None,
    allow_missing: float,
    frames_per_class: int | None,
) -> Reading:
    from tagseg.formats.loading import Reading

    kept = tuple(exclude or ())
    return Reading(kept, tag_separator, allow_missing, frames_per_class=frames_per_class)


def _target(
    folder: Path | None,
    tags: Path | None,
    layout: LayoutName,
    ground_truth: Path | None,
    allow_missing: float,
) -> Target | None:
    from tagseg.session.inputs import Target

    if folder is not None:
        return Target(folder, tags, layout.value, ground_truth, allow_missing)
    given = {
        "tags": tags is not None,
        "layout": layout is not LayoutName.auto,
        "ground-truth": ground_truth is not None,
    }
    for flag, is_given in given.items():
        if is_given:
            raise ConfigError(f"--target-{flag} is given without --target", do="give --target DIR")
    return None


def _load(
    source: Source, target: Target | None, rules: MaskRules
) -> tuple[Loaded, GroundTruth | None]:
    """Photos and the ground truth that was given with them; it is said how they are understood."""
    from tagseg.session.inputs import ground_truth_of, load_photos

    loaded = load_photos(source, target, say=_note)
    of_target = target.masks if target is not None else None
    return loaded, ground_truth_of(loaded, source.masks, of_target, rules)


def _rules(colours: Path | None, masks_by: MasksBy, masks_as: MasksAs) -> MaskRules:
    from tagseg.formats.masks.ground_truth import MaskRules

    lie_on: Any = None if masks_as is MasksAs.auto else masks_as.value
    by: Any = masks_by.value
    return MaskRules(colours, by, lie_on)


def _files(
    recipe: Recipe,
    saliency: Path | None,
    saliency_model: Path | None,
    boxes: Path | None,
    box_photos: Path | None,
    coarse_masks: Path | None,
) -> dict[str, str]:
    """Fields of a Config that name files, from flags of their own; absolute, to be found again."""
    given = {
        "saliency": ("--saliency", "saliency_maps", saliency),
        "saliency_model": ("--saliency-model", "saliency_model", saliency_model),
        "boxes": ("--boxes", "boxes", boxes),
        "box_photos": ("--box-photos", "box_photos", box_photos),
        "coarse_masks": ("--coarse-masks", "saliency_maps", coarse_masks),
    }
    values = {}
    for name, (flag, field, path) in given.items():
        if path is not None:
            _check_taken(recipe, "boxes" if name == "box_photos" else name, flag)
            known = name == "saliency_model" and not path.exists()  # one of rembg's, by name
            values[field] = str(path if known else path.absolute())
    if saliency is not None and coarse_masks is not None:
        raise ConfigError("--coarse-masks and --saliency mean the same", do="leave one of them out")
    return values


def _belief(recipe: Recipe, tags_are: TagsAre | None) -> dict[str, str]:
    """The field for how far tags are believed, of a recipe that learns from tags."""
    if tags_are is None:
        return {}
    if not recipe.config.named("tags_are"):
        raise ConfigError(
            f"--tags-are says nothing to recipe {recipe.name}, which does not learn from tags",
            do="leave it out",
        )
    return {"tags_are": tags_are.value}


def _fast(recipe: Recipe, given: dict[str, Any]) -> dict[str, Any]:
    """The values of --fast for fields that are not given."""
    from tagseg.session.settings import laid_under

    if not recipe.fast:
        raise ConfigError(f"recipe {recipe.name} has no fast form", do="leave --fast out")
    return laid_under(recipe.config, recipe.fast, given)


def _check_taken(recipe: Recipe, what: str, flag: str) -> None:
    """Raise ConfigError, which names the recipes that take such files, if this one does not."""
    from tagseg.recipes.catalog import RECIPES

    if what not in recipe.takes:
        *others, last = (other.name for other in RECIPES.values() if what in other.takes)
        known = f"{', '.join(others)} or {last}" if others else last
        raise ConfigError(f"recipe {recipe.name} takes no {flag}", do=f"use {known}")


def _review(file: Path | None, weight: int | None) -> ReviewSource | None:
    """A person's review, and how much its masks count."""
    from tagseg.session.reviewing import ReviewSource
    from tagseg.stages.review import ReviewSettings

    if file is None:
        if weight is not None:
            raise ConfigError("--review-weight counts masks of a review", do="give --review FILE")
        return None
    return ReviewSource(file) if weight is None else ReviewSource(file, ReviewSettings(weight))


def _train_and_tell(
    loaded: Loaded,
    recipe: str,
    values: dict[str, Any],
    truth: GroundTruth | None,
    out: Path,
    options: Options,
    extras: Mapping[str, Any] = MappingProxyType({}),
    ranks: Ranks = ALONE,
) -> None:
    """Train, then print what was found and where it is; ``extras`` are of :func:`tagseg.train`."""
    from tagseg.session.train import train as train_recipe

    result = train_recipe(
        loaded.photos,
        recipe,
        values,
        val=loaded.val,
        ground_truth=truth,
        out=out,
        options=options,
        caller=_caller(ranks),
        **extras,
    )
    for warning in result.audit.warnings:
        _say(f"note: {warning}")
    for score in result.scores:
        note = f" ({score.note})" if score.note else ""
        miou = "-" if score.miou is None else f"{100 * score.miou:5.1f}"
        average = score.foreground_average
        of_any = "" if average is None else f", foreground IoU {100 * average:.1f}"
        stage = f"{score.stage}{note}, {score.photos} photos{of_any}"
        _say(f"mIoU {miou}  {score.split:5s}  {stage}")
    for seeds in result.seeds:
        parts = [seeds.mean_precision, seeds.foreground_precision, seeds.background_precision]
        mean, foreground, background = (_percent(part) for part in parts)
        _say(
            f"mP   {mean:>5s}  {seeds.split:5s}  {seeds.method} (precision of foreground at 20 % "
            f"recall {foreground}, of background at 80 % {background})"
        )
    if not result.scores:
        _say("quality was not measured: no ground truth was given")
    _say(f"masks:  {result.masks}")
    _say(f"report: {result.report}")


def _command() -> str:
    """The command as it was typed, for reports: without the folders that absolute paths lie in."""
    from tagseg.data.text import readable, without_folders

    return f"tagseg {shlex.join(readable(without_folders(word)) for word in _words())}"


def _print_table(scores: MaskScores) -> None:
    _say(f"{'class':20s} {'IoU':>6s} {'accuracy':>9s} {'pixels':>12s}")
    for row in scores.table():
        iou, accuracy = (_percent(row[key]) for key in ("iou", "accuracy"))
        _say(f"{row['class']:20s} {iou:>6s} {accuracy:>9s} {row['truth_pixels']:12d}")
    _say(f"{'mIoU':20s} {_percent(scores.miou):>6s}   over {len(scores.photos)} photos")
    if scores.missing:
        _say(f"{len(scores.missing)} photos without a mask were left out")


def _say(line: str, *, err: bool = False) -> None:
    """Print a line; names of files in it cannot steer the terminal."""
    typer.echo(printable(line), err=err)


def _note(line: str) -> None:
    _say(line, err=True)


def _prints_any_letter() -> bool:
    """Whether the console takes all of Unicode; otherwise JSON must have escapes of its own."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "").startswith("utf")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()


def _version(value: bool) -> None:
    if value:
        import tagseg

        _say(f"tagseg {tagseg.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Pixel-level segmentation learned from image-level tags."""
