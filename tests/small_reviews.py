"""Reviews as ``tagseg review`` writes them, for tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from tagseg.data.masks import encode_mask
from tagseg.formats.review import Accepted, Act, Rejected, Retagged, act_line, head_line
from tagseg.maps import Labels

AT = datetime(2026, 11, 30, 10, tzinfo=UTC)


def accepted(
    folder: Path, photo: str, mask: Labels, how: str = "right", number: int = 1
) -> Accepted:
    """An act whose mask lies in the folder."""
    data = encode_mask(mask)
    name = f"review/{photo.replace('/', '_')}-{number}.png"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    candidate = "raw-masks" if how == "pick" else None
    digest = sha256(data).hexdigest()
    return Accepted(photo=photo, at=AT, how=how, mask=name, sha256=digest, candidate=candidate)


def rejected(photo: str) -> Rejected:
    return Rejected(photo=photo, at=AT)


def retagged(photo: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> Retagged:
    return Retagged(photo=photo, at=AT, add=tuple(add), remove=tuple(remove))


def write_review(folder: Path, classes: Sequence[str], acts: Sequence[Act]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "review.jsonl"
    path.write_bytes(head_line("run", classes) + b"".join(map(act_line, acts)))
    return path


def review_of_masks(
    folder: Path, classes: Sequence[str], masks: Mapping[str, Labels], wrong: Collection[str] = ()
) -> Path:
    """A review that accepts some masks and rejects those of other photos."""
    acts = [accepted(folder, photo, mask) for photo, mask in masks.items()]
    return write_review(folder, classes, [*acts, *map(rejected, wrong)])
