"""How well things are found by their size: mean IoU of true components, a row for each run.

    python tools/size_curve.py MASKS TRUTH [--names LIST] [--parts 5]

MASKS is a folder of predicted masks, such as ``tagseg predict RUN PHOTOS --out MASKS`` writes,
TRUTH one of ground truth. Components of the ground truth are sorted by their area, as a fraction of
the photo, and shared out to parts of equal number; see ``tagseg.evaluate.ObjectSizes``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tagseg.data.masks import read_mask
from tagseg.evaluate import ObjectSizes


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("masks", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--names", type=Path, help="list of photos; all by default")
    parser.add_argument("--parts", type=int, default=5)
    args = parser.parse_args()
    listed = args.names.read_text().split() if args.names else None
    sizes = ObjectSizes()
    for path in sorted(args.masks.rglob("*.png")):
        name = path.relative_to(args.masks).with_suffix("").as_posix()
        if listed is None or name in listed or Path(name).name in listed:
            sizes.update(read_mask(path), read_mask(args.truth / f"{name}.png"))
    print("| largest, % of the photo | components | mean IoU, % |")
    print("|---|---|---|")
    for part in sizes.parts(args.parts):
        print(f"| {100 * part.largest:.2f} | {part.components} | {100 * part.iou:.1f} |")


if __name__ == "__main__":
    main()
