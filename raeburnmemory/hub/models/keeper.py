"""A detached model: a manager in a process of its own, which outlives the command that started it.

It is a whole manager, so a detached model has the watcher, the log and the restarts of any other one. It ends when the
model does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LlamafileError
from . import errors
from .errors import PlatformUnsupported, ProcessExited

if TYPE_CHECKING:
    from .limits import Limits
    from .running import Launch
    from .store import ModelFolder

__all__ = ["keep", "main"]


def keep(folder: ModelFolder, job: Launch, limits: Limits, idle_timeout: float | None) -> None:
    """Start *job* in a keeper, and wait until it is ready.

    Raises:
        LlamafileError: What the keeper met with.
        PlatformUnsupported: This is a frozen application, which cannot start one.
    """
    name = job.file.spec.name
    if getattr(sys, "frozen", False):
        raise PlatformUnsupported(
            "A frozen application cannot detach a model.", model=name, remedy="Let the application run on."
        )
    order = {
        "folder": str(folder.root),
        "job": job.to_dict(),
        "limits": dataclasses.asdict(limits),
        "idle_timeout": idle_timeout,
    }
    package = str(Path(__file__).resolve().parents[3])
    paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    # Its own session: neither the terminal's Ctrl-C nor its end reaches it. What varies goes in by the pipe, where
    # other users do not see it.
    process = subprocess.Popen(  # noqa: S603 - a list, no shell
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": paths},
        cwd="/",
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        with process.stdin as pipe, contextlib.suppress(BrokenPipeError):
            pipe.write(json.dumps(order).encode())
        with process.stdout as pipe:
            said = pipe.read()
        with process.stderr as pipe:
            complaint = pipe.read().decode("utf-8", "replace")
    except BaseException:
        process.terminate()
        process.wait()
        raise
    # Taken in when it ends, so that it is no zombie for as long as we live.
    threading.Thread(target=process.wait, name="raeburnmemory-keeper", daemon=True).start()
    _raise_what(said, complaint, name)


def _raise_what(said: bytes, complaint: str, name: str) -> None:
    try:
        told = json.loads(said)
    except ValueError:
        last = complaint.strip().splitlines()[-1:] or ["nothing"]
        raise ProcessExited(
            f"The keeper of model {name!r} ended without a word; its last line: {last[0]!r}.",
            model=name,
            remedy="Start it without detaching, to see why.",
        ) from None
    if told["ready"]:
        return
    kind = getattr(errors, told["error"], LlamafileError)
    error = kind.__new__(kind)
    Exception.__init__(error, told["message"])
    error.__dict__.update(told["fields"] | {"log_tail": tuple(told["fields"]["log_tail"])})
    raise error


def main() -> int:
    """Read what to keep from standard input, start it, say whether it is ready, and stay until it has ended."""
    from .limits import Limits
    from .processes import Processes
    from .running import Launch
    from .store import ModelFolder

    order: dict[str, Any] = json.load(sys.stdin)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    job = Launch.from_dict(order["job"])
    name = job.file.spec.name
    manager = Processes(
        ModelFolder(order["folder"]),
        idle_timeout=order["idle_timeout"],
        limits=Limits(**order["limits"]),
        on_event=lambda event: ended.set() if event.state in {"stopped", "failed"} else None,
    )
    try:
        manager.keep(job)
    except LlamafileError as exc:
        _tell({"ready": False, "error": type(exc).__name__, "message": str(exc), "fields": _plain(exc)})
        return 1
    _tell({"ready": True})
    manager.wait(name, ended)
    manager.close()
    return 0


def _plain(error: LlamafileError) -> dict[str, Any]:
    kept = {key: value for key, value in vars(error).items() if isinstance(value, (str, int, float, type(None)))}
    return kept | {"log_tail": list(error.log_tail)}


def _tell(what: dict[str, Any]) -> None:
    """Say *what* to whoever started us, and let go of the pipes to it: nobody will read them any more."""
    sys.stdout.write(json.dumps(what))
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)


if __name__ == "__main__":
    raise SystemExit(main())
