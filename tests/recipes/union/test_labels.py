"""Ways to labels: what each makes of a photo, which one is taken, and what answers become."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from guided_runs import few_photos, open_run, write_boxes, write_maps
from small_runs import NEGATIVE, UNKNOWN, finished_stages
from tagseg.errors import ConfigError, TagsegError
from tagseg.maps import IGNORE, Labels
from tagseg.recipes.catalog import find_recipe
from tagseg.recipes.union.labels import (
    Evidence,
    Way,
    first_labels,
    later_labels,
    object_sources,
    voters,
    ways_of,
)
from tagseg.stages.context import Run
from tagseg.stages.stage import LabelMaps, Trained
from union_runs import Bench, config_of, drawn, labels_by, made_up_evidence, stage_of

SOURCES = ("barrier", "drfi")


@pytest.fixture
def run(photos, tmp_path) -> Iterator[Run]:
    with open_run(few_photos(photos), tmp_path / "run", recipe="union") as run:
        yield run


@pytest.fixture
def evidence(run, photos) -> Evidence:
    return made_up_evidence(run, photos, config_of(), *SOURCES)


def place(run: Run, number: int) -> int:
    return next(i for i, name in enumerate(run.photos.names) if name == f"train_{number}")


# Ways


def test_all_ways():
    """Class maps alone first; each source joined in two ways; each from every threshold."""
    ways = ways_of(config_of(fusion_thresholds=(0.3, 0.4, 0.5, 0.6)), SOURCES)
    assert len(ways) == 20
    assert len({way.name for way in ways}) == len(set(ways)) == 20
    assert [way.source for way in ways] == [None] * 4 + ["barrier"] * 8 + ["drfi"] * 8
    assert [way.threshold for way in ways[:4]] == [0.3, 0.4, 0.5, 0.6]
    assert ways[0].name == "tags alone from 0.3"
    assert ways[4].name == "tags and barrier (mean) from 0.3"
    assert ways[-1].name == "tags and drfi (product) from 0.36"


def test_ways_along_other_edges():
    """As many for each kind, those of the first kind first; votes of each kind."""
    config = config_of(fusion_thresholds=(0.3, 0.4, 0.6), fusion_edges="superpixels+crf")
    ways = ways_of(config, ["barrier"])
    assert [way.edges for way in ways] == ["superpixels"] * 9 + ["crf"] * 9
    assert len({way.name for way in ways}) == 18
    assert ways[0].name == "tags alone from 0.3, along superpixels"
    assert ways[9].name == "tags alone from 0.3"
    assert [replace(way, edges="crf") for way in ways[:9]] == ways[9:]
    assert voters(ways) == [way for place, way in enumerate(ways) if place % 3 != 1]


def test_labels_along_each_kind_of_edges(run, photos):
    """Of the photos' tags, and other than those of another kind."""
    kinds = ("crf", "superpixels", "grabcut")
    config = config_of(fusion_thresholds=(0.4,), fusion_edges="+".join(kinds))
    evidence = made_up_evidence(run, photos, config)
    assert "superpixels" in finished_stages(run.workspace.folder)
    index = int(run.photos.tags.sum(1).argmax())
    found = evidence.candidates(index, ways_of(config, []))
    names = {0, *(np.flatnonzero(run.photos.tags[index]) + 1)}
    for labels in found:
        assert set(np.unique(labels)) <= names
    assert len({labels.tobytes() for labels in found}) == len(kinds)


def test_products_have_lower_thresholds_as_they_are_smaller():
    ways = ways_of(config_of(fusion_thresholds=(0.3, 0.5)), ["barrier"])
    by_joining = {j: [w.threshold for w in ways[2:] if w.joining == j] for j in ("mean", "product")}
    assert by_joining["mean"] == [0.3, 0.5]
    assert by_joining["product"] == pytest.approx([0.18, 0.3])


def test_without_sources_there_are_class_maps_alone():
    assert ways_of(config_of(fusion_thresholds=(0.4,)), []) == [Way(None, "mean", 0.4)]


@pytest.mark.parametrize("threshold", [1e-6, 1 - 1e-6])
def test_the_least_and_the_highest_threshold(run, photos, threshold):
    config = config_of(fusion_thresholds=(threshold,))
    evidence = made_up_evidence(run, photos, config, "barrier")
    for way in ways_of(config, ["barrier"]):
        assert 0 < way.threshold < 1
        assert evidence.candidates(1, [way])[0].shape == run.photos.image(1).shape[:2]


def test_each_kind_of_ways_has_two_votes_at_most():
    ways = ways_of(config_of(fusion_thresholds=(0.3, 0.4, 0.5, 0.6)), SOURCES)
    found = voters(ways)
    assert found == [way for place, way in enumerate(ways) if place % 4 in (0, 3)]
    assert voters([ways[1], ways[5], ways[6]]) == [ways[1], ways[5], ways[6]]
    assert voters([ways[6], ways[5], ways[4]]) == [ways[6], ways[4]], "in the order given"


