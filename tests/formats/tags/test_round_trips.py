"""Every format that is read: what a tool writes comes back, and mutated files are refused or read.

Files are written with the standard library, in the dialect of the tool.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tagseg.errors import TagsegError
from tagseg.formats.tags.annotation_folders import read_annotation_folders
from tagseg.formats.tags.tag_files import TagFile, read_tag_file
from tagseg.formats.tags.tag_rows import Hints

Entries = dict[str, tuple[str, ...]]

CLASSES = ("cat", "dog", "Käfer", "traffic light", "tv set", "犬")
PHOTOS = st.text("abcxyz019_-äß", min_size=1, max_size=8).map(lambda stem: stem + ".jpg")
TAGS = st.lists(st.sampled_from(CLASSES), unique=True, max_size=3).map(tuple)
ENTRIES = st.dictionaries(PHOTOS, TAGS, min_size=1, max_size=6).filter(
    lambda entries: any(entries.values())
)
CHECKED = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def table(rows: list[list[str]], delimiter: str = ",", ends: str = "\r\n") -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=ends).writerows(rows)
    return text.getvalue()


def excel(entries: Entries, delimiter: str = ";") -> bytes:
    rows = [["image", "tags"], *([n, ", ".join(tags)] for n, tags in entries.items())]
    return b"\xef\xbb\xbf" + table(rows, delimiter).encode()


def plain(entries: Entries) -> bytes:
    return table([["image", "tags"], *([n, ";".join(t)] for n, t in entries.items())]).encode()


def unicode_text(entries: Entries) -> bytes:
    rows = [["filename", "labels"], *([n, "|".join(t)] for n, t in entries.items())]
    return table(rows, "\t").encode("utf-16")


def pandas(entries: Entries) -> bytes:
    rows = [[str(i), n, str(list(t))] for i, (n, t) in enumerate(entries.items())]
    return table([["", "file_name", "label"], *rows], ends="\n").encode()


def roboflow(entries: Entries) -> bytes:
    rows = [[n, *(f" {int(c in t)}" for c in CLASSES)] for n, t in entries.items()]
    return table([["filename", *(f" {c}" for c in CLASSES)], *rows]).encode()


def open_images(entries: Entries) -> bytes:
    rows = [[n, "v", c, str(int(c in t))] for n, t in entries.items() for c in CLASSES]
    return table([["ImageID", "Source", "LabelName", "Confidence"], *rows]).encode()


def label_studio_csv(entries: Entries) -> bytes:
    rows = [[n, "1", json.dumps({"choices": t}) if len(t) > 1 else "".join(t), "3"]
            for n, t in entries.items()]  # fmt: skip
    return table([["image", "id", "choice", "annotator"], *rows]).encode()


def jsonl(entries: Entries) -> bytes:
    lines = (json.dumps({"file_name": n, "labels": t}) for n, t in entries.items())
    return "\n".join([*lines, ""]).encode()


def array(entries: Entries) -> bytes:
    return json.dumps([{"image": n, "tags": t} for n, t in entries.items()], indent=1).encode()


def by_name(entries: Entries) -> bytes:
    return json.dumps(entries, ensure_ascii=False).encode()


def coco(entries: Entries) -> bytes:
    ids = {c: 3 * i + 1 for i, c in enumerate(CLASSES)}
    pairs = [(i, ids[c]) for i, t in enumerate(entries.values()) for c in t]
    return json.dumps({
        "images": [{"id": i, "file_name": n} for i, n in enumerate(entries)],
        "annotations": [{"image_id": i, "category_id": c, "iscrowd": 0} for i, c in pairs],
        "categories": [{"id": i, "name": c} for c, i in reversed(ids.items())],
    }).encode()  # fmt: skip


def label_studio(entries: Entries) -> bytes:
    def task(name: str, tags: tuple[str, ...]) -> dict[str, object]:
        results = [{"type": "choices", "value": {"choices": [c]}} for c in tags]
        return {"data": {"image": name}, "annotations": [{"result": results}]}

    return json.dumps([task(n, t) for n, t in entries.items()]).encode()


def json_min(entries: Entries) -> bytes:
    def value(tags: tuple[str, ...]) -> object:
        return tags[0] if len(tags) == 1 else {"choices": tags}

    return json.dumps(
        [{"image": n, "choice": value(t), "id": 1} for n, t in entries.items()]
    ).encode()


def cvat(entries: Entries) -> bytes:
    labels = "".join(f"<label><name>{c}</name></label>" for c in CLASSES)
    images = "".join(
        f"<image name={quoteattr(n)}>" + "".join(f"<tag label={quoteattr(c)}/>" for c in t)
        + "</image>" for n, t in entries.items()
    )  # fmt: skip
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    return (
        f'<?xml version="1.0" encoding="utf-8"?><annotations>{meta}{images}</annotations>'.encode()
    )


FORMS: dict[str, tuple[str, Callable[[Entries], bytes]]] = {
    "plain": ("t.csv", plain),
    "excel": ("t.csv", excel),
    "excel, tabs": ("t.csv", lambda entries: excel(entries, "\t")),
    "unicode text": ("t.txt", unicode_text),
    "pandas": ("t.csv", pandas),
    "roboflow": ("_classes.csv", roboflow),
    "open images": ("t.csv", open_images),
    "label studio, csv": ("t.csv", label_studio_csv),
    "jsonl": ("t.jsonl", jsonl),
    "array": ("t.json", array),
    "by name": ("t.json", by_name),
    "coco": ("t.json", coco),
    "label studio": ("t.json", label_studio),
    "json-min": ("t.json", json_min),
    "cvat": ("t.xml", cvat),
}


def read(folder: Path, name: str, data: bytes) -> TagFile:
    path = folder / name
    path.write_bytes(data)
    return read_tag_file(path, Hints(separator=None))


def tags_by_photo(said: TagFile) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in said.rows:
        found.setdefault(row.image, set()).update(row.tags)
    return found


@pytest.mark.parametrize("form", FORMS)
@given(entries=ENTRIES)
@CHECKED
def test_what_is_written_is_read_back(tmp_path_factory, form, entries):
    name, write = FORMS[form]
    said = read(tmp_path_factory.mktemp("r"), name, write(entries))
    assert tags_by_photo(said) == {n: set(tags) for n, tags in entries.items()}


SAMPLE: Entries = {"a.jpg": ("cat", "dog"), "b.jpg": ("cat",), "c.jpg": (), "ä.jpg": ("tv set",)}


def told(call: Callable[[], object]) -> str:
    """What the only error that may be raised says; empty if there is none."""
    try:
        call()
    except TagsegError as problem:
        return str(problem)
    return ""


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A cut, changed bytes, or bytes put in."""
    kind = draw(st.sampled_from(["cut", "change", "insert", "repeat"]))
    places = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=4))
    junk = draw(st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from(
        [b'"', b"'", b",", b";", b"\n", b"\r", b"[", b"{", b"}", b"<", b"null", b"\0", b"\xff"]
    )))  # fmt: skip

    def mutate(data: bytes) -> bytes:
        at = sorted(int(place * len(data)) for place in places)
        if kind == "cut":
            return data[: at[0]]
        if kind == "repeat":
            return data[: at[1]] + data[at[0] :]
        if kind == "insert":
            return data[: at[0]] + junk + data[at[0] :]
        return data[: at[0]] + junk + data[at[0] + len(junk) :]

    return mutate


