"""One iteration of every stage of builtin_priors with a full-size VGG-16, without weights.

    python benchmarks/vgg16_full_size.py [--photos 4] [--side 321]

Prints the seconds of each stage and the peak memory of the process. The numbers of the segmenter
and the classifier are those of the paper (60,000 iterations are cut to one).
"""

from __future__ import annotations

import argparse
import resource
import time

import tagseg
from tagseg.data.scenes import SCENES, scene_dataset
from tagseg.run.workspace import Workspace
from tagseg.session.train import Options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=4)
    parser.add_argument("--side", type=int, default=321)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    side = args.side
    photos, truth = scene_dataset(SCENES, args.photos + 2, height=side, width=side)
    start = time.time()
    result = tagseg.train(
        photos,
        "builtin_priors",
        {
            "schedule": "paper",
            "classifier_iterations": 1,
            "segmenter_iterations": 1,
            "photo_side": side,
            "scale_field_of_view": False,
        },
        val=photos.names[args.photos :],
        ground_truth=tagseg.GroundTruth(truth, photos.classes),
        options=Options("vgg16", "none", precision=args.precision, threads=args.threads),
    )
    print(f"{args.photos} photos of {side} x {side}, precision {args.precision}")
    for stage in Workspace.read(result.folder).summary():
        print(f"{stage.name:20s} {stage.seconds:7.1f} s")
    print(f"{'all':20s} {time.time() - start:7.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory          {peak:7.2f} GiB")


if __name__ == "__main__":
    main()
