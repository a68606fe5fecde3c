"""The command line: ``tagseg VERB``. Thin; torch is imported inside a command only."""

from __future__ import annotations

import errno
import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tagseg.errors import ConfigError, RankError, TagsegError, printable
from tagseg.flags import (
    ClassList,
    Colours,
    ComputingFlags,
    DataFlags,
    DeviceFlag,
    EvidenceFlags,
    Exclude,
    ExportTo,
    ForestFlags,
    FullSupervision,
    Host,
    LearningFlags,
    MachineFlags,
    MaskFlags,
    MaskMarks,
    MasksBy,
    MasksByFlag,
    MasksInFlag,
    MasksInName,
    OpensBrowser,
    Port,
    Precision,
    PrecisionFlag,
    RecipeName,
    Seed,
    SettingWords,
    Skipped,
    StudentSize,
    Threads,
    grouped,
)
from tagseg.ranks.alone import ALONE, Ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tagseg.data.scenes import SceneKind
    from tagseg.evaluate.masks import MaskScores
    from tagseg.formats.masks.ground_truth import GroundTruth
    from tagseg.run.progress import Progress
    from tagseg.session.inputs import Loaded
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


_OF_THE_MACHINE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "end other programs",
    errno.ENOMEM: "end other programs",
    errno.EIO: "check the disk",
    errno.EROFS: "see that the disk can be written to",
}  # errors that come from anywhere, and what to do
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


@app.command()
@grouped
def train(
    *,
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    recipe: RecipeName = "union",
    data: DataFlags,
    learning: LearningFlags,
    evidence: EvidenceFlags,
    computing: ComputingFlags,
    processes: Annotated[
        int | None,
        typer.Option(
            _PROCESSES, help="Processes on this machine that share the work; docs/engines.md."
        ),
    ] = None,
    allow_skipped: Skipped = 0.01,
    settings: SettingWords = None,
) -> None:
    """Train a segmenter from tagged photos; the same command again continues."""
    if processes is not None:
        from tagseg.ranks.launch import launch

        raise typer.Exit(launch(processes, _words()))
    from tagseg.recipes.catalog import find_recipe
    from tagseg.session.settings import parse_settings

    with _together(computing.device) as ranks:
        chosen = find_recipe(recipe)
        values = parse_settings(chosen.config, settings or [])
        values |= {**learning.belief(chosen), **evidence.values(chosen)}
        quick = learning.quick(chosen, values)
        options = computing.options(allow_skipped, learning.named_preset(chosen))
        loaded, truth = data.load(allow_skipped, _note)
        if quick:
            _note(f"fast: {', '.join(f'{name}={_plain(value)}' for name, value in quick.items())}")
        caller = replace(_caller(ranks), full_supervision=learning.full_supervision)
        values, review = {**quick, **values}, learning.reviewed()
        _train_and_tell(recipe, values, out, options, caller, loaded, truth, review)


