from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import Tensor, nn

from tagseg.errors import WeightsError
from tagseg.nets.backbone import Activations, Backbone
from tagseg.nets.mobilenet import MobileNetV2
from tagseg.nets.resnet import ResNet50, ResNet101
from tagseg.nets.weights import IMAGENET_URLS, LoadedWeights, load_into, resolve

REAL = Path("/work/shared/data/weights/mobilenet_v2_imagenet.safetensors")


class Small(Backbone):
    name = "small"
    out_channels = 4
    block4_channels = 4

    def __init__(self) -> None:
        super().__init__(8)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8, padding=1), nn.BatchNorm2d(4))

    def feature_blocks(self) -> tuple[()]:
        return ()

    def activations(self, x: Tensor) -> Activations:
        features = self.features(self.normalise(x)).relu()
        return Activations(features, features)


def state_of(backbone: Backbone) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: torch.rand(tensor.shape) for name, tensor in backbone.state_dict().items()}


def loaded(state: dict[str, Tensor], **metadata: str) -> LoadedWeights:
    return LoadedWeights(state, metadata, "file.pth", "0")


def complaint(action: Callable[[], LoadedWeights | None]) -> tuple[str, LoadedWeights | None]:
    """The line of the WeightsError that ``action`` raises, or its result; others pass through."""
    try:
        return "", action()
    except WeightsError as error:
        return str(error), None


@pytest.fixture
def state() -> dict[str, Tensor]:
    return state_of(Small())


# Reading


@pytest.mark.parametrize("wrap", ["plain", "module", "state_dict", "both", "legacy", "safetensors"])
def test_a_file_in_every_wrapping(tmp_path: Path, state: dict[str, Tensor], wrap: str) -> None:
    path = tmp_path / "weights.pth"
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    payloads: dict[str, object] = {
        "module": prefixed,
        "state_dict": {"epoch": 3, "state_dict": state},
        "both": {"model": prefixed, "arch": "small"},
    }
    if wrap == "safetensors":
        save_file(state, path, {"input_mean": "0.1"})
    else:
        payload = payloads.get(wrap, state)
        torch.save(payload, path, _use_new_zipfile_serialization=wrap != "legacy")
    weights = resolve(str(path), "small")
    assert set(weights.state) == set(state)
    assert all(torch.equal(weights.state[name], state[name]) for name in state)
    assert weights.metadata == ({"input_mean": "0.1"} if wrap == "safetensors" else {})
    assert weights.source == str(path)
    assert weights.digest == hashlib.sha256(path.read_bytes()).hexdigest()


