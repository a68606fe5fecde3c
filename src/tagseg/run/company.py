"""A run that several processes share: the one that leads works on its folder, the others follow.

All go through the same program, and ask for the same stages in the same order. The one that leads
says of each what it has found. A stage is either shared, so that all take part in its work, or done
by the one that leads while the others wait at its door. What is finished all read from the folder,
which must be on storage that all see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from torch import Tensor

from tagseg.errors import DamagedError, RankError
from tagseg.ranks.alone import ALONE, Ranks
from tagseg.run.manifest import Record, make_record
from tagseg.run.stage import Company, Stage
from tagseg.run.workspace import Workspace, labelled

__all__ = ["Followed", "FollowedStage", "Led"]

Result = TypeVar("Result")


class Led(Workspace):
    """The workspace of the process that leads; see :class:`Workspace`."""

    ranks: Ranks = ALONE

    def stage(
        self, name: str, *, config: Mapping[str, Any], inputs: Sequence[str | Stage]
    ) -> Stage:
        """As in a workspace of one process; the others hear what was found."""
        stage = super().stage(name, config=config, inputs=inputs)
        stage.company = None
        if not self.ranks.is_apart:
            stage.company = Company(self.ranks)
            told = {"key": stage.key, "folder": str(stage.folder), "pending": stage.pending}
            self.ranks.tell(stage.company.found, told)
        return stage

    def mended(self, work: Callable[[], Result]) -> Result:
        """What ``work`` gives; damaged parts are set aside, and all begin anew with the command."""
        try:
            return work()
        except DamagedError as error:
            self.mend()
            raise DamagedError(
                f"{error.what}; it was set aside",
                where=error.where,
                do="give the same command again, which makes it anew",
            ) from error


class Followed:
    """What takes the workspace's place in a process that follows.

    Attributes:
        folder: of the run.
    """

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self.folder, self.ranks = folder, ranks
        self._stages: dict[str, FollowedStage] = {}

    def stage(
        self, name: str, *, config: Mapping[str, Any], inputs: Sequence[str | Stage]
    ) -> FollowedStage:
        """The stage ``name`` as the process that leads has found it.

        Raises:
            RankError: that one has asked for another stage, or for one made from other things.
        """
        record, company = make_record(name, config, labelled(inputs)), Company(self.ranks)
        told = self.ranks.hear(company.found)
        if told["key"] != record["key"]:
            raise RankError(
                f"process {self.ranks.rank} is at stage {name}, made from other things than "
                f"process 0 has at {Path(told['folder']).name}",
                do="give all processes the same photos, settings and version of tagseg",
            )
        known = self._stages.get(name)
        if known is None or known.pending:
            known = FollowedStage(Path(told["folder"]), record, pending=told["pending"])
            self._stages[name] = known
        known.company = company
        return known

    def mended(self, work: Callable[[], Result]) -> Result:
        """What ``work`` gives; the process that leads mends."""
        return work()

    def close(self) -> None:
        """Close all stages' stores."""
        for stage in self._stages.values():
            stage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FollowedStage(Stage):
    """A stage in a process that follows: nothing is written, and it is read once it is finished."""

    def __init__(self, folder: Path, record: Record, *, pending: bool) -> None:
        super().__init__(folder, record, lambda line: None, read_only=True)
        self.pending = pending

    def __enter__(self) -> Self:
        if self.pending and self.company is not None and not self.company.shared:
            self._follow(self.company)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and self.pending and self.company is not None:
            self._follow(self.company)

    def save_bytes(self, name: str, content: bytes) -> None:
        """Leave it to the process that leads."""

    def save_json(self, name: str, value: Any) -> None:
        """Leave it to the process that leads."""

    def save_tensors(
        self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        """Leave it to the process that leads."""

    def log(self, **values: Any) -> None:
        """Leave it to the process that leads."""

    def _follow(self, company: Company) -> None:
        company.ranks.hear(company.finished)
        self._take_finished()
