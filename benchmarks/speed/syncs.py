"""How often a system asks the disk to keep what was written: strace counts the calls."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["counted"]

_CALLS = "fsync,fdatasync,msync,sync_file_range,sync,syncfs"


def counted(pid: int, work: Callable[[], int]) -> float | None:
    """Return the calls to sync per unit of *work*, which returns how many units it did; None if it cannot be counted.

    Counting slows what it counts: never time the same work.
    """
    strace = shutil.which("strace")
    if strace is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "calls")
        command = [strace, "-f", "-qq", "-e", f"trace={_CALLS}", "-o", str(table), "-p", str(pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            if not _attached(pid, tracer):
                return None
            units = work()
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate()
        calls = re.findall(rf"^\d+ +(?:{_CALLS.replace(',', '|')})\(", table.read_text("utf-8"), re.MULTILINE)
    return len(calls) / units


def _attached(pid: int, tracer: subprocess.Popen[str]) -> bool:
    """Wait until every thread of the process is traced."""
    deadline = time.monotonic() + 10
    while tracer.poll() is None and time.monotonic() < deadline:
        try:
            states = [task.read_text("utf-8") for task in Path(f"/proc/{pid}/task").glob("*/status")]
        except OSError:  # a thread ended meanwhile
            continue
        if all("TracerPid:\t0\n" not in state for state in states):
            return True
        time.sleep(0.02)
    return False
