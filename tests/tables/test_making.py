"""Tables of a finished run: what is shared, what is continued, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

if __name__ != "__main__":
    import forked
    from small_reviews import review_of_masks
    from small_runs import N_TRAIN, N_VAL, Photos, contents, options
    from tagseg.errors import ConfigError, MaskError, TagsegError, WorkspaceError
    from tagseg.stages import segmenter as stages
    from tagseg.tables.making import Tables, make_tables


LOOKED_AT = 5  # segmenters of CheckMask: two parts in two orders, and all


def tabulate(photos: Photos, run: Path, *only: str, **changed: Any) -> Tables:
    usual: dict[str, Any] = {"val": photos.val, "ground_truth": photos.truth(), "threads": 1}
    dataset = changed.pop("dataset", photos.dataset)
    return make_tables("builtin_priors", dataset, run, only=only, **{**usual, **changed})


def without_tables(run: Path) -> dict[str, str]:
    return {name: it for name, it in contents(run).items() if not name.startswith("tables/")}


def rows(run: Path) -> dict[str, Any]:
    read = json.loads((run / "tables/builtin_priors.json").read_text())
    return {table["name"]: table["rows"] for table in read["tables"]}


def test_what_the_run_has_is_not_made_again(tabulated, result):
    worked = dict(tabulated.worked)
    batches = worked.pop("activation prior")
    assert worked == {"audit": 1, "segmenter": 7 + LOOKED_AT}  # one more is the run's own
    assert batches > 0, "of the validation photos, for Table 5; their location maps are the run's"
    assert without_tables(tabulated.run) == without_tables(result.folder)


def test_each_stage_is_made_once(tabulated):
    """Stages of one content are one file, or their key tells them apart."""
    kept: dict[str, set[int]] = {}
    for folder in (tabulated.run, *tabulated.run.glob("tables/*")):
        for manifest in folder.glob("stages/*/manifest.json"):
            record = json.loads(manifest.read_text())["record"]
            kept.setdefault(record["key"], set()).add(manifest.stat().st_ino)
    assert len(kept) > 40
    assert all(len(files) == 1 for files in kept.values())
    variants = {path.name for path in tabulated.run.glob("tables/*") if path.is_dir()}
    assert len(variants) == 11 + LOOKED_AT + 2  # and what all of these begin with
    assert not list(tabulated.run.glob("tables/*/stages/*-masks/masks"))  # only what tables need


def test_a_second_call_makes_nothing(tabulated, photos, worked):
    before = contents(tabulated.run)
    tabulate(photos, tabulated.run)
    assert worked == {"audit": 1}
    assert contents(tabulated.run) == before


def test_tables_one_at_a_time_are_the_same(run, tabulated, photos, worked):
    all_rows = rows(tabulated.run)
    for name in ("fig10", "4"):
        made = tabulate(photos, run, name)
        assert [table.name for table in made.tables] == [name]
        assert rows(run) == {name: all_rows[name]}
    assert worked["segmenter"] == 3


def test_what_is_written(tabulated, photos):
    read = json.loads((tabulated.run / "tables/builtin_priors.json").read_text())
    assert read["photos"] == {"train": len(photos.train), "val": len(photos.val)}
    assert read["seeds"] == [0]
    assert read["backbone"] == "tiny"
    text = (tabulated.run / "tables/builtin_priors.md").read_text()
    assert text.count("\n## ") == 8
    assert f"- photos: {N_TRAIN} train, {N_VAL} val\n" in text
    assert "- seeds: 0\n" in text


@pytest.mark.parametrize("at", [0, 2])
def test_an_interrupted_call_goes_on(run, tabulated, photos, worked, monkeypatch, at):
    fit, calls = stages.fit_segmenter, iter(range(100))

    def interrupted(*args: Any, **named: Any) -> Any:
        if next(calls) == at:
            raise KeyboardInterrupt
        return fit(*args, **named)

    monkeypatch.setattr(stages, "fit_segmenter", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tabulate(photos, run, "fig10")
    assert not (run / "tables/builtin_priors.md").exists()
    tabulate(photos, run, "fig10")
    assert worked["segmenter"] == 3
    assert rows(run)["fig10"] == rows(tabulated.run)["fig10"]


def test_masks_of_a_review_are_in_no_table(run, go, photos, tabulated, tmp_path):
    """Tables are about recipes from tags alone, whatever a person said about the run's masks."""
    masks = {name: photos.labels[name] for name in photos.train[:4]}
    review = review_of_masks(tmp_path, photos.dataset.classes, masks)
    go("builtin_priors", out=run, review=review)
    tabulate(photos, run, "fig10")
    assert rows(run)["fig10"] == rows(tabulated.run)["fig10"]


