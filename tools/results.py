"""The ledger of quality: recipes x data sets x seeds, trained and scored; writes docs/results.md.

    python tools/results.py --data scenes --recipes cam_baseline builtin_priors --seeds 0 1 2
    python tools/results.py --data "msrc=FOLDER --ground-truth MASKS --val val.txt" ...

A data set is ``scenes``, which is generated, or a name and what follows ``tagseg train`` for it. A
recipe may have settings: ``mcof:segmenter=pyramid,rounds=1``. Each run has a thread and a folder of
its own; a finished one is not run again without --again, a broken one goes on where it was. Rows
are kept in docs/results.json, by data set, recipe and seed; a new figure replaces the one before.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tagseg.data.scenes import write_scenes
from tagseg.run.workspace import Workspace
from tagseg.session.scoring import Findings

ROOT = Path(__file__).parents[1]
SCENES = (2000, 300)  # for training, for validation
REFERENCE = "full_supervision"
REFERENCES = {"published": REFERENCE, "pyramid": f"{REFERENCE}:segmenter=pyramid"}


@dataclass(frozen=True)
class Row:
    """A finished run: its best mean IoU on the validation photos, percent, and what it cost."""

    data: str
    recipe: str
    seed: int
    backbone: str
    iou: float
    stage: str
    minutes: float
    commit: str
    date: str

    def place(self) -> tuple[str, str, str, int]:
        """What tells it from other rows."""
        return self.data, self.backbone, self.recipe, self.seed


def trained(name: str, words: str, recipe: str, seed: int, args: argparse.Namespace) -> Row | None:
    """Run ``tagseg train`` in a process of its own, unless it was finished before."""
    kind, _, settings = recipe.partition(":")
    backbone = "tiny" if name == "scenes" and args.backbone is None else args.backbone
    label = "_".join(filter(None, [name, backbone, recipe.replace(":", "-"), str(seed)]))
    folder = args.out / label.replace(",", "-").replace("=", "-")
    command = [sys.executable, "-m", "tagseg", "train", *shlex.split(words)]
    command += ["--recipe", kind, "--seed", str(seed), "--threads", "1", "--out", str(folder)]
    command += ["--backbone", backbone] if backbone is not None else []
    command += [word for pair in filter(None, settings.split(",")) for word in ("--set", pair)]
    kept, spent = folder.with_suffix(".row.json"), folder.with_suffix(".seconds")
    if kept.exists() and not args.again:
        return Row(**json.loads(kept.read_text()))
    before = float(spent.read_text()) if spent.exists() else 0.0
    start, at = time.monotonic(), commit()  # files may change while it runs
    log = folder.with_suffix(".log")
    with log.open("a") as file:
        single = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, stdout=file, stderr=file, env=single, check=False).returncode
    seconds = before + time.monotonic() - start
    spent.write_text(str(seconds))
    if code != 0:
        print(f"{label}: stopped with status {code}, see {log}", flush=True)
        return None
    run = Workspace.read(folder)
    scores = [
        score for score in Findings(run.finished("findings")).scores() if score.split == "val"
    ]
    best = max(scores, key=lambda score: score.miou)
    used = run.settings["options"]["backbone"]
    row = Row(
        name,
        recipe,
        seed,
        used,
        round(100 * best.miou, 1),
        best.stage,
        round(seconds / 60, 1),
        at,
        datetime.date.today().isoformat(),
    )
    kept.write_text(json.dumps(asdict(row)))
    print(f"{label}: {row.iou} ({row.stage}), {row.minutes} minutes", flush=True)
    return row


def commit() -> str:
    """The commit that is checked out, with a plus where files differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "status", "--porcelain", "src"], capture_output=True, text=True)
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def page(rows: Sequence[Row]) -> str:
    """All rows as Markdown, a table for each data set and backbone."""
    parts = [
        "# Results",
        "",
        "Written by `tools/results.py`; do not edit. Mean IoU on validation photos in percent, the",
        "better of with and without the refiner; mean and range over seeds. The percentages are of",
        "full supervision with the published segmenter and with the pyramid, same backbone.",
    ]
    for data, backbone in sorted({(row.data, row.backbone) for row in rows}):
        here = [row for row in rows if (row.data, row.backbone) == (data, backbone)]
        parts += ["", f"## {data}, {backbone}", ""]
        parts += [
            "| recipe | seeds | mean IoU | of published | of pyramid | minutes | commit | date |"
        ]
        parts += ["|---|---|---|---|---|---|---|---|"]
        parts += lines(here)
    return "\n".join(parts) + "\n"


def lines(rows: Sequence[Row]) -> Iterable[str]:
    """The rows of one table, worst first."""
    by_recipe: dict[str, list[Row]] = {}
    for row in rows:
        by_recipe.setdefault(row.recipe, []).append(row)
    means = {recipe: mean(of) for recipe, of in by_recipe.items()}
    for recipe, of in sorted(by_recipe.items(), key=lambda pair: means[pair[0]]):
        values = sorted(row.iou for row in of)
        spread = f" ({values[0]} to {values[-1]})" if len(values) > 1 else ""
        parts = [
            f"{100 * means[recipe] / means[reference]:.0f} %" if reference in means else "–"
            for reference in REFERENCES.values()
        ]
        minutes = sum(row.minutes for row in of) / len(of)
        seeds = ", ".join(str(row.seed) for row in sorted(of, key=lambda row: row.seed))
        last = max(of, key=lambda row: row.date)
        yield (
            f"| `{recipe}` | {seeds} | {means[recipe]:.1f}{spread} | {parts[0]} | {parts[1]} | "
            f"{minutes:.0f} | {last.commit} | {last.date} |"
        )


def mean(rows: Sequence[Row]) -> float:
    """Mean over seeds."""
    return sum(row.iou for row in rows) / len(rows)


def main() -> None:
    """Train what is missing, keep the rows, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--recipes", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--backbone")
    parser.add_argument("--again", action="store_true", help="also what was finished before")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    kept = args.docs / "results.json"
    rows = [Row(**row) for row in json.loads(kept.read_text())] if kept.exists() else []
    for data in args.data:
        name, _, words = data.partition("=")
        if name == "scenes":
            folder = args.out / "scenes"
            if not folder.exists():
                write_scenes(folder, train=SCENES[0], val=SCENES[1])
            words = (
                f"{folder} --ground-truth {folder}/SegmentationClass --untagged negative --val val"
            )
        for recipe in args.recipes:
            for seed in args.seeds:
                row = trained(name, words, recipe, seed, args)
                if row is None:
                    continue
                rows = [old for old in rows if old.place() != row.place()] + [row]
                rows.sort(key=Row.place)
                kept.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
                (args.docs / "results.md").write_text(page(rows))


if __name__ == "__main__":
    main()
