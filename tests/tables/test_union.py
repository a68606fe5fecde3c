"""The ablation of union: a run with its own settings, and others of which a piece is missing."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from guided_runs import counting, few_photos
from small_runs import OPTIONS, Photos
from tagseg.data.dataset import Dataset
from tagseg.data.working import labels_at
from tagseg.errors import ConfigError, DamagedError
from tagseg.formats.review import Accepted, read_review
from tagseg.recipes.union import classifier
from tagseg.recipes.union.config import Config
from tagseg.run.workspace import Workspace
from tagseg.session.label_maps import find_label_maps
from tagseg.session.photo_trust import judged
from tagseg.session.run_to_review import MOST_MAPS
from tagseg.session.train import Result, train
from tagseg.stages import classifier as maps
from tagseg.stages import pyramid_segmenter
from tagseg.tables import checkmask, union
from tagseg.tables.making import Tables, make_tables
from union_runs import FEW

WORK = {
    "classifier": (classifier, "train"),
    "class maps": (maps, "class_activation_maps"),
    "pyramid": (pyramid_segmenter, "_fit"),
}
ROWS, TWO = union.ROWS, ("all", "tags-alone")


class Made(NamedTuple):
    dataset: Dataset
    result: Result
    tables: Tables
    worked: Counter[str]


@pytest.fixture(scope="module", autouse=True)
def two_rows() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(union, "ROWS", tuple(row for row in ROWS if row.variant in TWO))
        yield


def tabulate(photos: Photos, dataset: Dataset, run: Path, *only: str) -> Tables:
    return make_tables(
        "union",
        dataset,
        run,
        val=photos.val[:2],
        ground_truth=photos.truth(),
        only=only,
        threads=1,
    )


@pytest.fixture(scope="module")
def made(photos, tmp_path_factory) -> Made:
    """A run with its ablation, and the work that this took."""
    dataset = few_photos(photos)
    config: dict[str, Any] = {**FEW, "objects": "barrier"}
    out = tmp_path_factory.mktemp("runs") / "run"
    val, truth = photos.val[:2], photos.truth()
    result = train(dataset, "union", config, val=val, ground_truth=truth, out=out, options=OPTIONS)
    with counting(WORK) as count:
        tables = tabulate(photos, dataset, out, "ablation")
    return Made(dataset, result, tables, count)


def test_the_run_itself_is_the_first_row(made):
    (table,) = made.tables.tables
    assert table.columns == ("", "first labels", "masks of the photos", "val")
    first = {score.stage: score for score in made.result.scores if score.split == "train"}
    of_val = {s.stage: s for s in made.result.scores if s.split == "val"}
    val = of_val.get("pyramid + CRF", of_val["pyramid"])
    wanted = [first["labels, round 1"], first["masks of the photos (known tags)"], val]
    label, *found = table.rows[0]
    assert label == "union"
    assert found == pytest.approx([100 * score.miou for score in wanted], abs=1e-3)


def test_what_is_not_changed_is_taken_over(made):
    """Nothing of the first row is made again, and the second has the same classifier."""
    assert made.worked == Counter({"pyramid": 2}), "two rounds without what stands out"
    rooms = {p.parent.name for p in made.result.folder.glob("tables/*/workspace.json")}
    assert rooms == set(TWO)
    variant = Workspace.read(made.result.folder / "tables" / "tags-alone")
    assert variant.settings["config"]["objects"] == "none"
    assert made.tables.tables[0].rows[1][0] == "class maps alone, nothing that stands out"
    assert all(isinstance(value, float) for value in made.tables.tables[0].rows[1][1:])


def test_the_same_call_again_changes_nothing(made, photos):
    with counting(WORK) as count:
        again = tabulate(photos, made.dataset, made.result.folder, "ablation")
    assert again.tables == made.tables.tables
    assert not count
    text = made.tables.markdown.read_text()
    assert "Union, with every piece taken away in turn: mean IoU" in text
    assert "| union " in text


def test_without_validation_photos(made, photos):
    with pytest.raises(ConfigError, match="ablation needs validation photos"):
        make_tables(
            "union",
            made.dataset.without(frozenset(photos.val)),
            made.result.folder,
            ground_truth=photos.truth(),
            only=("ablation",),
            threads=1,
        )


def able(training: Dataset, photos: Photos) -> list[str]:
    """Photos of which a pick can be simulated."""
    tagged = training.tags.any(1)
    return [n for n, has in zip(training.names, tagged, strict=True) if has and n in photos.labels]


@pytest.fixture(scope="module")
def looked(made, photos) -> tuple[Tables, Counter[str]]:
    """The table of looks, and the work that it took."""
    with counting(WORK) as count:
        tables = tabulate(photos, made.dataset, made.result.folder, "checkmask")
    return tables, count


def test_looks_begin_with_the_run_itself_and_train_segmenters_alone(made, looked):
    tables, worked = looked
    assert worked == Counter({"pyramid": 5 * 2}), "of two rounds, for 20 and 50 % twice, and 100 %"
    rows = tables.tables[0].rows
    _, _, masks, val = made.tables.tables[0].rows[0]
    assert rows[0] == ("0 % (0 photos)", val, val, masks, masks)
    assert [str(row[0]).split(" (")[0] for row in rows] == ["0 %", "20 %", "50 %", "100 %"]
    assert rows[-1][1] == rows[-1][2]
    assert float(str(rows[-1][3])) > float(str(masks)), "every mask is the best one now"
    assert "SIMULATED FROM GROUND TRUTH" in tables.markdown.read_text()


def test_picks_are_of_what_review_would_offer(made, looked, photos):
    """One of the maps that the run kept, and it is the photo's final mask then."""
    run = Workspace.read(made.result.folder)
    training = made.dataset.without(photos.val)
    offered = {maps.id: maps for maps in find_label_maps(run, training)[:MOST_MAPS]}
    assert len(offered) > 2
    every = Workspace.read(made.result.folder / "tables" / "checkmask-100")
    acts = read_review(every.finished("simulated-review").read_path("review.jsonl")).acts
    final = find_label_maps(every, training)[0]
    for act in acts:
        assert isinstance(act, Accepted)
        shape = photos.labels[act.photo].shape
        picked = labels_at(offered[str(act.candidate)].read(act.photo), shape)
        assert np.array_equal(final.read(act.photo), picked)
    assert {act.photo for act in acts} == set(able(training, photos))


