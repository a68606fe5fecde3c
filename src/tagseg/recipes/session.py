"""One run from data to report: what ``tagseg train`` and :func:`tagseg.train` do."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError, safe_open

import tagseg
from tagseg.data.audit import Audit, audit
from tagseg.data.dataset import Dataset
from tagseg.data.ground_truth import GroundTruth
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError, DataError, MaskError, WeightsError, WorkspaceError
from tagseg.nets.catalog import build_backbone
from tagseg.nets.weights import resolve
from tagseg.recipes import full_supervision as full_supervision_recipe
from tagseg.recipes.base import Outcome, Run, Setup, TrainingConfig, where_from
from tagseg.recipes.catalog import find_recipe
from tagseg.recipes.scoring import Findings, examine, key_of_truth
from tagseg.recipes.settings import check_settings
from tagseg.recipes.stages import crf_parameters, crf_refinement
from tagseg.refine.dense_crf import CrfParameters
from tagseg.report.page import ConfigRow, RunReport, StageScore, render
from tagseg.run.engine import choose_device, choose_precision, set_threads, usable_cores
from tagseg.run.files import read_json
from tagseg.run.progress import Progress
from tagseg.run.workspace import Stage, Workspace, atomic_write
from tagseg.segment.model_file import pack_segmenter, unpack_segmenter
from tagseg.segment.predict import Refine, Segmenter
from tagseg.training import Execution

__all__ = ["Options", "Result", "load_segmenter", "render_report", "train"]

_MODEL = "segmenter"
_REPORT = "report.html"
_ABOUT = "run.json"
_ABOUT_FIELDS = {"recipe", "val", "paper", "classes", "photos", "command", "created"} | {
    "settings",
    "config",
    "audit",
    "stages",
    "curves",
}
_NO_VAL = "no validation photos"
_SEEDS = 1 << 63  # what PyTorch takes


@dataclass(frozen=True)
class Options:
    """How to compute; see ``tagseg train --help``.

    Attributes:
        backbone: "vgg16", "mobilenet_v2" or "tiny".
        weights: "imagenet", "none", a path or a URL.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "fp32" or "bf16".
        workers: processes that load photos; 0 loads them in the training process.
        threads: for arithmetic and for refining photos; None for all cores.
        allow_skipped: part of the photos that may be unreadable.
    """

    backbone: str = "mobilenet_v2"
    weights: str = "imagenet"
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0
    workers: int = 0
    threads: int | None = None
    allow_skipped: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.seed < _SEEDS:
            raise ConfigError(f"seed is {self.seed}", do=f"use 0 to {_SEEDS - 1}")
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}", do="use 0 or more")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}", do="use 1 or more")
        if not 0 <= self.allow_skipped <= 1:
            raise ConfigError(f"allow_skipped is {self.allow_skipped}", do="use a part, 0 to 1")


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        segmenter: ready to predict on arrays.
        scores: of every stage, empty without ground truth.
        folder: of the run; a temporary one if no ``out`` was given, gone with this object.
        report: the page.
        masks: folder of the training photos' masks.
        audit: what the check of the data found.
    """

    segmenter: Segmenter
    scores: tuple[StageScore, ...]
    folder: Path
    report: Path
    masks: Path
    audit: Audit
    _workspace: Workspace = field(repr=False)