def test_other_ground_truth_is_scored_again_and_no_more(run, photos, worked):
    some = {name: photos.labels[name] for name in (*photos.train, *photos.val[:4])}
    first = tabulate(photos, run, "4", "fig10")
    worked.clear()
    second = tabulate(photos, run, "4", "fig10", ground_truth=replace(photos, labels=some).truth())
    assert worked == {"audit": 1}
    assert first.tables[0].rows == second.tables[0].rows
    assert first.tables[1].rows != second.tables[1].rows


def test_a_changed_run_gives_its_own_tables(run, go, photos):
    """Trained again with other numbers: what depends on them is made again, from the new run."""
    before = tabulate(photos, run, "4").tables
    go("builtin_priors", {"prior_saturate": 0.2}, out=run)
    after = tabulate(photos, run, "4").tables
    assert after[0].rows != before[0].rows


def test_a_damaged_variant_is_made_again(run, tabulated, photos, worked):
    shutil.copytree(tabulated.run / "tables", run / "tables")
    for store in run.glob("tables/*/stages/*/*.sqlite"):
        store.write_bytes(b"oh")
    for file in run.glob("tables/*/stages/*-scores/scores.json"):
        file.unlink()
    tabulate(photos, run, "4", "5")
    assert rows(run) == {name: rows(tabulated.run)[name] for name in ("4", "5")}


def test_refused_before_anything_is_written(run, photos, tmp_path):
    tags = photos.dataset.tags.copy()
    tags[0, 0] ^= True
    of_train = {name: photos.labels[name] for name in photos.train}
    other = {name: photos.labels[name] for name in photos.val}
    cases: list[tuple[type[TagsegError], str, dict[str, Any]]] = [
        (ConfigError, "tables need ground truth; give", {"ground_truth": None}),
        (ConfigError, "table 3 needs validation photos; give --val, or", {"val": ()}),
        (
            MaskError,
            "table 3 needs ground truth of validation photos, and none has any; name the masks",
            {"ground_truth": replace(photos, labels=of_train).truth()},
        ),
        (
            MaskError,
            "table 4 needs ground truth of training photos, and none has any; name the masks",
            {"ground_truth": replace(photos, labels=other).truth()},
        ),
        (
            ConfigError,
            f"{run}: these are not the photos and tags that the run was trained on; give the same",
            {"dataset": replace(photos.dataset, tags=tags)},
        ),
        (
            ConfigError,
            f"{run}: these are not the photos and tags that the run was trained on; give the same",
            {"val": photos.val[:3]},
        ),
    ]
    before = contents(run)
    for error, line, changed in cases:
        with pytest.raises(error) as caught:
            tabulate(photos, run, **changed)
        assert str(caught.value).startswith(line)
        assert contents(run) == before
    with pytest.raises(
        ConfigError, match="has no table '9'; choose of 3, 4, 5, 6, 7, 8, fig9, fig10, checkmask"
    ):
        tabulate(photos, run, "9")


