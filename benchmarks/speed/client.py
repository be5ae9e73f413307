"""The suite's side of a worker: start it, tell it what to do, and stop it when it takes too long."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

from .rows import Rows
from .wire import receive, send

__all__ = ["Client", "Failed", "NotOffered"]

ROOT = Path(__file__).resolve().parents[2]
# What decides over how many threads a library uses for arithmetic.
_THREADS = ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "RAYON_NUM", "TOKIO_WORKER", "LANCE_CPU")


class Failed(Exception):
    """A system did not do what it was told; the message is the reason."""


class NotOffered(Failed):
    """A system has no such thing."""


class Client:
    """A worker with one system. One thread for arithmetic, so that systems are compared and not their use of cores."""

    def __init__(self, name: str, python: str, folder: Path, dim: int) -> None:
        self.name, self._dim = name, dim
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder.parent / f"{name}.log"
        self.folder = folder
        one = dict.fromkeys((f"{which}_THREADS" for which in _THREADS), "1")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAEBURN_")}
        # Modules are compiled once, as those of an installed package are: else we alone would compile ours every time.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment |= one | {"PYTHONPATH": str(ROOT)}
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                [python, "-m", "benchmarks.speed.worker", name, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=ROOT,
            )

    def tell(self, command: str, /, data: bytes = b"", **message: Any) -> None:
        """Send a command without waiting for its end."""
        assert self.process.stdin is not None
        try:
            send(self.process.stdin, {"do": command, **message}, data)
        except OSError as exc:
            raise Failed(f"its process is gone: {self._last_words()}") from exc

    def hear(self, limit: float) -> dict[str, Any]:
        """Return the reply to what was told.

        Raises:
            Failed: It took more than *limit* seconds and was killed, it died, or it raised.
        """
        assert self.process.stdout is not None
        late = threading.Event()

        def kill() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(limit, kill)
        timer.start()
        try:
            reply, _ = receive(self.process.stdout)
        except EOFError:
            self.process.wait()
            if late.is_set():
                raise Failed(f"stopped after {limit:.0f} s") from None
            raise Failed(f"its process ended with {self.process.returncode}: {self._last_words()}") from None
        finally:
            timer.cancel()
        if "not_offered" in reply:
            raise NotOffered(reply["not_offered"])
        if "error" in reply:
            raise Failed(reply["error"])
        return reply

    def do(self, command: str, limit: float, /, data: bytes = b"", **message: Any) -> dict[str, Any]:
        """Tell, and hear."""
        self.tell(command, data, **message)
        return self.hear(limit)

    def open(self, limit: float) -> dict[str, Any]:
        """Open the system."""
        return self.do("open", limit, dim=self._dim)

    def send_rows(self, command: str, rows: Rows, limit: float, **message: Any) -> dict[str, Any]:
        """Hand over rows."""
        fields, data = rows.to_wire()
        return self.do(command, limit, data, rows=fields, **message)

    def close(self, limit: float) -> None:
        """Close the system, and end its process."""
        try:
            self.do("close", limit)
        finally:
            self.end()

    def end(self) -> None:
        """End the process whatever it does."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.process.poll() is None:
            try:
                self.process.stdin.close()
                self.process.wait(5)
            except (OSError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what was not sent to a process that is gone
                stream.close()

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"