# Labels of a photo


@pytest.mark.parametrize("source", [None, "barrier"])
def test_labels_are_of_the_photos_tags_alone(run, evidence, source):
    way = Way(source, "mean", 0.3)
    for index in range(len(run.photos)):
        labels = evidence.candidates(index, [way])[0]
        assert labels.dtype == np.uint8
        assert labels.shape == run.photos.image(index).shape[:2]
        if run.photos.dataset.known[index]:
            assert set(np.unique(labels)) <= {0, *(np.flatnonzero(run.photos.tags[index]) + 1)}


def test_photos_without_tags(run, evidence):
    way = Way("drfi", "product", 0.2)
    assert not evidence.candidates(place(run, NEGATIVE), [way])[0].any(), "which is known"
    assert (evidence.candidates(place(run, UNKNOWN), [way])[0] == IGNORE).all()


def test_what_stands_out_completes_what_is_seen(run, photos, evidence):
    """Class maps that are strong on the upper half of things alone, and weak on the lower."""
    sizes: dict[str, float] = {}
    ways = ways_of(config_of(fusion_thresholds=(0.5,)), ["barrier"])
    for way in ways:
        of_each = []
        for index in np.flatnonzero(run.photos.tags.any(1)):
            true = drawn(run, photos, index) > 0
            found = evidence.candidates(index, [way])[0] > 0
            of_each.append((true & found).sum() / (true | found).sum())
        sizes[way.name] = float(np.mean(of_each))
    alone, mean, product = (sizes[way.name] for way in ways)
    assert alone < min(mean, product)
    assert mean > 0.8


def test_probabilities_sum_to_one(run, evidence):
    index = int(run.photos.tags.sum(1).argmax())
    for way in ways_of(config_of(), SOURCES):
        (probs,) = evidence.probabilities(index, [way])
        assert len(probs) == run.photos.tags[index].sum() + 1
        np.testing.assert_allclose(probs.sum(0), 1, atol=1e-5)


# The first labels


@pytest.mark.parametrize(
    "wanted",
    [
        "tags alone from 0.5",
        "tags and drfi (product) from 0.18",
        "tags and barrier (mean) from 0.3",
    ],
)
def test_labels_of_the_one_way_that_is_much_better(run, photos, wanted):
    """All its pixels if no agreement is asked for."""
    config = config_of(fusion_agreement=0.0)
    evidence = made_up_evidence(run, photos, config, *SOURCES)
    bench = Bench(run, wanted)
    found = first_labels(run, config, evidence, bench)  # type: ignore[arg-type]
    ways = ways_of(config, SOURCES)
    assert bench.names == [way.name for way in ways]
    best = next(i for i, way in enumerate(ways) if way.name == wanted)
    for index in range(len(run.photos)):
        alone = evidence.candidates(index, [ways[best]])[0]
        np.testing.assert_array_equal(found(index), alone)
    shown = bench.candidates(1)
    assert len(shown) == len(ways)
    np.testing.assert_array_equal(shown[best], found(1))


def test_labels_are_what_the_best_ways_agree_on(run, photos):
    """By hand: the mean of the probabilities of all within the tie, 255 under the agreement."""
    config = config_of(fusion_tie=0.25, fusion_agreement=0.9)
    evidence = made_up_evidence(run, photos, config, *SOURCES)
    ways = ways_of(config, SOURCES)
    liked = {ways[0].name: 1.0, ways[3].name: 0.76, ways[-1].name: 0.74}
    found = first_labels(run, config, evidence, Bench(run, liked))  # type: ignore[arg-type]
    unknown = 0
    for index in range(len(run.photos)):
        tags = run.photos.tags[index]
        if not tags.any():
            alone = evidence.candidates(index, ways[:1])[0]
            np.testing.assert_array_equal(found(index), alone)
            continue
        one, other = (next(evidence.probabilities(index, [ways[k]])) for k in (0, 3))
        votes = (one.astype(np.float64) + other) / 2
        names = np.array([0, *(np.flatnonzero(tags) + 1)])
        expected = names[votes.argmax(0)]
        for label in names:
            own = expected == label
            needed = 0.9
            if label and own.any():
                needed = min(needed, votes.max(0)[own].max() - 1e-6)
            expected[own & (votes.max(0) < needed)] = IGNORE
        clear = np.abs(votes.max(0) - 0.9) > 1e-5  # but for rounding
        np.testing.assert_array_equal(found(index)[clear], expected[clear])
        unknown += (expected == IGNORE).sum()
    assert unknown > 0


