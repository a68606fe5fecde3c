from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tagseg.errors import WorkspaceError
from tagseg.run.lock import FolderLock

HOLD = """
import sys, time
from pathlib import Path
from tagseg.run.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_another_process_is_kept_out_until_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(
                WorkspaceError, match=rf"in use by process {holder.pid} on \S+ since"
            ):
                FolderLock(tmp_path)
        finally:
            holder.send_signal(signal.SIGKILL)
    FolderLock(tmp_path).release()


def test_one_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "new")
    with pytest.raises(WorkspaceError, match=f"in use by process {os.getpid()} "):
        FolderLock(tmp_path / "new")
    lock.release()
    lock.release()
    again = FolderLock(tmp_path / "new")
    (tmp_path / "new/.lock-owner.json").write_text("?")
    with pytest.raises(WorkspaceError, match="in use by another process"):
        FolderLock(tmp_path / "new")
    again.release()
    assert not (tmp_path / "new/.lock-owner.json").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match="cannot be used"):
        FolderLock(tmp_path / "file" / "run")
