"""Train the small student that we ship, on generated clips; writes its file.

    python tools/make_student.py [--clips 400] [--iterations 800] [--out FILE]

The clips show one or two moving objects of 16 classes, none of which is a class of the scenes,
under a moving camera. All of it is ``tagseg train-student``: VideoPCA finds what moves, and the
student learns from its best frames. The exact masks, which are drawn with the clips, only score
every fifth clip, which is not trained on. Prints both scores.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tagseg.data.clips import write_clips
from tagseg.data.scenes import OBJECTS
from tagseg.priors.student import SHIPPED, load_student, save_student
from tagseg.run.engine import set_threads
from tagseg.run.progress import Progress
from tagseg.session.train_student import StudentTraining, train_student

SEED = 700  # tests and demos draw other clips
KIND = replace(OBJECTS, sizes=(0.22, 0.8))  # from small things to what fills the picture


def main() -> None:
    """Draw, train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--iterations", type=int, default=800)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    args = parser.parse_args()
    set_threads(args.threads)
    progress = Progress(Console())
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder) / "clips"
        with progress.task("drawing clips", args.clips) as ticks:
            write_clips(clips, count=args.clips, seed=SEED, kind=KIND, advance=ticks.advance)
        done = train_student(
            clips,
            args.out,
            StudentTraining(iterations=args.iterations),
            masks=clips / "SegmentationClass",
            device="cpu",
            progress=progress,
        )
    # Half precision again loses nothing: the weights are what the file held.
    about = {
        "trained_on": f"{done.lessons} of {done.frames} frames of generated clips "
        f"(tools/make_student.py --clips {args.clips} --iterations {args.iterations})",
        "teacher": "VideoPCA",
    }
    save_student(load_student(args.out), args.out, about)
    print("\n".join(done.lines()))
    print(args.out, args.out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
