"""What the process around the command line may be like: consoles, signals, homes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image as PilImage

from tagseg import console


class TestLetters:
    @pytest.mark.parametrize(
        ("encoding", "printed"),
        [
            ("cp1252", "caf\xe9 \\u5199\\U0001f431"),
            ("ascii", "caf\\xe9 \\u5199\\U0001f431"),
            ("latin-1", "caf\xe9 \\u5199\\U0001f431"),
            ("utf-8", "caf\xe9 \u5199\U0001f431"),
        ],
    )
    def test_no_letter_raises(self, monkeypatch, encoding, printed):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding, errors="strict")
        monkeypatch.setattr(sys, "stdout", stream)
        console.survive_odd_letters()
        print("caf\xe9 \u5199\U0001f431", end="", flush=True)
        assert raw.getvalue().decode(encoding) == printed

    def test_nor_half_of_one(self, monkeypatch):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, "utf-8"))
        console.survive_odd_letters()
        print("caf\udce9", file=sys.stderr, end="", flush=True)
        assert raw.getvalue() == b"caf\\udce9"

    def test_streams_that_are_something_else(self, monkeypatch):
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        console.survive_odd_letters()


class TestUtf8:
    @pytest.mark.parametrize("encoding", ["ascii", "iso8859-1"])
    def test_python_starts_again_where_file_names_would_be_read_otherwise(
        self, monkeypatch, encoding
    ):
        started = []
        monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
        monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "tagseg", "check", "x"])
        monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))
        monkeypatch.setenv("PYTHONUTF8", "0")
        monkeypatch.delenv("PYTHONIOENCODING", raising=False)
        console.in_utf8()
        assert started == [[sys.executable, "-X", "utf8", "-m", "tagseg", "check", "x"]]
        assert os.environ["PYTHONUTF8"] == "1"
        assert os.environ["PYTHONIOENCODING"] == sys.stdout.encoding

    def test_and_not_elsewhere(self, monkeypatch):
        monkeypatch.setattr(os, "execv", lambda *words: pytest.fail("started again"))
        console.in_utf8()


class TestCaches:
    @pytest.fixture(autouse=True)
    def no_folders(self, monkeypatch, tmp_path):
        for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
        (tmp_path / "tmp").mkdir()

    def test_in_the_users_own(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        console.cache_folders()
        assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / ".cache" / "tagseg" / "numba")
        assert "MPLCONFIGDIR" not in os.environ

    def test_what_is_said_counts(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
        monkeypatch.setenv("MPLCONFIGDIR", "here")
        console.cache_folders()
        assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "x" / "tagseg" / "numba")
        assert os.environ["MPLCONFIGDIR"] == "here"

    @pytest.mark.parametrize("home", ["/dev/null/home", "/proc/nobody", None])
    def test_a_home_that_cannot_be_written_or_is_not_known(self, monkeypatch, tmp_path, home):
        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        if home is None:
            monkeypatch.setattr(Path, "home", no_home)
        else:
            monkeypatch.setenv("HOME", home)
        console.cache_folders()
        folder = tmp_path / "tmp" / f"tagseg-{os.getuid()}"
        assert os.environ["NUMBA_CACHE_DIR"] == str(folder / "numba")
        assert os.environ["MPLCONFIGDIR"] == str(folder / "matplotlib")


def started(*words: object, **more: str) -> subprocess.Popen[bytes]:
    """A command in a process of its own; variables that are empty are dropped."""
    environment = {k: v for k, v in {**os.environ, **more}.items() if v}
    return subprocess.Popen(
        [sys.executable, "-m", "tagseg", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


@pytest.mark.parametrize(
    ("environment", "printed"),
    [
        ({"PYTHONIOENCODING": "cp1252"}, b"caf\xe9 1, \\u732b 1"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}, "café 1, 猫 1".encode()),
    ],
)
def test_names_that_the_console_lacks(tmp_path, environment, printed):
    for name in ("写真 1", "Käse"):
        PilImage.new("RGB", (40, 40)).save(tmp_path / f"{name}.png")
    rows = "image,tags\n写真 1.png,猫\nKäse.png,café\n"
    (tmp_path / "tags.csv").write_text(rows, encoding="utf-8")
    out, err = started("check", tmp_path, **environment).communicate(timeout=120)
    assert b"photos per class: " + printed in out
    assert b"Traceback" not in err
