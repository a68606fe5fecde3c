"""One run from data to report: what ``tagseg train`` and :func:`tagseg.train` do."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

import tagseg
from tagseg.data.audit import Audit, audit
from tagseg.data.dataset import Dataset
from tagseg.data.photo_index import INDEX, PhotoIndex, read_index
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError, DamagedError, DataError
from tagseg.evaluate.trust import ClassTrust, trust_lines
from tagseg.evaluate.truth_audit import TruthAudit, audit_truth
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.memory import memory_at_hand
from tagseg.nets.catalog import build_backbone
from tagseg.nets.gap import check_seeder
from tagseg.nets.weights import resolve
from tagseg.ranks.alone import ALONE, Ranks
from tagseg.recipes.catalog import find_recipe
from tagseg.report.page import SeedScore, StageScore
from tagseg.run.company import Followed, Led
from tagseg.run.engine import (
    check_threads,
    choose_device,
    choose_precision,
    choose_workers,
    set_threads,
    usable_cores,
)
from tagseg.run.files import check_names_fit
from tagseg.run.mask_files import check_masks_in
from tagseg.run.progress import Progress
from tagseg.run.ray_engine import RayEngine
from tagseg.run.together import Together
from tagseg.run.work import Engine, Local
from tagseg.run.workspace import Workspace
from tagseg.segment.predict import Segmenter
from tagseg.session.export import export
from tagseg.session.index import keep_index
from tagseg.session.recorded import origin_of
from tagseg.session.report import full_supervision_score, render_report, write_about
from tagseg.session.reviewing import OpenReview, ReviewSource, open_review
from tagseg.session.scoring import Findings, examine, key_of_truth
from tagseg.session.settings import check_settings, find_preset, laid_under, preset_line
from tagseg.session.wrong_tags import write_wrong_tags
from tagseg.stages.context import Run, Setup
from tagseg.stages.localizers import check_localizer
from tagseg.stages.outcome import Outcome
from tagseg.stages.recipe import Recipe
from tagseg.stages.refiners import find_refiner
from tagseg.stages.review import Review
from tagseg.stages.reviewed import REVIEWED
from tagseg.stages.settings import (
    BackboneSettings,
    PhotoSettings,
    PyramidSettings,
    Settings,
    WorkSettings,
    where_from,
)
from tagseg.stages.tag_doubts import completed
from tagseg.training import Execution

__all__ = [
    "Caller",
    "Data",
    "Options",
    "Result",
    "check_data",
    "check_truth",
    "look_at_masks",
    "look_at_photos",
    "make_config",
    "make_settings",
    "make_setup",
    "train",
]

_NO_VAL = "no validation photos"


C = TypeVar("C", bound=WorkSettings)

_MOST_WORKERS = 256
_PART_OF_MEMORY = 4  # of that at hand: what loaders share is at most one part
_ENGINES = ("local", "ray")

_SEEDS = 1 << 63  # what PyTorch takes

_BACKBONE = "efficientnet_lite0"


@dataclass(frozen=True)
class Options:
    """How to compute; see ``tagseg train --help``.

    Attributes:
        backbone: name in :data:`tagseg.nets.catalog.BACKBONES`; None for a preset's, or the usual
            efficientnet_lite0.
        weights: "imagenet", "none", a path or a URL.
        device: "auto", or a name that torch knows, such as "cpu", "cuda:1" or "mps".
        precision: "auto", "fp32" or "bf16".
        workers: processes that load photos; 0 loads them in the training process. None is for as
            many as are good on the device: none on the CPU.
        threads: for arithmetic and for refining photos; None for all cores. Of all processes on
            this machine together.
        allow_skipped: fraction of the photos that may be unreadable.
        engine: "local", or "ray": who does what stages make of each photo.
        preset: "paper" for the values of the recipe's paper where no others are given.
        masks_in: "files", "shards" (tars), or "auto": shards past 100,000 photos.
        compiles: whether networks are compiled by torch.compile for training, where that works.
    """

    backbone: str | None = None
    weights: str = "imagenet"
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0
    workers: int | None = None
    threads: int | None = None
    allow_skipped: float = 0.01
    engine: str = "local"
    preset: str | None = None
    masks_in: str = "auto"
    compiles: bool = False

    def network(self) -> str:
        """The backbone's name: as chosen, or the usual one."""
        return _BACKBONE if self.backbone is None else self.backbone

    def __post_init__(self) -> None:
        if not 0 <= self.seed < _SEEDS:
            raise ConfigError(f"seed is {self.seed}", do=f"use 0 to {_SEEDS - 1}")
        if self.workers is not None and not 0 <= self.workers <= _MOST_WORKERS:
            raise ConfigError(f"workers is {self.workers}", do=f"use 0 to {_MOST_WORKERS}")
        if self.threads is not None:
            check_threads(self.threads)
        if not 0 <= self.allow_skipped <= 1:
            raise ConfigError(f"allow_skipped is {self.allow_skipped}", do="use a fraction, 0 to 1")
        if self.engine not in _ENGINES:
            raise ConfigError(f"engine {self.engine!r} does not exist", do="use local or ray")
        check_masks_in(self.masks_in)


