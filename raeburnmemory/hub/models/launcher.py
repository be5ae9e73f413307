"""How a model is started: in a group of its own, with a watcher in it that outlives nobody.

Three lines of defence against a model that runs on after its manager was killed:

1. The watcher: a shell in the model's process group that reads from a pipe. The other end is in the manager alone, so
   when the manager is gone, however it went, the pipe ends; then the watcher ends the whole group, children of the
   model's included: TERM, and after a grace KILL.
2. On Linux the kernel itself sends TERM to the model when the thread that started it ends (PR_SET_PDEATHSIG, set by
   `setpriv`), should the watcher be killed. It reaches no grandchildren.
3. The record that says who the process is, by which the next manager ends it.

The watcher is `/bin/sh` rather than Python: it weighs 1 MB, starts in a millisecond, and works in a frozen application,
which has no interpreter to start. Setting the signal in a `preexec_fn` was turned down: it runs Python in a fork of a
process with threads.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

from .formats import SHELL
from .system import WATCHER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Lifeline", "Spawner", "child_environment", "launch"]

# Its standard input is the pipe. A signal that is ignored stays so in its children, here only `sleep`. Where there is
# /proc it waits for all of the group, else for the model: its number is not used again while one of its group lives.
_WATCH = """trap '' TERM HUP INT QUIT TSTP TTIN TTOU
ticks=$1 model=$PPID
group() { shift 2; group=$1; }
if read -r line <"/proc/$$/stat"; then group ${line##*\\) }; else group=; fi
others() {
  [ -n "$group" ] || { kill -0 "$model"; return; }
  for stat in /proc/[0-9]*/stat; do
    read -r line <"$stat" || continue
    set -- ${line##*\\) }
    [ "$3" = "$group" ] && [ "$1" != Z ] && [ "$stat" != "/proc/$$/stat" ] && return 0
  done
  return 1
}
read -r _
kill -TERM 0
n=0
while [ "$n" -lt "$ticks" ] && others; do sleep 0.2 || sleep 1; n=$((n+1)); done
kill -KILL 0
"""
# Everything that varies is in the arguments, never in the text of the script. Only descriptors up to 9 have a name in
# every shell, so the pipe comes in as standard input.
_START = """exec 3<&0 0</dev/null
"$1" -c "$2" "$3" "$4" <&3 3<&- >/dev/null 2>&1 &
shift 4
exec 3<&-
exec "$@"
"""
_SECRET = re.compile(r"(?i)API_?KEY|TOKEN|SECRET|PASSW|CREDENTIAL|^RAEBURN|^LLAMA_ARG_|^LLAMA_API")
_LIBRARIES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LIBPATH")

_lifelines: weakref.WeakSet[Lifeline] = weakref.WeakSet()


class Lifeline:
    """Our end of the pipe that a watcher reads: as long as it is open, the model may live."""

    def __init__(self) -> None:
        self.other, self._fd = os.pipe()
        _lifelines.add(self)

    def handed_over(self) -> None:
        """Close the end that the watcher has now."""
        if self.other >= 0:
            os.close(self.other)
            self.other = -1

    def cut(self) -> None:
        """Let the watcher end the group."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _cut_all() -> None:
    """In a fork of ours: it must not keep a model alive that our end of the pipe is for."""
    for line in list(_lifelines):
        line.handed_over()
        line.cut()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_cut_all)


class Spawner:
    """One thread that starts all models of a manager, and lives as long as it does.

    The kernel's signal at a parent's death comes when the *thread* that started a process ends: a model that was
    started in a short-lived thread would be ended with it.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()

    def __call__(self, do: Callable[[], Any]) -> Any:
        """Call *do* in that thread; return what it returns, raise what it raises."""
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with self._guard:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="raeburnmemory-spawner", daemon=True)
                self._thread.start()
            self._work.put((do, answer))
        value, error = answer.get()
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """End the thread, and with it what the kernel holds it responsible for."""
        with self._guard:
            if self._thread is not None:
                self._work.put(None)
                self._thread.join(5.0)
                self._thread = None

    def _run(self) -> None:
        while (job := self._work.get()) is not None:
            do, answer = job
            try:
                answer.put((do(), None))
            except BaseException as exc:  # noqa: BLE001 - it is raised where it was asked for
                answer.put((None, exc))


def launch(
    command: Sequence[str], *, environment: Mapping[str, str], folder: str, grace: float, lifeline: Lifeline
) -> subprocess.Popen[bytes]:
    """Start *command* in a session of its own, its watcher beside it; its output is the pipe `stdout`.

    Call it in a `Spawner`. The watcher waits *grace* seconds between TERM and KILL.
    """
    ticks = str(max(1, round(grace / 0.2)))
    started = [SHELL, "-c", _START, "raeburnmemory-model", SHELL, _WATCH, WATCHER, ticks, *_death_signal(), *command]
    process = subprocess.Popen(  # noqa: S603 - a list; the shell's text is ours and holds nothing of it
        started,
        stdin=lifeline.other,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=dict(environment),
        start_new_session=True,
        bufsize=0,
    )
    lifeline.handed_over()
    return process


@functools.cache
def _death_signal() -> tuple[str, ...]:
    """Return the command that makes the kernel send TERM when we end; empty where there is none such."""
    path = shutil.which("setpriv")
    if sys.platform != "linux" or path is None:
        return ()
    command = (path, "--pdeathsig", "TERM", "--")
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # BusyBox has one without that option
        subprocess.run(  # noqa: S603 - a list, no shell
            [*command, "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10.0, check=True
        )
        return command
    return ()


def child_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a model: ours without secrets, without what would change its server, with *more*.

    A llamafile is a program of somebody else's: it gets no key, token or password. In a frozen application the folder
    of its libraries is taken out, or what was there before put back: a model has libraries of its own.
    """
    kept = {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
    if getattr(sys, "frozen", False):
        for name in _LIBRARIES:
            kept.pop(name, None)
            before = kept.pop(f"{name}_ORIG", None)
            if before:
                kept[name] = before
    return kept | dict(more or {})
