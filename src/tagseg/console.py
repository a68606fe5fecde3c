"""What the command line needs of the process around it: letters, its end, folders for caches."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

__all__ = ["cache_folders", "in_utf8", "leave", "survive_odd_letters", "user_cache"]

_PATIENCE = 3.0  # seconds for threads that are in the middle of something


def in_utf8() -> None:
    """Start Python again in its UTF-8 mode where file names would be read otherwise.

    In an ASCII or Latin-1 locale names that are UTF-8 on disk could be neither told nor written.
    Output stays in the encoding of the console.
    """
    if sys.getfilesystemencoding().lower() in ("utf-8", "utf8") or os.name == "nt":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def survive_odd_letters() -> None:
    """Print letters that the console's encoding lacks as ``\\u5199``, and never raise for one."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def leave(status: int) -> NoReturn:
    """End this process at once: libraries that are taken down while threads work in them abort.

    Threads get a moment to finish what they are writing.
    """
    until = time.monotonic() + _PATIENCE
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(max(0.0, until - time.monotonic()))
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(status)


def cache_folders() -> None:
    """Name folders to numba and matplotlib, which fail or complain where home is read-only."""
    base = _cache()
    os.environ.setdefault("NUMBA_CACHE_DIR", str(base / "numba"))
    if base.parent == Path(tempfile.gettempdir()):
        os.environ.setdefault("MPLCONFIGDIR", str(base / "matplotlib"))


def user_cache(name: str) -> Path:
    """The folder ``name`` among tagseg's in the user's cache, there and writable or not."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "tagseg" / name


def _cache() -> Path:
    """tagseg's folder for caches: in the user's own if that can be written, else a temporary."""
    with suppress(RuntimeError, OSError):  # no home at all; a home that cannot be written
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tagseg"
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=base):
            return base
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"tagseg-{user}"