def test_every_tag_that_is_found_teaches_something(run, photos):
    """Even where no pixel has the votes."""
    config = config_of(fusion_tie=1.0, fusion_agreement=1.0)
    evidence = made_up_evidence(run, photos, config, *SOURCES)
    ways = ways_of(config, SOURCES)
    for index in np.flatnonzero(run.photos.tags.any(1)):
        likely = sum(evidence.probabilities(index, ways))
        found = set(np.unique(evidence.agreed(index, ways, 1.0)).tolist())
        names = np.array([0, *(np.flatnonzero(run.photos.tags[index]) + 1)])
        assert set(names[np.unique(likely.argmax(0))].tolist()) - {0} <= found


# What stands out


def test_sources_without_files(run):
    found = object_sources(run, config_of())
    assert {name: source.source for name, source in found.items()} == {n: n for n in SOURCES}
    assert object_sources(run, config_of(objects="none")) == {}
    only = object_sources(run, config_of(objects="activations"))
    assert [source.source for source in only.values()] == ["activations"]


def test_given_maps_beside_those_that_need_nothing(run, photos, tmp_path):
    folder = write_maps(tmp_path / "maps", few_photos(photos), photos)
    config = config_of(saliency_maps=str(folder))
    found = object_sources(run, config)
    assert {name: source.source for name, source in found.items()} == {
        "given": "folder",
        "barrier": "barrier",
        "drfi": "drfi",
    }
    maps = {name: source.maps() for name, source in found.items()}
    image = run.photos.image(1)
    values = [maps[name](1) for name in maps]
    for one in values:
        assert one.shape == image.shape[:2]
        assert 0 <= one.min() <= one.max() <= 1
    assert not np.array_equal(values[0], values[1])
    assert not np.array_equal(values[1], values[2])
    stages = set(finished_stages(run.workspace.folder))
    assert stages == {"given-saliency", "barrier-saliency", "drfi-saliency"}


def test_boxes_of_which_some_are_left_out(run, tmp_path):
    """Sources that need nothing do without all that goes with boxes."""
    boxes = write_boxes(tmp_path / "boxes")
    every = sorted({Path(line.split(",")[0]).stem for line in boxes.read_text().splitlines()[1:]})
    left_out = tmp_path / "left_out.txt"
    left_out.write_text(f"{every[0]}\n")
    config = config_of(boxes=str(boxes), boxes_left_out=str(left_out))
    found = object_sources(run, config)
    assert list(found) == ["given", "barrier", "drfi"]
    given = found["given"].learned
    assert given is not None
    assert [photo.name for photo in given.boxes.photos] == every[1:]
    assert (found["barrier"].learned, found["drfi"].learned) == (None, None)


def test_a_file_that_does_not_fit_costs_no_training(run, photos, tmp_path):
    folder = write_maps(tmp_path / "maps", few_photos(photos), photos)
    next(folder.rglob("train_1.png")).unlink()
    (tmp_path / "forest").write_text("no forest")
    for config in (
        config_of(saliency_maps=str(folder)),
        config_of(saliency_maps=str(tmp_path / "nowhere")),
        config_of(saliency_model=str(tmp_path / "no.onnx")),
        config_of(saliency_forest=str(tmp_path / "forest")),
        config_of(boxes=str(tmp_path / "boxes.csv")),
    ):
        with pytest.raises(TagsegError):
            find_recipe("union").run(run, config)
    assert finished_stages(run.workspace.folder) == {}


def test_given_without_a_file_is_an_error():
    with pytest.raises(ConfigError, match="nothing is given"):
        config_of(objects="given")


# Later labels


