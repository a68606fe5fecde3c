"""Tables of runs whose segmenter is the pyramid: the paper's keep its own, and one is added."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from small_runs import Photos
from tagseg.errors import ConfigError
from tagseg.run.workspace import Workspace
from tagseg.session.train import Result
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


@pytest.fixture(scope="module")
def finished(go: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """A run of each, made when it is asked for; tests work on copies."""
    folder = tmp_path_factory.mktemp("runs")

    class Made(dict[str, Result]):
        def __missing__(self, paper: str) -> Result:
            config = {**CONFIG, **QUICKER[paper]}
            return self.setdefault(paper, go(paper, config, out=folder / paper))

    return Made()


def copied(result: Result, tmp_path: Path) -> Path:
    return Path(shutil.copytree(result.folder, tmp_path / "run"))


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


def test_labels_of_the_run_beside_ground_truth(paper, finished, photos, tmp_path, monkeypatch):
    result = finished[paper]
    run = copied(result, tmp_path)
    trained: Counter[str] = Counter()
    fit = pyramid_segmenter._fit
    monkeypatch.setattr(
        pyramid_segmenter, "_fit", lambda *a, **k: (trained.update(["pyramid"]), fit(*a, **k))
    )
    (table,) = tabulate(photos, paper, run, "pyramid").tables
    assert trained["pyramid"] == 1  # on ground truth; the run's own is taken over
    own, full = table.rows
    assert (own[0], full[0]) == ("labels of the run", "ground truth")
    of_val = [score.miou for score in result.scores if score.split == "val" and not score.number]
    assert own[2] == pytest.approx(100 * of_val[-1], abs=1e-3)
    assert full[3] == pytest.approx(100)
    assert own[3] == pytest.approx(100 * own[2] / full[2])
    assert tabulate(photos, paper, run, "pyramid").tables == (table,)
    assert trained["pyramid"] == 1


def test_tables_of_the_paper_keep_its_segmenter(finished, photos, tmp_path):
    """Some rows have masks that the pyramid learns no classes from."""
    run = copied(finished["builtin_priors"], tmp_path)
    table, *_ = tabulate(photos, "builtin_priors", run, "6").tables
    assert len(table.rows) > 3
    assert all(row[-1] is not None for row in table.rows)
    rooms = (run / "tables").glob("*/workspace.json")
    assert {Workspace.read(p.parent).settings["config"]["segmenter"] for p in rooms} == {
        "published"
    }


def test_only_of_a_run_that_has_it(run, photos):
    with pytest.raises(ConfigError, match="table pyramid is about runs that end in that segm"):
        tabulate(photos, "builtin_priors", run, "pyramid")
