"""What `tagseg check` costs a photo: time on all cores and on one, and memory, by number of photos.

    python benchmarks/check_photos.py FOLDER [photos ...]

FOLDER holds at least a few JPEG files. The photos are hard links to 200 of them, with a tag file,
in a temporary folder. Memory is the peak of the command's process, over that for as many photos as
there are different ones. CPU time is that of all threads, and less swayed by what else is running.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

DIFFERENT = 200


def lay_out(originals: list[Path], count: int, folder: Path) -> None:
    """``count`` photos and their tags.csv."""
    names = [f"photo_{i:07d}.jpg" for i in range(count)]
    copies = []
    for original in originals:  # hard links need one file system
        copies.append(folder.parent / original.name)
        if not copies[-1].exists():
            copies[-1].write_bytes(original.read_bytes())
    for i, name in enumerate(names):
        os.link(copies[i % len(copies)], folder / name)
    rows = "".join(f"{name},{('cat', 'dog', 'cat;dog')[i % 3]}\n" for i, name in enumerate(names))
    (folder / "tags.csv").write_text("image,tags\n" + rows)


def check(folder: Path, *options: str) -> tuple[float, float, int]:
    """Seconds, seconds of CPU time and peak memory in bytes of the command."""
    command = [sys.executable, "-m", "tagseg", "check", str(folder), "--json", *options]
    begun = time.perf_counter()
    child = os.fork()
    if not child:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os.execv(sys.executable, command)
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(f"the command failed: {' '.join(command)}")
    took = time.perf_counter() - begun
    return took, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def measure(originals: list[Path], counts: list[int], *options: str) -> None:
    base: tuple[float, float, int] | None = None
    for count in (len(originals), *counts):
        with tempfile.TemporaryDirectory() as folder:
            photos = Path(folder) / "photos"
            photos.mkdir()
            lay_out(originals, count, photos)
            seconds, cpu, memory = check(photos, *options)
        begin = f"{count:>7,} photos: {seconds:6.1f} s, {cpu:6.1f} s of CPU, {memory / 1e6:.0f} MB"
        if base is None:
            base = seconds, cpu, memory
            print(f"{begin}: the base", flush=True)
            continue
        more, grown = count - len(originals), memory - base[2]
        rate, each = more / (seconds - base[0]), 1e3 * (cpu - base[1]) / more
        print(
            f"{begin}; over the base {rate:.0f} a second, {each:.2f} ms of CPU and "
            f"{grown / more:.0f} bytes a photo",
            flush=True,
        )


def main() -> None:
    originals = sorted(Path(sys.argv[1]).glob("*.jpg"))[:DIFFERENT]
    counts = list(map(int, sys.argv[2:] or ("4000", "40000")))
    for cores in ("all cores", "one thread"):
        print(cores)
        measure(originals, counts, *(() if cores == "all cores" else ("--threads", "1")))


if __name__ == "__main__":
    main()
