"""A run that is only planned: its stages have keys, and no folder and no work.

What would run again after a change can be told so in no time, and whether every setting reaches
the stages that it should.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tagseg.errors import WorkspaceError
from tagseg.run.manifest import Record, make_record
from tagseg.run.stage import Stage
from tagseg.run.workspace import labelled

__all__ = ["Plan", "PlannedStage"]


class PlannedStage(Stage):
    """A stage that has a key and nothing else; it counts as finished, so nothing works on it."""

    planned = True

    def __init__(self, record: Record) -> None:
        super().__init__(Path("planned") / record["name"], record, lambda line: None)
        self.pending = False


class Plan:
    """Takes the place of a workspace.

    Attributes:
        records: what each stage that was asked for is made from, in order.
    """

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    def stage(
        self, name: str, *, config: Mapping[str, Any], inputs: Sequence[str | Stage]
    ) -> PlannedStage:
        """The stage ``name``; WorkspaceError if it was asked for, made from different things."""
        record = make_record(name, config, labelled(inputs))
        if self.records.setdefault(name, record)["key"] != record["key"]:
            raise WorkspaceError(f"stage {name} is asked for twice, made from different things")
        return PlannedStage(record)
