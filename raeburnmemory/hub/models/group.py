"""The process of a model with all that it starts: one thing to wait for, to signal and to take in."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from typing import TYPE_CHECKING

from . import system
from .launcher import Lifeline, launch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .launcher import Spawner

__all__ = ["ProcessGroup"]


class ProcessGroup:
    """A process that leads a group of its own, from its start until it is taken in.

    Until then its number is its own, even when it has ended: so it may be signalled without asking who has the number.
    """

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], folder: str, grace: float, spawner: Spawner
    ) -> None:
        self._lifeline = Lifeline()
        self._guard = threading.Lock()
        self._taken_in = False
        self.exit_code: int | None = None  # negative for the number of a signal

        def start() -> subprocess.Popen[bytes]:
            return launch(command, environment=environment, folder=folder, grace=grace, lifeline=self._lifeline)

        try:
            self._process: subprocess.Popen[bytes] = spawner(start)
        except BaseException:
            self._lifeline.handed_over()
            self._lifeline.cut()
            raise
        self.pid = self._process.pid

    def output(self) -> int:
        """Return the descriptor of what it prints, which the caller closes."""
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            return os.dup(pipe.fileno())

    def exited(self, *, wait: bool = False) -> bool:
        """Tell whether the process ended, or *wait* until it does; `exit_code` says how. It is not taken in."""
        if self.exit_code is not None:
            return True
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            self.exit_code = self._process.wait() if wait else self._process.poll()
            return self.exit_code is not None
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG))
        except ChildProcessError:  # somebody else in this program waits for all children there are
            self.exit_code = 0
            return True
        if found is None:
            return False
        self.exit_code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        return True

    def signal(self, number: int) -> None:
        """Send the signal *number* to all of the group, if there still is one."""
        with self._guard, contextlib.suppress(ProcessLookupError):
            if not self._taken_in:
                os.killpg(self.pid, number)

    def take_in(self, grace: float) -> None:
        """End what is left of it, within *grace* seconds or by force, and take it in: no zombie stays."""
        system.end_group(self.pid, grace)
        self.exited(wait=True)
        with self._guard:
            self._process.wait()
            self._taken_in = True
        self._lifeline.cut()
        system.reap_group(self.pid)
