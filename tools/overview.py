"""Draw the README's picture from the gallery of a finished run.

python tools/overview.py RUN docs/images/overview.png --panels "where tags are seen" "ground truth"
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tagseg.report.page import GalleryItem
from tagseg.run.workspace import Workspace
from tagseg.session.scoring import Findings

ROWS = 3
COLUMN = 4 / 3  # inches


def chosen(items: list[GalleryItem]) -> list[GalleryItem]:
    """Training photos from the middle of the ranking and above: neither the best nor the worst."""
    training = [item for item in items if item.split == "train" and item.rank == "median"]
    return training[:ROWS]


def main() -> None:
    """Read the run, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--panels", nargs="+", metavar="TITLE", help="all by default")
    args = parser.parse_args()
    items = chosen(Findings(Workspace.read(args.run).finished("findings")).gallery())
    titles = args.panels or [title for title, _ in items[0].panels]
    height, width = items[0].photo.shape[:2]
    row = COLUMN * height / width + 0.05
    figure = Figure(figsize=(COLUMN * (1 + len(titles)), row * len(items) + 0.2), dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(items), 1 + len(titles), squeeze=False)
    for number, (row, item) in enumerate(zip(axes, items, strict=True)):
        of_item = dict(item.panels)
        pictures = [("photo", item.photo), *((title, of_item[title]) for title in titles)]
        for axis, (title, picture) in zip(row, pictures, strict=True):
            axis.imshow(np.asarray(picture))
            axis.set_axis_off()
            if number == 0:
                axis.set_title(title.replace(" (known tags)", ""), fontsize=7)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.93, 0.02, 0.03)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out)


if __name__ == "__main__":
    main()
