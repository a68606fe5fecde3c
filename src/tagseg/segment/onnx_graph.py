"""What a segmenter does around its network, as an ONNX graph.

A photo is resized as OpenCV does it, number for number: photos of 8 bits by area are sums of
float32 in the order of the pixels, bilinear ones are fixed-point numbers of 11 bits. So the network
in the file sees exactly the pixels that the segmenter's network sees, whatever the photo's size.

The graph is written in ONNX's own textual form: functions first, then the two ways in which
segmenters look at a photo. ``tagseg.network`` stands for the network's nodes, which
:func:`assemble` puts in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tagseg.segment.windowed import Sight
from tagseg.segment.windows import OVERLAP

__all__ = [
    "IMAGE",
    "IR_VERSION",
    "LABELS",
    "OPSET",
    "PROBABILITIES",
    "WANT_FULL",
    "Frame",
    "assemble",
]

IMAGE, WANT_FULL = "image", "full_probabilities"
LABELS, PROBABILITIES = "labels", "probabilities"

OPSET, IR_VERSION = 20, 10
_DOMAIN = "tagseg"
_NETWORK = "network"

# cv2.resize counts with the inverse of what it is given: factors are 1 / (target / source).
_FACTOR = """
factor (source, target) => (factor)
{
  s = Cast <to = 11> (source)
  t = Cast <to = 11> (target)
  inverse = Div (t, s)
  factor = Reciprocal (inverse)
}
"""

# Term k of the sum that an output position is, along one side: the input position, and the part of
# the output position's cell that it covers. Slivers of a thousandth do not count. Where both sides
# shrink by whole factors ("whole"), parts are counted and divided by their number at last.
_AREA_TERM = """
area_term (k, source, target, whole) => (index, part)
{
  none = Constant <value = int64 {0}> ()
  step = Constant <value = int64 {1}> ()
  zero = Constant <value = double {0}> ()
  one = Constant <value = double {1}> ()
  sliver = Constant <value = double {0.001}> ()
  factor = tagseg.factor (source, target)
  places = Range (none, target, step)
  place = Cast <to = 11> (places)
  begin = Mul (place, factor)
  end = Add (begin, factor)
  length = Cast <to = 11> (source)
  room = Sub (length, begin)
  cell = Min (factor, room)
  final = Sub (length, one)
  floor = Floor (end)
  last = Min (floor, final)
  ceiling = Ceil (begin)
  first = Min (ceiling, last)
  before = Sub (first, one)
  number = Cast <to = 11> (k)
  here = Add (before, number)
  head = Sub (first, begin)
  tail = Sub (end, last)
  tail_1 = Min (tail, one)
  tail_cell = Min (tail_1, cell)
  has_head = Greater (head, sliver)
  has_tail = Greater (tail, sliver)
  of_head = Where (has_head, head, zero)
  of_tail = Where (has_tail, tail_cell, zero)
  at_head = Equal (here, before)
  at_tail = Equal (here, last)
  inside = Less (here, last)
  of_rest = Where (at_tail, of_tail, zero)
  of_inside = Where (inside, one, of_rest)
  covered = Where (at_head, of_head, of_inside)
  share = Div (covered, cell)
  counts = Greater (covered, zero)
  counted = Cast <to = 11> (counts)
  exact = Where (whole, counted, share)
  part = Cast <to = 1> (exact)
  above = Max (here, zero)
  within = Min (above, final)
  index = Cast <to = 7> (within)
}
"""

_AREA = """
area (image, height, width) => (small)
{
  none = Constant <value = int64 {0}> ()
  step = Constant <value = int64 {1}> ()
  more = Constant <value = int64 {2}> ()
  column = Constant <value = int64[1] {1}> ()
  planes = Constant <value = int64[2] {1, 2}> ()
  half = Constant <value = float {0.5}> ()
  four = Constant <value = float {4}> ()
  tiny = Constant <value = double {2.220446049250313e-16}> ()
  yes = Constant <value = bool {1}> ()
  shape = Shape (image)
  rows = Gather (shape, none)
  columns = Gather (shape, step)
  colours = Gather (shape, more)
  down = tagseg.factor (rows, height)
  right = tagseg.factor (columns, width)
  down_whole = Round (down)
  right_whole = Round (right)
  down_off = Sub (down, down_whole)
  right_off = Sub (right, right_whole)
  down_far = Abs (down_off)
  right_far = Abs (right_off)
  down_near = Less (down_far, tiny)
  right_near = Less (right_far, tiny)
  whole = And (down_near, right_near)

  right_most = Ceil (right)
  right_terms = Cast <to = 7> (right_most)
  right_count = Add (right_terms, more)
  none_1 = Constant <value = int64[1] {0}> ()
  rows_1 = Unsqueeze (rows, none_1)
  width_1 = Unsqueeze (width, none_1)
  height_1 = Unsqueeze (height, none_1)
  colours_1 = Unsqueeze (colours, none_1)
  narrow_shape = Concat <axis = 0> (rows_1, width_1, colours_1)
  narrow_0 = ConstantOfShape (narrow_shape)
  narrow = Loop (right_count, yes, narrow_0) <body = along_rows
    (int64 k, bool go, float[a, b, c] sum) => (bool again, float[a, b, c] total) {
      again = Identity (go)
      index, part = tagseg.area_term (k, columns, width, whole)
      pixels = Gather <axis = 1> (image, index)
      values = Cast <to = 1> (pixels)
      parts = Unsqueeze (part, column)
      term = Mul (values, parts)
      total = Add (sum, term)
    }>

  down_most = Ceil (down)
  down_terms = Cast <to = 7> (down_most)
  down_count = Add (down_terms, more)
  small_shape = Concat <axis = 0> (height_1, width_1, colours_1)
  small_0 = ConstantOfShape (small_shape)
  sums = Loop (down_count, yes, small_0) <body = along_columns
    (int64 k, bool go, float[a, b, c] sum) => (bool again, float[a, b, c] total) {
      again = Identity (go)
      index, part = tagseg.area_term (k, rows, height, whole)
      values = Gather <axis = 0> (narrow, index)
      parts = Unsqueeze (part, planes)
      term = Mul (values, parts)
      total = Add (sum, term)
    }>

  down_float = Cast <to = 1> (down_whole)
  right_float = Cast <to = 1> (right_whole)
  pixels_each = Mul (down_float, right_float)
  each = Reciprocal (pixels_each)
  even = Mul (sums, each)
  mean = Where (whole, even, sums)
  rounded = Round (mean)
  quarter = Div (sums, four)
  quarter_up = Add (quarter, half)
  halved = Floor (quarter_up)
  two = Constant <value = double {2}> ()
  down_two = Equal (down_whole, two)
  right_two = Equal (right_whole, two)
  both_two = And (down_two, right_two)
  by_two = And (both_two, whole)
  value = Where (by_two, halved, rounded)
  small = Cast <to = 2> (value)
}
"""

# Where an output position lies between two input positions: the first of them, and how far beyond.
_BETWEEN = """
between (source, target) => (first, beyond)
{
  none = Constant <value = int64 {0}> ()
  step = Constant <value = int64 {1}> ()
  half = Constant <value = double {0.5}> ()
  factor = tagseg.factor (source, target)
  places = Range (none, target, step)
  place = Cast <to = 11> (places)
  middle = Add (place, half)
  far = Mul (middle, factor)
  at = Sub (far, half)
  position = Cast <to = 1> (at)
  first = Floor (position)
  beyond = Sub (position, first)
}
"""

# At the left and right edge OpenCV takes one column whole; at the upper and lower edge it mixes a
# row with itself, which comes out otherwise where it rounds.
_COLUMNS = """
columns (source, target) => (first, second, beyond)
{
  zero = Constant <value = float {0}> ()
  one = Constant <value = float {1}> ()
  before, share = tagseg.between (source, target)
  length = Cast <to = 1> (source)
  last = Sub (length, one)
  is_low = Less (before, zero)
  is_high = GreaterOrEqual (before, last)
  outside = Or (is_low, is_high)
  beyond = Where (outside, zero, share)
  above = Max (before, zero)
  near = Min (above, last)
  next = Add (near, one)
  far = Min (next, last)
  first = Cast <to = 7> (near)
  second = Cast <to = 7> (far)
}
"""

_ROWS = """
rows (source, target) => (first, second, beyond)
{
  zero = Constant <value = float {0}> ()
  one = Constant <value = float {1}> ()
  before, beyond = tagseg.between (source, target)
  length = Cast <to = 1> (source)
  last = Sub (length, one)
  next = Add (before, one)
  above = Max (before, zero)
  near = Min (above, last)
  next_above = Max (next, zero)
  far = Min (next_above, last)
  first = Cast <to = 7> (near)
  second = Cast <to = 7> (far)
}
"""

_FIXED = """
fixed (beyond) => (of_first, of_second)
{
  one = Constant <value = float {1}> ()
  unit = Constant <value = float {2048}> ()
  left = Sub (one, beyond)
  scaled_left = Mul (left, unit)
  scaled = Mul (beyond, unit)
  round_left = Round (scaled_left)
  round = Round (scaled)
  of_first = Cast <to = 6> (round_left)
  of_second = Cast <to = 6> (round)
}
"""

_LINEAR = """
linear (image, height, width) => (large)
{
  none = Constant <value = int64 {0}> ()
  step = Constant <value = int64 {1}> ()
  column = Constant <value = int64[1] {1}> ()
  planes = Constant <value = int64[2] {1, 2}> ()
  two_bits = Constant <value = int32 {4}> ()
  two = Constant <value = int32 {2}> ()
  four_bits = Constant <value = int32 {16}> ()
  sixteen_bits = Constant <value = int32 {65536}> ()
  shape = Shape (image)
  old_height = Gather (shape, none)
  old_width = Gather (shape, step)
  left, right, beyond_left = tagseg.columns (old_width, width)
  upper, lower, beyond_upper = tagseg.rows (old_height, height)
  of_left_1, of_right_1 = tagseg.fixed (beyond_left)
  of_upper_1, of_lower_1 = tagseg.fixed (beyond_upper)
  of_left = Unsqueeze (of_left_1, column)
  of_right = Unsqueeze (of_right_1, column)
  of_upper = Unsqueeze (of_upper_1, planes)
  of_lower = Unsqueeze (of_lower_1, planes)
  left_pixels = Gather <axis = 1> (image, left)
  right_pixels = Gather <axis = 1> (image, right)
  left_values = Cast <to = 6> (left_pixels)
  right_values = Cast <to = 6> (right_pixels)
  left_terms = Mul (left_values, of_left)
  right_terms = Mul (right_values, of_right)
  wide_exact = Add (left_terms, right_terms)
  wide = Div (wide_exact, four_bits)
  upper_rows = Gather <axis = 0> (wide, upper)
  lower_rows = Gather <axis = 0> (wide, lower)
  upper_terms = Mul (upper_rows, of_upper)
  lower_terms = Mul (lower_rows, of_lower)
  upper_part = Div (upper_terms, sixteen_bits)
  lower_part = Div (lower_terms, sixteen_bits)
  both = Add (upper_part, lower_part)
  half_up = Add (both, two)
  value = Div (half_up, two_bits)
  large = Cast <to = 2> (value)
}
"""

_BILINEAR = """
bilinear (maps, height, width) => (full)
{
  low = Constant <value = int64 {-2}> ()
  high = Constant <value = int64 {-1}> ()
  column = Constant <value = int64[1] {1}> ()
  one = Constant <value = float {1}> ()
  shape = Shape (maps)
  old_height = Gather (shape, low)
  old_width = Gather (shape, high)
  left, right, of_right = tagseg.columns (old_width, width)
  upper, lower, of_lower_1 = tagseg.rows (old_height, height)
  of_lower = Unsqueeze (of_lower_1, column)
  of_left = Sub (one, of_right)
  of_upper = Sub (one, of_lower)
  left_values = Gather <axis = -1> (maps, left)
  right_values = Gather <axis = -1> (maps, right)
  left_terms = Mul (left_values, of_left)
  right_terms = Mul (right_values, of_right)
  wide = Add (left_terms, right_terms)
  upper_rows = Gather <axis = -2> (wide, upper)
  lower_rows = Gather <axis = -2> (wide, lower)
  upper_terms = Mul (upper_rows, of_upper)
  lower_terms = Mul (lower_rows, of_lower)
  full = Add (upper_terms, lower_terms)
}
"""

_SCALED = """
scaled (length, factor) => (size)
{
  one = Constant <value = double {1}> ()
  exact = Cast <to = 11> (length)
  product = Mul (exact, factor)
  rounded = Round (product)
  least = Max (rounded, one)
  size = Cast <to = 7> (least)
}
"""

_WORKING = """
working (image, side) => (small)
{
  none = Constant <value = int64 {0}> ()
  step = Constant <value = int64 {1}> ()
  one = Constant <value = double {1}> ()
  shape = Shape (image)
  height = Gather (shape, none)
  width = Gather (shape, step)
  longer = Max (height, width)
  length = Cast <to = 11> (longer)
  factor = Div (side, length)
  shrinks = Less (factor, one)
  small = If (shrinks) <
    then_branch = brought_down () => (uint8[a, b, c] less) {
      low = tagseg.scaled (height, factor)
      narrow = tagseg.scaled (width, factor)
      less = tagseg.area (image, low, narrow)
    },
    else_branch = kept () => (uint8[d, e, f] same) { same = Identity (image) }
  >
}
"""

_SEEN = """
seen (image, height, width) => (result)
{
  none = Constant <value = int64 {0}> ()
  step = Constant <value = int64 {1}> ()
  shape = Shape (image)
  old_height = Gather (shape, none)
  old_width = Gather (shape, step)
  as_high = Equal (old_height, height)
  as_wide = Equal (old_width, width)
  same = And (as_high, as_wide)
  result = If (same) <
    then_branch = kept () => (uint8[a, b, c] before) { before = Identity (image) },
    else_branch = changed () => (uint8[d, e, f] after) {
      narrower = Less (width, old_width)
      after = If (narrower) <
        then_branch = brought_down () => (uint8[g, h, i] less) {
          less = tagseg.area (image, height, width)
        },
        else_branch = brought_up () => (uint8[j, k, l] more) {
          more = tagseg.linear (image, height, width)
        }
      >
    }
  >
}
"""

# starts() of tagseg.segment.windows: first pixels of windows, evenly spread.
_STARTS = """
starts (length, window, stride) => (size, count, first)
{
  none = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  size = Min (length, window)
  left = Sub (length, size)
  before = Add (left, stride)
  rounded = Sub (before, one)
  further = Div (rounded, stride)
  count = Add (further, one)
  gaps = Max (further, one)
  numbers = Range (none, count, one)
  products = Mul (numbers, left)
  exact = Cast <to = 11> (products)
  parts = Cast <to = 11> (gaps)
  places = Div (exact, parts)
  rounded_places = Round (places)
  first = Cast <to = 7> (rounded_places)
}
"""

# taper() of tagseg.segment.windows: weights of a window's pixels along one side.
_TAPER = """
taper (size, margin) => (weights)
{
  none = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  two = Constant <value = int64 {2}> ()
  half = Constant <value = float {0.5}> ()
  whole = Constant <value = float {1}> ()
  quarter_turn = Constant <value = float {1.5707963267948966}> ()
  middle = Div (size, two)
  few = Min (margin, middle)
  flank = Max (few, one)
  places = Range (none, size, one)
  last = Sub (size, one)
  from_end = Sub (last, places)
  to_edge = Min (places, from_end)
  inside = GreaterOrEqual (to_edge, few)
  edge = Cast <to = 1> (to_edge)
  middle_of = Add (edge, half)
  wide = Cast <to = 1> (flank)
  share = Div (middle_of, wide)
  angle = Mul (share, quarter_turn)
  sine = Sin (angle)
  square = Mul (sine, sine)
  weights = Where (inside, whole, square)
}
"""

# The sum of all windows' weights at each of ``length`` pixels.
_COVER = """
cover (length, first, weights) => (sums)
{
  none = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  row = Constant <value = int64[1] {0}> ()
  column = Constant <value = int64[1] {1}> ()
  zero = Constant <value = float {0}> ()
  places = Range (none, length, one)
  place = Unsqueeze (places, row)
  begins = Unsqueeze (first, column)
  inner = Sub (place, begins)
  size = Size (weights)
  final = Sub (size, one)
  starts_before = GreaterOrEqual (inner, none)
  ends_behind = LessOrEqual (inner, final)
  lies = And (starts_before, ends_behind)
  above = Max (inner, none)
  within = Min (above, final)
  values = Gather (weights, within)
  counted = Where (lies, values, zero)
  sums = ReduceSum <keepdims = 0> (counted, row)
}
"""

_MIRROR = """
mirror (values, axis, yes) => (result)
{
  back = Constant <value = int64[1] {-1}> ()
  least = Constant <value = int64[1] {-9223372036854775807}> ()
  result = If (yes) <
    then_branch = turned () => (reversed) { reversed = Slice (values, back, least, axis, back) },
    else_branch = kept () => (same) { same = Identity (values) }
  >
}
"""

_ANSWERS = """
answers (probs, height, width, full) => (labels, probabilities)
{
  none = Constant <value = int64 {0}> ()
  none_1 = Constant <value = int64[1] {0}> ()
  yes = Constant <value = bool {1}> ()
  below = Constant <value = float {-1}> ()
  nothing = Constant <value = uint8 {0}> ()
  shape = Shape (probs)
  count = Gather (shape, none)
  height_1 = Unsqueeze (height, none_1)
  width_1 = Unsqueeze (width, none_1)
  size = Concat <axis = 0> (height_1, width_1)
  best_0 = Expand (below, size)
  labels_0 = Expand (nothing, size)
  best, labels = Loop (count, yes, best_0, labels_0) <body = one_label
    (int64 k, bool go, float[a, b] most, uint8[a, b] chosen)
    => (bool again, float[a, b] more, uint8[a, b] choice) {
      again = Identity (go)
      plane = Gather (probs, k)
      values = tagseg.bilinear (plane, height, width)
      ahead = Greater (values, most)
      label = Cast <to = 2> (k)
      choice = Where (ahead, label, chosen)
      more = Max (most, values)
    }>
  probabilities = If (full) <
    then_branch = of_photo () => (float[d, e, f] large) {
      large = tagseg.bilinear (probs, height, width)
    },
    else_branch = at_work () => (float[g, h, i] small) { small = Identity (probs) }
  >
}
"""

_SHARED = (
    _FACTOR,
    _AREA_TERM,
    _AREA,
    _BETWEEN,
    _COLUMNS,
    _ROWS,
    _BILINEAR,
    _SCALED,
    _WORKING,
    _ANSWERS,
)

_OF_WINDOWS = (_FIXED, _LINEAR, _SEEN, _STARTS, _TAPER, _COVER, _MIRROR)

_BEGIN = """
  none = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  none_1 = Constant <value = int64[1] {0}> ()
  shape = Shape (image)
  height = Gather (shape, none)
  width = Gather (shape, one)
  small = tagseg.working (image, photo_side)
