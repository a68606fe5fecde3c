"""Runs that several processes share, against one process, and with processes killed at random.

    python tools/shared_runs.py same kills --sizes 2 4 --times 20

``same`` trains ``cam_baseline`` on generated scenes by one process and by each number of them:
largest difference of the losses of the first 50 iterations, final mIoU, differing mask pixels.
``kills`` sends SIGKILL to one process after the other at random moments, each time with another
number of them: seconds until all others have ended, and what they said; then the same command
must end as an undisturbed run. Lines as it goes, and a JSON file with all numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from tagseg.data.scenes import write_scenes
from tagseg.ranks.launch import free_port

_RANK = """
import tagseg.training as training
training._LOG_EVERY, training._CHECKPOINT_EVERY = 1, {every}
from tagseg.cli import main
main()
"""
_COMPARED = 50  # iterations of each training
_PATIENCE = 60.0  # seconds in which a death must be noticed by all


class Runs:
    """Runs on one set of scenes."""

    def __init__(self, folder: Path, iterations: int) -> None:
        self.folder, self.scenes = folder, folder / "scenes"
        write_scenes(self.scenes, train=60, val=24)
        self.settings = [
            *("--set", f"classifier_iterations={iterations}"),
            *("--set", f"segmenter_iterations={iterations}"),
            *("--set", "classifier_width=64", "--set", "segmenter_width=64"),
        ]

    def start(self, name: str, size: int, every: float) -> list[subprocess.Popen[str]]:
        """The processes of a run, each of one thread."""
        words = ["train", self.scenes, "--recipe", "cam_baseline", "--out", self.folder / name]
        words += ["--val", "val", "--ground-truth", self.scenes / "SegmentationClass"]
        words += ["--backbone", "tiny", "--device", "cpu", "--precision", "fp32"]
        words += ["--threads", size, *self.settings]
        command = [sys.executable, "-c", _RANK.format(every=every), *map(str, words)]
        shared = os.environ | {"WORLD_SIZE": str(size), "MASTER_PORT": str(free_port())}
        shared |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        shared.setdefault("GLOO_SOCKET_IFNAME", "lo")
        return [
            subprocess.Popen(
                command,
                env=shared | {"RANK": str(rank)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]

    def is_open(self, name: str, since: float) -> bool:
        """Whether the processes have found one another and have opened the run's folder."""
        word = self.folder / name / ".lock-owner.json"
        return word.exists() and word.stat().st_mtime >= since

    def finish(self, name: str, size: int, every: float = 15.0) -> float:
        """Seconds that the run takes to its end."""
        begun = time.monotonic()
        processes = self.start(name, size, every)
        said = [process.communicate()[1] for process in processes]
        if any(process.returncode for process in processes):
            raise SystemExit(f"{name}: {said}")
        return time.monotonic() - begun

    def losses(self, name: str) -> np.ndarray[Any, Any]:
        """Of the first iterations of the classifier and of the segmenter, (2, 50)."""
        logs = sorted(self.folder.glob(f"{name}/stages/*/metrics.jsonl"))
        lines = [[json.loads(line)["loss"] for line in log.open()][:_COMPARED] for log in logs]
        return np.array(lines)

    def told(self, name: str) -> dict[str, float]:
        """Final mIoU on photos that were not trained on, and on those that were."""
        found = next(self.folder.glob(f"{name}/stages/*-findings/scores.json"))
        rows = json.loads(found.read_text())
        return {f"{row['stage']}, {row['split']}": row["miou"] for row in rows}

    def differ(self, name: str, other: str) -> tuple[float, float]:
        """Largest difference of weights, and fraction of the masks' pixels that differ."""
        files = [
            next(self.folder.glob(f"{n}/stages/*-export/*.safetensors")) for n in (name, other)
        ]
        ours, theirs = map(load_file, files)
        weights = max(float(np.abs(ours[key] - theirs[key]).max()) for key in theirs)
        apart = total = 0
        for path in self.folder.glob(f"{name}/stages/*-masks/masks/*.png"):
            twin = next(self.folder.glob(f"{other}/stages/*-masks/masks/{path.name}"))
            one, two = (np.asarray(Image.open(file)) for file in (path, twin))
            apart, total = apart + int((one != two).sum()), total + one.size
        return weights, apart / total


def same(runs: Runs, sizes: list[int]) -> dict[str, Any]:
    """Compare runs by several processes with that of one."""
    took = runs.finish("alone", 1)
    alone, found = runs.losses("alone"), {"1": {"seconds": took, "miou": runs.told("alone")}}
    print(f"1 process: {took:.0f} s, {found['1']['miou']}", flush=True)
    for size in sizes:
        name = f"by-{size}"
        took = runs.finish(name, size)
        apart = np.abs(runs.losses(name) - alone)
        weights, pixels = runs.differ(name, "alone")
        row = {"seconds": took, "miou": runs.told(name), "losses": apart.max(1).tolist()}
        found[str(size)] = row | {"weights": weights, "pixels": pixels}
        print(
            f"{size} processes: {took:.0f} s, losses differ by {apart.max():.1e}, weights by "
            f"{weights:.1e}, {100 * pixels:.3f} % of mask pixels; {row['miou']}",
            flush=True,
        )
    return found


def kills(runs: Runs, sizes: list[int], times: int, seed: int) -> dict[str, Any]:
    """Kill one process after the other, then let the run end."""
    draw = random.Random(seed)
    runs.finish("undisturbed", 1)
    rows = []
    for number in range(times):
        size = sizes[number % len(sizes)]
        rank = (number // len(sizes)) % size
        started = time.time()
        processes = runs.start("killed", size, 0.5)
        while not runs.is_open("killed", started) and processes[0].poll() is None:
            time.sleep(0.1)
        time.sleep(draw.uniform(0.0, 15.0))
        if any(process.poll() is not None for process in processes):
            print(f"kill {number + 1}: the run had ended", flush=True)
            for process in processes:
                process.communicate()
            continue
        begun = time.monotonic()
        processes[rank].send_signal(signal.SIGKILL)
        said = "".join(process.communicate()[1] for process in processes)
        took = time.monotonic() - begun
        stages = sorted(p.parent.name for p in runs.folder.glob("killed/stages/*/started.json"))
        lines = [line for line in said.splitlines() if "tagseg: error" in line]
        where = stages[-1] if stages else "before"
        rows.append({"size": size, "rank": rank, "seconds": took, "in": where, "said": lines})
        print(f"kill {number + 1}: {rank} of {size} in {where}, {took:.1f} s, {lines}", flush=True)
        if took > _PATIENCE or len(lines) != 1:
            print(f"WRONG: {said}", flush=True)
    runs.finish("killed", sizes[0])
    weights, pixels = runs.differ("killed", "undisturbed")
    print(f"at the end weights differ by {weights:.1e}, {100 * pixels:.3f} % of mask pixels")
    return {"kills": rows, "weights": weights, "pixels": pixels}


def main() -> None:
    """Do the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=["same", "kills"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("shared_runs.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shared-runs-") as folder:
        runs = Runs(Path(folder), args.iterations)
        found: dict[str, Any] = {}
        if "same" in args.parts:
            found["same"] = same(runs, args.sizes)
        if "kills" in args.parts:
            found["kills"] = kills(runs, args.sizes, args.times, args.seed)
    args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
