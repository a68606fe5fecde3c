"""The report of a run, from what the run keeps of itself in run.json."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tagseg
from tagseg.data.audit import Audit
from tagseg.data.text import readable, without_folders
from tagseg.errors import ConfigError, WorkspaceError
from tagseg.evaluate.trust import ClassTrust
from tagseg.report.page import (
    ConfigRow,
    RoundRow,
    RunReport,
    StageScore,
    TrustRow,
    WrongTagRow,
    WrongTags,
    render,
)
from tagseg.run.files import read_json, to_checked_json
from tagseg.run.workspace import Workspace, atomic_write
from tagseg.session.scoring import Findings
from tagseg.session.wrong_tags import WRONG_TAGS, told_wrong_tags
from tagseg.stages.context import Run
from tagseg.stages.outcome import Outcome, Progression
from tagseg.stages.recipe import Recipe
from tagseg.stages.review import Acts
from tagseg.stages.reviewed import REVIEWED
from tagseg.stages.settings import WorkSettings

__all__ = ["full_supervision_score", "render_report", "shown_setting", "write_about"]

_REPORT = "report.html"


_ABOUT = "run.json"


_ABOUT_FIELDS = {"recipe", "val", "paper", "classes", "photos", "command", "created"} | {
    "settings",
    "config",
    "audit",
    "stages",
    "curves",
}


def render_report(folder: Path, *, full_supervision: Path | None = None) -> Path:
    """Write the report of a finished run and return its path.

    Args:
        full_supervision: a finished ``full_supervision`` run; remembered for the next time.
    """
    about = _read_about(folder)
    if full_supervision is not None:
        about["full_supervision"] = full_supervision_score(full_supervision, about["val"])
        _write_about(folder, about)
    with _damage_in_one_line(folder / _ABOUT):
        content = render(_page(Workspace.read(folder), about))
    report = folder / _REPORT
    _write(report, content.encode("utf-8", "backslashreplace"))
    return report


@contextmanager
def _damage_in_one_line(path: Path) -> Iterator[None]:
    """A record without a check of its content, as of before there were any, may say anything."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise WorkspaceError(
            f"is damaged ({type(error).__name__})", where=path, do="run tagseg train again"
        ) from error


def _page(work: Workspace, about: dict[str, Any]) -> RunReport:
    """What the report shows, from the record and the stages."""
    stages = {entry["name"]: entry for entry in about["stages"]}
    findings = Findings(work.finished("findings"))
    scores, progression = findings.scores(), about.get("progression")
    confusion, of = findings.confusion()
    reference = about.get("full_supervision")
    return RunReport(
        title=f"{about['recipe']} on {about['photos']} photos",
        recipe=about["recipe"],
        classes=about["classes"],
        paper=about["paper"],
        supervision=about.get("supervision", ""),
        review=_told_review(about.get("review"), stages),
        command=about["command"],
        created=about["created"],
        settings=about["settings"],
        config=[ConfigRow(*row) for row in about["config"]],
        data=about["audit"],
        stages=[(name, entry["seconds"]) for name, entry in stages.items()],
        scores=scores,
        rounds=_rounds(progression, scores),
        rounds_note=progression["reason"] if progression is not None else "",
        full_supervision_miou=reference["miou"] if reference else None,
        confusion=confusion,
        confusion_of=of,
        curves={name: work.finished(name).read_log() for name in about["curves"]},
        classifier_map=findings.tag_score(),
        seeds=findings.seeds(),
        locations=findings.locations(),
        gallery=findings.gallery(),
        wrong_tags=_wrong_tags(about.get("wrong_tags")),
        trust=[_trust_row(ClassTrust.from_json(row)) for row in about.get("trust", ())],
    )


def _write(path: Path, content: bytes) -> None:
    """Write a file as a whole, unless that is what it holds."""
    if path.is_file() and path.read_bytes() == content:
        return
    with atomic_write(path) as file:
        file.write(content)


def write_about(
    run: Run,
    recipe: Recipe,
    config: WorkSettings,
    found: Audit,
    outcome: Outcome,
    command: str,
) -> None:
    """Keep all that the report needs beside the findings, in run.json."""
    work = run.open_workspace
    old = _old_about(work.folder)
    about = {
        "recipe": work.recipe,
        "val": run.val_key,
        "paper": recipe.paper,
        "supervision": config.supervision(),
        "classes": list(work.classes),
        "photos": len(run.photos),
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": {
            **work.settings["options"],
            **work.settings["setup"],
            **({"preset": work.settings["preset"]} if "preset" in work.settings else {}),
            "tagseg": tagseg.__version__,
        },
        "config": [
            [name, shown_setting(value), where] for name, value, where, _ in recipe.sources(config)
        ],
        "audit": list(found.lines()),
        "stages": [{"name": s.name, "seconds": round(s.seconds, 3)} for s in work.summary()],
        "curves": [stage.name for stage in outcome.curves],
        "progression": _told(outcome.progression),
        "full_supervision": old.get("full_supervision") if old.get("val") == run.val_key else None,
    }
    if run.review is not None:
        about["review"] = {**run.review.settings.acting(), "acts": run.review.acts.to_json()}
    told = told_wrong_tags(run, config)
    if told is not None:
        about["wrong_tags"] = told
    if outcome.trust:
        about["trust"] = [trust.to_json() for trust in outcome.trust]
    _write_about(work.folder, about)


