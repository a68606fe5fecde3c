"""Work over photos by the processes that share a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tagseg.errors import TagsegError
from tagseg.run.progress import Task
from tagseg.run.stage import Stage
from tagseg.run.work import (
    Groups,
    Local,
    PhotoWork,
    Row,
    pack,
    pending,
    photos_in,
    put_row,
    sink_of,
)

__all__ = ["Together"]

Made = list[tuple[int, Row]]  # photos by their index

_A_ROUND = 16  # groups for each process, after which all meet; one where groups are batches


@dataclass(frozen=True)
class Together:
    """Each process makes some of the rows, and the one that leads keeps them.

    In a stage that this one does alone, while the others wait, it works as :class:`Local`.
    """

    def fill(self, stage: Stage, stores: Sequence[str], work: PhotoWork, progress: Task) -> None:
        """Fill the stores of the stage."""
        ranks = stage.ranks
        if ranks.size == 1:
            Local().fill(stage, stores, work, progress)
            return
        sinks = {s: sink_of(stage, s, work.names) for s in stores} if ranks.leads else {}
        todo = ranks.first(lambda: pending(work, list(sinks.values())))
        progress.skip(len(work.names) - photos_in(todo))
        for block in _blocks(todo, ranks.size * (1 if work.costly else _A_ROUND)):
            made = _made(work, block[ranks.rank :: ranks.size], progress)
            for rank, part in enumerate(ranks.brought(made)):
                if isinstance(part, TagsegError):
                    raise part
                for index, row in part:
                    put_row(sinks, work.names[index], row)
                if rank != ranks.rank:
                    progress.advance(len(part))
            if isinstance(made, TagsegError):  # which the process that leads tells
                raise made
            for sink in sinks.values():
                sink.commit()
        pack(sinks.values(), every=True)

    def close(self) -> None:
        """Nothing is held."""


def _blocks(groups: Groups, size: int) -> Iterator[Groups]:
    for start in range(0, len(groups), size):
        yield groups[start : start + size]


def _made(work: PhotoWork, groups: Groups, progress: Task) -> Made | TagsegError:
    """The rows of some groups, or what is wrong with one of their photos."""
    made: Made = []
    try:
        for group, rows in work.rows(pair.tolist() for pair in groups):
            for index, row in zip(group, rows, strict=True):
                made.append((index, row))
                progress.advance()
    except TagsegError as error:
        return error
    return made
