"""What is fuzzed: each reader, with small files that it reads, from which others are made."""

from __future__ import annotations

import io
import json
import random
import shutil
import sqlite3
import struct
import tarfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from breaking.subjects import Subject
from tagseg.data.images import decode_photo
from tagseg.data.masks import read_mask
from tagseg.data.photo_index import INDEX, read_index
from tagseg.data.saliency_maps import SaliencyFolder
from tagseg.errors import TagsegError
from tagseg.formats.box_files import read_box_rows
from tagseg.formats.coco.instances import read_instances
from tagseg.formats.folders.exclusion import parse_patterns
from tagseg.formats.folders.synsets import read_synsets
from tagseg.formats.lists.class_lists import read_class_list
from tagseg.formats.lists.name_lookup import NameLookup
from tagseg.formats.lists.photo_lists import read_list
from tagseg.formats.loading import load_dataset
from tagseg.formats.review import head_line, read_review, standing_acts
from tagseg.formats.tags.annotation_folders import read_annotation_folders
from tagseg.formats.tags.marks import with_marks
from tagseg.formats.tags.tag_files import Hints, read_tag_file
from tagseg.formats.tags.yolo import read_names_of_yaml
from tagseg.nets.weights import resolve
from tagseg.recipes.catalog import find_recipe
from tagseg.run.checkpoint import Checkpoint, Log
from tagseg.run.map_store import MapStore
from tagseg.run.shard_store import ShardStore
from tagseg.run.workspace import Workspace
from tagseg.session.export import load_segmenter
from tagseg.session.recorded import recorded_command
from tagseg.session.report import render_report
from tagseg.session.settings import parse_settings
from tagseg.tensor_files import read_tensors, tensor_file
from tagseg.web.journal import Journal
from tagseg.web.review_log import ReviewLog

Seeds = tuple[bytes, ...]
Mutated = Callable[[Seeds, random.Random], bytes]

