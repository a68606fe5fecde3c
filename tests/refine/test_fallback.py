"""Dense CRFs where machine vectors do not compile: the same labels, and one warning."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from tagseg.refine import (
    lanes,
    lattice,
    machine_lanes,
    pixel_kernels,
    plain_lanes,
    spatial_grid,
)
from tagseg.refine.dense_crf import dense_crf
from tagseg.refine.higher_order import HigherOrder

N_LABELS = [2, 5, 21]
HEIGHT, WIDTH = 43, 58

# What a process runs whose LLVM can no longer shuffle a vector; numba itself never does.
BROKEN = """
import sys, warnings
import llvmlite.ir

def fail(*_):
    raise NotImplementedError("no shuffles here\\nany more")

llvmlite.ir.IRBuilder.shuffle_vector = fail

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from test_fallback import all_labels

    labels = all_labels()

import numpy as np
from tagseg.refine import lanes, plain_lanes

assert lanes.Width is plain_lanes.Width
for warning in caught:
    print(warning.category.__name__, warning.message)
np.savez(sys.argv[1], **labels)
"""


def photo(n_labels):
    """A photo of blocks with noise, its unary, and regions of which some pixels have none."""
    rng = np.random.default_rng(n_labels)
    blocks = rng.integers(0, 256, (5, 6, 3)).repeat(9, axis=0).repeat(10, axis=1)
    noise = rng.integers(-12, 13, (HEIGHT, WIDTH, 3))
    image = np.clip(blocks[:HEIGHT, :WIDTH] + noise, 0, 255).astype(np.uint8)
    unary = rng.gamma(2, 0.5, (n_labels, HEIGHT, WIDTH)).astype(np.float32)
    regions = rng.integers(-1, 9, (6, 8)).repeat(8, axis=0).repeat(8, axis=1)[:HEIGHT, :WIDTH]
    return image, unary, regions


def all_labels():
    """Labels of every case; the settings reach every kernel."""
    found = {}
    for n_labels in N_LABELS:
        image, unary, regions = photo(n_labels)
        terms = {"regions": regions, "higher_order": HigherOrder(area_weight=0.02)}
        found[f"{n_labels} plain"] = dense_crf(image, unary).argmax(axis=0)
        found[f"{n_labels} regions"] = dense_crf(image, unary, **terms).argmax(axis=0)
    image, unary, _ = photo(5)
    weak = dense_crf(image, unary, bilateral=(4, 30, 20), filter="lattice")
    found["5 lattice"] = weak.argmax(axis=0)
    return found


def run(code, *arguments):
    """Standard output of ``code``, run by a fresh interpreter with the same imports."""
    here = os.path.dirname(__file__)
    path = os.pathsep.join([here, *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def fallen_back(tmp_path_factory):
    """Labels and warnings of a process without machine vectors."""
    path = tmp_path_factory.mktemp("fallback") / "labels.npz"
    said = run(BROKEN, path).splitlines()
    with np.load(path) as labels:
        return dict(labels), said


@pytest.mark.slow
def test_the_labels_are_those_of_machine_vectors(fallen_back):
    expected = all_labels()
    found, _ = fallen_back
    assert found.keys() == expected.keys()
    for case, labels in expected.items():
        assert len(np.unique(labels)) > 1, case
        np.testing.assert_array_equal(found[case], labels, err_msg=case)


@pytest.mark.slow
def test_there_is_one_warning(fallen_back):
    (line,) = fallen_back[1]
    assert line.startswith("RuntimeWarning dense CRF: the fast kernels do not compile")
    assert "NotImplementedError: no shuffles here)" in line
    assert "ten times the time" in line
    assert "install" in line


def test_a_wrong_result_falls_back_too():
    code = (
        "import numpy, warnings\n"
        "from tagseg.refine import machine_lanes, plain_lanes\n"
        "machine_lanes.total = machine_lanes.highest\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    from tagseg.refine import lanes\n"
        "assert lanes.load is plain_lanes.load\n"
        "print(*(w.message for w in caught))"
    )
    assert "RuntimeError: machine vectors of ones sum up to 1.0, not to 4" in run(code)


def test_machine_vectors_are_used_without_a_word_where_they_compile():
    assert lanes.Width is machine_lanes.Width
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "from tagseg.refine import lanes, machine_lanes\n"
        "assert all(getattr(lanes, n) is getattr(machine_lanes, n) for n in lanes.__all__)\n"
        "print('fast')"
    )
    assert run(code) == "fast\n"


def test_both_modules_offer_the_same():
    assert set(plain_lanes.__all__) == set(lanes.__all__)
    assert set(machine_lanes.__all__) == {*lanes.__all__, "probe"}


@pytest.mark.parametrize("module", [lattice, pixel_kernels, spatial_grid], ids=lambda m: m.__name__)
def test_every_kernel_with_vectors_is_cached_by_their_kind(module):
    """Numba keeps kernels by the types of their arguments: a width among them tells both apart."""
    kernels = [value for value in vars(module).values() if isinstance(value, Dispatcher)]
    here = [kernel for kernel in kernels if kernel.py_func.__module__ == module.__name__]
    assert here
    for kernel in here:
        if set(kernel.py_func.__code__.co_names) & set(lanes.__all__):
            parameters = set(inspect.signature(kernel.py_func).parameters)
            assert parameters & {"width", "block", "four"}, kernel
