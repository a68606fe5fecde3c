"""Tables of runs whose segmenter is the pyramid: the paper's keep its own, and one is added."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from small_runs import Photos
from tagseg.errors import ConfigError
from tagseg.run.workspace import Workspace
from tagseg.stages import pyramid_segmenter
from tagseg.tables.making import Tables, make_tables

CONFIG: dict[str, Any] = {
    "segmenter": "pyramid",
    "pyramid_iterations": 2,
    "pyramid_batch_size": 2,
    "pyramid_crop": 32,
}
QUICKER: dict[str, dict[str, Any]] = {
    "builtin_priors": {},
    "guided": {"saliency": "barrier"},
    "mcof": {"saliency": "barrier", "rounds": 1, "regionnet_iterations": 2},
}


@pytest.fixture(params=sorted(QUICKER))
def paper(request):
    return request.param


def tabulate(photos: Photos, paper: str, run: Any, *only: str) -> Tables:
    return make_tables(
        paper,
        photos.dataset,
        run,
        val=photos.val,
        ground_truth=photos.truth(),
        only=only,
        threads=1,
    )


def test_labels_of_the_run_beside_ground_truth(paper, go, photos, tmp_path, monkeypatch):
    result = go(paper, {**CONFIG, **QUICKER[paper]}, out=tmp_path / "run")
    trained: Counter[str] = Counter()
    fit = pyramid_segmenter._fit
    monkeypatch.setattr(
        pyramid_segmenter, "_fit", lambda *a, **k: (trained.update(["pyramid"]), fit(*a, **k))
    )
    (table,) = tabulate(photos, paper, tmp_path / "run", "pyramid").tables
    assert trained["pyramid"] == 1  # on ground truth; the run's own is taken over
    own, full = table.rows
    assert (own[0], full[0]) == ("labels of the run", "ground truth")
    of_val = [score.miou for score in result.scores if score.split == "val" and not score.number]
    assert own[2] == pytest.approx(100 * of_val[-1], abs=1e-3)
    assert full[3] == pytest.approx(100)
    assert own[3] == pytest.approx(100 * own[2] / full[2])
    assert tabulate(photos, paper, tmp_path / "run", "pyramid").tables == (table,)
    assert trained["pyramid"] == 1


def test_tables_of_the_paper_keep_its_segmenter(go, photos, tmp_path):
    """Some rows have masks that the pyramid learns no classes from."""
    go("builtin_priors", CONFIG, out=tmp_path / "run")
    table, *_ = tabulate(photos, "builtin_priors", tmp_path / "run", "6").tables
    assert len(table.rows) > 3
    assert all(row[-1] is not None for row in table.rows)
    rooms = (tmp_path / "run/tables").glob("*/workspace.json")
    assert {Workspace.read(p.parent).settings["config"]["segmenter"] for p in rooms} == {
        "published"
    }


def test_only_of_a_run_that_has_it(go, photos, tmp_path):
    go("builtin_priors", {}, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="table pyramid is about runs that end in that segm"):
        tabulate(photos, "builtin_priors", tmp_path / "run", "pyramid")
