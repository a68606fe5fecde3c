"""A segmenter's network as a program of ``torch.export`` and as an ONNX graph.

Both take a photo as uint8 (1, h, w, 3), the size that the network sees, and give probabilities
float32 (1, C + 1, h, w) for any h and w: normalisation and softmax are inside. ``onnx`` and
``onnxscript``, with which PyTorch writes ONNX, are in the extra ``tagseg[onnx]``.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tagseg.errors import ConfigError, one_line
from tagseg.maps import Image
from tagseg.nets.hugging_face import sizes_as_symbols
from tagseg.segment.onnx_graph import IR_VERSION, OPSET

__all__ = [
    "check_extra",
    "exported_program",
    "least_side",
    "onnx_network",
    "program_file",
    "quantised",
]

_EXAMPLE = (75, 98)  # pixels; no multiples of a stride, and not alike, so that nothing is constant
_SEEN, _FOUND = "photo", "found"
_SAID = 160  # characters of what a library says
_CHECKS = (torch.ops.aten._assert_async, torch.ops.aten._assert_scalar)
# What costs most, what is joined with it, and what would part them.
_QUANTISED = ["Conv", "MatMul", "Gemm", "Clip", "Relu", "Add"]


class _Probabilities(nn.Module):
    """What :meth:`tagseg.segment.predict.Segmenter.forward` computes, in one module."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, photo: Tensor) -> Tensor:
        """Probabilities (B, C + 1, h, w) of photos uint8 (B, h, w, 3)."""
        scores = self.net(photo.permute(0, 3, 1, 2).float() / 255)
        return torch.softmax(scores, 1)


def check_extra() -> None:
    """Raise ConfigError unless the packages that write and check ONNX files are installed."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"an export to ONNX needs {name}", do="pip install tagseg[onnx]")


def exported_program(net: nn.Module) -> torch.export.ExportedProgram:
    """The program of a network in evaluation mode, for photos of any height and width.

    Raises:
        ConfigError: ``torch.export`` cannot follow it.
    """
    module = _Probabilities(_plain_copy(net)).eval()
    example = torch.zeros(1, *_EXAMPLE, 3, dtype=torch.uint8)
    any_size = torch.export.Dim.DYNAMIC
    with _quiet(), sizes_as_symbols(module), torch.no_grad():
        try:
            return torch.export.export(
                module, (example,), dynamic_shapes=({1: any_size, 2: any_size},), strict=False
            )
        except Exception as error:  # the tracer has many kinds of error
            raise _not_exported(net, "torch.export", error) from error


def _plain_copy(net: nn.Module) -> nn.Module:
    """A copy on the CPU, each tensor in memory of its own and in its usual order."""
    copied = copy.deepcopy(net).to("cpu", torch.float32).requires_grad_(False)
    for tensor in (*copied.parameters(), *copied.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return copied


def least_side(program: torch.export.ExportedProgram) -> int:
    """The fewest pixels a side that a program takes: it is made from an example of many."""
    ranges = program.range_constraints.values()
    return max((int(sides.lower) for sides in ranges), default=1)


def program_file(program: torch.export.ExportedProgram, about: dict[str, Any]) -> bytes:
    """What ``torch.export.load`` reads; ``about``, JSON data, is its extra file tagseg.json."""
    content = io.BytesIO()
    with _quiet():
        torch.export.save(program, content, extra_files={"tagseg.json": json.dumps(about)})
    return content.getvalue()


def onnx_network(net: nn.Module) -> Any:
    """The onnx.ModelProto of a network, input ``photo`` and output ``found``.

    Raises:
        ConfigError: PyTorch cannot write it.
    """
    check_extra()
    program = _without_checks(exported_program(net))
    with _quiet(), torch.no_grad():
        try:
            written = torch.onnx.export(
                program,
                (),
                input_names=[_SEEN],
                output_names=[_FOUND],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                external_data=False,
            )
        except Exception as error:
            raise _not_exported(net, "torch.onnx", error) from error
    model = written.model_proto  # type: ignore[union-attr]
    _multiply_kernels(model.graph)
    model.ir_version = min(model.ir_version, IR_VERSION)
    return model


def _without_checks(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program without what asserts that values are as its author meant: ONNX has none such."""
    graph = program.graph_module.graph
    for node in reversed(graph.nodes):
        if getattr(node.target, "overloadpacket", None) in _CHECKS:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def _not_exported(net: nn.Module, by: str, error: Exception) -> ConfigError:
    backbone = getattr(getattr(net, "backbone", None), "name", type(net).__name__)
    # What went wrong is told by the innermost of its errors.
    inner: BaseException = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    reason = one_line(Exception(str(inner) or type(inner).__name__), _SAID)
    return ConfigError(
        f"{by} cannot write a segmenter on {backbone} ({reason})", do="train on another backbone"
    )


def _multiply_kernels(graph: Any) -> None:
    """Do what can be done beforehand: kernels times the factors of the norms behind them.

    The exporter leaves products of large constants in the graph.
    """
    from onnx import numpy_helper

    numbers = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "Mul" and all(name in numbers for name in node.input):
            first, second = (numpy_helper.to_array(numbers[name]) for name in node.input)
            numbers[node.output[0]] = numpy_helper.from_array(first * second, node.output[0])
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensor for name, tensor in numbers.items() if name in used)


def quantised(network: Any, photos: Sequence[Image]) -> Any:
    """A model of :func:`onnx_network` with convolutions in 8 bits, by static quantisation.

    Ranges of activations are those that ``photos`` give, from the least to the greatest; kernels
    have a factor for each of their outputs. Kernels take 7 of their 8 bits, as products of two
    whole bytes overflow on processors without instructions for them.

    Args:
        photos: uint8 (h, w, 3) each, as the network is to see them.
    """
    from onnx import load
    from onnxruntime import quantization

    shown = ({_SEEN: np.ascontiguousarray(photo[None])} for photo in photos)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(network.SerializeToString())
        try:
            quantization.quantize_static(
                str(before),
                str(after),
                _Shown(shown),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=_QUANTISED,
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except Exception as error:  # the library raises anything
            raise ConfigError(
                f"onnxruntime cannot quantise this network ({one_line(error, _SAID)})",
                do="leave --int8 out",
            ) from error
        return load(str(after))


class _Shown:
    """The photos that ranges are taken from, one at a time, as the library asks for them."""

    def __init__(self, photos: Iterable[dict[str, Any]]) -> None:
        self._photos = iter(photos)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._photos, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """What PyTorch and onnxruntime tell of their own ways is no news here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    loggers.append(logging.getLogger())
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
