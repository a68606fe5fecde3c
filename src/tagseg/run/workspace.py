"""A run on disk: numbered stage folders that are finished, continued or replaced, and a lock.

    RUN/
        workspace.json    format, recipe, settings, classes, the stages in order
        stages/01-classifier/ ...

What a stage folder holds is told in :mod:`tagseg.run.stage`. A run may have lenders, other runs
whose finished stages it takes over where they are made from the same, instead of working.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from tagseg.errors import DamagedError, WorkspaceError
from tagseg.run.damage import DAMAGED, set_aside
from tagseg.run.files import (
    TEMPORARY,
    atomic_write,
    check_folder,
    one_line_errors,
    read_json,
    write_checked_json,
)
from tagseg.run.lock import LOCK_FILES, FolderLock
from tagseg.run.manifest import FORMAT, Record, canonical, changes, make_record
from tagseg.run.map_store import MapStore
from tagseg.run.shard_store import SHARDS
from tagseg.run.stage import (
    Stage,
    adopt,
    discard,
    folder_aside,
    is_finished,
    record_in,
    run_of,
    say_nothing,
)

__all__ = ["Stage", "StageSummary", "Workspace", "atomic_write", "until_whole"]

_LOGGER = logging.getLogger(__name__)
_ABOUT = "workspace.json"
_RESULT = "run.json"  # written by a finished run
_INDEX = "index.arrow"  # written by the look at the photos, before the first stage
_STAGES = "stages"
_STAGE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_MOST_MENDINGS = 10  # on a disk that rots faster than this nothing can be done

Result = TypeVar("Result")
Announce = Callable[[str], None]


class StageSummary(NamedTuple):
    """A finished stage: hash of what it is made from, working time, end (ISO, UTC)."""

    name: str
    key: str
    seconds: float
    finished_at: str


class Workspace:
    """The folder of one run; made by :meth:`open` or :meth:`read`, used as a context manager.

    Attributes:
        folder: the run's folder; whatever is no stage may be written beside ``stages``.
        recipe, settings, classes: what the run was opened with, settings as plain JSON data.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        announce: Announce,
        lock: FolderLock | None,
        lenders: Sequence[Path] = (),
    ) -> None:
        self.folder = folder
        self.recipe: str = about["recipe"]
        self.settings: dict[str, Any] = about["settings"]
        self.classes: list[str] = about["classes"]
        self._recorded: list[str] = list(about["stages"])
        self._announce, self._lock = announce, lock
        self._lenders = tuple(lenders)
        self._stages: dict[str, Stage] = {}
        self._stages_folder = folder / _STAGES

    @classmethod
    def open(
        cls,
        folder: Path | None,
        *,
        recipe: str,
        settings: Mapping[str, Any],
        classes: Sequence[str] = (),
        announce: Announce = _LOGGER.info,
        lenders: Sequence[Path] = (),
    ) -> Self:
        """Open a run for working on it, new or begun, and hold its lock until :meth:`close`.

        Args:
            folder: the run's folder, made if missing; None for a temporary one that lives as long
                as the workspace object.
            recipe: name of the recipe; a folder belongs to one.
            settings: all that the run was asked for, for the record.
            classes: class names in order, for the record.
            announce: takes one line about each stage that runs again or continues.
            lenders: folders of other runs; a stage that one of them has finished from the same is
                taken over and not pending. They may be missing, and are not written to.

        Raises WorkspaceError if another process holds the folder, if it is not empty and no
        workspace, belongs to another recipe or format, or cannot be written; then nothing in it
        is touched.
        """
        temporary = folder is None
        path = Path(tempfile.mkdtemp(prefix="tagseg-") if folder is None else folder).absolute()
        old = _about_of(path, recipe, announce)
        lock = FolderLock(path)
        about = {
            "format": FORMAT,
            "recipe": recipe,
            "settings": canonical(dict(settings)),
            "classes": list(classes),
            "stages": old["stages"] if old else [],
        }
        work = cls(path, about, announce, lock, lenders)
        if temporary:
            weakref.finalize(work, shutil.rmtree, path, ignore_errors=True)
        work._write_about()
        for left in work._stages_folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(left, ignore_errors=True)
        return work

    @staticmethod
    def check(folder: Path, recipe: str) -> None:
        """Raise the WorkspaceError that :meth:`open` would for the folder; nothing is written.

        But for the lock, which may be free when the run begins.
        """
        path = Path(folder).absolute()
        _about_of(path, recipe)
        check_folder(path)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Open a run to read its finished stages, without lock; nothing is written."""
        path = Path(folder).absolute()
        about = _read_about(path)
        if about is None:
            raise WorkspaceError(
                "holds no run", where=path, do=f"give a folder that has a {_ABOUT}"
            )
        if about is _LOST:
            raise DamagedError(
                "is damaged or missing",
                where=path / _ABOUT,
                do="run the training command again, which makes it anew and keeps the stages",
            )
        return cls(path, about, say_nothing, None)

    def stage(
        self, name: str, *, config: Mapping[str, Any], inputs: Sequence[str | Stage]
    ) -> Stage:
        """The stage ``name``, made from ``config`` and ``inputs``; numbered by order of first use.

        Finished before from the same, here or by a lender: not pending. Begun before from the
        same: continued. Else it is pending, ``announce`` hears what has changed, and the old folder
        waits aside until the new one is finished; going back to the old settings before that takes
        it up again.

        Args:
            config: everything but the inputs that decides on the result; JSON data, paths,
                dataclasses.
            inputs: earlier stages, and keys of other things, such as the data set's fingerprint.
        """
        if self._lock is None:
            raise WorkspaceError("is open for reading only", where=self.folder)
        if not _STAGE_NAME.fullmatch(name):
            raise WorkspaceError(f"{name!r} is no stage name", do="use a-z, 0-9, - and _")
        record = make_record(name, config, labelled(inputs))
        known = self._stages.get(name)
        if known is not None:
            if known.key != record["key"]:
                raise WorkspaceError(f"stage {name} is asked for twice, made from different things")
            return known
        folder = self._stages_folder / f"{len(self._stages) + 1:02d}-{name}"
        with one_line_errors(folder):
            self._bring(folder, record)
        stage = Stage(folder, record, self._announce)
        if stage.pending and any(adopt(lent, folder) for lent in self._lent(record)):
            stage = Stage(folder, record, self._announce)
        self._stages[name] = stage
        self._remember(list(self._stages))
        return self._stages[name]

    def finished(self, name: str) -> Stage:
        """The finished stage ``name``; raises WorkspaceError if there is none, or it is damaged."""
        if name in self._stages:
            stage = self._stages[name]
        else:
            folder = self._find(name)
            record = record_in(folder) if folder is not None else None
            if folder is None or record is None or not is_finished(folder):
                raise self._unfinished(name)
            stage = Stage(folder, record, self._announce, read_only=True)
        if stage.pending:
            raise self._unfinished(name)
        if self._lock is None:
            self._stages[name] = stage
        return stage

    def summary(self) -> list[StageSummary]:
        """The finished stages of the present configuration, in order.

        For a run that is open for reading: of the configuration it was worked on last.
        """
        stages = list(self._stages.values())
        if self._lock is None:
            done = [
                n for n in self._recorded if (f := self._find(n)) is not None and is_finished(f)
            ]
            stages = [self.finished(name) for name in done]
        return [
            StageSummary(stage.name, stage.key, stage.seconds, stage.finished_at)
            for stage in stages
            if not stage.pending
        ]

    def mended(self, work: Callable[[], Result]) -> Result:
        """What ``work`` gives, done again as often as it comes upon something damaged.

        What is damaged is found by reading all that the stages hold, and is set aside, so that
        its stage runs again and no other.
        """
        return until_whole(work, self.mend, self._announce)

    def mend(self) -> bool:
        """Set damaged stages aside, and damaged stores of others; whether there were any.

        All that the stages hold is read for it, and stages must be asked for anew.
        """
        found = False
        for folder in _stage_folders(self._stages_folder):
            record = record_in(folder)
            if record is None:
                kept = set_aside(folder, self.folder)
                self._announce(f"{folder}: nobody can tell what it is; it is kept in {kept}")
                found = True
            elif is_finished(folder):
                stage = Stage(folder, record, self._announce)
                found |= stage.pending or bool(stage.verify())
            else:
                found |= _mend_partial(folder, self._announce)
        for stage in self._stages.values():
            stage.close()
        self._stages = {}
        return found

    def outer_inputs(self) -> frozenset[str]:
        """Keys of what the stages were made from that is no stage: photos, ground truth."""
        records = [record_in(f) for n in self._recorded if (f := self._find(n)) is not None]
        return frozenset(
            key
            for record in records
            if record is not None
            for label, key in record["inputs"]
            if label.isdigit()  # stages have names
        )

    def close(self) -> None:
        """Close all stages' stores and let the lock go."""
        for stage in self._stages.values():
            stage.close()
        if self._lock is not None:
            self._lock.release()

    def __getstate__(self) -> dict[str, Any]:
        """Another process reads what is finished."""
        quiet: dict[str, Any] = {
            "_announce": say_nothing,
            "_lock": None,
            "_lenders": (),
            "_stages": {},
        }
        return {**self.__dict__, **quiet}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None and self._stages and self._lock is not None:
                self._recorded = list(self._stages)
                self._write_about()
        finally:
            self.close()

    def _bring(self, folder: Path, record: Record) -> None:
        """Make ``folder`` hold what there is of the stage, or nothing."""
        name, key = record["name"], record["key"]
        found, aside = self._find(name), folder_aside(self._stages_folder, name)
        before = record_in(aside)
        if found is not None and ((old := record_in(found)) is None or old["key"] != key):
            if before is not None and before["key"] == key:
                self._announce(f"stage {name} is taken up again as it was before the last change")
            elif old is not None:
                again = "is taken from another run" if any(self._lent(record)) else "runs again"
                self._announce(f"stage {name} {again}: {changes(old, record)}")
            else:
                what = "its manifest is damaged" if is_finished(found) else "it has no manifest"
                kept = set_aside(found, self.folder)
                self._announce(f"stage {name} runs again: {what}; what was there is kept in {kept}")
            if old is not None and is_finished(found):
                discard(aside)
                found.rename(aside)
            elif old is not None:
                discard(found)
            found = None
        if found is None and before is not None and before["key"] == key:
            found = aside
        if found is not None and found != folder:
            found.rename(folder)

    def _find(self, name: str) -> Path | None:
        return _find(self._stages_folder, name)

    def _lent(self, record: Record) -> Iterator[Path]:
        """Folders in which lenders have finished the stage from the same."""
        for lender in self._lenders:
            stages = lender / "stages"
            for folder in (_find(stages, record["name"]), folder_aside(stages, record["name"])):
                if folder is None or not is_finished(folder):
                    continue
                lent = record_in(folder)
                if lent is not None and lent["key"] == record["key"]:
                    yield folder

    def _remember(self, names: list[str]) -> None:
        if self._recorded[: len(names)] != names:
            self._recorded = names
            self._write_about()

    def _write_about(self) -> None:
        write_checked_json(
            self.folder / _ABOUT,
            {
                "format": FORMAT,
                "recipe": self.recipe,
                "settings": self.settings,
                "classes": self.classes,
                "stages": self._recorded,
            },
        )

    def _unfinished(self, name: str) -> WorkspaceError:
        return WorkspaceError(
            f"stage {name} is not finished", where=self.folder, do="run the training command again"
        )


