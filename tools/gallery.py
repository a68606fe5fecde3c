"""Pictures of a finished run for a page: its best, median and worst photos with their masks.

    python tools/gallery.py RUN OUT_DIR [--page docs/gallery.md --name leaves]

Each becomes a small JPEG in OUT_DIR: the photo, the run's last prediction over it, and the ground
truth where there is one; below it stands the mean IoU of that photo's classes. The pictures are
those that the run's own report shows, so that photos need not be at hand. Without ground truth
they are a sample, and have no figure. Markdown with captions is printed, or written into PAGE
between the lines ``<!-- gallery: NAME -->`` and ``<!-- /gallery -->``.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PilImage

from tagseg.maps import Image
from tagseg.report.page import GalleryItem
from tagseg.run.workspace import Workspace
from tagseg.session.scoring import Findings

MOST_BYTES = 60_000
GAP = 6  # white pixels between the pictures of a photo
TRUTH = "ground truth"
RANKS = ("best", "median", "worst", "sample")


def chosen(items: Sequence[GalleryItem], per_rank: int) -> list[GalleryItem]:
    """Of the validation photos, or else of the training photos: the first of each rank."""
    split = "val" if any(item.split == "val" for item in items) else "train"
    shown = [item for item in items if item.split == split]
    return [
        item for rank in RANKS for item in [item for item in shown if item.rank == rank][:per_rank]
    ]


def panels(item: GalleryItem) -> list[tuple[str, Image]]:
    """The photo, the last prediction, and ground truth where there is one, with their titles."""
    predictions = [panel for panel in item.panels if panel[0] != TRUTH]
    truth = [panel for panel in item.panels if panel[0] == TRUTH]
    return [("photo", item.photo), *predictions[-1:], *truth]


def strip(pictures: Sequence[Image]) -> Image:
    """Pictures of one height beside one another, with a gap."""
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(parts[1:], axis=1)


def jpeg(picture: Image, most: int = MOST_BYTES) -> bytes:
    """A picture as a JPEG of the best quality that keeps it small."""
    for quality in range(92, 20, -6):
        file = io.BytesIO()
        PilImage.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=0)
        if file.tell() <= most:
            return file.getvalue()
    raise SystemExit(f"a picture of {picture.shape[1]} x {picture.shape[0]} is over {most} bytes")


def caption(item: GalleryItem) -> str:
    """What is said of a photo."""
    score = "" if item.score is None else f", {item.measure} {100 * item.score:.0f} %"
    return f"{item.rank}{score}"


def file_name(run: str, item: GalleryItem) -> str:
    """A name of plain letters, whatever the photo is called."""
    plain = re.sub(r"[^\w.-]+", "-", item.name, flags=re.A).strip("-.") or "photo"
    return f"{run}-{item.rank}-{plain}.jpg"


def written(run: str, items: Sequence[GalleryItem], out: Path) -> Iterator[tuple[Path, str, str]]:
    """Write the pictures; each one's file, caption and the titles of its parts."""
    out.mkdir(parents=True, exist_ok=True)
    for item in items:
        shown = panels(item)
        path = out / file_name(run, item)
        path.write_bytes(jpeg(strip([picture for _, picture in shown])))
        yield path, caption(item), ", ".join(title for title, _ in shown)


def markdown(pictures: Sequence[tuple[Path, str, str]], page: Path) -> str:
    """The pictures with their captions, their files as seen from ``page``."""
    parts = []
    for path, said, titles in pictures:
        link = Path(os.path.relpath(path, page.parent)).as_posix()
        parts.append(f"![{said}: {titles}]({link})\n\n{said[0].upper()}{said[1:]}: {titles}.")
    return "\n\n".join(parts)


def with_gallery(text: str, name: str, inside: str) -> str:
    """A page with what stands between the marks of ``name`` replaced."""
    mark = re.compile(
        rf"(<!-- gallery: {re.escape(name)} -->\n).*?(<!-- /gallery -->)", re.M | re.S
    )
    if not mark.search(text):
        raise SystemExit(f"the page has no line <!-- gallery: {name} --> before <!-- /gallery -->")
    return mark.sub(lambda found: f"{found[1]}\n{inside}\n\n{found[2]}", text)


def main(words: Sequence[str] | None = None) -> None:
    """Read the run, write the pictures, tell of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--per-rank", type=int, default=1, help="of best, median and worst each")
    parser.add_argument("--name", help="begins the files' names; default: the run's")
    parser.add_argument("--page", type=Path, help="Markdown page with marks of that name")
    args = parser.parse_args(words)
    name = args.name or args.run.resolve().name
    items = Findings(Workspace.read(args.run).finished("findings")).gallery()
    pictures = list(written(name, chosen(items, args.per_rank), args.out))
    page = args.page or Path("page.md")
    found = markdown(pictures, page)
    if args.page is None:
        sys.stdout.write(found + "\n")
    else:
        page.write_text(with_gallery(page.read_text("utf-8"), name, found), "utf-8")


if __name__ == "__main__":
    main()