class Oracle:
    """A segmenter that answers as it is told: how sure it is of one label in each half."""

    def __init__(self, n_labels: int, sure: float, unsure: float, label: int | None = None) -> None:
        self.n_labels, self.halves, self.label = n_labels, (sure, unsure), label
        self.decided_by: Any = {"of": "an oracle"}

    def forward(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        count, height, width = images.shape[:3]
        probs = np.empty((count, self.n_labels, height, width), np.float32)
        for half, chance in zip(
            (slice(0, width // 2), slice(width // 2, None)), self.halves, strict=True
        ):
            probs[..., half] = (1 - chance) / (self.n_labels - 1)
            probs[:, self.label or 0, :, half] = chance
        return probs


BEFORE, ANSWERS = "the labels of before", "the segmenter's answers"


class Later:
    """Labels of a second round by an oracle, of which the court takes those that are wanted."""

    def __init__(self, run: Run, oracle: Oracle, wanted: str, **changed: Any) -> None:
        self.run = run
        shapes = [run.photos.image(i).shape[:2] for i in range(len(run.photos))]
        self.before = labels_by(run, "labels-of-before", [np.full(s, 7, np.uint8) for s in shapes])
        segmenter: Any = Trained(oracle, stage_of(run, "oracle"))
        self.bench = Bench(run, wanted)
        self.found: LabelMaps = later_labels(
            run,
            config_of(**changed),
            self.before,
            segmenter,
            self.bench,
            2,  # type: ignore[arg-type]
        )


def halves(labels: Labels) -> tuple[Labels, Labels]:
    return labels[:, : labels.shape[1] // 2], labels[:, labels.shape[1] // 2 :]


def test_answers_that_are_not_sure_teach_nothing(run):
    """Of what is likeliest among the photo's labels, the others set aside."""
    n_labels = len(run.photos.classes) + 1
    # For the background; the rest for all others alike: 0.6 is sure among few labels.
    later = Later(run, Oracle(n_labels, sure=0.6, unsure=0.12), ANSWERS)
    assert later.bench.names == [BEFORE, ANSWERS]
    for index in range(len(run.photos)):
        sure, unsure = halves(later.found(index))
        if not run.photos.dataset.known[index]:
            assert (later.found(index) == IGNORE).all()
            continue
        tags = int(run.photos.tags[index].sum())
        chances = [p / (p + tags * (1 - p) / (n_labels - 1)) for p in (0.6, 0.12)]
        assert not sure.any()
        assert chances[0] > 0.7
        assert (unsure == (0 if chances[1] >= 0.7 else IGNORE)).all()
        assert (tags == 0) == (chances[1] >= 0.7)


def test_the_court_hears_whole_answers(run):
    """With what is not sure, which is no mask's fault."""
    later = Later(run, Oracle(len(run.photos.classes) + 1, 0.9, 0.12), ANSWERS)
    for index in range(len(run.photos)):
        before, answers = later.bench.candidates(index)
        np.testing.assert_array_equal(before, later.before(index))
        assert IGNORE not in answers
        if run.photos.dataset.known[index]:
            assert set(np.unique(answers)) <= {0, *(np.flatnonzero(run.photos.tags[index]) + 1)}


def test_classes_that_a_photo_does_not_have_are_no_answers(run):
    """However sure the segmenter is of them."""
    untagged = int(np.flatnonzero(~run.photos.tags.any(0))[0]) + 1
    oracle = Oracle(len(run.photos.classes) + 1, 0.99, 0.99, label=untagged)
    later = Later(run, oracle, ANSWERS, answer_confidence=0.0)
    for index in range(len(run.photos)):
        found = set(np.unique(later.found(index)).tolist())
        if run.photos.dataset.known[index]:
            assert found <= {0, *(np.flatnonzero(run.photos.tags[index]) + 1)}
        else:
            assert found == {IGNORE}


def test_every_answer_may_teach(run):
    later = Later(run, Oracle(len(run.photos.classes) + 1, 0.4, 0.12), ANSWERS, answer_confidence=0)
    for index in np.flatnonzero(run.photos.dataset.known):
        assert IGNORE not in later.found(int(index))


def test_labels_of_before_stay_where_the_court_prefers_them(run):
    later = Later(run, Oracle(len(run.photos.classes) + 1, 0.9, 0.9), BEFORE)
    for index in range(len(run.photos)):
        np.testing.assert_array_equal(later.found(index), later.before(index))


def test_where_no_answer_is_sure_the_labels_of_before_stay(photos, tmp_path):
    """A segmenter could learn nothing from none."""
    few = few_photos(photos)
    tagged = few.select(
        [name for name, tags in zip(few.names, few.tags, strict=True) if tags.any()]
    )
    with open_run(tagged, tmp_path / "run", recipe="union") as run:
        later = Later(run, Oracle(len(few.classes) + 1, 0.12, 0.12), ANSWERS)
        for index in range(len(run.photos)):
            np.testing.assert_array_equal(later.found(index), later.before(index))


def test_rounds_have_stages_of_their_own(run):
    Later(run, Oracle(len(run.photos.classes) + 1, 0.9, 0.12), ANSWERS)
    assert {"union-answers-2", "union-labels-2"} <= set(finished_stages(run.workspace.folder))


def test_evidence_is_not_changed_by_reading_it(run, evidence):
    index = 1
    before = evidence.seen(index).copy()
    evidence.candidates(index, [Way("barrier", "product", 0.2)])[0]
    np.testing.assert_array_equal(evidence.seen(index), before)


def test_what_decides_on_edges(run, evidence):
    """The CRF's numbers where it is asked for, and regions are among what labels are made of."""
    other = replace(config_of(), crf_iterations=0)
    (parameters,) = Evidence(run, other, [], evidence.sources).decided_by
    assert parameters.iterations == 0
    cut = Evidence(run, replace(other, fusion_edges="superpixels+grabcut"), [], evidence.sources)
    assert [type(one).__name__ for one in cut.decided_by] == ["GrabCutSettings"]
    assert len(cut.made_from) == len(evidence.sources) + 1