"""
_END = """
  labels, probabilities = tagseg.answers (probs, height, width, full_probabilities)
"""

_WHOLE = """
  batch = Unsqueeze (small, none_1)
  found = tagseg.network (batch)
  probs = Squeeze (found, none_1)
"""

# All views of a photo (sizes, mirrored or not) and all windows of a view, one after another.
_WINDOWED = """
  yes = Constant <value = bool {1}> ()
  small_shape = Shape (small)
  small_height = Gather (small_shape, none)
  small_width = Gather (small_shape, one)
  nothing = Constant <value = float {0}> ()
  labels_1 = Constant <value = int64[1] {LABELS}> ()
  small_height_1 = Unsqueeze (small_height, none_1)
  small_width_1 = Unsqueeze (small_width, none_1)
  probs_shape = Concat <axis = 0> (labels_1, small_height_1, small_width_1)
  probs_0 = Expand (nothing, probs_shape)
  view_count = Size (view_factors)
  sums = Loop (view_count, yes, probs_0) <body = views
    (int64 view, bool go, float[labels, h, w] sum) => (bool again, float[labels, h, w] total) {
      again = Identity (go)
      factor = Gather (view_factors, view)
      mirrored = Gather (view_mirrored, view)
      seen_height = tagseg.scaled (small_height, factor)
      seen_width = tagseg.scaled (small_width, factor)
      seen_plain = tagseg.seen (small, seen_height, seen_width)
      one_1 = Constant <value = int64[1] {1}> ()
      seen = tagseg.mirror (seen_plain, one_1, mirrored)
      high, count_down, tops = tagseg.starts (seen_height, window, window_stride)
      wide, count_right, lefts = tagseg.starts (seen_width, window, window_stride)
      taper_down = tagseg.taper (high, window_margin)
      taper_right = tagseg.taper (wide, window_margin)
      taper_column = Unsqueeze (taper_down, one_1)
      taper_both = Mul (taper_column, taper_right)
      cover_down = tagseg.cover (seen_height, tops, taper_down)
      cover_right = tagseg.cover (seen_width, lefts, taper_right)
      cover_column = Unsqueeze (cover_down, one_1)
      cover_both = Mul (cover_column, cover_right)
      seen_height_1 = Unsqueeze (seen_height, none_1)
      seen_width_1 = Unsqueeze (seen_width, none_1)
      view_shape = Concat <axis = 0> (labels_1, seen_height_1, seen_width_1)
      view_0 = Expand (nothing, view_shape)
      window_count = Mul (count_down, count_right)
      view_sums = Loop (window_count, yes, view_0) <body = windows
        (int64 number, bool on, float[labels, y, x] part)
        => (bool further, float[labels, y, x] whole) {
          further = Identity (on)
          row = Div (number, count_right)
          column = Mod (number, count_right)
          top = Gather (tops, row)
          left = Gather (lefts, column)
          bottom = Add (top, high)
          right = Add (left, wide)
          top_1 = Unsqueeze (top, none_1)
          left_1 = Unsqueeze (left, none_1)
          bottom_1 = Unsqueeze (bottom, none_1)
          right_1 = Unsqueeze (right, none_1)
          begin = Concat <axis = 0> (top_1, left_1)
          end = Concat <axis = 0> (bottom_1, right_1)
          sides = Constant <value = int64[2] {0, 1}> ()
          patch = Slice (seen, begin, end, sides)
          batch = Unsqueeze (patch, none_1)
          found = tagseg.network (batch)
          answer = Squeeze (found, none_1)
          weighted = Mul (answer, taper_both)
          under = Sub (seen_height_1, bottom_1)
          beside = Sub (seen_width_1, right_1)
          borders = Concat <axis = 0> (none_1, top_1, left_1, none_1, under, beside)
          placed = Pad (weighted, borders)
          whole = Add (part, placed)
        }>
      view_probs = Div (view_sums, cover_both)
      two_1 = Constant <value = int64[1] {2}> ()
      upright = tagseg.mirror (view_probs, two_1, mirrored)
      at_work = tagseg.bilinear (upright, small_height, small_width)
      total = Add (sum, at_work)
    }>
  views = Cast <to = 1> (view_count)
  probs = Div (sums, views)
