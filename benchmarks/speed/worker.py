"""A process that holds one system and does to it what it is told: `python -m benchmarks.speed.worker NAME FOLDER`.

Times are taken here, around the calls of the system alone. It runs in the environment of its system, where neither the
library nor any other system need be installed.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from importlib import metadata
from typing import Any, BinaryIO

import numpy as np

from .adapters import NotOffered
from .catalogue import SYSTEMS
from .rows import Rows
from .wire import receive, send

__all__ = ["Worker", "main"]


class Worker:
    """One system in one folder, and the commands it understands."""

    def __init__(self, name: str, folder: str) -> None:
        self._known, self._folder = SYSTEMS[name], folder
        self._system: Any = None

    def do(self, message: dict[str, Any], data: bytes) -> dict[str, Any]:
        """Carry out one command and return the reply."""
        given = {**message, "data": data} if data else message
        return getattr(self, "do_" + given.pop("do"))(**given)

    # --- life ---------------------------------------------------------------------------------------------------

    def do_open(self, dim: int) -> dict[str, Any]:
        """Import and open the system."""
        cpu, wall = time.process_time(), time.perf_counter()
        module = importlib.import_module(f"benchmarks.speed.adapters.{self._known.module}")
        self._system = module.System(self._folder, dim, **self._known.options)
        self._system.open()
        return _spent(cpu, wall)

    def do_versions(self) -> dict[str, Any]:
        """Return the versions of the packages that the system stands on."""
        found = {}
        for name in self._known.shown:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = "not installed"
        return {"versions": {**found, **getattr(self._system, "versions", dict)()}}

    def do_close(self) -> dict[str, Any]:
        """Close the system."""
        cpu, wall = time.process_time(), time.perf_counter()
        self._system.close()
        self._system = None
        return _spent(cpu, wall)

    def do_memory(self) -> dict[str, Any]:
        """Return the bytes of memory of this process: not backed by files, resident, and the most it ever was."""
        with open("/proc/self/status", encoding="utf-8") as file:
            fields = dict(line.split(":", 1) for line in file)
        return {name: int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "VmRSS", "VmHWM")}

    # --- writing ------------------------------------------------------------------------------------------------

    def do_bulk(self, data: bytes, rows: dict[str, Any]) -> dict[str, Any]:
        """Add many rows at once."""
        many = Rows.from_wire(rows, data)
        cpu, wall = time.process_time(), time.perf_counter()
        self._system.bulk(many)
        return _spent(cpu, wall)

    def do_ready(self) -> dict[str, Any]:
        """Let the system build what it builds after many rows, so that it can be asked."""
        cpu, wall = time.process_time(), time.perf_counter()
        self._system.ready()
        return _spent(cpu, wall)

    def do_add(self, data: bytes, rows: dict[str, Any], seconds: float, at: float = 0) -> dict[str, Any]:
        """Add rows one by one, for at most so many *seconds*; begin *at* that time of the clock."""
        ones = Rows.from_wire(rows, data).one_by_one()
        time.sleep(max(0.0, at - time.time()))
        begun, cpu, wall = time.time(), time.process_time(), time.perf_counter()
        done = 0
        for one in ones:
            self._system.add(one)
            done += 1
            if time.perf_counter() - wall > seconds:
                break
        return {**_spent(cpu, wall), "done": done, "begun": begun, "ended": time.time()}

    def do_count(self, ids: list[int]) -> dict[str, Any]:
        """Return how many of *ids* are stored."""
        return {"count": self._system.count(ids)}

    # --- asking -------------------------------------------------------------------------------------------------

    def do_ask(
        self, what: str, k: int, dim: int, arguments: list[list[Any]], seconds: float, data: bytes = b""
    ) -> dict[str, Any]:
        """Ask *what* of the system, once per row of *arguments* and vector, for at most so many *seconds*."""
        vectors: Any = np.frombuffer(data, "<f4").reshape(-1, dim) if data else [None] * len(arguments)
        method = getattr(self._system, what)
        found, wall_ms = [], []
        cpu_all, wall_all = time.process_time(), time.perf_counter()
        for vector, given in zip(vectors, arguments, strict=True):
            wall = time.perf_counter()
            hits = method(*([] if vector is None else [vector]), *given, k)
            wall_ms.append((time.perf_counter() - wall) * 1e3)
            found.append(hits)
            if time.perf_counter() - wall_all > seconds:
                break
        spent = time.process_time() - cpu_all
        ids = [[one for one, _ in hits] for hits in found]
        complete = all(isinstance(text, str) and text for hits in found for _, text in hits)
        return {"ids": ids, "wall_ms": wall_ms, "cpu_ms": spent * 1e3 / len(found), "complete": complete}


def _spent(cpu: float, wall: float) -> dict[str, Any]:
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def serve(worker: Worker, commands: BinaryIO, replies: BinaryIO) -> None:
    """Do what *commands* say until they end."""
    while True:
        try:
            message, data = receive(commands)
        except EOFError:
            return
        try:
            reply = worker.do(message, data)
        except NotOffered as exc:
            reply = {"not_offered": str(exc)}
        except Exception as exc:  # noqa: BLE001 - whatever a system raises is the reason in its row
            reply = {"error": f"{type(exc).__name__}: {exc}"}
        send(replies, reply)


def main() -> None:
    """Take commands from standard input; what a system prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(Worker(sys.argv[1], sys.argv[2]), sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
