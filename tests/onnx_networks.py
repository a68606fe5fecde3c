"""A network in the text form of ONNX, which tests of graphs and of files share."""

from __future__ import annotations

__all__ = ["COLOURS"]

COLOURS = """
    <ir_version: 10, opset_import: ["" : 20]>
    colours (uint8[1, h, w, 3] photo) => (float[1, 3, h, w] found) {
      planes = Transpose <perm = [0, 3, 1, 2]> (photo)
      values = Cast <to = 1> (planes)
      white = Constant <value = float {255}> ()
      found = Div (values, white)
    }"""
"""A network whose three probabilities are the colours of its input."""
