"""Fit the judge of ``union`` on generated scenes, whose masks are known because they were drawn.

    python tools/calibrate_judge.py --out /tmp/judge          # half an hour on two cores
    python tools/calibrate_judge.py --out /tmp/judge --write  # and replace the one that is shipped

It is fitted to scenes of several objects, and tried on photos with one object each and on spots:
small ones on a large object that stands out and belongs to no class. Fitted to these too it was
worse on scenes and no better on spots. For each set the recipe's own steps are run up to the
candidates, all but the classifier for the photos that are judged alone; features and true IoU are
kept under --out, so that another judge can be fitted without.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from tagseg.data.dataset import Dataset
from tagseg.data.scenes import OBJECTS, SCENES, SINGLE, draw_scene, scene_dataset
from tagseg.evaluate.judge import FEATURES, Judge
from tagseg.maps import Image, Labels, label_of_tag
from tagseg.recipes.union.class_evidence import class_evidence
from tagseg.recipes.union.classifier import MAPS, hiding_classifier, seen_side
from tagseg.recipes.union.config import Config
from tagseg.recipes.union.court import Court, judged_places
from tagseg.recipes.union.labels import Evidence, object_sources, ways_of
from tagseg.recipes.union.recipe import RECIPE
from tagseg.run.progress import Progress
from tagseg.run.workspace import Workspace
from tagseg.session.train import Options, check_data, make_setup
from tagseg.stages.classifier import location_maps
from tagseg.stages.context import Run

SHIPPED = Path(__file__).parents[1] / "src/tagseg/evaluate/judge.json"
SPOTS = {
    "rust": (190, 110, 30),
    "rot": (40, 30, 25),
    "mildew": (215, 215, 205),
    "scab": (110, 90, 120),
}
Scenes = tuple[Dataset, dict[str, Labels]]
Rows = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[str]]


def spots(count: int, *, seed: int = 0, height: int = 192, width: int = 256) -> Scenes:
    """Spots of four colours on one large object, which stands out and is no class."""
    images, labels, tags = [], [], np.zeros((count, len(SPOTS)), np.bool_)
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        scene = draw_scene(OBJECTS, seed, i, height=height, width=width)
        image, drawn = scene.image.copy(), np.zeros((height, width), np.uint8)
        places = np.argwhere(scene.labels > 0)
        for tag in rng.choice(len(SPOTS), rng.choice(3, p=[0.2, 0.6, 0.2]), replace=False):
            for _ in range(rng.integers(1, 6)):
                _spot(image, drawn, int(tag), places[rng.integers(len(places))], rng)
        tags[i] = np.isin([label_of_tag(tag) for tag in range(len(SPOTS))], drawn)
        images.append(image)
        labels.append(drawn)
    names = [f"spots_{i:04d}" for i in range(count)]
    dataset = Dataset.from_arrays(images, tags, tuple(SPOTS), names)
    return dataset, dict(zip(names, labels, strict=True))


def _spot(
    image: Image, labels: Labels, tag: int, at: npt.NDArray[np.intp], rng: np.random.Generator
) -> None:
    """Draw one of 6 to 30 pixels across, of uneven outline and colour, into image and labels."""
    rows, columns = np.mgrid[: labels.shape[0], : labels.shape[1]]
    angle = np.arctan2(rows - at[0], columns - at[1])
    waves = sum(rng.normal(0, 0.12) * np.cos(k * angle + rng.uniform(0, 6)) for k in (2, 3, 5))
    radius = rng.uniform(3, 15) * (1 + waves)
    inside = np.hypot(rows - at[0], columns - at[1]) / np.maximum(radius, 1)
    colour = np.array(list(SPOTS.values())[tag]) + rng.normal(0, 12, 3)
    noise = cv2.GaussianBlur(rng.normal(0, 40, (*labels.shape, 1)), (0, 0), 1.5)[..., None]
    cover = np.clip(4 * (1.1 - inside), 0, 1)[..., None]
    image[:] = np.clip(image * (1 - cover) + (colour + noise) * cover, 0, 255).astype(np.uint8)
    labels[inside <= 1] = label_of_tag(tag)


FITTED = "scenes"
SETS: dict[str, Callable[[], Scenes]] = {
    "spots": lambda: spots(240, seed=13),
    "scenes": lambda: scene_dataset(SCENES, 300, seed=11),
    "single": lambda: scene_dataset(SINGLE, 200, seed=12),
}


def rows_of(name: str, out: Path, config: Config, options: Options) -> Rows:
    """Features (N, F), true IoU (N,) and class of every candidate for some photos of a set."""
    kept = out / f"{name}.npz"
    if not kept.exists():
        features, quality, groups = _heard(name, out / name, config, options)
        np.savez(kept, features=features, quality=quality, groups=np.array(groups))
    with np.load(kept) as content:
        return content["features"], content["quality"], content["groups"].tolist()


def _heard(name: str, folder: Path, config: Config, options: Options) -> Rows:
    photos, truth = SETS[name]()
    with _opened(photos, folder, config, options) as run:
        classifier, side = hiding_classifier(run, config), seen_side(run, config)
        some = [run.photos.names[index] for index in judged_places(run, config)]
    features, quality, groups = [], [], []
    with _opened(photos.select(some), folder / "judged", config, options) as run:
        seen = location_maps(run, config, classifier, kind=MAPS, side=side)
        kinds = class_evidence(run, config, classifier, side)
        pool = {n: source.maps() for n, source in object_sources(run, config).items()}
        evidence = Evidence(run, config, list(kinds.values()), pool)
        court = Court(run, config, classifier, seen, _NOBODY)
        ways = ways_of(config, tuple(pool))
        for index, photo in enumerate(run.photos.names):
            labels = evidence.candidates(index, ways)
            tags = np.flatnonzero(run.photos.tags[index])
            for tag, of_tag in zip(tags, court.features(index, labels), strict=True):
                features.append(of_tag)
                quality += [_iou(found, truth[photo], label_of_tag(int(tag))) for found in labels]
                groups += [f"{name} {run.photos.classes[tag]}"] * len(labels)
    return np.concatenate(features), np.asarray(quality), groups


@contextmanager
def _opened(photos: Dataset, folder: Path, config: Config, options: Options) -> Iterator[Run]:
    data = check_data(photos, (), RECIPE, config, options, Progress())
    with Workspace.open(folder, recipe="union", settings={}, classes=photos.classes) as work:
        yield data.run(make_setup(options, config), work, Progress())


_NOBODY = Judge(
    (0.0,) * len(FEATURES), (1.0,) * len(FEATURES), (0.0,) * len(FEATURES), level=0.0, spread=1.0
)


def _iou(found: Labels, true: Labels, label: int) -> float:
    one, other = found == label, true == label
    return float((one & other).sum() / max(1, (one | other).sum()))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and features")
    parser.add_argument("--threads", type=int, help="of each network; all cores by default")
    parser.add_argument("--write", action="store_true", help="replace the judge that is shipped")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    options = Options(threads=args.threads)
    parts = {name: rows_of(name, args.out, Config(), options) for name in SETS}
    judge = Judge.fitted(*parts[FITTED])
    for name, (own, true, _) in parts.items():
        expected = judge.quality(own)
        known = np.isfinite(expected)
        ranked = spearmanr(expected[known], true[known]).statistic
        print(
            f"{name}: {len(true)} candidates, rank correlation {ranked:.2f}, expected "
            f"{expected[known].mean():.3f}, true {true[known].mean():.3f}"
        )
    print(f"spread of classes left out: {judge.spread:.3f}")
    if args.write:
        SHIPPED.write_text(judge.to_json())
        print(f"written to {SHIPPED}")


if __name__ == "__main__":
    main()