"""


@dataclass(frozen=True)
class Frame:
    """What stands around a network.

    Attributes:
        side: photos are brought down to this longest side.
        labels: C + 1.
        sight: how photos are looked at; None for whole and at working size.
    """

    side: int
    labels: int
    sight: Sight | None = None

    def numbers(self) -> dict[str, Any]:
        """What the graph computes with, by name."""
        stated: dict[str, Any] = {"photo_side": np.float64(self.side)}
        if self.sight is None:
            return stated
        sight, mirrored = self.sight, (False, True) if self.sight.flip else (False,)
        views = [(sight.zoom * scale, turned) for scale in sight.scales for turned in mirrored]
        margin = max(1, round(sight.window * OVERLAP))
        return stated | {
            "view_factors": np.array([factor for factor, _ in views], np.float64),
            "view_mirrored": np.array([turned for _, turned in views], np.bool_),
            "window": np.int64(sight.window),
            "window_margin": np.int64(margin),
            "window_stride": np.int64(sight.window - margin),
        }

    def text(self) -> str:
        """The graph in ONNX's textual form, without its numbers."""
        middle = _WHOLE if self.sight is None else _WINDOWED
        functions = _SHARED if self.sight is None else _SHARED + _OF_WINDOWS
        opsets = f'opset_import: ["" : {OPSET}, "{_DOMAIN}" : 1]'
        return "".join(
            [
                f"<ir_version: {IR_VERSION}, {opsets}>\n",
                "segment (uint8[height, width, 3] image, bool full_probabilities)\n",
                "=> (uint8[height, width] labels, float[labels, rows, columns] probabilities)\n{",
                _BEGIN,
                middle.replace("LABELS", str(self.labels)),
                _END,
                "}\n",
                *(f'<{opsets}, domain: "{_DOMAIN}">{text}' for text in functions),
            ]
        )