_PHOTOS = ("a", "b", "dir/c d", "2007_000032")
_CLASSES = ("cat", "dog")


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        name, suffix: of the target, and of the files it is given.
        seeds: files that it reads.
        read: reads one.
        changed: makes a file, where changing any bytes would be found out at once.
        allowed: errors that it may raise.
    """

    name: str
    suffix: str
    seeds: Seeds
    read: Callable[[Path], Any]
    changed: Callable[[random.Random, Mutated], bytes] | None = None
    allowed: tuple[type[BaseException], ...] = (TagsegError,)


def targets(subject: Subject) -> list[Target]:
    """All of them; runs are those of ``subject``, or small ones made for it."""
    if "targets" not in subject.notes:
        room = subject.room / f"fuzz-{subject.recipe}"
        room.mkdir(exist_ok=True)
        made = [*texts(), *_pictures(), *_tars(), *_stores(room), *_runs(room, subject)]
        for target in made:
            for seed in target.seeds if target.changed is None else ():
                place = room / f"seed{target.suffix}"
                place.write_bytes(seed)
                target.read(place)  # a seed that is refused would teach nothing
        subject.notes["targets"] = made
    return subject.notes["targets"]


# --- Texts --------------------------------------------------------------------------------------

_CSV = b"image,tags\na.jpg,cat;dog\nb.jpg,\ndir/c d.jpg,?cat;-dog\n"
_WIDE = b"file;cat;dog\na.jpg;1;0\nb.jpg;0;1\n2007_000032.jpg;1;1\n"
_OPEN_IMAGES = b"ImageID,Source,LabelName,Confidence\na,verification,cat,1\nb,verification,dog,0\n"
_COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 6}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 3,
                "iscrowd": 0,
                "area": 6.0,
                "bbox": [1, 1, 3, 2],
                "segmentation": [[1, 1, 4, 1, 4, 3]],
            },
            {
                "id": 2,
                "image_id": 1,
                "category_id": 7,
                "iscrowd": 1,
                "bbox": [0, 0, 2, 2],
                "segmentation": {"size": [6, 8], "counts": [4, 2, 42]},
            },
        ],
    }
).encode()
_LABEL_STUDIO = json.dumps(
    [
        {
            "data": {"image": "/data/upload/a.jpg"},
            "annotations": [
                {"result": [{"type": "choices", "value": {"choices": ["cat", "dog"]}}]}
            ],
        }
    ]
).encode()
_LABELME = json.dumps(
    {
        "version": "5.0",
        "flags": {},
        "imagePath": "a.jpg",
        "imageHeight": 6,
        "imageWidth": 8,
        "shapes": [{"label": "cat", "points": [[1, 1], [2, 2]], "shape_type": "rectangle"}],
    }
).encode()
_VOC = b"""<annotation><filename>a.jpg</filename><size><width>8</width><height>6</height></size>
<object><name>cat</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax>
<ymax>4</ymax></bndbox></object></annotation>"""
_CVAT = b"""<?xml version="1.0"?><annotations><meta><job><labels><label><name>cat</name></label>
<label><name>dog</name></label></labels></job></meta>
<image id="0" name="a.jpg" width="8" height="6">
<tag label="cat"/><box label="dog" xtl="1" ytl="1" xbr="3" ybr="4"/></image></annotations>"""
_REVIEW = b"\n".join(
    json.dumps(line).encode()
    for line in (
        {"tagseg_review": 1, "run": "pets", "classes": list(_CLASSES)},
        {
            "photo": "a",
            "at": "2026-11-30T10:00:00Z",
            "act": "right",
            "mask": "review/a-1.png",
            "sha256": "0" * 64,
        },
        {"photo": "b", "at": "2026-11-30T10:00:03Z", "act": "wrong"},
        {
            "photo": "b",
            "at": "2026-11-30T10:00:05Z",
            "act": "tags",
            "add": ["cat"],
            "remove": [],
        },
        {"photo": "a", "at": "2026-11-30T10:00:07Z", "act": "clear"},
    )
)
_JOURNAL = b"""{"n": 0, "format": 1, "of": "tagseg tag"}
{"n": 1, "act": "class", "name": "dog"}
{"n": 2, "act": "tag", "class": "dog", "on": true, "photos": ["a"]}
"""


def texts() -> list[Target]:
    """Readers of tags, lists, boxes, settings and acts."""
    hints = Hints(None, None, lambda written: Path(written).stem in _PHOTOS, _PHOTOS)
    known = Hints(_CLASSES, ";", lambda written: Path(written).stem in _PHOTOS, _PHOTOS)
    jsonl = b'{"file_name": "a.jpg", "tags": ["cat"]}\n{"file_name": "b.jpg", "tags": []}\n'
    plain = json.dumps({"a.jpg": ["cat"], "b.jpg": [], "dir/c d.jpg": "cat;dog"}).encode()

    def tags(path: Path) -> None:
        with_marks(read_tag_file(path, hints), hints, str(path))
        read_tag_file(path, known)

    def journal(path: Path) -> None:
        Journal(path).close()

    def log(path: Path) -> None:
        ReviewLog(path, "pets", _CLASSES).close()

    def lines(path: Path) -> list[str]:
        return path.read_text("utf-8", "surrogateescape").split("\n")

    config = find_recipe("builtin_priors").config
    boxes = b"image,left,top,right,bottom\na.jpg,1,2,3,4\nb.jpg,0,0,5,5\n"
    msra = b"2\na.jpg\n8 6\n1 1 3 4;\nb.jpg\n8 6\n0 0 5 5; 1 1 4 4;\n"
    return [
        Target("tags-csv", ".csv", (_CSV, _WIDE, _OPEN_IMAGES), tags),
        Target("tags-tsv", ".tsv", (_CSV.replace(b",", b"\t"), _WIDE.replace(b";", b"\t")), tags),
        Target("tags-json", ".json", (_COCO, _LABEL_STUDIO, plain), tags),
        Target("tags-jsonl", ".jsonl", (jsonl,), tags),
        Target("tags-xml", ".xml", (_CVAT,), tags),
        Target("tags-text", ".txt", (_CSV, plain, _CVAT), tags),
        Target("voc", ".xml", (_VOC,), _annotation),
        Target("labelme", ".json", (_LABELME,), _annotation),
        Target("yolo", ".txt", (b"0 0.5 0.5 0.1 0.1\n1 0.1 0.1 0.2 0.2\n",), _annotation),
        Target(
            "yolo-names",
            ".yaml",
            (b"nc: 2\nnames: [cat, 'dog']\n", b"names:\n  0: cat\n  1: dog\n"),
            read_names_of_yaml,
        ),
        Target("coco", ".json", (_COCO,), read_instances),
        Target(
            "classes-text",
            ".txt",
            (
                b"cat\ndog\n",
                b"1 cat\n2 dog\n",
                b"cat: 255 0 0\ndog: 0 255 0\n",
                b"name,r,g,b\ncat,1,2,3\n",
            ),
            read_class_list,
        ),
        Target(
            "classes-json",
            ".json",
            (b'["cat", "dog"]', b'{"1": "cat", "2": "dog"}'),
            read_class_list,
        ),
        Target("classes-yaml", ".yaml", (b"names:\n  0: cat\n  1: dog\n",), read_class_list),
        Target("classes-pbtxt", ".pbtxt", (b'item {\n id: 1\n name: "cat"\n}\n',), read_class_list),
        Target(
            "list",
            ".txt",
            (b"a\nb\n# no\n", b"a.jpg 1\nb.jpg -1\n", b'["a", "b"]', b"image,split\na.jpg,train\n"),
            lambda path: read_list(path, NameLookup(_PHOTOS)),
        ),
        Target("boxes-csv", ".csv", (boxes,), read_box_rows),
        Target("boxes-msra", ".txt", (msra,), read_box_rows),
        Target("boxes-coco", ".json", (_COCO,), read_box_rows),
        Target("synsets", ".txt", (b"n02121620 cat\nn02084071 dog\n",), read_synsets),
        Target(
            "exclude",
            ".txt",
            (b"masks\n*_mask.png\n!train/cat/*",),
            lambda p: parse_patterns(lines(p)),
        ),
        Target(
            "set",
            ".txt",
            (b"alpha=0.3\ncam_scales=1,0.5\nmasks=none\nclassifier_width=16",),
            lambda path: parse_settings(config, lines(path)),
        ),
        Target(
            "review", ".jsonl", (_REVIEW + b"\n",), lambda p: standing_acts(read_review(p).acts)
        ),
        Target("review-log", ".jsonl", (head_line("pets", _CLASSES), _REVIEW + b"\n"), log),
        Target("journal", ".jsonl", (_JOURNAL,), journal),
    ]


def _annotation(path: Path) -> None:
    """As the only annotation of photo "a", in a folder with two names of classes."""
    folder = path.parent / f"annotations{path.suffix}"
    folder.mkdir(exist_ok=True)
    if path.suffix == ".txt":
        (folder / "classes.txt").write_text("cat\ndog\n")
    shutil.copyfile(path, folder / f"a{path.suffix}")
    read_annotation_folders([folder], {"a": folder / "a.jpg"}, folder)


# --- Pictures -----------------------------------------------------------------------------------


def _pictures() -> list[Target]:
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8).repeat(2, 0).repeat(2, 1))
    mask = Image.fromarray(rng.integers(0, 3, (12, 16), np.uint8))
    palette = mask.convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [0] * 759)
    numbers = io.BytesIO()
    np.save(numbers, rng.random((6, 8), np.float32))

    def saliency(path: Path) -> None:
        folder = path.parent / f"saliency{path.suffix}"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / f"a{path.suffix}")
        maps = SaliencyFolder(folder)
        maps.map("a", (6, 8))

    return [
        Target(
            "jpeg",
            ".jpg",
            (_saved(photo, "JPEG"), _saved(photo, "JPEG", progressive=True)),
            decode_photo,
        ),
        Target("png", ".png", (_saved(photo, "PNG"), _saved(mask, "PNG")), decode_photo),
        Target("tiff", ".tif", (_saved(photo, "TIFF"), _saved(mask, "TIFF")), decode_photo),
        Target("webp", ".webp", (_saved(photo, "WEBP"),), decode_photo),
        Target("gif", ".gif", (_saved(palette, "GIF"),), decode_photo),
        Target("bmp", ".bmp", (_saved(photo, "BMP"),), decode_photo),
        Target("mask", ".png", (_saved(mask, "PNG"), _saved(palette, "PNG")), read_mask),
        Target("saliency", ".npy", (numbers.getvalue(),), saliency),
    ]


def _saved(picture: Image.Image, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


# --- Tars ---------------------------------------------------------------------------------------

_HEADER = 512  # bytes
_CHECK = slice(148, 156)  # of the header's checksum


def _tars() -> list[Target]:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8))
    jpeg = _saved(photo, "JPEG")
    samples = {
        "a.jpg": jpeg,
        "a.json": b'{"tags": ["cat", "dog"]}',
        "dir/c d.jpg": jpeg,
        "dir/c d.cls": b"1",
        "2007_000032.jpg": jpeg,
        "2007_000032.txt": b"cat",
        "x" * 150 + ".jpg": jpeg,
    }
    seeds = tuple(_tar(samples, kind) for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))

    def read(path: Path) -> None:
        folder = path.parent / "fuzzed-tars"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / "photos.tar")
        photos = load_dataset(folder, layout="webdataset", untagged="negative")
        for index in range(len(photos)):
            photos.image(index)

    def changed(rng: random.Random, mutated: Mutated) -> bytes:
        return _checked_headers(mutated(seeds, rng))

    plain = Target("tar", ".tar", seeds, read)
    return [plain, replace(plain, name="tar with checked headers", changed=changed)]


def _tar(members: Mapping[str, bytes], kind: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def _checked_headers(content: bytes) -> bytes:
    """The tar with checksums that hold in all its blocks that say to be headers."""
    blocks = bytearray(content)
    for start in range(0, len(blocks) - _HEADER + 1, _HEADER):
        block = blocks[start : start + _HEADER]
        if block[257:262] == b"ustar":
            block[_CHECK] = b" " * 8
            block[_CHECK] = b"%06o\0 " % sum(block)
            blocks[start : start + _HEADER] = block
    return bytes(blocks)


# --- Stores, weights and segmenters -------------------------------------------------------------


def _stores(room: Path) -> list[Target]:
    store = room / "store.sqlite"
    with MapStore(store, writable=True) as maps:
        for name in _PHOTOS:
            maps.put(name, scores=np.arange(40.0), labels=np.eye(3, dtype=np.uint8))
    weights = {"features.0.weight": torch.zeros(2, 3), "b": torch.ones(4)}
    saved = io.BytesIO()
    torch.save(weights, saved)
    old = io.BytesIO()
    torch.save(weights, old, _use_new_zipfile_serialization=False)
    return [
        Target("store", ".sqlite", (store.read_bytes(),), _read_store),
        Target("shards", ".sqlite", (store.read_bytes(),), _read_shards),
        Target(
            "rows", ".sqlite", (), _read_store, lambda rng, change: _odd_rows(rng, change, store)
        ),
        Target("weights-torch", ".pth", (saved.getvalue(), old.getvalue()), _weights),
        Target("weights-safetensors", ".safetensors", (tensor_file(weights),), _weights),
        Target("checkpoint", ".pt", (_state(),), _checkpoint),
        *_index(room),
    ]


def _weights(path: Path) -> None:
    """Read alone: whether they are of the network is told from names and shapes afterwards."""
    resolve(str(path), "tiny")


def _read_store(path: Path) -> None:
    with MapStore(path, complete=True) as maps:
        for name in maps.names():
            maps.get(name)
        maps.digest()


def _read_shards(path: Path) -> None:
    folder = path.with_name("fuzzed.shards")
    folder.mkdir(exist_ok=True)
    shutil.copyfile(path, folder / "000000000.sqlite")
    with ShardStore(folder, complete=True) as maps:
        for name in maps.names():
            maps.get(name)


def _odd_rows(rng: random.Random, change: Mutated, store: Path) -> bytes:
    """A store whose file is whole, with rows of before there were checks that say odd things."""
    content = np.arange(6.0).tobytes()
    heads = (b'[["scores","<f8",[6]]]', b'[["a","|u1",[2,4]],["b","<f8",[5]]]')
    head = change(heads, rng)
    row = b"\0" + struct.pack("<I", len(head)) + head + content
    if rng.random() < 0.3:
        row = change((row,), rng)
    value: Any = rng.choice((row, row, row, None, "text", 3, 0.5))
    place = store.with_name("odd.sqlite")
    place.unlink(missing_ok=True)
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("CREATE TABLE maps (name BLOB, content BLOB)")
        name = rng.choice((b"a", b"\xff", "text", None, 3))
        connection.execute("INSERT INTO maps VALUES (?, ?)", (name, value))
        connection.commit()
    return place.read_bytes()


def _state() -> bytes:
    file = io.BytesIO()
    torch.save({"iteration": 3, "w": torch.ones(4)}, file)
    return blake2b(file.getvalue(), digest_size=32).digest() + file.getvalue()


def _checkpoint(path: Path) -> None:
    log = Log(path.with_name("metrics.jsonl"))
    log.path.write_bytes(path.read_bytes()[-200:])
    log.read()
    Checkpoint(path, log, lambda line: None).load()


def _index(room: Path) -> list[Target]:
    if find_spec("pyarrow") is None:
        return []
    index = next(iter(sorted(room.parent.glob(f"whole-*/{INDEX}"))), None)
    return [] if index is None else [Target("index", ".arrow", (index.read_bytes(),), read_index)]


# --- Runs ---------------------------------------------------------------------------------------


def _runs(room: Path, subject: Subject) -> list[Target]:
    toy, whole = room / "toy", subject.whole
    with Workspace.open(toy, recipe="toy", settings={"command": "tagseg train a --out b"}) as work:
        _through(work)
    about = (whole / "workspace.json").read_bytes()
    (export,) = whole.glob("stages/*-export/segmenter.safetensors")
    shutil.copytree(whole, room / "reported")
    return [
        Target(
            "segmenter",
            ".safetensors",
            (),
            load_segmenter,
            lambda r, c: _odd_segmenter(r, c, export),
        ),
        Target("workspace", ".json", _unchecked((about,)), lambda p: _recorded(p, whole)),
        Target(
            "report",
            ".json",
            _unchecked(((whole / "run.json").read_bytes(),)),
            lambda p: _report(p, room),
        ),
        *(_of_toy(toy, name) for name in ("workspace.json", "stages/01-a/manifest.json")),
        *_onnx(),
    ]


def _through(work: Workspace) -> None:
    with work.stage("a", config={"x": 1}, inputs=["photos"]) as stage:
        if stage.pending:
            stage.save_json("found", [1])
            stage.maps("maps").put("p", scores=np.arange(3))
    stage.load_json("found")
    stage.maps("maps").get("p")


def _unchecked(files: Seeds) -> Seeds:
    """Without the check of their content; a file of before there were checks has none."""
    plain = [{k: v for k, v in json.loads(file).items() if k != "check"} for file in files]
    return tuple(json.dumps(value).encode() for value in plain)


def _of_toy(toy: Path, name: str) -> Target:
    """A damaged record of a run of one stage, which is worked on again."""

    def read(path: Path) -> None:
        run = path.with_name("toy-again")
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(toy, run)
        shutil.copyfile(path, run / name)
        with Workspace.open(run, recipe="toy", settings={}) as work:
            work.mended(lambda: _through(work))

    seeds = _unchecked(((toy / name).read_bytes(),))
    return Target(f"toy-{Path(name).stem}", ".json", seeds, read)


def _recorded(path: Path, whole: Path) -> None:
    """The record of a run, where its photos are looked for."""
    run = path.with_name("recorded")
    run.mkdir(exist_ok=True)
    if not (run / "stages").exists():
        shutil.copytree(whole / "stages", run / "stages")
    shutil.copyfile(path, run / "workspace.json")
    work = Workspace.read(run)
    work.summary()
    recorded_command(work, run, None, lambda words: {}).again(Path("review.jsonl"))


def _report(path: Path, room: Path) -> None:
    shutil.copyfile(path, room / "reported/run.json")
    render_report(room / "reported")


def _odd_segmenter(rng: random.Random, change: Mutated, file: Path) -> bytes:
    """A file that is what was written, by its digest, with odd notes."""
    tensors, notes = _segmenter(file)
    odd = dict(notes)
    for key in rng.sample(sorted(odd), rng.choice((1, 1, 2, 5)) % (len(odd) + 1)):
        if rng.random() < 0.1:
            del odd[key]
        else:
            odd[key] = change((odd[key].encode(),), rng).decode("utf-8", "replace")
    kept = dict(tensors)
    if rng.random() < 0.2:
        name = rng.choice(sorted(kept))
        kept[name] = rng.choice((kept[name].double(), kept[name].reshape(-1)[:1], torch.zeros(0)))
    return tensor_file(kept, odd)


@cache
def _segmenter(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    return read_tensors(file)


def _onnx() -> list[Target]:
    if any(find_spec(name) is None for name in ("onnx", "onnxruntime")):
        return []
    from onnx import parser

    from tagseg.segment.onnx_graph import Frame, assemble

    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    colours (uint8[1, h, w, 3] photo) => (float[1, 3, h, w] found) {
      planes = Transpose <perm = [0, 3, 1, 2]> (photo)
      values = Cast <to = 1> (planes)
      white = Constant <value = float {255}> ()
      found = Div (values, white)
    }"""
    notes = {
        "tagseg": "0",
        "format": "tagseg-onnx-1",
        "classes": '["cat", "dog"]',
        "photo_side": "50",
        "refinement": "null",
        "white_of_16_bits": "65535",
    }
    frame = Frame(50, 3)

    def odd(rng: random.Random, change: Mutated) -> bytes:
        changed = dict(notes)
        if rng.random() < 0.6:
            key = rng.choice(sorted(changed))
            changed[key] = change((changed[key].encode(),), rng).decode("utf-8", "replace")
        content = assemble(parser.parse_model(text), frame, changed)
        content = content if isinstance(content, bytes) else content.SerializeToString()
        return content if rng.random() < 0.5 else change((content,), rng)

    return [Target("onnx", ".onnx", (), load_segmenter, odd)]
