"""What is left of what was acknowledged when a program is killed: `python -m benchmarks.kills --systems ours-sqlite`.

A process adds row after row to a store, and is killed (SIGKILL) at a random moment; another one goes on with the same
store, and so on. At the end a process that has seen none of it counts what is there. That is the death of a program and
not a power cut: what the system has in its own memory is kept.

Systems and environments are those of `python -m benchmarks`, peers are installed when they are first asked for.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from .speed.catalogue import OURS, SYSTEMS
from .speed.client import Client, Failed
from .speed.environments import default_cache, python_for
from .speed.workload import DIM, Clustered

_LIMIT = 120.0  # seconds for one answer
_AT_ONCE = 500  # ids in one question whether they are there


@dataclass(frozen=True)
class Outcome:
    """How often a system was killed, how many rows it had acknowledged, how many of these are gone, and what failed."""

    kills: int
    acknowledged: int
    lost: int | None
    failure: str = ""


def killed(name: str, python: str, folder: Path, kills: int, longest: float, seed: int = 0) -> Outcome:
    """Kill the system *name* so often, each time after at most *longest* seconds of adding, and count."""
    chance, workload = random.Random(seed), Clustered(seed)
    acked: list[int] = []
    number = 0
    for done in range(kills):
        worker = Client(name, python, folder, DIM)
        try:
            worker.open(_LIMIT)
        except Failed as exc:
            worker.end()
            return Outcome(done, len(acked), None, f"unreadable after {done} kills: {exc}")
        timer = threading.Timer(chance.uniform(0, longest), worker.process.kill)
        timer.start()
        try:
            while True:
                number += 1
                worker.send_rows("add", workload.rows(number, 1), _LIMIT, seconds=_LIMIT)
                acked.append(number)
        except Failed as exc:
            if timer.is_alive():  # it failed by itself
                timer.cancel()
                worker.end()
                return Outcome(done, len(acked), None, str(exc))
        worker.end()
    worker = Client(name, python, folder, DIM)
    try:
        worker.open(_LIMIT)
        some = (acked[at : at + _AT_ONCE] for at in range(0, len(acked), _AT_ONCE))
        there = sum(worker.do("count", _LIMIT, ids=part)["count"] for part in some)
        worker.close(_LIMIT)
    except Failed as exc:
        return Outcome(kills, len(acked), None, f"unreadable after {kills} kills: {exc}")
    finally:
        worker.end()
    return Outcome(kills, len(acked), len(acked) - there)


def main() -> int:
    parser = argparse.ArgumentParser(description="What is left of what was acknowledged when a program is killed.")
    parser.add_argument("--systems", default=",".join(OURS), help="those of python -m benchmarks; %(default)s")
    parser.add_argument("--kills", type=int, default=20, help="how often each is killed; %(default)s")
    parser.add_argument("--longest", type=float, default=1.0, help="seconds until it is, at most; %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=None, help="where peers are installed")
    given = parser.parse_args()
    worst = 0
    for name in given.systems.split(","):
        try:
            python = python_for(SYSTEMS[name].packages, given.cache or default_cache(), 600)
        except RuntimeError as exc:
            print(f"{name}: {exc}")
            worst = 1
            continue
        with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as folder:
            found = killed(name, python, Path(folder, "store"), given.kills, given.longest, given.seed)
        lost = found.failure or f"{found.lost:,} lost"
        print(f"{name}: {found.kills} kills, {found.acknowledged:,} acknowledged, {lost}", flush=True)
        worst = max(worst, int(bool(found.failure or found.lost)))
    return worst


if __name__ == "__main__":
    sys.exit(main())
