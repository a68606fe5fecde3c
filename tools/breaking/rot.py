"""Files of a finished run that rot: every artefact of every recipe in turn."""

from __future__ import annotations

import random
from pathlib import Path

from breaking.subjects import GOOD, LOG, Subject, Verdict

_KINDS = ("bit", "bit", "bit", "cut", "longer", "removed", "swapped", "zeros")


def rot(subject: Subject, rng: random.Random, number: int) -> Verdict:
    """Damage one file of a finished run; the same command must mend it."""
    run = subject.copy()
    every = _artefacts(run)
    path, kind = run / _next(subject, rng, every), rng.choice(_KINDS)
    content = bytearray(path.read_bytes())
    if kind == "bit" and content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        content = content[: rng.randrange(len(content) + 1)]
    elif kind == "longer":
        content += bytes(rng.randrange(1, 100))
    elif kind == "zeros":
        start = rng.randrange(len(content) + 1)
        content[start : start + 512] = bytes(len(content[start : start + 512]))
    elif kind == "swapped":
        content = bytearray((run / rng.choice(every)).read_bytes())
    path.unlink()
    if kind != "removed":
        path.write_bytes(content)
    verdict = subject.checked(run, kind)
    if verdict.what == GOOD:
        return verdict
    return verdict._replace(more=f"{path.relative_to(run)}: {verdict.more}")


def _artefacts(run: Path) -> list[str]:
    """Files that count: not the log, the page for people, or the lock."""
    left_out = {LOG, ".lock", "report.html"}
    files = (path for path in sorted(run.rglob("*")) if path.is_file())
    return [path.relative_to(run).as_posix() for path in files if path.name not in left_out]


def _next(subject: Subject, rng: random.Random, every: list[str]) -> str:
    """Each artefact once before any comes again; of a folder of many files one."""
    left = subject.notes.setdefault("rot", [])
    if not left:
        folders: dict[str, list[str]] = {}
        for name in every:
            folders.setdefault("/".join(name.split("/")[:3]), []).append(name)
        left += [rng.choice(names) for names in folders.values()]
        rng.shuffle(left)
    return left.pop()