def assemble(network: Any, frame: Frame, metadata: Mapping[str, str]) -> Any:
    """The model of a segmenter around that of its ``network``.

    Args:
        network: an onnx.ModelProto with one input, a photo uint8 (1, h, w, 3), and one output,
            probabilities float32 (1, C + 1, h, w).
        metadata: what the file says of itself.

    Returns:
        An onnx.ModelProto without functions: its input ``image`` is uint8 (H, W, 3), ``labels``
        uint8 (H, W), ``probabilities`` float32 (C + 1, h, w) at working size, or of the photo's
        size where the optional input ``full_probabilities`` is true.
    """
    import onnx
    import onnx.inliner
    import onnx.parser

    model = onnx.inliner.inline_local_functions(onnx.parser.parse_model(frame.text()))
    numbers = {WANT_FULL: np.bool_(False), **frame.numbers()}
    for name, value in numbers.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    for graph, index in _places(model.graph):
        _put(graph, index, network.graph)
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    model.producer_name, model.producer_version = "tagseg", metadata["tagseg"]
    onnx.helper.set_model_props(model, dict(metadata))
    return model


def _places(graph: Any) -> Iterator[tuple[Any, int]]:
    """The graph, or the one inside it, in which a network is to stand, and where."""
    for index, node in enumerate(graph.node):
        if node.domain == _DOMAIN and node.op_type == _NETWORK:
            yield graph, index
            return
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _places(attribute.g)


def _put(graph: Any, index: int, network: Any) -> None:
    """Put the nodes of ``network`` where node ``index`` of ``graph`` is; its numbers go with it."""
    place = graph.node[index]
    outer = {network.input[0].name: place.input[0], network.output[0].name: place.output[0]}

    def called(name: str) -> str:
        return outer.get(name, f"{_NETWORK}.{name}" if name else "")

    nodes = list(_renamed(network.node, called))
    before, after = list(graph.node[:index]), list(graph.node[index + 1 :])
    del graph.node[:]
    graph.node.extend([*before, *nodes, *after])
    for tensor in network.initializer:
        graph.initializer.append(tensor)
        graph.initializer[-1].name = called(tensor.name)
        graph.initializer[-1].ClearField("doc_string")


def _renamed(nodes: Iterable[Any], called: Callable[[str], str]) -> Iterator[Any]:
    """Copies of nodes with other names, without what the exporter tells of Python's lines."""
    for node in nodes:
        copy = type(node)()
        copy.CopyFrom(node)
        copy.input[:] = [called(name) for name in node.input]
        copy.output[:] = [called(name) for name in node.output]
        copy.ClearField("metadata_props")
        copy.ClearField("doc_string")
        yield copy