def train(
    photos: Dataset,
    recipe: str = "builtin_priors",
    config: TrainingConfig | Mapping[str, Any] | None = None,
    *,
    val: Collection[str] = (),
    ground_truth: GroundTruth | None = None,
    out: Path | str | None = None,
    options: Options = Options(),
    full_supervision: Path | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> Result:
    """Train a segmenter from photos and tags, make the photos' masks and the report.

    The same call again continues an interrupted run, or changes nothing if it is finished.

    Args:
        photos: photos and their tags, those for validation included.
        recipe: name in :data:`tagseg.recipes.catalog.RECIPES`.
        config: the recipe's Config, or values for some of its fields.
        val: names of the photos that are predicted and scored, never trained on.
        ground_truth: for scoring; ``full_supervision`` alone trains on it.
        out: folder of the run; None for a temporary one.
        full_supervision: folder of a finished ``full_supervision`` run on the same photos, to
            state the percentage of it.

    Raises:
        TagsegError: the data, the configuration or the folder cannot be used; one line says why.
    """
    progress = progress if progress is not None else Progress()
    module = find_recipe(recipe)
    config = make_config(module.Config, config)
    if recipe == "full_supervision" and ground_truth is None:
        raise ConfigError("full_supervision needs ground truth", do="give --ground-truth DIR")
    _check_truth(ground_truth, photos)
    setup = make_setup(options)
    found = _checked(photos, val, options, progress)
    training, validation = _parts(found, val)
    if recipe == "full_supervision" and ground_truth is not None:
        full_supervision_recipe.check_truth(training.dataset.names, ground_truth)
    if full_supervision is not None:
        _val_score_of(full_supervision, validation.key if validation else _NO_VAL)
    settings = _settings(options, setup, config, command)
    folder = Path(out) if out is not None else None
    work = Workspace.open(
        folder,
        recipe=recipe,
        settings=settings,
        classes=photos.classes,
        announce=progress.say,
    )
    with work:
        run = Run(
            photos=WorkingPhotos(training.dataset, config.photo_side),
            photos_key=training.key,
            val=WorkingPhotos(validation.dataset, config.photo_side) if validation else None,
            val_key=validation.key if validation else _NO_VAL,
            setup=setup,
            workspace=work,
            progress=progress,
        )
        truth_key = key_of_truth(ground_truth)
        extra = (ground_truth, truth_key) if recipe == "full_supervision" else ()
        outcome: Outcome = module.run(run, config, *extra)
        findings = examine(run, outcome, ground_truth, truth_key)
        _export(run, outcome, config)
        _write_about(work.folder, _about(run, module.PAPER, config, found, outcome, command))
        report = render_report(work.folder, full_supervision=full_supervision)
    return Result(
        outcome.segmenter,
        tuple(findings.scores()),
        work.folder,
        report,
        _masks_folder(work),
        found,
        work,
    )


def make_config(kind: type[TrainingConfig], given: Any) -> TrainingConfig:
    """A Config from another, from a mapping of fields, or with all defaults.

    Raises:
        ConfigError: a field does not exist (the nearest one is named), or a value does not fit.
    """
    if isinstance(given, kind):
        return _checked_config(given)
    if isinstance(given, TrainingConfig):
        raise ConfigError(
            f"the configuration is of another recipe ({type(given).__module__})",
            do=f"give a {kind.__module__}.Config",
        )
    return _checked_config(kind(**check_settings(kind, given or {})))


def _checked_config(config: TrainingConfig) -> TrainingConfig:
    crf_parameters(config)  # numbers that the dense CRF refuses must show before long work
    return config


def make_setup(options: Options) -> Setup:
    """Device, precision, threads and weights as the options say."""
    device = choose_device(options.device)
    threads = options.threads or usable_cores()
    set_threads(threads)
    build_backbone(options.backbone)  # a wrong name must show before weights are looked for
    execution = Execution(
        device, choose_precision(options.precision, device), options.seed, options.workers
    )
    weights = resolve(options.weights, options.backbone)
    setup = Setup(options.backbone, weights if weights.state else None, execution, threads)
    setup.build_backbone(TrainingConfig())  # and a wrong file before long work
    return setup


def load_segmenter(
    source: Path | str, *, device: str = "auto", precision: str = "auto"
) -> Segmenter:
    """The segmenter of a run folder, or of a ``segmenter.safetensors`` file.

    Raises:
        WorkspaceError: the folder holds no finished run.
        WeightsError: the file holds no segmenter.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(path.glob(f"stages/*-export/{_MODEL}.safetensors"))
        if not found:
            raise WorkspaceError(
                "holds no trained segmenter", where=path, do="finish the run with tagseg train"
            )
        path = found[0]
    if not path.is_file():
        raise WeightsError("no such file or run folder", where=path, do="check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError("is no safetensors file", where=path, do="give a run folder") from error
    chosen = choose_device(device)
    execution = Execution(chosen, choose_precision(precision, chosen))
    return unpack_segmenter(
        tensors, metadata, execution=execution, refinement=_crf_from, where=path
    )


def render_report(folder: Path, *, full_supervision: Path | None = None) -> Path:
    """Write the report of a finished run and return its path.

    Args:
        full_supervision: a finished ``full_supervision`` run; remembered for the next time.
    """
    about = _read_about(folder)
    if full_supervision is not None:
        about["full_supervision"] = _val_score_of(full_supervision, about["val"])
        _write_about(folder, about)
    work = Workspace.read(folder)
    stages = {entry["name"]: entry for entry in about["stages"]}
    findings = Findings(work.finished("findings"), True)
    confusion, of = findings.confusion()
    reference = about.get("full_supervision")
    page = RunReport(
        title=f"{about['recipe']} on {about['photos']} photos",
        recipe=about["recipe"],
        classes=about["classes"],
        paper=about["paper"],
        command=about["command"],
        created=about["created"],
        settings=about["settings"],
        config=[ConfigRow(*row) for row in about["config"]],
        data=about["audit"],
        stages=[(name, entry["seconds"]) for name, entry in stages.items()],
        scores=findings.scores(),
        full_supervision_miou=reference["miou"] if reference else None,
        confusion=confusion,
        confusion_of=of,
        curves={name: work.finished(name).read_log() for name in about["curves"]},
        classifier_map=findings.tag_score(),
        gallery=findings.gallery(),
    )
    report = folder / _REPORT
    atomic_text(report, render(page))
    return report


def atomic_text(path: Path, text: str) -> None:
    """Write a file as a whole, unless that is what it holds."""
    content = text.encode()
    if path.is_file() and path.read_bytes() == content:
        return
    with atomic_write(path) as file:
        file.write(content)


def _checked(photos: Dataset, val: Collection[str], options: Options, progress: Progress) -> Audit:
    """The audit of the photos, which must leave some to train on."""
    unknown = sorted(set(val) - set(photos.names))
    if unknown:
        raise DataError(
            f"{len(unknown)} validation photos are not among the photos: {unknown[0]}",
            do="check the list of --val",
        )
    if len(set(val)) == len(photos):
        raise DataError("all photos are for validation", do="leave some to train on")
    with progress.task("checking the photos", len(photos)) as ticks:
        return audit(
            photos,
            allow_skipped=options.allow_skipped,
            workers=options.threads or usable_cores(),
            val=frozenset(val),
            progress=lambda done, total: ticks.advance(1),
        )


def _check_truth(truth: GroundTruth | None, photos: Dataset) -> None:
    """Names only: that none of the photos is annotated must show before long work."""
    if truth is not None and not any(truth.has(name) for name in photos.names):
        raise MaskError(
            "no photo has ground truth",
            do="name the masks as the photos, and give the folder that they lie in",
        )


class _Part(NamedTuple):
    """The photos for training or for validation, and the hash of their content and tags."""

    dataset: Dataset
    key: str


def _parts(found: Audit, val: Collection[str]) -> tuple[_Part, _Part | None]:
    """What there is to train on and, if anything, to validate with."""
    held_out = frozenset(val).intersection(found.dataset.names)
    names = [name for name in found.dataset.names if name in held_out]
    training = found.dataset.without(held_out)
    if not training.known.any():
        raise DataError(
            "no training photo can be used and has known tags",
            do="mend or tag some, or use --untagged negative",
        )
    part = _Part(training, training.fingerprint(found.digests))
    if not names:
        return part, None
    validation = found.dataset.select(names)
    return part, _Part(validation, validation.fingerprint(found.digests))


def _settings(
    options: Options, setup: Setup, config: TrainingConfig, command: str
) -> dict[str, Any]:
    return {
        "options": {item.name: getattr(options, item.name) for item in fields(options)},
        "setup": setup.settings(),
        "config": {name: value for name, value, _, _ in where_from(config)},
        "command": command,
        "tagseg": tagseg.__version__,
    }


def _export(run: Run, outcome: Outcome, config: TrainingConfig) -> Stage:
    """The segmenter with its refinement as one file."""
    crf = None
    if config.segmenter_crf:
        parameters = crf_parameters(config)
        crf = {item.name: getattr(parameters, item.name) for item in fields(parameters)}
    with run.stage("export", {"crf": crf}, [outcome.curves[-1]]) as stage:
        if stage.pending:
            stage.save_tensors(_MODEL, *pack_segmenter(outcome.segmenter, crf))
    return stage


def _crf_from(stored: Mapping[str, Any]) -> Refine:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    return crf_refinement(CrfParameters(**values))


def _about(
    run: Run,
    paper: str,
    config: TrainingConfig,
    found: Audit,
    outcome: Outcome,
    command: str,
) -> dict[str, Any]:
    """All that the report needs beside the findings, as JSON."""
    work = run.workspace
    old = _old_about(work.folder)
    return {
        "recipe": work.recipe,
        "val": run.val_key,
        "paper": paper,
        "classes": list(work.classes),
        "photos": len(run.photos),
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": {
            **work.settings["options"],
            **work.settings["setup"],
            "tagseg": tagseg.__version__,
        },
        "config": [
            [name, list(value) if isinstance(value, tuple) else value, where]
            for name, value, where, _ in where_from(config)
        ],
        "audit": list(found.lines()),
        "stages": [{"name": s.name, "seconds": round(s.seconds, 3)} for s in work.summary()],
        "curves": [stage.name for stage in outcome.curves],
        "full_supervision": old.get("full_supervision") if old.get("val") == run.val_key else None,
    }


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / _ABOUT
    if not path.is_file():
        raise WorkspaceError("holds no finished run", where=folder, do="finish it: tagseg train")
    about = read_json(path)
    if not isinstance(about, dict) or not about.keys() >= _ABOUT_FIELDS:
        raise WorkspaceError("is damaged", where=path, do="run tagseg train again")
    return about


def _old_about(folder: Path) -> dict[str, Any]:
    """What run.json held before, nothing if that cannot be told."""
    try:
        return _read_about(folder)
    except WorkspaceError:
        return {}


def _write_about(folder: Path, about: dict[str, Any]) -> None:
    """Write run.json; it keeps its date if nothing else has changed."""
    path = folder / _ABOUT
    old = _old_about(folder)
    if {**old, "created": ""} == {**about, "created": ""}:
        about = old
    atomic_text(path, json.dumps(about, indent=1, ensure_ascii=False))


def _val_score_of(folder: Path, val_key: str) -> dict[str, Any]:
    """Score of a finished full_supervision run on the validation photos of hash ``val_key``."""
    about = _read_about(folder)
    if about["recipe"] != "full_supervision":
        raise ConfigError(
            f"is a run of {about['recipe']}", where=folder, do="give one of full_supervision"
        )
    scores = Findings(Workspace.read(folder).finished("findings"), True).scores()
    val = [row for row in scores if row.split == "val"]
    if not val:
        raise ConfigError("has no scores on val", where=folder, do="train it with --val")
    if about["val"] != val_key:
        raise ConfigError(
            "was scored on other validation photos",
            where=folder,
            do="give a run of full_supervision with the same --val",
        )
    return {"miou": val[-1].miou, "folder": str(folder)}


def _masks_folder(work: Workspace) -> Path:
    return work.finished("masks").folder / "masks"