@dataclass(frozen=True)
class Caller:
    """Who asks for a run.

    Attributes:
        progress: where it is told how far things are; nowhere by default.
        command: what was asked, for the record; its report shows it.
        files: where its files and folders lie, by name; a run keeps them, and no report shows them.
        ranks: the processes that share the run, all of which ask for it.
        full_supervision: folder of a finished ``full_supervision`` run on the same photos, of which
            the report is to state the percentage.
    """

    progress: Progress = field(default_factory=Progress)
    command: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    ranks: Ranks = ALONE
    full_supervision: Path | None = None


@dataclass(frozen=True)
class Data:
    """Photos that were looked at, at working size, and the hashes of their content and tags.

    Attributes:
        audit: what the check found.
        photos, photos_key: for training.
        val, val_key: for validation, if any.
        review: what a person said about the masks of those for training, if anyone did.
    """

    audit: Audit
    photos: WorkingPhotos
    photos_key: str
    val: WorkingPhotos | None
    val_key: str
    review: Review | None = None

    def run(self, setup: Setup, workspace: Workspace | Followed, progress: Progress) -> Run:
        """What a recipe is given to work on these photos in ``workspace``."""
        return Run(
            photos=self.photos,
            photos_key=self.photos_key,
            val=self.val,
            val_key=self.val_key,
            setup=setup,
            workspace=workspace,
            progress=progress,
            review=self.review,
        )


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
        seeds: precision and recall of the recipe's score maps, empty without ground truth.
        trust: how far the masks of each class can be trusted, in label order, told from tags alone;
            empty if the recipe does not judge its masks.
    """

    segmenter: Segmenter
    scores: tuple[StageScore, ...]
    folder: Path
    report: Path
    masks: Path
    audit: Audit
    seeds: tuple[SeedScore, ...]
    trust: tuple[ClassTrust, ...]
    _workspace: Workspace = field(repr=False)


def train(
    photos: Dataset,
    recipe: str = "union",
    config: WorkSettings | Mapping[str, Any] | None = None,
    *,
    val: Collection[str] = (),
    ground_truth: GroundTruth | None = None,
    out: Path | str | None = None,
    options: Options = Options(),
    review: ReviewSource | Path | str | None = None,
    caller: Caller | None = None,
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
        review: file of ``tagseg review``: accepted masks are taught and are the photos' final
            masks, rejected ones teach nothing, changed tags are the data set's.
        options: how to compute, and whether by a preset.
        caller: where progress is told, the command for the record, a run to be compared with.

    Raises:
        TagsegError: the data, the configuration or the folder cannot be used; one line says why.
    """
    caller = caller if caller is not None else Caller()
    chosen, folder = find_recipe(recipe), Path(out) if out is not None else None
    config, options = _configured(chosen, config, options, caller.progress)
    ready = _ready(
        chosen, config, options, photos, val, ground_truth, folder, review=review, caller=caller
    )
    if caller.full_supervision is not None:
        full_supervision_score(caller.full_supervision, ready.data.val_key)
    settings = make_settings(options, ready.setup, config, caller.command)
    settings["files"] = {**origin_of(photos), **caller.files}
    work = _opened_together(folder, recipe, settings, photos.classes, caller)
    with work, closing(ready.setup.engine):
        found = _worked_through(work, ready, caller)
    return Result(
        found.outcome.segmenter,
        tuple(found.findings.scores()),
        work.folder,
        found.report,
        found.masks,
        ready.data.audit,
        tuple(found.findings.seeds()),
        found.outcome.trust,
        work if isinstance(work, Workspace) else Workspace.read(work.folder),
    )