def test_an_unfinished_run(run, go, photos, monkeypatch):
    def interrupted(*args: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "fit_segmenter", interrupted)
    with pytest.raises(KeyboardInterrupt):  # it was finished, and then begun with other numbers
        go("builtin_priors", {"sharpness": 4.0}, out=run)
    unfinished = f"{run}: holds no finished run; finish it: tagseg train"
    with pytest.raises(WorkspaceError) as caught:
        tabulate(photos, run)
    assert str(caught.value) == unfinished
    (run / "run.json").unlink()
    with pytest.raises(WorkspaceError) as caught:
        tabulate(photos, run)
    assert str(caught.value) == unfinished


def test_a_damaged_run(run, photos):
    next(run.glob("stages/*-segmenter/segmenter.safetensors")).write_bytes(b"oh")
    with pytest.raises(
        WorkspaceError, match=r"damaged or missing: segmenter\.safetensors; run the"
    ):
        tabulate(photos, run)
    for content in ("{", "[]", "{}", '{"config": 1}'):
        (run / "run.json").write_text(content)
        with pytest.raises(WorkspaceError, match=r"run.json: is damaged.*; run (tagseg|the)"):
            tabulate(photos, run)


def test_a_run_with_other_options(go, photos, tmp_path, worked):
    """Its seed, precision and weights are those of its tables; Table 4 needs no --val."""
    chosen = options(seed=3, precision="bf16", weights="none")
    out = go("builtin_priors", out=tmp_path / "run", options=chosen, val=()).folder
    worked.clear()
    made = tabulate(photos, out, "4", val=())
    read = json.loads(made.json.read_text())
    assert (read["seeds"], read["precision"], read["weights"]) == ([3], "bfloat16", "none")
    assert read["photos"]["val"] == 0
    assert worked == {"audit": 1}
    about = json.loads((out / "workspace.json").read_text())
    del about["check"]
    about["settings"]["options"]["weights"] = "imagenet"
    (out / "workspace.json").write_text(json.dumps(about))
    with pytest.raises(ConfigError, match="imagenet: the weights are not those that the run began"):
        tabulate(photos, out, "4", val=())


# Killed


@pytest.mark.slow
def test_killed_again_and_again(scenes, tmp_path):
    """``kill -9`` wherever it falls, then the same command: the same tables in the end."""

    def start(run: Path, verb: str) -> BaseProcess:
        return forked.start(__file__, scenes, run, verb)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert forked.ended(start(whole, "train"), 120) == 0
    shutil.copytree(whole, killed)
    began = time.monotonic()
    assert forked.ended(start(whole, "tables"), 300) == 0
    pause, kills = (time.monotonic() - began) / 12, 0
    for number in range(40):
        process = start(killed, "tables")
        status = forked.ended(process, pause * (5 + number % 5))
        if status is not None:
            assert status == 0
            break
        process.kill()
        status = forked.ended(process, 60)
        if status == 0:  # it was done in the moment before the kill
            break
        assert status == -signal.SIGKILL
        kills += 1
    assert kills >= 1
    assert forked.ended(start(killed, "tables"), 300) == 0
    assert rows(killed) == rows(whole)
    assert without_tables(killed).keys() == without_tables(whole).keys()
    assert not [p for p in killed.rglob("*") if p.name.startswith(".tmp-")]


def main(scenes: str, run: str, verb: str) -> None:
    """The command line with networks of a few channels."""
    from small_runs import QUICK_FLAGS, tagseg

    given = ["--val", "val", "--ground-truth", f"{scenes}/SegmentationClass"]
    if verb == "train":
        words = ("train", scenes, "--out", run, "--recipe", "builtin_priors")
        said = tagseg(*words, *given, *QUICK_FLAGS)
    else:
        words = ("tables", "builtin_priors", scenes, "--run", run, "--only", "5,fig10")
        said = tagseg(*words, *given, "--threads", "1")  # some for masks, some train segmenters
    sys.exit(said.status)


if __name__ == "__main__":
    sys.path.insert(0, os.fspath(Path(__file__).parents[1]))
    main(*sys.argv[1:])