def until_whole(work: Callable[[], Result], mend: Callable[[], bool], announce: Announce) -> Result:
    """What ``work`` gives, done again as often as it comes upon something that ``mend`` mends."""
    for _ in range(_MOST_MENDINGS):
        try:
            return work()
        except DamagedError as error:
            announce(f"{error.where}: {error.what}; it is made again")
            if not mend():
                raise
    return work()


def _find(stages: Path, name: str) -> Path | None:
    found = [path for path in _stage_folders(stages) if path.name.partition("-")[2] == name]
    return found[0] if found else None


def _stage_folders(stages: Path) -> list[Path]:
    """Folders of stages in order; none that is a link, behind which are files of others."""
    return sorted(
        path
        for path in stages.glob("*-*")
        if path.name.partition("-")[0].isdigit() and path.is_dir() and not path.is_symlink()
    )


def _mend_partial(folder: Path, announce: Announce) -> bool:
    """Set the damaged stores of a stage that is not finished aside; whether there were any."""
    found = False
    for path in (*folder.glob("*.sqlite"), *folder.glob(f"*{SHARDS}/*.sqlite")):
        try:
            with MapStore(path) as store:
                store.digest()
        except DamagedError:
            kept = set_aside(path, run_of(folder), f"{folder.name}-{path.name}")
            announce(f"{path}: is damaged and made again; what was there is kept in {kept}")
            for journal in path.parent.glob(f"{path.name}-*"):
                journal.unlink()
            found = True
    return found