class Trap:
    """Writes a file when unpickled by a loader that runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., int], tuple[Path, str]]:
        return Path.write_text, (self.path, "code ran")


def cut(path: Path, state: dict[str, Tensor], legacy: bool) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[:-300])


BROKEN: dict[str, tuple[Callable[[Path, dict[str, Tensor]], object], str]] = {
    "absent": (lambda p, s: None, "no such weights file; use imagenet, none, a path or a URL"),
    "folder": (lambda p, s: p.mkdir(), "is a folder; name a weights file in it"),
    "empty": (lambda p, s: p.write_bytes(b""), "is empty, not a weights file; give"),
    "html": (lambda p, s: p.write_text("\n<!DOCTYPE html><html>"), "is a web page, not"),
    "lfs": (
        lambda p, s: p.write_text("version https://git-lfs.github.com/spec/v1\noid"),
        "is a Git LFS pointer, not",
    ),
    "picture": (lambda p, s: p.write_bytes(b"\xff\xd8\xff\xe0JFIF"), "is a file that begins with"),
    "cut zip": (lambda p, s: cut(p, s, legacy=False), "is damaged or cut short"),
    "cut legacy": (lambda p, s: cut(p, s, legacy=True), "is damaged or cut short"),
    "cut safetensors": (lambda p, s: p.write_bytes(save(s)[:-5]), "is damaged or cut short"),
    "plain pickle": (lambda p, s: p.write_bytes(pickle.dumps([1, 2])), "is damaged or cut short"),
    "model": (lambda p, s: torch.save(Small(), p), "holds Python objects besides tensors"),
    "list": (lambda p, s: torch.save([1], p), "holds a list, expected tensors by name"),
    "one tensor": (lambda p, s: torch.save(s["features.0.bias"], p), "holds a Tensor, expected"),
    "numbers": (lambda p, s: torch.save({"a": 1}, p), "holds a dictionary without tensors"),
    "no tensors": (lambda p, s: save_file({}, p), "holds no tensors"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_gives_one_line(tmp_path: Path, state: dict[str, Tensor], kind: str) -> None:
    path = tmp_path / "weights.pth"
    make, message = BROKEN[kind]
    make(path, state)
    with pytest.raises(WeightsError, match=re.escape(message)) as caught:
        resolve(str(path), "small")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("legacy", [True, False])
def test_code_in_a_file_is_not_run(tmp_path: Path, legacy: bool) -> None:
    path, mark = tmp_path / "weights.pth", tmp_path / "mark"
    torch.save({"a": Trap(mark)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="not loaded as they could run code"):
        resolve(str(path), "small")
    assert not mark.exists()


def test_files_that_grow_when_they_are_read(tmp_path: Path) -> None:
    """A megabyte that becomes gigabytes, as torch.save never writes it; a header of many names."""
    torch.save({"w": torch.zeros(400_000)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    with pytest.raises(WeightsError, match=r"bomb\.pth: is a packed archive of 2 MB, which torch"):
        resolve(str(tmp_path / "bomb.pth"), "tiny")
    header = b'{"a": [' + bytes(9 << 20) + b"]}"
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match=r"a\.safetensors: is damaged or cut short"):
        resolve(str(tmp_path / "a.safetensors"), "tiny")


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        resolve("a\0b", "small")


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["zip", "legacy", "safetensors"]),
    keep=st.floats(0, 1),
    place=st.floats(0, 0.999),
    byte=st.integers(0, 255),
)
def test_any_damage_gives_weights_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, kind: str, keep: float, place: float, byte: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    tensors = {"a.weight": torch.ones(3), "b": torch.zeros(2, 2)}
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] = byte
    path.write_bytes(content[: int(keep * len(content)) + 1] if keep < 0.5 else content)
    message, weights = complaint(lambda: resolve(str(path), "small"))
    assert "\n" not in message
    assert message or (weights is not None and weights.state)


# Fetching


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize("backbone", ["vgg16", "mobilenet_v2", "resnet50", "resnet101"])
def test_without_network_the_line_names_file_and_place(
    hub: Path, monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    def offline(*args: object, **options: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    url = IMAGENET_URLS[backbone]
    with pytest.raises(WeightsError) as caught:
        resolve("imagenet", backbone)
    assert f"cannot fetch {url} (<urlopen error Name or service not known>)" in str(caught.value)
    assert f"put it at {hub / url.rsplit('/', 1)[1]}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fetched_file_is_kept(
    hub: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]
) -> None:
    fetched: list[str] = []

    def download(url: str, path: str, prefix: str | None, progress: bool) -> None:
        fetched.append(url)
        torch.save({"name": torch.tensor(len(fetched))}, path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    first = resolve("https://a.org/net.pth?x=1", "small")
    again = resolve("https://a.org/net.pth?x=1", "small")
    other = resolve("https://b.org/net.pth", "small")
    assert fetched == ["https://a.org/net.pth?x=1", "https://b.org/net.pth"]
    assert first.digest == again.digest != other.digest
    assert Path(first.source).parent == hub


def test_a_kept_file_of_another_hash_is_refused(hub: Path, state: dict[str, Tensor]) -> None:
    hub.mkdir(parents=True)
    path = hub / "vgg16-397923af.pth"
    torch.save(state, path)
    with pytest.raises(
        WeightsError, match=r"its sha256 begins with \w{8}, not 397923af; delete it"
    ):
        resolve("imagenet", "vgg16")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(hub / f"net-{digest[:8]}.pth")
    assert resolve(f"https://a.org/net-{digest[:8]}.pth", "small").digest == digest


def test_imagenet_for_other_backbones() -> None:
    with pytest.raises(WeightsError, match="no ImageNet weights are known for small"):
        resolve("imagenet", "small")


def test_tiny_comes_with_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    with pytest.raises(WeightsError, match=r"tiny_scenes.safetensors: .*install tagseg again"):
        resolve("imagenet", "tiny")
    save_file({"a": torch.ones(2)}, tmp_path / "tiny_scenes.safetensors")
    assert torch.equal(resolve("imagenet", "tiny").state["a"], torch.ones(2))


# Loading


def test_load_into_copies_and_passes_over_the_classifier(state: dict[str, Tensor]) -> None:
    net = Small()
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    load_into(net, loaded({**state, "classifier.0.weight": torch.ones(2, 2)}))
    assert all(torch.equal(net.state_dict()[name], state[name]) for name in state)


def test_none_changes_nothing() -> None:
    net = Small()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    weights = resolve("none", "small")
    load_into(net, weights)
    assert weights.digest == "none"
    assert all(torch.equal(net.state_dict()[name], before[name]) for name in before)


def test_another_network_is_named(state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError) as caught:
        load_into(MobileNetV2(), loaded({"layer1.0.weight": torch.ones(1), **state}))
    assert str(caught.value) == (
        "file.pth: is not a file for mobilenet_v2: 260 of its 260 entries are missing (the first "
        "is features.0.0.weight; found 8 others such as layer1.0.weight); give weights of "
        "mobilenet_v2 with torchvision's names"
    )
    with pytest.raises(WeightsError, match="found weights of resnet50"):
        load_into(Small(), loaded({"a": torch.ones(1)}, architecture="resnet50"))


def test_another_shape_and_nan_are_named(state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"features.0.weight is 4 x 1, expected 4 x 3 x 3 x 3"):
        load_into(Small(), loaded({**state, "features.0.weight": torch.ones(4, 1)}))
    state["features.1.bias"][2] = torch.nan
    with pytest.raises(WeightsError, match=r"features.1.bias holds NaN or infinity"):
        load_into(Small(), loaded(state))


@pytest.mark.parametrize(
    ("metadata", "mean", "std"),
    [
        ({}, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ({"input_mean": "0.5,0.5,0.5", "input_std": "0.25"}, (0.5,) * 3, (0.25,) * 3),
        ({"mean": "[0.1, 0.2, 0.3]", "std": "(1 2 4)"}, (0.1, 0.2, 0.3), (1, 2, 4)),
        (
            {"mean": "51;102;127.5", "std": "255", "input_range": "0..255"},
            (0.2, 0.4, 0.5),
            (1, 1, 1),
        ),
    ],
)
def test_preprocessing_comes_from_the_metadata(
    state: dict[str, Tensor],
    metadata: dict[str, str],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    net = Small()
    load_into(net, loaded(state, **metadata))
    x = torch.rand(1, 3, 2, 2)
    shape = (1, 3, 1, 1)
    expected = (x - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    torch.testing.assert_close(net.normalise(x), expected)


@pytest.mark.parametrize(
    "metadata",
    [
        {"mean": "grey"},
        {"mean": "1,2"},
        {"input_mean": ""},
        {"std": "0,1,1"},
        {"std": "nan"},
        {"input_range": "-1..1"},
        {"channel_order": "bgr"},
        {"stride2_padding": "left"},
    ],
)
def test_unreadable_metadata_is_named(state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    net = Small()
    before = net.features[0].weight.clone()
    with pytest.raises(WeightsError, match=r"file.pth: metadata \w+ is .*, expected") as caught:
        load_into(net, loaded(state, **metadata))
    assert next(iter(metadata)).removeprefix("input_") in str(caught.value)
    assert torch.equal(net.features[0].weight, before)


@settings(derandomize=True, max_examples=50, deadline=None)
@given(text=st.text(max_size=20), key=st.sampled_from(["mean", "input_std", "stride2_padding"]))
def test_any_metadata_loads_or_gives_one_line(text: str, key: str) -> None:
    net = Small()
    message, _ = complaint(lambda: load_into(net, loaded(state_of(net), **{key: text})))
    assert "\n" not in message
    assert torch.isfinite(net.normalise(torch.rand(1, 3, 1, 1))).all()


@pytest.mark.parametrize(
    ("note", "padding"),
    [("bottom_right", "same_bottom_right"), ("symmetric", "symmetric"), (None, "symmetric")],
)
def test_mobilenet_takes_its_padding_and_keeps_its_statistics(
    note: str | None, padding: str
) -> None:
    net = MobileNetV2(16)
    metadata = {} if note is None else {"stride2_padding": note}
    load_into(net, loaded(state_of(net), **metadata))
    assert net.stride2_padding == padding
    assert not net.train().features[0][1].training


@pytest.mark.parametrize("make", [ResNet50, ResNet101])
def test_resnets_take_torchvisions_entries_and_keep_their_statistics(
    make: type[ResNet50 | ResNet101],
) -> None:
    with torch.device("meta"):
        net = make(16)
    net.to_empty(device="cpu")
    counters = [name for name in net.state_dict() if name.endswith("num_batches_tracked")]
    entries = {
        name: torch.full(tensor.shape, float(i))
        for i, (name, tensor) in enumerate(net.state_dict().items())
        if name not in counters  # files of old versions have none
    }
    classifier = {"fc.weight": torch.ones(1000, 2048), "fc.bias": torch.ones(1000)}
    load_into(net, loaded({**entries, **classifier}))
    state = net.state_dict()
    assert all(torch.equal(state[name], entries[name]) for name in entries)
    assert len(entries) + len(counters) == len(state)
    assert not net.train().layer4[2].bn3.training
    del entries["layer3.0.downsample.1.running_var"]
    with pytest.raises(WeightsError, match=r"the first is layer3.0.downsample.1.running_var"):
        load_into(net, loaded(entries))


@pytest.mark.skipif(not REAL.exists(), reason="real weights are not here")
def test_the_real_file() -> None:
    weights = resolve(str(REAL), "mobilenet_v2")
    net = MobileNetV2()
    load_into(net, weights)
    assert net.stride2_padding == "same_bottom_right"
    assert net.preprocessing.mean == net.preprocessing.std == (0.5, 0.5, 0.5)
    assert torch.equal(net.features[18][0].weight, weights.state["features.18.0.weight"])