def test_the_least_trusted_first_is_the_order_of_review(made, looked, photos):
    run = Workspace.read(made.result.folder)
    training = made.dataset.without(photos.val)
    trust = dict(zip(training.names, judged(run, training).tolist(), strict=True))
    order = sorted(able(training, photos), key=lambda name: trust[name])
    half = Workspace.read(made.result.folder / "tables" / "checkmask-doubt-50")
    acts = read_review(half.finished("simulated-review").read_path("review.jsonl")).acts
    assert [act.photo for act in acts] == order[: len(acts)]
    assert len(acts) == round(len(order) / 2)


def test_damaged_masks_to_pick_from_are_mended_where_they_are(
    made, looked, photos, tmp_path, monkeypatch
):
    """In the variant that keeps them, which is not the one that reads them."""
    run = Path(shutil.copytree(made.result.folder, tmp_path / "run"))
    mended: list[str] = []
    mend, review, damages = Workspace.mend, checkmask._review, iter([DamagedError("is damaged")])

    def reads(*given: Any) -> Any:
        for damage in damages:
            raise damage
        return review(*given)

    def mends(work: Workspace) -> bool:
        mended.append(work.folder.name)
        return mend(work)

    monkeypatch.setattr(checkmask, "_review", reads)
    monkeypatch.setattr(Workspace, "mend", mends)
    assert tabulate(photos, made.dataset, run, "checkmask").tables == looked[0].tables
    assert mended == ["checkmask", "checkmask-random-20"]


def test_rows_take_away_what_the_recipe_has_by_default():
    """Each row changes one field to what is not its default, and has a room of its own."""
    rows = [row for row in ROWS if row.variant != "all"]
    defaults = {item.name: item.default for item in fields(Config)}
    assert len({row.variant for row in rows}) == len(rows) == 23
    for row in rows:
        ((name, value),) = row.changes.items()
        assert defaults[name] != value
        assert getattr(Config(**row.changes), name) == value
