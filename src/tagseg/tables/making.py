"""A paper's tables from a finished run and its photos: what ``tagseg tables`` does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from PIL import Image as PillowImage

import tagseg
from tagseg.data.dataset import Dataset
from tagseg.data.text import readable, without_folders
from tagseg.errors import ConfigError, MaskError, WorkspaceError
from tagseg.evaluate.truth_audit import truth_for
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.recipes.catalog import find_recipe
from tagseg.run.files import check_folder, one_line_errors, read_json, to_json
from tagseg.run.workspace import Workspace, atomic_write
from tagseg.session.report import shown_setting
from tagseg.session.train import (
    Caller,
    Options,
    check_data,
    check_truth,
    make_config,
    make_setup,
)
from tagseg.stages.settings import PyramidSettings, WorkSettings
from tagseg.tables.base import TABLES_FOLDER, Context, Study, Table
from tagseg.tables.catalog import find_paper
from tagseg.tables.pyramid import PYRAMID

__all__ = ["Tables", "make_tables"]

_ABOUT = "run.json"  # which a run has when it is finished


_PYRAMID = "pyramid"  # the table that is no paper's


_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}


class Tables(NamedTuple):
    """The tables and the files that hold them."""

    tables: tuple[Table, ...]
    markdown: Path
    json: Path


def make_tables(
    paper: str,
    photos: Dataset,
    run: Path | str,
    *,
    val: Collection[str] = (),
    ground_truth: GroundTruth | None,
    only: Sequence[str] = (),
    device: str = "auto",
    threads: int | None = None,
    caller: Caller | None = None,
) -> Tables:
    """Rerun a paper's ablations from a finished run, and write its tables into the run's folder.

    The same call again continues what was interrupted; what is finished is only read.

    Args:
        paper: name in :data:`tagseg.tables.catalog.PAPERS`.
        photos, val: as the run was trained with.
        run: its folder; network, weights, seed, precision and Config are its own.
        ground_truth: for scores alone.
        only: names of tables; all for none.
        caller: where progress is told, and the command for the record.

    Raises:
        TagsegError: the run, the photos or the ground truth do not fit; one line says why.
    """
    caller = caller if caller is not None else Caller()
    progress = caller.progress
    module = find_paper(paper)
    studies = _chosen({**module.TABLES, _PYRAMID: PYRAMID}, only, paper)
    studies = _that_can_be_made(studies, photos, val, only)
    truth = _checked_truth(ground_truth, studies, photos, frozenset(val))
    finished = _read_run(Path(run), paper)
    if not _has_pyramid(finished.config):
        studies = _without_pyramid(studies, only)
    check_folder(finished.folder / TABLES_FOLDER)
    options = replace(finished.options, device=device, threads=threads)
    setup = make_setup(options)
    if setup.settings() != finished.setup:
        raise ConfigError(
            "the weights are not those that the run began with",
            where=options.weights,
            do="put them back, or train again",
        )
    recipe = find_recipe(paper)
    data = check_data(photos, val, recipe, finished.config, options, progress)
    if data.photos_key not in finished.inputs:
        raise ConfigError(
            "these are not the photos and tags that the run was trained on",
            where=run,
            do="give the same photos, --tags, --untagged, --train and --val as to tagseg train",
        )
    truth = check_truth(truth, photos, options, progress) or truth
    context = Context(
        folder=finished.folder,
        recipe=paper,
        config=finished.config,
        options=options,
        setup=setup,
        data=data,
        truth=truth,
        progress=progress,
        command=caller.command,
    )
    as_published = replace(context, config=_published(finished.config))
    tables = tuple(
        study.made(context if study is PYRAMID else as_published) for study in studies.values()
    )
    return _write(context, recipe.paper, tables)


@dataclass(frozen=True)
class _FinishedRun:
    """What a run was made with, from its folder."""

    folder: Path
    options: Options
    setup: Mapping[str, Any]
    config: WorkSettings
    inputs: frozenset[str]


def _without_pyramid(studies: Mapping[str, Study], only: Sequence[str]) -> Mapping[str, Study]:
    if _PYRAMID in only:
        raise ConfigError(
            f"table {_PYRAMID} is about runs that end in that segmenter",
            do="train one with --set segmenter=pyramid",
        )
    return {name: study for name, study in studies.items() if name != _PYRAMID}


def _published(config: WorkSettings) -> WorkSettings:
    """The run's settings with the paper's own segmenter, which its tables are about."""
    return replace(config, segmenter=type(config)().segmenter) if _has_pyramid(config) else config


def _has_pyramid(config: WorkSettings) -> TypeGuard[PyramidSettings]:
    return isinstance(config, PyramidSettings) and config.segmenter == "pyramid"


def _chosen(studies: Mapping[str, Study], only: Sequence[str], paper: str) -> Mapping[str, Study]:
    unknown = [name for name in only if name not in studies]
    if unknown:
        raise ConfigError(
            f"{paper} has no table {unknown[0]!r}", do=f"choose of {', '.join(studies)}"
        )
    return {name: study for name, study in studies.items() if not only or name in only}


def _that_can_be_made(
    studies: Mapping[str, Study], photos: Dataset, val: Collection[str], only: Sequence[str]
) -> Mapping[str, Study]:
    """Without those that are about other photos.

    Raises ConfigError if one of these was asked for, or if the paper has no others.
    """
    lacking = {name: study.lacks(photos, val) for name, study in studies.items()}
    none = all(lacking[name] for name in studies if name != _PYRAMID)
    for name in only or studies:
        if lacking[name] and (only or none):
            raise ConfigError(f"{_called(name)} {lacking[name]}", do="choose others with --only")
    return {name: study for name, study in studies.items() if not lacking[name]}


def _read_run(folder: Path, recipe: str) -> _FinishedRun:
    """The run in ``folder``, which must be a finished one of ``recipe``."""
    work = Workspace.read(folder)
    if work.recipe != recipe:
        raise ConfigError(
            f"is a run of {work.recipe}", where=folder, do=f"give one of {recipe} with --run"
        )
    about_file = work.folder / _ABOUT
    unfinished = WorkspaceError("holds no finished run", where=folder, do="finish it: tagseg train")
    if not about_file.is_file():
        raise unfinished
    about, settings = read_json(about_file), work.settings
    try:
        last = {name: value for name, value, _ in about["config"]}
        asked = {name: shown_setting(value) for name, value in settings["config"].items()}
        if last != asked or not settings["setup"].items() <= about["settings"].items():
            raise unfinished  # begun again with other settings
        for entry in about["stages"]:
            work.finished(entry["name"])
        given, setup = settings["options"], settings["setup"]
        options = Options(**{**given, "precision": _PRECISIONS[setup["precision"]]})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkspaceError("is damaged", where=about_file, do="run tagseg train again") from error
    config = make_config(find_recipe(recipe).config, settings["config"])
    return _FinishedRun(work.folder, options, setup, config, work.outer_inputs())


def _checked_truth(
    truth: GroundTruth | None,
    studies: Mapping[str, Study],
    photos: Dataset,
    val: frozenset[str],
) -> GroundTruth:
    """Names only: what is missing must show before long work."""
    if truth is None:
        raise ConfigError("tables need ground truth", do="give --ground-truth DIR")
    truth, names = truth_for(truth, photos), photos.names
    for table, study in studies.items():
        if study.split is None:
            continue
        if study.split == "val" and not val:
            raise ConfigError(
                f"{_called(table)} needs validation photos", do="give --val, or choose with --only"
            )
        of_split = [name for name in names if (name in val) == (study.split == "val")]
        if not any(truth.has(name) for name in of_split):
            kind = "validation" if study.split == "val" else "training"
            raise MaskError(
                f"{_called(table)} needs ground truth of {kind} photos, and none has any",
                do="name the masks as the photos, or choose other tables with --only",
            )
    return truth


def _called(table: str) -> str:
    return f"table {table}" if table.isdigit() else table


def _write(context: Context[Any], paper: str, tables: tuple[Table, ...]) -> Tables:
    """Both files, each as a whole."""
    data, setup = context.data, context.setup.settings()
    about = {
        "recipe": context.recipe,
        "paper": paper,
        "run": readable(context.folder.name),
        "command": context.command,
        "photos": {"train": len(data.photos), "val": len(data.val) if data.val else 0},
        "seeds": [setup["seed"]],
        "backbone": setup["backbone"],
        "weights": readable(without_folders(context.options.weights)),
        "precision": setup["precision"],
        "tagseg": tagseg.__version__,
    }
    if context.config.supervision():
        about["not from tags alone"] = context.config.supervision()
    folder = context.folder / TABLES_FOLDER
    result = Tables(tables, folder / f"{context.recipe}.md", folder / f"{context.recipe}.json")
    content = {**about, "tables": [table.to_dict() for table in tables]}
    head = [f"# Tables of {context.recipe}", "", f"{paper}. All figures in per cent.", ""]
    head += [f"- {name}: {_told(value)}" for name, value in about.items() if name != "paper"]
    text = "\n".join([*head, "", *(table.markdown() for table in tables)])
    with one_line_errors(folder):
        folder.mkdir(exist_ok=True)
    for table in tables:
        if table.picture is not None:
            with atomic_write(folder / f"{table.name}.png") as file:
                PillowImage.fromarray(table.picture).save(file, "PNG")
    with atomic_write(result.json) as file:
        file.write(to_json(content) + b"\n")
    with atomic_write(result.markdown) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
    return result


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else f"`{value}`"