def labelled(inputs: Sequence[str | Stage]) -> list[tuple[str, str]]:
    return [
        (item.name, item.key) if isinstance(item, Stage) else (str(position), item)
        for position, item in enumerate(inputs, start=1)
    ]


def _about_of(
    folder: Path, recipe: str, announce: Announce = _LOGGER.info
) -> Mapping[str, Any] | None:
    """What a run of ``recipe`` finds in its folder; None for a new one, else WorkspaceError."""
    text = str(folder).encode("utf-8", "backslashreplace").decode()
    if text != str(folder):  # safetensors opens no file there
        raise WorkspaceError("its path is not UTF-8", where=text, do="give another folder")
    about = _read_about(folder)
    if about is _LOST:
        _check_same_recipe(folder, recipe)
        announce(f"{folder / _ABOUT}: is damaged or missing; it is made anew, the stages stay")
    elif about is not None and about["recipe"] != recipe:
        raise _of_another(folder, about["recipe"], recipe)
    return about


def _check_same_recipe(folder: Path, recipe: str) -> None:
    """A finished run tells its recipe a second time."""
    try:
        told = read_json(folder / _RESULT)
    except WorkspaceError:
        return
    other = told.get("recipe") if isinstance(told, dict) else None
    if isinstance(other, str) and other != recipe:
        raise _of_another(folder, other, recipe)