def _configured(
    recipe: Recipe, given: Any, options: Options, progress: Progress
) -> tuple[WorkSettings, Options]:
    """The Config and the options, where a preset may lie under those that are given."""
    values = given
    if options.preset is not None:
        values, options = _with_preset(recipe, options.preset, given, options, progress)
    config = make_config(recipe.config, values)
    _say_what_is_idle(given, config, progress)
    return config, options


class _Ready(NamedTuple):
    """All that a recipe works with, checked, before anything is written."""

    recipe: Recipe
    config: WorkSettings
    setup: Setup
    data: Data
    truth: GroundTruth | None
    known: PhotoIndex | None
    """What an earlier look at the photos had found."""


def _ready(
    recipe: Recipe,
    config: WorkSettings,
    options: Options,
    photos: Dataset,
    val: Collection[str],
    ground_truth: GroundTruth | None,
    folder: Path | None,
    *,
    review: ReviewSource | Path | str | None,
    caller: Caller,
) -> _Ready:
    """Check what is given: whatever is wrong with it shows here, before long work."""
    progress, ranks = caller.progress, caller.ranks
    if recipe.needs_truth and ground_truth is None:
        raise ConfigError(f"{recipe.name} needs ground truth", do="give --ground-truth DIR")
    if folder is not None:
        ranks.first(lambda: Workspace.check(folder, recipe.name))
    check_names_fit(photos.names, folder if folder is not None else Path(tempfile.gettempdir()))
    said = _opened(review, photos, val, recipe, progress)
    photos = photos if said is None else said.retagged(photos)
    setup = make_setup(options, config, ranks)
    _check_on_backbone(config, setup.backbone)
    truth = ranks.first(lambda: check_truth(ground_truth, photos, options, progress))
    known = None if folder is None else read_index(folder / INDEX)
    data = check_data(photos, val, recipe, config, options, progress, ranks, known)
    data = data if said is None else _with_review(data, said, setup, progress)
    if setup.execution.workers:
        _share(data.photos, setup, ranks, progress)
    if recipe.check_truth is not None:
        recipe.check_truth(data.photos.names, truth)
    return _Ready(recipe, config, setup, data, truth, known)


