from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tagseg.errors import ConfigError, DamagedError
from tagseg.run.files import write_json
from tagseg.run.manifest import (
    canonical,
    changes,
    fingerprint,
    make_record,
    read_manifest,
    size_of,
)


@dataclass(frozen=True)
class Config:
    lr: float = 0.1
    size: tuple[int, int] = (3, 4)


def test_equal_configurations_are_equal_however_written() -> None:
    config = {"b": Config(), "a": Path("x/y"), "c": np.float64(0.5)}
    plain = {"a": "x/y", "b": {"size": [3, 4], "lr": 0.1}, "c": 0.5}
    assert canonical(config) == plain
    assert make_record("s", config, [])["key"] == make_record("s", plain, [])["key"]


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}, torch.zeros(1), Config])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="cannot be recorded"):
        canonical({"a": value})


def test_name_config_and_input_keys_make_the_key_and_labels_do_not() -> None:
    base = make_record("s", {"lr": 0.1}, [("data", "k1"), ("cam", "k2")])
    assert base["key"] == make_record("s", {"lr": 0.1}, [("1", "k1"), ("2", "k2")])["key"]
    others = [
        make_record("t", {"lr": 0.1}, [("data", "k1"), ("cam", "k2")]),
        make_record("s", {"lr": 0.10001}, [("data", "k1"), ("cam", "k2")]),
        make_record("s", {"lr": 0.1}, [("cam", "k2"), ("data", "k1")]),
        make_record("s", {"lr": 0.1}, [("data", "k1k2")]),
    ]
    assert len({r["key"] for r in [base, *others]}) == 5


def test_changes_name_fields_and_inputs() -> None:
    old = make_record("s", {"net": {"lr": 0.1, "name": "vgg"}, "gone": 1}, [("cam", "a" * 32)])
    new = make_record("s", {"net": {"lr": 0.2, "name": "vgg"}, "new": True}, [("cam", "b" * 32)])
    assert changes(old, new) == (
        "gone 1 -> (none), net.lr 0.1 -> 0.2, new (none) -> true, input cam aaaaaaaa -> bbbbbbbb"
    )


def test_many_changes_are_cut_short() -> None:
    old = make_record("s", {f"f{i}": 0 for i in range(9)}, [])
    new = make_record("s", {f"f{i}": "x" * 100 for i in range(9)}, [])
    told = changes(old, new)
    assert told.endswith("and 5 more")
    assert len(told) < 250
    assert changes(old, {**old, "format": 2}) == "its format changed (1 -> 2)"


@pytest.mark.parametrize("name", ["..", "a/b", "a" * 256, "\u20ac" * 86])
def test_names_that_no_artefact_has_are_damage(tmp_path: Path, name: str) -> None:
    record = make_record("s", {}, [])
    path = tmp_path / "manifest.json"
    about = {"record": record, "seconds": 1.0, "finished": "2026-11-30"}
    write_json(path, {**about, "artefacts": {"found.json": {"bytes": 1, "hash": "0"}}})
    assert read_manifest(path)["artefacts"]
    write_json(path, {**about, "artefacts": {name: {"bytes": 1, "hash": "0"}}})
    with pytest.raises(DamagedError, match="no manifest"):
        read_manifest(path)


def test_fingerprint_of_tensors_is_of_their_content(tmp_path: Path) -> None:
    tensors = {"w": torch.rand(3, dtype=torch.bfloat16), "n": torch.tensor(5)}
    many = {str(i): str(i) for i in range(20)}
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    safetensors.torch.save_file(tensors, paths[0], many)
    safetensors.torch.save_file(tensors, paths[1], dict(reversed(many.items())))
    safetensors.torch.save_file(tensors, paths[2], {**many, "1": "2"})
    one, two, three = map(fingerprint, paths)
    assert one == two
    assert one["hash"] != three["hash"]


def test_fingerprint_of_a_folder_is_of_its_names_and_files(tmp_path: Path) -> None:
    (tmp_path / "m/sub").mkdir(parents=True)
    (tmp_path / "m/a.png").write_bytes(b"12")
    (tmp_path / "m/sub/b.png").write_bytes(b"345")
    before = fingerprint(tmp_path / "m")
    assert before["bytes"] == size_of(tmp_path / "m") == 5
    (tmp_path / "m/.tmp-c.png").write_bytes(b"6")
    assert fingerprint(tmp_path / "m") == before
    (tmp_path / "m/sub/b.png").rename(tmp_path / "m/sub/c.png")
    after = fingerprint(tmp_path / "m")
    assert after["bytes"] == 5
    assert after["hash"] != before["hash"]
    assert size_of(tmp_path / "no") == -1
