"""What the tests of processes share: managers over stand-ins, and looking after what they leave behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from stand_in import make_model

from raeburnmemory.hub.models import system
from raeburnmemory.hub.models.limits import Limits
from raeburnmemory.hub.models.processes import Processes
from raeburnmemory.hub.models.spec import ModelSpec, RunnableFile
from raeburnmemory.hub.models.store import ModelFolder

ROOT = Path(__file__).resolve().parents[2]
QUICK = Limits(stall=20.0, start=60.0, grace=1.0)


def runnable(path, name="tiny", *, kind="chat", dialect="auto", args=(), magic="script"):
    """Return *path* as the files of a folder hand it over; the file itself was not read."""
    spec = ModelSpec(name, path.name, kind=kind, dialect=dialect, args=args)
    return RunnableFile(spec, str(path), magic, "", path.stat().st_size if path.exists() else 0)


class Bench:
    """A folder with stand-ins, and managers over it that are closed at the end."""

    def __init__(self, folder):
        _OTHERS.update(_children())
        self.folder = folder
        self.events = []
        self._managers = []

    def manager(self, **options):
        options = {"limits": QUICK, "max_running": 9, "idle_timeout": None, **options}
        made = Processes(ModelFolder(self.folder), on_event=self.events.append, **options)
        self._managers.append(made)
        return made

    def file(self, name="tiny", dialect="llama-server", *, kind="chat", args=(), detect=False, **faults):
        """Write a stand-in; its dialect is told to the manager, which is quicker, unless it is to *detect* it."""
        path = make_model(self.folder / f"{name}.llamafile", dialect, **faults)
        return runnable(path, name, kind=kind, dialect="auto" if detect else dialect, args=args)

    def close(self):
        for manager in self._managers:
            manager.close()
        deadline = time.monotonic() + 5.0
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.05)  # a watcher gives its group a moment
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert left == []

    def left(self):
        """Return the processes that run a file of this folder, or were started by one, or watch one."""
        folder = str(self.folder)
        return [pid for pid, line in processes() if folder in line or _works_in(pid).startswith(folder)]


def _works_in(pid):
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/cwd")
    return ""


def processes():
    """Yield the number and the command line of each process."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                yield int(name), line


_OTHERS = {}  # what other tests of this process started, and may end at any time


def zombies():
    """Return our children that began since the bench was made, ended, and are not taken in soon after."""
    until = time.monotonic() + 5
    while (found := _zombies()) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def _zombies():
    found = _children()
    return [pid for pid, (state, began) in found.items() if state == "Z" and _OTHERS.get(pid, (0, 0))[1] != began]


def _children():
    """Return the state and the moment of the start of each child of ours, by its number."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == os.getpid():
                    found[int(name)] = fields[0], fields[19]
    return found


def alive(pid):
    return system.identify(pid) is not None


def wait_for(check, seconds=15.0):
    """Wait until *check* is true, and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return found


def python(code, *arguments, **options):
    """Run *code* in another interpreter, which knows this package and these tests."""
    paths = [str(ROOT), str(Path(__file__).parent)]
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{code}", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