def _of_another(folder: Path, recipe: str, wanted: str) -> WorkspaceError:
    return WorkspaceError(
        f"holds a run of recipe {recipe}, not {wanted}", where=folder, do="give another folder"
    )


_OF_A_RUN = LOCK_FILES | {_ABOUT, TEMPORARY + _ABOUT, _INDEX, TEMPORARY + _INDEX, DAMAGED}

# What stands for a workspace.json that cannot be read: the keys of stages tell which still hold.
_LOST: Mapping[str, Any] = {"stages": []}


def _read_about(folder: Path) -> Mapping[str, Any] | None:
    """Content of workspace.json: None for a new folder, _LOST if a run's is damaged or missing.

    Raises WorkspaceError for any other folder.
    """
    with one_line_errors(folder):
        if not folder.exists():
            return None
        content = {path.name for path in folder.iterdir()}
        if (folder / _STAGES).is_symlink():
            raise WorkspaceError(
                "is a link; what it leads to is not touched",
                where=folder / _STAGES,
                do="put the folder itself there",
            )
    is_run = bool(_stage_folders(folder / _STAGES))
    if _ABOUT not in content:
        if is_run:
            return _LOST
        if _is_left_by_a_kill(folder, content):
            return None
        raise WorkspaceError(
            f"is neither empty nor a run (no {_ABOUT})", where=folder, do="give another folder"
        )
    try:
        about = read_json(folder / _ABOUT)
    except DamagedError:
        about = None
    if isinstance(about, dict) and about.get("format") not in (None, FORMAT):
        raise WorkspaceError(
            f"was written by another version of tagseg (not format {FORMAT})",
            where=folder,
            do="give another folder",
        )
    if _is_about(about):
        return about
    if is_run or (LOCK_FILES & content and _is_left_by_a_kill(folder, content)):
        return _LOST
    raise WorkspaceError(
        "is damaged, and there are no stages", where=folder / _ABOUT, do="give another folder"
    )


def _is_left_by_a_kill(folder: Path, content: set[str]) -> bool:
    """Whether a folder holds what a run has before its first stage, and nothing of others."""
    stages = set() if any((folder / _STAGES).glob("[!.]*")) else {_STAGES}
    return content <= _OF_A_RUN | stages


def _is_about(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("format") == FORMAT
        and isinstance(value.get("recipe"), str)
        and isinstance(value.get("settings"), dict)
        and all(isinstance(value.get(name), list) for name in ("classes", "stages"))
        and all(isinstance(name, str) for name in (*value["classes"], *value["stages"]))
    )