@pytest.mark.parametrize("form", FORMS)
@given(mutate=mutations())
@settings(CHECKED, max_examples=60)
def test_a_mutated_file_is_read_or_refused_in_one_line(tmp_path_factory, form, mutate):
    name, write = FORMS[form]
    folder = tmp_path_factory.mktemp("m")
    assert "\n" not in told(lambda: read(folder, name, mutate(write(SAMPLE))))


# --- a file a photo -----------------------------------------------------------------------------


def voc(tags: tuple[str, ...]) -> bytes:
    objects = "".join(f"<object><name>{tag}</name></object>" for tag in tags)
    return f"<annotation>{objects}</annotation>".encode()


def labelme(tags: tuple[str, ...]) -> bytes:
    return json.dumps({"flags": {}, "shapes": [{"label": tag} for tag in tags]}).encode()


def yolo(tags: tuple[str, ...]) -> bytes:
    return "".join(f"{CLASSES.index(tag)} 0.5 0.5 0.1 0.1\n" for tag in tags).encode()


FOLDERS = {"voc": (".xml", voc), "labelme": (".json", labelme), "yolo": (".txt", yolo)}


def read_folder(folder: Path, suffix: str, files: dict[str, bytes]) -> TagFile:
    for name, data in files.items():
        (folder / name).with_suffix(suffix).write_bytes(data)
    (folder / "data.yaml").write_text(f"names: {list(CLASSES)}\n", encoding="utf-8")
    photos = {Path(name).stem: folder / name for name in files}
    return read_annotation_folders([folder], photos, folder)


@pytest.mark.parametrize("form", FOLDERS)
@given(entries=ENTRIES)
@CHECKED
def test_files_of_photos_are_read_back(tmp_path_factory, form, entries):
    suffix, write = FOLDERS[form]
    files = {name: write(tags) for name, tags in entries.items()}
    said = read_folder(tmp_path_factory.mktemp("r"), suffix, files)
    assert tags_by_photo(said) == {n[:-4]: set(tags) for n, tags in entries.items()}
    assert all(row.complete for row in said.rows)


@pytest.mark.parametrize("form", FOLDERS)
@given(mutate=mutations())
@settings(CHECKED, max_examples=60)
def test_mutated_files_of_photos(tmp_path_factory, form, mutate):
    suffix, write = FOLDERS[form]
    files = {"a.jpg": write(("cat", "dog")), "b.jpg": mutate(write(("cat", "tv set")))}
    folder = tmp_path_factory.mktemp("m")
    assert "\n" not in told(lambda: read_folder(folder, suffix, files))
