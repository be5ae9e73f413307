"""What the operating system knows about processes: who they are, who belongs together, who listens where.

On Linux it is read from `/proc`; elsewhere `psutil` (extra `hub`) is asked.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "WATCHER",
    "Identity",
    "boot",
    "end_group",
    "identify",
    "listeners",
    "members",
    "owns_port",
    "reap_group",
    "same",
]

WATCHER = "raeburnmemory-watcher"  # what the watcher of a group is called, in its own list of arguments
_PROC = sys.platform == "linux" and os.path.exists("/proc/self/stat")
_POLL = 0.02  # seconds between two looks at a group that is ending
_LISTEN = "0A"  # as /proc/net/tcp writes the state


@dataclass(frozen=True)
class Identity:
    """Who a process is: a number is used again, a number with the moment of its start is not.

    `started` is in the system's own unit, and compared, never shown; `boot` tells one run of the system from another.
    `exe` is the program that it runs at the moment, empty where that may not be known.
    """

    pid: int
    started: str
    boot: str
    exe: str = ""


def boot() -> str:
    """Return what tells this run of the system from others."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
    return str(int(_psutil().boot_time()))


def identify(pid: int) -> Identity | None:
    """Return who the process *pid* is; None if there is none, or only what is left of one that ended."""
    if _PROC:
        fields = _stat(pid)
        if fields is None or fields[0] in "ZX":
            return None
        return Identity(pid, fields[19], boot(), _exe(pid))
    psutil = _psutil()
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        with contextlib.suppress(psutil.AccessDenied):
            return Identity(pid, repr(process.create_time()), boot(), process.exe())
        return Identity(pid, repr(process.create_time()), boot())
    except psutil.NoSuchProcess:
        return None


def same(known: Identity) -> bool:
    """Tell whether the process that was *known* still runs: the number, the moment of its start, and its program."""
    found = identify(known.pid)
    return (
        found is not None
        and (found.started, found.boot) == (known.started, known.boot)
        and (not known.exe or not found.exe or found.exe == known.exe)
    )


def members(group: int) -> list[int]:
    """Return the processes of the *group* that still run, but for its watcher."""
    return [pid for pid in _group(group) if not _is_watcher(pid)]


def _group(group: int) -> list[int]:
    if _PROC:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [pid for pid in pids if (all_of := _stat(pid)) and all_of[2] == str(group) and all_of[0] not in "ZX"]
    found = []
    psutil = _psutil()
    for process in psutil.process_iter(["pid", "status"]):
        with contextlib.suppress(OSError):
            if os.getpgid(process.info["pid"]) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(int(process.info["pid"]))
    return found


def _is_watcher(pid: int) -> bool:
    return WATCHER in _arguments(pid)[:4]


def _arguments(pid: int) -> list[str]:
    if _PROC:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return file.read().decode("utf-8", "replace").split("\0")
        except OSError:
            return []
    psutil = _psutil()
    with contextlib.suppress(psutil.Error):
        return list(psutil.Process(pid).cmdline())
    return []


def end_group(group: int, grace: float, *, signals: Callable[[int, int], None] = os.killpg) -> bool:
    """End all processes of *group*: ask them to (TERM), and after *grace* seconds make them (KILL).

    The caller sees to it that *group* is still the one that it means: that its first process was not waited for, or
    that it was identified a moment ago. Return True if asking was enough.
    """
    asked = True
    with contextlib.suppress(ProcessLookupError):
        signals(group, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while members(group):
            if time.monotonic() >= deadline:
                asked = False
                break
            time.sleep(_POLL)
        signals(group, signal.SIGKILL)  # the watcher, who does not hear TERM, goes with this one
        deadline = time.monotonic() + max(grace, 2.0)
        while _group(group) and time.monotonic() < deadline:  # one that waits for a disk may take a moment
            time.sleep(_POLL)
    return asked


def reap_group(group: int) -> None:
    """Take in what is left of processes of *group* that became our children, as they do where we are the first one."""
    with contextlib.suppress(ChildProcessError, PermissionError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass


def listeners(group: int) -> list[int] | None:
    """Return the TCP ports that the processes of *group* listen on; None where that cannot be found out."""
    if _PROC:
        return _listeners_proc(members(group))
    psutil = _psutil()
    ports = set()
    for pid in members(group):
        try:
            for each in psutil.Process(pid).net_connections("tcp"):
                if each.status == psutil.CONN_LISTEN:
                    ports.add(int(each.laddr.port))
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            return None
    return sorted(ports)


def owns_port(group: int, port: int) -> bool | None:
    """Tell whether it is a process of *group* that listens on *port*; None where that cannot be found out."""
    found = listeners(group)
    return None if found is None else port in found


def _listeners_proc(pids: Iterable[int]) -> list[int] | None:
    sockets = set()
    for pid in pids:
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    target = os.readlink(f"/proc/{pid}/fd/{name}")
                    if target.startswith("socket:["):
                        sockets.add(target[8:-1])
        except FileNotFoundError:
            continue
        except PermissionError:
            return None
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), open(table, encoding="ascii") as file:
            for line in list(file)[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and fields[9] in sockets:
                    ports.add(int(fields[1].rpartition(":")[2], 16))
    return sorted(ports)


def _stat(pid: int) -> list[str] | None:
    """Return the fields of `/proc/PID/stat` from the state on: 0 state, 1 parent, 2 group, 19 moment of the start."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode("ascii").split()  # a name may have brackets and spaces
    except (FileNotFoundError, ProcessLookupError):
        return None


def _exe(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def _psutil() -> Any:
    from ..._optional import extra

    with extra("hub", module="psutil"):
        import psutil
    return psutil
