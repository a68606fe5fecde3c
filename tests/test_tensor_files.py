from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from tagseg.tensor_files import RottenError, check_header, content_hash, read_tensors, tensor_file

TENSORS = {
    "a.weight": torch.arange(24.0).reshape(2, 3, 4),
    "b": torch.tensor([True, False]),
    "half": torch.arange(5).to(torch.float16),
    "none": torch.zeros(0, 3),
}
NOTES = {"classes": '["cat", "dog"]', "side": "500"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    path.write_bytes(tensor_file(TENSORS, NOTES))
    return path


def test_what_is_written_is_read(file: Path) -> None:
    tensors, notes = read_tensors(file)
    assert notes == NOTES
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert safetensors.torch.load_file(file).keys() == TENSORS.keys()  # any reader can


def test_equal_content_is_equal_bytes(file: Path) -> None:
    shared = torch.arange(48.0).reshape(2, 3, 8)[:, :, :4]
    order = {**dict(reversed(TENSORS.items())), "a.weight": shared - shared + TENSORS["a.weight"]}
    assert tensor_file(order, dict(reversed(NOTES.items()))) == file.read_bytes()
    assert tensor_file(TENSORS) != file.read_bytes()


def test_files_of_others_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    safetensors.torch.save_file(TENSORS, path, {"of": "another"})
    assert read_tensors(path)[1] == {"of": "another"}


def test_no_flipped_bit_is_read(file: Path) -> None:
    """But in the padding of the header, which is no content."""
    content = file.read_bytes()
    places = np.random.default_rng(0).choice(8 * len(content), 400, replace=False)
    for place in places.tolist():
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            tensors, notes = read_tensors(file)
        except (RottenError, SafetensorError):
            continue
        notes.pop("tagseg_digest", None)
        known = {name: notes[name] for name in NOTES}
        assert content_hash(tensors, known) == content_hash(TENSORS, NOTES), place


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_cut_file_is_not_read(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises((RottenError, SafetensorError)):
        read_tensors(file)


def test_a_header_that_would_fill_the_memory(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"tensor {i}": entry for i in range(150_000)}).encode()
    path = tmp_path / "bomb.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(RottenError, match=f"its header has {len(header)} bytes"):
        check_header(path)
    with pytest.raises(RottenError):
        read_tensors(path)