def _share(photos: WorkingPhotos, setup: Setup, ranks: Ranks, progress: Progress) -> None:
    """Let the processes that load photos find what any of them has decoded."""
    shared = photos.share(memory_at_hand() // _PART_OF_MEMORY // ranks.on_this_machine)
    progress.say(
        f"{setup.execution.workers} processes load photos; {shared.bytes / 1e9:.1f} GB of memory "
        f"are for those that are decoded, of {shared.all_bytes / 1e9:.1f} GB for all"
    )


class _Found(NamedTuple):
    """What came of a recipe, and where it is."""

    outcome: Outcome
    findings: Findings
    report: Path
    masks: Path


def _worked_through(work: Workspace | Followed, ready: _Ready, caller: Caller) -> _Found:
    """The recipe from data to report, in a run's folder that is open."""
    recipe, config, setup, data, truth, known = ready
    progress, ranks = caller.progress, caller.ranks
    truth_key = key_of_truth(truth)

    def through() -> _Found:
        run = completed(data.run(setup, work, progress), config)
        outcome = recipe.outcome(run, config, truth, truth_key)
        segmenter = export(run, outcome)  # first, so that scoring can lose nothing
        with _kept(segmenter, progress):
            findings = examine(run, outcome, truth, truth_key)

        def told() -> tuple[Path, Path]:
            write_wrong_tags(run, config)
            write_about(run, recipe, config, data.audit, outcome, caller.command)
            report = render_report(work.folder, full_supervision=caller.full_supervision)
            _say_what_is_taught(run)
            if not run.worked:
                progress.say("the run was finished before; nothing had to be done")
            return report, _masks_folder(run.open_workspace)

        return _Found(outcome, findings, *ranks.first(told))

    ranks.first(lambda: keep_index(work.folder, data.audit, known))
    for line in data.audit.first_words():
        progress.say(line)
    found = work.mended(through)
    for line in trust_lines(found.outcome.trust):
        progress.say(line)
    return found


def _with_preset(
    recipe: Recipe, preset: str, given: Any, options: Options, progress: Progress
) -> tuple[dict[str, Any], Options]:
    """The preset's values under those that are given, and its backbone where none is chosen."""
    if isinstance(given, Settings):
        raise ConfigError(
            "a whole Config is given, under which no preset lies",
            do="give config as a mapping of the fields that differ",
        )
    found = find_preset(recipe, preset)
    values = check_settings(recipe.config, given or {})
    line = preset_line(recipe, preset, values)
    values = {**laid_under(recipe.config, found.beside_given(values), values), **values}
    progress.say(line)
    if options.backbone is None and found.backbone is not None:
        options = replace(options, backbone=found.backbone.value)
    return values, options


def _opened_together(
    folder: Path | None,
    recipe: str,
    settings: Mapping[str, Any],
    classes: Sequence[str],
    caller: Caller,
) -> Workspace | Followed:
    """The run's folder, which the process that leads opens."""
    kind = Workspace if caller.ranks.size == 1 else Led
    opened: list[Workspace] = []

    def by_first() -> Path:
        opened.append(
            kind.open(
                folder,
                recipe=recipe,
                settings=settings,
                classes=classes,
                announce=caller.progress.say,
            )
        )
        return opened[0].folder

    place = caller.ranks.first(by_first)
    if not opened:
        return Followed(place, caller.ranks)
    if isinstance(opened[0], Led):
        opened[0].ranks = caller.ranks
    return opened[0]


def _opened(
    review: ReviewSource | Path | str | None,
    photos: Dataset,
    val: Collection[str],
    recipe: Recipe,
    progress: Progress,
) -> OpenReview | None:
    """The review that is given, if one is; see :func:`open_review`."""
    if review is None:
        return None
    source = review if isinstance(review, ReviewSource) else ReviewSource(review)
    return open_review(source, photos, val, progress, by_class=recipe.uses_tags)


def _with_review(data: Data, said: OpenReview, setup: Setup, progress: Progress) -> Data:
    """The data with its review; a line says what is in it."""
    review = said.of(data.photos, progress, setup.threads)
    progress.say(f"review: {review.acts.line()}")
    return replace(data, review=review)


def _say_what_is_taught(run: Run) -> None:
    """A recipe without a segmenter that reads labels takes masks, and learns nothing of them."""
    review = run.review
    if review is None or not review.of_masks:
        return
    if not any(entry.name.endswith(REVIEWED) for entry in run.open_workspace.summary()):
        run.progress.say(
            "note: with these settings nothing is trained on masks: what the review says of masks "
            "teaches nothing, and accepted ones are final masks alone"
        )


@contextmanager
def _kept(segmenter: Path, progress: Progress) -> Iterator[None]:
    """Say where the segmenter is if the block fails."""
    try:
        yield
    except DamagedError:  # which is mended
        raise
    except Exception:
        progress.say(f"the segmenter is trained, and kept: {segmenter}")
        progress.say("scoring failed; once that is mended, the same command goes on there")
        raise


def make_config(kind: type[C], given: Any) -> C:
    """A Config from another, from a mapping of fields, or with all defaults.

    Raises:
        ConfigError: a field does not exist (the nearest one is named), or a value does not fit.
    """
    if isinstance(given, kind):
        return _checked_config(given)
    if isinstance(given, Settings):
        raise ConfigError(
            f"the configuration is of another recipe ({type(given).__module__})",
            do=f"give a {kind.__module__}.Config",
        )
    return _checked_config(kind(**check_settings(kind, given or {})))


def _checked_config(config: C) -> C:
    find_refiner(config, 0)  # wrong names must show before long work
    check_localizer(config)
    if isinstance(config, PyramidSettings):
        config.check_segmenter()
    return config


def _check_on_backbone(config: WorkSettings, backbone: str) -> None:
    """What cannot be had on the backbone must show before long work, too."""
    check_localizer(config, backbone)
    if config.named("seeder"):
        check_seeder(config.seeder, backbone)  # type: ignore[attr-defined]
    if config.named("classifier_stride"):
        _check_stride(config.classifier_stride, backbone)  # type: ignore[attr-defined]


def _check_stride(stride: int | None, backbone: str) -> None:
    """Raise ConfigError, which names the field, if the classifier cannot have such a backbone."""
    if stride is None:
        return
    try:
        build_backbone(backbone, output_stride=stride)
    except ConfigError as error:
        raise ConfigError(
            f"classifier_stride is {stride}, and {backbone} has no such form",
            do=f"{error.do}, or none",
        ) from None


def _say_what_is_idle(given: Any, config: WorkSettings, progress: Progress) -> None:
    """A field that is set and does nothing beside the others deserves a word."""
    for name, needs in config.idle().items():
        if isinstance(given, Mapping) and name in given:
            progress.say(f"note: {name} does nothing; it acts with {needs}")


def make_setup(
    options: Options, settings: BackboneSettings | None = None, ranks: Ranks = ALONE
) -> Setup:
    """Device, precision, threads and weights as the options say.

    Processes on one machine share out its threads, and each takes a device of its own.

    Raises:
        TagsegError: there is no such device, backbone or file, or the backbone is not as
            ``settings`` have it, or by default.
    """
    device = choose_device(options.device, ranks.here if ranks.size > 1 else None)
    threads = max(1, (options.threads or usable_cores()) // ranks.on_this_machine)
    set_threads(threads)
    backbone = options.network()
    build_backbone(backbone)  # a wrong name must show before weights are looked for
    workers = choose_workers(options.workers, device, ranks.on_this_machine)
    precision = choose_precision(options.precision, device)
    if options.compiles and ranks.size > 1:
        raise ConfigError(
            "several processes share a network that is not compiled", do="leave --compile out"
        )
    execution = Execution(device, precision, options.seed, workers, options.compiles)
    if ranks.size > 1:  # one alone fetches what is not there
        ranks.first(lambda: resolve(options.weights, backbone).digest)
    weights = resolve(options.weights, backbone)
    engine = _engine(options, threads, device, ranks)
    loaded = weights if weights.state else None
    setup = Setup(backbone, loaded, execution, threads, engine, options.masks_in)
    # A wrong file or form must show before long work, too.
    setup.build_backbone(settings or BackboneSettings())
    return setup


def _engine(options: Options, threads: int, device: torch.device, ranks: Ranks) -> Engine:
    """Who does what stages make of photos."""
    if ranks.size > 1 and options.engine != "local":
        raise ConfigError(
            f"several processes share the work, and engine is {options.engine}",
            do="give --processes or torchrun, or --engine ray",
        )
    if ranks.size > 1:
        return Together()
    return RayEngine(threads, device) if options.engine == "ray" else Local()


def _checked(
    photos: Dataset,
    val: Collection[str],
    options: Options,
    progress: Progress,
    known: PhotoIndex | None,
) -> Audit:
    """The audit of the photos, which must leave some to train on."""
    unknown = sorted(set(val) - set(photos.names))
    if unknown:
        raise DataError(
            f"{len(unknown)} validation photos are not among the photos: {unknown[0]}",
            do="check the list of --val",
        )
    if len(set(val)) == len(photos):
        raise DataError("all photos are for validation", do="leave some to train on")
    return look_at_photos(photos, val, options, progress, known)


def look_at_photos(
    photos: Dataset,
    val: Collection[str],
    options: Options,
    progress: Progress,
    known: PhotoIndex | None = None,
) -> Audit:
    """The audit of all photos; DataError if too many cannot be used.

    ``known`` is what a look before has found.
    """
    with progress.task("checking the photos", len(photos)) as ticks:
        return audit(
            photos,
            allow_skipped=options.allow_skipped,
            workers=options.threads or usable_cores(),
            val=frozenset(val),
            progress=lambda done, total: ticks.advance(1),
            known=known,
        )


def look_at_masks(
    truth: GroundTruth, photos: Dataset, options: Options, progress: Progress
) -> TruthAudit:
    """The audit of the photos' masks; MaskError if there are none, other errors are in it."""
    with progress.task("checking the masks", None) as ticks:
        return audit_truth(
            truth,
            photos,
            workers=options.threads or usable_cores(),
            progress=lambda done, total: ticks.advance(1),
        )


def check_truth(
    truth: GroundTruth | None, photos: Dataset, options: Options, progress: Progress
) -> GroundTruth | None:
    """Look at all masks, say what is odd, and give the ground truth as it is to be read.

    Raises:
        MaskError: no photo has ground truth, or a mask cannot be used.
    """
    if truth is None:
        return None
    found = look_at_masks(truth, photos, options, progress)
    for line in (*found.notes, *found.warnings):
        progress.say(f"note: {line}")
    found.raise_errors()
    return found.truth


def check_data(
    photos: Dataset,
    val: Collection[str],
    recipe: Recipe,
    sizes: PhotoSettings,
    options: Options,
    progress: Progress,
    ranks: Ranks = ALONE,
    known: PhotoIndex | None = None,
) -> Data:
    """Look at all photos, and part them into those to train on and those to validate with.

    Raises:
        DataError: there are none to train on, too many are unreadable, or ``val`` does not fit.
    """
    found = ranks.first(lambda: _checked(photos, val, options, progress, known))
    held_out = frozenset(val).intersection(found.dataset.names)
    names = [name for name in found.dataset.names if name in held_out]
    training = found.dataset.without(held_out)
    if recipe.uses_tags and not training.known.any():
        raise DataError(
            "no training photo can be used and has known tags",
            do="mend or tag some, or use --untagged negative",
        )
    validation = found.dataset.select(names) if names else None
    side = sizes.working_side(found.sizes[1])
    return Data(
        found,
        WorkingPhotos(training, side),
        training.fingerprint(found.digests),
        WorkingPhotos(validation, side) if validation is not None else None,
        validation.fingerprint(found.digests) if validation is not None else _NO_VAL,
    )


def make_settings(options: Options, setup: Setup, config: Settings, command: str) -> dict[str, Any]:
    """What a run's folder keeps of how it was asked for."""
    preset, options = options.preset, replace(options, backbone=setup.backbone)
    kept = {item.name: getattr(options, item.name) for item in fields(options)}
    del kept["preset"]  # its values are among those of the config
    return {
        "options": kept,
        **({} if preset is None else {"preset": preset}),
        "setup": setup.settings(),
        "config": {name: value for name, value, _, _ in where_from(config)},
        "command": command,
        "tagseg": tagseg.__version__,
    }


def _masks_folder(work: Workspace) -> Path:
    return work.finished("masks").read_path("masks")
