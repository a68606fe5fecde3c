"""Networks in ONNX files: read whole or refused, run by onnxruntime.

``onnxruntime`` is an extra (``pip install tagseg[onnx]``) and is imported when a file is opened.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from tagseg.errors import ConfigError, WeightsError, one_line
from tagseg.input_files import MOST_WEIGHTS, check_plain

__all__ = ["onnx_content", "onnx_session"]

# A tensor whose numbers lie in another file: key "location" of an entry of external_data.
_EXTERNAL = b"\x0a\x08location\x12"


def onnx_content(path: Path) -> bytes:
    """The bytes of an .onnx file that needs no other file.

    Raises:
        WeightsError: it cannot be read, or keeps its numbers in another file.
    """
    check_plain(path, WeightsError, MOST_WEIGHTS)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot be read ({error.strerror})", where=path) from None
    if _EXTERNAL in content:
        raise WeightsError(
            "keeps its numbers in another file, which is not read",
            where=path,
            do="save the network as one file",
        )
    return content


def onnx_session(content: bytes, path: Path, threads: int) -> Any:
    """An ``onnxruntime.InferenceSession`` of a file's ``content``, on the CPU.

    Raises:
        ConfigError: onnxruntime is not installed.
        WeightsError: the file holds no network that it can run.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise ConfigError("an .onnx network needs onnxruntime", do="pip install tagseg[onnx]")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library has many kinds of error for broken files
        reason = one_line(error, 120)
        raise WeightsError(
            f"is no ONNX network ({reason})", where=path, do="fetch it again"
        ) from None
