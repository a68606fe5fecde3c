"""Stages of a run that several processes share: who works, who waits, what they read."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from paired_ranks import Paired, together
from tagseg.errors import DamagedError, RankError
from tagseg.ranks.alone import ALONE
from tagseg.run.company import Followed, Led
from tagseg.run.workspace import Stage


def opened(ranks: Paired, folder: Path, stack: ExitStack) -> Led | Followed:
    def lead() -> None:
        work = stack.enter_context(Led.open(folder, recipe="toy", settings={}))
        work.ranks = ranks
        works.append(work)

    works: list[Led] = []
    ranks.first(lead)
    return works[0] if ranks.leads else stack.enter_context(Followed(folder, ranks))


def in_each(folder: Path, go: Any, size: int = 3) -> list[Any]:
    def work(ranks: Paired) -> Any:
        with ExitStack() as stack:
            return go(ranks, opened(ranks, folder, stack))

    return together(size, work)


def test_one_works_alone_and_the_others_read(tmp_path: Path) -> None:
    worked: list[int] = []

    def go(ranks: Paired, work: Led | Followed) -> tuple[Any, ...]:
        with work.stage("one", config={"a": 1}, inputs=[]) as stage:
            assert stage.ranks is ALONE
            if stage.pending:
                assert ranks.is_apart
                worked.append(ranks.rank)
                with work.stage("inner", config={}, inputs=[]).shared() as inner:
                    assert inner.ranks is ALONE, "the others wait"
                    inner.save_json("value", 1)
                stage.save_json("value", 7)
        assert not ranks.is_apart
        return stage.load_json("value"), stage.pending, stage.key

    found = in_each(tmp_path / "run", go)
    assert worked == [0]
    assert found == [found[0]] * 3
    assert found[0][:2] == (7, False)
    assert in_each(tmp_path / "run", go) == found
    assert worked == [0], "finished before"


def test_a_shared_stage_is_worked_on_by_all_and_written_by_one(tmp_path: Path) -> None:
    worked: list[int] = []

    def go(ranks: Paired, work: Led | Followed) -> Any:
        with work.stage("one", config={}, inputs=["photos"]).shared() as stage:
            assert stage.pending
            assert stage.ranks is ranks
            worked.append(ranks.rank)
            stage.log(iteration=ranks.rank)
            stage.save_json("value", ranks.gathered(ranks.rank))
            stage.save_bytes("file", bytes([ranks.rank]))
        return stage.load_json("value"), stage.read_path("file").read_bytes(), stage.read_log()

    assert in_each(tmp_path / "run", go) == [([0, 1, 2], b"\0", [{"iteration": 0}])] * 3
    assert sorted(worked) == [0, 1, 2]


def test_who_is_at_another_stage_says_so(tmp_path: Path) -> None:
    def go(ranks: Paired, work: Led | Followed) -> Stage:
        return work.stage("one", config={"a": ranks.rank}, inputs=[])

    leads, follows = in_each(tmp_path / "run", go, 2)
    assert isinstance(leads, Stage)
    assert isinstance(follows, RankError)
    assert str(follows).startswith("process 1 is at stage one, made from other things than process")


def test_what_is_damaged_is_removed_and_said(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def make(ranks: Paired, work: Led | Followed) -> None:
        with work.stage("one", config={}, inputs=[]) as stage:
            if stage.pending:
                stage.save_json("value", 7)

    def read(ranks: Paired, work: Led | Followed) -> Any:
        def through() -> Any:
            return work.stage("one", config={}, inputs=[]).load_json("value")

        return work.mended(through)

    in_each(folder, make)
    (folder / "stages" / "01-one" / "value.json").write_text("8\n")
    leads, follows = in_each(folder, read, 2)
    assert isinstance(leads, DamagedError)
    assert "it was set aside; give the same command again" in str(leads)
    assert isinstance(follows, DamagedError)
    assert not (folder / "stages" / "01-one").exists()
