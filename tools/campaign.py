"""The reliability campaign: break small runs in every way, run the same command, compare.

    python tools/campaign.py rot kills faults --minutes 5 --recipes cam_baseline mcof

``rot`` damages every file of a finished run in turn: bits flipped, cut, longer, swapped, removed.
``kills`` sends SIGKILL at random moments, before every k-th system call, and between checkpoints
that are as far apart as in any run. ``faults`` lets every k-th system call fail, once or from then
on. ``disk`` fills a small disk. ``power`` leaves what a power cut may leave. ``starts`` starts many
at once, on one host and on two. ``fuzz`` gives every reader damaged files. ``soak`` trains,
predicts, evaluates and reports in one process, and watches its memory, files and threads.

After each, the same command must give what an undisturbed run gives, or one line that says why not,
and never a traceback. Each part stops after its minutes; what was found is printed, and kept as
JSON, to which the next call adds. ``make campaign`` runs all parts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from breaking.faults import disk, faults
from breaking.fuzz import fuzz
from breaking.kills import kills
from breaking.power import power
from breaking.rot import rot
from breaking.soak import soak
from breaking.starts import starts
from breaking.subjects import GOOD, RECIPES, REFUSED, Subject
from tagseg.data.scenes import write_scenes

PARTS = {
    "rot": rot,
    "kills": kills,
    "faults": faults,
    "disk": disk,
    "power": power,
    "starts": starts,
    "fuzz": fuzz,
    "soak": soak,
}


class Campaign:
    """Small runs of some recipes, and what came of breaking them."""

    def __init__(self, recipes: list[str], room: Path, seed: int) -> None:
        self.recipes, self.room, self.seed = recipes, room, seed
        self.subjects: dict[str, Subject] = {}
        self.bad = False
        write_scenes(room / "scenes", train=20, val=6)

    def run(self, part: str, minutes: float, most: int) -> Counter[str]:
        """One part for some minutes, or so many times; how often what came of what."""
        rng, found = random.Random(f"{part} {self.seed}"), Counter[str]()
        until, number = time.monotonic() + 60 * minutes, 0
        while time.monotonic() < until and number < most:
            subject = self._subject(self.recipes[number % len(self.recipes)])
            # So that recipes and kinds do not go in step.
            rounds, place = divmod(number, len(self.recipes))
            kind, what, more = PARTS[part](subject, rng, rounds + place)
            found[f"{kind}: {what}"] += 1
            number += 1
            if what != GOOD:
                print(f"{part}, {subject.recipe}, {kind}: {what}: {more}", flush=True)
            self.bad |= what not in (GOOD, REFUSED)
        return found

    def _subject(self, recipe: str) -> Subject:
        if recipe not in self.subjects:
            self.subjects[recipe] = Subject(recipe, self.room)
        return self.subjects[recipe]


def main() -> None:
    """Run the parts, print what came of them, and end with 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=[[], *PARTS])
    parser.add_argument("--minutes", type=float, default=5.0, help="a part")
    parser.add_argument("--times", type=int, default=10**9, help="a part, at most")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/campaign.json"))
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        campaign = Campaign(args.recipes, Path(folder), args.seed)
        for part in args.parts or PARTS:
            began = time.monotonic()
            found = campaign.run(part, args.minutes, args.times)
            shown = ", ".join(f"{kind} {count}" for kind, count in sorted(found.items()))
            print(f"{part}, {(time.monotonic() - began) / 60:.1f} minutes: {shown}", flush=True)
            _add(args.out, part, found)
    sys.exit(int(campaign.bad))


def _add(out: Path, part: str, found: Counter[str]) -> None:
    told = json.loads(out.read_text()) if out.exists() else {}
    told[part] = dict(sorted((Counter(told.get(part, {})) + found).items()))
    out.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