def shown_setting(value: Any) -> Any:
    """A setting as run.json and the report have it: JSON data without absolute paths."""
    if isinstance(value, tuple | list):
        return [shown_setting(item) for item in value]
    return readable(without_folders(value)) if isinstance(value, str) else value


def _told(progression: Progression | None) -> dict[str, Any] | None:
    """Rounds as JSON data: which predictions belong to which."""
    if progression is None:
        return None
    rounds = [
        {
            "round": entry.number,
            "agreement": entry.agreement,
            "predictions": [[item.id, item.split] for item in entry.predictions],
        }
        for entry in progression.rounds
    ]
    return {"rounds": rounds, "reason": progression.reason}


def _rounds(told: dict[str, Any] | None, scores: Sequence[StageScore]) -> list[RoundRow]:
    """The rounds with their predictions' scores."""
    if told is None:
        return []
    of_round = {(score.id, score.split, score.number): score for score in scores}
    rows = []
    for entry in told["rounds"]:
        number, measured = entry["round"], []
        for id, split in entry.get("predictions", ()):  # runs of before had titles
            score = of_round.get((id, split, number))
            if score is not None:
                title = score.stage.removesuffix(f", round {number}")
                measured.append((title, split, score.miou))
        rows.append(RoundRow(number, entry["agreement"], tuple(measured)))
    return rows


def _told_review(told: dict[str, Any] | None, stages: Collection[str]) -> str:
    """What a person did, and what of the scores owes to it."""
    if told is None:
        return ""
    acts, weight = Acts.from_json(told["acts"]), told["review_weight"]
    words = [f"{acts.line()}."]
    if acts.accepted:
        words.append(
            f"The {acts.accepted} accepted masks are final masks as they are: scores of final "
            "masks on training photos are of a person's work in part."
        )
        if weight > 1 and any(name.endswith(REVIEWED) for name in stages):
            words.append(f"The segmenter drew their photos {weight} times as often as unsure ones.")
    return " ".join(words)


def _wrong_tags(told: dict[str, Any] | None) -> WrongTags | None:
    """Tags that are probably wrong, if anybody asked."""
    if told is None:
        return None
    rows = [WrongTagRow(*row) for row in told["rows"]]
    return WrongTags(told["line"], tuple(rows), WRONG_TAGS)


def _trust_row(trust: ClassTrust) -> TrustRow:
    return TrustRow(trust.name, trust.photos, trust.expected, trust.low, trust.high, trust.why_not)


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / _ABOUT
    if not path.is_file():
        raise WorkspaceError("holds no finished run", where=folder, do="finish it: tagseg train")
    about = read_json(path)
    if not isinstance(about, dict) or not about.keys() >= _ABOUT_FIELDS:
        raise WorkspaceError("is damaged", where=path, do="run tagseg train again")
    return about


def _old_about(folder: Path) -> dict[str, Any]:
    """What run.json held before, nothing if that cannot be told."""
    try:
        return _read_about(folder)
    except WorkspaceError:
        return {}


def _write_about(folder: Path, about: dict[str, Any]) -> None:
    """Write run.json; it keeps its date if nothing else has changed."""
    path = folder / _ABOUT
    old = _old_about(folder)
    if {**old, "created": ""} == {**about, "created": ""}:
        about = old
    _write(path, to_checked_json(about))


def full_supervision_score(folder: Path, val_key: str) -> dict[str, Any]:
    """Best score of a full_supervision run, with or without CRF, on the photos of ``val_key``."""
    about = _read_about(folder)
    if about["recipe"] != "full_supervision":
        raise ConfigError(
            f"is a run of {about['recipe']}", where=folder, do="give one of full_supervision"
        )
    scores = Findings(Workspace.read(folder).finished("findings")).scores()
    val = [row for row in scores if row.split == "val"]
    if not val:
        raise ConfigError("has no scores on val", where=folder, do="train it with --val")
    if about["val"] != val_key:
        raise ConfigError(
            "was scored on other validation photos",
            where=folder,
            do="give a run of full_supervision with the same --val",
        )
    best = max((row.miou for row in val if row.miou is not None), default=None)
    return {"miou": best, "folder": readable(folder.absolute().name)}