@app.command()
@grouped
def check(
    data: DataFlags,
    allow_skipped: Skipped = 0.01,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at photos, tags and masks before anything long starts."""
    from tagseg.run.files import check_names_fit
    from tagseg.session.train import Options, look_at_masks, look_at_photos

    options = Options(threads=threads, allow_skipped=allow_skipped)
    loaded, truth = data.load(allow_skipped, _note)
    dataset, held_out = loaded.photos, loaded.val
    check_names_fit(dataset.names, data.photos)
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
    masks_in: MasksInFlag = MasksInName.auto,
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
        masks_in=masks_in.value,
        threads=cores,
        progress=_progress(),
    )
    for _, reason in done.skipped:
        _say(f"skipped: {reason}", err=True)
    tars = f", {done.tars} tars" if done.tars else ""
    _say(f"{len(done.written)} masks in {out}{tars}, {len(done.skipped)} photos skipped")


@app.command()
@grouped
def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|MASKS", help="Folder of a finished run, or of masks.")
    ],
    to: Annotated[ExportTo, typer.Option(help="Format of the masks, or of the segmenter.")],
    out: Annotated[Path, typer.Option(help="Folder of the export; of onnx and torch, the file.")],
    masks: MaskFlags,
    int8: Annotated[bool, typer.Option("--int8", help="A quantised network (onnx).")] = False,
    threads: Threads = None,
) -> None:
    """Write masks for another tool, or the segmenter for another program."""
    if to in (ExportTo.onnx, ExportTo.torch):
        _say(_export_model(source, to, out, int8, masks.given()))
        return
    from tagseg.run.engine import set_threads, usable_cores
    from tagseg.session.export_masks import export_masks
    from tagseg.session.train import Options

    if int8:
        raise ConfigError(f"--int8 does nothing with --to {to.value}", do="leave it out")
    cores = Options(threads=threads).threads or usable_cores()
    set_threads(1)  # photos are mapped over the cores
    done = export_masks(
        source,
        out,
        masks.wishes(to),
        photos=masks.photos,
        classes=masks.classes,
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
    rules = MaskMarks(colours, masks_by).rules()
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
    full_supervision: FullSupervision = None,
) -> None:
    """Write the report of a finished run again and print its path."""
    from tagseg.session.report import render_report

    _say(str(render_report(run, full_supervision=full_supervision)))


@app.command()
@grouped
def tables(
    paper: Annotated[str, typer.Argument(help="The paper, by its recipe's name.")],
    run: Annotated[Path, typer.Option(help="Folder of a finished run of that recipe.")],
    data: DataFlags,
    only: Annotated[
        str | None, typer.Option(help="Some tables, such as 4,6. [default: all of the paper]")
    ] = None,
    device: DeviceFlag = "auto",
    threads: Threads = None,
) -> None:
    """Rerun a paper's ablations on the photos of a run, beside the paper's own figures."""
    from tagseg.tables.making import make_tables

    # How many may be missing was said when the run was made, and is asked when they are checked.
    loaded, truth = data.load(1.0, _note)
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
@grouped
def train_saliency(
    photos: Annotated[Path, typer.Argument(help="Folder of photos.")],
    masks: Annotated[Path, typer.Argument(help="Folder of masks of their salient objects.")],
    out: Annotated[Path, typer.Option(help="File of the forest, .safetensors.")],
    forest: ForestFlags,
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
        SaliencyTraining(forest.trees, forest.max_leaves, forest.max_photos, seed=seed),
        meaning=MaskMeaning(forest.void, forest.salient_from),
        threads=cores,
        progress=_progress(),
    )
    _say("\n".join(done.lines()))
    _say(f"written: {out}")


@app.command()
@grouped
def train_student(
    videos: Annotated[Path, typer.Argument(help="Video file, or folder of videos or of frames.")],
    out: Annotated[Path, typer.Option(help="File of the student, .safetensors.")],
    *,
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
    machine: MachineFlags,
) -> None:
    """Train a student, which finds objects in photos, from unlabelled video."""
    from tagseg.run.engine import set_threads, usable_cores
    from tagseg.session.train_student import StudentTraining, train_student

    options = machine.options()
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
    recipe: RecipeName = "union",
    seed: Seed = 0,
    settings: SettingWords = None,
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
    _train_and_tell(recipe, values, run, options, _caller(), loaded, truth)
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
    elif isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        line = _of_the_machine(error)
    else:
        raise error
    _say(f"tagseg: error: {line}", err=True)
    return 2


def _of_the_machine(error: OSError) -> str:
    """What a disk or a limit has refused, wherever it was: no error of the program's."""
    where = f"{error.filename}: " if error.filename else ""
    do = _OF_THE_MACHINE[error.errno or 0]
    return f"{where}{error.strerror}; {do}, and give the same command again"


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


def _train_and_tell(
    recipe: str,
    values: dict[str, Any],
    out: Path,
    options: Options,
    caller: Caller,
    loaded: Loaded,
    truth: GroundTruth | None,
    review: ReviewSource | None = None,
) -> None:
    """Train, then print what was found and where it is."""
    from tagseg.run.mask_files import tars_in
    from tagseg.session.train import train as train_recipe

    result = train_recipe(
        loaded.photos,
        recipe,
        values,
        val=loaded.val,
        ground_truth=truth,
        out=out,
        options=options,
        review=review,
        caller=caller,
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
    tars = len(tars_in(result.masks))
    _say(f"masks:  {result.masks}{f', {tars} tars' if tars else ''}")
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
